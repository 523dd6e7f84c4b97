"""Work that blocks, in a thread of its own.

Law: it takes no thread from a pool that others wait for. What blocks on a socket ends when nobody waits for it any more: the
socket is shut down.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def apart(work: Callable[[], T]) -> T:
    """Return what the work returns, or raise what it raises; when nobody waits any more it goes on to its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(settle: Callable[[Any], None], what: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(lambda: None if done.done() else settle(what))

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # whatever it is, whoever waits is to hear of it
            tell(done.set_exception, error)
        else:
            tell(done.set_result, result)

    threading.Thread(target=run, name="machines-apart", daemon=True).start()
    return await done


async def beside(sock: socket.socket, work: Callable[[socket.socket], T]) -> T:
    """Return what the work with a socket returns, or raise what it raises."""
    try:
        return await apart(lambda: work(sock))
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        raise
