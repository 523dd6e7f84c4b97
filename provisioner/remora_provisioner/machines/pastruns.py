"""The logs of runs on another machine whose sandboxes have ended: brought over the link to whoever asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from remora import streams
from remora.errors import BackendError
from remora.streams import Peer
from remora.wire import FollowRun, Message, Record, RunId

_AGAIN = 0.5
"""Seconds until the agent there is asked again."""
_SILENCE = 20.0
"""Seconds without the end of a log after which it is asked whether the machine is there at all."""


async def send_log(
    hear: Callable[[Record], None], request: FollowRun, sock: socket.socket, reach: Callable[[], Awaitable[None]]
) -> None:
    """Let `hear` have the records of a run that the agent at the socket's other end has; raises what it or `reach` raises."""

    def take(_: Peer, message: Message) -> None:
        if isinstance(message, Record) and message.run == request.run:
            hear(message)

    with contextlib.closing(await streams.adopt(sock, take)) as visit:
        asked = asyncio.ensure_future(visit.request(request))
        try:
            while not (await asyncio.wait({asked}, timeout=_SILENCE))[0]:
                await reach()
            asked.result()
        finally:
            asked.cancel()


async def send_past(
    send: Callable[[Record], None],
    request: FollowRun,
    dial: Callable[[], socket.socket],
    reach: Callable[[], Awaitable[None]],
) -> None:
    """Let `send` have the records of a run, each once, though the agent there is started anew over it; raises as `send_log`."""
    after = request.after

    def take(record: Record) -> None:
        nonlocal after
        if record.seq > after:
            after = record.seq
            send(record)

    while True:
        await reach()
        try:
            await send_log(take, FollowRun(RunId(request.run), after, False), dial(), reach)
        except BackendError:
            await asyncio.sleep(_AGAIN)
        else:
            return
