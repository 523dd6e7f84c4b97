"""What a sandbox on a machine elsewhere needs of this one is sent ahead of it: what the machine lacks, once.

Law: what was needed last time is a guess, never a fact: folders are looked at again for each sandbox, and once more when a file
changes on its way.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from remora.errors import StoreRefused, Unavailable
from remora.wire import Fields

from ..agent import Agent
from ..images.fitting import Fitting
from ..opening import Opening
from .control import Control
from .folders import Folders
from .luggage import Luggage, Wanted, packed
from .messages import Lack
from .ssh.reaching import shown
from .threads import beside

_REMEMBERED = 16
_TRIES = 3
_CHANGED = frozenset({"changed", "wrong-digest"})
"""Reasons of errors of a file that is no longer what was announced."""
Start = Callable[[Fields], Awaitable[Fields]]
"""Asks the agent there for a sandbox that is fitted out so; its answer may say what is `lacking`."""


class Ahead:
    """The way of trees to one machine."""

    def __init__(self, name: str, dial: Callable[[str], socket.socket], control: Control, here: Agent, folders: Folders) -> None:
        """Send to the machine of this name, which `dial` reaches, from the images of this machine and from `folders`."""
        self._name, self._dial, self._control, self._here, self._folders = name, dial, control, here, folders
        self._sending = asyncio.Lock()
        self._before: dict[Fitting, Luggage] = {}

    async def open(self, wanted: Wanted, start: Start, stop: Callable[[], Awaitable[None]]) -> Fields:
        """Start a sandbox with what was needed last time, while it is looked what is needed now; another one if that differs.

        Raises PlaceError for what cannot go, or cannot be kept there.
        """
        before = self._before.get(wanted.fitting)
        if before is None:
            luggage = await self._look(wanted)
        else:
            told, luggage = await asyncio.gather(start(self._there(before)), self._look(wanted))
            if "lacking" not in told:
                if before.is_same(luggage):
                    return told
                await stop()
        told = await start(self._there(await self._brought(luggage, wanted)))
        if "lacking" in told:
            raise Unavailable(f"{self._name} does not keep what it is sent; see what it has of disk space, and try again")
        return told

    async def bring(self, wanted: Wanted) -> Fields:
        """Send what the machine lacks, and return how a sandbox is fitted out with it there; raises as `open`."""
        return self._there(await self._brought(await self._look(wanted), wanted))

    def _there(self, luggage: Luggage) -> Fields:
        return asdict(luggage.fitting_for(self._control.farms))

    async def _look(self, wanted: Wanted) -> Luggage:
        """Return what is needed now."""

        def look() -> Luggage:
            with self._folders.lock:
                return packed(wanted.spec, wanted.fitting, self._here.images.root, self._folders)

        luggage = await asyncio.to_thread(look)
        self._before.pop(wanted.fitting, None)
        self._before[wanted.fitting] = luggage
        for old in [*self._before][:-_REMEMBERED]:
            del self._before[old]
        return luggage

    async def _brought(self, luggage: Luggage, wanted: Wanted) -> Luggage:
        """Send what the machine lacks of it; return what is there now, another one if a file changed on its way."""
        async with self._sending:
            for _ in range(_TRIES - 1):
                try:
                    await self._send(luggage, wanted.opening)
                except (Unavailable, StoreRefused) as error:
                    if error.reason not in _CHANGED:
                        raise
                    luggage = await self._look(wanted)
                else:
                    return luggage
            await self._send(luggage, wanted.opening)
            return luggage

    async def _send(self, luggage: Luggage, opening: Opening) -> None:
        told = (await self._control.ask(Lack([*luggage.shelves]))).result
        if told["obstacle"]:
            raise Unavailable(f"{self._name} cannot isolate a sandbox: {shown(told['obstacle'])}", reason="no-jail")
        if lacking := told["lacking"]:
            size = sum(luggage.shelves[tree].load(tree).size for tree in lacking) >> 20
            opening.say(f"sending {len(lacking)} folders with {size} MiB to {self._name}; what it has is not sent again")
            await beside(self._dial("store"), lambda sock: luggage.send(sock, lacking, self._name))
