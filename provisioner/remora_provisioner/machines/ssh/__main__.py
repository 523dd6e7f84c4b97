"""The process of one SSH connection: reaches a machine, starts a command there and carries its bytes. Run by reaching.py.

Law: the only file that imports paramiko. A host's key is settled before anything of the user's is sent. Every way to fail is one
error that says what to do.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paramiko
from remora.errors import InputError, InternalError, RemoraError, Unavailable

from . import configuration, hostkeys, trust
from .asking import Asker
from .carrying import Carrier
from .dialling import Proxy, dial
from .line import Line
from .program import start
from .reaching import Target, shown
from .route import Hop, Lookup, route
from .signing_in import Answers, Left, Locked, SignIn, Unusable, has_key

_WINDOW = 1 << 24  # bytes on their way to us before the machine waits: 100 MB/s at 150 ms of round trip
_STARTED = 60.0  # seconds for a command to be started
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")  # processors have instructions for these
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_LET_IN, _ANSWERED = 60.0, 600.0  # seconds for a host to decide, and for a person to answer what it asks


class Way:
    """Connections to one machine: to it, and to those that are jumped over."""

    def __init__(self, asker: Asker) -> None:
        """Ask whoever `asker` leads to."""
        self._asker, self.ring = asker, _Ring()
        self._proxies: list[Proxy] = []
        self._last: tuple[Hop, Line, paramiko.Transport] | None = None

    def start(self, hops: Sequence[Hop], command: str) -> paramiko.Channel:
        """Connect, and return the command once it has been started. Raises Unavailable."""
        for hop in hops:
            self._last = self._connect(hop)
        assert self._last is not None
        hop, line, transport = self._last
        try:
            with line.within(_STARTED):
                channel = transport.open_session(window_size=_WINDOW, timeout=_STARTED)
                channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as error:
            why = "in time" if line.late else f"({_words(error)})"
            text = f"{hop.place} let us in but did not start a command {why}; see whether this works: ssh {hop.name} true"
            raise Unavailable(text, reason="no-command") from error
        line.settle()
        threading.Thread(target=_keep_alive, args=self._last, daemon=True).start()
        return channel

    @property
    def lost(self) -> bool:
        """Say whether the connection has ended."""
        return self._last is None or self._last[1].over

    def end(self) -> None:
        """End what was started here to get there."""
        for proxy in self._proxies:
            proxy.end()

    def _connect(self, hop: Hop) -> tuple[Hop, Line, paramiko.Transport]:
        line = Line(self._below(hop))
        transport = _greet(hop, line, self._proxies)
        key = transport.get_remote_server_key()
        trust.check(hop, key.get_name(), key.asbytes(), self._asker)
        SignIn(hop, _Door(hop, transport), self.ring, self._asker).run()
        return hop, line, transport

    def _below(self, hop: Hop) -> Any:
        """Return what the connection to a host is spoken over."""
        if self._last is not None:
            return self._through(hop, *self._last)
        if hop.command:
            self._proxies.append(Proxy(hop.command))
            return self._proxies[-1].socket
        return dial(hop)

    def _through(self, hop: Hop, before: Hop, line: Line, transport: paramiko.Transport) -> paramiko.Channel:
        """Return a channel from the host before to the next one."""
        try:
            with line.within(hop.patience):
                to = (hop.host, hop.port)
                channel = transport.open_channel("direct-tcpip", to, ("127.0.0.1", 0), window_size=_WINDOW, timeout=hop.patience)
        except (paramiko.SSHException, EOFError, OSError) as error:
            why = "it did not answer" if line.late else _words(error)
            text = f"{hop.place} cannot be reached from {before.name}: {why}"
            raise Unavailable(text, reason="unreachable") from error
        line.settle()
        return channel


def _lookup() -> Lookup:
    """Return what finds the user's configuration of a host."""
    text = configuration.read()

    def lookup(name: str) -> dict[str, Any]:
        try:
            return dict(paramiko.SSHConfig.from_file(io.StringIO(text)).lookup(name))
        except Exception as error:  # paramiko raises all sorts of things for what it cannot read
            raise InputError(f"the SSH configuration of {name} cannot be read: {_words(error)}") from error

    return lookup


def _greet(hop: Hop, line: Line, proxies: list[Proxy]) -> paramiko.Transport:
    """Agree on keys with a host. Raises Unavailable with "unreachable" or "not-ssh" for a reason."""
    below: Any = line  # paramiko takes whatever has the methods of a socket that it uses
    transport = paramiko.Transport(below, default_window_size=_WINDOW)
    transport.banner_timeout = transport.handshake_timeout = hop.patience
    options = transport.get_security_options()
    options.ciphers = _first(_CIPHERS, options.ciphers)
    known = [known.kind for known in hostkeys.lookup(hop.known_files, hop.known_as) if not known.revoked]
    options.key_types = _first([way for kind in known for way in (_RSA if kind == "ssh-rsa" else (kind,))], options.key_types)
    try:
        with line.within(hop.patience):
            transport.start_client()
    except Exception as error:  # a broken greeting makes paramiko stumble in many ways
        raise _no_greeting(hop, line, error, proxies) from error
    return transport


def _first(wanted: Any, there: Any) -> tuple[str, ...]:
    """Return what there is, with what is wanted before the rest."""
    return tuple(dict.fromkeys([*(name for name in wanted if name in there), *there]))


