"""The user's machines: those that were added, and the hosts of the user's SSH configuration, under the names that `on=` takes.

Law: whoever reads the list finds it as it was before a change or after it, and two changes at once are one after the other. What
a user or a notebook calls a machine never reaches a shell: names and destinations are checked, letter by letter, before all else.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remora.errors import InputError, OptionError, StateError
from remora.settings import state_directory

from ...images.records import write_whole
from . import configuration
from .reaching import Target

HERE = "here"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}", re.ASCII)
_DESTINATION = re.compile(
    r"(?:(?P<user>[^@]+)@)?(?:\[(?P<six>[^\]]+)\]|(?P<host>[^@:\[\]/]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)


@dataclass(frozen=True)
class Machine:
    """A machine that the user has added; a rented one costs while it is there."""

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    rented: bool = False

    @property
    def target(self) -> Target:
        """Return how it is reached."""
        return Target(self.name, self.host, self.user, self.port, self.identity)


def destination(text: str) -> Target:
    """Return what `user@host`, `user@host:port` or `ssh://user@host:port` says, with the host for a name.

    A host with colons stands in brackets. OptionError for anything else.
    """
    shown = text.removeprefix("ssh://")
    found = _DESTINATION.fullmatch(shown.removesuffix("/") if shown != text else text)
    if found is None or not _fits(found["user"], _USER) or not _fits(found["host"], _HOST) or not _is_six(found["six"]):
        raise OptionError(f"{text[:80]!r} is no machine; write it like ada@gpu.example.org, ada@10.0.0.7:2222 or ada@[fd00::7]")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 1 << 16:
        raise OptionError(f"{text[:80]!r} names the port {port}; ports go from 1 to 65535")
    host = found["six"] or found["host"]
    return Target(host, host, found["user"], port)


def add(name: str, where: str, *, identity: Path | None = None, rented: bool = False) -> Machine:
    """Add a machine, or replace the one of this name; `where` is what `destination` takes, or a host of the SSH configuration.

    Raises OptionError for a name or destination that is none, InputError for a key that is not there, and StateError.
    """
    check_name(name)
    if identity is not None and not identity.expanduser().is_file():
        raise InputError(f"there is no key {identity}; make one with: ssh-keygen -f {identity}")
    aim = destination(where)
    key = None if identity is None else str(identity.expanduser().absolute())
    machine = Machine(name, aim.host or name, aim.user, aim.port, key, rented)
    with _changing() as machines:
        machines[name] = machine
    return machine


def remove(name: str) -> None:
    """Forget a machine that was added; OptionError if there is none of this name."""
    with _changing() as machines:
        if machines.pop(name, None) is None:
            there = f"there are {', '.join(sorted(machines))}" if machines else "none was added"
            raise OptionError(f"no machine {name[:63]!r} was added; {there}")


def listed() -> list[Machine]:
    """Return the machines that were added, in the order in which they were."""
    return [*_read().values()]


def find(name: str) -> Target | None:
    """Return the machine that was added under this name, or the host that the SSH configuration has; None if there is none."""
    if not _NAME.fullmatch(name):
        return None
    if machine := _read().get(name):
        return machine.target
    return Target(name) if name in configuration.hosts() else None


def get(name: str) -> Target:
    """Return what `find` finds; OptionError, with names that look like this one, if that is nothing."""
    if target := find(name):
        return target
    alike = near(name)
    meant = f"did you mean {' or '.join(alike)}?" if alike else "add it with: remora machine add NAME user@host"
    raise OptionError(f"there is no machine {name[:63]!r}, and no Host of this name in ~/.ssh/config; {meant}")


def names() -> list[str]:
    """Return all names that `find` knows: first those that were added, then those of the SSH configuration."""
    return list(dict.fromkeys([*_read(), *filter(_NAME.fullmatch, configuration.hosts())]))


def near(name: str) -> list[str]:
    """Return the known names that look like this one, the likeliest first."""
    return difflib.get_close_matches(name[:63], names(), 3)


def check_name(name: str) -> str:
    """Return the name of a machine; OptionError if it is none."""
    if not _NAME.fullmatch(name) or name == HERE:
        raise OptionError(f"{name[:63]!r} is no name for a machine; use letters, digits, dots, _ and -, such as gpubox")
    return name


def _fits(text: str | None, pattern: re.Pattern[str]) -> bool:
    return text is None or pattern.fullmatch(text) is not None


def _is_six(text: str | None) -> bool:
    with contextlib.suppress(ValueError):
        return text is None or "%" not in str(ipaddress.IPv6Address(text))
    return False


# ---- on the disk --------------------------------------------------------------------------------------------------------


def _file() -> Path:
    return state_directory() / "machines.json"


def _read() -> dict[str, Machine]:
    file = _file()
    try:
        found = json.loads(file.read_bytes())["machines"]
        machines = [_machine(name, known) for name, known in found.items()]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, OptionError):
        raise InputError(f"{file} is damaged; mend it, or remove it and add the machines again") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    return {machine.name: machine for machine in machines}


def _machine(name: str, known: dict[str, Any]) -> Machine:
    """Return a machine from the file, which somebody may have edited."""
    host, user, port = known["host"], known.get("user"), known.get("port")
    whole = f"{user}@" * bool(user) + (f"[{host}]" if ":" in host else host) + f":{port}" * bool(port)
    aim = destination(whole)
    return Machine(check_name(name), str(aim.host), aim.user, aim.port, known.get("identity"), bool(known.get("rented")))


@contextlib.contextmanager
def _changing() -> Iterator[dict[str, Machine]]:
    """Be the only one that changes the machines; what is in the dictionary afterwards is what there is."""
    file = _file()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            machines = _read()
            yield machines
            kept = {name: _plain(machine) for name, machine in machines.items()}
            write_whole(file, json.dumps({"machines": kept}, indent=1).encode())
    except OSError as error:
        raise StateError(f"{file} cannot be written ({error.strerror}); nothing was changed") from error


def _plain(machine: Machine) -> dict[str, Any]:
    return {key: value for key, value in asdict(machine).items() if key != "name" and value}
