"""The order for one sandbox: what the agent writes down and its supervisor carries out. Plain values, kept as `order.json`.

Law: everything that the supervisor needs is in here, so that it never has to ask anybody above it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ORDER, SOCKET, ENDED, LOG, SCRATCH, GROUPS, RUNS, SPARE = (
    "order.json",
    "socket",
    "ended.json",
    "sandbox.log",
    "scratch",
    "groups",
    "runs",
    "spare",
)
"""Names inside a sandbox's directory. RUNS lists the ids of the runs that it took, one a line."""
OWNER, DOOR = "kernel", "folder"
"""Beside the socket that leads to a sandbox elsewhere: the name of the kernel that it was opened for, and its folder's door."""


def write_whole(path: Path, text: str) -> None:
    """Write a file so that others see all of it or what was there before; raises OSError."""
    path.with_suffix(".new").write_text(text)
    os.replace(path.with_suffix(".new"), path)


@dataclass(frozen=True)
class Order:
    """One sandbox to be made; paths are absolute."""

    sandbox: str
    directory: str
    runs: str
    """The folder of all run logs."""
    jail: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    home: str
    mounts: tuple[tuple[str, str, bool], ...]
    """(source, target, writable), parents first."""
    host_id: int | None = None
    memory: int | None = None
    cpu: float | None = None
    layers: tuple[str, ...] = ()
    """Folders that are seen over the machine's system, the lowest first, or in its place if `whole`."""
    whole: bool = False
    doors: tuple[str, ...] = ()
    """Sockets that code inside may reach through the uplink: the backend's, and any sandbox's of the same user."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the sandbox is called by its owner (kernel, session, spec …); not read by the supervisor, returned to who asks."""

    def save(self) -> None:
        """Write the order into its directory, whole or not at all."""
        write_whole(Path(self.directory) / ORDER, json.dumps(asdict(self)))

    @classmethod
    def load(cls, directory: Path) -> Order:
        """Read the order in a sandbox's directory; raises OSError or ValueError if there is no whole one."""
        data = json.loads((directory / ORDER).read_text())
        try:
            data["argv"], data["doors"], data["layers"] = map(tuple, (data["argv"], data["doors"], data["layers"]))
            data["mounts"] = tuple((s, t, w) for s, t, w in data["mounts"])
            return cls(**data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{directory / ORDER} is of another version: {error}") from error
