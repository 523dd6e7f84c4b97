"""A real guest at the other end of a socketpair, without a jail, driven by blocking calls."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import remora
from remora.frames import Decoder, encode
from remora.sync import codec
from remora.wire import Answer, AskGuest, CommMessage, Emit, InputReply, Interrupt, Message, Ready, StartRun

DEADLINE = 30.0  # seconds, for anything at all
GUEST = Path(remora.__file__).parent / "guest" / "__main__.py"


@dataclass
class Ended:
    """One run as it was seen: what was emitted, when, and its result."""

    emits: list[Emit] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def result(self) -> dict[str, Any]:
        """The content of the result."""
        assert self.emits[-1].type == "result"
        return self.emits[-1].content

    @property
    def error(self) -> dict[str, Any]:
        """The error of a run that failed."""
        assert self.result["error"] is not None, "the run did not fail"
        return self.result["error"]

    def part(self, name: str) -> dict[str, Any]:
        """Decode a part of the result's buffers."""
        first, count = self.result["parts"][name]
        stream, *buffers = self.emits[-1].buffers[first : first + count]
        return codec.decode(bytes(stream), buffers, namespace={"__name__": "__main__"})

    @property
    def values(self) -> dict[str, Any]:
        """The variables that came home."""
        return self.part("values") if self.result["values"] else {}

    @property
    def exception(self) -> BaseException:
        """The exception object that came home."""
        return self.part("exception")["exception"]

    def outputs(self, *msg_types: str) -> list[dict[str, Any]]:
        """Return the contents of its outputs, of these message types or all."""
        found = [emit.content for emit in self.emits if emit.type == "output"]
        return [one for one in found if not msg_types or one["msg_type"] in msg_types]

    def text(self, name: str = "stdout") -> str:
        """Return all text of one stream."""
        return "".join(one["content"]["text"] for one in self.outputs("stream") if one["content"]["name"] == name)

    def plain(self) -> str:
        """Return the text form of what was displayed as the result."""
        return self.outputs("execute_result")[0]["content"]["data"]["text/plain"]


class RealGuest:
    """A guest process and the supervisor's end of its socket."""

    def __init__(self, folder: Path, python: str = sys.executable, **environment: str) -> None:
        """Start it in a folder."""
        ours, theirs = socket.socketpair()
        self.socket, self.decoder, self.numbers = ours, Decoder(), itertools.count(1)
        ours.settimeout(DEADLINE)
        self.pending: list[Message] = []
        self.count = 0
        self.log = (folder.parent / f"{folder.name}.guest.log").open("w+b")
        env = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "PYTHONPATH")}
        env |= {"REMORA_GUEST_FD": str(theirs.fileno()), "IPYTHONDIR": str(folder.parent / "ipython"), **environment}
        with theirs:
            self.process = subprocess.Popen(
                [python, str(GUEST)], cwd=folder, env=env, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
            )  # fmt: skip

    def wait_ready(self) -> RealGuest:
        """Wait until it says that it can run code, and keep its facts."""
        ready = self.receive()
        assert isinstance(ready, Ready)
        self.facts = ready.facts
        return self

    def send(self, message: Message) -> None:
        """Send one message."""
        for piece in encode(message):
            self.socket.sendall(piece)

    def receive(self) -> Message:
        """Return the next message; fails when the guest has gone."""
        while not self.pending:
            count = self.socket.recv_into(self.decoder.writable())
            if not count:
                self.log.seek(0)
                raise AssertionError(f"the guest has gone: {self.log.read().decode()}")
            self.pending.extend(self.decoder.wrote(count))
        return self.pending.pop(0)

    def start(self, form: str, body: dict[str, Any], buffers: Any = ()) -> str:
        """Start a run and return its id."""
        run = f"run{next(self.numbers)}"
        self.send(StartRun(run, form, form, body, buffers=tuple(buffers)))
        return run

    def cell(self, code: str, **body: Any) -> str:
        """Start a cell and return its run's id."""
        self.count += 1
        values, buffers = body.pop("send", None), ()
        if values is not None:
            encoded = codec.encode(values, namespace=body.pop("namespace", {"__name__": "__main__"}))
            assert not encoded.failures
            body["values"], buffers = {"names": list(encoded.names)}, (encoded.stream, *encoded.buffers)
        parent = {"msg_id": f"msg{self.count}", "msg_type": "execute_request", "session": "s", "username": "u"}
        return self.start("cell", {"code": code, "execution_count": self.count, "parent": parent, "reads": [], **body}, buffers)

    def until(self, run: str, stop: Callable[[Emit], bool], ended: Ended | None = None) -> Ended:
        """Collect what a run emits until `stop` says so."""
        ended = ended or Ended()
        while True:
            message = self.receive()
            assert isinstance(message, Emit) and message.run == run, message
            ended.emits.append(message)
            ended.times.append(time.monotonic())
            if stop(message):
                return ended

    def finish(self, run: str, ended: Ended | None = None) -> Ended:
        """Collect the rest of a run."""
        return self.until(run, lambda emit: emit.type == "result", ended)

    def run(self, code: str, **body: Any) -> Ended:
        """Run a cell to its end."""
        return self.finish(self.cell(code, **body))

    def call(self, source: str, *args: Any, **kwargs: Any) -> str:
        """Start a call of the function `f` that `source` defines, and return its run's id."""
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(source, namespace)
        encoded = codec.encode({"call": (namespace["f"], args, kwargs)}, namespace=namespace)
        assert not encoded.failures
        return self.start("call", {"values": {"names": ["call"]}}, (encoded.stream, *encoded.buffers))

    def notebook(self, *cells: Any, **body: Any) -> Ended:
        """Run a notebook to its end; a cell is its text, or its text and tags."""
        made = [cell if isinstance(cell, tuple) else (cell, []) for cell in cells]
        nodes = [
            {"cell_type": "code", "source": text, "metadata": {"tags": tags}, "id": f"c{i}"}
            for i, (text, tags) in enumerate(made)
        ]
        return self.finish(self.start("notebook", {"notebook": {"cells": nodes}, "allow_errors": False, **body}))

    def ask(self, op: str, **args: Any) -> Answer:
        """Ask a question and return the answer."""
        self.send(AskGuest(op, args, ask=next(self.numbers)))
        answer = self.receive()
        assert isinstance(answer, Answer)
        return answer

    def interrupt(self, run: str) -> None:
        """Press the stop button."""
        self.send(Interrupt(run))

    def reply(self, run: str, value: str = "", error: str | None = None) -> None:
        """Answer an input request."""
        self.send(InputReply(run, value, error))

    def comm(self, comm_id: str, data: dict[str, Any], msg_type: str = "comm_msg", **content: Any) -> None:
        """Send a comm message as the front end does."""
        self.send(CommMessage(msg_type, {"comm_id": comm_id, "data": data, **content}, {}, {"header": {"msg_id": "front"}}))

    def close(self) -> None:
        """Hang up, and wait until the guest has gone."""
        self.socket.close()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()
            self.log.close()


@pytest.fixture
def start_guest(tmp_path: Path) -> Iterator[Callable[..., RealGuest]]:
    """Start guests that end with the test."""
    started: list[RealGuest] = []

    def start(**options: Any) -> RealGuest:
        folder = tmp_path / "notebook"
        folder.mkdir(exist_ok=True)
        started.append(RealGuest(folder, **options))
        return started[-1].wait_ready()

    yield start
    for guest in started:
        guest.close()


@pytest.fixture
def guest(start_guest: Callable[..., RealGuest]) -> RealGuest:
    """One guest, for this test alone."""
    return start_guest()
