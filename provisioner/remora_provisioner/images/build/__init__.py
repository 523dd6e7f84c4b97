"""Building images, as a process of its own (`python -m remora_provisioner.images.build ROOT`): what each kind of step makes.

Law: a kind of step is one function in STEPS and a file of its own; it gets a Work and the step, and returns what it made. Steps
that change no file (`remora.images.steps.METADATA`) have none.
"""

from __future__ import annotations

from collections.abc import Callable

from remora.images.steps import Local, Part, Pip, UvSync

from . import local, pip, uv_sync
from .bases import BASES
from .work import Made, Work

__all__ = ["BASES", "STEPS", "Made", "Work"]

STEPS: dict[str, Callable[[Work, Part], Made]] = {Pip.kind: pip.install, UvSync.kind: uv_sync.sync, Local.kind: local.copy}
