"""Ports of sandboxes elsewhere: what connects here is carried to a loopback over there, by a real link."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from loops import in_loop
from remora.errors import InputError, OptionError
from remora.wire import SandboxId
from remora_provisioner.machines.link import Link
from remora_provisioner.machines.ports import Ports, check_port, connected, listens, of_this_machine
from strangers import as_stranger, passable

from provisioner import needs

BOX, OTHER = SandboxId("b0b0b0b0"), SandboxId("0c0c0c0c")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[Ports]:
    """Give the ports of a machine that is at the other end of a link; its loopback is this machine's."""
    here, there = socket.socketpair()
    far = Link(lambda target: connected(int(target.rpartition("/")[2])), first=False)
    near = Link(lambda _: socket.socket(), first=True)
    carrying = [asyncio.create_task(near.carry(here)), asyncio.create_task(far.carry(there))]
    ports = Ports(lambda sandbox, port, sock: near.join(f"port/{sandbox}/{port}", sock))
    try:
        yield ports
    finally:
        ports.close()
        near.close()
        far.close()
        await asyncio.gather(*carrying, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(serve: Serve, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve on a free port of the loopback, and return its number."""
    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and the end of it behind a word of its own: a server that hears the other side finish."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write(b"heard all")
    writer.close()


async def said(address: tuple[str, int], text: bytes) -> bytes:
    """Connect, send, finish, and return what comes until the end."""
    reader, writer = await asyncio.open_connection(*address)

    async def send() -> None:
        writer.write(text)
        await writer.drain()
        writer.write_eof()

    _, heard = await asyncio.gather(send(), reader.read())
    writer.close()
    await writer.wait_closed()
    return heard


@in_loop
async def test_many_at_once_and_each_way_ends_by_itself() -> None:
    """Megabytes go both ways over a hundred connections; one that has sent all still hears the answer."""
    async with linked() as ports, serving(echo) as port:
        opened = ports.open(BOX, port, None, None)
        assert opened["port"] == port
        assert opened["here"] != port  # which is taken
        texts = [os.urandom(1 << 21), *(b"%d" % number for number in range(100))]
        heard = await asyncio.gather(*(said(("127.0.0.1", opened["here"]), text) for text in texts))
        assert heard == [text + b"heard all" for text in texts]


@in_loop
async def test_a_slow_reader_holds_the_server_back() -> None:
    """What nobody reads is not gathered without bound on the way, and nothing of it is lost."""
    sent, total = [0], 64 << 20

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent[0] < total:
            writer.write(bytes(1 << 18))
            await writer.drain()
            sent[0] += 1 << 18
        writer.close()

    async with linked() as ports, serving(pour) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports.open(BOX, port, None, None)["here"], limit=1 << 16)
        before = -1
        while sent[0] != before:  # until it stands still
            before = sent[0]
            await asyncio.sleep(0.2)
        assert sent[0] < total
        count = 0
        while data := await reader.read(1 << 20):
            count += len(data)
        assert count == total
        writer.close()


@in_loop
async def test_nothing_listens_there_yet() -> None:
    """A connection ends at once, the next one is let in when something listens, and whether that is so can be asked."""
    async with linked() as ports:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with socket.create_server(("127.0.0.1", port)):  # so that it opens under another number
            here = ports.open(BOX, port, None, None)["here"]
        assert not listens(port)
        assert await asyncio.wait_for(_closed_at_once(here), 20)
        server = await asyncio.start_server(echo, "127.0.0.1", port)
        async with server:
            assert listens(port)
            assert await said(("127.0.0.1", here), b"x") == b"xheard all"


async def _closed_at_once(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True
    finally:
        writer.close()


@in_loop
async def test_a_server_of_the_other_loopback() -> None:
    """One that listens on ::1 alone, as localhost is on some machines, is found."""
    async with linked() as ports, serving(echo, "::1" if _knows_ipv6() else "127.0.0.1") as port:
        assert listens(port)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):  # so that it opens under another number
            ports.open(BOX, port, None, None)
        assert await said(("127.0.0.1", ports.open(BOX, port, None, None)["here"]), b"x") == b"xheard all"


def _knows_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@in_loop
async def test_which_number_it_gets() -> None:
    """Its own if that is free, else any; one that was asked for, or an error; asked again, what is open."""
    async with linked() as ports:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            other = ports.open(BOX, port, None, None)
            assert other["here"] != port
            assert ports.open(BOX, port, None, None) == other
            with pytest.raises(InputError, match=f"port {port} cannot be opened here"):
                ports.open(OTHER, 6006, port, None)
        assert ports.open(BOX, port, port, None)["address"] == f"http://127.0.0.1:{port}"
        assert [one["here"] for one in ports.listed(BOX)] == [port]


@in_loop
async def test_closing() -> None:
    """A port that is closed, or whose sandbox has ended, lets nobody in; those of other sandboxes stay."""
    async with linked() as ports, serving(echo) as port:
        first, second = (ports.open(sandbox, port, None, None)["here"] for sandbox in (BOX, OTHER))
        ports.close(BOX)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", first)
        assert await said(("127.0.0.1", second), b"x") == b"xheard all"
        assert ports.listed(BOX) == []


@needs.root
@in_loop
async def test_who_can_connect(tmp_path: Path) -> None:
    """From other machines nobody; at a Unix socket its user alone, whatever the umask; nothing is replaced by that."""
    async with linked() as ports, serving(echo) as port:
        here = ports.open(BOX, port, None, None)["here"]
        assert _bound(here) == ["0100007F"]
        path, before = tmp_path / "model.sock", os.umask(0)
        try:
            ports.open(OTHER, port, None, str(path))
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o666)
        with passable(tmp_path):
            assert await asyncio.to_thread(as_stranger, lambda: [_asked(path)]) == [""]
        assert await asyncio.to_thread(_asked, path) == "xheard all"
        with pytest.raises(InputError, match="give a path at which nothing is yet"):
            ports.open(BOX, 7, None, str(path))
    assert not path.exists()


def _bound(port: int) -> list[str]:
    """Return the addresses at which something listens on a port, as the kernel writes them."""
    rows = (row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:])
    ends = [row[1].split(":") for row in rows if row[3] == "0A"]
    return [address for address, number in ends if int(number, 16) == port]


def _asked(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"x")
            sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(100), b"")).decode()
        return ""


@pytest.mark.parametrize("port", ["", "x", "0", "65536", "-1", "\uff16\uff10", "6006.0", 0, None, [6006]])
def test_what_is_no_port(port: object) -> None:
    """It is refused with an example."""
    with pytest.raises(OptionError, match="such as 6006"):
        check_port(port)


def test_a_port_of_this_machine() -> None:
    """Is where it is, and nothing else can be asked for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = {"port": port, "address": f"http://127.0.0.1:{port}", "here": port}
        assert of_this_machine(port, None, None) == found | {"listens": True}
        with pytest.raises(InputError, match="share this machine's loopback"):
            of_this_machine(port, None, "/tmp/x")
    assert not of_this_machine(port, None, None)["listens"]
