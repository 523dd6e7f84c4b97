"""A program that holds up the packets of a link, and loses some: what netem does in kernels that have it.

Law: runs by itself (`python -I -S relay.py DEVICE`) in the network namespace where DEVICE is to be; standard library only.
The kernel routes into the tun device DEVICE what is to be held up, in both directions, and routes on what comes out of it again.
Lines on standard input say "SECONDS LOSS": how long each packet is held up, and which share of them is lost; a byte answers each.
It ends with its input. Packets keep their order.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

_TUNSETIFF, _TUN, _BARE = 0x400454CA, 0x0001, 0x1000
_ROOM = 64 << 20  # bytes held up at most; what comes then is lost
_AT_ONCE = 64  # packets read before those due are looked after


class Relay:
    """Packets on their way, each with the moment at which it is due."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self.seconds = 0.0
        self.loss = 0.0

    def take(self) -> None:
        """Take in what has come to the device."""
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(self._device, 65536)
            except BlockingIOError:
                return
            if random.random() >= self.loss and self._held < _ROOM:
                self._held += len(packet)
                self._waiting.append((time.monotonic() + self.seconds, packet))

    def give(self) -> float | None:
        """Let go what is due, and return the seconds until the next is, or None when there is none."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            packet = self._waiting.popleft()[1]
            self._held -= len(packet)
            os.write(self._device, packet)
        return max(self._waiting[0][0] - time.monotonic(), 0.0) if self._waiting else None


def main(name: str) -> None:
    """Make the device, say that it is there, and relay until the input ends."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN | _BARE))
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    os.write(1, b".")
    relay = Relay(device)
    while True:
        readable, _, _ = select.select([device, 0], [], [], relay.give())
        if device in readable:
            relay.take()
        if 0 in readable:
            line = os.read(0, 1000)
            if not line:
                return
            relay.seconds, relay.loss = map(float, line.split())
            os.write(1, b".")


if __name__ == "__main__":
    main(sys.argv[1])
