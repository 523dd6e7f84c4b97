"""Building images, as a process of its own (`python -m remora_provisioner.images.build ROOT`): what each kind of step makes.

Law: a kind of step is one function in STEPS and a file of its own; it gets a Work and the step, and returns what it made. Steps
that change no file (`remora.images.steps.METADATA`) have none.
"""

from __future__ import annotations

from collections.abc import Callable

from remora.images.steps import Apt, DebianBase, DockerfileBase, Local, Part, Pip, RegistryBase, Run, RunFunction, UvSync

from ..built import Base
from . import apt, bases, debian, dockerfile, local, pip, registry, run_commands, uv_sync
from .work import Made, Work

__all__ = ["BASES", "STEPS", "Made", "Work"]

BASES: dict[str, Callable[[Work, Part], Base]] = {
    **bases.BASES,
    DebianBase.kind: debian.bootstrap,
    DockerfileBase.kind: dockerfile.make,
    RegistryBase.kind: registry.pull,
}
STEPS: dict[str, Callable[[Work, Part], Made]] = {
    Apt.kind: apt.install,
    Local.kind: local.copy,
    Pip.kind: pip.install,
    Run.kind: run_commands.run,
    RunFunction.kind: run_commands.call,
    UvSync.kind: uv_sync.sync,
}
