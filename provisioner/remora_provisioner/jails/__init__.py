"""The kinds of isolation there are, and which of them a machine can have.

Law: a kind is one file and one line in `_KINDS`, or an entry point of the group `remora.jails`; loaded only when asked for.
The warden imports this package with the standard library alone and in no time, so everything else is imported where it is used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..sandbox import Jail

_KINDS = {
    "bubblewrap": "remora_provisioner.jails.bubblewrap:Bubblewrap",
    "landlock": "remora_provisioner.jails.landlock:Landlock",
    "process": "remora_provisioner.jails.process:Process",
}


def names() -> list[str]:
    """Return the names that `named` takes."""
    return sorted(_places())


@cache
def _places() -> dict[str, str]:
    from importlib.metadata import entry_points

    return _KINDS | {found.name: found.value for found in entry_points(group="remora.jails")}


def named(name: str) -> Jail:
    """Return the jail of that name; raise OptionError if there is none."""
    from remora.errors import OptionError

    places = _KINDS if name in _KINDS else _places()  # looking for entry points reads a file of every package there is
    if name not in places:
        raise OptionError(f"jail={name} is not known; there are: {', '.join(sorted(places))}")
    module, _, kind = places[name].partition(":")
    jail: Jail = getattr(import_module(module), kind)()
    return jail


def choose(demand: str | None = None) -> tuple[Jail, list[str]]:
    """Return the strongest jail that works here, and a line for each stronger one that says why it does not.

    With a `demand` (a jail's name) nothing weaker will do: raises Unavailable then, OptionError if there is no such jail.
    """
    from remora.errors import Unavailable

    least = named(demand).strength if demand is not None else 0
    told: list[str] = []
    for jail in sorted(map(named, names()), key=lambda one: -one.strength):
        if jail.strength < least:
            break
        problem = jail.obstacle()
        if problem is None:
            return jail, told
        told.append(f"jail {jail.name} does not work here: {problem}")
    raise Unavailable(f"no jail as strong as {demand or 'any'} works on this machine. " + ". ".join(told))
