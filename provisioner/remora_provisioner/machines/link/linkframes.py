"""The bytes of a link: how both sides greet each other, and the frames that follow.

Law: pure, and nothing here knows what a frame means. A greeting is fixed for ever in its first ten bytes (magic, protocol). A
frame is a head of twelve bytes and a body of at most `BODY`. Frames that matter are counted, not numbered: the greeting says
where to begin.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from remora.errors import ProtocolError
from remora.wire import Buffer

PROTOCOL = 2
OPEN, DATA, END, CLOSE, CREDIT = 1, 2, 3, 4, 5
"""Counted: kept until acknowledged, sent again on the next stream."""
ACK, PING, PONG, BYE = 17, 18, 19, 20
"""Not counted: about this stream alone."""
PACKED = 1
"""Flag: the body is compressed."""
FRESH, AGAIN, WELCOME, UNKNOWN = 1, 2, 3, 4
NUMBERS = 1 << 32
HEAD = struct.Struct("<BBxxII")
BODY = 1 << 18
ACKNOWLEDGED = struct.Struct("<Qdf")
"""How many frames have come, when the last did by the clock of whoever says so, and for how many seconds this was not said."""
BEAT = struct.Struct("<d")
AMOUNT = struct.Struct("<I")
_GREETING = struct.Struct("<8sHH16sQ")
_MAGIC = b"RMRALINK"
_ROOM = 1 << 20
_WIDEST = HEAD.size + BODY
_JOINED = 1 << 11


class Greeting(NamedTuple):
    """The first word of each side on each stream."""

    word: int
    identity: bytes
    expected: int
    """How many counted frames this side has."""


def greet(greeting: Greeting, protocol: int = PROTOCOL) -> bytes:
    """Return a greeting's bytes."""
    return _GREETING.pack(_MAGIC, protocol, *greeting)


def pieces(kind: int, number: int = 0, body: Buffer = b"", flags: int = 0) -> list[Buffer]:
    """Return a frame's bytes; a large body is not copied, and of the number the lower half travels."""
    head = HEAD.pack(kind, flags, len(body), number & NUMBERS - 1)
    return [head + bytes(body)] if len(body) <= _JOINED else [head, body]


def behind(written: list[Buffer], count: int) -> list[Buffer]:
    """Return what is left of some pieces behind so many bytes."""
    for index, piece in enumerate(written):
        if count < len(piece):
            return [memoryview(piece)[count:] if count else piece, *written[index + 1 :]]
        count -= len(piece)
    return []


def unpacked(body: Buffer, most: int) -> bytes:
    """Return what a compressed body holds, at most so many bytes; raises ProtocolError."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise ProtocolError(f"a compressed frame cannot be read: {error}") from error
    if not inflater.eof or inflater.unused_data or len(data) > most:
        raise ProtocolError("a compressed frame holds more or less than it says")
    return data


class Incoming:
    """Bytes of one stream on their way in: write into `writable()`, say how many, take what is whole.

    Bodies are views that hold until the next `writable()`.
    """

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._buffer = bytearray(_ROOM)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def restart(self) -> None:
        """Begin with another stream."""
        self._start = self._end = 0

    def writable(self) -> memoryview:
        """Return where the next bytes are to be written; never empty."""
        if self._start == self._end:
            self._start = self._end = 0
        elif _ROOM - self._start < _WIDEST or self._end == _ROOM:
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._view[self._end :]

    def wrote(self, count: int) -> None:
        """Take note of bytes that were written."""
        self._end += count

    def greeting(self) -> Greeting | None:
        """Return the greeting, once it is whole; raises ProtocolError as soon as it cannot be one."""
        begun = bytes(self._view[self._start : self._end][: _GREETING.size])
        if not _MAGIC.startswith(begun[:8]) and begun[:8] != _MAGIC:
            raise ProtocolError(f"what answers is no link of Remora: it says {begun[:40]!r}")
        if len(begun) >= 10 and (protocol := int.from_bytes(begun[8:10], "little")) != PROTOCOL:
            raise ProtocolError(f"the other side speaks protocol {protocol} of links, not {PROTOCOL}; use the same version there")
        if len(begun) < _GREETING.size:
            return None
        self._start += _GREETING.size
        _, _, word, identity, expected = _GREETING.unpack(begun)
        return Greeting(word, identity, expected)

    def frames(self) -> Iterator[tuple[int, int, int, memoryview]]:
        """Yield kind, flags, connection and body of each frame that is whole; raises ProtocolError for one that is too large."""
        while self._end - self._start >= HEAD.size:
            kind, flags, length, number = HEAD.unpack_from(self._buffer, self._start)
            if length > BODY:
                raise ProtocolError(f"the other side announces a frame of {length} bytes, which none may have")
            begin = self._start + HEAD.size
            if self._end - begin < length:
                return
            self._start = begin + length
            yield kind, flags, number, self._view[begin : begin + length]
