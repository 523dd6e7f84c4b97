"""The machines: the backend's own and those elsewhere. What is asked of a sandbox is asked of the machine that it is on.

Law: nothing is decided here; a machine elsewhere is reached when something is wanted there, and again while something is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remora.errors import InputError, Refused, RemoraError
from remora.resources import SandboxSpec
from remora.states import EndReason
from remora.streams import Peer
from remora.wire import Fields, FollowRun, RunId, SandboxId, StartRun
from remora_provisioner.agent import Agent
from remora_provisioner.devices.grants import HeldUp
from remora_provisioner.images.records import write_whole
from remora_provisioner.machines import ports
from remora_provisioner.machines.elsewhere import Elsewhere
from remora_provisioner.machines.folders import Folders
from remora_provisioner.machines.lines import Line
from remora_provisioner.machines.reached import BySsh
from remora_provisioner.machines.terms import Terms
from remora_provisioner.opening import Opening

from .doubting import Doubting, plain
from .inventory import Has, Inventory

if TYPE_CHECKING:
    from .fleet import Fleet

HERE = "here"
_LINKS = "links"
_ID = 16


def new_sandbox() -> SandboxId:
    """Return a fresh sandbox id: short, since people type it."""
    return SandboxId(os.urandom(4).hex())


class Machines:
    """All machines of one backend."""

    def __init__(self, directory: Path, socket: Path, fleet: Fleet) -> None:
        """Keep what is needed in the backend's directory; code in sandboxes may reach the backend's socket."""
        self._directory, self._fleet = directory, fleet
        self._by_ssh = BySsh(directory / "bundles")
        self.here = Agent(directory, (str(socket), str(directory / _LINKS)), fleet)
        self._elsewhere: dict[str, Elsewhere] = {}
        self._folders = Folders(directory / "images" / "folders.cache")
        self.learned: Callable[[str, Fields], None] = lambda machine, facts: None
        """Told what a machine has, whenever that is heard."""
        self._inventory = Inventory(directory / "inventory.json")

    async def ask(self, about: str, op: str, args: Fields, opening: Opening) -> Fields:
        """Answer a question of `remora.wire.Ask`. Raises Refused for one that is not known here."""
        if about == "images":
            return await self.here.images.ask(op, args, opening.say)
        if about == "files" and op == "exchange":
            sandbox, machine = SandboxId(args["sandbox"]), self._of(str(args["sandbox"]))
            if "after" in args:  # an older kernel would take the answer for the end of its run
                raise Refused("this version tells of the end of a run at the folder's door; restart the kernel")
            if not isinstance(machine, Elsewhere):
                return {}
            return plain(await machine.exchange(sandbox, opening, whole=bool(args.get("whole"))))
        if about == "ports":
            return await self._ask_ports(op, SandboxId(str(args["sandbox"])), args)
        if about == "machines":
            return await self._ask_machines(op, args, opening)
        raise Refused(f"this version is not asked about {about!r}; use the same version of Remora")

    async def _ask_ports(self, op: str, sandbox: SandboxId, args: Fields) -> Fields:
        """List the ports of a sandbox that are open here, open or close one. Raises OptionError and InputError."""
        machine = self._of(sandbox)
        if not machine.has(sandbox):
            raise Refused(f"no living sandbox is called {sandbox}; `remora ps` lists them", reason="no-such-sandbox")
        port = None if args.get("port") is None else ports.check_port(args["port"])
        if op == "list":
            return {"ports": machine.ports.listed(sandbox) if isinstance(machine, Elsewhere) else []}
        if op == "close":
            if isinstance(machine, Elsewhere):
                machine.ports.close(sandbox, port)
            return {}
        if op != "open" or port is None:
            raise Refused(f"ports are not asked {op!r} in this version; use the same version of Remora")
        wanted = args.get("here"), args.get("path")
        if isinstance(machine, Elsewhere):
            found = await machine.open_port(sandbox, port, *wanted)
        else:
            found = ports.of_this_machine(port, *wanted)
        return found | {"sandbox": sandbox, "on": self._place_of(sandbox)}

    async def _ask_machines(self, op: str, args: Fields, opening: Opening) -> Fields:
        """List machines, add, check or remove one. Raises OptionError for names that are none."""
        if op == "list":
            rows = [row | plain(self._described(row["name"])) for row in self._by_ssh.listed()]
            return {"machines": rows}
        if op == "add":
            self._let_go(str(args.get("name") or ""))
            key, rented = args.get("identity"), bool(args.get("rented"))
            added = self._by_ssh.add(args.get("name"), str(args["destination"]), key, rented)
            self._inventory.forget(added)
            return {"name": added}
        name = str(args["name"])
        if op == "check":
            found = plain(await self._by_ssh.check(name, opening))
            self._learn(name, found)
            return found
        if op != "remove":
            raise Refused(f"machines are not asked {op!r} in this version; use the same version of Remora")
        if name in self._elsewhere:
            await self._elsewhere[name].leave()
        self._let_go(name)
        freed = await self._by_ssh.clean(name, opening) if args.get("clean") else {}
        if not (freed and self._by_ssh.is_configured(name)):
            self._by_ssh.remove(name)
        self._inventory.forget(name)
        return freed

    def _let_go(self, name: str) -> None:
        """Forget how a machine is reached. Raises Refused while sandboxes of ours live there."""
        machine = self._elsewhere.get(name)
        if machine is not None and machine.busy:
            raise Refused(f"sandboxes live on {name}; end them first (`remora ps`, `remora stop`)")
        if machine is not None:
            self._elsewhere.pop(name).close()

    def _described(self, name: str) -> Fields:
        return self._elsewhere[name].described() if name in self._elsewhere else {"reached": False, "sandboxes": 0}

    def _learn(self, name: str, facts: Fields) -> None:
        self._inventory.learn(name, facts)
        self.learned(name, facts)

    def there(self) -> list[Has]:
        """Return what this machine has, then what those that were added have, the cheapest first, as far as is known."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        here = {"cores": os.cpu_count(), "memory": memory, "devices": self.here.devices.known()}
        try:
            added = self._by_ssh.added()
        except InputError:  # a list that is damaged is in the way of those machines alone
            added = []
        return [Has.of(HERE, here), *map(self._inventory.of, added)]

    def knows(self, name: str) -> bool:
        """Say whether there is a machine of this name."""
        return name == HERE or self._by_ssh.knows(name)

    # -- one sandbox

    async def open(self, sandbox: SandboxId, spec: SandboxSpec, facts: Fields, opening: Opening) -> list[str]:
        """Start a sandbox on the machine that its spec names; return the lines that its user should read."""
        return plain(await self._named(spec.on).open(sandbox, spec, facts, opening))

    async def extend(self, sandbox: SandboxId, spec: SandboxSpec, opening: Opening) -> list[str]:
        """Fit a living sandbox out with the image of this spec; return the lines that its user should read."""
        return plain(await self._of(sandbox).extend(sandbox, spec, opening))

    async def stop(self, sandbox: SandboxId, reason: EndReason) -> None:
        """End a sandbox, and return when nothing of it is left."""
        await self._of(sandbox).stop(sandbox, reason)

    async def stop_all(self, sandboxes: Sequence[SandboxId]) -> dict[SandboxId, str]:
        """End sandboxes, each by itself, and return why some could not be ended."""
        ended = await asyncio.gather(*(self.stop(one, EndReason.STOPPED) for one in sandboxes), return_exceptions=True)
        left = {sandbox: error for sandbox, error in zip(sandboxes, ended, strict=True) if error is not None}
        for error in left.values():
            if not isinstance(error, RemoraError):
                raise error
        return {sandbox: str(error) for sandbox, error in left.items()}

    def has(self, sandbox: str) -> bool:
        """Say whether the sandbox lives, as far as is known."""
        return self._of(sandbox).has(sandbox)

    def peer(self, sandbox: SandboxId) -> Peer:
        """Return the connection to a living sandbox's supervisor; StateError if there is none."""
        return self._of(sandbox).peer(sandbox)

    async def heard(self, sandbox: SandboxId) -> Peer:
        """Return that connection, when a machine elsewhere is heard again; StateError if the sandbox has ended."""
        machine = self._of(sandbox)
        return await machine.heard(sandbox) if isinstance(machine, Elsewhere) else machine.peer(sandbox)

    async def prepare(self, sandbox: SandboxId, run: RunId) -> None:
        """Have the files there that a call needs."""
        machine = self._of(sandbox)
        if isinstance(machine, Elsewhere):
            await machine.calls.exchange(sandbox, run)

    async def hand_over(self, sandbox: SandboxId, start: StartRun) -> None:
        """Start a call. Raises StateError ("sandbox-ended") if it was not taken."""
        machine = self._of(sandbox)
        if isinstance(machine, Elsewhere):
            await machine.calls.hand_over(sandbox, start)
        else:
            await machine.peer(sandbox).request(start)

    def held_up(self, spec: SandboxSpec) -> HeldUp | None:
        """Return who holds the devices that a spec wants of this machine; of others their agents know."""
        return self.here.devices.held_up(spec.resources.gpu) if spec.on == HERE else None

    def endpoint(self, sandbox: SandboxId) -> Fields:
        """Return how a client on this machine reaches the sandbox's supervisor."""
        return self._of(sandbox).endpoint(sandbox)

    async def require_within(self, sandbox: SandboxId, spec: SandboxSpec, granted: Collection[str], opening: Opening) -> None:
        """Raise Refused if a sandbox by this spec would see more than the one in which it is asked for.

        It may be on a machine elsewhere that is `granted`. That has nothing to see but what goes there.
        """
        if (place := self._place_of(sandbox)) != HERE:
            raise Refused(f"code in a sandbox on {place} opens no others; run what needs them on this machine")
        if spec.on != HERE and spec.on not in granted:
            raise Refused(
                f"code in this sandbox opens others on its own machine only, not on {spec.on}; `remora run` lets a notebook use "
                "those that its `%%remote on=…` lines name as they are, or by a parameter"
            )
        await self.here.require_within(sandbox, spec, opening)

    def name_of(self, sandbox: str | None) -> str:
        """Return the name of the machine that a sandbox is on, or was."""
        known = self._fleet.sandboxes.get(SandboxId(sandbox or ""), {})
        return str(known.get("on") or self._place_of(sandbox or ""))

    async def follow(self, peer: Peer, request: FollowRun, run: Fields) -> bool:
        """Send the log of a run, known by its facts, that was elsewhere; say False for one that was here. Raises Unavailable."""
        machine = self._named(str(run.get("on") or HERE))
        if not isinstance(machine, Elsewhere):
            return False
        await machine.follow(peer, request)
        return True

    # -- all of them

    async def catch_up(self) -> None:
        """Hear at once what supervisors would tell in a moment."""
        await asyncio.gather(self.here.catch_up(), *(machine.catch_up() for machine in self._elsewhere.values()))

    async def take_up(self, living: Mapping[SandboxId, Fields], runs: Mapping[RunId, Fields]) -> None:
        """Take up the sandboxes that lived when the backend went away, and their runs; what of it is gone has ended."""
        places: dict[str, dict[SandboxId, SandboxSpec]] = {}
        for sandbox, facts in living.items():
            places.setdefault(str(facts.get("on", HERE)), {})[sandbox] = SandboxSpec.from_dict(facts["spec"])
        for run, facts in runs.items():
            where = living.get(facts.get("sandbox") or SandboxId(""))
            if where is not None:
                self._named(str(where.get("on", HERE))).expect(facts["sandbox"], run)
        mine = places.pop(HERE, {})
        await self.here.take_up()
        for name, sandboxes in places.items():
            self._far(name).take_up_soon(sandboxes)
        for sandbox in mine:
            if not self.here.has(sandbox):
                self.here.give_up(sandbox)

    async def leave(self) -> None:
        """Let the agents elsewhere end, if nothing is left for them to do."""
        await asyncio.gather(*(machine.leave() for machine in self._elsewhere.values()))

    def close(self) -> None:
        """Let go of machines elsewhere; what is there goes on."""
        for machine in self._elsewhere.values():
            machine.close()

    def _of(self, sandbox: str) -> Agent | Elsewhere:
        return self._named(self._place_of(sandbox))

    def _place_of(self, sandbox: str) -> str:
        return next((name for name, machine in self._elsewhere.items() if machine.owns(sandbox)), HERE)

    def _named(self, name: str) -> Agent | Elsewhere:
        return self.here if name == HERE else self._far(name)

    def _far(self, name: str) -> Elsewhere:
        if name not in self._elsewhere:
            line = Line(name, self._by_ssh(name, self._known_as(name)))
            machine = Elsewhere(name, line, self.here, self._folders, self._directory / _LINKS, Doubting(self._fleet))
            machine.control.terms = lambda: Terms.of_settings(self._by_ssh.rented(name)).to_dict()
            machine.control.learned = lambda facts: self._learn(name, facts)
            self._elsewhere[name] = machine
        return self._elsewhere[name]

    def _known_as(self, name: str) -> str:
        """Return what the machine of this name knows this backend by: another one for each name that a machine may have."""
        return hashlib.sha256(f"{self._id()} {name}".encode()).hexdigest()[:_ID]

    def _id(self) -> str:
        """Return what is this backend's alone."""
        path = self._directory / "id"
        if not path.exists() or len(path.read_text()) != _ID:
            write_whole(path, os.urandom(_ID // 2).hex().encode())
        return path.read_text()
