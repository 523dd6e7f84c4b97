"""Sending a tree from one store to another over a pair of streams: the index, what is lacking, then only that.

Law: the receiver believes nothing: sizes in the index are bounds, every object is verified as it is written, and whatever is not
as promised is refused with its reason and leaves a clean store. What arrived whole stays: a broken transfer goes on where it was.

Frames have a letter and a length: T index · W wants (one bit for each object, in order) · P piece of contents · Z the same,
compressed · D done · E refused, with the reason. Both sides know from index and wants which objects come in which order, and so
what each piece holds. What is alike lies side by side, since that compresses best.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from remora.errors import RemoraError, StateError, StoreRefused, Unavailable, from_dict

from .objects import CHUNK
from .store import MOST_INDEX, Store, inflate
from .tree import Tree

_HEAD = struct.Struct(">cQ")
_PIECE, _LEVEL = 1 << 20, 5
_AHEAD = 8  # pieces that are compressed before they can be written
_SHORT = 1 << 12  # the most that a D or an E holds
_FULL = (errno.ENOSPC, errno.EDQUOT)


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


def send(store: Shelf, digest: str, reader: Reader, writer: Writer, told: Callable[[], object] = lambda: False) -> None:
    """Send a tree to a peer that calls `receive`, and return when it has all of it.

    `told` says whether the peer has something to say already, which is heard at once. StoreRefused with the reason that the
    peer gave, or "malformed" if it talks nonsense; StateError if its disk took no more; Unavailable if the connection broke.
    """
    tree = store.load(digest)
    items = _items(tree)
    with _broken("a file of the image cannot be read", "see to its permissions"):
        _put(writer, b"T", zlib.compress(tree.to_bytes(), 3))
        wants = _read(reader, _expect(reader, b"W", most=(len(items) + 7) // 8))
        if len(wants) != (len(items) + 7) // 8:
            raise _nonsense()
        _put_contents(store, writer, [item for at, item in enumerate(items) if wants[at // 8] >> at % 8 & 1], told)
        _expect(reader, b"D", most=0)


def receive(store: Store, reader: Reader, writer: Writer, *, system: bool = False, real: bool = False) -> Tree:
    """Receive the tree that a peer sends, save it and return it; absolute links are taken in a root file system only.

    With `real` it is made real before the peer hears that all is well. StoreRefused if the peer lies or talks nonsense;
    StateError if the disk takes no more; Unavailable if the connection broke: then call again over a new one.
    """
    try:
        with _broken("its disk takes no more", "make room there"):
            index = _read(reader, _expect(reader, b"T", most=MOST_INDEX))
            tree = Tree.from_bytes(inflate(index), system=system)
            items = _items(tree)
            lacking = [not store.has(item.digest, item.executable) for item in items]
            _put(writer, b"W", _bits(lacking))
            wanted = [item for item, lacks in zip(items, lacking, strict=True) if lacks]
            contents = _Incoming(reader, sum(item.size for item in wanted))
            for item in wanted:
                store.put_chunks(_pieces(contents, item.size), item.digest, item.executable)
            store.save(tree)
            if real:
                store.farm(tree.digest)
            _put(writer, b"D", b"")
    except (StoreRefused, StateError) as error:
        with contextlib.suppress(OSError, ValueError):  # the peer may be gone
            _put(writer, b"E", json.dumps(error.to_dict() | {"message": str(error)[:500], "facts": {}}).encode())
        raise
    return tree


def _items(tree: Tree) -> list[_Item]:
    sizes: dict[tuple[str, bool], int] = {}
    for file in sorted(tree.files(), key=lambda file: (os.path.splitext(file.path)[1], file.path)):
        if sizes.setdefault((file.digest, file.executable), file.size) != file.size:
            raise StoreRefused(f"the size of {file.path!r} cannot be true; fetch the image again", reason="malformed")
    return [_Item(digest, executable, size) for (digest, executable), size in sizes.items()]


def _bits(flags: list[bool]) -> bytes:
    bits = bytearray((len(flags) + 7) // 8)
    for at, flag in enumerate(flags):
        bits[at // 8] |= flag << at % 8
    return bytes(bits)


def _put_contents(store: Shelf, writer: Writer, items: list[_Item], told: Callable[[], object]) -> None:
    """Send contents, compressed by several threads ahead of what is written, until the peer interrupts."""
    waiting: deque[Future[tuple[bytes, bytes]]] = deque()
    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0))), thread_name_prefix="packing") as pool:
        for piece in _cut(_contents(store, items)):
            waiting.append(pool.submit(_packed, piece))
            if len(waiting) > _AHEAD:
                _put(writer, *waiting.popleft().result())
            if told():
                return
        while waiting and not told():
            _put(writer, *waiting.popleft().result())


def _contents(store: Shelf, items: list[_Item]) -> Iterator[bytes]:
    for item in items:
        left = item.size
        with contextlib.closing(store.read(item.digest, item.executable)) as chunks:
            for chunk in chunks:
                left -= len(chunk)
                if left >= 0:
                    yield chunk
        if left:
            raise Unavailable("a file changed while it was sent; run it again", reason="changed")


def _cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Cut contents into pieces of one size, the last one shorter."""
    piece = bytearray()
    for chunk in chunks:
        piece += chunk
        while len(piece) >= _PIECE:
            yield bytes(piece[:_PIECE])
            del piece[:_PIECE]
    if piece:
        yield bytes(piece)


