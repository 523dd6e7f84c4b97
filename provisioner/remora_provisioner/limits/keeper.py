"""What limits a sandbox can have, and what keeps them.

Law: one keeper per sandbox, made before it starts and closed after it has ended. Its `entrances` go into `SandboxPlan.groups`:
the sandbox's first process writes itself into them between fork and exec, so that no user code ever runs outside of them.
Memory is never limited by address space, which breaks numpy and CUDA.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

DEFAULT_PIDS = 4096
"""Processes and threads a sandbox may have when nobody says otherwise: beyond any honest use, short of hurting the machine."""


@dataclass(frozen=True)
class Limits:
    """What one sandbox may use; None is without limit."""

    memory: int | None = None
    """Bytes, swap included."""
    cpu: float | None = None
    """Cores."""
    pids: int | None = DEFAULT_PIDS
    """Processes and threads."""

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could run."""
        if any(value is not None and value <= 0 for value in (self.memory, self.cpu, self.pids)):
            raise ValueError("a limit has to be above zero")


class LimitKeeper(ABC):
    """Keeps the limits of one sandbox; `close` is safe twice."""

    kind: ClassVar[str]
    """For people: how the limits are kept."""
    entrances: tuple[Path, ...] = ()
    """Files into which a process writes its pid, or 0 for itself, to come under the limits."""
    warnings: tuple[str, ...] = ()
    """One line for each limit that this keeper cannot keep."""

    def attach(self, pid: int) -> None:
        """Bring a running process under the limits, and all that it starts from now on. Raises OSError."""
        for entrance in self.entrances:
            entrance.write_text(str(pid))

    @abstractmethod
    def usage(self) -> int | None:
        """Return the memory used now, in bytes, if it is known."""

    @abstractmethod
    def peak(self) -> int | None:
        """Return the most memory used so far, in bytes, if it is known."""

    @abstractmethod
    def oom_happened(self) -> bool:
        """Say whether a process of the sandbox has been ended because of the memory limit. Ask before `close`."""

    @abstractmethod
    async def watch(self, processes: Callable[[], list[int]], end: Callable[[], None]) -> None:
        """Look after limits that the kernel does not keep, calling `end` once when one is broken; return when there are none.

        Run by the supervisor as a task of its own for as long as the sandbox lives; `processes` lists what runs inside.
        """

    @abstractmethod
    def close(self) -> None:
        """Take away what was made for the limits; what still runs under them is ended."""
