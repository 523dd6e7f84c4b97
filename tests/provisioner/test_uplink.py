"""The way out of a sandbox: the named doors and no other, bytes both ways, and whatever hostile code may send instead."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from loops import in_loop
from provisioner.sandboxes import an_order
from remora import frames, settings, streams
from remora.streams import Peer
from remora.wire import AskGuest, Hello, Inside, SandboxId
from remora_provisioner.uplink import Uplink

MIB = 1 << 20
WHO = b"".join(frames.encode(Inside(SandboxId("s0"))))


@contextlib.asynccontextmanager
async def uplinked(*doors: str) -> AsyncIterator[socket.socket]:
    """Give the end that a sandbox holds of an uplink to those doors."""
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    uplink = Uplink(outside, doors, "s0")
    try:
        yield inside
    finally:
        uplink.close()
        uplink.close()
        inside.close()
        await asyncio.sleep(0)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(50)
        sock.setblocking(False)
        yield sock


def send(inside: socket.socket, data: bytes, *descriptors: int) -> None:
    """Send a request as code in a sandbox can: any bytes, any descriptors."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    inside.sendmsg([data], rights)


def ask(inside: socket.socket, target: Any) -> socket.socket:
    """Ask for a connection and return our end of it."""
    mine, theirs = socket.socketpair()
    with theirs:
        send(inside, json.dumps({"to": str(target)}).encode(), theirs.fileno())
    mine.setblocking(False)
    return mine


async def taken(listener: socket.socket) -> socket.socket:
    """Return the connection that arrives, behind the word that says who asks."""
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    sock.setblocking(False)
    said = await asyncio.get_running_loop().sock_recv(sock, len(WHO))
    assert said == WHO
    return sock


async def heard(sock: socket.socket, count: int = 1 << 16) -> bytes:
    """Return the next bytes; nothing at the end."""
    try:
        return await asyncio.get_running_loop().sock_recv(sock, count)
    except ConnectionError:
        return b""


def descriptors() -> int:
    """Return how many descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


# ---- doors ------------------------------------------------------------------------------------------------------------------


@in_loop
async def test_bytes_go_both_ways_unread(tmp_path: Path) -> None:
    """What one side writes the other reads, whatever it is, and an end comes through in both directions."""
    loop = asyncio.get_running_loop()
    with listening(tmp_path / "backend") as door:
        async with uplinked(str(tmp_path / "backend")) as inside:
            for closer in (0, 1):
                mine = ask(inside, tmp_path / "backend")
                theirs = await taken(door)
                await loop.sock_sendall(mine, b"\0\xffto you")
                assert await heard(theirs) == b"\0\xffto you"
                await loop.sock_sendall(theirs, b"back")
                assert await heard(mine) == b"back"
                (mine, theirs)[closer].close()
                assert await heard((theirs, mine)[closer]) == b""
                (theirs, mine)[closer].close()


@in_loop
async def test_a_folder_of_sandboxes_is_a_door(tmp_path: Path) -> None:
    """The sockets of a sandbox that was opened from in here can be reached, and nothing else in the folder.

    At the door of its notebook's folder nobody is told who asks: a line there is a question.
    """
    folder = tmp_path / "sandboxes"
    an_order(tmp_path, sandbox="s1", facts={"kernel": "s0/1-abc"})
    an_order(tmp_path, sandbox="strange", facts={"kernel": "s01/1-abc"})
    with (
        listening(folder / "s1" / "socket") as door,
        listening(folder / "s1" / "folder") as at_rest,
        listening(folder / "s1" / "other"),
        listening(folder / "socket"),
        listening(folder / "strange" / "socket"),
        listening(folder / "strange" / "folder"),
    ):
        async with uplinked(str(folder)) as inside:
            mine = ask(inside, folder / "s1" / "socket")
            (await taken(door)).close()
            assert await heard(mine) == b""
            mine.close()
            with ask(inside, folder / "s1" / "folder") as mine:
                mine.sendall(b"\n")
                with (await asyncio.get_running_loop().sock_accept(at_rest))[0] as theirs:
                    assert await heard(theirs) == b"\n"
            for target in ("s1/other", "socket", "s1/deep/socket", "s1", "strange/socket", "strange/folder"):
                mine = ask(inside, folder / target)
                assert await heard(mine) == b""
                mine.close()


@pytest.mark.parametrize(
    "target",
    [
        "elsewhere",
        "sandboxes/../elsewhere",
        "sandboxes/s1/../../elsewhere",
        "sandboxes/s1/../../elsewhere/socket",
        "sandboxes/../elsewhere-folder/socket",
        "backend/../elsewhere",
        "backend2",
        "sandboxes/none/socket",
    ],
)
@in_loop
async def test_no_other_door_opens(tmp_path: Path, target: str) -> None:
    """Names that lead elsewhere, by dots or by being similar, are closed at once and never connected."""
    with (
        listening(tmp_path / "elsewhere") as elsewhere,
        listening(tmp_path / "elsewhere-folder" / "socket") as folder,
        listening(tmp_path / "backend2") as similar,
        listening(tmp_path / "backend"),
    ):
        async with uplinked(str(tmp_path / "backend"), str(tmp_path / "sandboxes")) as inside:
            mine = ask(inside, f"{tmp_path}/{target}")
            assert await heard(mine) == b""
            mine.close()
        for listener in (elsewhere, folder, similar):
            with pytest.raises(BlockingIOError):
                listener.accept()


@in_loop
async def test_a_link_in_a_sandboxs_name_is_no_way_round(tmp_path: Path) -> None:
    """A door is a name; what lies behind the name is the user's own. Dots are taken away before the name is compared."""
    with listening(tmp_path / "backend") as door:
        async with uplinked(str(tmp_path / "backend")) as inside:
            mine = ask(inside, tmp_path / "x" / ".." / "backend")
            (await taken(door)).close()
            assert await heard(mine) == b""
            mine.close()


