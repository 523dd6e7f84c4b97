"""What other machines say of sandboxes and runs, as far as it may be believed.

Law: whoever has a machine elsewhere, its root too, says what it likes. It may speak of its own sandboxes and of the runs in them,
never of others' runs; nothing that it says leads to a path, a socket or another run here, and what is shown of it is plain text.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from remora.errors import Refused
from remora.states import RunState, SandboxState
from remora.wire import Fields, Record, RunId, SandboxId
from remora_provisioner.runs import run_folder

if TYPE_CHECKING:
    from .fleet import Fleet

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_OURS = frozenset({"id", "kernel", "session", "identity", "spec", "on", "pool", "leaving", "used", "opened"})
_OURS |= {"endpoint", "state", "sandbox", "owner", "inside", "within"}
"""What the backend alone says of sandboxes and runs."""
_NUMBERS = frozenset({"started", "ended", "queued", "peak", "pid", "supervisor", "clients", "signal", "code"})
_STATES = {state.value for state in SandboxState}
_RUN_STATES = {state.value for state in RunState}
_MOST, _DEPTH = 4000, 6


class Doubting:
    """Hears what one machine elsewhere says, and passes on what may be believed."""

    def __init__(self, fleet: Fleet) -> None:
        """Pass on to the fleet."""
        self._fleet = fleet
        self._owners: dict[RunId, SandboxId] = {}
        """Whose the runs are that have been looked up, as long as their sandboxes live."""

    def sandbox_changed(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        """Take the state of a sandbox that the backend has opened there."""
        if state == SandboxState.ENDED.value:
            self._owners = {run: owner for run, owner in self._owners.items() if owner != sandbox}
        if state in _STATES:
            self._fleet.sandbox_changed(sandbox, state, believed(facts))

    def run_changed(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Take the state of a run in such a sandbox; it is no other's."""
        if state in _RUN_STATES and self._may_speak_of(sandbox, run):
            self._fleet.run_changed(sandbox, run, state, believed(facts))

    def recorded(self, record: Record) -> None:
        """Take an entry of a call's log, or a line for who waits for it; only calls that were handed to the machine come home."""
        self._fleet.recorded(record if record.seq >= 0 else replace(record, content=plain(record.content)))

    def _may_speak_of(self, sandbox: SandboxId, run: RunId) -> bool:
        """Say whether a run is the sandbox's; one that nobody knows is of who speaks of it first."""
        known = self._fleet.runs.get(run)
        if known is None and self._owners.get(run) == sandbox:
            return True
        try:
            run_folder(Path(), run)
        except (Refused, TypeError) as error:
            _LOG.warning("sandbox %s speaks of a run that cannot be: %s", sandbox, error)
            return False
        rows = [known] if known is not None else [row for row in self._fleet.store.find_runs(run) if row["id"] == run]
        if all((row["sandbox"] or self._fleet.calls.handed_to(run)) == sandbox for row in rows):
            self._owners[run] = sandbox
            return True
        _LOG.warning("sandbox %s speaks of run %s, which is not its own", sandbox, run)
        return False


def believed(facts: Fields) -> Fields:
    """Return of facts from elsewhere what may be passed on."""
    told = {str(name): value for name, value in facts.items() if name not in _OURS}
    fit = {name: value for name, value in told.items() if name not in _NUMBERS or _is_number(value)}
    if "devices" in fit and not _are_devices(fit["devices"]):
        del fit["devices"]
    return {name: plain(value) for name, value in fit.items()}


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _are_devices(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and isinstance(one.get("model", ""), str) for one in value)


def plain(value: T) -> T:
    """Return a value whose texts are short and have nothing in them that a terminal would obey."""
    found: T = _plain(value, _DEPTH)
    return found


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in value[:_MOST])
    if isinstance(value, dict):
        return {_plain(str(name), depth): _plain(one, depth - 1) for name, one in value.items()} if depth else {}
    if isinstance(value, list):
        return [_plain(one, depth - 1) for one in value] if depth else []
    return value
