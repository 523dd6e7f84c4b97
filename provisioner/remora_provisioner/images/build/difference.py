"""Taking in what commands have made of a system, or what brought one along: without the traces of the work, as a tree.

Law: code of others has made these folders, so no link in them is followed, and nothing of it runs any more.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ..tree import Entry, Folder, Gone, Tree
from ..work import remove
from .work import Work

_NOISE = (
    *("proc", "dev", "sys", "tmp", "run", "var/tmp", "var/log", "var/backups", "var/run", "var/lock", "etc/.pwd.lock"),
    *("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/resolv.conf"),
    *("var/lib/apt/lists", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/triggers/Lock"),
    *("var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old"),
    *("root/.cache", "root/.npm", "root/.bash_history", "root/.python_history", "root/.wget-hsts"),
)
"""Traces of the work that nobody needs, relative to the top."""
_CACHE, _KEPT_CACHE = "var/cache", "debconf"


def take_in(work: Work, folder: Path, below: Sequence[Path] = (), closed: frozenset[str] = frozenset()) -> Tree:
    """Take in a folder laid out like a root, which is used up, and return its tree.

    Folders that the layers `below` have are left out unless they start empty, as those that are `closed` do.
    """
    for name in (*_NOISE, *_caches(folder)):
        if not any((folder / above).is_symlink() for above in Path(name).parents):
            remove(folder / name)
    _settle(folder)
    entries: list[Entry] = []
    for entry in work.store.scan(folder, system=True).entries:
        if isinstance(entry, Folder) and entry.path in closed:
            entries.append(Gone(entry.path))
        elif isinstance(entry, Folder) and entries[-1:] != [Gone(entry.path)] and _has_folder(below, entry.path):
            continue  # it was there before; what is new in it has entries of its own
        entries.append(entry)
    return Tree(tuple(dict.fromkeys(entries)))


def _has_folder(layers: Sequence[Path], path: str) -> bool:
    found = next((place for layer in reversed(layers) if os.path.lexists(place := layer / path)), None)
    return found is not None and found.is_dir() and not found.is_symlink()


def _caches(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return [f"{_CACHE}/{name}" for name in os.listdir(folder / _CACHE) if name != _KEPT_CACHE]
    return []


def _settle(folder: Path) -> None:
    """Make what was changed ours, readable and plain: no sockets, and no file that still says which overlay it came through."""
    waiting, root = [str(folder)], os.geteuid() == 0
    while waiting:
        here = waiting.pop()
        os.chmod(here, 0o755)
        with os.scandir(here) as listed:
            for entry in listed:
                if root:
                    os.chown(entry.path, 0, 0, follow_symlinks=False)
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append(entry.path)
                elif stat.S_ISREG(mode):
                    _plain(entry.path, mode)
                elif stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
                    os.unlink(entry.path)


def _plain(path: str, mode: int) -> None:
    if not mode & stat.S_IRUSR:
        os.chmod(path, stat.S_IMODE(mode) | stat.S_IRUSR)
    for name in os.listxattr(path):
        if name.startswith("user.overlay."):
            os.removexattr(path, name)
