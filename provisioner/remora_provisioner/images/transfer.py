"""Sending a tree from one store to another over a pair of streams: the index, what is lacking, then only that.

Law: the receiver believes nothing: sizes in the index are bounds, every object is verified as it is written, and whatever is not
as promised is refused with its reason and leaves a clean store. What arrived whole stays: a broken transfer goes on where it was.

Frames have a letter and a length: T index · W wants (one bit for each object, in order) · P pack of small objects · O large
object · D done · E refused, with the reason. Both sides know from index and wants which objects come in which order.
"""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

from remora.errors import StoreRefused, Unavailable

from .objects import CHUNK
from .store import MOST_INDEX, Store, inflate
from .tree import Tree

_HEAD = struct.Struct(">cQ")
_SMALL, _PACK = 1 << 16, 1 << 20
_SHORT = 1 << 12  # the most that a D or an E holds


class Shelf(Protocol):
    """What trees are sent from: a store, or folders of which somebody knows the digests."""

    def load(self, digest: str, /) -> Tree:
        """Return a tree."""

    def read(self, digest: str, executable: bool, /) -> Generator[bytes, None, None]:
        """Yield the content of a file of such a tree."""


class Reader(Protocol):
    """The stream that the other side writes to."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes, none at the end."""


class Writer(Protocol):
    """The stream that the other side reads from."""

    def write(self, data: bytes, /) -> int | None:
        """Write bytes; returns how many if not all."""

    def flush(self) -> None:
        """Let what was written go."""


@dataclass(frozen=True)
class _Item:
    digest: str
    executable: bool
    size: int


def send(store: Shelf, digest: str, reader: Reader, writer: Writer) -> None:
    """Send a tree to a peer that calls `receive`, and return when it has all of it.

    StoreRefused with the reason that the peer gave, or "malformed" if it talks nonsense; Unavailable if the connection broke.
    """
    tree = store.load(digest)
    items = _items(tree)
    with _broken():
        _put(writer, b"T", zlib.compress(tree.to_bytes(), 3))
        wants = _read(reader, _expect(reader, b"W", most=(len(items) + 7) // 8))
        if len(wants) != (len(items) + 7) // 8:
            raise _nonsense()
        for batch in _batches([item for at, item in enumerate(items) if wants[at // 8] >> at % 8 & 1]):
            _put_batch(store, writer, batch)
        _expect(reader, b"D", most=0)


def receive(store: Store, reader: Reader, writer: Writer, *, system: bool = False) -> Tree:
    """Receive the tree that a peer sends, save it and return it; absolute links are taken in a root file system only.

    StoreRefused if the peer lies or talks nonsense; Unavailable if the connection broke: then call again over a new one.
    """
    try:
        with _broken():
            index = _read(reader, _expect(reader, b"T", most=MOST_INDEX))
            tree = Tree.from_bytes(inflate(index), system=system)
            items = _items(tree)
            lacking = [not store.has(item.digest, item.executable) for item in items]
            _put(writer, b"W", _bits(lacking))
            for batch in _batches([item for item, lacks in zip(items, lacking, strict=True) if lacks]):
                _take_batch(store, reader, batch)
            store.save(tree)
            _put(writer, b"D", b"")
    except StoreRefused as error:
        with contextlib.suppress(OSError, ValueError):  # the peer may be gone
            _put(writer, b"E", json.dumps({"reason": error.reason, "message": str(error)[:500]}).encode())
        raise
    return tree


def _items(tree: Tree) -> list[_Item]:
    sizes: dict[tuple[str, bool], int] = {}
    for file in tree.files():
        if sizes.setdefault((file.digest, file.executable), file.size) != file.size:
            raise StoreRefused(f"the size of {file.path!r} cannot be true; fetch the image again", reason="malformed")
    return [_Item(digest, executable, size) for (digest, executable), size in sorted(sizes.items())]


def _batches(items: list[_Item]) -> Iterator[list[_Item]]:
    """Yield what goes into one frame: small objects together, a large one alone. Both sides do this alike."""
    batch: list[_Item] = []
    size = 0
    for item in items:
        if item.size > _SMALL:
            yield [item]
            continue
        if size + item.size > _PACK or len(batch) == _SHORT:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.size
    if batch:
        yield batch


def _bits(flags: list[bool]) -> bytes:
    bits = bytearray((len(flags) + 7) // 8)
    for at, flag in enumerate(flags):
        bits[at // 8] |= flag << at % 8
    return bytes(bits)


def _letter(batch: list[_Item]) -> bytes:
    return b"O" if batch[0].size > _SMALL else b"P"


def _put_batch(store: Shelf, writer: Writer, batch: list[_Item]) -> None:
    _write(writer, _HEAD.pack(_letter(batch), sum(item.size for item in batch)))
    for item in batch:
        left = item.size
        with contextlib.closing(store.read(item.digest, item.executable)) as chunks:
            for chunk in chunks:
                left -= len(chunk)
                if left >= 0:
                    _write(writer, chunk)
        if left:
            raise Unavailable("a file changed while it was sent; run it again", reason="changed")
    writer.flush()


def _take_batch(store: Store, reader: Reader, batch: list[_Item]) -> None:
    promised = sum(item.size for item in batch)
    if _expect(reader, _letter(batch), most=promised) != promised:
        raise _nonsense()
    for item in batch:
        store.put_chunks(_pieces(reader, item.size), item.digest, item.executable)


def _pieces(reader: Reader, size: int) -> Iterator[bytes]:
    while size:
        piece = reader.read(min(size, CHUNK))
        if not piece:
            raise EOFError
        size -= len(piece)
        yield piece


def _read(reader: Reader, size: int) -> bytes:
    return b"".join(_pieces(reader, size))


def _expect(reader: Reader, letter: bytes, most: int) -> int:
    """Read the head of a frame and return its length."""
    got, length = _HEAD.unpack(_read(reader, _HEAD.size))
    if got == b"E" and length <= _SHORT:
        raise _refusal(_read(reader, length))
    if got != letter:
        raise _nonsense()
    if length > most:
        raise StoreRefused("the other side sends more than it announced; do not trust it", reason="too-large")
    return int(length)


def _refusal(data: bytes) -> StoreRefused:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = json.loads(data)
        return StoreRefused(f"the other side refused: {said['message']}", reason=str(said["reason"]))
    return _nonsense()


def _nonsense() -> StoreRefused:
    return StoreRefused("the other side does not speak as a store does; update Remora on both machines", reason="malformed")


def _put(writer: Writer, letter: bytes, data: bytes) -> None:
    _write(writer, _HEAD.pack(letter, len(data)))
    _write(writer, data)
    writer.flush()


def _write(writer: Writer, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = writer.write(bytes(view) if len(view) < len(data) else data)
        view = view[len(view) if written is None else written :]


@contextlib.contextmanager
def _broken() -> Iterator[None]:
    """Translate the end of a connection."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreRefused("an object of this tree is not here any more; build the image again", reason="malformed") from error
    except (EOFError, ConnectionError) as error:
        raise Unavailable("the connection broke in the middle of an image; what arrived is kept, try again") from error
