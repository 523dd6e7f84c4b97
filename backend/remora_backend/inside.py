"""What code inside a sandbox may ask of the backend: it sees and ends what it started itself; what it opens sees no more.

Law: who asks is told by the supervisor of the sandbox, before the code's first byte; code cannot say otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from remora.errors import Refused
from remora.resources import SandboxSpec
from remora.wire import Fields, SandboxId
from remora_provisioner.images import within
from remora_provisioner.opening import Opening

from .fleet import Fleet
from .machines import HERE


class Insider:
    """One sandbox, as somebody who asks."""

    def __init__(self, fleet: Fleet, sandbox: SandboxId) -> None:
        """Ask for the code in this sandbox."""
        self._fleet, self.sandbox = fleet, sandbox

    def kernel(self, name: str) -> str:
        """Return the name of a kernel in there: below the sandbox's own."""
        return name if name.startswith(f"{self.sandbox}/") else f"{self.sandbox}/{name}"

    async def admit(self, spec: SandboxSpec, opening: Opening) -> SandboxSpec:
        """Return the spec with an image that is safe to build; Refused for one that shows more than the sandbox itself sees.

        Secrets are the user's to give, not the code's: a spec that names some is refused. So is a machine elsewhere that the
        sandbox was not opened with.
        """
        if spec.secrets:
            raise Refused("code in this sandbox has no secrets to give; hand values on as arguments or by env=")
        own = self._fleet.sandboxes[self.sandbox]
        asked = replace(
            spec, image=within.admit(spec.image, own["spec"]["image"]), machines=(), on=spec.on or str(own.get("on", HERE))
        )
        await self._fleet.machines.require_within(self.sandbox, asked, own["spec"].get("machines") or (), opening)
        return asked

    def owns(self, sandbox: Fields) -> bool:
        """Say whether that sandbox was opened from in here."""
        return str(sandbox.get("kernel", "")).startswith(f"{self.sandbox}/")

    def started(self, run: Fields) -> bool:
        """Say whether a run was started from in here, or runs in here."""
        place = self._fleet.sandboxes.get(run.get("sandbox") or SandboxId(""), {})
        return self.sandbox in (run.get("inside"), run.get("sandbox")) or self.owns(place)

    def require_sandbox(self, sandbox: Fields) -> Fields:
        """Return the sandbox's facts; Refused if it is not one of these."""
        if not self.owns(sandbox):
            raise Refused("that sandbox was not opened from in here", reason="no-such-sandbox")
        return sandbox

    def require_run(self, run: Fields) -> Fields:
        """Return the run's facts; Refused if it is not one of these."""
        if not self.started(run):
            raise Refused("that run was not started from in here", reason="no-such-run")
        return run
