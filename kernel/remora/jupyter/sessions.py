"""The notebook's sessions: for each its sandbox, the ledger of what it holds, and the options it was used with last.

Law: a session's sandbox is identified by session, machine, image and devices alone; every other option may change from cell
to cell.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from .. import giving, specs
from ..client import Client, Waiter
from ..connection import Connection
from ..errors import RemoraError, RunEnded, Unavailable
from ..images import Image
from ..resources import SandboxSpec
from ..sync.handles import lives_in
from ..sync.ledger import Ledger
from ..sync.names import hidden
from ..wire import Fields, FindSandbox, LeaveKernel, OpenSession, SandboxId, StopSandboxes
from .kept import Kept
from .options import CellOptions

Wait = Callable[[Callable[[Waiter], Coroutine[Any, Any, Fields]]], Fields]
"""Waits for work on the client's loop that is made with somebody who hears of its stages, and who can be asked."""
_AT_OPENING = ("cpu", "memory", "env", "files", "jail", "idle")
"""Options that a sandbox takes on when it is opened, and that do not identify it."""


class Session:
    """One named session of a notebook."""

    def __init__(self, name: str) -> None:
        """Start without a sandbox."""
        self.name = name
        self.connection: Connection | None = None
        self.identity: tuple[str, ...] = ()
        """The sandbox's own: its machine, its system, its devices."""
        self.image: Image | None = None
        """What the sandbox has, and the next one will have; None before the first."""
        self.ledger = Ledger(name)
        self.options = CellOptions()
        self.made_with: CellOptions | None = None
        """What the sandbox was opened with; None for one that was adopted."""
        self.secrets: dict[str, str] = {}
        """Variables that the sandbox was given, by value: what is new or has changed is given again."""
        self.comms: set[str] = set()

    @property
    def alive(self) -> bool:
        """True while the session's sandbox is connected."""
        return self.connection is not None and self.connection.alive

    @property
    def sandbox(self) -> str:
        """Return the sandbox's id, or nothing."""
        return str(self.connection.facts["id"]) if self.connection is not None else ""

    def serves(self, spec: SandboxSpec) -> bool:
        """Say whether the session's living sandbox will do for a spec."""
        machine, *rest = spec.identity
        return self.alive and self.identity[1:] == tuple(rest) and machine in ("", self.identity[0])

    def say_what_waits(self, options: CellOptions, tell: Callable[[str], None]) -> None:
        """Name the options that a living sandbox cannot take on any more, each change once."""
        made = self.made_with
        if made is None:
            return
        changed = [name for name in _AT_OPENING if name in options.given and options.value(name) != made.value(name)]
        if changed:
            names = ", ".join(f"{name}=" for name in changed)
            tell(f"{names} will count when session {self.name} gets its next sandbox; --fresh gives it one now")
            self.made_with = options

    def remember(self, requirements: list[str]) -> None:
        """Take note of packages that code has installed: the session's next sandbox has them, too."""
        if requirements and self.image is not None:
            self.image = specs.grown(self.image, self.image.pip_install(requirements))

    def lost_names(self, namespace: dict[str, Any]) -> list[str]:
        """Return the names of what is lost with the sandbox: held there, with nothing or a mere stand-in here."""
        stand_ins = {name for name, value in namespace.items() if lives_in(value) == self.name}
        return sorted(name for name in stand_ins | (self.ledger.held.keys() - namespace.keys()) if not hidden(name))