@in_loop
async def test_nobody_behind_a_door(tmp_path: Path) -> None:
    """A backend that is away is a connection that closes at once."""
    async with uplinked(str(tmp_path / "backend")) as inside:
        mine = ask(inside, tmp_path / "backend")
        assert await heard(mine) == b""
        mine.close()


# ---- what hostile code may send ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"{}",
        b'{"to": 5}',
        b'{"to": null}',
        b'{"to": ["a"]}',
        b'{"to": ""}',
        b'{"to": "a\\u0000b"}',
        b'{"to": "\\ud800"}',
        b'{"to": "' + b"x" * 5000 + b'"}',
        b"[" * 30_000,
        b"9" * 30_000,
    ],
)
@in_loop
async def test_requests_that_make_no_sense(tmp_path: Path, data: bytes) -> None:
    """Each is closed at once, and the uplink goes on."""
    with listening(tmp_path / "backend") as door:
        async with uplinked(str(tmp_path / "backend")) as inside:
            mine, theirs = socket.socketpair()
            mine.setblocking(False)
            with theirs:
                send(inside, data, theirs.fileno())
            assert await heard(mine) == b""
            mine.close()
            good = ask(inside, tmp_path / "backend")
            (await taken(door)).close()
            good.close()


@in_loop
async def test_descriptors_that_are_no_connections(tmp_path: Path) -> None:
    """Files, pipes, datagram and listening sockets, several at once or none: all are closed, none stays open out here."""
    with listening(tmp_path / "backend") as door, listening(tmp_path / "mine") as another:
        async with uplinked(str(tmp_path / "backend")) as inside:
            request = json.dumps({"to": str(tmp_path / "backend")}).encode()
            before = descriptors()
            reading, writing = os.pipe()
            file = os.open(os.devnull, os.O_RDONLY)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
                for odd in (reading, file, datagram.fileno(), another.fileno()):
                    send(inside, request, odd)
                    send(inside, request, odd, odd)
            send(inside, request)
            for descriptor in (reading, writing, file):
                os.close(descriptor)
            good = ask(inside, tmp_path / "backend")
            (await taken(door)).close()
            assert await heard(good) == b""
            good.close()
            assert descriptors() == before
            with pytest.raises(BlockingIOError):
                door.accept()


@in_loop
async def test_more_than_one_socket_at_once(tmp_path: Path) -> None:
    """The first one is joined, the others are closed."""
    with listening(tmp_path / "backend") as door:
        async with uplinked(str(tmp_path / "backend")) as inside:
            ends = [socket.socketpair() for _ in range(2)]
            request = json.dumps({"to": str(tmp_path / "backend")}).encode()
            send(inside, request, *(theirs.fileno() for _, theirs in ends))
            for mine, theirs in ends:
                theirs.close()
                mine.setblocking(False)
            sock = await taken(door)
            assert await heard(ends[1][0]) == b""
            sock.send(b"hello")
            assert await heard(ends[0][0]) == b"hello"
            for end in (sock, ends[0][0], ends[1][0]):
                end.close()


