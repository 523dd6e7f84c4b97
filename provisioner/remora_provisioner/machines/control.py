"""The connection to the agent of a machine elsewhere: begun when something is asked, and anew when the link was.

Law: the first thing on a new connection is to hear what has become of the sandboxes that are expected there; until that is
known, nothing else is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from remora import streams
from remora.errors import Refused, RemoraError
from remora.streams import Peer
from remora.wire import Fields, Request, SandboxId

from .messages import Leave, TakeUp
from .naming import naming

_AGAIN = 0.5
"""Seconds until the agent there is asked again."""
_PATIENCE = 2.0
"""Seconds for the agent there to take leave."""


class Control:
    """Asks the agent of one machine."""

    def __init__(
        self,
        name: str,
        dial: Callable[[], socket.socket],
        expected: Callable[[], Sequence[SandboxId]],
        heard: Callable[[Fields], None],
    ) -> None:
        """Ask on the machine of this name; `heard` is told what has become of the sandboxes that are `expected` there."""
        self._name, self._dial, self._expected, self._heard = name, dial, expected, heard
        self._peer: Peer | None = None
        self._beginning = asyncio.Lock()
        self._closed = False
        self.farms = ""
        """The folder of all farms there, once it was heard of."""
        self.facts: Fields = {}
        """What the machine has, as it said last."""
        self.terms: Callable[[], Fields] = dict
        """Says what this backend wants of the machine, see terms.py."""
        self.learned: Callable[[Fields], None] = lambda facts: None
        """Told what the machine has, whenever it says so."""

    async def ask(self, request: Request) -> Any:
        """Return the answer to a request. Raises RemoraError, which bears the machine's name."""
        with naming(self._name):
            return await (await self.begun()).request(request)

    async def begun(self) -> Peer:
        """Return the connection, when what has become of sandboxes is known."""
        async with self._beginning:
            if self._peer is None or self._peer.gone.done():
                peer = await streams.adopt(self._dial(), lambda *_: None)
                try:
                    told = (await peer.request(TakeUp([*self._expected()], self.terms()))).result
                except BaseException:
                    peer.close()
                    raise
                self._peer, self.farms, self.facts = peer, told["farms"], told["facts"]
                self.learned(self.facts)
                self._heard(told)
            return self._peer

    async def until_heard(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask, again if the link was begun anew over it; return the answer's result, None if it was refused or all is over."""
        while not self._closed:
            try:
                return getattr(await ask(), "result", None)
            except Refused:
                return None
            except RemoraError:
                await asyncio.sleep(_AGAIN)
        return None

    async def leave(self) -> None:
        """Let the agent there end, if nothing is left for it to do."""
        if self._peer is not None and not self._peer.gone.done():
            with contextlib.suppress(RemoraError, TimeoutError):
                await asyncio.wait_for(self._peer.request(Leave()), _PATIENCE)

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
