"""From the client's loop to whoever waits: a thread that blocks, or a task of the user's own event loop.

Law: `put` never blocks and may be called from anywhere; a wait can be left at any moment (Ctrl-C, a timeout, a cancelled task)
without losing an item.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Items in the order in which they came."""

    def __init__(self) -> None:
        """Start empty."""
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._wakes: set[Callable[[], object]] = set()

    def put(self, item: T) -> None:
        """Add an item and wake who waits."""
        self._items.put(item)
        for wake in tuple(self._wakes):
            wake()

    def take(self, seconds: float | None = None) -> T:
        """Return the next item; TimeoutError when none came in so many seconds."""
        try:
            return self._items.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None

    async def take_aio(self, seconds: float | None = None) -> T:
        """Return the next item to a task; TimeoutError when none came in so many seconds."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(ready.set)

        self._wakes.add(wake)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return self._items.get_nowait()
                    except queue.Empty:
                        await ready.wait()
                        ready.clear()
        finally:
            self._wakes.discard(wake)
