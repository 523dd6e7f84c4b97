"""Folders of this machine as trees, to be sent from where they are: nothing is copied, what has not changed is not read again.

Law: a digest is believed as long as size, times and number of its file stay what they were. What its user may not read, what goes
while it is looked at, and what is no file, folder or link, is passed over; what cannot be read for any other reason is an error,
so that no tree lacks something in silence. Compiled modules go along without the time of their source, which is another one over
there; those that are stale here stay here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import stat
import threading
import zlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from remora.errors import StoreRefused, Unavailable

from ..images.objects import read_chunks
from ..images.records import write_whole
from ..images.tree import Entry, File, Folder, Link, Tree

Skip = Callable[[str], bool]
"""Says of a path, relative to the folder, whether it stays here."""
_HEADER = 16
"""Bytes before the code of a compiled module (PEP 552): magic, flags, and the time and size of its source."""
_UNCHECKED = (1).to_bytes(4, "little")
_FORMAT = 1
_MOST = 256
"""Folders whose trees are kept."""
_PASSED_OVER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ESTALE})


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found of a file, as long as it has this stamp."""

    stamp: str
    digest: str


class Folders:
    """The trees of some folders; for one thread at a time, which holds `lock`."""

    def __init__(self, cache: Path) -> None:
        """Remember digests in the file `cache`, between processes too."""
        self._cache, self.lock = cache, threading.Lock()
        self._known: dict[str, _Known] = _loaded(cache)
        self._trees: dict[str, Tree] = {}
        self._sources: dict[tuple[str, bool], str] = {}
        self._glances: dict[str, tuple[int, Tree]] = {}
        self._news = False
        self._last: dict[str, list[str]] = {}
        """Which trees were made last of a folder, or of these files; the one looked at last is the last."""

    def tree(self, folder: Path, skip: Skip = lambda _: False) -> Tree:
        """Return a folder as a tree, whose files can be read here afterwards. Raises Unavailable if it cannot be read."""
        with _readable(folder), os.scandir(folder):
            pass
        seen = _glance(str(folder), skip)
        before = self._glances.get(str(folder))
        if before is None or before[0] != seen:
            tree = self._made(str(folder), Tree.of(self._entries(str(folder), "", skip), system=True))
            before = self._glances[str(folder)] = (seen, tree)
        return before[1]

    def gathered(self, files: Mapping[str, Path]) -> Tree:
        """Return files from wherever they are as a tree, under these names. Raises Unavailable if one cannot be read."""
        found = []
        for name, place in files.items():
            with _readable(place):
                found.append(self._file(name, os.path.realpath(place), os.stat(place)))
        return self._made("\n".join(files), Tree.of([file for file in found if file is not None]))

    def _made(self, name: str, tree: Tree) -> Tree:
        """Keep a new tree and the one before it, which may be on its way just now; older ones are forgotten."""
        digests = [*self._last.pop(name, ()), tree.digest][-2:]
        self._last[name] = digests
        for old in list(self._last)[:-_MOST]:
            del self._last[old]
            self._glances.pop(old, None)
        wanted = {digest for digests in self._last.values() for digest in digests}
        self._trees = {digest: one for digest, one in (self._trees | {tree.digest: tree}).items() if digest in wanted}
        files = {(file.digest, file.executable) for one in self._trees.values() for file in one.files()}
        self._sources = {file: place for file, place in self._sources.items() if file in files}
        return tree

    def keep(self) -> None:
        """Write down what was found new."""
        if self._news:
            self._news = False
            self._known = {path: known for path, known in self._known.items() if os.path.lexists(path)}
            rows = {path: [known.stamp, known.digest] for path, known in self._known.items()}
            write_whole(self._cache, zlib.compress(json.dumps([_FORMAT, rows]).encode("utf-8", "surrogateescape"), 1))

    # ---- what a sender needs

    def load(self, digest: str) -> Tree:
        """Return a tree that was made here; StoreRefused with "malformed" for another one."""
        if digest not in self._trees:
            raise StoreRefused(f"no folder here is the tree {digest[:12]}…; look at the folders again", reason="malformed")
        return self._trees[digest]

    def read(self, digest: str, executable: bool) -> Generator[bytes, None, None]:
        """Yield the content of a file of such a tree, whatever it has become since; Unavailable with "changed" if it is gone."""
        path = self._sources[digest, executable]
        try:
            if path.endswith(".pyc") and (content := _compiled(path)) is not None:
                yield content
            else:
                yield from read_chunks(path)
        except FileNotFoundError as error:
            raise Unavailable(f"{path} went while it was sent; run it again", reason="changed") from error

    # ---- looking

    def _entries(self, folder: str, prefix: str, skip: Skip) -> Iterator[Entry]:
        empty = True
        with _readable(f"{folder}/{prefix}", but=_PASSED_OVER), os.scandir(f"{folder}/{prefix}") as listed:
            for entry in listed:
                path = prefix + entry.name
                if not skip(path):
                    empty = False
                    with _readable(entry.path, but=_PASSED_OVER):
                        yield from self._entry(folder, path, entry, skip)
            if empty and prefix:
                yield Folder(prefix[:-1])

    def _entry(self, folder: str, path: str, entry: os.DirEntry[str], skip: Skip) -> Iterator[Entry]:
        if entry.is_symlink():
            yield Link(path, os.readlink(entry.path))
        elif entry.is_dir():
            yield from self._entries(folder, path + "/", skip)
        elif found := self._file(path, entry.path, entry.stat()):
            yield found

    def _file(self, path: str, place: str, facts: os.stat_result) -> File | None:
        if not stat.S_ISREG(facts.st_mode):
            return None
        compiled = place.endswith(".pyc")
        source = _source(place) if compiled else ""
        stamp = _stamp(facts) + (_stamp_of(source) if source else "")
        known = self._known.get(place)
        if known is None or known.stamp != stamp:
            content = _compiled(place) if source else None
            digest = hashlib.sha256(content).hexdigest() if content is not None else _digest(place) if not source else ""
            self._known[place] = known = _Known(stamp, digest)
            self._news = True
        if not known.digest:  # compiled from what its source was before
            return None
        executable = bool(facts.st_mode & stat.S_IXUSR)
        self._sources[known.digest, executable] = place
        return File(path, known.digest, facts.st_size, executable)


