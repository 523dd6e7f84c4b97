"""Connections: both ends are real sockets; questions, answers, slow and vanishing peers, other versions and other users."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import json
import os
import random
import socket
import stat
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from loops import expected, in_loop
from remora import settings, streams
from remora.errors import BackendError, InternalError, ProtocolError, Refused, StateError
from remora.frames import encode
from remora.streams import Peer, Reply
from remora.wire import PROTOCOL, Answer, AskGuest, Emit, FindRun, Hello, ListAll, Message, Ready, RunId

STRANGER = 54_321  # a user id that nobody has


def deaf(*_: object) -> None:
    """Hear nothing."""


@contextlib.asynccontextmanager
async def pair(receive: Any = deaf, closed: Any = None) -> AsyncIterator[tuple[Peer, Peer]]:
    """Give two connected peers; the second hands messages to `receive` and its end to `closed`."""
    one, other = socket.socketpair()
    first, second = await streams.adopt(one, deaf), await streams.adopt(other, receive, closed)
    try:
        yield first, second
    finally:
        for peer in (first, second):
            peer.close()
            await peer.gone


@contextlib.asynccontextmanager
async def serving(path: Path, handlers: streams.Handlers) -> AsyncIterator[list[Peer]]:
    """Serve at a path, and give the peers that came, in order."""
    came: list[Peer] = []

    def accept() -> Peer:
        came.append(Peer(lambda peer, message: peer.handle(handlers, message)))
        return came[-1]

    server = await streams.serve(path, accept)
    try:
        yield came
    finally:
        server.close()
        for peer in came:
            peer.close()
            await peer.gone


async def _echo(_: Peer, message: AskGuest) -> Reply:
    return Reply({"op": message.op}, message.buffers)


HANDLERS: streams.Handlers = {Hello: streams.welcome, AskGuest: _echo}


def answering(handlers: streams.Handlers) -> Any:
    """Return a `receive` that handles by a table."""
    return lambda peer, message: peer.handle(handlers, message)


@pytest.fixture
def short() -> Iterator[Path]:
    """Give a folder that everybody can enter."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


# ---- asking -------------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_question_is_answered_with_its_buffers() -> None:
    """Result and bulk bytes of the answer belong to the question."""
    async with pair(answering(HANDLERS)) as (asker, _):
        answer = await asker.request(AskGuest("pull", {}, buffers=(b"x" * 100_000, b"")))
    assert answer.result == {"op": "pull"}
    assert [len(b) for b in answer.buffers] == [100_000, 0]


@in_loop
async def test_many_questions_at_once_in_both_directions() -> None:
    """A thousand questions that are answered out of order all get their own answers."""
    gates = {str(n): asyncio.Event() for n in range(500)}

    async def late(_: Peer, message: AskGuest) -> dict[str, Any]:
        await gates[message.op].wait()
        return {"op": message.op}

    one, other = socket.socketpair()
    first = await streams.adopt(one, answering({AskGuest: late}))
    second = await streams.adopt(other, answering({AskGuest: late}))
    asked = [peer.request(AskGuest(str(n), {})) for n in range(500) for peer in (first, second)]
    waiting = asyncio.gather(*asked)
    await asyncio.sleep(0)
    for gate in reversed(gates.values()):
        gate.set()
    assert [answer.result["op"] for answer in await waiting] == [str(n) for n in range(500) for _ in "ab"]
    for peer in (first, second):
        peer.close()
        await peer.gone


@in_loop
async def test_messages_of_one_side_are_heard_in_order() -> None:
    """Small and large messages arrive in the order in which they were sent."""
    heard: list[int] = []
    done = asyncio.Event()

    def receive(_: Peer, message: Any) -> None:
        heard.append(message.facts["n"])
        if len(heard) == 300:
            done.set()

    async with pair(receive) as (sender, _):
        for n in range(300):
            sender.send(Ready({"n": n}, buffers=(b"z" * (n % 7) * 50_000,)))
        await done.wait()
    assert heard == list(range(300))


@in_loop
async def test_an_error_of_ours_crosses_as_itself() -> None:
    """What a handler refuses is raised at the asker, with reason, text and facts."""

    async def refuse(_: Peer, __: Message) -> None:
        raise Refused("there is no such run; `remora runs` lists them", reason="no-such-run", near=["a"])

    async with pair(answering({FindRun: refuse})) as (asker, _):
        with pytest.raises(Refused, match="remora runs") as caught:
            await asker.request(FindRun("x"))
    assert (caught.value.reason, caught.value.facts) == ("no-such-run", {"near": ["a"]})


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("odd"), KeyError("k"), RecursionError()])
@in_loop
async def test_whatever_goes_wrong_in_a_handler_is_answered(error: Exception) -> None:
    """Nobody waits for ever because of a mistake of ours: the asker is told, and the connection goes on."""

    async def fail(_: Peer, __: Message) -> None:
        raise error

    async with pair(answering({FindRun: fail} | HANDLERS)) as (asker, _):
        with pytest.raises(InternalError, match=type(error).__name__):
            await asker.request(FindRun("x"))
        assert (await asker.request(AskGuest("still there", {}))).result == {"op": "still there"}


