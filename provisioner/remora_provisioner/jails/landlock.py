"""Jail `landlock`: the kernel's file rules (Landlock) and a filter of system calls (seccomp), no namespaces, no privileges.

Law: what may be read and written is decided here; rules.py and syscalls.py only carry it out. Started by root, the sandbox stays
root by number, since the folder could not be written otherwise, but without a single capability.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from remora.errors import PlaceError

from ..sandbox import Jail, OpenSandbox, SandboxPlan
from . import rules, syscalls
from .warded import open_warded

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/sys", "/proc")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm")


class Landlock(Jail):
    """See the module."""

    name = "landlock"
    strength = 20
    limits = (
        "Files outside of the system's folders, the environment and the notebook's folder cannot be read or written, but one "
        "can ask whether they exist, how large they are, and, where the user owns them, change their modes and times. "
        "Home keeps its path, so HOME and TMPDIR point to private folders; /tmp itself is closed. Other processes can be seen "
        "by name and, on kernels before 6.12, signalled. The network, /dev/shm and Unix sockets that the user can open are "
        "the machine's. Started by root it is still user 0, without capabilities: what root owns it can change the modes "
        "of. Without control groups the number of processes is not limited."
    )

    def obstacle(self) -> str | None:
        """Open a sandbox that does nothing; see Jail."""
        if not syscalls.is_known(os.uname().machine):
            return f"the filter of system calls is not written for {os.uname().machine}"
        if not rules.abi():
            return "this kernel has no Landlock (Linux 5.13, and lsm=landlock on the kernel's command line, would have it)"
        with tempfile.TemporaryDirectory(prefix="remora-probe-") as place:
            private = Path(place, "scratch")
            private.mkdir()
            log = Path(place, "log")
            try:
                self.open(SandboxPlan("probe", ("/bin/true",), {}, Path("/"), Path.home(), private, log=log)).close()
            except PlaceError as problem:
                return str(problem)
        return None

    def open(self, plan: SandboxPlan) -> OpenSandbox:
        """Start the sandbox; see Jail."""
        resolver = str(Path("/etc/resolv.conf").resolve())
        readable = [*_SYSTEM, resolver, *(str(m.source) for m in plan.mounts if not m.writable)]
        writable = [*_DEVICES, str(plan.scratch), *(str(m.source) for m in plan.mounts if m.writable)]
        return open_warded(plan, readable, writable)
