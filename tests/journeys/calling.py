"""This process as a caller of remote functions: a place whose state directory it uses, too, and what a test asks of the backend.

Law: what a process keeps once it has called is there before a test begins, so that the leak check sees
only what the test itself starts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from journeys.driving import DEADLINE, Place
from jupyter_core.utils import ensure_event_loop
from remora.client import client
from remora.states import ENDED, RunState
from remora.wire import PROTOCOL, Hello, ListAll

_THREADS = 32  # as many as such a loop has at most
_IDLE = "0.5"  # seconds: a test's sandboxes are gone soon after it


def warm_up() -> None:
    """Start what this process keeps once it has called: its loop's threads too, of which another comes when all are busy."""
    ensure_event_loop()

    async def all_threads() -> None:
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.05) for _ in range(_THREADS)))

    client().run(all_threads())


@contextmanager
def calling(**environment: str) -> Iterator[Place]:
    """Open a place and let this process call from it."""
    warm_up()
    place = Place(REMORA_POOL_IDLE=_IDLE, **environment)
    names = ["REMORA_STATE_DIR", "REMORA_POOL_IDLE", *environment]
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ |= {name: place.environment[name] for name in names}
    try:
        yield place
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
        place.close()


def unfinished() -> list[dict[str, Any]]:
    """Return the runs that have not ended, when cancels that are on their way have had time to arrive."""
    deadline = time.monotonic() + DEADLINE
    while True:
        runs = client().run(client().request(ListAll())).result["runs"]
        left = [run for run in runs if RunState(run["state"]) not in ENDED]
        if not left or time.monotonic() > deadline:
            return left


def backend() -> int:
    """Return the process id of the backend that this process talks to."""

    async def ask() -> int:
        peer = await client().backend()
        answer = await peer.request(Hello(PROTOCOL, "test", "client test"))
        return int(answer.result["pid"])

    return client().run(ask())
