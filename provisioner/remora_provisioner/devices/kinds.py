"""What is known of one GPU: its name, its memory, and what a sandbox that is granted it sees of the machine.

Law: plain values; a device is granted whole, and it is the same one as another where they have a node of their own in common.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from remora.wire import Fields

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = ("PATH", "HOME", "TERM", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Node:
    """A device node: its path on the machine, and the one it has inside."""

    host: str
    inside: str
    writable: bool = True


@dataclass(frozen=True)
class Device:
    """One GPU."""

    id: str
    """As CDI names it, `vendor/class=name`; of a device that NVML alone knows, the name is its UUID."""
    nodes: tuple[Node, ...]
    """Those that are this device's alone, at least one."""
    model: str = ""
    """As its maker writes it, "NVIDIA A100-SXM4-80GB"; empty if nobody says."""
    memory: int | None = None
    """Bytes, if somebody says."""
    told_by: str = ""
    """Who says model and memory: "NVML", or "annotations" of its CDI spec."""
    common: tuple[Node, ...] = ()
    """Those that it has in common with others of its kind."""
    mounts: tuple[tuple[str, str], ...] = ()
    """Files and folders that are shown, read-only, as (source, target)."""
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def own(self) -> frozenset[str]:
        """Return the paths of its own nodes on the machine, by which it is known."""
        return frozenset(node.host for node in self.nodes)

    def facts(self) -> Fields:
        """Return plain JSON values, as they stand among the facts of the sandbox that holds it."""
        return {"id": self.id, "model": self.model, "memory": self.memory, "nodes": sorted(self.own)}


def is_variable(name: str) -> bool:
    """Say whether a device may set an environment variable of that name: not those that Remora sets itself."""
    return bool(_VARIABLE.fullmatch(name)) and name not in _OURS and not name.startswith("REMORA_")


def environment_of(devices: Iterable[Device]) -> dict[str, str]:
    """Return the variables that all of them want; lists of visible devices are put together, of others the last one counts."""
    together: dict[str, str] = {}
    for device in devices:
        for name, value in device.environment:
            before = together.get(name)
            joined = name.endswith("_VISIBLE_DEVICES") and before is not None and before != value
            together[name] = f"{before},{value}" if joined else value
    return together


def mounts_of(devices: Iterable[Device], elsewhere: bool) -> tuple[tuple[str, str, bool], ...]:
    """Return what a sandbox sees of the devices, as (source, target, writable); unless `elsewhere`, all at their own paths."""
    devices = tuple(devices)
    nodes = {node.inside if elsewhere else node.host: node for device in devices for node in (*device.nodes, *device.common)}
    files = {target: source for device in devices for source, target in device.mounts if elsewhere or source == target}
    return (*((node.host, at, node.writable) for at, node in nodes.items()), *((files[at], at, False) for at in sorted(files)))