# ---- much and slow ------------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_slow_reader_holds_the_writer_back(tmp_path: Path) -> None:
    """What piles up between the two is bounded: a writer that is faster than its reader has to wait, and nothing is lost."""
    loop = asyncio.get_running_loop()
    with listening(tmp_path / "backend") as door:
        async with uplinked(str(tmp_path / "backend")) as inside:
            mine = ask(inside, tmp_path / "backend")
            theirs = await taken(door)
            sent = 0
            quiet = 0
            while quiet < 50:  # rounds of the loop in which nothing more was taken
                try:
                    sent += mine.send(bytes(1 << 16))
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                await asyncio.sleep(0)
                assert sent < 8 * MIB
            got = 0
            while got < sent:
                got += len(await heard(theirs, MIB))
            assert got == sent
            await loop.sock_sendall(mine, b"more")
            assert await heard(theirs) == b"more"
            mine.close()
            theirs.close()


@in_loop
async def test_bulk_in_both_directions_at_once(tmp_path: Path) -> None:
    """Megabytes each way, at once, arrive whole."""
    loop = asyncio.get_running_loop()

    async def read(sock: socket.socket, count: int) -> bytes:
        found = b""
        while len(found) < count:
            found += await heard(sock, MIB)
        return found

    there, back = os.urandom(4 * MIB), os.urandom(3 * MIB)
    with listening(tmp_path / "backend") as door:
        async with uplinked(str(tmp_path / "backend")) as inside:
            mine = ask(inside, tmp_path / "backend")
            theirs = await taken(door)
            results = await asyncio.gather(
                loop.sock_sendall(mine, there), loop.sock_sendall(theirs, back), read(theirs, len(there)), read(mine, len(back))
            )
            assert results[2:] == [there, back]
            mine.close()
            theirs.close()


@in_loop
async def test_the_last_bytes_before_an_end_arrive(tmp_path: Path) -> None:
    """A side that writes and closes at once is read to its last byte."""
    with listening(tmp_path / "backend") as door:
        async with uplinked(str(tmp_path / "backend")) as inside:
            mine = ask(inside, tmp_path / "backend")
            theirs = await taken(door)
            sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(mine, b"z" * MIB))
            sending.add_done_callback(lambda _: mine.close())
            got = 0
            while part := await heard(theirs, MIB):
                got += len(part)
            assert got == MIB
            theirs.close()


@in_loop
async def test_closing_cuts_every_connection(tmp_path: Path) -> None:
    """When the sandbox has ended, nothing that it opened stays open."""
    before = descriptors()
    with listening(tmp_path / "backend") as door:
        async with uplinked(str(tmp_path / "backend")) as inside:
            pairs = []
            for _ in range(20):
                mine = ask(inside, tmp_path / "backend")
                pairs.append((mine, await taken(door)))
        for mine, theirs in pairs:
            assert await heard(theirs) == b""
            assert await heard(mine) == b""
            mine.close()
            theirs.close()
    assert descriptors() == before


@in_loop
async def test_a_sandbox_that_has_gone(tmp_path: Path) -> None:
    """An uplink whose inner end is closed does not spin or fail."""
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    uplink = Uplink(outside, (str(tmp_path / "backend"),), "s0")
    inside.send(b"")
    inside.close()
    for _ in range(5):
        await asyncio.sleep(0)
    uplink.close()


@in_loop
async def test_messages_go_through_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same `connect` that opens sockets outside speaks to a server through the uplink, hello, bulk and all."""

    async def echo(_: Peer, message: AskGuest) -> streams.Reply:
        return streams.Reply({"op": message.op}, message.buffers)

    came: list[Peer] = []

    def accept() -> Peer:
        came.append(Peer(lambda peer, message: peer.handle({Hello: streams.welcome, AskGuest: echo}, message)))
        return came[-1]

    server = await streams.serve(tmp_path / "backend", accept)
    async with uplinked(str(tmp_path / "backend")) as inside:
        monkeypatch.setenv(settings.UPLINK.name, str(inside.fileno()))
        # as in real life, who dials is not the loop that bridges: it may block until it is answered
        dialled = await asyncio.to_thread(streams.dial, tmp_path / "backend")
        monkeypatch.delenv(settings.UPLINK.name)
        peer = await streams.adopt(dialled, lambda *_: None)
        answer = await peer.request(AskGuest("pull", {}, buffers=(bytes(3 * MIB),)))
        assert len(answer.buffers[0]) == 3 * MIB
        peer.close()
        await peer.gone
        await came[0].gone
    server.close()
