"""A supervisor with a real sandbox and a small guest: runs in order, their ends, those who follow, and guests that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from loops import expected, in_loop
from provisioner.sandboxes import GUEST, Visitor, a_run, an_order, visit
from remora import frames, streams
from remora.errors import InternalError, ProtocolError, Refused
from remora.states import EndReason, SandboxState
from remora.streams import Peer
from remora.wire import (
    AskGuest,
    CancelRun,
    CommMessage,
    FollowRun,
    InputReply,
    InterruptRun,
    ListAll,
    RunId,
    StopSandbox,
    Watch,
)
from remora_provisioner import jails, runlog, supervisor
from remora_provisioner.order import SOCKET
from remora_provisioner.runs import AwaitEnd
from remora_provisioner.supervisor import Supervisor
from remora_provisioner.testing import BadJail, NeverJail

from provisioner import disks


@contextlib.asynccontextmanager
async def living(place: Path, secrets: dict[str, str] | None = None, **changes: Any) -> AsyncIterator[tuple[Supervisor, Path]]:
    """Give a supervisor whose sandbox is starting, and its socket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMORA_LIMITS", "watching")
        order = an_order(place, **changes)
        made = Supervisor(order, secrets)
        path = Path(order.directory) / SOCKET
        server = await streams.serve(path, made.accept)
        inhabiting = asyncio.create_task(made.inhabit())
        try:
            yield made, path
        finally:
            made.end(EndReason.STOPPED)
            await inhabiting
            server.close()
            await made.farewell(5.0)


def everything(place: Path) -> list[str]:
    """Return all that there is below a folder."""
    return sorted(str(path) for path in place.rglob("*"))


def logged(place: Path, run: str) -> list[str]:
    """Return the types of the records in a run's log."""
    return [record.type for record, _ in runlog.read(place / "runs" / run / "log")]


def shown(place: Path, value: str) -> list[str]:
    """Return where a value stands: in files of sandboxes and runs, and in command lines of this machine."""
    found = []
    for path in [*place.rglob("*"), *Path("/proc").glob("[0-9]*/cmdline")]:
        with contextlib.suppress(OSError):  # what ends meanwhile
            found += [str(path)] if path.is_file() and value.encode() in path.read_bytes() else []
    return found


# ---- runs -----------------------------------------------------------------------------------------------------------------


@in_loop
async def test_the_life_of_a_run(tmp_path: Path) -> None:
    """Queued, running, its output, its result, done: the sender follows at once, and the log holds the same."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        answer = await me.peer.request(a_run("r1", "say hello\nsay again"))
        assert answer.result["state"] in {"queued", "running"}
        records = await me.end_of("r1")
        assert [r.type for r in records] == ["state", "state", "output", "output", "result", "state"]
        assert [r.content["state"] for r in records if r.type == "state"] == ["queued", "running", "done"]
        assert [r.seq for r in records] == list(range(6))
        assert records[0].at <= records[-1].at
        assert me.text("r1") == ["hello", "again"]
        assert logged(tmp_path, "r1") == [r.type for r in records]


@in_loop
async def test_runs_are_served_in_the_order_they_came(tmp_path: Path) -> None:
    """Twenty runs of two clients, most sent before the sandbox is ready, run one at a time and in order."""
    async with living(tmp_path) as (_, path), visit(path) as one, visit(path) as other:
        names = [f"r{n:02d}" for n in range(20)]
        for n, name in enumerate(names):
            await (one, other)[n % 2].peer.request(a_run(name, f"say {name}"))
        began = []
        for n, name in enumerate(names):
            records = await (one, other)[n % 2].end_of(name)
            began.append((records[1].at, records[-1].at))
        assert began == sorted(began)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(began))


@in_loop
async def test_bulk_comes_through(tmp_path: Path) -> None:
    """Megabytes in one record reach followers and log unharmed."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1", "bulk 5000000"))
        records = await me.end_of("r1")
        assert len(records[2].buffers[0]) == 5_000_000


