"""A folder of 10,000 files and 1 GB exchanged with another process, beside `rsync -a` of it: the first time, and unchanged.

Law: no network and no ssh on either side: a socket for us, rsync's own pipe for rsync, so that only the work with files counts.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from figures import Figure, ratio
from given import fill
from place import Place
from remora_provisioner.machines.exchange.home import FolderHome

_ROUNDS, _UNCHANGED = 3, 7
_MOST = 1 << 40
_SERVE = (
    "import socket, sys; from pathlib import Path; from remora_provisioner.machines.exchange.serving import serve\n"
    "sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read(1)\n"
    "serve(Path(sys.argv[1]), Path(sys.argv[2]), socket.socket(fileno=int(sys.argv[3])))"
)


def measure(place: Place) -> list[Figure]:
    """Measure both sides by turns; without rsync only ours."""
    source, root = place.folder / "source", place.folder
    fill(source)
    home = FolderHome(source, root / "home", "there", writable=True, most=_MOST)

    def ours() -> float:
        return _exchange(home, root / "there", root / "state")

    def anew() -> float:
        for name in ("home", "there", "state"):
            shutil.rmtree(root / name, ignore_errors=True)
        os.sync()
        return ours()

    def rsync() -> float:
        return _rsync(source, root / "copy")

    def rsync_anew() -> float:
        shutil.rmtree(root / "copy", ignore_errors=True)
        os.sync()
        return rsync()

    compared = shutil.which("rsync") is not None
    first, first_theirs = _rounds(_ROUNDS, 1, anew, rsync_anew if compared else None)
    again, again_theirs = _rounds(_UNCHANGED, 3, ours, rsync if compared else None)
    figures = [
        Figure("1 GB in 10,000 files to another process, the first time", tuple(side[0] for side in first)),
        Figure("the same unchanged", tuple(second for side in again for second in side)),
    ]
    if compared:
        figures += [
            ratio("1 GB in 10,000 files, the first time / rsync -a, without a network", first, first_theirs),
            ratio("the same unchanged / rsync -a, without a network", again, again_theirs),
        ]
    return figures


def _rounds(rounds: int, each: int, *sides: Callable[[], float] | None) -> list[list[list[float]]]:
    """Return the samples of each side, taken by turns."""
    taken = [[[side() for _ in range(each)] if side else [] for side in sides] for _ in range(rounds)]
    return [list(side) for side in zip(*taken, strict=True)]


def _exchange(home: FolderHome, folder: Path, state: Path) -> float:
    """Return the seconds of an exchange with a process that is ready for it, as an agent is."""
    here, there = socket.socketpair()
    with here, there:
        command = [sys.executable, "-c", _SERVE, str(folder), str(state), str(there.fileno())]
        with subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdout.read(1)
            other.stdin.write(b".")
            other.stdin.close()
            began = time.perf_counter()
            home.exchange(here)
            other.wait()
            return time.perf_counter() - began


def _rsync(source: Path, target: Path) -> float:
    """Return the seconds of `rsync -a` with a server of its own, started as ssh would, but without ssh."""
    shell = "sh -c 'shift; exec \"$@\"' sh"
    began = time.perf_counter()
    subprocess.run(["rsync", "-a", f"--rsh={shell}", f"{source}/", f"there:{target}/"], check=True)
    return time.perf_counter() - began