class Sessions:
    """All sessions of one kernel."""

    def __init__(self, kernel: str, client: Callable[[], Client], kept: Kept) -> None:
        """Have the sessions of the kernel of this name; `kept` has their packages beyond a restart."""
        self.kernel = kernel
        self._kept = kept
        self._earlier: dict[str, Image] | None = None
        self._saved: dict[str, Image] = {}
        self.named: dict[str, Session] = {}
        self._client = client
        self._mirror: Image | None = None
        self._used = False

    def get(self, name: str) -> Session:
        """Return the session of this name, new if need be."""
        return self.named.setdefault(name, Session(name))

    def image(self, session: Session, options: CellOptions) -> Image:
        """Return what a sandbox for these options has: what the session has by now, and what is asked for more."""
        if self._mirror is None:
            self._mirror = Image.mirror()
        if self._earlier is None:
            self._earlier = self._saved = self._kept.load()
        wanted = specs.recipe(options, self._mirror)
        before = session.image or self._earlier.get(session.name)
        return wanted if before is None or options.fresh else specs.grown(before, wanted)

    def keep(self) -> None:
        """Keep what the sessions have for a kernel that is started again, if that has changed."""
        had = {one.name for one in self.named.values() if one.image is not None}
        earlier = {name: image for name, image in (self._earlier or {}).items() if name not in had}
        images = earlier | {one.name: one.image for one in self.named.values() if one.image is not None and one.image.steps}
        if images != self._saved:
            self._saved = images
            self._kept.save(images)

    def ensure(self, session: Session, options: CellOptions, tell: Callable[[str], None], wait: Wait) -> Connection:
        """Return the connection to the session's sandbox, opened or given more if need be; lines for the user go to `tell`."""
        image = self.image(session, options)
        spec = specs.spec(options, image.to_spec())
        secrets = giving.variables(spec.secrets)
        living = session.serves(spec) and not options.fresh
        known = session.image == image and secrets.items() <= session.secrets.items()
        if living and session.connection is not None and known:
            session.say_what_waits(options, tell)
            return session.connection
        connection = self.open(session, spec, tell, wait, fresh=options.fresh)
        session.image = image
        session.ledger.packages = None if image == self._mirror else self._packages(session)
        session.made_with = session.made_with if living else options
        session.secrets |= secrets
        return connection

    def open(
        self, session: Session, spec: SandboxSpec, tell: Callable[[str], None], wait: Wait, fresh: bool = False
    ) -> Connection:
        """Open the session's sandbox, or another one when the spec's identity has changed."""
        client = self._client()
        if fresh and session.alive:
            self.stop(session)
        gone = session.sandbox if session.connection is not None and session.connection.ended else None
        request = OpenSession(self.kernel, session.name, spec.to_dict(), instead_of=SandboxId(gone) if gone else None)
        request = replace(request, secrets=giving.for_spec(spec))
        facts = wait(lambda waiter: client.staged(request, waiter))
        if session.alive and session.sandbox != facts["id"]:
            self._say_what_stays(session, tell)
        try:
            return self.take(session, facts, spec.identity, tell)
        except RunEnded:
            if facts["new"]:
                raise
        # it was ending when we asked, and the backend had not heard of it yet
        request = replace(request, instead_of=facts["id"])
        facts = wait(lambda waiter: client.staged(request, waiter))
        return self.take(session, facts, spec.identity, tell)

    def take(self, session: Session, facts: Fields, identity: tuple[str, ...], tell: Callable[[str], None]) -> Connection:
        """Make a sandbox that is open the session's own."""
        client = self._client()
        for line in facts.get("notices", []):
            tell(line)
        if session.alive and session.connection is not None and session.sandbox == facts["id"]:
            return session.connection
        connection = Connection(client, facts)
        self._used = True
        client.run(connection.connect())
        if session.connection is not None:
            if not session.alive and session.ledger.held:
                tell(self._say_what_is_lost(session))
            session.connection.close()
        if session.connection is None or session.sandbox != facts["id"]:
            session.ledger.forget()
            session.secrets = {}
        session.connection, session.identity = connection, (str(facts.get("on", "here")), *identity[1:])
        return connection

    def adopt(self, session: Session, sandbox: str, spec: SandboxSpec) -> Connection:
        """Make a living sandbox, opened by whatever kernel, this session's own."""
        client = self._client()
        request = OpenSession(self.kernel, session.name, spec.to_dict(), SandboxId(sandbox))
        facts = client.run(client.staged(request, Waiter()))
        session.image = Image.from_dict(spec.image)
        return self.take(session, facts, spec.identity, lambda _: None)

    def _packages(self, session: Session) -> dict[str, str]:
        """Return what is known of the sandbox's packages; nothing while it is starting."""
        client = self._client()
        facts = client.run(client.request(FindSandbox(SandboxId(session.sandbox)))).result
        return dict((facts.get("guest") or {}).get("versions") or {})

    def _say_what_stays(self, session: Session, tell: Callable[[str], None]) -> None:
        held = ", ".join(sorted(session.ledger.held)[:8]) or "no variables"
        tell(f"session {session.name} gets another sandbox; what sandbox {session.sandbox} holds stays behind: {held}")

    def _say_what_is_lost(self, session: Session) -> str:
        client = self._client()
        text = "it has ended"
        if session.connection is not None:
            try:
                client.run(session.connection.connect(patience=0))
            except RunEnded as ended:
                text = str(ended).split(";", 1)[0].split(":", 1)[0]
            except RemoraError:
                text = "nothing is known of the old one"  # a backend whose disk was full, say
        return f"session {session.name} gets a new sandbox ({text}); what only the old one held is lost"

    def stop(self, session: Session) -> None:
        """End the session's sandbox."""
        client = self._client()
        if session.connection is not None:
            for why in client.run(client.request(StopSandboxes([session.sandbox]))).result["left"].values():
                raise Unavailable(why, reason="unreachable")
            session.connection.close()
            session.connection = None
            session.ledger.forget()

    def leave(self) -> None:
        """Let this kernel's sandboxes end: it ends for good."""
        self._kept.forget()
        if self._used:
            client = self._client()
            client.run(client.tell(LeaveKernel(self.kernel)))
