"""What a test may leave behind: nothing. A footprint is taken before and after, and the difference is a failure.

Law: only looks (at /proc, the temporary folder, control groups) and ends leaked processes of this very test session, by their id.
A process is ours when it descends from pytest, carries the session's mark in its environment, names the session's folder on its
command line or is a sandbox with a folder of the session; so two test runs at once on one machine do not disturb each other.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "REMORA_TEST_SESSION"
GRACE = 5.0  # seconds in which what a test has closed may finish going
_CGROUPS = Path("/sys/fs/cgroup")
_KEPT = ("pytest-of-", ".")  # pytest's own folders, and those of the session's home


@dataclass(frozen=True)
class Footprint:
    """What exists at one moment: each thing under its identity, with the words that name it to a person."""

    processes: dict[int, str]
    threads: dict[int, str]
    files: dict[str, str]
    mounts: dict[str, str]
    cgroups: dict[str, str]
    folders: dict[str, str]

    def grown_since(self, before: Footprint) -> dict[str, dict[int, str] | dict[str, str]]:
        """Return what is here and was not before, by kind, leaving out kinds that have not grown."""
        pairs = ((kind, getattr(self, kind), getattr(before, kind)) for kind in self.__dataclass_fields__)
        grown = {kind: {key: value for key, value in now.items() if key not in then} for kind, now, then in pairs}
        return {kind: things for kind, things in grown.items() if things}


def take(session: Path) -> Footprint:
    """Take the footprint of this process and of all that belongs to the test session with that folder."""
    gc.collect()
    return Footprint(
        processes=processes(session),
        threads={t.ident: t.name for t in threading.enumerate() if t.ident is not None},
        files=open_files(),
        mounts={line: line for line in _lines(Path("/proc/self/mountinfo")) if str(session) in line},
        cgroups=empty_cgroups(),
        folders={e.name: e.path for e in os.scandir(session) if not e.name.startswith(_KEPT)},
    )


def settle(before: Footprint, session: Path) -> dict[str, dict[int, str] | dict[str, str]]:
    """Wait until nothing is left of what came since `before`, for at most GRACE seconds, and return what still is."""
    deadline = time.monotonic() + GRACE
    while grown := take(session).grown_since(before):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        _wait_for_change(grown, before, min(left, 0.2))
    return grown


def end(pids: list[int]) -> None:
    """End leaked processes, so that the next test starts clean."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def processes(session: Path) -> dict[int, str]:
    """Return the living processes of this test session (zombies left out), with their command lines."""
    parents = {pid: parent for pid, parent, state in _census() if state not in "ZX"}
    mark = f"{MARK}={session}".encode()
    return {
        pid: _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()
        for pid in parents
        if pid != os.getpid() and (_descends(pid, parents) or _belongs(pid, mark, session))
    }


def open_files() -> dict[str, str]:
    """Return this process's open descriptors, each with what it leads to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if not target.startswith(f"/proc/{os.getpid()}/fd"):
                found[f"{name} {target}"] = f"{name} -> {target}"
    return found


def empty_cgroups() -> dict[str, str]:
    """Return the control groups of Remora that hold no process any more, however deep; others come and go meanwhile."""
    found = (Path(top, name) for top, names, _ in os.walk(_CGROUPS) for name in names if name.startswith("remora"))
    return {str(p): str(p) for p in found if p.is_dir() and not _text(p / "cgroup.procs").strip()}


def _wait_for_change(grown: dict[str, dict[int, str] | dict[str, str]], before: Footprint, seconds: float) -> None:
    if pids := [key for key in grown.get("processes", {}) if isinstance(key, int)]:
        _wait_for_exit(pids[0], seconds)
    elif "threads" in grown:
        for thread in threading.enumerate():
            if thread.ident not in before.threads:
                thread.join(seconds)
    else:
        # A socket of ZeroMQ is closed by a thread of the library's own, which offers nothing to wait for.
        select.select([], [], [], min(seconds, 0.02))


def _wait_for_exit(pid: int, seconds: float) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)


def _census() -> Iterator[tuple[int, int, str]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _text(Path(f"/proc/{name}/stat"))):
            state, parent = stat.rpartition(")")[2].split()[:2]
            yield int(name), int(parent), state


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == os.getpid():
            return True
    return False


def _belongs(pid: int, mark: bytes, session: Path) -> bool:
    place = Path(f"/proc/{pid}")
    return mark in _bytes(place / "environ") or str(session).encode() in _bytes(place / "cmdline") or _sees(place, session)


def _sees(place: Path, session: Path) -> bool:
    # A sandbox: in a process namespace of its own, with a folder of the session bound into its view. What is merely
    # mounted inside the session's folder shows up in every service of the machine, and is no sign at all.
    try:
        if os.readlink(place / "ns" / "pid") == os.readlink("/proc/self/ns/pid"):
            return False
    except OSError:  # gone meanwhile, or another user's
        return False
    sources = (line.split(" ", 4)[3] for line in _lines(place / "mountinfo"))
    return any(session.name in source.split("/") for source in sources)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone meanwhile, or another user's
        return b""


def _text(path: Path) -> str:
    return _bytes(path).decode(errors="replace")


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()
