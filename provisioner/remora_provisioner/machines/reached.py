"""Machines that are reached by SSH: a connection, what the machine lacks, and the agent there, in this order.

Law: one command is run there, the same for every machine; whatever is particular goes to it as data.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import asdict
from pathlib import Path

from remora.errors import Refused, Unavailable
from remora.wire import Fields

from ..opening import Opening
from . import settling
from .lines import Reach
from .settling.hearing import printable
from .ssh import Question, Reached, known, reach
from .ssh.reaching import shown
from .threads import apart

_BRIDGE, _DOCTOR, _CLEARING = (f"remora_provisioner.machines.{name}" for name in ("bridge", "examining", "clearing"))
_ROOM, _MOST, _PATIENCE = 1 << 16, 1 << 20, 120.0
_LAST = 2.0
"""Seconds for a command that has ended to say how."""


class BySsh:
    """Reaches the machines that the user has added, and the hosts of the user's SSH configuration."""

    def __init__(self, bundles: Path) -> None:
        """Keep what is brought to machines in the folder `bundles`."""
        self._bundles = bundles

    def listed(self) -> list[Fields]:
        """Return the machines that were added, and the hosts of the SSH configuration, whose destination is empty."""
        added = {one.name: f"{one.user}@{one.host}" if one.user else one.host for one in known.listed()}
        return [{"name": name, "destination": added.get(name, ""), "rented": self.rented(name)} for name in known.names()]

    def added(self) -> list[str]:
        """Return the names of the machines that were added, the cheapest first: own ones in their order, then rented ones."""
        return [one.name for one in sorted(known.listed(), key=lambda one: one.rented)]

    def add(self, name: str | None, destination: str, identity: str | None, rented: bool = False) -> str:
        """Add a machine, and return its name, by default the host's. Raises OptionError, InputError and StateError."""
        name = name or str(known.destination(destination).host)
        return known.add(name, destination, identity=Path(identity) if identity else None, rented=rented).name

    def rented(self, machine: str) -> bool:
        """Say whether a machine was added as one that costs while it is there. Raises InputError."""
        return any(one.rented for one in known.listed() if one.name == machine)

    def is_configured(self, machine: str) -> bool:
        """Say whether a machine is known from the SSH configuration alone. Raises InputError."""
        return known.find(machine) is not None and machine not in [one.name for one in known.listed()]

    def remove(self, name: str) -> None:
        """Forget a machine that was added. Raises OptionError if there is none."""
        known.remove(name)

    def knows(self, machine: str, /) -> bool:
        """Say whether there is such a machine."""
        return known.find(machine) is not None

    def __call__(self, machine: str, backend: str, /) -> Reach:
        """Return what reaches a machine for a backend."""

        async def reach_it(opening: Opening) -> socket.socket:
            return (await self._settle(machine, settling.Program(_BRIDGE, (backend,)), opening))[0]

        return reach_it

    async def check(self, machine: str, opening: Opening) -> Fields:
        """Reach a machine, and return what it says of itself (`settling.Facts`) and what it can do (`trial`, see doctor.py).

        Raises OptionError for a name that is none, and what reaching raises.
        """
        known.get(machine)
        began = time.monotonic()
        sock, settled = await self._settle(machine, settling.Program(_DOCTOR), opening)
        took = time.monotonic() - began
        with sock:
            opening.say(f"trying what {machine} can do")
            trial = await _told(sock, machine)
        kept = {kind: size for kind, size in dict(trial.pop("kept", {})).items() if isinstance(size, int)}
        how = {"place": settled.place, "sent": settled.sent, "seconds": round(took, 3), "trial": trial, "kept": kept}
        return {"name": machine, "tried": list(settled.tried), "rented": self.rented(machine)} | how | asdict(settled.facts)

    async def clean(self, machine: str, opening: Opening) -> Fields:
        """Remove all that is kept on a machine; return the bytes that are free for it, as `freed`.

        Raises Refused while sandboxes live there, whosever they are, and what reaching raises.
        """
        known.get(machine)
        sock, _ = await self._settle(machine, settling.Program(_CLEARING), opening)
        with sock:
            done = await _told(sock, machine)
        if living := done.get("living"):
            names = printable(", ".join(map(str, living)))
            raise Refused(f"sandboxes live on {machine} ({names}), perhaps of another computer of yours; end them first")
        return {"freed": int(done.get("freed", 0))}

    async def _settle(self, machine: str, program: settling.Program, opening: Opening) -> tuple[socket.socket, settling.Settled]:
        """Reach a machine and start a program of ours; return the stream to it, and what the machine says of itself."""
        target = known.find(machine)
        if target is None:
            raise Unavailable(
                f"there is no machine {machine!r} any more; `remora machine ls` lists them", reason="no-such-machine"
            )

        async def ask(question: Question) -> str | None:
            return await opening.ask(question.text, question.secret)

        opening.say(f"connecting to {machine}")
        bundle = asyncio.create_task(apart(lambda: settling.prepare(self._bundles)))
        try:
            sock = await reach(target, settling.COMMAND, ask)
        except BaseException:
            bundle.cancel()
            raise
        try:
            return sock, await settling.settle(sock, await bundle, opening.say, program, machine=machine)
        except Unavailable as error:
            raise await _explained(error, sock, machine) from error
        except BaseException:
            sock.close()
            raise


async def _explained(error: Unavailable, sock: Reached, machine: str) -> Unavailable:
    """Close a socket, and return why our command ended there before it had begun, if that is what happened."""
    with sock:
        if error.reason != "machine-gone":
            return error
        try:
            ended = await asyncio.wait_for(sock.ended(), _LAST)
        except TimeoutError:
            return error
    said = " ".join(filter(None, (error.facts.get("last_words"), shown(ended.said))))
    words = f" (its last words: {said})" if said else ""
    if ended.lost:
        text = f"{machine} let us in and then ended the connection{words}; see whether this works: ssh {machine} true"
        return Unavailable(text, reason="connection-lost")
    how = "was killed" if ended.status is None else f"ended with status {ended.status}"
    advice = f"the user there needs a shell that runs commands, and sshd no ForceCommand. See what this says: ssh {machine} true"
    return Unavailable(f"{machine} let us in, but our command {how}{words}; {advice}", reason="command-ended")


async def _told(sock: socket.socket, machine: str) -> Fields:
    """Return what a program prints, as JSON. Raises Unavailable for anything else."""
    data, loop = b"", asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_PATIENCE):
            while len(data) < _MOST and (more := await loop.sock_recv(sock, _ROOM)):
                data += more
        found: Fields = json.loads(data)
    except (OSError, ValueError, TimeoutError) as error:
        raise Unavailable(f"{machine} was reached, but does not say what it can do: {error}", reason="machine-answer") from error
    return found
