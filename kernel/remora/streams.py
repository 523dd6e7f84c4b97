"""Connections that carry messages: connect, serve, ask and answer. Shared by client, agent, supervisor and backend.

Law: asyncio only, and only the frames of `frames.py`. A Peer hands every message that is no answer to its `receive`
callback; whoever wants requests handled by name gives a `Handlers` table. Sockets are Unix sockets that only their user can
open; inside a sandbox there is nothing to open, and the supervisor hands out connected descriptors through an inherited one
(the uplink).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import functools
import itertools
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from . import frames, settings
from .bulk import Bulk
from .errors import BackendError, InternalError, ProtocolError, RemoraError, StateError, from_dict
from .wire import PROTOCOL, Answer, Buffer, Fields, Hello, Message, Request

Receive = Callable[["Peer", Message], None]
Handler = Callable[["Peer", Any], Awaitable["Fields | Reply | None"]]
Handlers = Mapping[type[Message], Handler]
Choose = Callable[["Peer", str, Fields, "list[int]"], "frames.Payload | None"]
"""`frames.Choose` of one connection."""
_HIGH_WATER, _LOW_WATER = 1 << 22, 1 << 20
_TOGETHER = 1 << 16
"""Bytes up to which messages wait for others of the same turn of the loop: one system call, and one waking up over there."""
_BULK, _PROBE = 1 << 17, 1 << 10
"""Bytes from which on pieces go past the transport, which copies what it cannot send, and those that tell when there is room."""
_QUEUE = 1 << 20
"""Bytes in the system: so many go before the other side has to be waited for."""
_LOG = logging.getLogger(__name__)


class Reply:
    """A handler's result that carries buffers."""

    def __init__(self, result: Fields, buffers: tuple[Buffer, ...] = ()) -> None:
        """Take the plain result and its bulk bytes."""
        self.result, self.buffers = result, buffers


