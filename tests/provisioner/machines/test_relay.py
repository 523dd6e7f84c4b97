"""A socket that leads to another machine is its user's alone, as that of the agent there is."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loops import in_loop
from remora_provisioner.machines.relay import Relay
from strangers import as_stranger, passable

from provisioner import needs


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that everybody may look into, made by somebody who makes all for everybody."""
    before = os.umask(0)
    try:
        with tempfile.TemporaryDirectory() as place, passable(Path(place)):
            yield Path(place)
    finally:
        os.umask(before)


def _heard(path: Path) -> list[str]:
    """Connect, and return what is heard within a while."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        return [sock.recv(9).decode()]


@in_loop
async def test_it_is_made_for_its_user_alone(folder: Path) -> None:
    """Whatever the umask is, nobody else may open it or the folder that it is in."""
    relay = Relay(folder / "links" / "socket", lambda sock: sock.close())
    assert stat.S_IMODE(relay.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(relay.path.parent.stat().st_mode) == 0o700
    relay.close()


@needs.root
@in_loop
async def test_somebody_else_is_turned_away(folder: Path) -> None:
    """Even where the file would let them in, the kernel says who connects; its user is let in."""
    joined = []

    def join(sock: socket.socket) -> None:
        joined.append(sock)
        sock.sendall(b"welcome")
        sock.close()

    relay = Relay(folder / "links" / "socket", join)
    relay.path.parent.chmod(0o755)
    relay.path.chmod(0o666)
    assert await asyncio.to_thread(as_stranger, lambda: _heard(relay.path)) == [""]
    assert not joined
    assert await asyncio.to_thread(_heard, relay.path) == ["welcome"]
    relay.close()
