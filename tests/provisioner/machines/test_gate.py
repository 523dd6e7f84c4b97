"""The process of a machine's agent, as whoever hands a link over to it sees it."""

from __future__ import annotations

import os
import socket

from remora_provisioner.machines.gate import widen


def test_what_carries_a_link_holds_much_at_once():
    """A pipe takes in a megabyte before anything is read; what is no pipe stays as it was."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb"), open(writing, "wb", buffering=0) as pipe:
        widen(reading)
        assert pipe.write(bytes(1 << 21)) == 1 << 20
    with socket.socket() as sock:
        widen(sock.fileno())