@in_loop
async def test_a_run_that_fails(tmp_path: Path) -> None:
    """An exception is the run's own end, and the next run goes on in the same guest."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1", "fail ValueError"))
        await me.peer.request(a_run("r2", "say on"))
        records = await me.end_of("r1")
        assert records[-1].content == {"state": "failed", "reason": "error"}
        assert records[-2].content["error"]["ename"] == "ValueError"
        await me.end_of("r2")
        assert me.last("r2") == "done"


@in_loop
async def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    """An id is used once."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1"))
        with pytest.raises(Refused) as caught:
            await me.peer.request(a_run("r1"))
        assert caught.value.reason == "run-exists"


@pytest.mark.parametrize("run", ["", ".", "..", "../x", "/etc/x", "a/b", "a" * 200, "-x", "a b", "é", "a\0b", "a\n"])
@in_loop
async def test_an_id_that_leads_elsewhere_is_refused(tmp_path: Path, run: str) -> None:
    """Code in a sandbox can reach a supervisor: the id of a run never becomes a path outside of the folder of runs."""
    made = Supervisor(an_order(tmp_path))
    before = everything(tmp_path)
    with pytest.raises(Refused, match="no id of a run"):
        await made._start_run(Peer(lambda *_: None), a_run(run))
    assert everything(tmp_path) == before


@pytest.mark.parametrize("request_", [FollowRun, InterruptRun, CancelRun])
@in_loop
async def test_a_run_that_nobody_knows(tmp_path: Path, request_: Any) -> None:
    """Whatever is asked of an unknown run is refused by name."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        with pytest.raises(Refused, match="knows no run nope"):
            await me.peer.request(request_(RunId("nope")))
        with pytest.raises(ProtocolError):
            await me.peer.request(ListAll())


# ---- interrupting, cancelling, timeouts -------------------------------------------------------------------------------------


@in_loop
async def test_interrupting_the_running_run(tmp_path: Path) -> None:
    """The guest is interrupted; the run failed of its own, and the session lives on."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1", "say in\nwait"))
        await me.until(lambda: me.text("r1"))
        await me.peer.request(InterruptRun(RunId("r1")))
        records = await me.end_of("r1")
        assert records[-2].content["error"]["ename"] == "KeyboardInterrupt"
        await me.peer.request(InterruptRun(RunId("r1")))
        await me.peer.request(a_run("r2", "say on"))
        await me.end_of("r2")
        assert me.text("r2") == ["on"]


@pytest.mark.parametrize("request_", [InterruptRun, CancelRun])
@in_loop
async def test_a_queued_run_is_dropped(tmp_path: Path, request_: Any) -> None:
    """Interrupted or cancelled before it began, a run ends as cancelled; the running one and those behind are not touched."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        for name, code in (("r1", "say in\nwait"), ("r2", "say never"), ("r3", "say last")):
            await me.peer.request(a_run(name, code))
        await me.until(lambda: me.text("r1"))
        await me.peer.request(request_(RunId("r2")))
        await me.end_of("r2")
        assert (me.last("r2"), me.reason("r2")) == ("ended", "cancelled")
        assert me.last("r1") is None
        await me.peer.request(InterruptRun(RunId("r1")))
        await me.end_of("r3")
        assert me.text("r3") == ["last"]
        assert not me.text("r2")


@in_loop
async def test_cancelling_a_run_that_reacts(tmp_path: Path) -> None:
    """It ends as cancelled, and its session keeps its variables."""
    async with living(tmp_path) as (made, path), visit(path) as me:
        await me.peer.request(a_run("r1", "say in\nwait"))
        await me.until(lambda: me.text("r1"))
        await me.peer.request(CancelRun(RunId("r1")))
        records = await me.end_of("r1")
        assert (me.last("r1"), me.reason("r1")) == ("ended", "cancelled")
        assert "keeps its variables" in records[-2].content["ended"]["message"]
        await me.peer.request(CancelRun(RunId("r1"), hard=True))  # too late to matter
        await me.peer.request(a_run("r2", "say on"))
        await me.end_of("r2")
        assert made.state is SandboxState.READY


@pytest.mark.parametrize("hard", [False, True])
@in_loop
async def test_cancelling_a_run_that_does_not_react(tmp_path: Path, hard: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment, or at once if hard, its sandbox is ended, and what was queued ends with it."""
    monkeypatch.setattr(supervisor, "_REACTION", 3600.0 if hard else 0.2)
    async with living(tmp_path) as (made, path), visit(path) as me:
        await me.peer.request(a_run("r1", "say in\ndeaf"))
        await me.peer.request(a_run("r2", "say never"))
        await me.until(lambda: me.text("r1"))
        await me.peer.request(CancelRun(RunId("r1"), hard))
        records = await me.end_of("r1")
        assert me.reason("r1") == "cancelled"
        assert records[-2].content["ended"]["facts"]["sandbox_ended"] is True
        await me.end_of("r2")
        assert (me.last("r2"), me.reason("r2")) == ("ended", "cancelled")
        await made.over.wait()


