"""Jail `process`: a plain process of its own session, for machines where nothing better works, and for tests.

Law: promises an orderly end and nothing else.
"""

from __future__ import annotations

from ..sandbox import Jail, OpenSandbox, SandboxPlan
from .warded import open_warded


class Process(Jail):
    """See the module."""

    name = "process"
    strength = 0
    limits = (
        "It isolates nothing. The code runs as you: it sees and can change all your files, processes and tokens, and "
        "/tmp is everybody's. Only HOME and TMPDIR point to private folders, whose content goes with the sandbox. "
        "Without control groups the number of processes is not limited. Code that kills its warden on purpose can stay."
    )

    def obstacle(self) -> str | None:
        """Nothing stands in its way."""
        return None

    def open(self, plan: SandboxPlan) -> OpenSandbox:
        """Start the sandbox; see Jail."""
        return open_warded(plan)
