"""What the scheduler hears, and what it says. Plain values.

Law: an event tells what has happened, an instruction what is to be done now; neither holds anything that does something.
"""

from __future__ import annotations

from dataclasses import dataclass

from remora.wire import RunId, SandboxId

HERE = "here"


@dataclass(frozen=True)
class CallQueued:
    """A call wants a sandbox of the pool `key`, on `cores` processors of the first of these machines that has room.

    `within` is the call whose code waits for it.
    """

    run: RunId
    key: str
    cores: float
    within: RunId | None = None
    machines: tuple[str, ...] = (HERE,)


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
class MachineHas:
    """It is known how many cores a machine has."""

    machine: str
    cores: float


@dataclass(frozen=True)
class SandboxUnused:
    """A sandbox has waited for work as long as it may."""

    sandbox: SandboxId


@dataclass(frozen=True)
class Open:
    """Make a sandbox for the pool, by this id, on this machine."""

    key: str
    sandbox: SandboxId
    machine: str = HERE


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


Event = (
    CallQueued | CallEnded | CallReturned | SandboxReady | SandboxGone | SandboxHeldUp | DevicesFreed | MachineHas | SandboxUnused
)
Instruction = Open | Assign | Rest | Close | Fail


@dataclass(frozen=True)
class Wait:
    """Why a call waits: on these machines, for `lacks`: "cores", "devices" or the "start" of a sandbox."""

    run: RunId
    machines: tuple[str, ...]
    lacks: str
    holders: frozenset[SandboxId]
    """Of devices."""
    before: int
    """How many calls for these machines are older and wait, too."""
