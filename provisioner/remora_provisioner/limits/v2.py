"""Limits by control groups v2: one group below the nearest one that we may use.

Law: v2 lets processes and subgroups with limits live in the same group only at its root, so the parent is our own group or one
above it that hands its controllers down and lets us in. Where there is none it is an OSError, and another kind is tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from . import groups
from .keeper import LimitKeeper, Limits

_PERIOD = 100_000  # microseconds


def candidates() -> list[Path]:
    """Return the folders of our own group and those above it, nearest first."""
    found: list[Path] = []
    own = groups.own_group("")
    for point, root, _ in groups.mount_points("cgroup2"):
        folder = groups.place(point, root, own or "/")
        found += [folder, *(above for above in folder.parents if above.is_relative_to(point))]
    return found


class V2(LimitKeeper):
    """See the module."""

    kind = "control groups v2"

    def __init__(
        self,
        sandbox_id: str,
        limits: Limits,
        parents: list[Path] | None = None,
        make: Callable[[Path], None] = groups.make,
        remove: Callable[[Path], None] = groups.remove,
    ) -> None:
        """Make the group. Raises OSError if no parent will have it. `make` and `remove` are what the kernel does."""
        self._remove = remove
        self._group: Path | None = None
        needed = {"memory"} | ({"pids"} if limits.pids else set())
        for parent in candidates() if parents is None else parents:
            if not _hands_down(parent, needed, limits.cpu is not None):
                continue
            group = parent / f"remora-{sandbox_id}"
            make(group)
            self._group = group
            self.entrances = (group / "cgroup.procs",)
            if groups.can_enter(self.entrances):
                break
            self.close()
        if self._group is None:
            raise OSError("no v2 group hands down its controllers to us")
        self._set(self._group, limits)

    def _set(self, group: Path, limits: Limits) -> None:
        try:
            if limits.memory is not None:
                (group / "memory.max").write_text(str(limits.memory))
                groups.write_if_there(group / "memory.swap.max", "0")
            if limits.pids is not None:
                (group / "pids.max").write_text(str(limits.pids))
            if limits.cpu is not None and (group / "cpu.max").exists():
                (group / "cpu.max").write_text(f"{max(1000, int(limits.cpu * _PERIOD))} {_PERIOD}")
            elif limits.cpu is not None:
                self.warnings += ("the cpu limit is kept by affinity only: the cpu controller is not handed down here",)
        except OSError:
            self.close()
            raise

    def usage(self) -> int | None:
        """Return the memory used now, page cache included."""
        return groups.read_number(self._group / "memory.current") if self._group else None

    def peak(self) -> int | None:
        """Return the most memory used, page cache included; None on kernels before 5.19."""
        return groups.read_number(self._group / "memory.peak") if self._group else None

    def oom_happened(self) -> bool:
        """Say whether the kernel ended a process of the group for want of memory."""
        return self._group is not None and groups.read_count(self._group / "memory.events", "oom_kill") > 0

    async def watch(self, processes: Callable[[], list[int]], end: Callable[[], None]) -> None:
        """Return at once: the kernel keeps these limits."""

    def close(self) -> None:
        """Remove the group."""
        if self._group is not None:
            self._remove(self._group)
            self._group = None


def _hands_down(parent: Path, needed: set[str], wants_cpu: bool) -> bool:
    """Say whether groups below `parent` get the controllers, asking for them if it can be asked."""
    handed = parent / "cgroup.subtree_control"
    if not os.access(parent, os.W_OK) or not handed.exists():
        return False
    offered = set((parent / "cgroup.controllers").read_text().split())
    missing = ((needed | ({"cpu"} if wants_cpu else set())) & offered) - set(handed.read_text().split())
    try:
        if missing and needed <= offered:
            handed.write_text(" ".join(f"+{name}" for name in sorted(missing)))
    except OSError:  # it holds processes itself, or belongs to somebody else
        return needed <= set(handed.read_text().split())
    return needed <= set(handed.read_text().split())
