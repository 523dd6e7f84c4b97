"""Finds the GPUs of this machine: CDI specs in its folders, and the driver of NVIDIA; each device once, with all that both know.

Law: looks and changes nothing. A spec counts only if nobody but root or this user can have written it: for root's sandboxes it
could name any node. What it shows of files counts only if root owns it. Specs are read again when they have changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from remora.settings import CDI_FOLDERS

from . import cdi, nvml, specs
from .kinds import Device

_FOLDERS = ("/etc/cdi", "/var/run/cdi")
_LARGEST = {".json": 1 << 20, ".yaml": 1 << 18, ".yml": 1 << 18}
"""Bytes of a spec: reading more would keep everybody waiting."""
_FILES = 100
_LINES = 50


@dataclass(frozen=True)
class Found:
    """Devices in the order they were found, and a line for everything that was passed over."""

    devices: tuple[Device, ...] = ()
    lines: tuple[str, ...] = ()


def find() -> Found:
    """Return what is there now."""
    folders = [*_FOLDERS, *filter(None, CDI_FOLDERS.text.split(":"))]
    told = together(read(folders), Found(*nvml.known()))
    return Found(told.devices, tuple(dict.fromkeys(told.lines))[:_LINES])


def read(folders: Iterable[str]) -> Found:
    """Read the specs in these folders; of devices with the same name or nodes, that of the last folder counts."""
    devices: dict[str, Device] = {}
    lines: list[str] = []
    for path in _files(folders, lines):
        found = _read(path)
        lines += found.lines
        for device in found.devices:
            same = [name for name, other in devices.items() if name == device.id or other.own == device.own]
            for name in same:
                del devices[name]
            devices[device.id] = device
    return Found(tuple(devices.values()), tuple(lines))


def _files(folders: Iterable[str], lines: list[str]) -> Iterator[Path]:
    for folder in dict.fromkeys(map(os.path.realpath, folders)):
        try:
            names = sorted(name for name in os.listdir(folder) if os.path.splitext(name)[1] in _LARGEST)
        except FileNotFoundError:
            continue
        except OSError as error:
            lines.append(f"{folder}: {error.strerror}")
            continue
        if len(names) > _FILES:
            lines.append(f"{folder}: only {_FILES} of its {len(names)} files are looked at")
        yield from (Path(folder, name) for name in names[:_FILES])


def _read(path: Path) -> Found:
    """Return the devices of one file. They are looked at each time, since nodes come and go without the spec being changed."""
    try:
        facts = os.stat(path)
        version = (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size, facts.st_mode, facts.st_uid)
        values, by_root, problem = _values(str(path), version)
    except OSError as error:
        values, by_root, problem = None, False, error.strerror or "it cannot be read"
    found = Found(lines=(problem,)) if problem else Found(*cdi.devices_of(values, mounts=by_root))
    shown = str(path).encode(errors="backslashreplace").decode()
    return Found(found.devices, tuple(f"{shown}: {line}" for line in found.lines))


@lru_cache(maxsize=_FILES)
def _values(path: str, _version: tuple[int, ...]) -> tuple[object, bool, str]:
    """Return what a file says, whether root owns it, and why it is not used, if it is not. OSError if it cannot be opened."""
    ending = os.path.splitext(path)[1]
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        facts = os.fstat(descriptor)
        if problem := _distrust(facts, _LARGEST[ending]):
            return None, False, problem
        data = os.read(descriptor, _LARGEST[ending])  # of a file, that is all of it
    finally:
        os.close(descriptor)
    try:
        return specs.parse(data, yaml=ending != ".json"), facts.st_uid == 0, ""
    except ValueError as error:
        return None, False, str(error)


def _distrust(facts: os.stat_result, largest: int) -> str:
    if not stat.S_ISREG(facts.st_mode):
        return "it is no file"
    if facts.st_size > largest:
        return f"it has {facts.st_size} bytes, and no more than {largest} are read"
    if facts.st_uid not in (0, os.geteuid()):
        return "it belongs to somebody else, so it is not used"
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others than its owner may write it, so it is not used; `chmod go-w` mends that"
    return ""


def together(told: Found, driver: Found) -> Found:
    """Put together what specs and the driver know of one device: nodes of both, the driver's name and memory."""
    devices, alone = list(told.devices), []
    for known in driver.devices:
        places = [place for place, device in enumerate(devices) if known.own <= device.own]
        for place in places:
            devices[place] = _joined(devices[place], known, whole=len(places) == 1)
        if not places:
            alone.append(known)
    return Found((*devices, *alone), (*told.lines, *driver.lines))


def _joined(device: Device, known: Device, whole: bool) -> Device:
    """Return a device of a spec with what the driver knows more; several in one, slices of it, have not all of its memory."""
    there = {node.host for node in (*device.nodes, *device.common)}
    named = {name for name, _ in device.environment}
    own = known.environment if whole else ()
    return replace(
        device,
        model=known.model,
        memory=known.memory if whole else device.memory,
        told_by=known.told_by,
        common=(*device.common, *(node for node in known.common if node.host not in there)),
        environment=(*device.environment, *(pair for pair in own if pair[0] not in named)),
    )
