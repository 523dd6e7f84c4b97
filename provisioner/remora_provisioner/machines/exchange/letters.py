"""What the two halves of an exchange of files say to each other, over one connected socket.

Law: a letter is one byte that names it, a length, and bytes. Whoever reads believes no length beyond what the letter may have.
Letters may be put by two threads, and are read by one.

    H hello      home → there   protocol, rules, size cap, digest of what was there last
    S same       there → home   that has not changed
    F folders    there → home   digests of folders
    A ask        home → there   folders that differ
    I index      there → home   what lies in them
    P plan       home → there   what is to be done there and sent from there
    C pack · L piece of a large file · Z zeros of one · E no more comes
    D done       there → home   what could not be done, and why
    T token      home → there   the name of what was agreed on; B bye, if nothing new was
    K look       both           see resting.py
    X error      both           what went wrong, in place of anything else
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from remora.errors import ProtocolError, RemoraError, Unavailable, from_dict
from remora.wire import Buffer

PROTOCOL = 2
_HEAD = struct.Struct(">cQ")
SHORT, PACK, LONG = 1 << 16, 1 << 22, 1 << 29
_LITTLE = 1 << 15  # bytes up to which a copy costs less than a system call
_QUEUE = 1 << 20  # bytes in the system: so many go before the reader has to be waited for
_MOST = {b"C": PACK, b"L": PACK, b"Z": SHORT, b"E": 0, b"T": SHORT, b"B": SHORT, b"X": SHORT}


class Stretch(NamedTuple):
    """The beginning of an open file, so many bytes of it."""

    descriptor: int
    size: int


Piece: TypeAlias = "Buffer | Stretch"


class Letters:
    """A socket, seen as letters; `name` is who is at the other end, for messages."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.name = name
        self._sock = sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)
        self._writing = threading.Lock()
        self._room = memoryview(b"")
        self.put_bytes = self.got_bytes = 0

    def put(self, letter: bytes, *parts: Buffer) -> None:
        """Send a letter whose content is these parts."""
        head = _HEAD.pack(letter, sum(map(len, parts)))
        with self._writing, self.unbroken():
            if sum(map(len, parts)) <= SHORT:
                self._sock.sendall(b"".join([head, *parts]))
            else:
                self._sock.sendall(head)
                for part in parts:
                    self._sock.sendall(part)
        self.put_bytes += _HEAD.size + sum(map(len, parts))

    def put_pieces(self, letter: bytes, pieces: Iterable[Piece]) -> None:
        """Send a letter whose content are bytes and stretches of files; zeros come in place of what cannot be read of these."""
        gathered = list(_gathered(pieces))
        length = sum(piece.size if isinstance(piece, Stretch) else len(piece) for piece in gathered)
        with self._writing, self.unbroken():
            self._sock.sendall(_HEAD.pack(letter, length))
            for piece in gathered:
                for data in self._unsent(*piece) if isinstance(piece, Stretch) else [piece]:
                    self._sock.sendall(data)
        self.put_bytes += _HEAD.size + length

    def _unsent(self, descriptor: int, size: int) -> Iterator[bytes]:
        """Let the system send a file out of its memory, without a copy here; give what it does not send."""
        at = 0
        try:
            while at < size and (count := os.sendfile(self._sock.fileno(), descriptor, at, size - at)):
                at += count
        except ConnectionError:
            raise
        except OSError:  # not every file can be sent so
            with contextlib.suppress(OSError):
                yield (rest := os.pread(descriptor, size - at, at))
                at += len(rest)
        if at < size:
            yield bytes(size - at)

    def get(self, *expected: bytes) -> tuple[bytes, memoryview]:
        """Return the next letter, one of those expected; an X is raised as the error that it holds.

        What is in a C or an L is good until the next call.
        """
        letter, length = _HEAD.unpack(self._take(_HEAD.size))
        if letter not in (*expected, b"X") or length > _MOST.get(letter, LONG):
            raise self.nonsense()
        content = self._take(length, letter in (b"C", b"L"))
        self.got_bytes += _HEAD.size + length
        if letter == b"X":
            raise self._error(content)
        return letter, content

    def _take(self, size: int, again: bool = False) -> memoryview:
        """Return so many bytes, in room that is used again or is their own."""
        if again and len(self._room) < size:
            self._room = memoryview(bytearray(size))
        view = self._room[:size] if again else memoryview(bytearray(size))
        at = 0
        while at < size:
            with self.unbroken():
                count = self._sock.recv_into(view[at:], 0, socket.MSG_WAITALL)
            if not count:
                raise self._broken()
            at += count
        return view

    def stop(self) -> None:
        """Let nobody wait for this socket any longer."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    # ---- what a letter holds

    def put_values(self, letter: bytes, values: dict[str, Any], data: Buffer = b"") -> None:
        """Send JSON values, with surrogates for bytes that are no text, and bytes behind them; compressed."""
        head = json.dumps(values, separators=(",", ":")).encode()
        self.put(letter, zlib.compress(b"".join([b"%d\n" % len(head), head, data]), 1))

    def get_values(self, *expected: bytes) -> tuple[bytes, dict[str, Any], bytes]:
        """Return the next letter of JSON values, and the bytes behind them."""
        letter, content = self.get(*expected)
        try:
            data = _inflated(content)
            length, _, rest = data.partition(b"\n")
            values = json.loads(rest[: int(length)])
        except (ValueError, zlib.error, RecursionError) as error:
            raise self.nonsense() from error
        if not isinstance(values, dict):
            raise self.nonsense()
        return letter, values, rest[int(length) :]

    def put_error(self, error: RemoraError) -> None:
        """Tell the other side what went wrong, if it is still there."""
        said = error.to_dict() | {"message": str(error)[:500], "facts": {}}
        with contextlib.suppress(RemoraError):
            self.put(b"X", json.dumps(said).encode())

    def _error(self, content: memoryview) -> RemoraError:
        try:
            error = from_dict(json.loads(bytes(content)))
        except (ValueError, AttributeError, RecursionError):
            return self.nonsense()
        said = str(error)
        error.args = (f"{self.name}: {said}",)
        return error if said else self.nonsense()

    def nonsense(self) -> ProtocolError:
        """Return the error of a peer that does not speak as it should."""
        return ProtocolError(f"{self.name} does not speak as Remora does about files; use the same version on both sides")

    @contextlib.contextmanager
    def unbroken(self) -> Iterator[None]:
        """Translate the end of a connection."""
        try:
            yield
        except OSError as error:
            raise self._broken() from error

    def _broken(self) -> Unavailable:
        return Unavailable(
            f"the connection to {self.name} broke while files were exchanged; what arrived is kept, run it again to go on",
            reason="connection-broken",
        )


def _gathered(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield what lies between two large pieces as one."""
    between: list[Buffer] = []
    for piece in pieces:
        if isinstance(piece, Stretch) or len(piece) > _LITTLE:
            yield b"".join(between)
            yield piece
            between = []
        else:
            between.append(piece)
    yield b"".join(between)


def _inflated(data: Buffer) -> bytes:
    inflater = zlib.decompressobj()
    found = inflater.decompress(data, LONG)
    if not inflater.eof:
        raise ValueError("it is cut, or larger than anything can be")
    return found


def text(path: bytes) -> str:
    """Return a path as JSON can hold it."""
    return path.decode("utf-8", "surrogateescape")


def octets(path: str) -> bytes:
    """Return the path that `text` was made from; ValueError for what is no text of a path."""
    return path.encode("utf-8", "surrogateescape")
