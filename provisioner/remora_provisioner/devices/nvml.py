"""NVIDIA's GPUs as their driver knows them, asked through its library NVML (libnvidia-ml.so.1), which comes with the driver.

Law: ctypes and the standard library; a machine without the driver has no such devices, and no error. The library is begun once,
at the first question, which can take seconds where the driver is not kept loaded.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from .kinds import Device, Node

_LIBRARY = "libnvidia-ml.so.1"
_TEXT = 96
"""Bytes that NVML wants for a name or a UUID."""
_COMMON = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
Told = tuple[tuple[Device, ...], tuple[str, ...]]
"""Devices, and a line for each that cannot be used."""


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def load() -> Any:
    """Return the library, or None on a machine without the driver."""
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None


def is_node(path: str) -> bool:
    """Say whether there is a device node."""
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


class NotReady(Exception):
    """There is no driver, or it does not start: the text says so, or is empty where there is none."""


def known() -> Told:
    """Return what `find` finds on this machine, asking the driver once."""
    return _present(_asked_once, is_node)


def find(library: Any, there: Callable[[str], bool] = is_node) -> Told:
    """Return the devices that the library knows, and a line for each that cannot be used. `there`: whether a node exists."""
    return _present(lambda: _ask(library), there)


@cache
def _asked_once() -> tuple[list[Device], list[str]]:
    return _ask(load())


def _present(ask: Callable[[], tuple[list[Device], list[str]]], there: Callable[[str], bool]) -> Told:
    """Return what is answered of devices whose nodes are there; those come when somebody uses the driver."""
    try:
        devices, lines = ask()
    except NotReady as why:
        return (), tuple(filter(None, [str(why)]))
    common = tuple(Node(path, path) for path in _COMMON if there(path))
    missing = [device for device in devices if not there(device.nodes[0].host)]
    lines = [*lines, *(f"{one.model} has no node {one.nodes[0].host}; `nvidia-smi` run by root makes it" for one in missing)]
    return tuple(replace(device, common=common) for device in devices if device not in missing), tuple(lines)


def _ask(library: Any) -> tuple[list[Device], list[str]]:
    if library is None:
        raise NotReady
    if code := library.nvmlInit_v2():
        raise NotReady(f"NVML does not start (error {code}); `nvidia-smi` says what is wrong with the driver")
    devices, lines = [], []
    for index, handle in _handles(library):
        device = _device(library, handle)
        if isinstance(device, int):
            lines.append(f"NVML cannot say what GPU {index} is (error {device})")
        else:
            devices.append(device)
    return devices, lines


def _handles(library: Any) -> Iterator[tuple[int, ctypes.c_void_p]]:
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if not library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)):
            yield index, handle


def _device(library: Any, handle: ctypes.c_void_p) -> Device | int:
    """Return a device, or the number of the error that keeps NVML from telling of it."""
    name, uuid = ctypes.create_string_buffer(_TEXT), ctypes.create_string_buffer(_TEXT)
    minor, memory = ctypes.c_uint(), _Memory()
    error = (
        library.nvmlDeviceGetName(handle, name, ctypes.c_uint(_TEXT))
        or library.nvmlDeviceGetUUID(handle, uuid, ctypes.c_uint(_TEXT))
        or library.nvmlDeviceGetMinorNumber(handle, ctypes.byref(minor))
    )
    if error:
        return int(error)
    total = None if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) else int(memory.total)
    called = uuid.value.decode(errors="replace")
    node = f"/dev/nvidia{minor.value}"
    return Device(
        id=f"nvidia.com/gpu={called}",
        nodes=(Node(node, node),),
        model=name.value.decode(errors="replace"),
        memory=total,
        told_by="NVML",
        environment=(("CUDA_VISIBLE_DEVICES", called), ("NVIDIA_VISIBLE_DEVICES", called)),
    )