class Peer(asyncio.BufferedProtocol):
    """One connection, seen from one side. Use it on the loop that made it."""

    def __init__(
        self, receive: Receive, closed: Callable[[Peer], None] | None = None, choose: Choose = lambda peer, *head: None
    ) -> None:
        """Hand messages to `receive`, and say once to `closed` that the other side has gone; payloads go where `choose` says."""
        self._receive, self._closed = receive, closed
        self._decoder = frames.Decoder(functools.partial(choose, self))
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = itertools.count(1)
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._outgoing: list[Buffer] = []
        self._piled = 0
        self._bulk = Bulk()
        self._full = self._closing = False
        self.congested = False
        self._room: asyncio.Future[None] | None = None
        self.gone = asyncio.get_running_loop().create_future()
        self.role = ""

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; bulk may pile up to a few MiB before `congested`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Let asyncio read straight into the frame's final memory."""
        return self._decoder.writable()

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on every message that is whole."""
        try:
            for message in self._decoder.wrote(nbytes):
                self._take(message)
        except ProtocolError as error:
            self._fail(error)

    def pause_writing(self) -> None:
        """Note that the other side is slow."""
        self._full = True
        self._judge()

    def resume_writing(self) -> None:
        """Let whoever waits go on."""
        self._full = False
        self._give_bulk()
        self._judge()

    def _judge(self) -> None:
        if self._transport is None:
            return
        waiting = self._bulk.held + self._transport.get_write_buffer_size()
        self.congested = waiting > (_LOW_WATER if self.congested else _HIGH_WATER)
        if not self.congested and self._room is not None and not self._room.done():
            self._room.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is unanswered and tell the owner, once."""
        self._transport = None  # asyncio would take an abort by now for a second end
        self._bulk.clear()
        self._decoder.broken()
        self._fail(exc or BackendError("the connection was closed"))

    # -- ours

    def send(self, message: Message) -> None:
        """Send a message; silently nothing once the other side is gone."""
        self.send_pieces(frames.encode(message))

    def send_pieces(self, pieces: list[Buffer]) -> None:
        """Send a frame that is encoded already, together with all that is sent in this turn of the loop."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self.flush)
        self._outgoing += pieces
        self._piled += sum(map(len, pieces))
        if self._piled > _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Send at once what waits for the end of this turn."""
        pieces, self._outgoing, self._piled = self._outgoing, [], 0
        if not pieces or self._transport is None or self._closing or self._transport.is_closing():
            return
        if self._bulk or sum(map(len, pieces)) > _BULK:
            self._bulk.add(pieces)
            self._transport.set_write_buffer_limits(high=0)
            self._give_bulk()
            self._judge()
        else:
            self._transport.writelines(pieces)

    def _give_bulk(self) -> None:
        """Send as much as goes at once, and leave to the transport what tells when more does."""
        while self._bulk and not self._full and self._transport is not None:
            descriptor = self._transport.get_extra_info("socket").fileno()
            if self._transport.get_write_buffer_size() or not self._bulk.write(descriptor):
                self._transport.write(self._bulk.cut(_PROBE))
        if not self._bulk and self._transport is not None:
            self._transport.set_write_buffer_limits(high=_HIGH_WATER)
            if self._closing:  # not at once: the transport may be in the midst of writing
                asyncio.get_running_loop().call_soon(self._transport.close)

    async def request(self, message: Request) -> Answer:
        """Send a request and return its answer; raises what the other side answered, or BackendError when it goes away."""
        number = next(self._numbers)
        waiting = asyncio.get_running_loop().create_future()
        if self.gone.done():
            raise BackendError("the connection was closed")
        self._waiting[number] = waiting
        object.__setattr__(message, "ask", number)
        self.send(message)
        try:
            answer: Answer = await waiting
        finally:
            self._waiting.pop(number, None)
        if answer.error is not None:
            raise from_dict(answer.error)
        return answer

    def answer(self, request: Request, reply: Fields | Reply | None = None, error: RemoraError | None = None) -> None:
        """Answer a request."""
        reply = reply if isinstance(reply, Reply) else Reply(reply or {})
        self.send(Answer(request.ask, reply.result, error.to_dict() if error else None, buffers=reply.buffers))

    def handle(self, handlers: Handlers, message: Message) -> None:
        """Run the message's handler as a task of this connection, and answer if it is a request."""
        handler = handlers.get(type(message))
        if handler is None:
            if isinstance(message, Request):
                self.answer(message, error=ProtocolError(f"{type(message).__name__} is not answered here"))
            return
        self.attach(self._run(handler, message))

    def attach(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work go on beside this connection, until it is done or the connection is gone."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, handler: Handler, message: Message) -> None:
        try:
            reply, error = await handler(self, message), None
        except RemoraError as known:
            reply, error = None, known
        except Exception as unforeseen:  # whatever it is, whoever asked must not wait for ever
            _LOG.exception("%s from %s", type(message).__name__, self.role or "a stranger")
            reply, error = None, _told(unforeseen)
        if isinstance(message, Request):
            self.answer(message, reply, error)

    def close(self) -> None:
        """Close after what was sent has gone out; safe twice."""
        self.flush()
        self._closing = True
        if self._transport is not None and not self._bulk:
            self._transport.close()

    async def wait_drained(self) -> None:
        """Wait until the other side keeps up, or is gone; any number may wait."""
        while self.congested and not self.gone.done():
            if self._room is None or self._room.done():
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._room, self.gone}, return_when=asyncio.FIRST_COMPLETED)

    async def hold(self, other: Peer, patience: float) -> bool:
        """Read nothing until `other`, to which it goes on, keeps up; False if that takes longer than so many seconds."""
        if self._transport is not None:
            self._transport.pause_reading()
        try:
            await asyncio.wait_for(other.wait_drained(), patience)
        except asyncio.TimeoutError:
            return False
        finally:
            if self._transport is not None:
                self._transport.resume_reading()
        return True

    def _take(self, message: Message) -> None:
        if isinstance(message, Answer):
            waiting = self._waiting.get(message.ask)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        else:
            self._receive(self, message)

    def _fail(self, error: Exception) -> None:
        if self.gone.done():
            return
        self.gone.set_result(None)
        for waiting in self._waiting.values():
            if not waiting.done():
                known = error if isinstance(error, RemoraError) else BackendError(f"the connection was lost: {error}")
                waiting.set_exception(known)
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()
        if self._closed is not None:
            self._closed(self)