@in_loop
async def test_a_timeout_that_the_code_reacts_to(tmp_path: Path) -> None:
    """The run ends with the reason timeout and the limit in its text; the next run has the same guest."""
    async with living(tmp_path) as (made, path), visit(path) as me:
        await me.peer.request(a_run("r1", "wait", timeout=0.2))
        records = await me.end_of("r1")
        assert me.reason("r1") == "timeout"
        assert "timeout after 0.2 s" in records[-2].content["ended"]["message"]
        await me.peer.request(a_run("r2", "say on", timeout=3600))
        await me.end_of("r2")
        assert made.state is SandboxState.READY


@in_loop
async def test_a_timeout_that_the_code_does_not_react_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sandbox is ended with it."""
    monkeypatch.setattr(supervisor, "_REACTION", 0.2)
    async with living(tmp_path) as (made, path), visit(path) as me:
        await me.peer.request(a_run("r1", "deaf", timeout=0.1))
        records = await me.end_of("r1")
        assert me.reason("r1") == "timeout"
        assert "did not react" in records[-2].content["ended"]["message"]
        await made.over.wait()
        assert made.facts["reason"] == "timeout"


@in_loop
async def test_the_time_of_a_notebooks_cell(tmp_path: Path) -> None:
    """A cell of a notebook that takes too long ends the run so, counted from that cell's start."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1", "emit cell\nwait", cell_timeout=0.2))
        await me.end_of("r1")
        assert me.reason("r1") == "timeout"


# ---- ends of the sandbox ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        ("end 3", "crashed", "exit code 3"),
        ("end 0", "crashed", "exit code 0"),
        (f"die {signal.SIGKILL}", "crashed", "signal 9, SIGKILL"),
        (f"die {signal.SIGSEGV}", "crashed", "signal 11, SIGSEGV"),
    ],
)
@in_loop
async def test_a_guest_that_dies(tmp_path: Path, code: str, reason: str, said: str) -> None:
    """What it said last is kept, its run ends with what happened to it, and what was queued ends, too."""
    async with living(tmp_path) as (made, path), visit(path) as me:
        runs = (a_run("r1", f"many 200\n{code}"), a_run("r2"))
        await asyncio.gather(*map(me.peer.request, runs))  # together: the guest is dead soon
        records = await me.end_of("r1")
        assert me.text("r1") == [str(n) for n in range(200)]
        assert me.reason("r1") == reason
        assert said in records[-2].content["ended"]["message"]
        await me.end_of("r2")
        await made.over.wait()
        assert (made.state, made.facts["reason"]) == (SandboxState.ENDED, reason)
        with pytest.raises(Refused, match="the sandbox has ended") as caught:
            await me.peer.request(a_run("r3"))
        assert caught.value.reason == "sandbox-ended"
        with pytest.raises(Refused):
            await me.peer.request(AskGuest("names", {}))


