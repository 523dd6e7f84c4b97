"""The desk for calls, in a real service with real supervisors and the lightest jail: nothing is lost, nothing runs twice."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import remora
from remora import places, streams
from remora.client import new_run
from remora.errors import RemoraError
from remora.options import build
from remora.packing import Packer
from remora.states import ENDED, RunState
from remora.wire import CancelRun, FindRun, FollowRun, ListAll, Record, RunId, StopSandboxes, SubmitCall
from remora_backend.service import Service


def nap(seconds):
    """Sleep."""
    time.sleep(seconds)
    return seconds


class Caller:
    """One connection to a service, and the records that have come over it."""

    def __init__(self, folder):
        """Call what serves in this folder."""
        self.folder = folder
        self.records: dict[str, list[Record]] = {}
        self.begun: dict[str, asyncio.Event] = {}
        self.options = {"jail": "process", "cpu": 1}

    def _receive(self, _, message):
        if isinstance(message, Record):
            self.records.setdefault(message.run, []).append(message)
            if message.content.get("state") == "running":
                self.begun.setdefault(message.run, asyncio.Event()).set()

    async def connect(self):
        """Connect."""
        self.peer = await streams.connect(self.folder / "socket", "client test", self._receive)

    async def ask(self, request):
        """Return the answer's result."""
        return (await self.peer.request(request)).result

    def request(self, seconds=0.0, run=None, **options):
        """Return the request of a call that sleeps."""
        cargo = Packer(nap, build(self.options | options), 0).pack((seconds,), {})
        return SubmitCall(RunId(run or new_run()), cargo.name, cargo.spec, cargo.body, buffers=cargo.buffers)

    async def submit(self, *args, **options):
        """Queue a call and return its run."""
        request = self.request(*args, **options)
        await self.ask(request)
        return request.run

    async def running(self, *args, **options):
        """Queue a call, and return its run and what follows it when it runs."""
        run = await self.submit(*args, **options)
        following = asyncio.create_task(self.ask(FollowRun(run)))
        await self.begun.setdefault(run, asyncio.Event()).wait()
        return run, following

    async def end(self, run, following=None):
        """Follow a run to its end; return its states, and its result's content."""
        await (following or self.ask(FollowRun(run)))
        found = self.records.pop(run)
        assert [record.seq for record in found] == list(range(len(found)))
        states = [record.content["state"] for record in found if record.type == "state"]
        (result,) = [record.content for record in found if record.type == "result"]
        return states, result

    async def sandboxes(self):
        """Return the living sandboxes."""
        return (await self.ask(ListAll()))["sandboxes"]


@asynccontextmanager
async def serving(folder: Path, last: bool = True) -> AsyncIterator[Caller]:
    """Serve in this folder, as a backend's process does; the last service there ends its sandboxes, too."""
    service, ready, caller = Service(folder), asyncio.Event(), Caller(folder)
    living = asyncio.create_task(service.live(ready))
    await ready.wait()
    await caller.connect()
    try:
        yield caller
    finally:
        if last:
            await caller.ask(StopSandboxes([], everything=True))
        service.over.set()
        caller.peer.close()
        await living


async def gone(socket):
    """Wait until a supervisor is gone."""
    peer = await streams.connect(Path(socket), "visitor", lambda *_: None)
    await peer.gone


@pytest.fixture
def folder():
    """Give a service's folder."""
    with tempfile.TemporaryDirectory(prefix="desk-") as path:
        yield Path(path)


@pytest.fixture(scope="module", autouse=True)
def _warm_up():
    """Start once the threads that asyncio keeps."""
    places.spec(build({}))


def test_a_call_from_its_queue_to_its_end(folder):
    """A call is queued, runs and ends; what it was made of is gone from the disk, its log is there."""

    async def scenario():
        async with serving(folder) as caller:
            run = await caller.submit(0.0)
            states, result = await caller.end(run)
            assert states == ["queued", "running", "done"] and result["ok"]
            assert [path.name for path in (folder / "runs" / run).iterdir()] == ["log"]
            assert (await caller.ask(FindRun(run)))["state"] == "done"
            assert (await caller.end(run))[0] == states

    asyncio.run(scenario())


def test_calls_share_sandboxes_and_cores(folder):
    """Many calls run one at a time in no more sandboxes than there are cores, in the order they came."""

    async def scenario():
        async with serving(folder) as caller:
            runs = [await caller.submit(0.05) for _ in range(8)]
            ended = [await caller.end(run) for run in runs]
            assert all(states[-1] == "done" for states, _ in ended)
            facts = [await caller.ask(FindRun(run)) for run in runs]
            used = {fact["sandbox"] for fact in facts}
            assert 1 <= len(used) <= (os.cpu_count() or 1)
            for sandbox in used:
                spans = [(f["started"], f["ended"]) for f in facts if f["sandbox"] == sandbox]
                assert all(first[1] <= then[0] for first, then in itertools.pairwise(spans))

    asyncio.run(scenario())


