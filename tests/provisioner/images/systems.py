"""What tests of steps of the system share: a look into a sandbox with what was built, and a door where commands knock.

Law: no judgement here; the sandbox is a real one.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from remora_provisioner.images.built import Built
from remora_provisioner.images.store import Store
from remora_provisioner.jails.bubblewrap import Bubblewrap
from remora_provisioner.testing.visits import Visit, make_plan

mmdebstrap = pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs Debian: the package mmdebstrap")
debian = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs Debian: apt-get is what is tested")


def look(built: Built, root: Path, place: Path, command: str) -> str:
    """Run a command of the shell in a sandbox with what was built of the system; return what it says."""
    farms = tuple(Store(root).farm(digest) for digest in built.layers)
    plan = make_plan(place / "look", "", layers=farms, whole=built.root, mounts=())
    environment = dict(plan.environment) | dict(built.env)
    plan = replace(plan, argv=("/bin/sh", "-c", command), environment=environment, folder=Path("/"))
    (place / "look" / "log").unlink(missing_ok=True)
    sandbox = Bubblewrap().open(replace(plan, folder=place / "look" / "folder"))
    try:
        with socket.socket() as line:
            Visit(plan, sandbox, line).end()
    finally:
        sandbox.close()
    return (place / "look" / "log").read_text().strip()


class Door:
    """Where a command in a build knocks, so that a test knows how far it is; the line falls when the command dies."""

    def __init__(self) -> None:
        """Open it on a port of this machine."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(60)
        self.port = int(self._listening.getsockname()[1])
        self.host = f"127.0.0.1:{self.port}"
        self.knock = f"python3 -c \"import socket; socket.create_connection(('127.0.0.1', {self.port})).recv(1)\""

    def wait(self) -> socket.socket:
        """Wait until somebody knocks and return the line."""
        line, _ = self._listening.accept()
        line.settimeout(20)
        return line

    def forget(self) -> None:
        """Send away who knocked before."""
        self._listening.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._listening.accept()[0].close()
        self._listening.settimeout(60)

    def close(self) -> None:
        """Close it."""
        self._listening.close()
