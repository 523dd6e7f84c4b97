"""Reading what is compressed, or claims to be an archive, without being blown up by it.

Law: reads forward only, keeps nothing but what was asked for, and stops with "too-large" as soon as the outcome is larger than
the limit, or out of all proportion to what went in.
"""

from __future__ import annotations

import importlib
import io
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Protocol

from remora.errors import StoreRefused

_FLOOR = 16 << 20  # bytes below which no proportion is suspicious
_CHUNK = 1 << 18
_MOST_AT_ONCE = 8 << 20  # more than this in one read only a header asks for, of an archive that means harm
_LZMA_MEMORY = 256 << 20


@dataclass(frozen=True)
class Bound:
    """How much may come out: bytes altogether, and how many for each byte that went in."""

    limit: int
    ratio: int

    def check(self, came: int, went_in: int) -> None:
        """StoreRefused with "too-large" if that is too much."""
        if came > self.limit or came > max(_FLOOR, self.ratio * went_in):
            raise StoreRefused(f"the archive unpacks to over {came >> 20} MiB; it is too large or a bomb", reason="too-large")


class _Decompressor(Protocol):
    """What lzma, and zstd of Python 3.14, offer."""

    @property
    def eof(self) -> bool:
        """Whether the end was reached."""

    @property
    def unused_data(self) -> bytes:
        """What came behind the end."""

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Return at most so many bytes."""


class _Plain:
    eof, unused_data = False, b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return data


class _Gzip:
    """zlib with the interface of lzma."""

    def __init__(self) -> None:
        self._inner, self._rest = zlib.decompressobj(wbits=31), b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        found = self._inner.decompress(self._rest + data, max_length)
        self._rest = self._inner.unconsumed_tail
        return found


def _lzma() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)


def _zstd() -> _Decompressor:
    try:
        found: Any = importlib.import_module("compression.zstd")
    except ImportError as error:
        raise StoreRefused("a zstd archive needs Python 3.14; use gz or xz", reason="malformed") from error
    made: _Decompressor = found.ZstdDecompressor()
    return made


_MAGIC: dict[bytes, Callable[[], _Decompressor]] = {b"\x1f\x8b": _Gzip, b"\xfd7zXZ\0": _lzma, b"\x28\xb5\x2f\xfd": _zstd}


class Forward(io.RawIOBase):
    """What a compressed or plain stream holds, read forward; seeking is skipping."""

    def __init__(self, raw: IO[bytes], bound: Bound) -> None:
        super().__init__()
        self._raw, self._bound = raw, bound
        self._next = raw.read(_CHUNK)
        self.taken, self._at = len(self._next), 0
        self._make = next((make for magic, make in _MAGIC.items() if self._next.startswith(magic)), _Plain)
        self._inner: _Decompressor = self._make()
        self._ready = bytearray()
        self._came = 0

    def read(self, size: int = -1) -> bytes:
        """Return that many bytes, fewer only at the end."""
        if not 0 <= size <= _MOST_AT_ONCE:
            raise StoreRefused("the archive has a header that no archive needs; it means harm", reason="too-large")
        while len(self._ready) < size and self._more():
            pass
        found = bytes(self._ready[:size])
        del self._ready[:size]
        self._at += len(found)
        return found

    def _more(self) -> bool:
        """Decompress a little; False at the end."""
        data, self._next = self._next, b""
        found = self._inner.decompress(data, _CHUNK)
        self._came += len(found)
        self._bound.check(self._came, self.taken)
        self._ready += found
        if self._inner.eof:
            return self._begin_again()
        if not found or self._make is _Plain:
            self._next = self._raw.read(_CHUNK)
            self.taken += len(self._next)
            return bool(self._next) or self._stop(bool(found))
        return True

    def _begin_again(self) -> bool:
        """Go on with the next of several compressed streams one behind the other."""
        self._next = self._inner.unused_data.lstrip(b"\0")
        if not self._next:
            self._next = self._raw.read(_CHUNK)
            self.taken += len(self._next)
        self._inner = self._make()
        return bool(self._next)

    def _stop(self, went_on: bool) -> bool:
        if self._make is not _Plain and not went_on and not self._inner.eof:
            raise EOFError
        return False

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Skip to a place further on; ValueError for one that has passed."""
        if whence != io.SEEK_SET or offset < self._at:
            raise ValueError("this stream only goes forward")
        while self._at < offset and self.read(min(offset - self._at, _CHUNK)):
            pass
        return self._at
