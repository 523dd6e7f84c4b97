"""Trees: what an image holds, as an index of paths, digests and modes; the digest of the index names the tree.

Law: pure values, nothing here touches a disk. A tree that exists is safe to make real anywhere: no path and no link leads out of
it, nothing lies below a file or a link, and equal content has equal bytes. Differences are merged from the bottom up.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from remora.errors import StoreRefused

from .paths import check_digest, check_path, parents
from .symlinks import check_links


@dataclass(frozen=True, slots=True)
class File:
    """A file: its content is the object with that digest (sha256, hex) and mode."""

    path: str
    digest: str
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder; those that hold something are implied and need no entry."""

    path: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A whiteout: what lies below this tree is not seen at this path; beside a Folder it says that the folder starts empty."""

    path: str


Entry = File | Link | Folder | Gone

_dump = json.JSONEncoder(separators=(",", ":")).encode
_LETTERS: dict[type[Any], str] = {File: "f", Link: "l", Folder: "d", Gone: "g"}
_MAKERS: dict[str, Callable[..., Entry]] = {letter: kind for kind, letter in _LETTERS.items()}


@dataclass(frozen=True)
class Tree:
    """A checked index, sorted by path; a path has one entry, or a Gone and then a Folder. Make it with `of` or `from_bytes`."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Entry], *, system: bool = False) -> Tree:
        """Check and sort entries; absolute links are for root file systems (`system`) only.

        StoreRefused with "path-escapes", "link-escapes" or "malformed".
        """
        ordered = tuple(sorted(entries, key=_order))
        for entry in ordered:
            _check_entry(entry)
        _check_unique(ordered)
        _check_nesting(ordered)
        check_links(_links(ordered), system)
        return cls(ordered)

    @classmethod
    def from_bytes(cls, data: bytes, *, system: bool = False) -> Tree:
        """Read what `to_bytes` wrote, and only that; the same checks as in `of`, "malformed" for anything else."""
        try:
            rows = json.loads(b"[" + b",".join(data.splitlines()) + b"]")
            tree = cls.of([_MAKERS[row[0]](*row[1:]) for row in rows], system=system)
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise StoreRefused("this is not the index of a tree; fetch the image again", reason="malformed") from error
        if tree.to_bytes() != data:
            raise StoreRefused("this index of a tree is not in its one canonical form; fetch it again", reason="malformed")
        return tree

    @classmethod
    def from_known_bytes(cls, data: bytes) -> Tree:
        """Read what `to_bytes` wrote and a digest vouches for, without checking it again."""
        rows = json.loads(b"[" + b",".join(data.splitlines()) + b"]")
        tree = cls(tuple(_MAKERS[row[0]](*row[1:]) for row in rows))
        tree.__dict__["_bytes"] = data
        return tree

    @classmethod
    def union(cls, trees: Sequence[Tree]) -> Tree:
        """Return all trees together, each over those before it; the same as by `merged`, in one go where they do not meet."""
        if len(trees) == 1 and not any(isinstance(entry, Gone) for entry in trees[0].entries):
            return trees[0]
        found = {entry.path: entry for tree in trees for entry in tree.entries}
        leaves = {path for path, entry in found.items() if isinstance(entry, File | Link)}
        folders = {above for path in found for above in parents(path)}
        folders |= {entry.path for tree in trees for entry in tree.entries if not isinstance(entry, File | Link)}
        if leaves & folders or any(isinstance(entry, Gone) for tree in trees for entry in tree.entries):
            return reduce(cls.merged, trees, cls())
        united = cls(tuple(sorted(found.values(), key=_order)))
        if len(trees) > 1:
            check_links(_links(united.entries), system=True)
        lines = {entry.path: line for tree in trees for entry, line in zip(tree.entries, tree._lines, strict=True)}
        united.__dict__["_bytes"] = b"".join([lines[entry.path] for entry in united.entries])
        return united

    def to_bytes(self) -> bytes:
        """Return the canonical form: one JSON array a line, in order."""
        return self._bytes

    @cached_property
    def _bytes(self) -> bytes:
        return "".join([_dump(_row(entry)) + "\n" for entry in self.entries]).encode("ascii")

    @property
    def _lines(self) -> list[bytes]:
        return self._bytes.splitlines(keepends=True)

    @cached_property
    def digest(self) -> str:
        """The name of the tree: sha256 of `to_bytes()`, in hex."""
        return hashlib.sha256(self._bytes).hexdigest()

    @cached_property
    def size(self) -> int:
        """The bytes of all files together, each path counted."""
        return sum(file.size for file in self.files())

    def files(self) -> list[File]:
        """Return the files in order."""
        return [entry for entry in self.entries if isinstance(entry, File)]

    def objects(self) -> set[tuple[str, bool]]:
        """Return the objects that the tree needs, as (digest, executable)."""
        return {(file.digest, file.executable) for file in self.files()}

    def under(self, prefix: str) -> Tree:
        """Return the tree with every path below `prefix`."""
        check_path(prefix)
        return Tree(tuple(_moved(entry, f"{prefix}/{entry.path}") for entry in self.entries))

    def merged(self, upper: Tree) -> Tree:
        """Return `upper` over this tree: its whiteouts are applied and gone, its files and links replace what was there.

        StoreRefused with "link-escapes" if a link of one leads out of the tree through a link of the other.
        """
        closed = {entry.path for entry in upper.entries if not isinstance(entry, Folder)}
        opened = {above for entry in upper.entries if not isinstance(entry, Gone) for above in parents(entry.path)}
        opened |= {entry.path for entry in upper.entries if isinstance(entry, Folder)}
        kept = [entry for entry in self.entries if not _hidden(entry, closed, opened)]
        kept += [entry for entry in upper.entries if not isinstance(entry, Gone)]
        merged = Tree(tuple(sorted(dict.fromkeys(kept), key=_order)))
        if merged._bytes not in (self._bytes, upper._bytes):
            check_links(_links(merged.entries), system=True)
        return merged


