"""Sandboxes for tests: orders for plain processes, a small guest that speaks frames, and clients that keep what they hear.

Law: the guest does what the code of a run tells it, in words of its own; nothing of the real guest is used. No test framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import remora
from remora import streams
from remora.images import Image, Mirror
from remora.resources import Resources, SandboxSpec
from remora.states import ENDED, RunState
from remora.streams import Peer
from remora.wire import Fields, FollowRun, Message, Record, RunChanged, RunId, SandboxChanged, SandboxId, StartRun
from remora_provisioner.order import SCRATCH, Order

KERNEL = Path(remora.__file__).resolve().parents[1]

# One word a line: what the guest does with a run. "wait" and "deaf" last until they are interrupted, or for ever.
GUEST = f"""
import os, signal, socket, sys
sys.path.insert(0, {str(KERNEL)!r})
from remora import frames
from remora.wire import *

line = socket.socket(fileno=int(os.environ["REMORA_GUEST_FD"]))
decoder, came = frames.Decoder(), []

def say(message):
    line.sendall(b"".join(frames.encode(message)))

def hear():
    while not came:
        count = line.recv_into(decoder.writable())
        if not count:
            os._exit(0)
        came.extend(decoder.wrote(count))
    return came.pop(0)

def emit(run, kind, content, *buffers):
    say(Emit(run, kind, content, buffers=buffers))

def output(run, text):
    emit(run, "output", {{"msg_type": "stream", "content": {{"name": "stdout", "text": text}}, "metadata": {{}}}})

