"""What another user of the same machine can do, tried by becoming one. Root is needed."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

STRANGER = 54321
_ATTACH = 16


def as_stranger(tried: Callable[[], list[str]]) -> list[str]:
    """Return what a function returns in a process of another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            os.write(writing, json.dumps(tried()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as told:
        found: list[str] = json.loads(told.read())
    os.waitpid(child, 0)
    return found


@contextlib.contextmanager
def passable(folder: Path) -> Iterator[None]:
    """Let everybody look into the folders above, and into this one, so that its own contents must protect themselves."""
    places = [folder, *(above for above in folder.parents if above.stat().st_mode & 0o005 != 0o005)]
    modes = {place: stat.S_IMODE(place.stat().st_mode) for place in places}
    for place in places:
        place.chmod(0o755)
    try:
        yield
    finally:
        for place, mode in modes.items():
            place.chmod(mode)


def opened(paths: Iterable[Path]) -> list[str]:
    """Return which of these can be read, written, listed or connected to, or have something put beside them."""
    return [f"{how} {path}" for path in paths for how, does in _WAYS.items() if _works(does, path)]


def touched(pids: Iterable[int]) -> list[str]:
    """Return what of these processes can be read, and which can be signalled or traced."""
    found = []
    for pid in pids:
        names = ("environ", "mem", "maps", "fd", "cwd", "root")
        found += [f"read {pid} {name}" for name in names if _works(_look, Path(f"/proc/{pid}/{name}"))]
        with contextlib.suppress(PermissionError):
            os.kill(pid, 0)
            found.append(f"signal {pid}")
        if ctypes.CDLL(None, use_errno=True).ptrace(_ATTACH, pid, 0, 0) == 0:
            found.append(f"trace {pid}")
    return found


def _works(does: Callable[[Path], object], path: Path) -> bool:
    try:
        does(path)
    except OSError:
        return False
    return True


def _look(path: Path) -> None:
    if path.is_dir():
        os.listdir(path)
    else:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def _write(path: Path) -> None:
    if path.is_dir():
        os.mkdir(path / "put-there")
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def _connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))


_WAYS: dict[str, Callable[[Path], object]] = {"read": _look, "write": _write, "connect": _connect}
