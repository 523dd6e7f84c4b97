"""The connection below SSH: to an address, or to the command of a ProxyCommand, as one connected socket.

Law: opens and nothing more; every failure is one error that names the host. What the command says goes to nobody but that error.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile

from remora.errors import Unavailable

from .reaching import shown
from .route import Hop

_SAID = 300


class Proxy:
    """A command that is run to reach a host, and what it has complained about."""

    def __init__(self, command: str) -> None:
        """Start it, as ssh does: in the user's shell, with the connection as its input and output."""
        self.command = command
        self._errors, name = tempfile.mkstemp()
        os.unlink(name)
        self.socket, theirs = socket.socketpair()
        with theirs:
            shell = os.environ.get("SHELL") or "/bin/sh"
            both = theirs.fileno()
            self._process = subprocess.Popen([shell, "-c", f"exec {command}"], stdin=both, stdout=both, stderr=self._errors)

    @property
    def said(self) -> str:
        """Return the end of what it has complained about."""
        size = os.fstat(self._errors).st_size
        return shown(os.pread(self._errors, _SAID, max(size - _SAID, 0)).decode(errors="replace"))

    def end(self) -> None:
        """End it, as ssh does."""
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGHUP)


def dial(hop: Hop) -> socket.socket:
    """Return a connection to a host. Raises Unavailable, with "no-such-host" or "unreachable" for a reason."""
    try:
        sock = socket.create_connection((hop.host, hop.port), timeout=hop.patience)
    except (socket.gaierror, UnicodeError) as error:
        raise _unknown(hop, error) from error
    except TimeoutError as error:
        raise silent(hop) from error
    except OSError as error:
        text = f"{hop.place} cannot be reached: {error.strerror or error}; see whether sshd runs there"
        raise Unavailable(text, reason="unreachable") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def silent(hop: Hop) -> Unavailable:
    """Return what there is to say of a host that did not answer in time."""
    text = f"{hop.place} did not answer within {hop.patience:g} s; see whether it is up and can be reached from here"
    return Unavailable(text, reason="unreachable")


def _unknown(hop: Hop, error: OSError | UnicodeError) -> Unavailable:
    meant = f"the host {hop.host!r}" if hop.name == hop.host else f"the host {hop.host!r} of {hop.name}"
    if getattr(error, "errno", None) == socket.EAI_AGAIN:
        return Unavailable(f"{meant} cannot be looked up at the moment; see whether there is a network", reason="unreachable")
    return Unavailable(f"{meant} is not known here; check its name", reason="no-such-host")
