"""What the user's machines have, as each of them said last: remembered, so that none is dialled in order to choose one.

Law: what a machine says takes the place of what was known; nothing is believed of one that was added anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remora.resources import Resources, device_name, format_bytes
from remora.wire import Fields
from remora_provisioner.devices.choosing import choose
from remora_provisioner.devices.kinds import Device
from remora_provisioner.images.records import write_whole

_LOG = logging.getLogger(__name__)
NOWHERE = 1 << 16
"""The rank of a machine that serves none of the alternatives."""


@dataclass(frozen=True)
class Has:
    """What a machine has; None where it has never said."""

    machine: str
    cores: float | None = None
    memory: int | None = None
    """Bytes."""
    devices: tuple[Device, ...] = ()

    @classmethod
    def of(cls, machine: str, facts: Fields) -> Has:
        """Return what a machine's facts say, those of its agent or those of a check. Raises TypeError, ValueError, KeyError."""
        found = facts["devices"] if "devices" in facts else ((facts.get("trial") or {}).get("devices") or {}).get("found") or ()
        devices = tuple(Device(str(one["id"]), (), str(one["model"]), one["memory"]) for one in found)
        cores, memory = facts.get("cores"), facts.get("memory")
        return cls(machine, float(cores) if cores else None, int(memory) if memory else None, devices)

    def to_dict(self) -> Fields:
        """Return plain JSON values that `of` reads."""
        devices = [{"id": one.id, "model": one.model, "memory": one.memory} for one in self.devices]
        return {"cores": self.cores, "memory": self.memory, "devices": devices}

    def rank(self, wanted: Resources, held: Collection[str] = ()) -> int:
        """Return the place of the first alternative of `gpu=` that the machine serves without the devices held."""
        free = [device for device in self.devices if device.id not in held]
        ranks = (place for place, gpu in enumerate(wanted.gpu) if choose((gpu,), free) is not None)
        return next(ranks, NOWHERE) if wanted.gpu else 0

    def is_enough(self, wanted: Resources) -> bool:
        """Say whether it has as many cores and as much memory."""
        return (wanted.cpu or 0) <= (self.cores or 0) and (wanted.memory or 0) <= (self.memory or 0)

    def line(self, held: Collection[str] = ()) -> str:
        """Return what it has, for a person."""
        if self.cores is None:
            return f"{self.machine}: not known yet, `remora machine check {self.machine}` finds out"
        devices = [f"{device_name(one.facts())}, {'held' if one.id in held else 'free'}" for one in self.devices]
        memory = f"{format_bytes(self.memory)} of memory" if self.memory else ""
        return f"{self.machine}: " + "; ".join(filter(None, [f"{self.cores:g} cores", memory, *(devices or ["no GPU"])]))


class Inventory:
    """What is remembered of machines elsewhere."""

    def __init__(self, file: Path) -> None:
        """Remember in this file."""
        self._file = file
        self._known: dict[str, Fields] = _read(file)

    def of(self, machine: str) -> Has:
        """Return what a machine has, as far as is known."""
        try:
            return Has.of(machine, self._known.get(machine, {}))
        except (TypeError, ValueError, KeyError, AttributeError):
            return Has(machine)

    def learn(self, machine: str, facts: Fields) -> None:
        """Remember what a machine says of itself."""
        try:
            said = Has.of(machine, facts).to_dict()
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            _LOG.warning("%s says nothing that is understood of what it has: %r", machine, error)
            return
        self._change(self._known | {machine: said})

    def forget(self, machine: str) -> None:
        """Forget a machine; safe twice."""
        self._change({name: facts for name, facts in self._known.items() if name != machine})

    def _change(self, known: dict[str, Fields]) -> None:
        if known == self._known:
            return
        self._known = known
        try:
            write_whole(self._file, json.dumps(known).encode())
        except OSError as error:  # it is known while this process lives
            _LOG.warning("%s cannot be written: %s", self._file, error)


def _read(file: Path) -> dict[str, Any]:
    try:
        known = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
