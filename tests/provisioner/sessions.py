"""What tests talk to a host with when no Remora is to be in between: a session of OpenSSH's, or a bare connection.

Law: whoever opens one closes it, by the end of its block. No test framework.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
from collections.abc import Iterator

from provisioner.hosts import Host

PATIENCE = 30.0
"""Seconds until something that happens at once counts as not happening."""

Session = subprocess.Popen[bytes]
"""OpenSSH's client, with a program at the other end that sends back each line."""


@contextlib.contextmanager
def session(host: Host) -> Iterator[Session]:
    """Open a session, which has shown that it works."""
    words = ["ssh", "-F", str(host.config), host.name, "cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as opened:
        try:
            assert echo(opened, b"first\n") == b"first\n"
            yield opened
        finally:
            opened.kill()


def echo(opened: Session, line: bytes, patience: float = PATIENCE) -> bytes:
    """Send a line, unless it is empty, and return the next that comes back: b"nothing" when none does."""
    assert opened.stdin
    assert opened.stdout
    if line:
        opened.stdin.write(line)
    return opened.stdout.readline() if select.select([opened.stdout], [], [], patience)[0] else b"nothing"


def connected(host: Host) -> socket.socket:
    """Connect to the server there and hear its greeting."""
    connection = socket.create_connection((host.link.far, host.port), timeout=PATIENCE)
    assert connection.recv(100).startswith(b"SSH-2.0-")
    return connection
