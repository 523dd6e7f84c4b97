"""Who holds which GPU of this machine: a device is granted whole, to one sandbox at a time.

Law: nothing is awaited in here, so two that ask at once never get the same device. What is granted is written in the sandbox's
order; after the agent was away it is taken up from there, whatever has become of the specs meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remora.errors import Unavailable
from remora.resources import Gpu, device_name
from remora.wire import Fields, SandboxId

from .choosing import choose, fits
from .kinds import Device

if TYPE_CHECKING:
    from .finding import Found

HELD = "devices-held"
"""Reason of the error for devices that others hold."""
Wanted = tuple[Gpu, ...]


def _find() -> Found:
    from .finding import find  # by most backends never needed

    return find()


@dataclass(frozen=True)
class HeldUp:
    """Why something cannot be granted now: as a sentence that says how to free it, and the sandboxes that hold it."""

    text: str
    holders: frozenset[SandboxId]


class Devices:
    """The agent's account of its machine's devices."""

    def __init__(self, look: Callable[[], Found] = _find) -> None:
        """Start with nothing held; `look` finds what there is, each time it matters."""
        self._look = look
        self._held: dict[SandboxId, list[Fields]] = {}
        self._granted: dict[SandboxId, tuple[Device, ...]] = {}

    def known(self) -> list[Fields]:
        """Return facts of all devices, with `held_by`, the sandbox that holds it or None."""
        return [device.facts() | {"told_by": device.told_by, "held_by": self._holder(device)} for device in self._look().devices]

    def lines(self) -> tuple[str, ...]:
        """Return what was passed over in looking for devices, and why."""
        return self._look().lines

    def has(self, wanted: Wanted) -> bool:
        """Say whether this machine could ever serve what is wanted."""
        return not wanted or choose(wanted, self._look().devices) is not None

    def held_up(self, wanted: Wanted) -> HeldUp | None:
        """Return who holds what is wanted; None if nobody does, or enough is free."""
        devices = self._look().devices if wanted else ()
        if not wanted or choose(wanted, self._free(devices)) is not None:
            return None
        fitting = [device for device in devices if any(fits(gpu, device) for gpu in wanted)]
        holders = [(device_name(device.facts()), name) for device in fitting if (name := self._holder(device))]
        if not holders:
            return None
        told = ", ".join(f"{what} by sandbox {name}" for what, name in holders)
        frees = f"`remora stop {holders[0][1]}`, or `%remote stop` in its notebook, frees it"
        text = f"gpu={','.join(map(str, wanted))} is here, but held: {told}; {frees}"
        return HeldUp(text, frozenset(name for _, name in holders))

    @contextmanager
    def granted(self, sandbox: SandboxId, wanted: Wanted) -> Iterator[None]:
        """Grant a sandbox what is wanted, and take it back if what is done with it fails. Unavailable if it cannot be now."""
        self._grant(sandbox, wanted)
        try:
            yield
        except BaseException:  # cancelled as well
            self.release(sandbox)
            raise

    def _grant(self, sandbox: SandboxId, wanted: Wanted) -> None:
        if not wanted:
            return
        if held := self.held_up(wanted):
            raise Unavailable(held.text, reason=HELD, holders=sorted(held.holders))
        chosen = choose(wanted, self._free(self._look().devices))
        if chosen is None:
            raise Unavailable(f"this machine has no gpu={','.join(map(str, wanted))} any more; `remora doctor` lists what it has")
        self._granted[sandbox] = chosen
        self._held[sandbox] = [device.facts() for device in chosen]

    def of(self, sandbox: SandboxId) -> tuple[Device, ...]:
        """Return what a sandbox was granted that is being opened."""
        return self._granted.get(sandbox, ())

    def facts(self, sandbox: SandboxId) -> list[Fields]:
        """Return facts of what a sandbox holds."""
        return self._held.get(sandbox, [])

    def take_up(self, sandbox: SandboxId, facts: list[Fields]) -> None:
        """Take note that a sandbox which lived on holds the devices with these facts."""
        if facts:
            self._held[sandbox] = facts

    def release(self, sandbox: SandboxId) -> None:
        """Take note that a sandbox holds nothing any more; safe twice."""
        self._held.pop(sandbox, None)
        self._granted.pop(sandbox, None)

    def _free(self, devices: Iterable[Device]) -> list[Device]:
        return [device for device in devices if self._holder(device) is None]

    def _holder(self, device: Device) -> SandboxId | None:
        for sandbox, held in self._held.items():
            if any(facts["id"] == device.id or not device.own.isdisjoint(facts["nodes"]) for facts in held):
                return sandbox
        return None
