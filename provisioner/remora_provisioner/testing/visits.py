"""How a test goes into a sandbox: a plan that runs Python code, and a line to talk to it.

Law: no test framework, no judgement; standard library and the product only.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import jails
from ..sandbox import FIRST_HOST_ID, Mount, OpenSandbox, SandboxPlan

PATIENCE = 20.0  # seconds until a test gives up; nothing waits that long when all is well

SAY = """
import json, os, socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
os.set_inheritable(line.fileno(), True)
say = lambda value: line.sendall(json.dumps(value).encode() + b"\\n")
"""

FAMILY = """
import signal, subprocess
stubborn = "trap '' TERM HUP; sleep 1000; sleep 1000"
for command in ("sleep 1000", "setsid sleep 1000 & exit", f'(setsid sh -c "{stubborn}" &) & exit'):
    subprocess.Popen(["/bin/sh", "-c", command], close_fds=False)
say("all there")
"""


def make_plan(place: Path, code: str, *arguments: str, **changes: Any) -> SandboxPlan:
    """Return a plan that runs Python code in `place`/folder, with this interpreter and whatever it needs mounted."""
    for name in ("folder", "home", "scratch"):
        (place / name).mkdir(parents=True, exist_ok=True)
    needed = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent.parent} - {Path("/usr"), Path("/")}
    mounts = tuple(Mount(path, path) for path in sorted(needed))
    plan = SandboxPlan(
        id=f"test-{os.getpid()}-{place.name}",
        argv=(sys.executable, "-I", "-S", "-c", code, *arguments),
        environment={"PATH": "/usr/bin:/bin", "HOME": str(place / "home")},
        folder=place / "folder",
        home=place / "home",
        scratch=place / "scratch",
        mounts=(*mounts, Mount(place / "folder", place / "folder", writable=True)),
        log=place / "log",
        host_id=FIRST_HOST_ID + os.getpid() if os.geteuid() == 0 else None,
    )
    return replace(plan, **changes)


@dataclass
class Visit:
    """A sandbox in a test: its plan, the sandbox, and our end of the socket whose other end is in `argv`."""

    plan: SandboxPlan
    sandbox: OpenSandbox
    line: socket.socket

    def end(self) -> int:
        """Wait for the end of the sandbox; return its code."""

        async def wait() -> int:
            async with asyncio.timeout(PATIENCE):
                return await self.sandbox.wait()

        return asyncio.run(wait())

    def hear(self) -> Any:
        """Return what the code inside says next; see `hear`."""
        return hear(self.line)


def hear(line: socket.socket) -> Any:
    """Return the next JSON line; None when nobody is left who could send one."""
    heard = b""
    while not heard.endswith(b"\n"):
        if not (part := line.recv(1)):
            return None
        heard += part
    return json.loads(heard)


_OPENER = """
import sys
sys.path[:0] = sys.argv[4].split(":")
from pathlib import Path
from remora_provisioner.testing import visits
name, place, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
visits.open_family(name, place, number)
"""


def start_opener(name: str, place: Path, number: int) -> subprocess.Popen[bytes]:
    """Start a process that opens a sandbox with daemons; its end of the line is the descriptor `number`."""
    argv = [sys.executable, "-c", _OPENER, name, str(place), str(number), ":".join(sys.path)]
    return subprocess.Popen(argv, pass_fds=(number,))


def open_family(name: str, place: Path, number: int) -> None:
    """Open a sandbox with daemons and wait to be killed; the body of the process that a test kills."""
    plan = make_plan(place, SAY + FAMILY + "signal.pause()", str(number), pass_fds=(number,))
    opened = jails.named(name).open(plan)
    os.close(number)
    asyncio.run(opened.wait())
