"""When folders of sandboxes elsewhere are exchanged, and what is told of it: real folders, and a machine that can be held up."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from loops import in_loop
from provisioner.machines.exchanging import write
from remora.errors import RemoraError
from remora.resources import SandboxSpec
from remora.wire import Fields, RunId, SandboxId
from remora_provisioner.machines.exchange import moving, serve, tell
from remora_provisioner.machines.homes import Homes

BOX = SandboxId("b0x")


async def until(so: Callable[[], object]) -> None:
    """Wait for what another thread brings about."""

    def wait() -> None:
        for _ in range(2000):
            if so():
                return
            time.sleep(0.01)

    await asyncio.to_thread(wait)
    assert so()


class Machine:
    """A machine with one sandbox; what is dialled there is remembered, runs end when they are told to."""

    def __init__(self, root: Path) -> None:
        self.here, self.there, self._state = root / "here", root / "there", root / "there-state"
        for folder in (self.here, self.there, root / "backend"):
            folder.mkdir()
        self.homes = Homes("gpubox", self._dial, root / "backend")
        self.homes.note(BOX, SandboxSpec("", folder=str(self.here)))
        self.dialled: list[str] = []
        self.runs: dict[str, Future[None]] = {}
        self.refuses = self.hangs_up = False
        self.said: list[str] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._threads: list[threading.Thread] = []

    def _dial(self, target: str) -> socket.socket:
        near, far = socket.socketpair()
        self.dialled.append(target)
        thread = threading.Thread(target=self._served, args=(far, *target.split("/")[2:]))
        thread.start()
        self._threads.append(thread)
        return near

    def _served(self, sock: socket.socket, run: str = "") -> None:
        with sock, contextlib.suppress(RemoraError):
            if self.refuses:
                return
            if run:
                tell(self.there, self._state, sock, self.runs.setdefault(run, Future()).result)
            else:
                serve(self.there, self._state, sock)
                self.goes_on.wait(20)

    async def is_home(self, run: str) -> bool:
        """Ask as a door does."""
        return await asyncio.to_thread(self.homes.is_home, BOX, RunId(run), self)

    def say(self, text: str) -> None:
        """Hear how far it has come."""
        self.said.append(text)

    def until(self, sock: socket.socket) -> None:
        """Wait for an answer, and go when told to."""
        while not select.select([sock], [], [], 0.01)[0]:
            if self.hangs_up:
                raise ConnectionAbortedError("gone")

    async def told(self, *, whole: bool = False) -> Fields:
        """Ask as a kernel does that wants to be told."""
        return await self.homes.exchange(BOX, self.said.append, whole=whole)

    async def until_here(self, name: str) -> None:
        """Wait until a file is here."""
        await until((self.here / name).exists)

    async def close(self) -> None:
        """Let nothing go on."""
        self.homes.close()
        self.goes_on.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)


@in_loop
async def test_nothing_has_to_be_moved(tmp_path: Path) -> None:
    """Before a run nobody is asked, at its end one digest is."""
    machine = Machine(tmp_path)
    assert not machine.homes.is_at_rest(BOX)  # they have never met
    await machine.told()
    await machine.told()
    machine.dialled.clear()
    assert machine.homes.is_at_rest(BOX)
    assert machine.dialled == []
    asked = asyncio.ensure_future(machine.is_home("r1"))
    await until(lambda: "r1" in machine.runs)
    machine.runs["r1"].set_result(None)
    assert await asked
    machine.homes.ended(BOX, RunId("r1"))
    assert machine.dialled == [f"folder/{BOX}/r1"]
    await machine.close()


@in_loop
async def test_what_a_run_has_written_is_here_when_the_answer_is(tmp_path: Path) -> None:
    """And is told once."""
    machine = Machine(tmp_path)
    await machine.told()
    asked = asyncio.ensure_future(machine.is_home("r1"))
    await asyncio.sleep(0)
    write(machine.there / "made.txt", "made")
    machine.runs.setdefault("r1", Future()).set_result(None)
    assert not await asked
    assert (machine.here / "made.txt").read_text() == "made"
    assert not machine.homes.is_at_rest(BOX)  # somebody is to be told first
    assert "made.txt" in str((await machine.told())["line"]) or (await machine.told())["line"] == ""
    assert machine.homes.is_at_rest(BOX)
    await machine.close()


@in_loop
async def test_an_answer_that_cannot_be_given(tmp_path: Path) -> None:
    """The machine goes while a run is waited for: whoever asks is told so, not that nothing has come."""
    machine = Machine(tmp_path)
    await machine.told()
    machine.refuses = True
    with pytest.raises(OSError, match="not home"):
        await machine.is_home("r1")
    machine.refuses = False
    write(machine.there / "made.txt", "made")
    await machine.told(whole=True)
    assert (machine.here / "made.txt").exists()
    await machine.close()


@in_loop
async def test_nobody_waits_any_more(tmp_path: Path) -> None:
    """Whoever asked about the end of a run may leave before it: nothing waits on, and its files come all the same."""
    machine = Machine(tmp_path)
    await machine.told()
    asked = asyncio.ensure_future(machine.is_home("r1"))
    await until(lambda: "r1" in machine.runs)
    machine.hangs_up = True
    with pytest.raises(OSError, match="not home"):
        await asked
    write(machine.there / "made.txt", "made")
    machine.homes.ended(BOX, RunId("r1"))
    await machine.until_here("made.txt")
    machine.runs["r1"].set_result(None)
    await machine.close()


@in_loop
async def test_whoever_waits_hears_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an exchange that somebody else has begun, too, and after a run."""
    monkeypatch.setattr(moving, "_PAUSE", 0.0)
    machine = Machine(tmp_path)
    write(machine.here / "large", b"x" * (4 << 20))
    machine.homes.fetch_soon(BOX)
    await asyncio.sleep(0)
    await machine.told()
    assert len(machine.dialled) == 1
    assert any("sending files to gpubox: " in line for line in machine.said), machine.said
    machine.runs.setdefault("r1", Future()).set_result(None)
    write(machine.there / "larger", b"y" * (8 << 20))
    assert not await machine.is_home("r1")
    assert "bringing files home from gpubox: 4.0 MiB of 8.0 MiB" in machine.said
    machine.homes.ended(BOX, RunId("r1"))
    await machine.close()


