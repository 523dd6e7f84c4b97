"""The link over real sockets: an ordinary connection to its users, however many there are and whatever becomes of streams."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from loops import in_loop
from provisioner.machines.cables import Cable
from remora import streams
from remora.errors import BackendError, InternalError, ProtocolError, Refused, RemoraError, Unavailable
from remora.streams import Peer
from remora.wire import PROTOCOL, Hello, Message
from remora_provisioner.machines.link import ends, linkframes, pace
from remora_provisioner.machines.link.carrying import Link
from remora_provisioner.machines.link.core import BACKLOG

MIB = 1 << 20


class Two:
    """Two sides of a link, and what was accepted on each."""

    def __init__(self, *, heartbeat: float = 5.0) -> None:
        """Make both; nothing carries them."""
        self.heartbeat = heartbeat
        self.accepted: dict[str, socket.socket] = {}
        self.said: list[tuple[bool, object]] = []
        self.refusals: list[tuple[str, RemoraError]] = []
        self.came = asyncio.Event()
        self.first = self.make(first=True)
        self.second = self.make(first=False)
        self.cable: Cable | None = None
        self.cables: list[Cable] = []
        self.carrying: list[asyncio.Task[None]] = []
        self.opened: list[socket.socket] = []

    def make(self, *, first: bool) -> Link:
        """Make one side."""
        return Link(
            self.accept,
            first=first,
            heartbeat=self.heartbeat,
            changed=lambda on: self._note((first, on)),
            refused=lambda target, error: self.refusals.append((target, error)),
            renewed=lambda: self._note((first, "renewed")),
        )

    def _note(self, what: tuple[bool, object]) -> None:
        self.said.append(what)
        self.came.set()

    def accept(self, target: str) -> socket.socket:
        """Make a connection whose other end the test holds."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.accepted[target] = ours
        self.opened.append(ours)
        self.came.set()
        return theirs

    def dial(self, target: str, link: Link | None = None) -> socket.socket:
        """Dial from the first side."""
        sock = (link or self.first).dial(target)
        sock.setblocking(False)
        self.opened.append(sock)
        return sock

    async def until(self, what: tuple[bool, object]) -> None:
        """Wait until that was said."""
        while what not in self.said:
            self.came.clear()
            await self.came.wait()

    async def taken(self, target: str) -> socket.socket:
        """Return the test's end of the connection to that target, once it is there."""
        while target not in self.accepted:
            self.came.clear()
            await self.came.wait()
        return self.accepted[target]

    async def joined(self, target: str) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new connection."""
        mine = self.dial(target)
        return mine, await self.taken(target)

    def connect(self, **how: float | int | None) -> Cable:
        """Put a new stream between them."""
        cable = self.cable = Cable(**how)
        self.cables.append(cable)
        self.carrying = [asyncio.create_task(self.first.carry(cable.one)), asyncio.create_task(self.second.carry(cable.other))]
        return cable

    async def over(self) -> None:
        """Wait until both sides have let go of the stream."""
        await asyncio.gather(*self.carrying)


@contextlib.asynccontextmanager
async def two(*, heartbeat: float = 5.0, **how: float) -> AsyncIterator[Two]:
    """Give two sides that are carried."""
    both = Two(heartbeat=heartbeat)
    both.connect(**how)
    try:
        yield both
    finally:
        both.first.close()
        both.second.close()
        await asyncio.gather(*both.carrying, return_exceptions=True)
        for cable in both.cables:
            await cable.close()
        for sock in both.opened:
            sock.close()


async def put(sock: socket.socket, data: bytes) -> None:
    """Write all of it and then finish."""
    await asyncio.get_running_loop().sock_sendall(sock, data)
    sock.shutdown(socket.SHUT_WR)


async def got(sock: socket.socket, count: int = -1) -> bytes:
    """Read that many bytes, or to the end."""
    found = bytearray()
    while len(found) != count:
        part = await asyncio.get_running_loop().sock_recv(sock, MIB if count < 0 else count - len(found))
        if not part:
            break
        found += part
    return bytes(found)


async def ended(sock: socket.socket) -> bool:
    """Say whether nothing but the end comes."""
    with contextlib.suppress(ConnectionError):
        return await got(sock) == b""
    return True


# ---- ordinary connections ---------------------------------------------------------------------------------------------------


@in_loop
async def test_messages_of_remora_through_a_link(tmp_path: Path) -> None:
    """A peer here asks a service there through the link, and neither knows."""

    async def answer(peer: Peer, message: Hello) -> dict[str, object]:
        return {"hello": message.role, "back": len(message.buffers[0])}

    def receive(peer: Peer, message: Message) -> None:
        peer.handle({Hello: answer}, message)

    server = await streams.serve(tmp_path / "socket", lambda: Peer(receive))
    async with two() as both:
        both.accept = lambda target: streams.dial(Path(target))
        both.second._accept = both.accept
        peer = await streams.adopt(both.first.dial(str(tmp_path / "socket")), lambda *_: None)
        for size in (0, 10, 3 * MIB):
            reply = await peer.request(Hello(PROTOCOL, "1", "kernel", buffers=(bytes(size),)))
            assert reply.result == {"hello": "kernel", "back": size}
        peer.close()
        await peer.gone
        server.close()
        await server.wait_closed()


@in_loop
async def test_each_way_ends_by_itself() -> None:
    """A finished direction is finished over there, behind its bytes; the other goes on; both sides may dial."""
    async with two() as both:
        for link, target in ((both.first, "there"), (both.second, "here")):
            mine = both.dial(target, link)
            theirs = await both.taken(target)
            await put(mine, b"question")
            assert await got(theirs) == b"question"
            await put(theirs, b"answer")
            assert await got(mine) == b"answer"
        assert not both.first.figures.connections + both.second.figures.connections


@in_loop
async def test_a_socket_that_is_there_already() -> None:
    """A connection that somebody else has made can be joined to one that the other side makes."""
    async with two() as both:
        mine, given = socket.socketpair()
        mine.setblocking(False)
        with mine:
            both.second.join("here", given)
            theirs = await both.taken("here")
            await put(mine, b"question")
            assert await got(theirs) == b"question"
            await put(theirs, b"answer")
            assert await got(mine) == b"answer"


@in_loop
async def test_an_abrupt_end() -> None:
    """Whoever closes without reading ends the connection: the other end sees it in what it reads, or in what it writes."""
    async with two() as both:
        mine, theirs = await both.joined("a")
        await asyncio.get_running_loop().sock_sendall(theirs, b"unread")
        await got(mine, 1)
        mine.close()
        assert await ended(theirs)
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            while True:
                await asyncio.get_running_loop().sock_sendall(theirs, b"nobody there")
                await asyncio.sleep(0)


@in_loop
async def test_many_at_once_both_ways() -> None:
    """Fifty connections with bytes both ways, all at once: each gets its own, all of it."""
    async with two() as both:
        noise = random.Random(3)

        async def one(name: str) -> None:
            mine, theirs = await both.joined(name)
            data, back = noise.randbytes(noise.choice((0, 10, 70_000, 700_000))), noise.randbytes(noise.choice((1, 300_000)))
            heard = await asyncio.gather(put(mine, data), put(theirs, back), got(theirs), got(mine))
            assert heard[2:] == [data, back]

        await asyncio.gather(*(one(str(n)) for n in range(50)))
        assert both.first.figures.sent > 5 * MIB


@in_loop
async def test_what_is_dialled_before_there_is_a_stream() -> None:
    """A connection can be had at once; what is written waits, up to a bound, and goes when there is a stream."""
    async with two() as both:
        both.connect().cut()
        with contextlib.suppress(ConnectionError):
            await both.over()
        mine = both.dial("later")
        written = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    written += await asyncio.get_running_loop().sock_sendall(mine, b"x" * 10_000) or 10_000
        assert BACKLOG <= written < 2 * MIB
        assert both.first.figures.buffered < BACKLOG + pace.CHUNK
        assert not both.first.carried
        both.connect()
        theirs = await both.taken("later")
        assert await got(theirs, written) == b"x" * written


# ---- streams come and go ----------------------------------------------------------------------------------------------------


@in_loop
async def test_two_hundred_cuts() -> None:
    """Streams that break after some thousand bytes, two hundred of them: every byte comes once, in order."""
    async with two() as both:
        noise = random.Random(5)
        data = [noise.randbytes(600_000) if n % 2 else bytes([n]) * 600_000 for n in range(8)]
        pairs = [await both.joined(str(n)) for n in range(8)]
        flows = [asyncio.create_task(put(ends[n % 2], data[n])) for n, ends in enumerate(pairs)]
        reads = [asyncio.create_task(got(ends[1 - n % 2])) for n, ends in enumerate(pairs)]
        cable = both.cable
        assert cable is not None
        cable.cut()
        await both.over()
        for _ in range(200):
            both.connect(breaks_after=noise.choice((20, 60, 100, 1000, 40_000)) + noise.randrange(50))
            await both.over()
            await both.cables.pop().close()
        assert not all(read.done() for read in reads)
        both.connect()
        await asyncio.gather(*flows)
        assert [hashlib.sha256(await read).digest() for read in reads] == [hashlib.sha256(part).digest() for part in data]


@in_loop
async def test_silence_ends_a_stream() -> None:
    """A cut that nobody is told of is noticed on both sides; the next stream goes on."""
    async with two(heartbeat=0.1) as both:
        mine, theirs = await both.joined("a")
        assert both.cable is not None
        both.cable.silence()
        await asyncio.get_running_loop().sock_sendall(mine, b"into nothing")
        await both.over()
        assert both.first.figures.lost == both.second.figures.lost == "the other side is silent"
        both.connect()
        assert await got(theirs, 12) == b"into nothing"
        assert both.first.figures.lost == "the other side is silent"


@in_loop
async def test_heartbeats_keep_an_idle_stream() -> None:
    """A link on which nothing is said stays up, and knows its round-trip time."""
    async with two(heartbeat=0.03) as both:
        await both.until((True, True))
        await asyncio.sleep(10 * 0.03)
        assert both.first.carried and both.second.carried
        assert 0 < (both.first.figures.round_trip or 0) < 0.1


@in_loop
async def test_an_idle_link_has_one_timer() -> None:
    """While nothing is said each side waits for its next heartbeat, and for nothing else."""
    async with two(heartbeat=1000.0) as both:
        mine, theirs = await both.joined("a")
        await asyncio.get_running_loop().sock_sendall(mine, b"x")
        await got(theirs, 1)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.05)  # what an acknowledgement may wait for company
        timers = [timer.when() - loop.time() for timer in vars(loop)["_scheduled"] if not timer.cancelled()]
        assert len([left for left in timers if left > 900]) == 2
        assert len([left for left in timers if left < 1]) == 0


@in_loop
async def test_a_newer_stream_takes_over() -> None:
    """A machine that is dialled again, while it takes the old stream for alive, goes on with the new one."""
    async with two() as both:
        mine, theirs = await both.joined("a")
        old = both.carrying
        both.connect()
        await asyncio.gather(*old)
        await asyncio.get_running_loop().sock_sendall(mine, b"on")
        assert await got(theirs, 2) == b"on"
        assert both.first.carried


@in_loop
async def test_whoever_carries_may_be_cancelled() -> None:
    """A cancelled `carry` lets go of the stream and leaves the link as it is; news of it comes once."""
    async with two() as both:
        mine, theirs = await both.joined("a")
        both.carrying[0].cancel()
        await asyncio.gather(*both.carrying, return_exceptions=True)
        assert not both.first.carried
        assert not both.second.carried
        both.connect()
        await asyncio.get_running_loop().sock_sendall(theirs, b"on")
        assert await got(mine, 2) == b"on"
        assert [on for first, on in both.said if first is True] == [True, False, True]


@in_loop
async def test_the_other_side_was_started_anew() -> None:
    """What the other side does not know has ended, and the link says so; new connections go through the same link."""
    async with two() as both:
        mine, theirs = await both.joined("old")
        both.second.close()
        await both.over()
        assert (await ended(mine), await ended(theirs)) == (True, True)
        both.second = both.make(first=False)
        both.connect()
        mine, theirs = await both.joined("new")
        await put(mine, b"hello")
        assert await got(theirs) == b"hello"
        assert both.said.count((True, "renewed")) == 1


@in_loop
async def test_the_other_side_was_killed() -> None:
    """Without a farewell the news comes with the next stream."""
    async with two() as both:
        mine, _ = await both.joined("old")
        assert both.cable is not None
        both.cable.cut()
        await both.over()
        lost, both.second = both.second, both.make(first=False)
        waiting = both.dial("new")
        await asyncio.get_running_loop().sock_sendall(waiting, b"hello")
        both.connect()
        assert await ended(mine)
        assert await got(await both.taken("new"), 5) == b"hello"
        assert (True, "renewed") in both.said
        lost.close()


# ---- refusals, garbage, the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (FileNotFoundError(2, "No such file"), Unavailable),
        (Refused("not for you", reason="closed-door"), Refused),
        (ValueError("embedded null byte"), InternalError),
    ],
)
@in_loop
async def test_a_refusal(raised: Exception, kind: type[RemoraError]) -> None:
    """What the other side refuses is closed here, with its reason; other connections do not notice."""
    async with two() as both:
        mine, theirs = await both.joined("good")

        def refuse(target: str) -> socket.socket:
            raise raised

        both.second._accept = refuse
        refused = both.dial("bad")
        assert await ended(refused)
        ((target, error),) = both.refusals
        assert (target, type(error)) == ("bad", kind)
        assert str(raised.args[-1]) in str(error)
        await put(mine, b"fine")
        assert await got(theirs) == b"fine"


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (b"Last login: Tue\r\n", "no link of Remora: it says b'Last login"),
        (linkframes.greet(linkframes.Greeting(1, bytes(16), 0), protocol=7), "protocol 7"),
    ],
)
@in_loop
async def test_noise_is_no_link(noise: bytes, words: str) -> None:
    """What is no link, or one of another version, is a clear error; connections stay, and the right stream goes on."""
    async with two() as both:
        mine, theirs = await both.joined("a")
        ours, theirs_end = socket.socketpair()
        with theirs_end:
            theirs_end.sendall(noise)
            with pytest.raises(ProtocolError, match=words):
                await both.first.carry(ours)
        await both.over()
        both.connect()
        await put(mine, b"still")
        assert await got(theirs) == b"still"


@in_loop
async def test_closing() -> None:
    """A closed link has ended all connections on both sides and takes no more; closing twice is fine."""
    async with two() as both:
        mine, theirs = await both.joined("a")
        both.first.close()
        both.first.close()
        assert await ended(mine)
        assert await ended(theirs)
        await both.over()
        assert both.second.figures.lost == "the other side has closed the link"
        assert (False, "renewed") in both.said
        with pytest.raises(BackendError):
            both.first.dial("b")
        one, other = socket.socketpair()
        with other, pytest.raises(BackendError):
            both.first.join("b", one)
        one, other = socket.socketpair()
        with other, pytest.raises(BackendError):
            await both.first.carry(one)


# ---- slow readers and lines -------------------------------------------------------------------------------------------------


@in_loop
async def test_a_reader_that_never_reads() -> None:
    """Whoever does not read gets a window's worth and holds up nobody else; what is kept in memory is bounded.

    A window grows while the system takes what comes, even if nobody reads it.
    """
    async with two() as both:
        stuck, _ = await both.joined("stuck")
        mine, theirs = await both.joined("free")
        pushing = asyncio.create_task(put(stuck, bytes(16 * MIB)))
        data = random.Random(1).randbytes(MIB) * 24
        _, heard = await asyncio.gather(put(mine, data), got(theirs))
        assert heard == data
        assert not pushing.done()
        for link in (both.first, both.second):
            assert link.figures.buffered <= ends._QUEUE + BACKLOG + 4 * pace.CHUNK
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)


@in_loop
async def test_a_message_overtakes_a_transfer() -> None:
    """While megabytes wait for a line of 5 MB/s with a round trip of 40 ms, small messages there and back pass them."""
    loop = asyncio.get_running_loop()
    async with two(delay=0.02, rate=5e6) as both:
        bulk, sink = await both.joined("bulk")
        small, echo = await both.joined("small")
        moving = asyncio.create_task(put(bulk, random.Random(2).randbytes(MIB) * 6))
        reading = asyncio.create_task(got(sink))
        took = []
        for _ in range(6):
            began = loop.time()
            await loop.sock_sendall(small, b"print")
            assert await got(echo, 5) == b"print"
            await loop.sock_sendall(echo, b"shown")
            assert await got(small, 5) == b"shown"
            took.append(loop.time() - began)
        assert not moving.done()
        assert max(took) < 1.0
        await moving
        assert len(await reading) == 6 * MIB
