"""Tensors of torch whose memory is on a device: their contents travel, and are put on their device again where there is one.

Law: torch is used only when the process has imported it. A tensor that finds no such device is a CPU tensor, which this side
remembers while it lives; sent on, it says where it belongs. Views of one tensor on a device arrive as tensors of their own.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import Any

from remora.sync.refusals import refuse

_PLAIN = {("torch", "Tensor"): "", ("torch.nn.parameter", "Parameter"): "Parameter"}
_belongs: dict[int, tuple[weakref.ref[Any], str]] = {}
"""By id, since tensors compare element by element: tensors that are on the CPU only because this side has no such device."""


class _Stranded(threading.local):
    devices: tuple[str, ...] = ()


_stranded = _Stranded()


def reduce_tensor(packer: Any, tensor: Any) -> Any:
    """Send the contents of a tensor that belongs on a device, with the device; any other one takes torch's own way."""
    del packer
    kind = type(tensor)
    here = str(tensor.device)
    device = _device_of(tensor) if here == "cpu" else here
    if device is None or here == "meta":
        return NotImplemented
    wrapper = _PLAIN.get((kind.__module__, kind.__qualname__))
    if wrapper is None:
        refuse(tensor, f"its memory is on {device} of this machine", "send tensor.cpu()")
    return make_tensor, (tensor.detach().cpu(), device, bool(tensor.requires_grad), wrapper)


def make_tensor(contents: Any, device: str, requires_grad: bool, wrapper: str) -> Any:
    """Put contents on their device: on that one, on another of its kind, or, without any, leave them and remember it."""
    torch = sys.modules["torch"]
    made, placed = contents, False
    for place in dict.fromkeys((device, device.partition(":")[0])):
        try:
            made, placed = contents.to(place), True
            break
        except (RuntimeError, AssertionError, NotImplementedError):  # what torch raises for a device that is not there
            continue
    if wrapper:
        made = torch.nn.Parameter(made, requires_grad=requires_grad)
    elif requires_grad:
        made.requires_grad_(True)
    if not placed:
        _remember(made, device)
        _stranded.devices = (*_stranded.devices, device)
    return made


def take_stranded() -> tuple[str, ...]:
    """Return the devices that were missing since this was last asked, each once."""
    devices, _stranded.devices = _stranded.devices, ()
    return tuple(dict.fromkeys(devices))


def _remember(tensor: Any, device: str) -> None:
    number = id(tensor)
    _belongs[number] = (weakref.ref(tensor, lambda _: _belongs.pop(number, None)), device)


def _device_of(tensor: Any) -> str | None:
    known = _belongs.get(id(tensor))
    return known[1] if known is not None and known[0]() is tensor else None
