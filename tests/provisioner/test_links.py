"""Links to hosts keep what they promise: as slow, lossy, narrow or dead as was asked for, and as good as new afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from provisioner.hosts import Host
from provisioner.sessions import PATIENCE, connected, echo, session

from provisioner import needs

pytestmark = needs.hosts
MIB = 1 << 20


@pytest.fixture
def box() -> Iterator[Host]:
    """Give a host with a link as good as there is."""
    with Host() as host:
        yield host


def _round_trip(host: Host) -> float:
    """Return the seconds that a connection takes, which is one round trip, at best."""
    taken = []
    for _ in range(4):
        began = time.monotonic()
        with socket.create_connection((host.link.far, host.port), timeout=PATIENCE):
            taken.append(time.monotonic() - began)
    return min(taken)


def _moved(host: Host, *, up: bool) -> float:
    """Return the seconds in which 1 MiB goes one way, by a program of the host's that knows no SSH."""
    with socket.create_server((host.link.near, 0)) as server, ThreadPoolExecutor() as pool:
        place = f"/dev/tcp/{host.link.near}/{server.getsockname()[1]}"
        code = f"head -c {MIB} <{place} | wc -c" if up else f"head -c {MIB} /dev/zero >{place}"
        began = time.monotonic()
        there = pool.submit(host.run, ["bash", "-c", code])
        with server.accept()[0] as connection:
            if up:
                connection.sendall(bytes(MIB))
            else:
                assert sum(iter(lambda: len(connection.recv(MIB)), 0)) == MIB
        assert there.result().returncode == 0
        return time.monotonic() - began


def _unwanted(host: Host) -> int:
    names, values = (line.split() for line in host.run(["grep", "^Udp:", "/proc/net/snmp"]).stdout.splitlines())
    return int(values[names.index("NoPorts")])


def test_latency_is_that_of_a_round_trip(box: Host) -> None:
    """A connection takes as long as was asked for, and no longer when nothing is asked for any more."""
    box.link.shape(delay_ms=60)
    assert 0.060 <= _round_trip(box) < 1
    assert box.ssh("whoami").stdout == "ada\n"
    box.link.shape(delay_ms=20)
    assert 0.020 <= _round_trip(box) < 1
    box.link.shape()
    assert _round_trip(box) < 0.020


def test_packets_are_lost(box: Host) -> None:
    """Of 2000 datagrams 10 % do not arrive, and later all do."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def arrived() -> int:
            """Send, let a connection pass behind, and return how many came for a port where nobody listens."""
            before = _unwanted(box)
            for _ in range(2000):
                sender.sendto(b"text", (box.link.far, 9))
            connected(box).close()
            return _unwanted(box) - before

        box.link.shape(loss=0.1)
        assert 1700 < arrived() < 1900
        box.link.shape()
        assert arrived() == 2000


def test_bandwidth_is_bounded_each_way(box: Host) -> None:
    """1 MiB takes at 20 Mbit/s as long as it must."""
    box.link.shape(rate_mbit=20)
    assert min(_moved(box, up=True), _moved(box, up=False)) > MIB * 8 / 20e6 * 0.8
    box.link.shape(delay_ms=2, rate_mbit=20)
    assert _moved(box, up=False) > MIB * 8 / 20e6 * 0.8


def test_what_goes_over_the_link_is_counted(box: Host) -> None:
    """Bytes are counted each way."""
    before = box.link.carried()
    words = ["ssh", "-F", str(box.config), box.name, "cat >/dev/null"]
    subprocess.run(words, input=os.urandom(MIB), check=True)
    after = box.link.carried()
    assert MIB < after.up - before.up < 1.2 * MIB
    assert 0 < after.down - before.down < 0.2 * MIB


def test_a_cut_link_is_silent_and_mends(box: Host) -> None:
    """Over a cut link sessions and connections hang; mended, they go on where they were."""
    with session(box) as opened:
        box.link.cut()
        assert echo(opened, b"second\n", patience=0.4) == b"nothing"
        with pytest.raises(TimeoutError):
            socket.create_connection((box.link.far, box.port), timeout=0.4)
        assert opened.poll() is None
        box.link.mend()
        assert echo(opened, b"") == b"second\n"


def test_connections_are_reset(box: Host) -> None:
    """Both ends hear at once that their connection is gone, and a new one can be made."""
    with session(box) as opened, connected(box) as connection:
        box.link.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
        assert opened.wait(PATIENCE) == 255
        assert box.ssh("whoami").stdout == "ada\n"
