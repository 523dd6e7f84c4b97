"""Frames: how messages become bytes and bytes messages. Sans-I/O, standard library only.

A frame is a 20-byte prefix (magic, protocol, length of the head, length of the payload), a JSON head, and raw buffers one
after the other. The head holds the message's kind, its fields and the sizes of its buffers; bulk bytes are never copied on
their way in or out. The same frames go over sockets and, one after the other, make up a run log.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from .errors import ProtocolError
from .wire import PROTOCOL, Buffer, Fields, Message

HEAD_LIMIT = 1 << 29
PAYLOAD_LIMIT = 1 << 40
_PREFIX = struct.Struct("<4sIIQ")
_MAGIC = b"RMRA"
_SCRATCH = 1 << 16
_LARGE = 1 << 20
"""Bytes of a payload from which on its memory is the system's: it is not filled with zeros first, and goes back at once."""
_ALIGNED = 64


def encode(message: Message) -> list[Buffer]:
    """Return the pieces of a frame, in order, without copying the message's buffers."""
    views = [memoryview(b).cast("B") if not isinstance(b, bytes) else b for b in message.buffers]
    sizes = [len(v) for v in views]
    body = {f.name: getattr(message, f.name) for f in fields(message) if f.name != "buffers"}
    head = json.dumps([type(message).__name__, body, sizes], separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    return [_PREFIX.pack(_MAGIC, PROTOCOL, len(head), sum(sizes)) + head, *views]


AHEAD = "ahead"
"""In a run's body: the number of the payload that came ahead of it; among a guest's facts: that it takes payloads so."""


@dataclass(frozen=True)
class Part(Message):
    """From supervisor to guest: bytes of a payload, ahead of its run. With `sizes` one begins, with `void` it ends unused."""

    payload: int
    sizes: list[int] | None = None
    void: bool = False


class Payload:
    """Where the payload of one frame goes as it comes: memory of its own here, elsewhere in whoever takes its place."""

    def __init__(self, sizes: list[int]) -> None:
        """Have room for buffers of these sizes; raises MemoryError."""
        self._sizes = sizes
        self._memory = _memory(sizes)
        self._filled = 0
        self.left = len(self._memory)
        """Bytes that are still to come."""

    def writable(self) -> memoryview:
        """Return where the next bytes are to be written; never empty while some are to come."""
        return self._memory[self._filled :]

    def wrote(self, count: int) -> None:
        """Take note of bytes that were written."""
        self._filled += count
        self.left -= count

    def buffers(self) -> tuple[Buffer, ...]:
        """Return the buffers of the message, once nothing is left to come."""
        found, at = [], 0
        for size in self._sizes:
            found.append(self._memory[at : at + size])
            at += size
        return tuple(found)

    def broken(self) -> None:
        """Take note that what is left will not come."""


Choose = Callable[[str, Fields, "list[int]"], "Payload | None"]
"""Told the kind of a message, its fields and the sizes of its buffers before these come; may say where they are to go."""


class Decoder:
    """Turns bytes into messages: read into `writable()`, say how many with `wrote(n)`, take the messages it yields.

    Large payloads are read straight into their final memory, so a bulk byte is touched once.
    """

    def __init__(self, choose: Choose = lambda kind, body, sizes: None) -> None:
        """Start between two frames; payloads go where `choose` says."""
        self._choose = choose
        self._scratch = bytearray(_SCRATCH)
        self._start = self._end = 0
        self._head: tuple[str, Fields] | None = None
        self._payload: Payload | None = None
        self._frame = 0
        self.taken = 0
        """Bytes of all frames yielded so far: where in a file the next frame begins."""

    def writable(self) -> memoryview:
        """Return where the next bytes are to be written; never empty."""
        if self._payload is not None:
            return self._payload.writable()
        if self._end == len(self._scratch):
            self._make_room()
        return memoryview(self._scratch)[self._end :]

    def wrote(self, count: int) -> Iterator[Message]:
        """Take note of `count` bytes written, and yield every message that is whole now."""
        if self._payload is not None:
            self._payload.wrote(count)
        else:
            self._end += count
        while (message := self._next()) is not None:
            yield message

    def feed(self, data: Buffer) -> Iterator[Message]:
        """Decode bytes that are already at hand, such as those of a run log."""
        view = memoryview(data)
        while view:
            room = self.writable()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            view = view[count:]
            yield from self.wrote(count)

    @property
    def between(self) -> bool:
        """True when no frame is half read: the connection or file may end here."""
        return self._head is None and self._start == self._end

    def broken(self) -> None:
        """Take note that no more bytes will come."""
        if self._payload is not None:
            self._payload.broken()

    def _make_room(self) -> None:
        rest = self._scratch[self._start : self._end]
        wanted = max(_SCRATCH, 2 * len(rest))
        if self._head is None and len(rest) >= _PREFIX.size:
            wanted = max(wanted, _PREFIX.size + self._lengths(rest)[0])
        self._scratch = bytearray(wanted)
        self._scratch[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _lengths(self, data: Buffer, offset: int = 0) -> tuple[int, int]:
        magic, protocol, head, payload = _PREFIX.unpack_from(data, offset)
        if magic != _MAGIC or protocol != PROTOCOL:
            raise ProtocolError(
                f"the other side does not speak protocol {PROTOCOL} of Remora; use the same version on both sides"
            )
        if head > HEAD_LIMIT or payload > PAYLOAD_LIMIT:
            raise ProtocolError(f"a frame of {head + payload} bytes is larger than any message can be")
        return head, payload

    def _next(self) -> Message | None:
        if self._head is None and not self._read_head():
            return None
        assert self._head is not None and self._payload is not None
        if self._payload.left:
            return None
        message = _build(*self._head, self._payload.buffers())
        self._head = self._payload = None
        self.taken += self._frame
        return message

    def _read_head(self) -> bool:
        have = self._end - self._start
        if have < _PREFIX.size:
            return False
        length, payload = self._lengths(self._scratch, self._start)
        if have < _PREFIX.size + length:
            return False
        at = self._start + _PREFIX.size
        kind, body, sizes = _parse(bytes(self._scratch[at : at + length]), payload)
        self._head = kind, body
        self._frame = _PREFIX.size + length + payload
        self._start = at + length
        self._payload = self._choose(kind, body, sizes) or Payload(sizes)
        self._fill(self._payload)
        if self._start == self._end:
            self._start = self._end = 0
        return True

    def _fill(self, payload: Payload) -> None:
        """Give a payload what has come of it already."""
        while payload.left and self._start < self._end:
            room = payload.writable()
            count = min(len(room), self._end - self._start)
            room[:count] = self._scratch[self._start : self._start + count]
            self._start += count
            payload.wrote(count)


def _parse(head: bytes, payload: int) -> tuple[str, Fields, list[int]]:
    try:
        kind, body, sizes = json.loads(head.decode("utf-8", "surrogatepass"))
        named = isinstance(kind, str) and isinstance(body, dict)
        whole = named and all(isinstance(s, int) and s >= 0 for s in sizes) and sum(sizes) == payload
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"a frame's head cannot be read: {error}") from error
    if not whole:
        raise ProtocolError("a frame names no kind, or its buffers do not add up to its length")
    return kind, body, sizes


def _memory(sizes: list[int]) -> memoryview:
    """Return room for buffers, one after the other, in which the largest begins where arrays of any type may."""
    size = sum(sizes)
    if size < _LARGE:
        return memoryview(bytearray(size))
    start = -sum(sizes[: sizes.index(max(sizes))]) % _ALIGNED
    try:
        room = mmap.mmap(-1, start + size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"there is no memory for {size} bytes") from error
    return memoryview(room)[start:]


def _build(kind: str, body: Fields, buffers: tuple[Buffer, ...]) -> Message:
    cls = Message.kinds.get(kind)
    if cls is None:
        raise ProtocolError(
            f"the other side sent a {kind!r}, which this version does not know; use the same version on both sides"
        )
    known = {f.name for f in fields(cls)}
    try:
        return cls(**{k: v for k, v in body.items() if k in known}, buffers=buffers)
    except TypeError as error:
        raise ProtocolError(f"a {kind} lacks a field: {error}") from error
