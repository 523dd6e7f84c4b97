"""THE SEAM: how one sandbox is opened, watched, signalled and closed.

Law: a supervisor opens its one sandbox, and a build one for each step, from the main thread (to which the kernel ties "die with
my parent"). A jail knows nothing of runs or wires: it gets a `SandboxPlan` and gives an `OpenSandbox`. Jails live in `jails/`,
one file per kind, and none imports another; what a kind does *not* keep is said in its `limits`, for `remora doctor` and the
docs. When the process that called `open` dies, even by SIGKILL, everything inside dies with it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

FIRST_HOST_ID = 0x7000_0000
"""As root, sandboxes map to host ids from here on: above what distributions, subuid files and directory services hand out."""


@dataclass(frozen=True)
class Mount:
    """A folder, file or device node of the machine that the sandbox sees under the same path or another one."""

    source: Path
    target: Path
    writable: bool = False


@dataclass(frozen=True)
class SandboxPlan:
    """Everything a jail needs to know to open one sandbox; built by the agent, checked when built."""

    id: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """The whole environment inside; nothing of the caller's is inherited."""
    folder: Path
    """Working directory inside; where no mount covers it, it is empty, private and writable."""
    home: Path
    """The path of the private, empty home directory inside."""
    scratch: Path
    """An existing empty directory of the machine, on disk: the private writable rest lives here, and `close` empties it."""
    mounts: tuple[Mount, ...] = ()
    """In mount order; parents before what lies below them."""
    pass_fds: tuple[int, ...] = ()
    """Inherited inside under the same numbers, which must be above 2."""
    log: Path = Path(os.devnull)
    """Gets stdout and stderr, appended, and what the jail itself has to complain of."""
    hostname: str = "sandbox"
    host_id: int | None = None
    """As root: the unused host user and group id that this sandbox maps to. None for an ordinary user."""
    groups: tuple[Path, ...] = ()
    """`LimitKeeper.entrances`: the first process of the sandbox enters these control groups before it executes anything."""
    cpus: frozenset[int] = frozenset()
    """The processors it may run on; empty means all."""
    pids: int | None = None
    """Most processes and threads, for a jail that can count its own without control groups; others pass it over."""
    shared_memory: int = 0
    """Bytes of /dev/shm where the jail gives a private one; 0 means half of the machine's memory."""
    layers: tuple[Path, ...] = ()
    """Folders laid out like a root, lowest first, that are seen over the machine's system, or in its place if `whole`."""
    whole: bool = False
    changes: Path | None = None
    """For a build, which is user 0 inside: a folder for what it changes of its system; see `jails/layers.py`."""

    def __post_init__(self) -> None:
        """Refuse a plan that a jail could misread."""
        absolute = all(p.is_absolute() for p in (self.folder, self.home, self.scratch))
        if not self.argv or not absolute or min(self.pass_fds, default=3) <= 2:
            raise ValueError("a sandbox plan needs a command line, absolute paths, and descriptors above 2")


class OpenSandbox(ABC):
    """One living sandbox, owned by whoever opened it; `close` is safe twice."""

    pid: int
    """Host pid of the process that stands for the sandbox, a child of the opener: when it ends, the sandbox has ended."""
    warnings: tuple[str, ...] = ()
    """One line each: what this sandbox lacks of what the plan asked for."""

    @abstractmethod
    async def wait(self) -> int:
        """Wait until the sandbox has ended; return its exit code, or minus the signal that ended it. Safe to call often."""

    @abstractmethod
    def processes(self) -> list[int]:
        """Return the host pids of all processes inside now (the jail's own helper processes left out)."""

    @abstractmethod
    def kill(self) -> None:
        """End every process inside at once, with SIGKILL. Does not wait."""

    @abstractmethod
    def close(self) -> None:
        """Kill what is left, wait until it is gone, and take away mounts and private files that the jail made."""


class Jail(ABC):
    """One kind of isolation."""

    name: ClassVar[str]
    strength: ClassVar[int]
    """Higher is stronger; `jail=` demands at least this."""
    limits: ClassVar[str]
    """What this kind does not promise, in plain words."""

    @abstractmethod
    def obstacle(self) -> str | None:
        """Return why this jail cannot be used on this machine by this user, and what would mend it; None if it works.

        Tries it for real (a few milliseconds); called once per backend and by `remora doctor`.
        """

    @abstractmethod
    def open(self, plan: SandboxPlan) -> OpenSandbox:
        """Start `plan.argv` inside and return when it is about to be executed; PlaceError (reason "sandbox") if it cannot be."""
