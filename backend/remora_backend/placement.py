"""Which machine has what is asked; this version knows one, the backend's own."""

from __future__ import annotations

import os

from remora.errors import Unavailable
from remora.resources import SandboxSpec


def require(spec: SandboxSpec) -> None:
    """Raise Unavailable if no machine has what is asked."""
    if spec.on != "here":
        raise Unavailable(f"there is no machine {spec.on!r}; this version of Remora has one, on=here")
    if spec.resources.gpu:
        wanted = ",".join(map(str, spec.resources.gpu))
        there = f"here: {os.cpu_count()} cores, no GPU"
        raise Unavailable(f"no machine has gpu={wanted}. There is: {there}. Leave gpu= out to run without", machines=[there])