# ---- connecting ---------------------------------------------------------------------------------------------------------


def _told(unforeseen: Exception) -> RemoraError:
    """Return what whoever asked hears of an error that nobody expected."""
    if isinstance(unforeseen, OSError) and unforeseen.errno in (errno.ENOSPC, errno.EDQUOT):
        machine, place = os.uname().nodename, unforeseen.filename or "what Remora writes there"
        return StateError(f"no room is left on {machine} for {place}; free some and run it again", reason="disk-full")
    return InternalError(f"{type(unforeseen).__name__}: {unforeseen}")


async def adopt(sock: socket.socket, receive: Receive, closed: Callable[[Peer], None] | None = None) -> Peer:
    """Make a Peer of a connected socket."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_unix_connection(lambda: Peer(receive, closed), sock=sock)
    return peer


async def connect(path: Path, role: str, receive: Receive, closed: Callable[[Peer], None] | None = None) -> Peer:
    """Connect to the socket at `path` and exchange Hello.

    Raises OSError when nobody listens there, ProtocolError when the other side is of another protocol.
    """
    peer = await adopt(dial(path), receive, closed)
    try:
        await peer.request(Hello(PROTOCOL, _version(), role))
    except BaseException:
        peer.close()
        raise
    return peer


def dial(path: Path) -> socket.socket:
    """Return a connected socket: opened at `path`, or handed out by the supervisor inside a sandbox, else OSError."""
    if settings.UPLINK.text == settings.NO_UPLINK:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no way leads out of a sandbox on another machine", str(path))
    if settings.UPLINK.text:
        return _dial_uplink(int(settings.UPLINK.text), path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(path) as short:
            sock.connect(short)
        if other_end(sock) not in (os.getuid(), 0):
            raise PermissionError(errno.EPERM, "somebody else listens there", str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def other_end(sock: socket.socket) -> int:
    """Return the user id of the process at the other end, as the kernel knows it."""
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(user)


def _dial_uplink(descriptor: int, path: Path) -> socket.socket:
    uplink = socket.socket(fileno=os.dup(descriptor))
    with uplink:
        uplink.setblocking(True)
        mine, theirs = socket.socketpair()
        with theirs:
            # the answer comes on a socket of its own, so that two threads that dial at once do not take each other's
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
            try:
                uplink.sendmsg([json.dumps({"to": str(path)}).encode()], rights)
            except BaseException:
                mine.close()
                raise
    return mine


@contextlib.contextmanager
def short_path(path: Path) -> Any:
    """Yield a name for the socket that fits the 108 bytes of a Unix socket address, however deep the path is."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


async def serve(path: Path, accept: Callable[[], Peer]) -> asyncio.AbstractServer:
    """Listen at `path`, for this user alone; `accept` makes the Peer of each new connection."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with short_path(path) as short:
            sock.bind(short)
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
    except BaseException:
        sock.close()
        raise
    return await asyncio.get_running_loop().create_unix_server(lambda: _Guarded(accept), sock=sock)


class _Guarded(asyncio.Protocol):
    """Asks the kernel who connects, before a byte is read."""

    def __init__(self, accept: Callable[[], Peer]) -> None:
        self._accept = accept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if other_end(transport.get_extra_info("socket")) not in (os.getuid(), 0):
            transport.abort()  # type: ignore[attr-defined]  # typeshed gives BaseTransport no abort
            return
        peer = self._accept()
        transport.set_protocol(peer)
        peer.connection_made(transport)


async def welcome(peer: Peer, message: Hello) -> Fields:
    """Answer a Hello; the handler for every table that serves connections."""
    if message.protocol != PROTOCOL:
        raise ProtocolError(
            f"this is Remora {_version()} with protocol {PROTOCOL}; yours is {message.version} with {message.protocol}"
        )
    peer.role = message.role
    return {"version": _version(), "pid": os.getpid()}


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("remora")
    except PackageNotFoundError:
        return "0"
