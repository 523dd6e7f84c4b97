"""The way to a machine: what the user's SSH configuration says of it and of the hosts before it, each as plain values.

Law: pure. The meaning of Host, Match and first-value-wins is paramiko's, handed in as `lookup`; which options count is said here.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remora.errors import InputError, OptionError

from . import hostkeys
from .known import destination
from .reaching import Target

Lookup = Callable[[str], Mapping[str, Any]]
_PATIENCE = 20.0  # seconds for a connection and its greeting
_PULSE = 15.0  # seconds of silence after which the machine is asked whether it is there
_MISSED = 3
_KNOWN = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_MOST = 8  # hosts on the way
_DEFAULTS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ecdsa_sk", "id_ed25519_sk")


@dataclass(frozen=True)
class Hop:
    """One host on the way, and how it wants to be spoken with."""

    name: str
    """What the user calls it."""
    host: str
    port: int
    user: str
    options: Mapping[str, Any]
    identities: tuple[Path, ...]
    """Files with keys; those of the configuration, or the usual ones."""
    before: tuple[str, ...] = ()
    """The hosts to jump over, as the configuration names them."""
    command: str | None = None
    """What is run to reach it, in place of a connection."""

    @property
    def place(self) -> str:
        """Return the host as messages name it."""
        port = f" port {self.port}" if self.port != 22 else ""
        return (self.name if self.name == self.host else f"{self.name} ({self.host})") + port

    @property
    def known_as(self) -> str:
        """Return its name in known_hosts."""
        alias = self.options.get("hostkeyalias")
        return str(alias).lower() if alias else hostkeys.address(self.host, self.port)

    @property
    def known_files(self) -> list[Path]:
        """Return the files with known hosts."""
        return self._files("userknownhostsfile", _KNOWN) + self._files("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")

    @property
    def kept_in(self) -> Path:
        """Return the file to which known hosts are added."""
        return next(iter(self._files("userknownhostsfile", _KNOWN)), Path(os.devnull))

    @property
    def agent(self) -> str:
        """Return the socket of the agent that holds keys for it; empty for none."""
        named = str(self.options.get("identityagent", "SSH_AUTH_SOCK"))
        if named.lower() == "none":
            return ""
        if named == "SSH_AUTH_SOCK" or named.startswith("$"):
            return os.environ.get(named.strip("${}"), "")
        return str(self._paths(named)[0])

    @property
    def asks(self) -> str:
        """Return what is done about a host that is not known: yes (an error), ask or accept-new."""
        said = self.word("stricthostkeychecking", "ask")
        return {"no": "accept-new", "off": "accept-new"}.get(said, said)

    @property
    def patience(self) -> float:
        """Return the seconds for a connection and its greeting."""
        return self._number("connecttimeout", _PATIENCE) or _PATIENCE

    @property
    def pulse(self) -> tuple[float, float]:
        """Return after how many seconds of silence the machine is asked for a sign, and within how many it must give it."""
        every = self._number("serveraliveinterval", _PULSE) or _PULSE
        return every, every * max(self._number("serveralivecountmax", _MISSED), 1)

    def word(self, option: str, otherwise: str) -> str:
        """Return an option that is one word."""
        return str(self.options.get(option, otherwise)).lower()

    def _number(self, option: str, otherwise: float) -> float:
        text = str(self.options.get(option, otherwise))
        try:
            return max(float(text), 0.0)
        except ValueError:
            raise InputError(f"the SSH configuration of {self.name} has {option} {text!r}, which is no number") from None

    def _files(self, option: str, otherwise: str) -> list[Path]:
        words = str(self.options.get(option, otherwise)).split()
        return self._paths(*(word for word in words if word.lower() != "none"))

    def _paths(self, *words: str) -> list[Path]:
        known = {"%d": str(Path.home()), "%h": self.host, "%n": self.name, "%p": str(self.port), "%r": self.user, "%%": "%"}
        filled = [re.sub("%.", lambda token: known.get(token[0], token[0]), word.strip('"')) for word in words]
        return [Path(word).expanduser() for word in filled]


def route(lookup: Lookup, target: Target) -> list[Hop]:
    """Return the hosts on the way to a target, itself last. InputError for a configuration that leads nowhere."""
    hops = [_hop(lookup, target)]
    while hops[0].before:
        before = [_hop(lookup, _jump(word, hops[0])) for word in hops[0].before]
        # what each of these would jump over counts for the first of them alone: the others are reached from there
        hops[:1] = [before[0], *(replace(hop, before=(), command=None) for hop in before[1:]), replace(hops[0], before=())]
        if len(hops) > _MOST:
            raise InputError(f"ProxyJump leads over {' → '.join(hop.name for hop in hops[: _MOST + 1])} …; let it end somewhere")
    return hops


def _hop(lookup: Lookup, target: Target) -> Hop:
    asked = target.host or target.name
    options = lookup(asked)
    user = target.user or str(options.get("user") or pwd.getpwuid(os.getuid()).pw_name)
    host = str(options.get("hostname", asked))
    before = _words(options.get("proxyjump"))
    command = None if before else options.get("proxycommand")
    if before == [asked] or before == [host]:
        before = []  # a section for all hosts names the one that they are reached through, too
    port = target.port or _port(options.get("port", 22), target.name)
    return Hop(target.name, host, port, user, options, _identities(options, target), tuple(before), command)


def _words(value: Any) -> list[str]:
    words = [word.strip() for word in str(value or "").split(",") if word.strip()]
    return [] if words == ["none"] else words


def _jump(word: str, hop: Hop) -> Target:
    try:
        return destination(word)
    except OptionError as error:
        raise InputError(f"the SSH configuration of {hop.name} has ProxyJump {word[:80]!r}: {error}") from error


def _port(value: Any, name: str) -> int:
    if not str(value).isdecimal() or not 0 < int(value) < 1 << 16:
        raise InputError(f"the SSH configuration of {name} has Port {str(value)[:20]!r}, which is none")
    return int(value)


def _identities(options: Mapping[str, Any], target: Target) -> tuple[Path, ...]:
    named = [target.identity] if target.identity else []
    named += [file for file in options.get("identityfile", []) if file.lower() != "none"]
    if not named:
        named = [str(Path.home() / ".ssh" / name) for name in _DEFAULTS]
    return tuple(dict.fromkeys(Path(file).expanduser() for file in named))
