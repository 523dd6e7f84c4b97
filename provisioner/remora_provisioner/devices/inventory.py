"""What a machine has, in a line for a person, and whether that will do."""

from __future__ import annotations

import os
from typing import Protocol

from remora.errors import Unavailable
from remora.resources import SandboxSpec, device_name, format_bytes

from .grants import Devices


class HasDevices(Protocol):
    """An agent."""

    devices: Devices


def require_devices(spec: SandboxSpec, agent: HasDevices, machine: str) -> None:
    """Raise Unavailable if the agent's machine, of this name, never has the devices that a spec asks for."""
    if not agent.devices.has(spec.resources.gpu):
        wanted, there = ",".join(map(str, spec.resources.gpu)), inventory(agent, machine)
        advice = "leave gpu= out to run without, or add one that has it: remora machine add NAME user@host"
        raise Unavailable(f"no machine has gpu={wanted}. There is: {there}; {advice}", machines=[there])


def inventory(agent: HasDevices, machine: str) -> str:
    """Return what the agent's machine, of this name, has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    devices = [f"{device_name(facts)}, {_use(facts['held_by'])}" for facts in agent.devices.known()]
    lines = agent.devices.lines()
    doubts = [f"{len(lines)} notes on devices in `remora doctor`"] if lines and not devices else []
    parts = [f"{os.cpu_count()} cores", f"{format_bytes(memory)} of memory", *(devices or ["no GPU"]), *doubts]
    return f"{machine}: {'; '.join(parts) if devices else ', '.join(parts)}"


def _use(holder: str | None) -> str:
    return f"held by sandbox {holder}" if holder else "free"