def test_the_same_run_twice_is_refused(folder):
    """A run that is known is not queued again."""

    async def scenario():
        async with serving(folder) as caller:
            request = caller.request(0.0)
            await caller.ask(request)
            with pytest.raises(RemoraError) as refused:
                await caller.ask(caller.request(0.0, run=request.run))
            assert refused.value.reason == "run-exists"
            assert (await caller.end(request.run))[0][-1] == "done"

    asyncio.run(scenario())


def test_what_nobody_has_is_refused_before_it_is_queued(folder):
    """A call for a device that is not there leaves nothing behind."""

    async def scenario():
        async with serving(folder) as caller:
            with pytest.raises(remora.Unavailable):
                await caller.submit(0.0, gpu="Z9000")
            assert not list((folder / "runs").glob("*"))
            assert await caller.sandboxes() == []

    asyncio.run(scenario())


def test_cancel_at_every_moment(folder):
    """A call is cancelled before its sandbox is there, while it is handed over, while it runs; each ends once."""

    async def scenario():
        async with serving(folder) as caller:
            waiting = [await caller.submit(30.0) for _ in range(5)]
            for run in waiting:
                await caller.ask(CancelRun(run))
            warm = await caller.submit(0.0)
            await caller.end(warm)
            request = caller.request(30.0)
            at_once = asyncio.gather(caller.ask(request), caller.ask(CancelRun(request.run)))
            await at_once
            running, following = await caller.running(30.0)
            await caller.ask(CancelRun(running))
            await following
            for run in (*waiting, request.run, running):
                states, result = await caller.end(run, following if run == running else None)
                assert states[-1] == "ended" and sum(RunState(state) in ENDED for state in states) == 1
                assert result["ended"]["reason"] == "cancelled"
                assert not (folder / "runs" / run / "input").exists()
            again = await caller.submit(0.0)
            assert (await caller.end(again))[0][-1] == "done"

    asyncio.run(scenario())


def test_a_killed_supervisor_ends_its_call_alone(folder):
    """When a supervisor is killed its call has crashed, and those that wait are run elsewhere."""

    async def scenario():
        async with serving(folder) as caller:
            caller.options["cpu"] = os.cpu_count()
            first, following = await caller.running(30.0)
            others = [await caller.submit(0.0) for _ in range(3)]
            (sandbox,) = await caller.sandboxes()
            os.kill(sandbox["supervisor"], signal.SIGKILL)
            states, result = await caller.end(first, following)
            assert states[-1] == "ended" and result["ended"]["reason"] == "crashed"
            assert [(await caller.end(run))[0][-1] for run in others] == ["done"] * 3

    asyncio.run(scenario())


def test_unused_sandboxes_end(folder):
    """A function's own idle time decides when its sandboxes end."""

    async def scenario():
        async with serving(folder) as caller:
            run = await caller.submit(0.0, idle="0.2s")
            await caller.end(run)
            facts = await caller.ask(FindRun(run))
            await gone(facts["endpoint"]["socket"])
            assert await caller.sandboxes() == []
            again = await caller.submit(0.0, idle="0.2s")
            assert (await caller.end(again))[0][-1] == "done"

    asyncio.run(scenario())


def test_calls_outlive_the_service(folder):
    """What was queued or running when a service went away comes to its end in the next one, once."""

    async def scenario():
        async with serving(folder, last=False) as caller:
            runs = [await caller.submit(0.3) for _ in range(6)]
        async with serving(folder) as caller:
            for run in runs:
                states, result = await caller.end(run)
                assert states == ["queued", "running", "done"] and result["ok"]

    asyncio.run(scenario())


def test_a_sandbox_that_cannot_start_fails_its_calls(folder):
    """Calls whose sandbox cannot be made end with the reason, and are not waited for."""

    async def scenario():
        async with serving(folder) as caller:
            request = caller.request(0.0)
            request.spec["image"]["base"] |= {"executable": "/nowhere/python"}
            await caller.ask(request)
            states, result = await caller.end(request.run)
            assert states[-1] == "ended"
            assert "/nowhere/python" in result["ended"]["message"]

    asyncio.run(scenario())


def test_a_follower_that_leaves_takes_nothing_with_it(folder):
    """A caller that goes away in the middle leaves the call running for whoever comes next."""

    async def scenario():
        async with serving(folder) as caller:
            run = await caller.submit(0.5)
            visitor = Caller(folder)
            await visitor.connect()
            with suppress(TimeoutError):
                await asyncio.wait_for(visitor.end(run), 0.1)
            visitor.peer.close()
            assert (await caller.end(run))[0][-1] == "done"

    asyncio.run(scenario())