@contextlib.contextmanager
def _readable(path: str | Path, but: Collection[int] = ()) -> Iterator[None]:
    """Say so if something cannot be read: raises Unavailable, or goes on without it for one of these numbers of errors."""
    try:
        yield
    except OSError as error:
        if error.errno not in but:
            raise Unavailable(f"{path} cannot be read ({error.strerror}); see to it and run it again") from error


def _glance(folder: str, skip: Skip) -> int:
    """Return a number that is another one as soon as anything in a folder is."""
    found: list[tuple[str, int, int, int]] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(f"{folder}/{prefix}") as listed:
            for entry in listed:
                path = prefix + entry.name
                if skip(path):
                    continue
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    waiting.append(path + "/")
                else:
                    found.append((path, facts.st_ino, facts.st_size, facts.st_ctime_ns))
    return hash(tuple(found))


def _stamp(facts: os.stat_result) -> str:
    return f"{facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def _stamp_of(path: str) -> str:
    try:
        facts = os.stat(path)
    except OSError:
        return " gone"
    return f" {facts.st_size} {facts.st_mtime_ns}"


def _digest(path: str) -> str:
    hashed = hashlib.sha256()
    with contextlib.closing(read_chunks(path)) as chunks:
        for chunk in chunks:
            hashed.update(chunk)
    return hashed.hexdigest()


def _source(compiled: str) -> str:
    """Return the source that a file in a __pycache__ was compiled from; nothing for one that stands for itself."""
    folder, _, name = compiled.rpartition("/")
    above, _, own = folder.rpartition("/")
    return f"{above}/{name.split('.')[0]}.py" if own == "__pycache__" else ""


def _compiled(path: str) -> bytes | None:
    """Return a compiled module as one whose source nobody looks at; None if it is not compiled from its source of now."""
    source = _source(path)
    content = Path(path).read_bytes()
    if len(content) < _HEADER or int.from_bytes(content[4:8], "little") != 0:
        return content if len(content) >= _HEADER else None
    try:
        facts = os.stat(source)
        text = Path(source).read_bytes()
    except OSError:
        return None
    expected = (int(facts.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (facts.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    if content[8:16] != expected:
        return None
    return content[:4] + _UNCHECKED + importlib.util.source_hash(text) + content[_HEADER:]


def _loaded(cache: Path) -> dict[str, _Known]:
    try:
        form, rows = json.loads(zlib.decompress(cache.read_bytes()).decode("utf-8", "surrogateescape"))
        return {path: _Known(*row) for path, row in rows.items()} if form == _FORMAT else {}
    except (OSError, ValueError, TypeError, zlib.error):
        return {}