@in_loop
async def test_a_run_that_ends_while_files_come(tmp_path: Path) -> None:
    """Those that it has written come as well, though nobody waits."""
    machine = Machine(tmp_path)
    await machine.told()
    write(machine.there / "a.txt", "a")
    machine.goes_on.clear()
    machine.homes.ended(BOX, RunId("a"))
    await machine.until_here("a.txt")
    write(machine.there / "b.txt", "b")
    machine.homes.ended(BOX, RunId("b"))
    machine.goes_on.set()
    await machine.until_here("b.txt")
    await machine.close()


@in_loop
async def test_what_could_not_come_is_fetched_again(tmp_path: Path) -> None:
    """Without anybody asking."""
    machine = Machine(tmp_path)
    await machine.told()
    write(machine.there / "a.txt", "a")
    machine.refuses = True
    machine.homes.ended(BOX, RunId("a"))
    await until(lambda: len(machine.dialled) == 2)
    machine.refuses = False
    await machine.until_here("a.txt")
    await machine.close()


@in_loop
async def test_an_exchange_of_somebody_else_is_not_waited_for(tmp_path: Path) -> None:
    """The question before a run is answered at once: another machine may have the folder for long."""
    machine = Machine(tmp_path)
    await machine.told()
    await machine.told()
    (state,) = (tmp_path / "backend/folders").iterdir()
    descriptor = os.open(state / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert not machine.homes.is_at_rest(BOX)
    os.close(descriptor)
    assert machine.homes.is_at_rest(BOX)
    await machine.close()


@in_loop
async def test_a_sandbox_without_a_folder(tmp_path: Path) -> None:
    """Is always at rest, and nobody is asked."""
    machine = Machine(tmp_path)
    machine.homes.note(SandboxId("bare"), SandboxSpec("", folder=str(machine.here), files="none"))
    assert machine.homes.is_at_rest(SandboxId("bare"))
    assert machine.homes.is_home(SandboxId("bare"), RunId("r1"), machine)
    assert machine.dialled == []
    await machine.close()


@in_loop
async def test_what_a_sandbox_leaves_that_ends(tmp_path: Path) -> None:
    """It comes home, and whoever has waited for its run is told."""
    machine = Machine(tmp_path)
    await machine.told()
    write(machine.there / "last.txt", "last")
    ending = asyncio.ensure_future(machine.homes.last(BOX, working=True))
    await machine.until_here("last.txt")
    assert "1 file" in str((await machine.told(whole=True))["line"])
    ending.cancel()
    await machine.close()
