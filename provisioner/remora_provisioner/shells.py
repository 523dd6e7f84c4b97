"""Shells that people have open in one sandbox: between the command line that opened each and the guest that runs it.

Law: bytes pass through unread; whoever opened a shell gets what it prints, and when they go the shell is hung up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from remora.streams import Peer
from remora.wire import Answer, AskGuest, Message, ShellBytes

HANG_UP: list[int] = []
"""The window's size that ends a shell."""


class Shells:
    """The open shells of a sandbox."""

    def __init__(self, guest: Callable[[Message], None]) -> None:
        """Send to the guest by `guest`."""
        self._guest = guest
        self._owners: dict[str, Peer] = {}

    async def see_through(self, peer: Peer, request: AskGuest, asked: Awaitable[Answer]) -> Answer:
        """Return what is answered when the shell has ended; cancelled when its owner goes away."""
        name = str(request.args.get("shell", ""))
        self._owners[name] = peer
        try:
            return await asked
        finally:
            self._owners.pop(name, None)
            self._guest(ShellBytes(name, HANG_UP))

    async def typed(self, _: Peer, message: ShellBytes) -> None:
        """Pass on what was typed."""
        self._guest(message)

    def printed(self, message: ShellBytes) -> None:
        """Pass on what a shell prints."""
        owner = self._owners.get(message.shell)
        if owner is not None:
            owner.send(message)
