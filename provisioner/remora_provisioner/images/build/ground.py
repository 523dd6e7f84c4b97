"""The ground of steps of the system: what commands must be able to change of the machine, as a layer that belongs to them.

A build has one user and owns nothing of the machine, so it could make nothing in the machine's folders. The ground has all of
these anew, empty: an overlay shows what is in them. Of /etc and the state of packages it has the files too, so that they can be
written to; files of /usr and /opt can be replaced and removed. Law: what not everybody may read is neither copied nor seen. A
ground is made once for a state of the machine, aside and renamed into place, and nobody writes in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..scanning import OPAQUE
from ..store import Store
from ..work import remove

_MOST = 4 << 20  # bytes of a file that is copied
_TOPS = ("etc", "opt", "usr", "var")
_FOLDERS_ONLY = ("opt/", "usr/", "var/lib/dpkg/info/")
_EMPTY = (
    *("var/backups", "var/log", "var/mail", "var/spool", "var/tmp", "var/www"),
    *("var/lib/apt/lists", "var/lib/flatpak", "var/lib/man-db", "var/lib/snapd"),
)
_CACHE, _KEPT_CACHE = "var/cache", "debconf"
_LOCKED = {"etc/shadow": ("etc/passwd", "{}:*:19000:0:99999:7:::"), "etc/gshadow": ("etc/group", "{}:*::")}
_NO_SERVICES = "#!/bin/sh\nexit 101\n"
_KEPT_SECONDS = 2 * 86_400
_DEPTH = 2  # of folders of /usr and /opt by whose times a change of the machine is noticed


@dataclass(frozen=True)
class Ground:
    """A layer above the machine's own system."""

    folder: Path
    closed: frozenset[str]
    """Folders that start empty, because not everybody may read what is in them."""

    @classmethod
    def of_machine(cls, store: Store) -> Ground:
        """Return the ground for the machine as it is now, made if need be. Raises OSError."""
        place = store.root / "ground" / _state()
        if not place.is_dir():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            for old in place.parent.iterdir():
                if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                    remove(old)
            aside = Path(store.work.place())
            try:
                lay(aside)
                with contextlib.suppress(OSError):  # somebody else was faster
                    os.rename(aside, place)
            finally:
                remove(aside)
        return cls(place / "root", frozenset(json.loads((place / "closed.json").read_text())))


def lay(place: Path) -> None:
    """Make a ground below a new folder: root/, and closed.json, which lists what is closed. Raises OSError."""
    place.mkdir(mode=0o700)
    laying = _Laying(str(place / "root"))
    os.mkdir(laying.target, 0o755)
    for name in sorted(os.listdir("/")):
        if name in _TOPS or os.path.islink(f"/{name}"):
            laying.visit(name, os.lstat(f"/{name}"))
    for name, (names, line) in _LOCKED.items():
        every = Path(laying.target, names).read_text(errors="replace").splitlines()
        laying.write(name, "".join(line.format(one.partition(":")[0]) + "\n" for one in every))
    laying.write("usr/sbin/policy-rc.d", _NO_SERVICES, 0o755)
    (place / "closed.json").write_text(json.dumps(sorted(laying.closed)))


def no_services(folder: Path) -> None:
    """Let packages that are installed start no service: Debian's ask this program."""
    program = folder / "usr/sbin/policy-rc.d"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(_NO_SERVICES)
    program.chmod(0o755)


@dataclass
class _Laying:
    """A ground while it is made; paths are relative to the top."""

    target: str
    closed: set[str] = field(default_factory=set)

    def visit(self, path: str, facts: os.stat_result) -> None:
        """Lay what the machine has at a path."""
        if stat.S_ISDIR(facts.st_mode):
            self._folder(path, facts)
        elif path not in _LOCKED and not f"{path}/".startswith(_FOLDERS_ONLY):
            self._file(path, facts)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file."""
        file = Path(self.target, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def _folder(self, path: str, facts: os.stat_result) -> None:
        target, folders_only = f"{self.target}/{path}", f"{path}/".startswith(_FOLDERS_ONLY)
        os.mkdir(target, 0o755)
        if path in _EMPTY:
            return
        if not _is_open(path, facts):
            os.setxattr(target, OPAQUE, b"y")
            self.closed.add(path)
            return
        if folders_only and facts.st_nlink == 2:  # a folder has a link for each folder in it
            return
        with os.scandir(f"/{path}") as listed:
            for entry in listed:
                wanted = entry.is_dir(follow_symlinks=False) if folders_only else path != _CACHE or entry.name == _KEPT_CACHE
                if wanted:
                    self.visit(f"{path}/{entry.name}", entry.stat(follow_symlinks=False))

    def _file(self, path: str, facts: os.stat_result) -> None:
        target = f"{self.target}/{path}"
        if stat.S_ISLNK(facts.st_mode):
            os.symlink(os.readlink(f"/{path}"), target)
        elif not stat.S_ISREG(facts.st_mode) or facts.st_size > _MOST:
            return
        elif facts.st_mode & stat.S_IROTH:
            shutil.copyfile(f"/{path}", target)
            os.chmod(target, facts.st_mode & 0o777 | 0o600)
        else:
            os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(0, 0))


def _is_open(path: str, facts: os.stat_result) -> bool:
    """Say whether a build may read a folder; what other users keep in /var is not for it."""
    mine = facts.st_uid == os.geteuid() != 0
    if path.startswith("var/") and facts.st_uid != 0 and not mine:
        return False
    return facts.st_mode & 0o005 == 0o005 or mine


def _state() -> str:
    """Return what tells one state of the machine from another; a day later it is another one in any case."""
    seen = [str(int(time.time()) // 86_400)]
    for path, facts in _looked_at():
        seen.append(f"{path} {facts.st_mtime_ns} {facts.st_size} {facts.st_mode}")
    return hashlib.sha256("\n".join(sorted(seen)).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _looked_at() -> Iterator[tuple[str, os.stat_result]]:
    for path in ("/var/lib/dpkg/status", "/var/lib/dpkg/info", "/var/lib"):
        with contextlib.suppress(OSError):
            yield path, os.stat(path)
    for top, most in (("/etc", 99), ("/usr", _DEPTH), ("/opt", _DEPTH)):
        for folder, folders, files in os.walk(top):
            if folder.count("/") > most:
                folders.clear()
            for name in (".", *(files if top == "/etc" else ())):
                with contextlib.suppress(OSError):
                    yield f"{folder}/{name}", os.lstat(f"{folder}/{name}")
