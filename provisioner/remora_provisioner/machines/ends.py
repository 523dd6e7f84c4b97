"""What became of sandboxes of a machine elsewhere, and of their runs: kept there until their backends have heard of it.

Law: an end is on disk as soon as it is known; where the disk is full it is told from memory while this process lives.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from remora.states import EndReason, SandboxState
from remora.wire import Fields, RunId, SandboxId

from ..order import write_whole

FOLDER = "ends"


class Ends:
    """The ends of one agent's sandboxes."""

    def __init__(self, state: Path) -> None:
        """Keep them below `state`."""
        self._folder = state / FOLDER
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._runs: dict[SandboxId, dict[RunId, Fields]] = {}
        self._known: dict[SandboxId, Fields] = {}

    def ended(self, sandbox: SandboxId, facts: Fields) -> None:
        """Keep the end of a sandbox."""
        state = SandboxState.ENDED.value
        self._known[sandbox] = {"state": state, "facts": facts, "runs": self._runs.setdefault(sandbox, {})}
        self._write(sandbox)

    def run_changed(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Keep what became of a run."""
        self._runs.setdefault(sandbox, {})[run] = {"state": state, "facts": facts}
        if sandbox in self._known:  # it ended with its sandbox
            self._write(sandbox)

    def _write(self, sandbox: SandboxId) -> None:
        with contextlib.suppress(OSError):
            write_whole(self._folder / f"{sandbox}.json", json.dumps(self._known[sandbox]))

    def of(self, sandbox: SandboxId) -> Fields:
        """Return `state`, `facts` and `runs` of a sandbox that has ended."""
        if sandbox in self._known:
            return self._known[sandbox]
        try:
            known: Fields = json.loads((self._folder / f"{sandbox}.json").read_text())
        except (OSError, ValueError):
            text = "the machine knows nothing of this sandbox any more"
            known = {"state": SandboxState.ENDED.value, "facts": {"reason": EndReason.CRASHED.value, "message": text}, "runs": {}}
        return known

    def forget(self, sandbox: SandboxId) -> None:
        """Forget an end that the backend has heard of."""
        if sandbox.isalnum():
            (self._folder / f"{sandbox}.json").unlink(missing_ok=True)
            self._runs.pop(sandbox, None)
            self._known.pop(sandbox, None)
