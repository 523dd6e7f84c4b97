"""Which machine has what is asked.

Law: says what could ever be had, and what there is if it cannot; who holds a device just now is known to its machine's agent.
"""

from __future__ import annotations

from remora.errors import Unavailable
from remora.resources import SandboxSpec
from remora_provisioner.devices.inventory import require_devices

from .machines import HERE, Machines


def require(spec: SandboxSpec, machines: Machines) -> None:
    """Raise Unavailable if no machine has what is asked. What a machine elsewhere has is known to its agent."""
    if not machines.knows(spec.on):
        raise Unavailable(f"there is no machine {spec.on!r}; `remora machine add {spec.on} user@host` adds one")
    if spec.on == HERE:
        require_devices(spec, machines.here, HERE)
