"""The private writable rest of a sandbox: made before it starts, emptied after it has ended.

Law: works on the directory that the plan names and leaves the directory itself alone.
"""

from __future__ import annotations

import os
from pathlib import Path

_PRIVATE, _SHARED = 0o700, 0o1777


def prepare(scratch: Path, host_id: int | None) -> None:
    """Make the folders that become home, /tmp, /var/tmp, /run and the working folder, owned by the sandbox."""
    for name, mode in (("home", _PRIVATE), ("tmp", _SHARED), ("var-tmp", _SHARED), ("run", 0o755), ("folder", _PRIVATE)):
        place = scratch / name
        place.mkdir(exist_ok=True)
        place.chmod(mode)
        if host_id is not None:
            os.chown(place, host_id, host_id)


def clear(scratch: Path) -> None:
    """Remove everything in the directory, whatever modes and depth user code has left there; nothing may run in it any more.

    Folders are moved up before they are emptied, so that no depth of nesting can make a path too long.
    """
    count = 0
    waiting = [scratch] if scratch.is_dir() else []
    while waiting:
        folder = waiting.pop()
        with os.scandir(folder) as entries:
            listed = list(entries)
        for entry in listed:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, _PRIVATE)
            count += 1
            moved = scratch / f".cleared-{os.getpid()}-{count}"
            os.rename(entry.path, moved)
            waiting.append(moved)
        if folder != scratch:
            os.rmdir(folder)
