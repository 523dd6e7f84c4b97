"""Opens a sandbox under a warden: what the jails without namespaces have in common.

Law: these sandboxes see the machine's own paths, so a mount that would show something elsewhere is refused, and home and /tmp
are only pointed to by HOME and TMPDIR. Everything inside carries the scratch directory in its environment: that finds what is
left should the warden itself be killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from remora.errors import PlaceError

from ..sandbox import OpenSandbox, SandboxPlan
from . import census, scratch
from .launch import Command, NotStarted, start
from .living import LivingSandbox, ended

_PACKAGES = Path(__file__).resolve().parents[2]
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from remora_provisioner.jails.warden import main; main(int(sys.argv[2]))"
_MARK = "REMORA_SCRATCH"
_WARDEN_SECONDS = 5.0
_EXEC_SECONDS, _GLANCE = 0.1, 0.005
"""How long a process may take to become another program, and how often that is looked at."""


def open_warded(plan: SandboxPlan, readable: list[str] | None = None, writable: list[str] | None = None) -> OpenSandbox:
    """Start the plan under a warden, restricted to the given paths if there are any; raise PlaceError if it cannot be."""
    if plan.layers or plan.changes:
        raise PlaceError("an image with steps of the system can be shown by the jail bubblewrap alone", reason="sandbox")
    for mount in plan.mounts:
        if not mount.source.exists():
            raise PlaceError(f"{mount.source} is not there, so the sandbox cannot be given it", reason="sandbox")
        if mount.source != mount.target:
            raise PlaceError(f"{mount.source} cannot be shown as {mount.target} without namespaces", reason="sandbox")
    scratch.prepare(plan.scratch, None)
    orders = os.memfd_create("warden-orders", 0)
    try:
        os.write(orders, json.dumps(_orders(plan, readable, writable)).encode())
        os.lseek(orders, 0, os.SEEK_SET)
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, str(_PACKAGES), str(orders)]
        process = start(plan, Command(argv, (orders,), parent_death_signal=signal.SIGTERM))
    except (NotStarted, OSError) as problem:
        scratch.clear(plan.scratch)
        raise PlaceError(f"the sandbox could not be started: {problem}", reason="sandbox") from problem
    finally:
        os.close(orders)
    return WardedSandbox(process, plan.scratch)


def _orders(plan: SandboxPlan, readable: list[str] | None, writable: list[str] | None) -> dict[str, Any]:
    shown = any(plan.folder.is_relative_to(mount.target) for mount in plan.mounts)
    private = {"HOME": str(plan.scratch / "home"), "TMPDIR": str(plan.scratch / "tmp"), _MARK: str(plan.scratch)}
    return {
        "argv": plan.argv,
        "environment": {**plan.environment, **private},
        "folder": str(plan.folder if shown else plan.scratch / "folder"),
        "pass_fds": plan.pass_fds,
        "restricted": readable is not None,
        "readable": readable or [],
        "writable": writable or [],
    }


class WardedSandbox(LivingSandbox):
    """A sandbox whose processes are the tree below its warden."""

    def __init__(self, process: subprocess.Popen[bytes], place: Path) -> None:
        """Take over the warden."""
        super().__init__(process, None, place)
        self._mark = f"{_MARK}={place}".encode()

    def _inside(self) -> list[int]:
        return census.descendants(self.pid) if self._process.returncode is None else self._strays()

    def _strays(self) -> list[int]:
        """Return what outlived a warden that was killed itself.

        The environment of a process that is just becoming another program is empty for a moment, so that one is looked at again.
        """
        waiting = [pid for pid in census.all_processes() if pid not in (os.getpid(), self.pid)]
        found, patience = list[int](), _EXEC_SECONDS
        while waiting and patience > 0:
            environments = {pid: census.environment(pid) for pid in waiting}
            found += [pid for pid, environment in environments.items() if environment and self._mark in environment]
            waiting = [pid for pid, environment in environments.items() if environment == []]
            if waiting:
                time.sleep(_GLANCE)
                patience -= _GLANCE
        return found

    def kill(self) -> None:
        """Kill what is inside, and let the warden, once awake, end what has been started meanwhile."""
        for pid in self.processes():
            _send(pid, signal.SIGKILL)
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End and remove everything; see OpenSandbox."""
        if self._closed:
            return
        self.kill()
        if not ended(self._ends[-1], _WARDEN_SECONDS):
            self._signal(signal.SIGKILL)
        self._process.wait()
        while strays := self._strays():
            for pid in strays:
                _end(pid)
        super().close()


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        end = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(end, signal.SIGKILL)
            ended(end, _WARDEN_SECONDS)
        finally:
            os.close(end)
    with contextlib.suppress(ChildProcessError):  # ours only where the opener is a subreaper
        os.waitpid(pid, os.WNOHANG)