def _packed(piece: bytes) -> tuple[bytes, bytes]:
    packed = zlib.compress(piece, _LEVEL)
    return (b"Z", packed) if len(packed) < len(piece) else (b"P", piece)


class _Incoming:
    """The contents that come, without the frames around them."""

    def __init__(self, reader: Reader, size: int) -> None:
        self._reader, self._left = reader, size
        self._piece = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, none when all that was announced has been read. Raises StoreRefused."""
        if not self._piece and self._left:
            self._piece = memoryview(self._next(min(self._left, _PIECE)))
            self._left -= len(self._piece)
        taken, self._piece = self._piece[:size], self._piece[size:]
        return bytes(taken)

    def _next(self, size: int) -> bytes:
        letter, length = _head(self._reader, b"P", b"Z", most=size)
        if letter == b"P" and length != size:
            raise _nonsense()
        data = _read(self._reader, length)
        if letter == b"Z":
            unpacking = zlib.decompressobj()
            try:
                data = unpacking.decompress(data, size)
            except zlib.error as error:
                raise _nonsense() from error
        if len(data) != size:
            raise _nonsense()
        return data


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
    return _head(reader, letter, most=most)[1]


def _head(reader: Reader, *letters: bytes, most: int) -> tuple[bytes, int]:
    """Read the head of a frame, one of these letters, and return it with the frame's length."""
    got, length = _HEAD.unpack(_read(reader, _HEAD.size))
    if got == b"E" and length <= _SHORT:
        raise _refusal(_read(reader, length))
    if got not in letters:
        raise _nonsense()
    if length > most:
        raise StoreRefused("the other side sends more than it announced; do not trust it", reason="too-large")
    return got, int(length)


def _refusal(data: bytes) -> RemoraError:
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        said = from_dict(json.loads(data))
        if isinstance(said, StateError):
            return said
        if str(said):
            return StoreRefused(f"the other side refused: {said}", reason=said.reason)
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
def _broken(trouble: str, advice: str) -> Iterator[None]:
    """Translate the end of a connection, and trouble with the disk."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreRefused("an object of this tree is not here any more; build the image again", reason="malformed") from error
    except (EOFError, ConnectionError) as error:
        raise Unavailable("the connection broke in the middle of an image; what arrived is kept, try again") from error
    except OSError as error:
        text = f"{trouble} ({error.strerror}): {advice} and run it again, what arrived is kept"
        raise StateError(text, reason="disk-full" if error.errno in _FULL else None) from error
