"""Building images, as a process of its own (`python -m remora_provisioner.images.build ROOT`): what each kind of step makes.

Law: a kind of step is one function in STEPS and a file of its own; it gets a Work and the step, and returns what it made. Steps
that change no file (`remora.images.steps.METADATA`) have none.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from remora.images.steps import (
    Apt,
    DebianBase,
    DockerfileBase,
    Local,
    MirrorBase,
    Part,
    Pip,
    PythonBase,
    RegistryBase,
    Run,
    RunFunction,
    UvSync,
)

from ..built import Base
from .work import Made, Work

__all__ = ["BASES", "STEPS", "Made", "Work"]


def _late(module: str, function: str) -> Callable[[Work, Part], Any]:
    """Return a function of a module here that is loaded when it is called: most builds need one or two of them."""

    def call(work: Work, part: Part) -> Any:
        return getattr(import_module(f".{module}", __name__), function)(work, part)

    return call


BASES: dict[str, Callable[[Work, Part], Base]] = {
    MirrorBase.kind: _late("bases", "mirror"),
    PythonBase.kind: _late("bases", "python"),
    DebianBase.kind: _late("debian", "bootstrap"),
    DockerfileBase.kind: _late("dockerfile", "make"),
    RegistryBase.kind: _late("registry", "pull"),
}
STEPS: dict[str, Callable[[Work, Part], Made]] = {
    Apt.kind: _late("apt", "install"),
    Local.kind: _late("local", "copy"),
    Pip.kind: _late("pip", "install"),
    Run.kind: _late("run_commands", "run"),
    RunFunction.kind: _late("run_commands", "call"),
    UvSync.kind: _late("uv_sync", "sync"),
}
