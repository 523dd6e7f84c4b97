"""Which machine has what is asked. Pure but for `open_first`.

Law: says what could ever be had, and what there is if it cannot; who holds a device just now is known to its machine's agent.
This machine comes first, then those that the user has added: own ones before rented ones, each in the order of the list.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from remora.errors import Unavailable
from remora.resources import Resources, SandboxSpec, format_bytes
from remora.states import SandboxState
from remora.wire import Fields, SandboxId
from remora_provisioner.devices.inventory import require_devices
from remora_provisioner.opening import Opening

from .inventory import NOWHERE, Has
from .machines import HERE, Machines
from .turns import Wait

Held = Mapping[str, Collection[str]]
"""The devices of each machine that sandboxes hold, by id."""


@dataclass(frozen=True)
class Choice:
    """The machines that will do, the best first, and what the user should know of it."""

    machines: tuple[str, ...]
    line: str = ""


def require(spec: SandboxSpec, machines: Machines) -> None:
    """Raise Unavailable if the machine that a spec names has not what is asked. What one elsewhere has is known to its agent."""
    if not machines.knows(spec.on):
        raise Unavailable(f"there is no machine {spec.on!r}; `remora machine add {spec.on} user@host` adds one")
    if spec.on == HERE:
        require_devices(spec, machines.here, HERE)


def held(sandboxes: Iterable[Fields]) -> dict[str, set[str]]:
    """Return the devices that living sandboxes hold, known by their facts."""
    found: dict[str, set[str]] = {}
    for facts in sandboxes:
        if facts.get("state") != SandboxState.ENDED.value:
            found.setdefault(str(facts.get("on", HERE)), set()).update(one["id"] for one in facts.get("devices") or ())
    return found


def choose(spec: SandboxSpec, there: Sequence[Has], held: Held) -> Choice:
    """Return the machines on which a sandbox may be put; Unavailable, with what each has, if none has the devices.

    A machine with cores and memory enough goes before one without; where none has them, the first one does.
    """
    wanted, free = spec.resources, {one.machine: held.get(one.machine, ()) for one in there}
    fitting = [one for one in there if one.rank(wanted) < NOWHERE and one.cores is not None]
    if not fitting:
        lines = [one.line(free[one.machine]) for one in there]
        advice = "leave gpu= out to run without, or add one that has it: remora machine add NAME user@host"
        raise Unavailable(f"no machine has {_asked(wanted)}. There is: {'. '.join(lines)}; {advice}", machines=lines)
    fitting.sort(key=lambda one: (one.rank(wanted, free[one.machine]), one.rank(wanted)))
    enough = [one.machine for one in fitting if one.is_enough(wanted)]
    if enough:
        return Choice(tuple(enough))
    lines = [one.line(free[one.machine]) for one in fitting]
    return Choice((fitting[0].machine,), f"no machine has {_asked(wanted)}; it runs with what there is. {'. '.join(lines)}")


def _asked(wanted: Resources) -> str:
    parts = [f"gpu={','.join(map(str, wanted.gpu))}" if wanted.gpu else "", f"cpu={wanted.cpu:g}" if wanted.cpu else ""]
    return " ".join(filter(None, [*parts, f"memory={format_bytes(wanted.memory)}" if wanted.memory else ""]))


def why(wait: Wait, wanted: Resources) -> str:
    """Return in words why a call waits that asks for these resources."""
    places = " or ".join(wait.machines) or "any machine"
    holders = ", ".join(sorted(wait.holders))
    words = {
        "cores": f"cpu={wanted.cpu or 1:g} on {places}, all in use",
        "devices": f"gpu={','.join(map(str, wanted.gpu))} on {places}" + (f", held by sandbox {holders}" if holders else ""),
        "start": f"its sandbox on {places} to start",
    }
    before = {0: "", 1: "; 1 call before it"}.get(wait.before, f"; {wait.before} calls before it")
    return f"waits for {words[wait.lacks]}{before}"


def choose_now(spec: SandboxSpec, machines: Machines, sandboxes: Iterable[Fields]) -> Choice:
    """Return the machines for a spec: the one that it names, if it has what is asked, or those that have."""
    if spec.on:
        require(spec, machines)
        return Choice((spec.on,))
    return choose(spec, machines.there(), held(sandboxes))


def present(spec: SandboxSpec, kernel: str, session: str, sandboxes: Mapping[SandboxId, Fields]) -> str:
    """Return the machine on which a session has a sandbox that will do for a spec; "" if there is none."""
    for facts in reversed([*sandboxes.values()]):
        ours = (facts.get("kernel"), facts.get("session")) == (kernel, session) and facts["state"] != SandboxState.ENDED.value
        if ours and tuple(facts["identity"][1:]) == spec.identity[1:]:
            return str(facts.get("on", HERE))
    return ""


async def open_first(
    spec: SandboxSpec, choice: Choice, opening: Opening, open_there: Callable[[SandboxSpec], Awaitable[Fields]]
) -> Fields:
    """Open a sandbox on the first machine that can be had now; raises what the first one raised if none can."""
    trouble: Unavailable | None = None
    for machine in choice.machines:
        try:
            facts = await open_there(replace(spec, on=machine))
        except Unavailable as error:
            trouble = trouble or error
            opening.say(f"not on {machine}: {error}")
        else:
            return facts | {"notices": [*facts.get("notices", ()), *filter(None, [choice.line])]}
    raise trouble or Unavailable("there is no machine")
