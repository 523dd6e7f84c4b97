"""What a link costs: the same bytes through two processes that only pass them on, and through two that are the sides of a link.

Law: what is compared runs by turns; who writes and who reads is the same for both. The stream between the two processes is a
socket of this machine, which is faster than any network, so nothing here waits for a line.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from figures import Figure, ratio
from place import Place
from remora_provisioner.machines.link.carrying import Link

_ROUNDS, _BYTES, _MESSAGES = 9, 1 << 28, 300
_ROOM = 1 << 18
_FORK = multiprocessing.get_context("fork")
Ends = tuple[socket.socket, socket.socket]


def measure(place: Place) -> list[Figure]:
    """Measure bulk one way, and small messages there and back."""
    with _two_processes(_link_near, _link_far) as linked, _two_processes(_pass_on, _pass_on) as bare:
        for ends in (linked, bare):
            _bulk(ends)
        bulk = [(_bulk(linked), _bulk(bare)) for _ in range(_ROUNDS)]
        trips = [(_trips(linked), _trips(bare)) for _ in range(_ROUNDS)]
    return [
        ratio("256 MiB through a link / through bare relays", [[a] for a, _ in bulk], [[b] for _, b in bulk]),
        Figure("256 MiB through a link", tuple(a for a, _ in bulk)),
        Figure("a small message there and back through a link, beyond bare relays", tuple(a - b for a, b in trips)),
    ]


def _bulk(ends: Ends) -> float:
    mine, theirs = ends
    data = bytes(1 << 20)
    buffer = bytearray(_ROOM)
    began = time.perf_counter()
    writer = threading.Thread(target=lambda: [mine.sendall(data) for _ in range(_BYTES >> 20)])
    writer.start()
    left = _BYTES
    while left:
        left -= theirs.recv_into(buffer)
    writer.join()
    return time.perf_counter() - began


def _trips(ends: Ends) -> float:
    mine, theirs = ends
    samples = []
    for _ in range(_MESSAGES):
        began = time.perf_counter()
        mine.sendall(b"there")
        theirs.recv(16)
        theirs.sendall(b"back")
        mine.recv(16)
        samples.append(time.perf_counter() - began)
    return median(samples)


@contextmanager
def _two_processes(near: Callable[..., None], far: Callable[..., None]) -> Iterator[Ends]:
    """Give the outer ends of two processes with a stream between them."""
    (mine, a), (b, c), (d, theirs) = (socket.socketpair() for _ in range(3))
    processes = [_FORK.Process(target=near, args=(a, b)), _FORK.Process(target=far, args=(d, c))]
    for process in processes:
        process.start()
    for sock in (a, b, c, d):
        sock.close()
    try:
        yield mine, theirs
    finally:
        mine.close()
        theirs.close()
        for process in processes:
            process.terminate()
            process.join()


def _pass_on(local: socket.socket, stream: socket.socket) -> None:
    """Pass bytes on, both ways, a thread for each."""

    def way(source: socket.socket, target: socket.socket) -> None:
        buffer = bytearray(_ROOM)
        while count := source.recv_into(buffer):
            target.sendall(memoryview(buffer)[:count])

    threading.Thread(target=way, args=(local, stream), daemon=True).start()
    way(stream, local)


def _link_near(local: socket.socket, stream: socket.socket) -> None:
    asyncio.run(_near(local, stream))


async def _near(local: socket.socket, stream: socket.socket) -> None:
    link = Link(_refuse, first=True)
    link.join("far", local)
    await link.carry(stream)


def _link_far(local: socket.socket, stream: socket.socket) -> None:
    asyncio.run(_far(local, stream))


async def _far(local: socket.socket, stream: socket.socket) -> None:
    await Link(lambda _: local, first=False).carry(stream)


def _refuse(target: str) -> socket.socket:
    raise ConnectionRefusedError(target)
