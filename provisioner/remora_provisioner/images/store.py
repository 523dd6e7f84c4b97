"""The image store of one machine: objects by digest, trees of them, farms that make trees real, and leases that keep trees.

Law: what is seen under a final name is whole and never changes; half-made things are in work/ only. A lease is what keeps a tree
from being collected (see gc.py). Layout: objects/ab/REST[.x], trees/DIGEST, farms/DIGEST/, leases/NAME, work/, lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from remora.errors import StoreRefused

from .farms import make_farm
from .lock import StoreLock
from .objects import Objects, read_chunks
from .paths import check_digest
from .scanning import Scan
from .tree import File, Tree
from .work import Work

MOST_INDEX = 256 << 20  # bytes of an index: some two million files
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,199}")
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Store:
    """A store below one folder, for as many processes and threads as like."""

    def __init__(self, root: Path) -> None:
        """Open the store, or make an empty one that only its owner can enter."""
        self.root = root
        for name in ("objects", "trees", "farms", "leases", "work"):
            (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
        self.lock = StoreLock(root / "lock")
        self.work = Work(root / "work")
        self.objects = Objects(root / "objects", self.work, self.lock)

    # ---- objects
    def put(self, source: Path, digest: str | None = None, executable: bool = False, move: bool = False) -> tuple[str, int]:
        """Store a file and return its digest and size; with `move` the source is used up.

        A source whose digest is given and there already is not read. StoreRefused with "wrong-digest".
        """
        if digest is not None:
            check_digest(digest)
        stored = self.objects.take(str(source), digest, executable, link=move)
        if move:
            source.unlink()
        return stored

    def put_bytes(self, data: bytes, digest: str | None = None, executable: bool = False) -> tuple[str, int]:
        """Store a few bytes and return their digest and size; StoreRefused with "wrong-digest"."""
        return self.objects.write_bytes(data, digest, executable)

    def put_chunks(self, chunks: Iterable[bytes], digest: str | None = None, executable: bool = False) -> tuple[str, int]:
        """Store what comes in pieces, as it comes; StoreRefused with "wrong-digest"."""
        return self.objects.write(chunks, digest, executable)

    def read(self, digest: str, executable: bool) -> Generator[bytes, None, None]:
        """Yield the content of an object; raises OSError if it is not there."""
        return read_chunks(self.objects.place(check_digest(digest), executable))

    def has(self, digest: str, executable: bool) -> bool:
        """Say whether an object is there; a collection then spares it for an hour."""
        return self.objects.find(check_digest(digest), executable) is not None

    def scan(self, folder: Path, known: Mapping[str, str] = _NOTHING, link: bool = True, system: bool = False) -> Tree:
        """Take in every file of a folder and return its tree, which is not saved yet.

        `known` maps paths to digests that a wheel's RECORD gives: a file whose object is there is not read. With `link` the
        folder's files themselves become the objects, so it must be thrown away afterwards; those with other names are copied.
        """
        with self.lock.shared():
            return Scan(self.objects, str(folder), known, link, system).run()

    # ---- trees
    def save(self, tree: Tree) -> str:
        """Keep a tree, all of whose objects must be there, and return its digest; StoreRefused with "malformed"."""
        now = time.time()
        with self.lock.shared():
            for file in tree.files():
                if self.objects.find_locked(file.digest, file.executable, now) != file.size:
                    raise StoreRefused(
                        f"{file.path!r} is not in the store as promised; build the image again", reason="malformed"
                    )
            self._write_tree(tree)
        return tree.digest

    def save_real(self, tree: Tree) -> str:
        """Keep a tree and make it real in one go, and return its digest; StoreRefused with "malformed".

        That all its objects are there shows when they are linked, which makes them young as well.
        """
        with self.lock.shared():
            farm = self._farm(tree.digest)
            if not farm.is_dir():
                make_farm(tree, self.objects, self.work, farm)
            self._write_tree(tree)
        return tree.digest

    def load(self, digest: str) -> Tree:
        """Return a tree; StoreRefused with "malformed" if it is not there, with "wrong-digest" if it is not itself."""
        try:
            data = inflate(self._tree(check_digest(digest)).read_bytes())
        except FileNotFoundError as error:
            raise StoreRefused(f"there is no tree {digest[:12]}… here; build the image again", reason="malformed") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise StoreRefused(f"the tree {digest[:12]}… is damaged; remove it and build it again", reason="wrong-digest")
        return Tree.from_known_bytes(data)  # what it may hold was judged when it came

    def trees(self) -> set[str]:
        """Return the digests of all trees."""
        return set(os.listdir(self.root / "trees"))

    def farm(self, digest: str) -> Path:
        """Return the folder that a tree is made real in, after making it if need be. Nobody may write there."""
        farm = self._farm(check_digest(digest))
        with self.lock.shared():
            if not farm.is_dir():
                make_farm(self.load(digest), self.objects, self.work, farm)
        return farm

    def remove_tree(self, digest: str) -> None:
        """Remove a tree and its farm, not its objects; nothing happens if there is none. A lease does not hinder it."""
        check_digest(digest)
        with self.lock.shared():
            self.work.throw_away(self._farm(digest))
            self._tree(digest).unlink(missing_ok=True)

    # ---- leases
    def lease(self, name: str, digests: Iterable[str]) -> None:
        """Keep these trees, and no longer those of an earlier lease with that name, until it is released."""
        text = "".join(f"{check_digest(digest)}\n" for digest in sorted(set(digests)))
        with self.lock.shared():
            self._write(self._lease(name), text.encode())

    def release(self, name: str) -> None:
        """Give up a lease; nothing happens if there is none."""
        self._lease(name).unlink(missing_ok=True)

    def leased(self) -> set[str]:
        """Return the digests of all trees that a lease keeps."""
        found: set[str] = set()
        for path in (self.root / "leases").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.update(path.read_text().split())
        return found

    # ---- the whole
    def size(self) -> int:
        """Return the bytes of all objects."""
        return sum(facts.st_size for _, _, facts in self.objects.every())

    def verify(self) -> list[str]:
        """Re-hash every object and every tree, and return a line for each thing that is wrong."""
        with self.lock.shared():
            return [*self.objects.faults(), *self._tree_faults()]

    def _tree_faults(self) -> Iterator[str]:
        there = {(digest, executable): facts.st_size for digest, executable, facts in self.objects.every()}
        for digest in sorted(self.trees()):
            try:
                files = self.load(digest).files()
            except StoreRefused as error:
                yield f"tree {digest}: {error}"
                continue
            yield from (f"tree {digest}: no object for {f.path!r}" for f in files if not _matches(f, there))

    def _tree(self, digest: str) -> Path:
        return self.root / "trees" / digest

    def _farm(self, digest: str) -> Path:
        return self.root / "farms" / digest

    def _lease(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise StoreRefused(f"{name!r} cannot name a lease; use letters, digits and _.@+-", reason="malformed")
        return self.root / "leases" / name

    def _write_tree(self, tree: Tree) -> None:
        self._write(self._tree(tree.digest), zlib.compress(tree.to_bytes(), 1))

    def _write(self, path: Path, data: bytes) -> None:
        with self.work.file() as place:
            Path(place).write_bytes(data)
            os.replace(place, path)


def inflate(data: bytes) -> bytes:
    """Return an index that was compressed; StoreRefused with "malformed" or, beyond all measure, "too-large"."""
    unpacking = zlib.decompressobj()
    try:
        index = unpacking.decompress(data, MOST_INDEX)
    except zlib.error as error:
        raise StoreRefused("the index of a tree is damaged; build or fetch the image again", reason="malformed") from error
    if unpacking.unconsumed_tail:
        raise StoreRefused("the index of a tree is larger than any image needs", reason="too-large")
    if not unpacking.eof or unpacking.unused_data:
        raise StoreRefused("the index of a tree is damaged; build or fetch the image again", reason="malformed")
    return index


def _matches(file: File, there: Mapping[tuple[str, bool], int]) -> bool:
    return there.get((file.digest, file.executable)) == file.size
