"""Building images, as a process of its own (`python -m remora_provisioner.images.build ROOT`): what each kind of step makes.

Law: a kind of step is one function in STEPS and a file of its own; it gets a Work and the step, and returns what it made. Steps
that change no file (`remora.images.steps.METADATA`) have none.
"""

from __future__ import annotations

from collections.abc import Callable

from remora.images.steps import Apt, Local, Part, Pip, Run, UvSync

from . import apt, local, pip, run_commands, uv_sync
from .bases import BASES
from .work import Made, Work

__all__ = ["BASES", "STEPS", "Made", "Work"]

STEPS: dict[str, Callable[[Work, Part], Made]] = {
    Apt.kind: apt.install,
    Local.kind: local.copy,
    Pip.kind: pip.install,
    Run.kind: run_commands.run,
    UvSync.kind: uv_sync.sync,
}
