"""Jails for tests of what stands above a jail.

Law: each keeps the contract of a real jail as far as its name allows; none is registered, a test hands it over.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from remora.errors import PlaceError

from ..jails.process import Process
from ..sandbox import Jail, OpenSandbox, SandboxPlan
from .visits import PATIENCE


class FakeJail(Jail):
    """A jail that starts plain processes and remembers what it was asked for."""

    name = "fake"
    strength = 0
    limits = "For tests: it isolates nothing."

    def __init__(self) -> None:
        """Remember plans in `plans` and sandboxes in `sandboxes`, in order."""
        self.plans: list[SandboxPlan] = []
        self.sandboxes: list[OpenSandbox] = []

    def obstacle(self) -> str | None:
        """Nothing stands in its way."""
        return None

    def open(self, plan: SandboxPlan) -> OpenSandbox:
        """Start the plan as a plain process; see Jail."""
        self.plans.append(plan)
        self.sandboxes.append(Process().open(plan))
        return self.sandboxes[-1]


class SlowJail(FakeJail):
    """A jail whose `open` goes on only when the test sets `go`."""

    name = "slow"

    def __init__(self) -> None:
        """Begin closed."""
        super().__init__()
        self.go = threading.Event()

    def open(self, plan: SandboxPlan) -> OpenSandbox:
        """Wait for the test, then start; see Jail."""
        if not self.go.wait(PATIENCE):
            raise PlaceError("the test never let the slow jail go on", reason="sandbox")
        return super().open(plan)


class NeverJail(FakeJail):
    """A jail whose sandboxes live but never say a word, and hear nothing but SIGKILL."""

    name = "never"

    def open(self, plan: SandboxPlan) -> OpenSandbox:
        """Start something else in place of the plan's command; see Jail."""
        deaf = ("/bin/sh", "-c", "trap '' INT TERM HUP; while :; do sleep 1000; done")
        return super().open(replace(plan, argv=deaf, pass_fds=()))


class BadJail(FakeJail):
    """A jail that works nowhere."""

    name = "bad"

    def obstacle(self) -> str | None:
        """Say that nothing will do."""
        return "this jail is bad on purpose: choose another one"

    def open(self, plan: SandboxPlan) -> OpenSandbox:
        """Fail; see Jail."""
        raise PlaceError("this jail is bad on purpose: choose another one", reason="sandbox")
