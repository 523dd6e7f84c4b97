"""What is made of a machine that is broken or hostile: each is a clear error, in bounded time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from loops import in_loop
from provisioner.machines.bare import small_bundle
from remora.errors import RemoraError, Unavailable
from remora_provisioner.machines.settling import dialogue as settling
from remora_provisioner.machines.settling import hearing
from remora_provisioner.machines.settling.dialogue import Patience, settle
from remora_provisioner.machines.settling.hearing import Hearing

Machine = Callable[["_There"], Awaitable[None]]
_SHORT = Patience(shell=0.3, sign=0.3)
_LONG = Patience(shell=30, sign=30)


class _There:
    """The machine's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    async def say(self, text: str | bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, text.encode() if isinstance(text, str) else text)

    async def marked(self, text: str = "") -> None:
        """Answer as our script does, up to the marker and a text after it."""
        heard = b""
        while heard.count(b"\n", len(settling._SETTLING)) < 1:
            heard += await asyncio.get_running_loop().sock_recv(self._sock, 1 << 16)
        nonce = heard[len(settling._SETTLING) :].partition(b"\n")[0].decode()
        await self.say(f"remora:{nonce}\n{text}")


async def _against(machine: Machine, patience: Patience, store: Path) -> RemoraError:
    mine, theirs = socket.socketpair()

    async def there() -> None:
        with theirs, contextlib.suppress(ConnectionError):
            await machine(_There(theirs))

    with mine:
        task = asyncio.create_task(there())
        try:
            with pytest.raises(RemoraError) as caught:
                await settle(mine, small_bundle(store), lambda _: None, patience=patience)
        finally:
            task.cancel()
            await asyncio.wait({task})
    return caught.value


async def _silent(_: _There) -> None:
    await asyncio.get_running_loop().create_future()


async def _endless_lines(there: _There) -> None:
    while True:
        await there.say("no use\n" * 1000)


async def _endless_line(there: _There) -> None:
    while True:
        await there.say("x" * 10000)


async def _closes(there: _There) -> None:
    await there.say("This account is \x1b[31mnot available\x07\n")


async def _never_ready(there: _There) -> None:
    await there.marked("fact cores 1\n")
    await _silent(there)


async def _endless_facts(there: _There) -> None:
    await there.marked()
    while True:
        await there.say("fact cores 1\n" * 100)


def _after_marker(text: str) -> Machine:
    async def machine(there: _There) -> None:
        await there.marked(text)
        await _silent(there)

    return machine


_CASES = {
    "silent": (_silent, _SHORT, "machine-silent"),
    "prints without end": (_endless_lines, _LONG, "machine-noise"),
    "prints one line without end": (_endless_line, _LONG, "machine-noise"),
    "closes": (_closes, _LONG, "machine-gone"),
    "stops in the middle": (_never_ready, _SHORT, "machine-silent"),
    "tells facts without end": (_endless_facts, _LONG, "machine-answer"),
    "tells nonsense": (_after_marker("\0\1\2 what\n"), _LONG, "machine-answer"),
    "lacks what nobody knows": (_after_marker("need gzip moon\n"), _LONG, "machine-answer"),
    "lacks pieces of nothing": (_after_marker("need plain code\nlack 1234\n"), _LONG, "machine-answer"),
    "needs nothing in particular": (_after_marker("need\n"), _LONG, "machine-answer"),
    "got what was not sent": (_after_marker("need plain code\nlack\ngot 1\n"), _LONG, "machine-answer"),
    "starts nowhere": (_after_marker("start\n"), _LONG, "machine-answer"),
    "fails for reasons of its own": (_after_marker("fail whim because\n"), _LONG, "machine-write"),
}


@pytest.mark.parametrize(("machine", "patience", "reason"), _CASES.values(), ids=_CASES)
@in_loop
async def test_a_broken_machine_is_a_clear_error(machine: Machine, patience: Patience, reason: str, tmp_path: Path) -> None:
    """Whatever it answers, one error says what it was, and nothing that a terminal would obey is quoted."""
    problem = await _against(machine, patience, tmp_path)
    assert problem.reason == reason
    assert str(problem).isprintable()


@in_loop
async def test_last_words_are_quoted(tmp_path: Path) -> None:
    """What a machine said before it hung up is in the error."""
    problem = await _against(_closes, _LONG, tmp_path)
    assert isinstance(problem, Unavailable)
    assert "its last words: This account is  [31mnot available" in str(problem)


@in_loop
async def test_values_that_are_no_numbers_are_unknown(tmp_path: Path) -> None:
    """Facts that make no sense are left out."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        told = "fact cores many\nfact memory -1\nfact namespaces perhaps\nfact place /there\nstart\n"
        task = asyncio.create_task(_There(theirs).marked(told))
        settled = await settle(mine, small_bundle(tmp_path), lambda _: None)
        await task
    assert (settled.facts.cores, settled.facts.memory, settled.facts.namespaces) == (None, None, None)
    assert (settled.place, settled.facts.clock) == ("/there", None)


@in_loop
async def test_not_a_byte_of_what_follows_is_taken() -> None:
    """What comes after a line is still in the socket."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.sendall(b"one\r\ntwo\nthree")
        heard = Hearing(mine)
        assert [await heard.line(10), await heard.line(10)] == ["one", "two"]
        assert mine.recv(100) == b"three"


@in_loop
async def test_who_settles_can_be_stopped(tmp_path: Path) -> None:
    """A settling that nobody wants any more ends at once, whatever the machine does."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        work = asyncio.create_task(settle(mine, small_bundle(tmp_path), lambda _: None))
        await _There(theirs).marked()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work


def test_quotes_are_short() -> None:
    """Nobody is shown a page of what a stranger printed."""
    assert len(hearing.printable("x" * 10000)) == 300