def _order(entry: Entry) -> tuple[str, bool]:
    return entry.path, not isinstance(entry, Gone)


def _row(entry: Entry) -> list[Any]:
    if isinstance(entry, File):
        return ["f", entry.path, entry.digest, entry.size, entry.executable]
    if isinstance(entry, Link):
        return ["l", entry.path, entry.target]
    return [_LETTERS[type(entry)], entry.path]


def _moved(entry: Entry, path: str) -> Entry:
    if isinstance(entry, File):
        return File(path, entry.digest, entry.size, entry.executable)
    if isinstance(entry, Link):
        return Link(path, entry.target)
    return type(entry)(path)


def _links(entries: Iterable[Entry]) -> dict[str, str]:
    return {entry.path: entry.target for entry in entries if isinstance(entry, Link)}


def _check_entry(entry: Entry) -> None:
    check_path(entry.path)
    if isinstance(entry, File):
        check_digest(entry.digest)
        if type(entry.size) is not int or entry.size < 0 or type(entry.executable) is not bool:
            raise StoreRefused(f"the size or mode of {entry.path!r} is nonsense; fetch the image again", reason="malformed")


def _check_unique(ordered: tuple[Entry, ...]) -> None:
    for first, second in itertools.pairwise(ordered):
        if first.path == second.path and not (isinstance(first, Gone) and isinstance(second, Folder)):
            raise StoreRefused(f"{first.path!r} is there twice; a path has one entry", reason="malformed")


def _check_nesting(ordered: tuple[Entry, ...]) -> None:
    leaves = {entry.path for entry in ordered if isinstance(entry, File | Link)}
    for entry in ordered:
        for above in parents(entry.path):
            if above in leaves:
                raise StoreRefused(f"{entry.path!r} lies below {above!r}, which is no folder", reason="path-escapes")


def _hidden(entry: Entry, closed: set[str], opened: set[str]) -> bool:
    """Say whether an entry of the lower tree is not seen below the upper one's `closed` paths and `opened` folders."""
    if entry.path in closed or (entry.path in opened and isinstance(entry, File | Link)):
        return True
    return any(above in closed for above in parents(entry.path))
