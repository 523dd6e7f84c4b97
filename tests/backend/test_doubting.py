"""A machine elsewhere that lies: it moves nothing here but its own sandboxes and runs."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from loops import in_loop
from remora import streams
from remora.errors import Refused
from remora.wire import Fields, Hello, Record, RunChanged, RunId, SandboxChanged, SandboxId, Watch
from remora_backend.doubting import believed
from remora_backend.fleet import Fleet
from remora_backend.service import Service
from remora_backend.store import Store
from remora_provisioner.machines.link import Link
from remora_provisioner.machines.messages import TakeUp
from remora_provisioner.machines.reached import BySsh

THEIRS, MINE = SandboxId("b2b2b2b2"), SandboxId("a1a1a1a1")
SPEC = {"image": {}, "on": "box", "resources": {}}
OTHERS = {"running": RunId("run1"), "done": RunId("run2"), "queued": RunId("run3")}
"""Runs of the user's that are not that machine's, by their states."""


class Liar:
    """A machine whose agent and supervisors say what they like; reached without SSH."""

    def __init__(self, known: Fields, said: list[Any]) -> None:
        """Answer `known` to who watches a sandbox, then say all this."""
        self._known, self._said = known, said
        self._tasks: set[asyncio.Task[None]] = set()
        self.dialled: dict[str, socket.socket] = {}
        """What it has tried to reach here."""

    def __call__(self, machine: str, backend: str, /) -> Any:
        """Be what reaches the machine."""

        async def reach(_: object) -> socket.socket:
            here, there = socket.socketpair()
            self._link = Link(self._accept, first=False)
            self._soon(self._link.carry(there))
            return here

        return reach

    def _accept(self, target: str) -> socket.socket:
        theirs, ours = socket.socketpair()
        self._soon(self._serve(ours))
        return theirs

    def _soon(self, work: Any) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    async def _serve(self, sock: socket.socket) -> None:
        handlers = {Hello: streams.welcome, TakeUp: self._take_up, Watch: self._watch}
        peer = await streams.adopt(sock, lambda peer, message: peer.handle(handlers, message))
        await peer.gone
        self._link.close()

    async def _take_up(self, _: streams.Peer, __: TakeUp) -> Fields:
        return {"living": [THEIRS, MINE, "../../outside"], "ended": {MINE: self._known}, "farms": "/farms", "facts": {}}

    async def _watch(self, peer: streams.Peer, _: Watch) -> Fields:
        targets = ("agent", "store", "log", f"sandbox/{MINE}", f"folder/{MINE}", "/etc/passwd")
        self.dialled |= {target: self._link.dial(target) for target in targets}
        asyncio.get_running_loop().call_soon(lambda: [peer.send(message) for message in self._said])
        return self._known

    async def end(self) -> None:
        """Return when all connections have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def heard(
    folder: Path, monkeypatch: pytest.MonkeyPatch, known: Fields, said: list[Any], answers: list[bytes] | None = None
) -> Fleet:
    """Return what a backend knows after it has heard a liar out, and has gone; `answers` gets what came of its dialling."""
    liar = Liar(known, [*said, SandboxChanged(THEIRS, "busy", {"heard": "all"})])
    monkeypatch.setattr(BySsh, "__call__", lambda _, machine, backend: liar(machine, backend))
    service = Service(folder)
    fleet = service._fleet
    fleet.sandboxes[MINE] = {"id": MINE, "state": "busy", "kernel": "k", "session": "main", "identity": [], "spec": SPEC}
    theirs = {"id": THEIRS, "state": "busy", "kernel": "k", "session": "far", "identity": [], "spec": SPEC, "on": "box"}
    fleet.sandboxes[THEIRS] = theirs
    for state, run in OTHERS.items():
        fleet.run_changed(None if state == "queued" else MINE, run, state, {"name": "mine"})
    await asyncio.wrap_future(fleet.store.written())
    came = asyncio.Event()
    fleet.changed = lambda: came.set() if "heard" in fleet.sandboxes[THEIRS] else None
    await fleet.machines.take_up({THEIRS: theirs}, dict(fleet.runs))
    await asyncio.wait_for(came.wait(), 20)
    (machine,) = fleet.machines._elsewhere.values()
    assert fleet.find_sandbox(THEIRS)["endpoint"] == machine.endpoint(THEIRS)
    for sock in liar.dialled.values():
        with sock:
            answers = [] if answers is None else answers
            answers.append(await asyncio.to_thread(sock.recv, 1))
    machine.close()
    for listening in (*machine._relays.values(), *machine._doors.values()):
        listening.close()
    await liar.end()
    fleet.store.close()
    return fleet


def told(run: Any, state: str = "ended", **facts: Any) -> RunChanged:
    """Return what a supervisor says of a run."""
    return RunChanged(run, state, facts)


