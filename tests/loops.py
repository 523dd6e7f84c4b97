"""Runs a test that is a coroutine, on a loop of its own, and fails it for whatever went wrong unseen.

Law: an exception that asyncio would only have logged (in a callback, a protocol, a task that nobody awaits) is a failure too.
"""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine
from typing import Any

DEADLINE = 40.0  # seconds until a test gives up; nothing waits that long when all is well


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Turn a coroutine function into a test."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        unseen: list[dict[str, Any]] = []
        asyncio.run(_watched(test(*arguments, **named), unseen))
        assert not unseen, unseen

    return run


def expected(unseen_of: asyncio.AbstractEventLoop) -> None:
    """Allow what the loop would log from now on: the test provokes it."""
    unseen_of.set_exception_handler(lambda *_: None)


async def _watched(work: Coroutine[Any, Any, None], unseen: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    async with asyncio.timeout(DEADLINE):
        await work
    gc.collect()
