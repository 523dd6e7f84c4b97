"""Which call goes to which sandbox, and how many sandboxes of functions there should be. Pure: event in, instructions out.

Law: no clocks, no I/O, no ids made here. Whoever carries out the instructions reports what came of them as the next event.
A pool is all sandboxes that can run the same function, named by its key; within a pool calls are served in the order they came. A
pool without any sandbox takes a place from the others as soon as its first call is the oldest one that waits.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice

from remora.wire import RunId, SandboxId


@dataclass(frozen=True)
class CallQueued:
    """A call wants a sandbox of the pool `key`, on `cores` processors; `within` is the call whose code waits for it."""

    run: RunId
    key: str
    cores: float
    within: RunId | None = None


@dataclass(frozen=True)
class CallEnded:
    """A call is over, or was cancelled while queued."""

    run: RunId


@dataclass(frozen=True)
class CallReturned:
    """A sandbox had ended before it took the call that was assigned to it."""

    run: RunId


@dataclass(frozen=True)
class SandboxReady:
    """A sandbox that was asked for can take calls."""

    sandbox: SandboxId


@dataclass(frozen=True)
class SandboxGone:
    """A sandbox has ended; `started` says whether it was ever ready."""

    sandbox: SandboxId
    started: bool


@dataclass(frozen=True)
class SandboxHeldUp:
    """A sandbox that was asked for cannot be made before one of these others gives its devices back."""

    sandbox: SandboxId
    holders: frozenset[SandboxId]


@dataclass(frozen=True)
class DevicesFreed:
    """Some sandbox has ended that had devices."""


@dataclass(frozen=True)
class SandboxUnused:
    """A sandbox has waited for work as long as it may."""

    sandbox: SandboxId


@dataclass(frozen=True)
class Open:
    """Make a sandbox for the pool, by this id."""

    key: str
    sandbox: SandboxId


@dataclass(frozen=True)
class Assign:
    """Give the call to the sandbox."""

    run: RunId
    sandbox: SandboxId


@dataclass(frozen=True)
class Rest:
    """The sandbox has nothing to do: report SandboxUnused when that has lasted."""

    sandbox: SandboxId


@dataclass(frozen=True)
class Close:
    """End the sandbox."""

    sandbox: SandboxId


@dataclass(frozen=True)
class Fail:
    """No sandbox of this call's pool could be made."""

    run: RunId


Event = CallQueued | CallEnded | CallReturned | SandboxReady | SandboxGone | SandboxHeldUp | DevicesFreed | SandboxUnused
Instruction = Open | Assign | Rest | Close | Fail


@dataclass
class _Waiting:
    number: int
    call: CallQueued


@dataclass
class _Sandbox:
    key: str
    cores: float
    ready: bool = False
    leaving: bool = False
    work: _Waiting | None = None

    @property
    def free(self) -> bool:
        """True while it can take a call."""
        return self.ready and self.work is None and not self.leaving


