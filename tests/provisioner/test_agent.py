"""The agent and the directories of its sandboxes: whose each is, and when it goes."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import shutil
from functools import partial
from pathlib import Path

import pytest
from remora.errors import StateError
from remora.resources import SandboxSpec
from remora.states import EndReason
from remora.wire import RunId, SandboxId
from remora_provisioner import agent as agents
from remora_provisioner import alive, jails
from remora_provisioner.agent import Agent
from remora_provisioner.images import keeping
from remora_provisioner.images.keeping import Images
from remora_provisioner.opening import Opening
from remora_provisioner.order import ENDED
from remora_provisioner.runs import AwaitEnd

from provisioner import sandboxes

ONE = SandboxId("s1")


@pytest.mark.parametrize(
    ("number", "lives"), [(errno.ENOENT, False), (errno.ENOLCK, False), (errno.EWOULDBLOCK, True), (errno.EMFILE, True)]
)
def test_who_cannot_be_asked_is_not_taken_for_dead(
    number: int, lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where there is no log, or where nothing can be locked."""
    (tmp_path / alive.SUPERVISOR_LOG).touch()
    assert not alive.lives(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(number, "failed")

    monkeypatch.setattr(fcntl, "flock", fails)
    assert alive.lives(tmp_path) is lives


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SandboxSpec:
    """Give a test what a sandbox is made by."""
    monkeypatch.setenv("REMORA_LIMITS", "watching")
    return sandboxes.a_spec(tmp_path)


def _is_done(listener: sandboxes.Listener, run: RunId) -> bool:
    return listener.runs.get(run, ("", {}))[0] == "done"


def an_agent(place: Path, listener: sandboxes.Listener) -> Agent:
    """Make an agent whose sandboxes are plain processes."""
    agent = Agent(place / "state", (), listener)
    agent._chosen = {None: (jails.named("process"), [])}
    return agent


def test_nothing_is_left_when_a_sandbox_was_ended(spec: SandboxSpec, tmp_path: Path) -> None:
    """So that another one may be called the same."""

    async def scenario() -> None:
        agent = an_agent(tmp_path, sandboxes.Listener())
        for _ in range(8):
            await agent.open(ONE, spec, {}, Opening())
            await agent.stop(ONE, EndReason.STOPPED)
            assert not (tmp_path / "state/sandboxes" / ONE).exists()
            assert not agent.busy

    asyncio.run(scenario())


def test_a_living_sandbox_keeps_its_directory(spec: SandboxSpec, tmp_path: Path) -> None:
    """Whoever asks for one of the same name gets none, and does no harm to it."""

    async def scenario() -> None:
        listener = sandboxes.Listener()
        agent = an_agent(tmp_path, listener)
        await agent.open(ONE, spec, {}, Opening())
        with pytest.raises(StateError, match="already"):
            await agent.open(ONE, spec, {}, Opening())
        assert (tmp_path / "state/sandboxes" / ONE / "env/pyvenv.cfg").exists()
        await agent.peer(ONE).request(sandboxes.a_run("r1", "say hello"))
        await listener.until(lambda: _is_done(listener, RunId("r1")))
        await agent.stop(ONE, EndReason.STOPPED)

    asyncio.run(scenario())


def test_a_supervisor_that_just_begins_is_waited_for(spec: SandboxSpec, tmp_path: Path) -> None:
    """The agent that started it may have been killed meanwhile; the next one takes it up instead of its directory away."""

    async def scenario() -> None:
        listener = sandboxes.Listener()
        first, second = (an_agent(tmp_path, listener) for _ in range(2))
        opening = asyncio.ensure_future(first.open(ONE, spec, {}, Opening()))
        await listener.until(lambda: ONE in first._children)
        assert not (tmp_path / "state/sandboxes" / ONE / "socket").exists()
        await second.take_up()
        assert second.has(ONE)
        await opening
        await first.stop(ONE, EndReason.STOPPED)
        await second.stop(ONE, EndReason.STOPPED)

    asyncio.run(scenario())


def test_nothing_goes_under_a_supervisor_that_lives(
    spec: SandboxSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the connection to it is lost, who has started it ends it first; another agent lets its directory be."""
    monkeypatch.setattr(agents, "_FAREWELL", 0.2)
    monkeypatch.setattr(alive, "_PATIENCE", 0.2)

    async def scenario() -> None:
        listener = sandboxes.Listener()
        first, second = (an_agent(tmp_path, listener) for _ in range(2))
        await first.open(ONE, spec, {}, Opening())
        await first.peer(ONE).request(sandboxes.a_run("r1", "wait"))
        await second.take_up()
        second.peer(ONE).close()
        await listener.until(lambda: ONE in second._burials)
        await second.buried(ONE)
        assert "its supervisor lives" in caplog.text
        assert (tmp_path / "state/sandboxes" / ONE / "env/pyvenv.cfg").exists()
        assert listener.runs[RunId("r1")][0] == "running"
        first.peer(ONE).close()
        await listener.until(lambda: listener.runs[RunId("r1")][1].get("reason") == "stopped")
        await first.buried(ONE)
        assert not (tmp_path / "state/sandboxes" / ONE).exists()

    asyncio.run(scenario())


def test_what_cannot_be_taken_in_costs_no_sandbox(
    spec: SandboxSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong over what a supervisor says, and whatever a sandbox makes it say, the connection stays."""

    async def scenario() -> None:
        listener = sandboxes.Listener()
        agent = an_agent(tmp_path, listener)
        await agent.open(ONE, spec, {}, Opening())
        with monkeypatch.context() as patch:
            patch.setattr(listener, "run_changed", None)
            await agent.peer(ONE).request(sandboxes.a_run("r1", "say hello"))
            await agent.peer(ONE).request(AwaitEnd(RunId("r1")))
        await agent.peer(ONE).request(sandboxes.a_run("r2", "say hello"))
        await listener.until(partial(_is_done, listener, RunId("r2")))
        assert "is passed over: RunChanged" in caplog.text
        await agent.stop(ONE, EndReason.STOPPED)
        assert _is_done(listener, RunId("r1"))  # its end is told again from its log

    asyncio.run(scenario())


def test_ends_that_are_in_no_file(spec: SandboxSpec, tmp_path: Path) -> None:
    """What a supervisor has told of its runs is believed, where a full disk has taken neither their logs nor its last words."""

    async def scenario() -> None:
        listener = sandboxes.Listener()
        agent = an_agent(tmp_path, listener)
        await agent.open(ONE, spec, {}, Opening())
        for run in ("r1", "r2"):
            await agent.peer(ONE).request(sandboxes.a_run(run, "wait"))
        await listener.until(lambda: listener.runs.get(RunId("r1"), ("", {}))[0] == "running")
        shutil.rmtree(tmp_path / "state/runs")
        (tmp_path / "state/sandboxes" / ONE / ENDED).mkdir()
        await agent.stop(ONE, EndReason.STOPPED)
        assert {run: (state, facts["reason"]) for run, (state, facts) in listener.runs.items()} == {
            RunId("r1"): ("ended", "stopped"),
            RunId("r2"): ("ended", "stopped"),
        }

    asyncio.run(scenario())


def test_no_room_for_what_was_opened_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a hint for later, and in nobody's way."""
    images = Images(tmp_path)
    (tmp_path / "farms/tree").mkdir(parents=True)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keeping, "write_whole", full)
        images.note_opened(["tree/module.py"])
    assert not (tmp_path / "opened/tree").exists()
    images.note_opened(["tree/module.py"])
    assert (tmp_path / "opened/tree").read_text() == '["module.py"]'
