"""What is told of runs whose supervisor was killed, also while nobody heard what they had come to."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from remora.errors import RunEnded
from remora.wire import Fields, Record, RunId, SandboxId
from remora_provisioner import recovery
from remora_provisioner.agent import Agent
from remora_provisioner.machines.there import There
from remora_provisioner.order import RUNS
from remora_provisioner.runlog import RunLog, read
from remora_provisioner.runs import LOG_NAME

QUEUED: tuple[str, Fields] = ("state", {"state": "queued", "name": "x = 1"})
RUNNING: tuple[str, Fields] = ("state", {"state": "running"})
RESULT: tuple[str, Fields] = ("result", {"ok": True})
DONE: tuple[str, Fields] = ("state", {"state": "done"})
KILLED = RunEnded("crashed (signal 9)", reason="crashed")


def write(runs: Path, run: str, *records: tuple[str, Fields]) -> None:
    """Write a run's log."""
    log = RunLog(runs / run / LOG_NAME)
    for number, (kind, content) in enumerate(records):
        log.append(Record(RunId(run), number, 0.0, kind, content))
    log.close()


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        """Have heard nothing."""
        self.runs: dict[str, str] = {}
        self.sandboxes: dict[str, str] = {}

    def sandbox_changed(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        """Keep it."""
        self.sandboxes[sandbox] = f"{state} {facts.get('reason')}"

    def run_changed(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Keep it."""
        self.runs[run] = state

    def recorded(self, record: Record) -> None:
        """Nothing is followed."""


@pytest.mark.parametrize(
    ("records", "state", "last"),
    [
        ((QUEUED, RUNNING), "ended", {"state": "ended", "reason": "crashed"}),
        ((QUEUED, RUNNING, RESULT), "done", {"state": "done"}),
        ((QUEUED, RUNNING, ("result", {"ok": False})), "failed", {"state": "failed", "reason": "error"}),
        ((QUEUED, RUNNING, RESULT, DONE), "done", {"state": "done"}),
        ((), "ended", {"state": "ended", "reason": "crashed"}),
    ],
)
def test_the_end_of_a_log(tmp_path: Path, records: tuple[Any, ...], state: str, last: Fields) -> None:
    """A log that lacks an end gets one: that of its result, if it has one, and only else that its supervisor was killed."""
    write(tmp_path, "r1", *records)
    told, facts = recovery.finish(tmp_path, RunId("r1"), KILLED)
    written = [record for record, _ in read(tmp_path / "r1" / LOG_NAME)]
    assert (told, written[-1].content) == (state, last)
    assert [record.type for record in written].count("result") == 1
    assert [record.seq for record in written] == [*range(len(written))]
    assert "ended" in facts


def test_what_ended_while_nobody_heard(tmp_path: Path) -> None:
    """An agent that comes back tells of a killed supervisor's runs what their logs say, those that had come to an end, too."""
    directory, heard = tmp_path / "sandboxes" / "s1", Heard()
    directory.mkdir(parents=True)
    (directory / RUNS).write_text("r1\nr2\nr3\n")
    write(tmp_path / "runs", "r1", QUEUED, RUNNING, RESULT, DONE)
    write(tmp_path / "runs", "r2", QUEUED, RUNNING)
    asyncio.run(Agent(tmp_path, (), heard).take_up())
    assert heard.runs == {"r1": "done", "r2": "ended", "r3": "ended"}
    assert heard.sandboxes == {"s1": "ended crashed"}
    assert not directory.exists()


def test_what_is_expected_and_gone(tmp_path: Path) -> None:
    """Runs that a backend remembers, of a sandbox of which nothing is left, come to an end."""
    heard = Heard()
    agent = Agent(tmp_path, (), heard)
    write(tmp_path / "runs", "r1", QUEUED, RUNNING, RESULT, DONE)
    for run in ("r1", "r2"):
        agent.expect(SandboxId("s1"), RunId(run))
    agent.give_up(SandboxId("s1"))
    assert heard.runs == {"r1": "done", "r2": "ended"}
    assert heard.sandboxes == {"s1": "ended crashed"}


def test_an_end_that_found_no_room(tmp_path: Path) -> None:
    """The agent of another machine tells it from memory."""

    async def tell() -> Fields:
        there = There(tmp_path)
        shutil.rmtree(tmp_path / "ends")
        there.sandbox_changed(SandboxId("s1"), "ended", {"reason": "out-of-memory"})
        there.run_changed(SandboxId("s1"), RunId("r1"), "ended", {"reason": "out-of-memory"})
        return await there.end_of(SandboxId("s1"))

    known = asyncio.run(tell())
    assert known["facts"] == {"reason": "out-of-memory"}
    assert known["runs"]["r1"]["state"] == "ended"