@pytest.mark.parametrize("where", [(), ("/somewhere/order.json",)])
@in_loop
async def test_a_full_disk_is_no_mistake_of_ours(where: tuple[str, ...]) -> None:
    """Wherever a handler meets it: the asker hears on which machine room has to be made."""

    async def fail(_: Peer, __: Message) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *where)

    async with pair(answering({FindRun: fail})) as (asker, _):
        with pytest.raises(StateError, match=f"no room is left on {os.uname().nodename} for {''.join(where)}") as caught:
            await asker.request(FindRun("x"))
    assert caught.value.reason == "disk-full"


@in_loop
async def test_a_request_that_nobody_handles_is_refused() -> None:
    """The answer names the request; a message that is no request is passed over."""
    async with pair(answering(HANDLERS)) as (asker, _):
        asker.send(Ready({}))
        with pytest.raises(ProtocolError, match="ListAll is not answered here"):
            await asker.request(ListAll())


@in_loop
async def test_answers_that_nobody_waits_for_are_passed_over() -> None:
    """An answer to a question that was given up, or never asked, does no harm."""
    gate = asyncio.Event()

    async def late(_: Peer, __: Message) -> None:
        await gate.wait()

    async with pair(answering({FindRun: late} | HANDLERS)) as (asker, answerer):
        waiting = asyncio.ensure_future(asker.request(FindRun("x")))
        await asyncio.sleep(0)
        waiting.cancel()
        gate.set()
        answerer.send(Answer(99, {}))
        assert (await asker.request(AskGuest("on", {}))).result == {"op": "on"}


# ---- ends ---------------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_lost_connection_fails_what_waits() -> None:
    """Every unanswered question fails with BackendError, `closed` is told once, and later questions fail at once."""
    told: list[Peer] = []

    async def never(_: Peer, __: Message) -> None:
        await asyncio.Event().wait()

    one, other = socket.socketpair()
    asker = await streams.adopt(one, deaf, told.append)
    answerer = await streams.adopt(other, answering({FindRun: never}))
    waiting = [asyncio.ensure_future(asker.request(FindRun(str(n)))) for n in range(3)]
    await asyncio.sleep(0)
    answerer.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, BackendError) for result in results)
    assert told == [asker]
    with pytest.raises(BackendError):
        await asker.request(FindRun("late"))
    asker.send(Ready({}))
    asker.close()
    asker.close()
    assert told == [asker]


