"""What goes of what a machine elsewhere keeps, and what stays; terms of backends; timers of unused sandboxes and of the lease."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from pathlib import Path
from threading import Lock

import pytest
from loops import in_loop
from provisioner.sandboxes import Visitor, a_run, an_order, watching
from remora import streams
from remora.states import EndReason
from remora.wire import Record, RunId, SandboxId
from remora_provisioner.images.store import Store
from remora_provisioner.images.tree import File, Tree
from remora_provisioner.machines import terms
from remora_provisioner.machines.terms import Terms
from remora_provisioner.machines.tidying import Tidying, sizes
from remora_provisioner.machines.watching import Watching
from remora_provisioner.order import RUNS
from remora_provisioner.runlog import RunLog
from remora_provisioner.supervise import live

DAY = 86400.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return the state of an agent, in which nothing is kept."""
    for name in ("runs", "ends", "folders", "sandboxes"):
        (tmp_path / "state-1" / name).mkdir(parents=True)
    return tmp_path / "state-1"


def aged(path: Path, days: float) -> None:
    """Let a file or folder look as if it had not changed for so long."""
    os.utime(path, (time.time() - days * DAY,) * 2)


def a_log(state: Path, run: str, days: float, word: str = "done") -> Path:
    """Make the log of a run that came to this state so many days ago."""
    log = RunLog(state / "runs" / run / "log")
    log.append(Record(RunId(run), 0, 0.0, "state", {"state": word}))
    log.close()
    for path in (log.path, log.path.parent):
        aged(path, days)
    return log.path.parent


def tidy(state: Path, **how: float) -> None:
    """Put it in order."""
    Tidying(state, Lock()).run(Terms(**how))


def test_runs(state: Path) -> None:
    """Logs that have aged go; those that go on stay, those whose end nobody has heard of, and those of tomorrow's clock."""
    an_order(state, sandbox="lives")
    (state / "sandboxes/lives" / RUNS).write_text("silent\npast\n")
    (state / "ends/e.json").write_text(json.dumps({"runs": {"unheard": {}}}))
    for run, days, word in (
        ("silent", 9, "running"),
        ("past", 9, "done"),
        ("unheard", 9, "done"),
        ("new", 6, "done"),
        ("old", 8, "done"),
    ):
        a_log(state, run, days, word)
    a_log(state, "of-tomorrow", -1)
    tidy(state)
    assert {path.name for path in (state / "runs").iterdir()} == {"silent", "unheard", "new", "of-tomorrow"}
    tidy(state, runs=DAY)
    assert {path.name for path in (state / "runs").iterdir()} == {"silent", "unheard", "of-tomorrow"}
    aged(state / "ends/e.json", 31)
    tidy(state)
    tidy(state)
    assert {path.name for path in (state / "runs").iterdir()} == {"silent", "of-tomorrow"}


def a_folder(state: Path, name: str, *, home: bool) -> Path:
    """Make the copy of a notebook's folder, all of which came home, or not."""
    place = state / "folders" / name
    for part in ("files", "agreed"):
        (place / part).mkdir(parents=True)
    (place / "files/model").write_text("weights")
    (place / "agreed/token").write_text("{}")
    at = time.time() + (1 if home else -9)
    os.utime(place / "agreed/token", (at, at))
    return place


def test_folders(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that nobody uses go when all of them came home, else a month later; that of a living sandbox stays."""
    used = a_folder(state, "used", home=True)
    a_folder(state, "whole", home=True)
    a_folder(state, "away", home=False)
    an_order(state, mounts=((str(used / "files"), "/home/ada/work", True),))
    real = time.time
    for hours, left in ((-1, {"used", "whole", "away"}), (8 * 24, {"used", "away"}), (31 * 24, {"used"})):
        monkeypatch.setattr(time, "time", lambda hours=hours: real() + hours * 3600)
        tidy(state)
        assert {path.name for path in (state / "folders").iterdir()} == left


def test_images(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what images may take, trees used longest ago go; what is leased stays."""
    store, trees = Store(state / "images"), []
    for number in range(4):
        digest, size = store.put_bytes(bytes([number]) * 1000)
        trees.append(store.save_real(Tree.of([File("file", digest, size)])))
        aged(state / "images/trees" / trees[-1], 10 - number)
    store.lease("s1", [trees[0]])
    tidy(state, images=10_000)
    assert store.trees() == {*trees}
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * 3600)  # beyond the grace of what is young
    tidy(state, images=2500)
    assert store.trees() == {trees[0], trees[2], trees[3]}
    assert sizes(state.parent)["images"] >= 3000


