"""Limits without control groups: resident memory is looked at ten times a second, and the sandbox is ended when it has too much.

Law: only anonymous and shared memory counts (file pages can be given back), first as a quick sum that counts shared pages once
for each process, and only when that is too much as the exact share of each. What lies in /dev/shm unmapped is not seen; the
size of /dev/shm bounds it. Nothing is looked at when no memory limit is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from .keeper import LimitKeeper, Limits

_PERIOD = 0.1  # seconds


def resident(pids: Iterable[int]) -> int:
    """Return the resident anonymous and shared memory of the processes in bytes, pages they share counted for each."""
    return sum(_kilobytes(f"/proc/{pid}/status", ("RssAnon:", "RssShmem:")) or 0 for pid in pids) * 1024


def proportional(pids: Iterable[int]) -> int:
    """Return the same with shared pages counted once; a process that cannot be looked into counts in full."""
    total = 0
    for pid in pids:
        share = _kilobytes(f"/proc/{pid}/smaps_rollup", ("Pss_Anon:", "Pss_Shmem:"))
        total += resident([pid]) if share is None else share * 1024
    return total


def _kilobytes(file: str, names: tuple[str, ...]) -> int | None:
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            found = [int(line.split()[1]) for line in lines if line.startswith(names)]
    except (OSError, ProcessLookupError):  # it has ended, or is not ours to look into
        return None
    return sum(found) if found else None


class Watching(LimitKeeper):
    """See the module."""

    kind = "watching"

    def __init__(self, sandbox_id: str, limits: Limits) -> None:
        """Remember the limits; processes are counted together with memory, otherwise that is left to the jail."""
        self._limits = limits
        self._usage: int | None = None
        self._peak: int | None = None
        self._broken = False

    def usage(self) -> int | None:
        """Return what was last seen."""
        return self._usage

    def peak(self) -> int | None:
        """Return the most that was seen."""
        return self._peak

    def oom_happened(self) -> bool:
        """Say whether the sandbox was ended because of its memory."""
        return self._broken

    async def watch(self, processes: Callable[[], list[int]], end: Callable[[], None]) -> None:
        """Look at memory until the limit is broken or the task is cancelled; return at once without a limit."""
        while self._limits.memory is not None and not self._broken:
            pids = processes()
            used = self._measure(pids, self._limits.memory)
            self._broken = used > self._limits.memory
            if self._broken or len(pids) > (self._limits.pids or len(pids)):
                end()
                return
            await asyncio.sleep(_PERIOD)

    def _measure(self, pids: list[int], limit: int) -> int:
        used = resident(pids)
        if used > limit:
            used = proportional(pids)
        self._usage, self._peak = used, max(used, self._peak or 0)
        return used

    def close(self) -> None:
        """Nothing was made."""