@dataclass
class Scheduler:
    """The pools of one machine with so many `cores`; `name` makes ids for new sandboxes."""

    cores: float
    name: Callable[[], SandboxId]
    _queues: dict[str, deque[_Waiting]] = field(default_factory=dict)
    _sandboxes: dict[SandboxId, _Sandbox] = field(default_factory=dict)
    _assigned: dict[RunId, tuple[SandboxId, _Waiting]] = field(default_factory=dict)
    """Calls whose end has not been reported, though their sandbox may be gone."""
    _within: dict[RunId, RunId] = field(default_factory=dict)
    """Calls that have not ended, with the calls that wait for them."""
    _held_up: dict[str, frozenset[SandboxId]] = field(default_factory=dict)
    """Pools that wait for devices, with the sandboxes that hold them."""
    _count: int = 0

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event and return what is to be done now, in order."""
        done: list[Instruction] = []
        unlucky = None
        if isinstance(event, CallQueued):
            self._queue(event)
        elif isinstance(event, CallEnded):
            self._release(event.run)
        elif isinstance(event, CallReturned):
            self._take_back(event.run)
        elif isinstance(event, SandboxReady):
            self._sandboxes[event.sandbox].ready = True
        elif isinstance(event, SandboxGone):
            # a pool whose sandbox did not start gets no other at once: that would not start either
            unlucky = None if event.started else self._key_of(event.sandbox)
            done = self._lose(event)
        elif isinstance(event, SandboxHeldUp | DevicesFreed):
            self._mind_devices(event)
        elif not self._retire(event.sandbox):
            return []
        else:
            done = [Close(event.sandbox)]
        return [*done, *self._assign(), *self._give_way(), *self._open(unlucky), *self._rest(event)]

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
        if lost is None or event.started or any(s.key == lost.key and self._serves(s) for s in self._sandboxes.values()):
            return []
        # its calls fail instead of waiting for ever
        hopeless = [waiting.call.run for waiting in self._queues.pop(lost.key, ())]
        for run in hopeless:
            self._within.pop(run, None)
        return [Fail(run) for run in hopeless]

    def _mind_devices(self, event: SandboxHeldUp | DevicesFreed) -> None:
        if isinstance(event, DevicesFreed):
            self._held_up.clear()
        elif lost := self._sandboxes.pop(event.sandbox, None):
            self._held_up[lost.key] = event.holders

    def _serves(self, sandbox: _Sandbox) -> bool:
        """Say whether a sandbox will take another call, which one that waits for a call of its own may never do."""
        waits = sandbox.work is not None and sandbox.work.call.run in self._within.values()
        return sandbox.ready and not sandbox.leaving and not waits

    def _key_of(self, name: SandboxId) -> str | None:
        sandbox = self._sandboxes.get(name)
        return sandbox.key if sandbox is not None else None

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
        return done

    def _yields(self, name: SandboxId, waiting: _Waiting) -> bool:
        """Say whether a call has to leave this place to a pool that has none, whose call is older and finds no room."""
        older = [queue[0].call for queue in self._starving() if queue[0].number < waiting.number]
        return any(name in self._held_up[call.key] if call.key in self._held_up else not self._fits(call) for call in older)

    def _starving(self) -> list[deque[_Waiting]]:
        served = {sandbox.key for sandbox in self._sandboxes.values()}
        return [queue for key, queue in self._queues.items() if queue and key not in served]

    def _give_way(self) -> list[Instruction]:
        """End unused sandboxes that hold the devices which others wait for; their pools wait until those are free."""
        wanted = set().union(*(holders for key, holders in self._held_up.items() if self._queues.get(key)))
        idle = [name for name, sandbox in self._sandboxes.items() if sandbox.free and name in wanted]
        for name in idle:
            self._held_up.setdefault(self._sandboxes.pop(name).key, frozenset())
        return [Close(name) for name in idle]

    def _open(self, unlucky: str | None) -> list[Instruction]:
        done: list[Instruction] = []
        coming = Counter(s.key for s in self._sandboxes.values() if not s.ready)
        served = {sandbox.key for sandbox in self._sandboxes.values()}
        wanting = [item for item in self._queues.items() if item[0] != unlucky and item[0] not in self._held_up]
        for key, queue in sorted(wanting, key=lambda item: (item[0] in served, item[1][0].number)):
            for waiting in islice(queue, coming[key], None):
                if not self._make_room(waiting.call, done):
                    break
                new = self.name()
                self._sandboxes[new] = _Sandbox(key, waiting.call.cores)
                done.append(Open(key, new))
            else:
                continue
            if key not in served:
                return done  # whatever gets free is for this one
        return done

    def _make_room(self, call: CallQueued, done: list[Instruction]) -> bool:
        """Say whether another sandbox fits, ending unused ones of other pools if that makes it fit; one sandbox always fits."""
        idle = [name for name, s in self._sandboxes.items() if s.free and s.key != call.key]
        if not self._fits(call, without=idle):
            return False
        while not self._fits(call):
            name = idle.pop(0)
            del self._sandboxes[name]
            done.append(Close(name))
        return True

    def _fits(self, call: CallQueued, without: Collection[SandboxId] = ()) -> bool:
        """Say whether there are cores for the call. One that waits for another uses none, or both would wait for ever."""
        waiting = set(self._within.values())
        there = (s for name, s in self._sandboxes.items() if name not in without)
        used = sum(s.cores for s in there if s.work is None or s.work.call.run not in waiting)
        return not used or used + call.cores <= self.cores

    def _rest(self, event: Event) -> list[Instruction]:
        if isinstance(event, CallQueued):
            return []
        return [Rest(name) for name, s in self._sandboxes.items() if s.free]
