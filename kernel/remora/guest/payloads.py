"""Payloads that come to the guest part by part, ahead of the run that they belong to, while the rest is still on its way.

Law: on the receiving thread alone. The parts of a payload follow each other into its own memory; those of others, and all other
messages, may come in between.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import ProtocolError
from ..frames import AHEAD, Part, Payload
from ..wire import Buffer, Fields, Message, StartRun


class Payloads:
    """The payloads whose run has not come yet."""

    def __init__(self) -> None:
        """Start with none."""
        self._open: dict[int, Payload] = {}

    def choose(self, kind: str, body: Fields, sizes: list[int]) -> Payload | None:
        """Return where the payload of a frame goes: that of a part into what it is a part of."""
        whole = self._open.get(body.get("payload", 0)) if kind == Part.__name__ else None
        return None if whole is None else _Piece(whole, sum(sizes))

    def take(self, message: Message) -> Message | None:
        """Return the message, with the payload that came ahead of it; None if there is nothing more to do with it."""
        if isinstance(message, Part):
            self._note(message)
            return None
        if isinstance(message, StartRun) and isinstance(number := message.body.pop(AHEAD, None), int):
            whole = self._open.pop(number, None)
            return message if whole is None else replace(message, buffers=whole.buffers())
        return message

    def _note(self, part: Part) -> None:
        if part.void:
            self._open.pop(part.payload, None)
        elif part.sizes is not None:
            self._open[part.payload] = Payload(part.sizes)


class _Piece(Payload):
    """The memory of one part in that of the whole."""

    def __init__(self, whole: Payload, size: int) -> None:
        if size > whole.left:
            raise ProtocolError("more of a payload comes than it has")
        self._whole, self.left = whole, size

    def writable(self) -> memoryview:
        return self._whole.writable()[: self.left]

    def wrote(self, count: int) -> None:
        self._whole.wrote(count)
        self.left -= count

    def buffers(self) -> tuple[Buffer, ...]:
        return ()
