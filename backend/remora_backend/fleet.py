"""Every machine, sandbox and run: open, close, find, list, restore. What the backend knows and decides, in one place.

Law: the fleet holds facts and carries out the scheduler's instructions; how a sandbox is made is its machine's business, what
a run prints its supervisor's. Whatever is held here can be rebuilt from the supervisors that live and the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from remora.errors import Refused, RemoraError
from remora.resources import SandboxSpec
from remora.states import ENDED, EndReason, RunState, SandboxState
from remora.wire import Fields, Record, RunId, SandboxId
from remora_provisioner.opening import Opening

from .calls import CallDesk
from .machines import Machines, new_sandbox
from .placement import require
from .store import Store
from .timers import Unused


class SessionKey(NamedTuple):
    """What tells sessions apart: kernel, name, and the identity of the spec."""

    kernel: str
    session: str
    identity: tuple[str, str, str]


def _facts(row: Fields) -> Fields:
    return {name: row[name] for name in ("id", "sandbox", "state") if name in row} | dict(row["facts"])


class Fleet:
    """All that one backend knows."""

    def __init__(self, store: Store) -> None:
        """Start knowing nothing; `connect` gives the machines, then `restore`."""
        self.store = store
        self.sandboxes: dict[SandboxId, Fields] = {}
        self.runs: dict[RunId, Fields] = {}
        self.machines: Machines
        self.calls: CallDesk
        self._sessions: dict[SessionKey, SandboxId] = {}
        self._opening: dict[SessionKey, asyncio.Lock] = {}
        self._unused = Unused(lambda sandbox: self.machines.stop(sandbox, EndReason.IDLE), self.soon)
        self._tasks: set[asyncio.Task[None]] = set()
        self.changed: Callable[[], None] = lambda: None
        """Called whenever something starts or ends; the service uses it to know when it may leave."""

    def connect(self, machines: Machines, calls: CallDesk) -> None:
        """Take the machines and the desk that carries out calls."""
        self.machines, self.calls = machines, calls

    async def restore(self) -> None:
        """Take up what lived on while the backend was away, and end on paper what did not."""
        sandboxes, runs = self.store.left_behind()
        self.sandboxes |= {SandboxId(row["id"]): _facts(row) for row in sandboxes}
        self.runs |= {RunId(row["id"]): _facts(row) for row in runs}
        await self.machines.take_up({s: facts for s, facts in self.sandboxes.items() if not self._ended(s)}, dict(self.runs))
        await self.calls.restore()

    @property
    def busy(self) -> bool:
        """True while a sandbox lives or a run has not ended."""
        return bool(self.runs) or any(not self._ended(s) for s in self.sandboxes)

    async def open_session(self, key: SessionKey, spec: SandboxSpec, adopt: str | None, opening: Opening) -> Fields:
        """Return the facts of the session's sandbox, opened if there is none; `new` says whether its namespace is empty."""
        require(spec, self.machines)
        if adopt is not None:
            self._sessions[key] = self._living(adopt)
            self.sandboxes[self._sessions[key]] |= {"kernel": key.kernel, "session": key.session, "leaving": False}
        async with self._opening.setdefault(key, asyncio.Lock()):
            sandbox = self._sessions.get(key)
            if sandbox is not None and self.machines.has(sandbox) and not self._ended(sandbox):
                notices = await self._extend(sandbox, spec, opening)
                return self._described(sandbox) | {"new": False, "notices": notices}
            sandbox = new_sandbox()
            owner = key._asdict() | {"on": spec.on, "spec": spec.to_dict()}
            notices = await self.open_sandbox(sandbox, spec, owner, opening)
            self._sessions[key] = sandbox
            return self._described(sandbox) | {"new": True, "notices": notices}

    async def _extend(self, sandbox: SandboxId, spec: SandboxSpec, opening: Opening) -> list[str]:
        """Give a living sandbox what its session's image has more by now, and secrets that came along."""
        known, notices = self.sandboxes[sandbox]["spec"], list[str]()
        if known["image"] != spec.image or opening.environment:
            notices = await self.machines.extend(sandbox, spec, opening)
            known |= {"image": spec.image, "secrets": spec.secrets}
        return notices

    async def open_sandbox(self, sandbox: SandboxId, spec: SandboxSpec, owner: Fields, opening: Opening) -> list[str]:
        """Start a sandbox; what happens to it is heard through `sandbox_changed`."""
        self.sandboxes[sandbox] = {"id": sandbox, "state": SandboxState.STARTING.value, "started": time.time()} | owner
        try:
            return await self.machines.open(sandbox, spec, owner, opening)
        except (RemoraError, asyncio.CancelledError) as error:  # the latter: nobody waits for it any more
            ended = {"reason": getattr(error, "reason", EndReason.CANCELLED.value), "message": str(error)}
            self.sandbox_changed(sandbox, SandboxState.ENDED.value, ended)
            raise

    def leave_kernel(self, kernel: str) -> None:
        """Take note that a kernel has ended for good: end its idle sandboxes now, busy ones when their runs are over."""
        for key, sandbox in [*self._sessions.items()]:
            if (key.kernel == kernel or key.kernel.startswith(f"{kernel}/")) and sandbox in self.sandboxes:
                self.sandboxes[sandbox]["leaving"] = True
                self._unused.mind(sandbox, self.sandboxes[sandbox])

    def sandbox_changed(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        """Take a sandbox's new state."""
        known = self.sandboxes.setdefault(sandbox, {"id": sandbox})
        before = known.get("state")
        known |= facts | {"state": state}
        if {before, state} != {SandboxState.READY.value, SandboxState.BUSY.value}:  # which of the two is asked of its supervisor
            self.store.save_sandbox(sandbox, state, {k: v for k, v in known.items() if k not in ("id", "state")})
        if "kernel" in known and "identity" in known and state != SandboxState.ENDED.value:
            self._sessions.setdefault(SessionKey(known["kernel"], known["session"], tuple(known["identity"])), sandbox)
        known["used"] = known.get("used") or state == SandboxState.BUSY.value
        self._unused.mind(sandbox, known)
        self.calls.sandbox_changed(sandbox, before, state)
        if state == SandboxState.ENDED.value:
            self.leave_kernel(sandbox)  # the kernels that ran in there are named below it
            self._sessions = {key: value for key, value in self._sessions.items() if value != sandbox}
        self.changed()

    def run_changed(self, sandbox: SandboxId | None, run: RunId, state: str, facts: Fields) -> None:
        """Take a run's new state."""
        known = self.runs.setdefault(run, {"id": run, "sandbox": sandbox})
        known |= facts | {"state": state, "sandbox": sandbox, "on": self.machines.name_of(sandbox)}
        self.store.save_run(run, sandbox, state, {k: v for k, v in known.items() if k not in ("id", "state", "sandbox")})
        if RunState(state) in ENDED:
            self.runs.pop(run)
            self.calls.run_ended(run)
        self.changed()

    def recorded(self, record: Record) -> None:
        """Pass on an entry of a run that we follow."""
        self.calls.recorded(record)

    # -- finding and ending

    def _ended(self, sandbox: SandboxId) -> bool:
        return bool(self.sandboxes[sandbox]["state"] == SandboxState.ENDED.value)

    def _described(self, sandbox: SandboxId) -> Fields:
        return self.sandboxes[sandbox] | {"endpoint": self.machines.endpoint(sandbox)}

    def _living(self, prefix: str) -> SandboxId:
        found = [s for s in self.sandboxes if s.startswith(prefix) and not self._ended(s)]
        if len(found) != 1:
            raise Refused(f"{'no' if not found else 'more than one'} living sandbox is called {prefix}; `remora ps` lists them")
        return found[0]

    def find_sandbox(self, sandbox: SandboxId) -> Fields:
        """Return a sandbox's facts, also when it has ended."""
        if sandbox not in self.sandboxes:
            raise Refused(f"there is no sandbox {sandbox}; `remora ps` lists them", reason="no-such-sandbox")
        return self._described(sandbox) if self.machines.has(sandbox) else self.sandboxes[sandbox]

    def find_run(self, prefix: str) -> Fields:
        """Return a run's facts by its id or a unique beginning of it, with its sandbox's endpoint while the run goes on."""
        known = [facts for run, facts in self.runs.items() if run.startswith(prefix)]
        rows = known or [_facts(row) for row in self.store.find_runs(prefix)]
        if len(rows) != 1 or not prefix:
            how_many = "more than one" if rows else "no"
            raise Refused(f"{how_many} run is called {prefix!r}; `remora runs` lists them", reason="no-such-run")
        facts = dict(rows[0])
        sandbox = facts.get("sandbox")
        if sandbox in self.sandboxes and self.machines.has(sandbox):
            facts["endpoint"] = self.machines.endpoint(sandbox)
            facts["owner"] = {k: self.sandboxes[sandbox].get(k) for k in ("kernel", "session", "spec")}
        return facts

    def list_all(self, limit: int) -> Fields:
        """Return the living sandboxes, the newest runs, and the machine."""
        living = [facts for s, facts in self.sandboxes.items() if not self._ended(s)]
        return {"sandboxes": living, "runs": [self.runs.get(RunId(r["id"]), _facts(r)) for r in self.store.runs(limit)]}

    async def stop(self, prefixes: list[str], everything: bool) -> Fields:
        """End sandboxes; return their ids when nothing of them is left (`stopped`), and why others live on (`left`)."""
        names = [s for s in self.sandboxes if not self._ended(s)] if everything else [self._living(p) for p in prefixes]
        left = await self.machines.stop_all(names)
        return {"stopped": [name for name in names if name not in left], "left": left}

    def soon(self, work: Any) -> None:
        """Let work go on beside what is being done; the fleet keeps hold of it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