@pytest.mark.parametrize("code", ["noise", "odd", "again", "hang-up"])
@in_loop
async def test_a_guest_that_talks_nonsense(tmp_path: Path, code: str) -> None:
    """Noise, impossible messages, a second Ready, a closed connection: the sandbox ends as crashed, the supervisor does not."""
    expected(asyncio.get_running_loop())
    async with living(tmp_path) as (made, path), visit(path) as me:
        await me.peer.request(a_run("r1", f"say before\n{code}\ndeaf"))
        await me.end_of("r1")
        assert me.text("r1") == ["before"]
        assert me.reason("r1") == "crashed"
        await made.over.wait()


@in_loop
async def test_a_guest_cannot_say_what_became_of_a_run(tmp_path: Path) -> None:
    """States are the supervisor's to write, results belong to the running run alone, and later ones are passed over."""
    async with living(tmp_path) as (made, path), visit(path) as me:
        await me.peer.request(a_run("r1", "forge done\nforge nonsense\nemit notice\nother r2\nother r9\nsay in\nwait"))
        await me.peer.request(a_run("r2", "other r1\nsay second"))
        await me.until(lambda: me.text("r1"))
        assert me.last("r1") is None
        assert me.last("r2") is None
        await me.peer.request(InterruptRun(RunId("r1")))
        await me.end_of("r2")
        states = [[r.content["state"] for r in me.records[RunId(n)] if r.type == "state"] for n in ("r1", "r2")]
        assert states == [["queued", "running", "failed"], ["queued", "running", "done"]]
        assert [r.type for r in me.records[RunId("r1")]].count("result") == 1
        assert made.state is SandboxState.READY


@in_loop
async def test_output_after_the_end_of_a_run(tmp_path: Path) -> None:
    """What a thread prints when its run is over is recorded for that run, and reaches whoever started it."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1", "say early"))
        await me.end_of("r1")
        me.peer.send(CommMessage("comm_msg", {"run": "r1"}, {}, {}))
        await me.until(lambda: me.text("r1") == ["early", "CommMessage"])
        assert logged(tmp_path, "r1")[-2:] == ["state", "output"]


@in_loop
async def test_stopping_is_answered_when_nothing_is_left(tmp_path: Path) -> None:
    """Runs end as stopped, processes and private files are gone, and asking again is answered at once."""
    async with living(tmp_path) as (made, path), visit(path) as me:
        await me.peer.request(a_run("r1", "say in\ndeaf"))
        await me.peer.request(a_run("r2"))
        await me.until(lambda: me.text("r1"))
        pid = int(made.facts["pid"])
        await me.peer.request(StopSandbox())
        assert str(pid) not in os.listdir("/proc")
        assert not os.listdir(path.parent / "scratch")
        for run in ("r1", "r2"):
            await me.end_of(run)
            assert (me.last(run), me.reason(run)) == ("ended", "stopped")
        assert made.facts["reason"] == "stopped"
        await me.peer.request(StopSandbox("idle"))
        assert made.facts["reason"] == "stopped"


@in_loop
async def test_a_reason_that_there_is_not(tmp_path: Path) -> None:
    """A stop for an unknown reason is an error, not a wait, and ends nothing."""
    async with living(tmp_path) as (made, path), visit(path) as me:
        with pytest.raises(InternalError, match="boredom"):
            await me.peer.request(StopSandbox("boredom"))
        await me.peer.request(a_run("r1", "say on"))
        await me.end_of("r1")
        assert made.state is SandboxState.READY


@in_loop
async def test_too_much_memory(tmp_path: Path) -> None:
    """A limit that is watched ends the sandbox with peak and limit in the text."""
    async with living(tmp_path, memory=64 * 2**20) as (made, path), visit(path) as me:
        await me.peer.request(a_run("r1", f"memory {200 * 2**20}\nwait"))
        records = await me.end_of("r1")
        assert me.reason("r1") == "out-of-memory"
        assert "limit 64.0 MiB" in records[-2].content["ended"]["message"]
        await made.over.wait()
        assert made.facts["peak"] > 64 * 2**20


# ---- jails that fail --------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_jail_that_does_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox ends before it began, with the jail's complaint, and the supervisor with it."""
    monkeypatch.setattr(jails, "named", lambda _: BadJail())
    made = Supervisor(an_order(tmp_path))
    await made.inhabit()
    assert (made.state, made.facts["reason"]) == (SandboxState.ENDED, "sandbox-failed")
    assert "bad on purpose" in made.facts["message"]


