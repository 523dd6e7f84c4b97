"""The parts between a notebook and its run on another machine: found as `ps` shows them, and killed.

Law: whoever kills a part kills all its processes of one place or host and no other; nothing of it is asked.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from journeys.commands import until
from journeys.driving import Place
from provisioner.hosts import Host

RETURN = 120.0
"""Seconds in which a machine that can be reached again is: those of a try that is under way, and of the pause after it."""
_CONNECTION = b"remora_provisioner.machines.ssh"


def kill(pids: Iterable[int]) -> bool:
    """Kill processes, and say whether there was one."""
    killed = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed = True
    return killed


def backends(place: Place) -> list[int]:
    """Return the processes of a place's backend."""
    return place.processes("remora_backend")


def connections(place: Place) -> list[int]:
    """Return the processes that hold the SSH connections of a place's backend."""
    backend = backends(place)
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in backend and _CONNECTION in (path / "cmdline").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


def there(host: Host, word: str) -> list[int]:
    """Return the processes of a host with this word on their command lines."""
    return [pid for pid, words in host.processes().items() if word in words]


def agents(host: Host) -> list[int]:
    """Return the processes of the agent there."""
    return there(host, "machines.gate")


def kill_backend(place: Place) -> None:
    """Kill the backend, as soon as there is one."""
    until(lambda: kill(backends(place)), "a backend")


def kill_agent(host: Host) -> None:
    """Kill the agent there, as soon as there is one."""
    until(lambda: kill(agents(host)), "an agent", RETURN)