@in_loop
async def test_work_for_a_connection_ends_with_it() -> None:
    """What was attached to a peer, and what handles its requests, is cancelled when the other side goes."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def endless(*_: object) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with pair(answering({FindRun: endless})) as (asker, answerer):
        answerer.attach(endless())
        await began.wait()
        asker.close()
        await ended.wait()
        await answerer.gone


@in_loop
async def test_close_lets_out_what_was_sent() -> None:
    """Closing right after sending megabytes loses none of them."""
    heard: list[int] = []
    one, other = socket.socketpair()
    gone = asyncio.Event()
    sender = await streams.adopt(one, deaf)
    await streams.adopt(other, lambda _, message: heard.append(len(message.buffers[0])), lambda _: gone.set())
    for _ in range(20):
        sender.send(Ready({}, buffers=(bytes(500_000),)))
    sender.close()
    await gone.wait()
    assert heard == [500_000] * 20
    await sender.gone


@pytest.mark.parametrize(
    "noise",
    [b"GET / HTTP/1.0\r\n\r\n" * 5, os.urandom(100), b"RMRA" + bytes(60), b"\0" * 5000],
    ids=["http", "random", "half", "zeros"],
)
@in_loop
async def test_noise_ends_the_connection(noise: bytes) -> None:
    """Bytes that are no frames close the connection and fail what waits with ProtocolError."""
    raw, theirs = socket.socketpair()
    peer = await streams.adopt(theirs, deaf)
    waiting = asyncio.ensure_future(peer.request(FindRun("x")))
    await asyncio.sleep(0)
    raw.sendall(noise)
    with pytest.raises(ProtocolError):
        await waiting
    await peer.gone
    raw.close()


@in_loop
async def test_a_frame_cut_short_is_an_end_like_any_other() -> None:
    """The other side died while it sent: nothing of the half message is heard."""
    heard: list[Message] = []
    raw, theirs = socket.socketpair()
    peer = await streams.adopt(theirs, lambda _, message: heard.append(message))
    data = b"".join(encode(Ready({}, buffers=(bytes(100_000),))))
    raw.sendall(data + data[:50_000])
    raw.close()
    await peer.gone
    assert len(heard) == 1


# ---- slow peers ---------------------------------------------------------------------------------------------------------


@in_loop
async def test_congestion_is_seen_and_passes() -> None:
    """A peer that is not read becomes congested within a few MiB; all who wait go on when it is read."""
    raw, theirs = socket.socketpair()
    peer = await streams.adopt(theirs, deaf)
    sent = 0
    while not peer.congested:
        peer.send(Ready({}, buffers=(bytes(1 << 20),)))
        sent += 1
    assert 2 <= sent <= 10
    waiting = [asyncio.ensure_future(peer.wait_drained()) for _ in range(5)]
    await asyncio.sleep(0)
    assert not any(w.done() for w in waiting)
    raw.setblocking(False)
    while peer.congested:
        await asyncio.get_running_loop().sock_recv(raw, 1 << 20)
    await asyncio.gather(*waiting)
    await peer.wait_drained()
    raw.close()
    await peer.gone


@in_loop
async def test_bulk_goes_in_its_turn_and_without_a_copy() -> None:
    """What is sent before and after a large message arrives before and after it, also when the peer is closed at once."""
    heard: list[Message] = []
    bulk = random.Random(3).randbytes(32 << 20)
    one, other = socket.socketpair()
    first, second = await streams.adopt(one, deaf), await streams.adopt(other, lambda _, message: heard.append(message))
    messages = [Ready({"n": 1}), Ready({"n": 2}, buffers=(bulk,)), Ready({"n": 3}), Ready({"n": 4}, buffers=(bulk[:5],))]
    tracemalloc.start()
    try:
        for message in messages:
            first.send(message)
        first.close()
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()
    await second.gone
    assert [message.facts["n"] for message in heard if isinstance(message, Ready)] == [1, 2, 3, 4]
    assert [b"".join(message.buffers) == b"".join(sent.buffers) for message, sent in zip(heard, messages, strict=True)] == [
        True
    ] * 4


@in_loop
async def test_who_waits_for_a_slow_peer_goes_on_when_it_is_gone() -> None:
    """A congested peer that dies keeps nobody waiting."""
    raw, theirs = socket.socketpair()
    peer = await streams.adopt(theirs, deaf)
    while not peer.congested:
        peer.send(Ready({}, buffers=(bytes(1 << 20),)))
    waiting = [asyncio.ensure_future(peer.wait_drained()) for _ in range(3)]
    await asyncio.sleep(0)
    raw.close()
    await asyncio.gather(*waiting)
    assert peer.gone.done()


# ---- sockets ------------------------------------------------------------------------------------------------------------


@in_loop
async def test_hello_comes_first_and_says_who(tmp_path: Path) -> None:
    """The served side learns the role; the connected side is told the version and pid."""
    async with serving(tmp_path / "socket", HANDLERS) as came:
        peer = await streams.connect(tmp_path / "socket", "client 7", deaf)
        assert came[0].role == "client 7"
        answer = await peer.request(Hello(PROTOCOL, "0", "again"))
        assert answer.result["pid"] == os.getpid()
        peer.close()
        await peer.gone


@in_loop
async def test_another_protocol_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """A Hello of another protocol gets an error that names both; `connect` closes what it opened."""
    async with serving(tmp_path / "socket", HANDLERS) as came:
        peer = await streams.adopt(streams.dial(tmp_path / "socket"), deaf)
        with pytest.raises(ProtocolError, match=rf"protocol {PROTOCOL}; yours is 9\.9 with {PROTOCOL + 1}"):
            await peer.request(Hello(PROTOCOL + 1, "9.9", "future"))
        peer.close()
        await peer.gone

    async def refuse(_: Peer, __: Message) -> None:
        raise ProtocolError("yours is older")

    async with serving(tmp_path / "socket", {Hello: refuse}) as came:
        with pytest.raises(ProtocolError, match="yours is older"):
            await streams.connect(tmp_path / "socket", "client", deaf)
        await came[0].gone


@in_loop
async def test_the_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    """Nobody else may open it, and what lay there before, such as a dead backend's socket, is replaced."""
    path = tmp_path / "socket"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with serving(path, HANDLERS):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
        peer = await streams.connect(path, "client", deaf)
        peer.close()
        await peer.gone


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others cannot become somebody else")
@in_loop
async def test_another_user_is_turned_away_before_a_word(short: Path) -> None:
    """Even where the file would let them in, the kernel says who connects, and they are cut off unheard."""
    path = short / "socket"
    async with serving(path, HANDLERS) as came:
        path.chmod(0o666)
        child = os.fork()
        if child == 0:
            _knock(path)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert not came
        peer = await streams.connect(path, "its own user", deaf)
        peer.close()
        await peer.gone