@in_loop
async def test_a_guest_that_never_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that stays silent can be asked nothing, keeps its runs queued, and can be stopped."""
    monkeypatch.setattr(jails, "named", lambda _: NeverJail())
    async with living(tmp_path) as (made, path), visit(path) as me:
        answer = await me.peer.request(a_run("r1"))
        assert answer.result == {"state": "queued"}
        assert made.state is SandboxState.STARTING
        await me.peer.request(CancelRun(RunId("r1")))
        await me.end_of("r1")
        await me.peer.request(StopSandbox())
        assert made.facts["reason"] == "stopped"


# ---- those who follow, watch and ask ----------------------------------------------------------------------------------------


@in_loop
async def test_followers_come_and_go(tmp_path: Path) -> None:
    """One that comes late gets all, one that has seen a part gets the rest, one that vanishes disturbs nobody."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1", "many 50\nwait"))
        async with visit(path) as gone, visit(path) as late, visit(path) as again:
            gone.peer.attach(_following(gone, "r1"))
            await gone.until(lambda: len(gone.text("r1")) == 50)
            gone.peer.close()
            await gone.peer.gone
            following = asyncio.create_task(late.follow("r1"))
            resumed = asyncio.create_task(again.follow("r1", after=30))
            await late.until(lambda: len(late.text("r1")) == 50)
            await me.peer.request(InterruptRun(RunId("r1")))
            records = await me.end_of("r1")
            assert [r.seq for r in await following] == [r.seq for r in records]
            assert [r.seq for r in await resumed] == [r.seq for r in records if r.seq > 30]


async def _following(visitor: Visitor, run: str) -> None:
    await visitor.peer.request(FollowRun(RunId(run)))


@in_loop
async def test_attaching_after_the_end(tmp_path: Path) -> None:
    """A run that is over is replayed and answered at once."""
    async with living(tmp_path) as (_, path), visit(path) as me, visit(path) as late:
        await me.peer.request(a_run("r1", "many 20"))
        records = await me.end_of("r1")
        assert [r.seq for r in await late.follow("r1")] == [r.seq for r in records]
        assert await late.follow("r1", after=10_000) == late.records[RunId("r1")]


@in_loop
async def test_waiting_for_the_end_of_a_run(tmp_path: Path) -> None:
    """Whoever asks is answered at its end: asked before it is there, while it goes on, or when it is over."""
    async with living(tmp_path) as (_, path), visit(path) as me, visit(path) as early:
        asked = asyncio.ensure_future(early.peer.request(AwaitEnd(RunId("r2"))))
        await me.peer.request(a_run("r1", "say one"))
        await early.peer.request(AwaitEnd(RunId("r1")))
        await me.peer.request(a_run("r2", "many 5\nwait"))
        await me.until(lambda: len(me.text("r2")) == 5)
        assert not asked.done()
        await me.peer.request(InterruptRun(RunId("r2")))
        await asked
        await early.peer.request(AwaitEnd(RunId("r2")))


@in_loop
async def test_a_look_without_waiting(tmp_path: Path) -> None:
    """Whoever does not want to wait gets what there is by now."""
    async with living(tmp_path) as (_, path), visit(path) as me, visit(path) as late:
        await me.peer.request(a_run("r1", "many 5\nwait"))
        await me.until(lambda: len(me.text("r1")) == 5)
        await late.follow("r1", wait=False)
        assert late.text("r1") == me.text("r1")
        assert late.last("r1") is None
        await me.peer.request(InterruptRun(RunId("r1")))
        await me.end_of("r1")


@in_loop
async def test_the_sender_goes_and_the_run_goes_on(tmp_path: Path) -> None:
    """A kernel that dies in the middle of its cell loses nothing: whoever comes finds every line once."""
    async with living(tmp_path) as (_, path):
        async with visit(path) as me:
            await me.peer.request(a_run("r1", "many 300"))
        async with visit(path) as heir:
            await heir.follow("r1")
            assert heir.text("r1") == [str(n) for n in range(300)]
            assert heir.last("r1") == "done"