def wait(run, reacts):
    while True:
        message = hear()
        if isinstance(message, Interrupt) and reacts:
            error = {{"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}}
            emit(run, "result", {{"ok": False, "error": error}})
            return True
        answer(message)

def answer(message):
    if isinstance(message, AskGuest):
        say(Answer(message.ask, {{"op": message.op}}, buffers=message.buffers))
    elif isinstance(message, (InputReply, CommMessage)):
        output(getattr(message, "run", "") or message.content.get("run", ""), type(message).__name__)

def obey(run, words):
    for word in words:
        name, _, rest = word.partition(" ")
        if name == "say":
            output(run, rest)
        elif name == "many":
            for n in range(int(rest)):
                output(run, str(n))
        elif name == "bulk":
            emit(run, "output", {{}}, bytes(int(rest)))
        elif name == "emit":
            emit(run, rest, {{"status": "started"}})
        elif name == "end":
            os._exit(int(rest))
        elif name == "die":
            os.kill(os.getpid(), int(rest))
        elif name == "noise":
            line.sendall(b"this is no frame at all, only noise")
        elif name == "again":
            say(Ready({{}}))
        elif name == "odd":
            say(Emit(["no", "id"], "output", {{}}))
        elif name == "hang-up":
            line.shutdown(socket.SHUT_RDWR)
            while True: signal.pause()
        elif name == "ask":
            emit(run, "input_request", {{"prompt": rest, "password": False}})
            output(run, hear().value)
        elif name == "memory":
            globals()["taken"] = b"x" * int(rest)
        elif name == "forge":
            emit(run, "state", {{"state": rest}})
        elif name == "other":
            emit(rest, "result", {{"ok": True}})
        elif name == "fail":
            emit(run, "result", {{"ok": False, "error": {{"ename": rest, "evalue": "", "traceback": []}}}})
            return
        elif name in ("wait", "deaf"):
            if wait(run, name == "wait"):
                return
    emit(run, "result", {{"ok": True, "error": None}})

if os.environ.get("NEVER_READY"):
    while True: hear()
say(Ready({{"pid": os.getpid()}}))
while True:
    message = hear()
    if isinstance(message, StartRun):
        obey(message.run, message.body.get("code", "").splitlines())
    else:
        answer(message)
"""


def an_order(place: Path, *, sandbox: str = "s1", code: str = GUEST, **changes: Any) -> Order:
    """Make a sandbox's directory below `place` and return the order to run that guest in a plain process."""
    directory = place / "sandboxes" / sandbox
    for name in (SCRATCH,):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (place / "folder").mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "sandbox": sandbox,
        "directory": str(directory),
        "runs": str(place / "runs"),
        "jail": "process",
        "argv": (sys.executable, "-I", "-S", "-c", code),
        "environment": {"PATH": "/usr/bin:/bin"},
        "folder": str(place / "folder"),
        "home": str(place),
        "mounts": ((str(place / "folder"), str(place / "folder"), True),),
    }
    order = Order(**(values | changes))
    order.save()
    return order


def a_spec(place: Path, code: str = GUEST, **changes: Any) -> SandboxSpec:
    """Return the spec of a sandbox whose guest is that code; the environment is this interpreter's, without its packages."""
    guest = place / "image" / "guest" / "__main__.py"
    guest.parent.mkdir(parents=True, exist_ok=True)
    guest.write_text(code)
    here = Mirror.here()
    base = Mirror(here.executable, here.prefix, here.base_prefix, here.version, (), ()).base()
    image = Image(base).to_dict() | {"guest": str(guest)}
    folder = place / "folder"
    folder.mkdir(exist_ok=True)
    values: dict[str, Any] = {"folder": str(folder), "home": str(place / "home"), "resources": Resources()}
    return SandboxSpec(image, **(values | changes))


def a_run(run: str, code: str = "", **body: Any) -> StartRun:
    """Return the request to run that code."""
    return StartRun(RunId(run), "cell", f"cell {run}", {"code": code} | body)


class Listener:
    """Keeps what happens and lets a test wait for it: as an agent's listener, or as whoever is connected to a supervisor."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self.sandboxes: dict[SandboxId, tuple[str, Fields]] = {}
        self.runs: dict[RunId, tuple[str, Fields]] = {}
        self.records: dict[RunId, list[Record]] = {}
        self.states: list[tuple[str, str]] = []
        self._more = asyncio.Event()

    def sandbox_changed(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        """Keep a sandbox's state."""
        self.sandboxes[sandbox] = (state, facts)
        self.states.append((sandbox, state))
        self._more.set()

    def run_changed(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Keep a run's state."""
        self.runs[run] = (state, facts)
        self.states.append((run, state))
        self._more.set()

    def recorded(self, record: Record) -> None:
        """Keep a record."""
        self.records.setdefault(record.run, []).append(record)
        self._more.set()

    def receive(self, _: Peer, message: Message) -> None:
        """Keep whatever a supervisor sends."""
        if isinstance(message, Record):
            self.recorded(message)
        elif isinstance(message, SandboxChanged):
            self.sandbox_changed(message.sandbox, message.state, message.facts)
        elif isinstance(message, RunChanged):
            self.run_changed(SandboxId(""), message.run, message.state, message.facts)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something heard makes the condition true."""
        while not condition():
            self._more.clear()
            await self._more.wait()

    def last(self, run: str) -> str | None:
        """Return the state that the records of a run end with, if it has ended."""
        states = [r.content["state"] for r in self.records.get(RunId(run), []) if r.type == "state"]
        return states[-1] if states and RunState(states[-1]) in ENDED else None

    async def end_of(self, run: str) -> list[Record]:
        """Wait for the last record of a run and return them all."""
        await self.until(lambda: self.last(run))
        return self.records[RunId(run)]

    def text(self, run: str) -> list[str]:
        """Return what a run has printed so far."""
        found = [r.content for r in self.records.get(RunId(run), []) if r.type == "output"]
        return [content["content"]["text"] for content in found if "content" in content]

    def reason(self, run: str) -> str | None:
        """Return the reason of a run's last state."""
        return self.records[RunId(run)][-1].content.get("reason")


class Visitor(Listener):
    """Somebody connected to a supervisor."""

    def __init__(self, peer: Peer | None = None) -> None:
        """Start unconnected; `visit` connects."""
        super().__init__()
        self.peer: Peer = peer  # type: ignore[assignment]  # set by visit

    async def follow(self, run: str, after: int = -1, wait: bool = True) -> list[Record]:
        """Follow a run to its end and return what came."""
        await self.peer.request(FollowRun(RunId(run), after, wait))
        return self.records.get(RunId(run), [])


@contextlib.asynccontextmanager
async def visit(path: Path, role: str = "client test") -> AsyncIterator[Visitor]:
    """Connect to a supervisor."""
    visitor = Visitor()
    visitor.peer = await streams.connect(path, role, visitor.receive)
    try:
        yield visitor
    finally:
        visitor.peer.close()
        await visitor.peer.gone


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Keep limits by watching, which every machine can, while the block lasts."""
    before = os.environ.get("REMORA_LIMITS")
    os.environ["REMORA_LIMITS"] = "watching"
    try:
        yield
    finally:
        os.environ.pop("REMORA_LIMITS")
        if before is not None:
            os.environ["REMORA_LIMITS"] = before