def test_the_log_and_other_protocols(state: Path) -> None:
    """A long log keeps its end; what another protocol has left goes when nobody has used it for a month."""
    (state / "agent.log").write_bytes(b"line\n" * 300_000 + b"the last\n")
    other, recent = state.parent / "state-0", state.parent / "state-2"
    for folder, days in ((other, 40), (recent, 3)):
        folder.mkdir()
        aged(folder, days)
    tidy(state)
    text = (state / "agent.log").read_bytes()
    assert len(text) < 300_000
    assert text.startswith(b"line\n")
    assert text.endswith(b"line\nthe last\n")
    assert (other.exists(), recent.exists()) == (False, True)


def test_the_most_lenient_terms_count(state: Path) -> None:
    """Of several backends; what is malformed is passed over."""
    assert terms.kept(state) == Terms()
    terms.note(state, "a" * 16, Terms(rented=True, lease=10, runs=5, images=7).to_dict() | {"later": 1})
    terms.note(state, "b" * 16, Terms(lease=99, runs=6, images=5).to_dict())
    terms.note(state, "c" * 16, {"runs": "many"})
    (state / "backends/d.json").write_text("[")
    assert terms.kept(state) == Terms(rented=True, lease=10, runs=6, images=7)


def test_how_long_a_sandbox_may_be_unused() -> None:
    """As long as it says; for ever where nobody says, but 20 minutes on a rented machine. A pool's is its backend's to end."""
    own, rented = Terms(), Terms(rented=True)
    assert (own.idle({"idle": None}, False), rented.idle({"idle": None}, False)) == (None, 1200.0)
    assert (own.idle({"idle": 5}, False), rented.idle({"idle": 5}, False)) == (5.0, 5.0)
    assert rented.idle({"idle": 5}, True) is None


class Sandboxes:
    """Keeps what is ended, and why."""

    def __init__(self) -> None:
        """Start with nothing ended."""
        self.ended: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.watching = Watching(
            self.stop, lambda: [SandboxId("one"), SandboxId("two")], lambda: self.ended.put_nowait(("all", ""))
        )

    async def stop(self, sandbox: SandboxId, reason: EndReason) -> None:
        """Keep it."""
        self.ended.put_nowait((sandbox, reason.value))

    async def next(self) -> tuple[str, str]:
        """Wait for the next one."""
        return await asyncio.wait_for(self.ended.get(), 60)


@in_loop
async def test_unused_sandboxes_end_without_their_backend() -> None:
    """When their time is over, unless something runs; one that runs and then rests gets its time anew."""
    kept = Sandboxes()
    spec = {"spec": {"idle": 0.05}}
    kept.watching.sandbox_changed(SandboxId("busy"), "ready", spec)
    kept.watching.sandbox_changed(SandboxId("busy"), "busy", {})
    kept.watching.sandbox_changed(SandboxId("new"), "ready", spec)  # waits a minute for its first run
    kept.watching.sandbox_changed(SandboxId("own"), "ready", {"spec": {"idle": None}})
    kept.watching.sandbox_changed(SandboxId("used"), "busy", spec)
    kept.watching.sandbox_changed(SandboxId("used"), "ready", {})
    assert await kept.next() == ("used", "idle")
    kept.watching.sandbox_changed(SandboxId("busy"), "ready", {})
    assert await kept.next() == ("busy", "idle")
    assert kept.ended.empty()
    kept.watching.sandbox_changed(SandboxId("new"), "ended", {})


@in_loop
async def test_the_lease_of_a_rented_machine() -> None:
    """It runs while nobody is connected; when it is over, all end and then the agent. Other machines have none."""
    kept = Sandboxes()
    kept.watching.unattended()
    kept.watching.terms = Terms(rented=True, lease=0.05)
    kept.watching.unattended()
    kept.watching.attended()
    kept.watching.sandbox_changed(SandboxId("later"), "busy", {"spec": {"idle": 0.1}})
    kept.watching.sandbox_changed(SandboxId("later"), "ready", {})
    assert await kept.next() == ("later", "idle")
    kept.watching.unattended()
    assert [await kept.next() for _ in range(3)] == [("one", "machine-lost"), ("two", "machine-lost"), ("all", "")]


@in_loop
async def test_a_sandbox_of_a_rented_machine_ends_without_its_agent(tmp_path: Path) -> None:
    """When nobody, not even an agent, has been connected for as long as its lease; its run's log says so."""
    order = an_order(tmp_path, facts={"lease": 0.2})
    mine, theirs = socket.socketpair()
    with watching():
        life = asyncio.create_task(live(Path(order.directory), theirs.detach(), {}))
        visitor = Visitor(await streams.adopt(mine, lambda peer, message: visitor.receive(peer, message)))
        await visitor.peer.request(a_run("r1", "wait"))
        await visitor.until(lambda: visitor.records.get(RunId("r1")))
        visitor.peer.close()
        await asyncio.wait_for(life, 60)
    known = json.loads((Path(order.directory) / "ended.json").read_text())
    assert (known["facts"]["reason"], known["runs"]["r1"]["facts"]["reason"]) == ("machine-lost", "machine-lost")
    assert "REMORA_RENTED_LEASE" in known["facts"]["message"]
