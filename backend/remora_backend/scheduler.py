"""Which call goes to which sandbox, and how many sandboxes of functions there should be. Pure: event in, instructions out.

Law: no clocks, no I/O, no ids made here. Whoever carries out the instructions reports what came of them as the next event.
Calls are served in the order they came; a pool is all sandboxes that can run the same function, named by its key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from remora.wire import RunId, SandboxId


@dataclass(frozen=True)
class CallQueued:
    """A call wants a sandbox of the pool `key`, on `cores` processors."""

    run: RunId
    key: str
    cores: float


@dataclass(frozen=True)
class CallEnded:
    """A call is over, or was cancelled while queued."""

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


Event = CallQueued | CallEnded | SandboxReady | SandboxGone | SandboxUnused
Instruction = Open | Assign | Rest | Close | Fail


@dataclass
class _Sandbox:
    key: str
    cores: float
    ready: bool = False
    run: RunId | None = None


@dataclass
class Scheduler:
    """The pools of one machine with so many `cores`; `name` makes ids for new sandboxes."""

    cores: float
    name: Callable[[], SandboxId]
    _queue: deque[CallQueued] = field(default_factory=deque)
    _sandboxes: dict[SandboxId, _Sandbox] = field(default_factory=dict)
    _assigned: dict[RunId, SandboxId] = field(default_factory=dict)

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event and return what is to be done now, in order."""
        if isinstance(event, CallQueued):
            self._queue.append(event)
        elif isinstance(event, CallEnded):
            self._release(event.run)
        elif isinstance(event, SandboxReady):
            self._sandboxes[event.sandbox].ready = True
        elif isinstance(event, SandboxGone):
            return [*self._lose(event), *self._fill()]
        elif isinstance(event, SandboxUnused):
            return self._retire(event.sandbox)
        return [*self._fill(), *self._rest(event)]

    def _release(self, run: RunId) -> None:
        sandbox = self._sandboxes.get(self._assigned.pop(run, SandboxId("")))
        if sandbox is not None:
            sandbox.run = None
        self._queue = deque(call for call in self._queue if call.run != run)

    def _lose(self, event: SandboxGone) -> list[Instruction]:
        lost = self._sandboxes.pop(event.sandbox, None)
        if lost is None:
            return []
        if lost.run is not None:
            self._assigned.pop(lost.run, None)
        if event.started:
            return []
        # one that never started would not start again either: its calls fail instead of waiting for ever
        hopeless = [call for call in self._queue if call.key == lost.key]
        self._queue = deque(call for call in self._queue if call.key != lost.key)
        return [Fail(call.run) for call in hopeless]

    def _retire(self, name: SandboxId) -> list[Instruction]:
        sandbox = self._sandboxes.get(name)
        if sandbox is None or sandbox.run is not None:
            return []
        del self._sandboxes[name]
        return [Close(name), *self._fill()]

    def _fill(self) -> list[Instruction]:
        done: list[Instruction] = []
        waiting: deque[CallQueued] = deque()
        coming = {name: s for name, s in self._sandboxes.items() if not s.ready}
        for call in self._queue:
            free = next((n for n, s in self._sandboxes.items() if s.key == call.key and s.ready and s.run is None), None)
            if free is not None:
                self._sandboxes[free].run = call.run
                self._assigned[call.run] = free
                done.append(Assign(call.run, free))
                continue
            waiting.append(call)
            promised = next((n for n, s in coming.items() if s.key == call.key), None)
            if promised is not None:
                del coming[promised]
            elif self._make_room(call, done):
                new = self.name()
                self._sandboxes[new] = _Sandbox(call.key, call.cores)
                done.append(Open(call.key, new))
        self._queue = waiting
        return done

    def _make_room(self, call: CallQueued, done: list[Instruction]) -> bool:
        """Say whether another sandbox fits, ending unused ones of other pools if that makes it fit; one sandbox always fits."""
        idle = [n for n, s in self._sandboxes.items() if s.ready and s.run is None and s.key != call.key]
        while self._sandboxes and self._used() + call.cores > self.cores:
            if not idle:
                return False
            name = idle.pop(0)
            del self._sandboxes[name]
            done.append(Close(name))
        return True

    def _used(self) -> float:
        return sum(s.cores for s in self._sandboxes.values())

    def _rest(self, event: Event) -> list[Instruction]:
        if isinstance(event, CallQueued):
            return []
        return [Rest(name) for name, s in self._sandboxes.items() if s.ready and s.run is None]
