"""The system's own ssh as the carrier of a command's bytes, for machines that are known and take a key that needs no question.

Law: ssh decides nothing. It is told all that a `Hop` says, reads no configuration, asks nobody, accepts no host that is not
known, and writes nothing down. Where it does not come through, for whatever reason but that nobody answers, nothing has happened:
paramiko tries, asks and tells.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence

from remora.settings import SSH

from . import hostkeys
from .dialling import silent
from .route import Hop

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,~-]+", re.ASCII)
_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"  # processors have instructions for these
_WORDS = "*client_status_confirm*,*client_input_channel_req*"
_TOLD = re.compile(rb"debug\d: clientloop\.c:client_\w+\(\):\d+ \(pid=\d+\): ([^\r\n]*)\r?\n")
_LATE = re.compile(rb"(ssh: connect to host .*|^)Connection timed out")
_PIECE, _SAID = 1 << 16, 2000
_LET_IN = 60.0  # seconds for a host to decide
_LAST = 2.0  # seconds for the last bytes to be taken, and for the command to end, once nobody is there any more
_OWN = 255  # the status with which ssh itself ends, or the command
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def start(hops: Sequence[Hop], command: str, sock: socket.socket, has_key: Callable[[Hop], bool]) -> Program | None:
    """Have ssh carry a command's bytes and return once it has been started; None, and nothing has happened, if it cannot.

    Raises Unavailable for a host that does not answer in time: nobody is to wait for that twice.
    """
    if not usable(hops, has_key):
        return None
    program = Program(hops[0], command, sock)
    if program.started():
        return program
    if program.late:
        raise silent(hops[0])
    return None


def usable(hops: Sequence[Hop], has_key: Callable[[Hop], bool]) -> bool:
    """Say whether there is an ssh that can go this way without a question; `has_key` says whether a key is at hand."""
    if SSH.text != "ssh" or len(hops) != 1 or shutil.which("ssh") is None:
        return False
    (hop,) = hops
    if hop.command or hop.word("pubkeyauthentication", "yes") == "no":
        return False
    words = [hop.host, hop.user, str(hop.options.get("hostkeyalias", hop.host)), hop.agent or "none"]
    words += map(str, (*hop.known_files, *hop.identities))
    known = hostkeys.lookup(hop.known_files, hop.known_as)
    return any(not line.revoked for line in known) and all(map(_PLAIN.fullmatch, words)) and has_key(hop)


def argv(hop: Hop, command: str) -> list[str]:
    """Return the words that start a command on a host."""
    options = [word for option in _options(hop) for word in ("-o", option)]
    return ["ssh", "-F", "none", "-T", *options, "-l", hop.user, "-p", str(hop.port), "--", hop.host, command]


def _options(hop: Hop) -> Iterator[str]:
    yield from ("BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "PreferredAuthentications=publickey")
    yield f"UserKnownHostsFile={' '.join(map(str, hop.known_files))}"
    yield "GlobalKnownHostsFile=none"
    if "hostkeyalias" in hop.options:
        yield f"HostKeyAlias={hop.known_as}"
    yield f"IdentityAgent={hop.agent or 'none'}"
    yield f"IdentitiesOnly={hop.word('identitiesonly', 'no')}"
    yield from [f"IdentityFile={file}" for file in hop.identities if file.is_file()] or ["IdentityFile=none"]
    yield f"ConnectTimeout={math.ceil(hop.patience)}"
    every, most = hop.pulse
    yield f"ServerAliveInterval={math.ceil(every)}"
    yield f"ServerAliveCountMax={math.ceil(most / math.ceil(every))}"
    yield from (f"Ciphers={_CIPHERS}", "EscapeChar=none", "LogLevel=ERROR", f"LogVerbose={_WORDS}")


class Program:
    """One ssh, between a local socket and a command on a host."""

    def __init__(self, hop: Hop, command: str, sock: socket.socket) -> None:
        """Start it with the socket for its input and output."""
        self._sock = sock
        self._said = b""
        self._told: list[bytes] = []
        parent, both = os.getpid(), sock.fileno()
        self._process = subprocess.Popen(
            argv(hop, command), stdin=both, stdout=both, stderr=subprocess.PIPE, preexec_fn=lambda: _end_with(parent)
        )

    def started(self) -> bool:
        """Wait until the command has been started; False, and nothing is left, if it cannot be."""
        limit = threading.Timer(_LET_IN, self._process.kill)
        limit.daemon = True
        limit.start()
        while not self._heard(b"exec request accepted") and self._hear():
            pass
        limit.cancel()
        if self._heard(b"exec request accepted"):
            return True
        self._process.wait()
        return False

    @property
    def late(self) -> bool:
        """Say whether ssh gave up since the host did not answer."""
        return _LATE.search(self._said) is not None

    def run(self, ended: Callable[[dict[str, object]], None]) -> None:
        """Return when the other end of the socket is closed; `ended` is called, in another thread, if the command ends first."""
        hearing = threading.Thread(target=self._follow, args=(ended,), daemon=True)
        hearing.start()
        watch = select.poll()
        watch.register(self._sock, 0)  # hanging up is always told
        watch.poll()
        hearing.join(_LAST)
        self._process.kill()

    def _follow(self, ended: Callable[[dict[str, object]], None]) -> None:
        while self._hear():
            pass
        status = self._process.wait()
        own = status == _OWN or status < 0
        lost = own and not self._heard(b"rtype exit-")
        known = not own or self._heard(b"rtype exit-status")
        said = self._said.decode(errors="replace")[-_SAID:].strip()
        ended({"status": status if known else None, "lost": lost, "said": said})

    def _heard(self, words: bytes) -> bool:
        return any(words in line for line in self._told)

    def _hear(self) -> bool:
        """Take in some of what is said on the errors; False at the end."""
        assert self._process.stderr is not None
        piece = os.read(self._process.stderr.fileno(), _PIECE)
        said = self._said + piece
        self._told += _TOLD.findall(said)
        self._said = _TOLD.sub(b"", said)[-4 * _SAID :]
        return bool(piece)


def _end_with(parent: int) -> None:
    """Be killed when the thread that has started this process ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *[ctypes.c_ulong(0)] * 3)
    if os.getppid() != parent:
        os._exit(1)
