"""Which call goes to which sandbox, and how many sandboxes of functions there should be. Pure: event in, instructions out.

Law: no clocks, no I/O, no ids made here. Whoever carries out the instructions reports what came of them as the next event.
A pool is all sandboxes that can run the same function, named by its key, on whatever machines will do; within a pool calls are
served in the order they came. A pool without any sandbox takes a place from the others as soon as its first call is the oldest
one that waits. A sandbox is put on the first machine of its call that has room; one that did not start says nothing about other
machines.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice

from remora.wire import RunId, SandboxId

from .turns import (
    Assign,
    CallEnded,
    CallQueued,
    CallReturned,
    Close,
    DevicesFreed,
    Event,
    Fail,
    Instruction,
    MachineHas,
    Open,
    Rest,
    SandboxGone,
    SandboxHeldUp,
    SandboxReady,
    Wait,
)

_Place = tuple[str, str]
"""A pool's key, and a machine."""


@dataclass
class _Waiting:
    number: int
    call: CallQueued


@dataclass
class _Sandbox:
    key: str
    cores: float
    machine: str
    ready: bool = False
    leaving: bool = False
    work: _Waiting | None = None

    @property
    def free(self) -> bool:
        """True while it can take a call."""
        return self.ready and self.work is None and not self.leaving


