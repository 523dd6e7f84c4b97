"""What a sandbox on a machine elsewhere needs of this one is sent ahead of it: what the machine lacks, once.

Law: what was needed last time is a guess, never a fact: folders are looked at again for each sandbox, and once more when a file
changes on its way.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from remora.errors import StoreRefused, Unavailable
from remora.wire import Request

from ..agent import Agent
from ..images.fitting import Fitting
from ..opening import Opening
from .folders import Folders
from .luggage import Luggage, Wanted, packed
from .messages import Lack
from .ssh.reaching import shown
from .threads import beside

_REMEMBERED = 16
_TRIES = 3
_CHANGED = frozenset({"changed", "wrong-digest"})
"""Reasons of errors of a file that is no longer what was announced."""
Ask = Callable[[Request], Awaitable[Any]]
"""Asks the agent there."""


class Ahead:
    """The way of trees to one machine."""

    def __init__(self, name: str, dial: Callable[[str], socket.socket], here: Agent, folders: Folders) -> None:
        """Send to the machine of this name, which `dial` reaches, from the images of this machine and from `folders`."""
        self._name, self._dial, self._here, self._folders = name, dial, here, folders
        self._sending = asyncio.Lock()
        self._before: dict[Fitting, Luggage] = {}

    def before(self, wanted: Wanted) -> Luggage | None:
        """Return what was needed last time for the same."""
        return self._before.get(wanted.fitting)

    async def look(self, wanted: Wanted) -> Luggage:
        """Return what is needed now. Raises PlaceError for what cannot go."""

        def look() -> Luggage:
            with self._folders.lock:
                return packed(wanted.spec, wanted.fitting, self._here.images.root, self._folders)

        luggage = await asyncio.to_thread(look)
        self._before.pop(wanted.fitting, None)
        self._before[wanted.fitting] = luggage
        for old in [*self._before][:-_REMEMBERED]:
            del self._before[old]
        return luggage

    async def bring(self, luggage: Luggage, wanted: Wanted, ask: Ask) -> Luggage:
        """Send what the machine lacks of it; return what is there now, another one if a file changed on its way.

        Raises Unavailable if the machine could not take it in, or if files change faster than they go.
        """
        async with self._sending:
            for _ in range(_TRIES - 1):
                try:
                    await self._send(luggage, wanted.opening, ask)
                except (Unavailable, StoreRefused) as error:
                    if error.reason not in _CHANGED:
                        raise
                    luggage = await self.look(wanted)
                else:
                    return luggage
            await self._send(luggage, wanted.opening, ask)
            return luggage

    async def _send(self, luggage: Luggage, opening: Opening, ask: Ask) -> None:
        told = (await ask(Lack([*luggage.shelves]))).result
        if told["obstacle"]:
            raise Unavailable(f"{self._name} cannot isolate a sandbox: {shown(told['obstacle'])}", reason="no-jail")
        if lacking := told["lacking"]:
            size = sum(luggage.shelves[tree].load(tree).size for tree in lacking) >> 20
            opening.say(f"sending {len(lacking)} folders with {size} MiB to {self._name}; what it has is not sent again")
            await beside(self._dial("store"), lambda sock: luggage.send(sock, lacking, self._name))
