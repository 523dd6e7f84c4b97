"""What this machine can isolate and limit, tried for real and printed as JSON: `python -m remora_provisioner.doctor`.

Law: looks and tries, changes nothing. A program and no module to import, so that whoever asks need not lean on this package.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from . import jails, limits
from .devices.finding import find
from .jails.bubblewrap import Bubblewrap

_TRIAL = 64 << 20
_PROGRAMS = {"mmdebstrap": "debian_slim()", "skopeo": "from_registry()", "buildah": "from_dockerfile()"}
_KINDS = {
    "V2": "control groups v2: the kernel ends what grows too large",
    "V1": "control groups v1: the kernel ends what grows too large",
    "Watching": "watching resident memory: what grows too large is ended within a moment",
}


def examine() -> dict[str, Any]:
    """Return jails, strongest first, each with its obstacle if it has one, the kind of limits, what images can be built, GPUs."""
    kinds = sorted((jails.named(name) for name in jails.names()), key=lambda jail: -jail.strength)
    tried = [{"name": jail.name, "obstacle": jail.obstacle(), "promises_not": " ".join(jail.limits.split())} for jail in kinds]
    return {"jails": tried, "limits": _limits(), "images": _images(), "devices": _devices(), "user": os.getuid()}


def _devices() -> dict[str, Any]:
    found = find()
    return {"found": [device.facts() | {"told_by": device.told_by} for device in found.devices], "lines": list(found.lines)}


def _images() -> dict[str, Any]:
    missing = [f"{program} for {use}" for program, use in _PROGRAMS.items() if shutil.which(program) is None]
    return {"obstacle": Bubblewrap().layers_obstacle(), "missing": missing}


def _limits() -> dict[str, Any]:
    keeper = limits.keep(f"doctor-{os.getpid()}", limits.Limits(memory=_TRIAL, cpu=1.0))
    try:
        return {"kind": keeper.kind, "means": _KINDS.get(type(keeper).__name__, keeper.kind), "warnings": list(keeper.warnings)}
    finally:
        keeper.close()


if __name__ == "__main__":
    print(json.dumps(examine()))
