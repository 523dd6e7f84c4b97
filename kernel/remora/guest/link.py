"""The guest's one connection: blocking frames over the socket that the supervisor handed down.

Law: one thread sends, one thread receives, neither is the main thread; so no signal and no exception of the user's can ever cut
a frame in two. When the other side is gone there is nobody to work for, and the process ends at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from .. import frames
from ..errors import ProtocolError
from ..wire import Message
from .payloads import Payloads

_PIECES = 512  # below IOV_MAX, which is 1024 everywhere
_PROTOCOL_BROKEN = 70


class Link:
    """Messages to and from the supervisor."""

    def __init__(self, descriptor: int, log: int) -> None:
        """Take the connected socket; no child process will inherit it. What goes wrong is written to the descriptor `log`."""
        self._log = log
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)
        os.set_inheritable(descriptor, False)

    def send(self, message: Message) -> None:
        """Send one message, waiting for as long as the other side is slow."""
        pieces = [memoryview(piece) for piece in frames.encode(message) if len(piece)]
        try:
            while pieces:
                pieces = _rest(pieces, self._socket.sendmsg(pieces[:_PIECES]))
        except OSError:
            os._exit(0)

    def receive_forever(self, take: Callable[[Message], None]) -> None:
        """Hand every message to `take`, until the other side goes and this process with it."""
        payloads = Payloads()
        decoder = frames.Decoder(payloads.choose)
        while count := self._read(decoder):
            try:
                for message in decoder.wrote(count):
                    if (whole := payloads.take(message)) is not None:
                        take(whole)
            except ProtocolError as error:
                os.write(self._log, f"guest: {error}\n".encode())
                os._exit(_PROTOCOL_BROKEN)
        os._exit(0)

    def forget(self) -> None:
        """Give up the socket in a forked child, where it belongs to the parent."""
        self._socket.close()

    def _read(self, decoder: frames.Decoder) -> int:
        try:
            return self._socket.recv_into(decoder.writable())
        except OSError:
            return 0


def _rest(pieces: list[memoryview], sent: int) -> list[memoryview]:
    done = 0
    while done < len(pieces) and sent >= len(pieces[done]):
        sent -= len(pieces[done])
        done += 1
    rest = pieces[done:]
    if sent:
        rest[0] = rest[0][sent:]
    return rest
