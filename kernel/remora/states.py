"""The life of a run and of a sandbox: states, events, one transition table each. Pure.

Law: nothing changes a state except through `advance`; an event that a state does not expect is an error of ours, except
that an ended thing stays ended, whatever comes late.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from .errors import InternalError


class RunState(str, Enum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    ENDED = "ended"
    """Did not come to its own end: the reason is an EndReason."""
    UNKNOWN = "unknown"
    """Its machine has not been heard of; not failed until it is heard again or given up."""


class RunEvent(str, Enum):
    """What can happen to a run."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    RAISED = "raised"
    CUT = "cut"
    LOST_SIGHT = "lost sight"
    SEEN_QUEUED = "seen queued"
    SEEN_RUNNING = "seen running"


class SandboxState(str, Enum):
    """Where a sandbox stands."""

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    ENDED = "ended"


class SandboxEvent(str, Enum):
    """What can happen to a sandbox."""

    READY = "ready"
    TOOK_RUN = "took run"
    FREE = "free"
    ENDED = "ended"


class EndReason(str, Enum):
    """Why a run or sandbox ended other than by its own code; also the `reason` of RunEnded."""

    STOPPED = "stopped"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    BUDGET = "budget"
    IDLE = "idle"
    OUT_OF_MEMORY = "out-of-memory"
    CRASHED = "crashed"
    MACHINE_LOST = "machine-lost"
    IMAGE_FAILED = "image-failed"
    SANDBOX_FAILED = "sandbox-failed"
    SECRETS_LOST = "secrets-lost"


RUN_TABLE: Mapping[tuple[RunState, RunEvent], RunState] = {
    (RunState.QUEUED, RunEvent.STARTED): RunState.RUNNING,
    (RunState.QUEUED, RunEvent.CUT): RunState.ENDED,
    (RunState.QUEUED, RunEvent.LOST_SIGHT): RunState.UNKNOWN,
    (RunState.RUNNING, RunEvent.SUCCEEDED): RunState.DONE,
    (RunState.RUNNING, RunEvent.RAISED): RunState.FAILED,
    (RunState.RUNNING, RunEvent.CUT): RunState.ENDED,
    (RunState.RUNNING, RunEvent.LOST_SIGHT): RunState.UNKNOWN,
    (RunState.UNKNOWN, RunEvent.SEEN_QUEUED): RunState.QUEUED,
    (RunState.UNKNOWN, RunEvent.SEEN_RUNNING): RunState.RUNNING,
    (RunState.UNKNOWN, RunEvent.SUCCEEDED): RunState.DONE,
    (RunState.UNKNOWN, RunEvent.RAISED): RunState.FAILED,
    (RunState.UNKNOWN, RunEvent.CUT): RunState.ENDED,
}

SANDBOX_TABLE: Mapping[tuple[SandboxState, SandboxEvent], SandboxState] = {
    (SandboxState.STARTING, SandboxEvent.READY): SandboxState.READY,
    (SandboxState.STARTING, SandboxEvent.ENDED): SandboxState.ENDED,
    (SandboxState.READY, SandboxEvent.TOOK_RUN): SandboxState.BUSY,
    (SandboxState.READY, SandboxEvent.ENDED): SandboxState.ENDED,
    (SandboxState.BUSY, SandboxEvent.FREE): SandboxState.READY,
    (SandboxState.BUSY, SandboxEvent.ENDED): SandboxState.ENDED,
}

ENDED: frozenset[Enum] = frozenset({RunState.DONE, RunState.FAILED, RunState.ENDED, SandboxState.ENDED})

S = TypeVar("S", bound=Enum)
V = TypeVar("V", bound=Enum)


def advance(table: Mapping[tuple[S, V], S], state: S, event: V) -> S:
    """Return the state after the event; an ended thing stays as it is. Raises InternalError for an event out of place."""
    if state in ENDED:
        return state
    try:
        return table[state, event]
    except KeyError:
        raise InternalError(f"{event.value!r} cannot happen to something that is {state.value}") from None