def _knock(path: Path) -> None:
    """Become a stranger, say Hello and leave with 0 if nothing but an end comes back."""
    code = 9
    try:
        os.setgid(STRANGER)
        os.setuid(STRANGER)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(str(path))
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"".join(encode(Hello(PROTOCOL, "0", "stranger", ask=1))))
        try:
            code = 1 if sock.recv(100) else 0
        except ConnectionError:
            code = 0
    finally:
        os._exit(code)


@pytest.mark.parametrize("depth", [3, 30])
@in_loop
async def test_paths_longer_than_a_socket_address(tmp_path: Path, depth: int) -> None:
    """Serving and connecting work at any depth, and no descriptor of the folder stays open."""
    folder = tmp_path.joinpath(*[f"folder-{n:02d}-é" for n in range(depth)])
    folder.mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    async with serving(folder / "socket", HANDLERS):
        assert (folder / "socket").is_socket()
        peer = await streams.connect(folder / "socket", "deep", deaf)
        assert (await peer.request(AskGuest("hello", {}))).result == {"op": "hello"}
        peer.close()
        await peer.gone
    assert len(os.listdir("/proc/self/fd")) == before


@in_loop
async def test_nobody_at_home(tmp_path: Path) -> None:
    """No socket, a dead socket, a plain file, a folder that is not there: each is an OSError, and nothing stays open."""
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead"))
    dead.close()
    (tmp_path / "file").touch()
    long = tmp_path / ("x" * 120)
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path / "none", tmp_path / "dead", tmp_path / "file", tmp_path / "file" / "socket", long / "socket", long):
        with pytest.raises(OSError):
            await streams.connect(path, "client", deaf)
    assert len(os.listdir("/proc/self/fd")) == before


@in_loop
async def test_a_place_where_nothing_can_be_served(tmp_path: Path) -> None:
    """A folder that is not there is an OSError, without a socket left open."""
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path / "none" / "socket", tmp_path / ("x" * 120) / "socket"):
        with pytest.raises(OSError):
            await streams.serve(path, lambda: Peer(deaf))
    assert len(os.listdir("/proc/self/fd")) == before


@in_loop
async def test_a_server_that_goes_away_before_its_word(tmp_path: Path) -> None:
    """Whoever listens, takes the connection and dies says nothing; the connecting side gets an error, not a wait."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    connecting = asyncio.ensure_future(streams.connect(tmp_path / "socket", "client", deaf))
    taken, _ = await asyncio.to_thread(listener.accept)
    taken.close()
    listener.close()
    with pytest.raises(BackendError):
        await connecting


# ---- inside a sandbox -------------------------------------------------------------------------------------------------------


@in_loop
async def test_inside_a_sandbox_connections_are_handed_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an uplink nothing is opened: a socket's other end goes out with the name of whom it is for."""
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    monkeypatch.setenv(settings.UPLINK.name, str(inside.fileno()))
    mine = streams.dial(tmp_path / "nobody listens here")
    data, control, _, _ = outside.recvmsg(4096, socket.CMSG_SPACE(4))
    assert json.loads(data) == {"to": str(tmp_path / "nobody listens here")}
    (theirs,) = array.array("i", control[0][2])
    with socket.socket(fileno=theirs) as other:
        other.sendall(b"hello")
        assert mine.recv(10) == b"hello"
    for sock in (mine, inside, outside):
        sock.close()


@in_loop
async def test_an_uplink_whose_supervisor_has_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Dialling through an uplink that leads nowhere is an OSError."""
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    outside.close()
    monkeypatch.setenv(settings.UPLINK.name, str(inside.fileno()))
    with pytest.raises(OSError):
        streams.dial(tmp_path / "socket")
    inside.close()


@in_loop
async def test_a_mistake_in_who_receives_closes_the_connection() -> None:
    """An error in `receive` itself ends the connection: a peer is never half dead."""
    expected(asyncio.get_running_loop())

    def receive(_: Peer, __: Message) -> None:
        raise InternalError("not expected here")

    async with pair(receive) as (asker, _):
        with pytest.raises(BackendError):
            await asker.request(FindRun("x"))


@in_loop
async def test_buffers_received_can_be_sent_on() -> None:
    """What comes in as views of one memory goes out again unharmed: supervisors pass bulk on without a copy."""
    came: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    async with pair(lambda _, message: came.set_result(message)) as (last, receiver):
        async with pair(lambda _, message: last.send(message)) as (first, _):
            first.send(Emit(RunId("r"), "output", {"t": "\udcff"}, buffers=(b"a" * 70_000, b"", b"b")))
            message = await came
        assert [bytes(b) for b in message.buffers] == [b"a" * 70_000, b"", b"b"]
        assert message.content == {"t": "\udcff"}
        assert receiver.role == ""