def _no_greeting(hop: Hop, line: Line, error: Exception, proxies: list[Proxy]) -> Unavailable:
    said = proxies[-1].said if proxies else ""
    if line.late:
        text = f"{hop.place} did not finish its greeting within {hop.patience:g} s; see whether sshd is well there"
    elif said:
        return Unavailable(f"{hop.place} cannot be reached by its ProxyCommand: {said}", reason="unreachable")
    elif line.greeted:
        text = f"{hop.place} and paramiko {paramiko.__version__} cannot agree on keys: {_words(error)}"
        return Unavailable(text, reason="not-ssh")
    elif line.heard:
        return Unavailable(f"{hop.place} does not speak SSH; it says {line.heard!r}. Check the port", reason="not-ssh")
    else:
        text = f"{hop.place} ended the connection before it said anything; see whether sshd is well there"
    return Unavailable(text, reason="unreachable")


def _words(error: BaseException) -> str:
    return shown(getattr(error, "text", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _keep_alive(_hop: Hop, line: Line, transport: paramiko.Transport) -> None:
    """Ask the machine for a sign now and then, and end the connection when there is none."""
    every, most = _hop.pulse
    never = threading.Event()
    while not never.wait(every):
        with line.within(most):
            transport.global_request("keepalive@openssh.com", wait=True)


class _Door:
    """A host that wants to know who comes; see `signing_in.Door`."""

    def __init__(self, hop: Hop, transport: paramiko.Transport) -> None:
        self._hop, self._transport = hop, transport

    def none(self) -> Left:
        return self._try(self._transport.auth_none)

    def key(self, key: Any) -> Left:
        return self._try(self._transport.auth_publickey, key)

    def password(self, password: str) -> Left:
        return self._try(lambda user: self._transport.auth_password(user, password, fallback=False))

    def questions(self, answers: Answers) -> Left:
        return self._try(self._transport.auth_interactive, answers, within=_ANSWERED)

    def _try(self, way: Callable[..., list[str]], *given: Any, within: float = _LET_IN) -> Left:
        self._transport.auth_timeout = within
        try:
            return frozenset(way(self._hop.user, *given))
        except paramiko.BadAuthenticationType as error:
            return frozenset(filter(None, error.allowed_types)) or frozenset({"nothing"})
        except (paramiko.SSHException, EOFError, OSError) as error:
            refused = isinstance(error, paramiko.AuthenticationException) and "timeout" not in str(error)
            if refused and self._transport.is_active():
                return None
            said = _DISCONNECTED.said or _words(error)
            text = (
                f"{self._hop.place} ended the connection while {self._hop.user} was signing in: {said}. "
                f"If it was shown too many keys, give it IdentityFile and IdentitiesOnly in the SSH configuration"
            )
            raise Unavailable(text, reason="not-authorised") from error


class _Ring:
    """The user's keys; see `signing_in.Ring`. Each is loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[Path, Any] = {}

    def agent(self, place: str) -> list[tuple[bytes, Any, str]]:
        os.environ["SSH_AUTH_SOCK"] = place  # where paramiko looks for it
        try:
            return [(key.asbytes(), key, f"the agent's {key.comment or key.get_name()}") for key in paramiko.Agent().get_keys()]
        except (paramiko.SSHException, OSError):
            return []

    def load(self, file: Path, passphrase: str | None = None) -> Any:
        if file not in self._loaded:
            self._loaded[file] = self._read(file, passphrase)
        return self._loaded[file]

    def _read(self, file: Path, passphrase: str | None) -> Any:
        secret: Any = None if passphrase is None else passphrase.encode()  # as cryptography wants it
        try:
            return paramiko.PKey.from_path(file, secret)
        except (TypeError, paramiko.PasswordRequiredException):
            raise Locked from None
        except Exception as error:  # as many kinds as there are broken files
            if passphrase is not None:
                raise Locked from error
            raise Unusable(_words(error)) from error


class _Disconnected(logging.Handler):
    """Overhears why a host ends the connection, which paramiko tells its log alone."""

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Disconnect (code"):
            self.said = shown(text.partition("): ")[2])


_DISCONNECTED = _Disconnected()


def main(numbers: list[str]) -> None:
    """Do what is asked on the control line, the second of two inherited sockets, and never return."""
    log = logging.getLogger("paramiko")
    log.setLevel(logging.INFO)
    log.addHandler(_DISCONNECTED)
    log.propagate = False
    carried, control = (socket.socket(fileno=int(number)) for number in numbers)
    asker = Asker(control)
    way = Way(asker)
    try:
        order = asker.order()
        _carry(asker, way, route(_lookup(), Target(**order["target"])), order["command"], carried)
    except RemoraError as error:
        asker.tell(failed=error.to_dict())
    except Exception as error:  # whatever it is, whoever waits must hear of it
        asker.tell(failed=InternalError(f"connecting by SSH failed: {type(error).__name__}: {_words(error)}").to_dict())
    finally:
        _leave(way)


def _carry(asker: Asker, way: Way, hops: Sequence[Hop], command: str, carried: socket.socket) -> None:
    program = start(hops, command, carried, lambda hop: has_key(hop, way.ring))
    if program is not None:
        asker.tell(started=True)
        program.run(lambda ended: _tell(asker, way, ended))
        return
    channel = way.start(hops, command)
    carrier = Carrier(carried, channel)
    asker.tell(started=True)
    carrier.run(lambda: _tell_end(asker, way, carrier, channel))


def _tell_end(asker: Asker, way: Way, carrier: Carrier, channel: paramiko.Channel) -> None:
    status = channel.recv_exit_status()
    _tell(asker, way, {"status": None if status < 0 else status, "lost": status < 0 and way.lost, "said": carrier.said})


def _tell(asker: Asker, way: Way, ended: dict[str, object]) -> None:
    asker.tell(ended=ended)
    _leave(way)


def _leave(way: Way) -> None:
    way.end()
    os._exit(0)  # paramiko's threads would wait for each other


if __name__ == "__main__":
    main(sys.argv[1:])
