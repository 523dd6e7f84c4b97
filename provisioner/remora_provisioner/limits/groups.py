"""The control group file system: where it is, and the few things done to it.

Law: paths and files only; which limit goes into which file is known to v1.py and v2.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from pathlib import Path


def mount_points(file_system: str) -> list[tuple[Path, str, frozenset[str]]]:
    """Return (mount point, root of the mount, options) of each mounted `file_system`, "cgroup" or "cgroup2"."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == file_system:
            root, point = fields.split()[3:5]
            found.append((Path(point.encode().decode("unicode_escape")), root, frozenset(options.split(","))))
    return found


def own_group(controller: str) -> str | None:
    """Return the group this process is in: of a v1 controller, or of v2 for ""."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return None


def place(point: Path, root: str, group: str) -> Path:
    """Return the folder of a group; the mount point itself where the group lies outside of what is mounted."""
    try:
        return point / Path(group).relative_to(root)
    except ValueError:
        return point


def make(group: Path) -> None:
    """Make a group. Raises OSError."""
    group.mkdir()


def write_if_there(file: Path, value: str) -> None:
    """Write a control file that not every kernel has."""
    if file.exists():
        file.write_text(value)


def read_number(file: Path) -> int | None:
    """Return the number in a control file, None if there is none (or "max")."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def read_count(file: Path, name: str) -> int:
    """Return the count behind `name` in a file of "name count" lines, 0 if it is not there."""
    try:
        pairs = dict(line.split(" ", 1) for line in file.read_text().splitlines() if " " in line)
    except OSError:
        return 0
    return int(pairs.get(name, "0"))


def can_enter(entrances: tuple[Path, ...]) -> bool:
    """Try with a child process whether the entrances let us in."""
    child = os.fork()
    if child == 0:
        try:
            for entrance in entrances:
                entrance.write_text("0")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def remove(group: Path) -> None:
    """Remove a group; processes still in it are ended and waited for. A group that is gone already is fine."""
    with contextlib.suppress(FileNotFoundError):
        try:
            group.rmdir()
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                raise
            _empty(group)
            group.rmdir()


def _empty(group: Path) -> None:
    while pids := (group / "cgroup.procs").read_text().split():
        for pid in map(int, pids):
            with contextlib.suppress(ProcessLookupError):
                _end(pid)


def _end(pid: int) -> None:
    end = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(end, signal.SIGKILL)
        watch = select.poll()
        watch.register(end, select.POLLIN)
        watch.poll()
    finally:
        os.close(end)
