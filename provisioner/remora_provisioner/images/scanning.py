"""Taking in a folder: every file becomes an object, and the folder becomes a tree.

Law: what is neither file, folder nor link is refused, and so are setuid bits, except that in a root file system (`system`)
these are dropped and the whiteouts of an overlay are read as such. What a wheel's RECORD promises is believed only of objects
that are there already; everything else is hashed.
"""

from __future__ import annotations

import collections
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from remora.errors import StoreRefused

from .objects import Objects
from .tree import Entry, File, Folder, Gone, Link, Tree

OPAQUE = "user.overlay.opaque"
"""The attribute of a folder, set to y, by which an overlay without privileges hides what lies below it."""
_THREADS = 2
_SET_BITS = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True)
class Scan:
    """How a folder is taken in; `known` maps relative paths to the digests that their files must have."""

    objects: Objects
    folder: str
    known: Mapping[str, str] = field(default_factory=dict)
    link: bool = True
    system: bool = False

    def run(self) -> Tree:
        """Take in the folder; StoreRefused if anything in it is not fit for a tree."""
        entries: list[Entry] = []
        files: collections.deque[tuple[str, os.stat_result]] = collections.deque()
        for path, facts in _walk(self.folder):
            if stat.S_ISREG(facts.st_mode):
                self._check_bits(path, facts)
                files.append((path, facts))
            else:
                entries += self._other(path, facts)
        from concurrent.futures import ThreadPoolExecutor  # found late: what is found in the store is not taken in

        with ThreadPoolExecutor(_THREADS, "scan") as pool:
            works = [pool.submit(self._take_all, files) for _ in range(_THREADS)]
        for work in works:
            entries += work.result()
        return Tree.of(entries, system=self.system)

    def _take_all(self, files: collections.deque[tuple[str, os.stat_result]]) -> list[File]:
        """Take in files until none is left; the other threads stop as well if one is refused."""
        taken: list[File] = []
        try:
            with self.objects.lock.shared():
                while True:
                    taken.append(self._take(*files.popleft()))
        except IndexError:
            return taken
        finally:
            files.clear()

    def _take(self, path: str, facts: os.stat_result) -> File:
        executable = bool(facts.st_mode & stat.S_IXUSR)
        place = f"{self.folder}/{path}"
        digest, size = self.objects.take(place, self.known.get(path), executable, self.link)
        if size != facts.st_size:
            raise StoreRefused(f"{path!r} is not what was promised, or is being changed; build it again", reason="wrong-digest")
        return File(path, digest, size, executable)

    def _check_bits(self, path: str, facts: os.stat_result) -> None:
        if facts.st_mode & _SET_BITS and not self.system:
            raise StoreRefused(f"{path!r} is setuid or setgid; take the bit away, a sandbox has no use for it", reason="setuid")

    def _other(self, path: str, facts: os.stat_result) -> list[Entry]:
        if stat.S_ISDIR(facts.st_mode):
            opaque = self.system and is_opaque(f"{self.folder}/{path}")
            return [Gone(path), Folder(path)] if opaque else [Folder(path)]
        if stat.S_ISLNK(facts.st_mode):
            return [Link(path, os.readlink(f"{self.folder}/{path}"))]
        if self.system and is_whiteout(facts):
            return [Gone(path)]
        raise StoreRefused(f"{path!r} is a device, pipe or socket; an image holds files, folders and links", reason="device-node")


def _walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(f"{folder}/{prefix}") as listed:
            for entry in listed:
                path = prefix + entry.name
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path + "/")


def is_whiteout(facts: os.stat_result) -> bool:
    """Say whether an overlay takes this for nothing, and hides what lies below it."""
    return stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0


def is_opaque(folder: str) -> bool:
    """Say whether an overlay hides what lies below this folder."""
    for name in ("trusted.overlay.opaque", OPAQUE):
        try:
            if os.getxattr(folder, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False