@dataclass
class Scheduler:
    """The pools of some machines; `name` makes ids for new sandboxes."""

    cores: dict[str, float]
    """Of each machine; on one of which nothing is known one sandbox fits."""
    name: Callable[[], SandboxId]
    _queues: dict[str, deque[_Waiting]] = field(default_factory=dict)
    _sandboxes: dict[SandboxId, _Sandbox] = field(default_factory=dict)
    _assigned: dict[RunId, tuple[SandboxId, _Waiting]] = field(default_factory=dict)
    """Calls whose end has not been reported, though their sandbox may be gone."""
    _within: dict[RunId, RunId] = field(default_factory=dict)
    """Calls that have not ended, with the calls that wait for them."""
    _held_up: dict[_Place, frozenset[SandboxId]] = field(default_factory=dict)
    """Where pools wait for devices, with the sandboxes that hold them."""
    _barred: set[_Place] = field(default_factory=set)
    """Where a sandbox did not start: there is no other one as long as that queue lasts, since that would not start either."""
    _count: int = 0

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event and return what is to be done now, in order."""
        done: list[Instruction] = []
        if isinstance(event, CallQueued):
            self._queue(event)
        elif isinstance(event, CallEnded):
            self._release(event.run)
        elif isinstance(event, CallReturned):
            self._take_back(event.run)
        elif isinstance(event, SandboxReady):
            self._sandboxes[event.sandbox].ready = True
        elif isinstance(event, SandboxGone):
            done = self._lose(event)
        elif isinstance(event, SandboxHeldUp | DevicesFreed | MachineHas):
            self._mind_machines(event)
        elif not self._retire(event.sandbox):
            return []
        else:
            done = [Close(event.sandbox)]
        return [*done, *self._assign(), *self._give_way(), *self._open(), *self._rest(event)]

    # -- what happened

    def _queue(self, call: CallQueued) -> None:
        self._count += 1
        self._queues.setdefault(call.key, deque()).append(_Waiting(self._count, call))
        if call.within is not None:
            self._within[call.run] = call.within

    def _release(self, run: RunId) -> None:
        self._within.pop(run, None)
        if run not in self._assigned:
            for key, queue in self._queues.items():
                self._queues[key] = deque(w for w in queue if w.call.run != run)
            return
        name, _ = self._assigned.pop(run)
        if name in self._sandboxes:
            self._sandboxes[name].work = None

    def _take_back(self, run: RunId) -> None:
        """Put a call back in front; its sandbox takes no other, since it is about to be gone."""
        if run not in self._assigned:
            return
        name, waiting = self._assigned.pop(run)
        self._queues.setdefault(waiting.call.key, deque()).appendleft(waiting)
        if name in self._sandboxes:
            self._sandboxes[name].work, self._sandboxes[name].leaving = None, True

    def _lose(self, event: SandboxGone) -> list[Instruction]:
        lost = self._sandboxes.pop(event.sandbox, None)
        if lost is None or event.started:
            return []
        self._barred.add((lost.key, lost.machine))
        if any(s.key == lost.key and self._serves(s) for s in self._sandboxes.values()):
            return []
        hopeless = [waiting.call.run for waiting in self._queues.get(lost.key, ()) if self._is_barred(waiting.call)]
        for run in hopeless:  # these fail instead of waiting for ever
            self._release(run)
        return [Fail(run) for run in hopeless]

    def _mind_machines(self, event: SandboxHeldUp | DevicesFreed | MachineHas) -> None:
        if isinstance(event, MachineHas):
            self.cores[event.machine] = event.cores
        elif isinstance(event, DevicesFreed):
            self._held_up.clear()
        elif lost := self._sandboxes.pop(event.sandbox, None):
            self._held_up[lost.key, lost.machine] = event.holders

    def _serves(self, sandbox: _Sandbox) -> bool:
        """Say whether a sandbox will take another call, which one that waits for a call of its own may never do."""
        waits = sandbox.work is not None and sandbox.work.call.run in self._within.values()
        return sandbox.ready and not sandbox.leaving and not waits

    def _retire(self, name: SandboxId) -> bool:
        sandbox = self._sandboxes.get(name)
        if sandbox is None or not sandbox.free:
            return False
        del self._sandboxes[name]
        return True

    # -- what is to be done

    def _assign(self) -> list[Instruction]:
        done: list[Instruction] = []
        for name, sandbox in self._sandboxes.items():
            queue = self._queues.get(sandbox.key)
            if sandbox.free and queue and not self._yields(name, queue[0]):
                sandbox.work = queue.popleft()
                self._assigned[sandbox.work.call.run] = (name, sandbox.work)
                done.append(Assign(sandbox.work.call.run, name))
        self._queues = {key: queue for key, queue in self._queues.items() if queue}
        self._barred = {place for place in self._barred if place[0] in self._queues}
        return done

    def _yields(self, name: SandboxId, waiting: _Waiting) -> bool:
        """Say whether a call has to leave this place to a pool that has none, whose call is older and finds no room."""
        older = [queue[0].call for queue in self._starving() if queue[0].number < waiting.number]
        return any(self._is_kept_out_by(name, call) for call in older)

    def _is_kept_out_by(self, name: SandboxId, call: CallQueued) -> bool:
        places = self._places(call)
        if not places:
            return any(name in self._held_up.get((call.key, machine), ()) for machine in call.machines)
        return self._sandboxes[name].machine in places and not any(self._fits(call, machine) for machine in places)

    def _places(self, call: CallQueued) -> list[str]:
        """Return the machines on which a sandbox for the call may be tried now."""
        return [m for m in call.machines if (call.key, m) not in self._held_up and (call.key, m) not in self._barred]

    def _is_barred(self, call: CallQueued) -> bool:
        """Say whether a sandbox for the call would start on no machine."""
        return all((call.key, machine) in self._barred for machine in call.machines)

    def _starving(self) -> list[deque[_Waiting]]:
        served = {sandbox.key for sandbox in self._sandboxes.values()}
        return [queue for key, queue in self._queues.items() if queue and key not in served]

    def _give_way(self) -> list[Instruction]:
        """End unused sandboxes that hold the devices which others wait for; their pools wait until those are free."""
        wanted = set().union(*(holders for (key, _), holders in self._held_up.items() if self._queues.get(key)))
        idle = [name for name, sandbox in self._sandboxes.items() if sandbox.free and name in wanted]
        for name in idle:
            closed = self._sandboxes.pop(name)
            self._held_up.setdefault((closed.key, closed.machine), frozenset())
        return [Close(name) for name in idle]

    def _open(self) -> list[Instruction]:
        done: list[Instruction] = []
        coming = Counter(s.key for s in self._sandboxes.values() if not s.ready)
        served = {sandbox.key for sandbox in self._sandboxes.values()}
        lost = {key for key, queue in self._queues.items() if key not in served and self._is_barred(queue[0].call)}
        self._barred = {place for place in self._barred if place[0] not in lost}  # else nothing would ever be tried again
        for key, queue in sorted(self._queues.items(), key=lambda item: (item[0] in served, item[1][0].number)):
            for waiting in islice(queue, coming[key], None):
                machine = self._make_room(waiting.call, done)
                if machine is None:
                    break
                new = self.name()
                self._sandboxes[new] = _Sandbox(key, waiting.call.cores, machine)
                done.append(Open(key, new, machine))
            else:
                continue
            if key not in served and self._places(queue[0].call):
                return done  # whatever gets free is for this one
        return done

    def _make_room(self, call: CallQueued, done: list[Instruction]) -> str | None:
        """Return a machine on which another sandbox fits, ending unused ones of other pools if that makes it fit."""
        for machine in self._places(call):
            idle = [name for name, s in self._sandboxes.items() if s.free and s.key != call.key and s.machine == machine]
            if not self._fits(call, machine, without=idle):
                continue
            while not self._fits(call, machine):
                name = idle.pop(0)
                del self._sandboxes[name]
                done.append(Close(name))
            return machine
        return None

    def _fits(self, call: CallQueued, machine: str, without: Collection[SandboxId] = ()) -> bool:
        """Say whether a machine has cores for the call; one sandbox always fits.

        A call that waits for another uses none, or both would wait for ever.
        """
        waiting = set(self._within.values())
        there = (s for name, s in self._sandboxes.items() if s.machine == machine and name not in without)
        used = sum(s.cores for s in there if s.work is None or s.work.call.run not in waiting)
        return not used or used + call.cores <= self.cores.get(machine, 0.0)

    def _rest(self, event: Event) -> list[Instruction]:
        if isinstance(event, CallQueued):
            return []
        return [Rest(name) for name, s in self._sandboxes.items() if s.free]

    # -- what to say of it

    def waiting(self) -> list[Wait]:
        """Return why each call waits that no sandbox has taken, the oldest first."""
        before: Counter[tuple[str, ...]] = Counter()
        found = []
        for waiting in sorted((each for queue in self._queues.values() for each in queue), key=lambda each: each.number):
            machines = waiting.call.machines
            found.append(self._why(waiting.call, sum(n for others, n in before.items() if not set(others).isdisjoint(machines))))
            before[machines] += 1
        return found

    def _why(self, call: CallQueued, before: int) -> Wait:
        holders = frozenset[SandboxId]().union(*(self._held_up.get((call.key, machine), ()) for machine in call.machines))
        starting = any(s.key == call.key and not s.ready for s in self._sandboxes.values())
        machines = tuple(machine for machine in call.machines if (call.key, machine) not in self._barred)
        lacks = "start" if starting else "cores" if self._places(call) else "devices"
        return Wait(call.run, machines, lacks, holders, before)