@in_loop
async def test_who_watches_calls_hears_of_each_step(tmp_path: Path) -> None:
    """Whoever assigns calls waits for their ends, so nothing of a call is held back or left out."""
    async with living(tmp_path) as (_, path), visit(path, "agent") as agent, visit(path) as me:
        await agent.peer.request(Watch())
        await me.peer.request(dataclasses.replace(a_run("r1", "say hi"), form="call"))
        await agent.until(lambda: agent.runs.get(RunId("r1"), ("",))[0] == "done")
        assert [state for name, state in agent.states if name == "r1"] == ["queued", "running", "done"]


@in_loop
async def test_a_run_of_a_call_goes_on_in_its_folder(tmp_path: Path) -> None:
    """A folder that is there already, with a call's input, keeps what is in it and gets the log."""
    (tmp_path / "runs" / "r1").mkdir(parents=True)
    (tmp_path / "runs" / "r1" / "input").write_text("kept")
    async with living(tmp_path) as (_, path), visit(path) as me:
        for name in ("r1", "r2"):
            await me.peer.request(a_run(name, "say hi"))
            await me.end_of(name)
        assert logged(tmp_path, "r1") == logged(tmp_path, "r2") == ["state", "state", "output", "result", "state"]
    assert (tmp_path / "runs" / "r1" / "input").read_text() == "kept"


@in_loop
async def test_who_watches_hears_of_everything(tmp_path: Path) -> None:
    """The answer describes what is known; then every change of sandbox and runs comes, with the number of clients."""
    async with living(tmp_path) as (made, path), visit(path, "agent") as agent:
        known = (await agent.peer.request(Watch())).result
        assert known["sandbox"] == "s1"
        assert known["runs"] == {}
        async with visit(path) as me, visit(path, "follower"):
            await agent.until(lambda: agent.sandboxes and agent.sandboxes["s1"][1].get("clients") == 1)
            await me.peer.request(a_run("r1", "say hi"))
            await me.end_of("r1")
        await agent.until(lambda: agent.sandboxes["s1"][1].get("clients") == 0)
        await agent.until(lambda: agent.runs.get(RunId("r1"), ("",))[0] == "done")
        # what a later word overtakes within a moment need not come
        states = [state for name, state in agent.states if name == "r1"]
        assert states[-1] == "done" and states == [s for s in ("queued", "running", "done") if s in states]
        assert {"ready", "busy"} <= {state for name, state in agent.states if name == "s1"}
        assert agent.runs[RunId("r1")][1].keys() >= {"name", "form", "queued", "started", "ended"}
        again = (await agent.peer.request(Watch())).result
        assert again["runs"]["r1"]["state"] == "done"
        assert again["facts"]["guest"]["pid"]
        assert made.describe() == again


@in_loop
async def test_questions_to_the_guest(tmp_path: Path) -> None:
    """They are passed on with their buffers, many at once, each answered to who asked."""
    async with living(tmp_path) as (_, path), visit(path) as me, visit(path) as other:
        await me.peer.request(a_run("r0"))
        await me.end_of("r0")
        asked = [who.peer.request(AskGuest(f"{n}", {}, buffers=(bytes(n),))) for n in range(30) for who in (me, other)]
        answers = await asyncio.gather(*asked)
        assert [(a.result["op"], len(a.buffers[0])) for a in answers] == [(str(n), n) for n in range(30) for _ in "ab"]


# ---- large payloads -------------------------------------------------------------------------------------------------------

_TAKES = (
    GUEST.replace('say(Ready({"pid": os.getpid()}))', 'say(Ready({"pid": os.getpid(), "ahead": True}))')
    .replace(
        "def answer(message):",
        """
heard = []
def answer(message):
    if isinstance(message, frames.Part):
        data = b"".join(message.buffers)
        heard.append([message.payload, message.sizes, message.void, len(data), sum(data)])
    elif isinstance(message, AskGuest) and message.op == "heard":
        say(Answer(message.ask, {"heard": heard}))
""",
        1,
    )
    .replace(
        '    if isinstance(message, AskGuest):\n        say(Answer(message.ask, {"op"',
        '    elif isinstance(message, AskGuest):\n        say(Answer(message.ask, {"op"',
    )
)
_BULK = bytes([1]) * (5 << 19)


