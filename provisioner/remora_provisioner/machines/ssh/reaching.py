"""Reach a machine by SSH: start a command there, and get a socket that is the command's input and output.

Law: the connection lives in a process of its own (`__main__.py`), so that its threads and its arithmetic disturb nobody here, and
either of the two may be killed: the other notices at once. Nothing here imports paramiko, and no secret is on a command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import re
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from remora.errors import BackendError, OptionError, RemoraError, Unavailable, from_dict

_PROCESS = "remora_provisioner.machines.ssh"
_PLAIN = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:-]*", re.ASCII)


@dataclass(frozen=True)
class Target:
    """A machine as the user names it, and what goes before the user's SSH configuration."""

    name: str
    host: str | None = None
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    """A file with a key."""

    def __post_init__(self) -> None:
        """Refuse what a shell or ssh could take for something else: all of it may come to stand in a ProxyCommand."""
        for text in (self.name, self.host, self.user):
            if text is not None and not _PLAIN.fullmatch(text):
                raise OptionError(f"{text[:80]!r} is no name of a machine, host or user")


@dataclass(frozen=True)
class Question:
    """What only a person can say.

    `kind` is "host-key" (answered with yes or no; facts hold host, type and fingerprint), "passphrase" (facts hold the
    key's file), "password" or "prompt" (words of the other machine).
    """

    kind: str
    text: str
    secret: bool = False
    """What is typed must not be seen."""
    again: bool = False
    """The last answer was wrong."""
    facts: dict[str, str] = field(default_factory=dict)


Ask = Callable[[Question], Awaitable[str | None]]
"""Answers a question; None when there is nobody who could."""


@dataclass(frozen=True)
class Ended:
    """How a command on another machine ended, and the end of what it has written to its errors."""

    status: int | None = None
    """None if it was killed or is not known."""
    lost: bool = True
    """The connection ended first, by itself or because the socket was closed."""
    said: str = ""

    def error(self, name: str) -> RemoraError:
        """Return this end as an error, for whom it came too early; `name` is the machine's."""
        if self.lost:
            return Unavailable(f"the connection to {name} was lost", reason="connection-lost")
        how = "was killed" if self.status is None else f"ended with status {self.status}"
        said = f": {shown(self.said, 500)}" if self.said else ", and said nothing"
        return Unavailable(f"the command on {name} {how}{said}", reason="command-ended")


class Reached(socket.socket):
    """A socket that is the input and output of a command on another machine. Closing it ends the command's connection."""

    _following: asyncio.Task[Ended]

    async def ended(self) -> Ended:
        """Wait until the connection's process has ended, and return how; any number may wait."""
        return await asyncio.shield(self._following)


def shown(text: object, most: int = 300) -> str:
    """Return the beginning of what somebody else has said as one line that a terminal can show."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())[:most]


async def nobody(_question: Question) -> None:
    """Answer nothing: an Ask for when there is nobody."""


async def reach(target: Target, command: str, ask: Ask = nobody) -> Reached:
    """Start a command on a machine, with the user's shell there, and return its input and output.

    Raises Unavailable if it cannot be reached; `reason` says why: "no-such-host", "unreachable", "not-ssh", "host-key-unknown",
    "host-key-changed", "host-key-revoked", "not-authorised", "no-command" or "ssh-missing". InputError for a configuration or
    a file that cannot be used.
    """
    if importlib.util.find_spec("paramiko") is None:
        raise Unavailable(
            f"{target.name} is reached by SSH, which needs paramiko; write: pip install 'remora[ssh]'", reason="ssh-missing"
        )
    mine, control, process = _start()
    try:
        reader, writer = await asyncio.open_unix_connection(sock=control)
    except BaseException:
        mine.close()
        await _end(process, control)
        raise
    line = _Line(process, reader, writer)
    try:
        await line.say({"target": asdict(target), "command": command})
        await line.wait_started(ask)
    except BaseException:
        mine.close()
        await line.end()
        raise
    reached = Reached(fileno=mine.detach())
    reached._following = asyncio.get_running_loop().create_task(line.follow())
    return reached


def _start() -> tuple[socket.socket, socket.socket, subprocess.Popen[bytes]]:
    """Start the process of a connection; return our ends of its bytes and its control."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(2)]
        for _, theirs in pairs:
            stack.enter_context(theirs)
        numbers = [theirs.fileno() for _, theirs in pairs]
        argv = [sys.executable, "-P", "-m", _PROCESS, *map(str, numbers)]
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=numbers, start_new_session=True
        )
    return pairs[0][0], pairs[1][0], process


async def _end(process: subprocess.Popen[bytes], control: Any) -> None:
    control.close()
    process.kill()
    await asyncio.to_thread(process.wait)


class _Line:
    """The control line to the process of a connection."""

    def __init__(self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process, self._reader, self._writer = process, reader, writer

    async def say(self, what: dict[str, Any]) -> None:
        self._writer.write(json.dumps(what).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # it has ended: the next reading tells
            await self._writer.drain()

    async def wait_started(self, ask: Ask) -> None:
        """Hand on questions until the command has been started, or raise why it cannot be."""
        while told := await self._hear():
            if "ask" in told:
                await self.say({"answer": await ask(Question(**told["ask"]))})
            elif "failed" in told:
                raise from_dict(told["failed"])
            else:
                return
        raise BackendError("the process that connects by SSH ended without a word; its last lines stand in the backend's log")

    async def follow(self) -> Ended:
        """Wait for the end of the process, and return how the command ended."""
        try:
            told = await self._hear()
            return Ended(**told["ended"]) if told else Ended()
        finally:
            await self.end()

    async def end(self) -> None:
        await _end(self._process, self._writer)

    async def _hear(self) -> dict[str, Any]:
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return {}
        found: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        return found
