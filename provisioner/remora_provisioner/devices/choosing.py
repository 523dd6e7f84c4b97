"""Which devices do for a `gpu=`, by name and memory. Pure.

Law: a name is a word of the model's name, never a part of one: A100 is no A1000. What may stand in for what is one table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from remora.resources import Gpu

from .kinds import Device

SUBSTITUTES = {"H100": "H200", "A100-40GB": "A100-80GB"}
"""What may be given in the place of what, larger ones of the same family, unless there is a `!`."""
_WORD = re.compile(r"[a-z0-9]+")
_SIZE = re.compile(r"([0-9]+)gb")
_NEAR = 0.1
"""How far the memory may be from its name: of 80 GB, drivers report 79.6 or 85.9 · 10⁹ bytes."""


def choose(wanted: Iterable[Gpu], devices: Sequence[Device]) -> tuple[Device, ...] | None:
    """Return the devices for the first of the alternatives that these can serve; None if they can serve none."""
    for gpu in wanted:
        for fitting in _candidates(gpu, devices):
            if len(fitting) >= gpu.count:
                return tuple(fitting[: gpu.count])
    return None


def fits(gpu: Gpu, device: Device) -> bool:
    """Say whether a device may be given for this alternative, as what was asked or in its place."""
    return any(device in fitting for fitting in _candidates(gpu, [device]))


def _candidates(gpu: Gpu, devices: Sequence[Device]) -> Iterator[list[Device]]:
    """Yield devices that would do, best first: all of one model before a mixture, what was named before what stands in for it."""
    for name in _names(gpu):
        fitting = [device for device in devices if _is_called(name, device)]
        if name != "any":
            fitting.sort(key=lambda device: device.memory or 0)  # the larger ones stay free for who needs them
        for model in dict.fromkeys(device.model for device in fitting):
            yield [device for device in fitting if device.model == model]
        yield fitting


def _names(gpu: Gpu) -> list[str]:
    name = "any" if gpu.name.lower() == "any" else gpu.name
    instead = None if gpu.exact else SUBSTITUTES.get(name.upper())
    return [name] if instead is None else [name, instead]


def _is_called(name: str, device: Device) -> bool:
    words = _WORD.findall(device.model.lower())
    runs = {"".join(words[first:last]) for first in range(len(words)) for last in range(first + 1, len(words) + 1)}
    return name == "any" or all(word in runs or _has_memory(word, words, device.memory) for word in _WORD.findall(name.lower()))


def _has_memory(word: str, words: list[str], memory: int | None) -> bool:
    """Say whether a word such as 80gb is the device's memory, where its name has no such word."""
    size = _SIZE.fullmatch(word)
    if size is None or memory is None or any(_SIZE.fullmatch(other) for other in words):
        return False
    return any(abs(memory / (int(size[1]) * unit) - 1) <= _NEAR for unit in (10**9, 2**30))
