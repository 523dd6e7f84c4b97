"""Limits by control groups v1: one group in each of the controllers memory, pids and cpu, below the group we are in.

Law: a memory limit that cannot be kept is an OSError (another kind is tried then); the other controllers may be missing and
leave a warning. Below our own group, so that whatever limits us limits our sandboxes too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from . import groups
from .keeper import LimitKeeper, Limits

_PERIOD = 100_000  # microseconds


def controllers() -> dict[str, Path]:
    """Return for each mounted v1 controller the folder of the group that this process is in."""
    found = {}
    for point, root, options in groups.mount_points("cgroup"):
        for name in options & {"memory", "pids", "cpu"}:
            if (own := groups.own_group(name)) is not None:
                found[name] = groups.place(point, root, own)
    return found


class V1(LimitKeeper):
    """See the module."""

    kind = "control groups v1"

    def __init__(self, sandbox_id: str, limits: Limits, parents: Mapping[str, Path] | None = None) -> None:
        """Make the groups. Raises OSError if the memory limit cannot be kept, or if there is no controller to use."""
        self._groups: dict[str, Path] = {}
        parents = controllers() if parents is None else parents
        try:
            for name, settings in _wanted(limits).items():
                self._add(name, parents, sandbox_id, settings)
        except OSError:
            self.close()
            raise
        if not self._groups:
            raise OSError("no v1 controller can be used")
        self.entrances = tuple(group / "cgroup.procs" for group in self._groups.values())

    def _add(self, name: str, parents: Mapping[str, Path], sandbox_id: str, settings: list[tuple[str, int]]) -> None:
        try:
            if name not in parents:
                raise OSError(f"the controller {name} is not mounted")
            group = parents[name] / f"remora-{sandbox_id}"
            groups.make(group)
            self._groups[name] = group
            for file, value in settings:
                groups.write_if_there(group / file, str(value))
        except OSError as problem:
            if name == "memory":
                raise
            if settings:
                self.warnings += (f"the {name} limit is not kept: {problem}",)

    def usage(self) -> int | None:
        """Return the memory used now, page cache included."""
        return self._number("memory.usage_in_bytes")

    def peak(self) -> int | None:
        """Return the most memory used, page cache included."""
        return self._number("memory.max_usage_in_bytes")

    def _number(self, file: str) -> int | None:
        return groups.read_number(self._groups["memory"] / file) if "memory" in self._groups else None

    def oom_happened(self) -> bool:
        """Say whether the kernel ended a process of the group for want of memory."""
        return "memory" in self._groups and groups.read_count(self._groups["memory"] / "memory.oom_control", "oom_kill") > 0

    async def watch(self, processes: Callable[[], list[int]], end: Callable[[], None]) -> None:
        """Return at once: the kernel keeps these limits."""

    def close(self) -> None:
        """Remove the groups."""
        while self._groups:
            groups.remove(self._groups.popitem()[1])


def _wanted(limits: Limits) -> dict[str, list[tuple[str, int]]]:
    """Return the files to write per controller, in order; memory is always there, since it also tells the peak."""
    memory, cpu, pids = limits.memory, limits.cpu, limits.pids
    wanted: dict[str, list[tuple[str, int]]] = {"memory": []}
    if memory is not None:
        wanted["memory"] = [("memory.swappiness", 0), ("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory)]
    if pids is not None:
        wanted["pids"] = [("pids.max", pids)]
    if cpu is not None:
        wanted["cpu"] = [("cpu.cfs_period_us", _PERIOD), ("cpu.cfs_quota_us", max(1000, int(cpu * _PERIOD)))]
    return wanted