async def _ready(me: Visitor) -> None:
    await me.peer.request(a_run("first"))
    await me.end_of("first")


async def _heard(me: Visitor) -> list[list[Any]]:
    return list((await me.peer.request(AskGuest("heard", {}))).result["heard"])


@in_loop
async def test_the_payload_of_a_run_is_with_the_guest_before_it_has_come_whole(tmp_path: Path) -> None:
    """The guest gets it in parts, answers others meanwhile, and the run when all is there; nothing of who leaves early."""
    async with living(tmp_path, code=_TAKES) as (made, path), visit(path) as me:
        await _ready(me)
        frame = b"".join(frames.encode(dataclasses.replace(a_run("r1", "say all", ahead=9), buffers=(_BULK[:-9], b"1" * 9))))
        with streams.dial(path) as raw:
            raw.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(raw, frame[:-1])
            while sum(part[3] for part in await _heard(me)) < 4 << 19:
                pass
            assert "r1" not in made.describe()["runs"]
            await loop.sock_sendall(raw, frame[-1:])
            await loop.sock_recv(raw, 1)
        assert (await me.follow("r1"))[-1].content["state"] == "done"
        parts = await _heard(me)
        assert parts[0] == [1, [len(_BULK) - 9, 9], False, 0, 0]
        assert sum(part[3] for part in parts) == len(_BULK)
        assert sum(part[4] for part in parts) == len(_BULK) - 9 + 9 * ord("1")
        with streams.dial(path) as raw:
            raw.setblocking(False)
            await loop.sock_sendall(raw, frame[:-1])
        while not (await _heard(me))[-1][2]:
            pass
        assert (await _heard(me))[-1][:3] == [2, None, True]
        await me.peer.request(a_run("r2", "say on"))
        await me.end_of("r2")


@in_loop
async def test_a_payload_whose_run_is_not_taken_is_void(tmp_path: Path) -> None:
    """Refused or dropped while it is queued: the guest is told in both cases."""
    async with living(tmp_path, code=_TAKES) as (_, path), visit(path) as me:
        await _ready(me)
        await me.peer.request(a_run("r0", "wait"))
        bulky = dataclasses.replace(a_run("r1"), buffers=(_BULK,))
        await me.peer.request(bulky)
        with pytest.raises(Refused):
            await me.peer.request(dataclasses.replace(a_run("r1"), buffers=(_BULK,)))
        await me.peer.request(CancelRun(RunId("r1")))
        assert [part[0] for part in await _heard(me) if part[2]] == [2, 1]
        await me.peer.request(InterruptRun(RunId("r0")))
        await me.end_of("r0")