@in_loop
async def test_a_machine_speaks_of_its_own_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can neither end, rename nor take over the user's other runs, queued, running or done; its own are listed."""
    lies = [told(run, state, name="theirs") for run in OTHERS.values() for state in ("running", "done", "failed", "ended")]
    known = {"state": "busy", "facts": {}, "runs": {run: {"state": "ended", "facts": {}} for run in OTHERS.values()}}
    lies += [Record(OTHERS["running"], 99, 0.0, "result", {"ok": True}), told("run9", "running", name="own", sandbox=MINE)]
    fleet = await heard(tmp_path, monkeypatch, known, lies)
    assert {run: (fleet.runs[run]["state"], fleet.runs[run]["sandbox"]) for run in fleet.runs} == {
        "run1": ("running", MINE),
        "run3": ("queued", None),
        "run9": ("running", THEIRS),
    }
    store = Store(tmp_path / "remora.db")
    assert {row["id"]: (row["state"], row["facts"]["name"]) for row in store.runs(9)} == {
        **{run: (state, "mine") for state, run in OTHERS.items()},
        "run9": ("running", "own"),
    }
    store.close()


@in_loop
async def test_a_machine_dials_nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link carries connections from here to there; whatever is dialled from there is refused."""
    answers: list[bytes] = []
    await heard(tmp_path, monkeypatch, {"state": "busy", "facts": {}, "runs": {}}, [], answers)
    assert answers == [b""] * 6


@pytest.mark.parametrize("run", ["../../outside", "/OUTSIDE", "..", "", "a/../../../outside", 7])
@in_loop
async def test_a_run_is_no_path(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose id would lead out of the folder of runs is never known, so nothing is ever removed there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    run = run.replace("/OUTSIDE", str(outside)) if isinstance(run, str) else run
    fleet = await heard(tmp_path / "a", monkeypatch, {"state": "busy", "facts": {}, "runs": {}}, [told(run, ended=0)])
    assert set(fleet.runs) == {OTHERS["running"], OTHERS["queued"]}
    store = Store(tmp_path / "a" / "remora.db")
    assert {row["id"] for row in store.runs(9)} == set(OTHERS.values())
    store.close()


@pytest.mark.parametrize("run", ["../../outside", "/OUTSIDE"])
def test_nothing_is_removed_outside(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the database, logs are removed in the folder of runs alone."""
    outside, folder = tmp_path / "outside", tmp_path / "state"
    outside.mkdir()
    (folder / "runs/old").mkdir(parents=True)
    store = Store(folder / "remora.db")
    for name in (run.replace("/OUTSIDE", str(outside)), "old"):
        store.save_run(name, None, "ended", {})
    store.close()
    monkeypatch.setenv("REMORA_RUN_RETENTION", "0")
    time.sleep(0.01)  # until they are older than that
    service = Service(folder)
    service._drop_old_runs()
    service._store.close()
    assert outside.is_dir()
    assert not (folder / "runs/old").exists()


@in_loop
async def test_what_the_backend_says_of_a_sandbox_is_not_told_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither whose it is, nor what it may see, nor by which socket it is reached; and sandboxes of others stay as they are."""
    lies = {
        "kernel": "other",
        "spec": {"folder": "/"},
        "endpoint": {"socket": "/run/other"},
        "on": "here",
        "id": MINE,
        "pool": "p",
    }
    known = {"state": "busy", "facts": lies, "runs": {"run9": {"state": "running", "facts": lies}}}
    said = [SandboxChanged(MINE, "ended", lies), SandboxChanged(THEIRS, "no state", {"kernel": "other"})]
    fleet = await heard(tmp_path, monkeypatch, known, [*said, told("run9", "ended", **lies)])
    kept = {name: fleet.sandboxes[THEIRS][name] for name in ("id", "kernel", "spec", "on", "state")}
    assert kept == {"id": THEIRS, "kernel": "k", "spec": SPEC, "on": "box", "state": "busy"}
    assert set(fleet.sandboxes) == {MINE, THEIRS}
    assert fleet.sandboxes[MINE]["state"] == "busy"
    for facts in (*fleet.sandboxes.values(), *fleet.runs.values()):
        assert "endpoint" not in facts
        assert "pool" not in facts
    with pytest.raises(Refused):
        fleet.find_sandbox(SandboxId("../../outside"))


def test_what_is_shown_of_it_is_plain() -> None:
    """A terminal obeys nothing of it, a listing finds numbers where it needs some, and no text is endless."""
    facts = {
        "message": "one\n\x1b]52;c;AAAA\x07two",
        "name": "n" * 99_999,
        "started": "never",
        "ended": 5.0,
        "devices": ["none"],
        "deep": {"a": {"\x1b[2J": [os.sep, "\x9b1"]}},
    }
    found = believed(facts)
    assert found["message"] == "one\n ]52;c;AAAA two"
    assert len(found["name"]) < 5000
    assert found["deep"] == {"a": {" [2J": ["/", " 1"]}}
    assert (found["ended"], "started" in found, "devices" in found) == (5.0, False, False)