@in_loop
async def test_a_guest_that_takes_nothing_holds_up_no_cancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its code does may keep it from reading: then the payload is kept outside, and what comes behind it is heard."""
    monkeypatch.setattr("remora_provisioner.payloads._PATIENCE", 0.05)
    code = _TAKES.replace(
        'elif name == "again":', 'elif name == "stuck":\n            signal.pause()\n        elif name == "again":'
    )
    async with living(tmp_path, code=code) as (_, path), visit(path) as me:
        await _ready(me)
        await me.peer.request(a_run("r0", "stuck"))
        me.peer.send(dataclasses.replace(a_run("r1"), buffers=(bytes(12 << 20),)))
        await me.peer.request(CancelRun(RunId("r0"), hard=True))
        await me.end_of("r0")
        assert me.reason("r0") == "cancelled"


@in_loop
async def test_input_reaches_the_code_that_asked(tmp_path: Path) -> None:
    """An answer of the front end is passed to the guest."""
    async with living(tmp_path) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1", "ask name?"))
        await me.until(lambda: [r for r in me.records.get(RunId("r1"), []) if r.type == "input_request"])
        me.peer.send(InputReply(RunId("r1"), "Ada"))
        await me.end_of("r1")
        assert me.text("r1") == ["Ada"]


@in_loop
async def test_a_question_when_the_guest_dies_over_it(tmp_path: Path) -> None:
    """Who asked a guest that dies is told."""
    expected(asyncio.get_running_loop())
    async with living(tmp_path) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1", "say in\nhang-up"))
        await me.until(lambda: me.text("r1"))
        with pytest.raises(InternalError):
            await me.peer.request(AskGuest("names", {}))
        await me.end_of("r1")


@in_loop
async def test_old_runs_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of thousands of cells holds a bounded number of logs open; the logs stay on disk."""
    monkeypatch.setattr(supervisor, "_REMEMBERED", 3)
    async with living(tmp_path) as (made, path), visit(path) as me:
        for n in range(8):
            await me.peer.request(a_run(f"r{n}"))
            await me.end_of(f"r{n}")
        assert list(made.describe()["runs"]) == ["r5", "r6", "r7"]
        assert logged(tmp_path, "r0") == ["state", "state", "result", "state"]
        assert len([f for f in os.listdir("/proc/self/fd") if _target(f).endswith("/log")]) == 3 + 1  # and the next one's


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


@pytest.mark.parametrize("full", [disks.KINDS[0]])
@in_loop
async def test_a_full_disk_in_the_middle_of_a_run(tmp_path: Path, full: Any) -> None:
    """Output goes on to who follows, with one notice that says what is the matter; a new run is refused with what to do."""
    (tmp_path / "runs").mkdir()
    with full(tmp_path / "runs", 64) as free:
        async with living(tmp_path) as (_, path), visit(path) as me, visit(path) as late:
            await me.peer.request(a_run("r1", "many 30\nbulk 100000\nmany 30\nwait"))
            await me.until(lambda: len(me.text("r1")) == 60)
            notices = [r.content["text"] for r in me.records[RunId("r1")] if r.type == "notice"]
            assert len(notices) == 1
            assert "No space left on device" in notices[0]
            await late.follow("r1", wait=False)
            assert late.text("r1") == me.text("r1")
            free()
            await me.peer.request(InterruptRun(RunId("r1")))
            records = await me.end_of("r1")
            assert [r.seq for r in records] == list(range(len(records)))
            assert logged(tmp_path, "r1") == [r.type for r in records]


# ---- secrets ---------------------------------------------------------------------------------------------------------------


@in_loop
async def test_secrets_are_in_the_environment_and_in_no_log(tmp_path: Path) -> None:
    """Code has them; a value in two pieces, in an error, or given later is masked; nothing else is lost."""
    code = GUEST.replace("output(run, rest)", "output(run, os.environ.get(rest, rest))", 1)
    async with living(tmp_path, {"A": "ab-ra-22", "B": "x" * 300}, code=code) as (_, path), visit(path) as me:
        await me.peer.request(a_run("r1", "say A\nsay <ab-\nsay ra-22>ab-r\nfail of-ab-ra-22"))
        records = await me.end_of("r1")
        assert "".join(me.text("r1")) == "***<***>ab-r"
        assert [record.type for record in records[-3:]] == ["output", "result", "state"]
        await me.peer.request(AskGuest("extend", {"secrets": {"C": "later-one"}}))
        await me.peer.request(a_run("r2", "say later-one ab-ra-22\nsay later-on"))
        await me.end_of("r2")
        assert "".join(me.text("r2")) == "*** ***later-on"
        assert not shown(tmp_path, "ab-ra-22")


@in_loop
async def test_why_a_sandbox_did_not_start_says_no_secret(tmp_path: Path) -> None:
    """The last lines of its log are masked before they are part of an error."""
    async with living(tmp_path, {"A": "ab-ra-22"}, code="import os, sys; sys.exit('bad ' + os.environ['A'])") as (made, _):
        await made.over.wait()
        assert "bad ***" in made.facts["message"]
