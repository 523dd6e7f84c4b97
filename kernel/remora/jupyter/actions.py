"""What `%remote …` does, verb by verb. A new verb: its line in commands.py and its function here, registered by name."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import ports
from ..errors import OptionError, Refused
from ..resources import SandboxSpec, device_name, format_bytes, format_seconds
from ..states import ENDED, RunState
from ..wire import Fields, FindRun, ListAll
from . import variables
from .commands import Command
from .options import CellOptions

if TYPE_CHECKING:
    from .remote import Remote

Row = tuple[str, ...]
Action = Callable[["Remote", Command], Any]


class Line(str):
    """A sentence that a cell displays as it is, without quotes."""

    def __repr__(self) -> str:
        """Return the sentence."""
        return str(self)


class Table:
    """Rows that read well as text and in a notebook."""

    def __init__(self, head: Row, rows: list[Row], empty: str, below: Sequence[str] = ()) -> None:
        """Take a head, rows, what to say when there are none, and lines to stand below."""
        self.head, self.rows, self.empty, self.below = head, rows, empty, below

    def __repr__(self) -> str:
        """Return aligned columns, and what stands below."""
        return "\n".join([self._columns(), *self.below])

    def _columns(self) -> str:
        if not self.rows:
            return self.empty
        widths = [max(len(row[i]) for row in (self.head, *self.rows)) for i in range(len(self.head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (self.head, *self.rows)
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self._html() + "".join(f"<p>{html.escape(line)}</p>" for line in self.below)

    def _html(self) -> str:
        if not self.rows:
            return f"<p>{html.escape(self.empty)}</p>"
        head = "".join(f'<th style="text-align:left">{html.escape(cell)}</th>' for cell in self.head)
        rows = ["".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) for row in self.rows]
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"


def carry_out(remote: Remote, command: Command) -> Any:
    """Do what the command says, and return what the cell is to display."""
    result = ACTIONS[command.verb](remote, command)
    return Line(result) if isinstance(result, str) else result


def _show(remote: Remote, _: Command) -> Table:
    rows: list[Row] = []
    for session in remote.sessions.named.values():
        if session.connection is None:
            continue
        held = ", ".join(sorted(session.ledger.held)[:12]) or "nothing"
        state = "ready" if session.alive else "ended"
        facts = session.connection.facts
        devices = ", ".join(map(device_name, facts.get("devices") or ())) or "none"
        place = (str(facts.get("on", "here")), session.sandbox, state, str(facts.get("jail", "")), devices)
        rows.append((session.name, *place, held, "own machine"))
    return Table(
        ("session", "machine", "sandbox", "state", "jail", "devices", "variables there", "cost"),
        rows,
        "no session has a sandbox yet; write %%remote above a cell to start one",
        _waiting(remote),
    )


def _waiting(remote: Remote) -> list[str]:
    """Return a line for each call that waits, as far as a backend that runs knows of any."""
    client = remote.client()
    listed = client.run(client.request(ListAll())).result["runs"] if client.connected else []
    return [f"run {run['id']} ({run.get('name', '')}) {run['waits']}" for run in listed if run.get("waits")]


def _default(remote: Remote, command: Command) -> Any:
    if command.options is None:
        return f"%remote default {remote.defaults}".strip() if remote.defaults.given else "no defaults are set"
    remote.defaults = command.options.over(remote.defaults) if command.options.given else CellOptions()
    return None


def _on(remote: Remote, _: Command) -> None:
    remote.transformer.everywhere = True


def _off(remote: Remote, _: Command) -> None:
    remote.transformer.everywhere = False


def _stop(remote: Remote, command: Command) -> str:
    name = command.names[0] if command.names else remote.defaults.session
    session = remote.sessions.named.get(name)
    if session is None or session.connection is None:
        raise OptionError(f"there is no session {name}; `%remote` lists those there are")
    lost = session.lost_names(remote.shell.user_ns)
    remote.sessions.stop(session)
    return f"session {name} is stopped" + (f"; gone with it: {', '.join(lost)}" if lost else "")


def _pull(remote: Remote, command: Command) -> str:
    session = remote.sessions.get(remote.defaults.session)
    if not session.alive or session.connection is None:
        raise Refused(f"session {session.name} has no sandbox to bring anything from", reason="sandbox-ended")
    buffers, content = session.connection.fetch(list(command.names))
    stays = content.get("remote") or {}
    missing = [name for name, about in stays.items() if not about["type"]]
    if missing:
        raise OptionError(f"session {session.name} has no variable {', '.join(missing)}; `%remote` lists what is there")
    delivery = variables.unpack(buffers, content, session, remote.shell.user_ns)
    variables.bind(delivery, session, remote.shell.user_ns)
    came = ", ".join(name for name in command.names if name not in stays) or "nothing"
    return "; ".join(
        [
            f"brought {came} home ({format_bytes(delivery.nbytes)})",
            *(str(about["reason"]) for about in stays.values()),
            *delivery.notes,
        ]
    )


def _runs(remote: Remote, _: Command) -> Table:
    client = remote.client()
    own = {session.sandbox for session in remote.sessions.named.values() if session.connection is not None}
    rows: list[Row] = []
    for run in client.run(client.request(ListAll())).result["runs"]:
        if run.get("sandbox") in own:
            begun, ended = run.get("started"), run.get("ended")
            took = format_seconds(ended - begun) if begun and ended else ""
            rows.append((run["id"], run["state"], str(run.get("reason") or ""), took, str(run.get("name", ""))))
    return Table(("run", "state", "reason", "took", "what"), rows, "this notebook has no runs yet")


def _attach(remote: Remote, command: Command) -> None:
    client = remote.client()
    facts = client.run(client.request(FindRun(command.names[0]))).result
    owner = facts.get("owner") or {}
    session = remote.sessions.get(owner.get("session") or "main")
    if facts.get("endpoint") and owner.get("session") and session.sandbox != facts["sandbox"]:
        if session.alive:  # its own sandbox is not to be lost over it
            session = remote.sessions.get(f"{session.name}-{facts['sandbox']}")
        if not session.alive:
            remote.sessions.adopt(session, facts["sandbox"], SandboxSpec.from_dict(owner["spec"]))
    remote.attach(facts, session)


def _cancel(remote: Remote, command: Command) -> str:
    client = remote.client()
    facts = client.run(client.request(FindRun(command.names[0]))).result
    if RunState(facts["state"]) in ENDED:
        return f"run {facts['id']} is over already: {facts['state']}"
    client.run(client.cancel(facts))
    return f"run {facts['id']} is being cancelled"


class _Address:
    """Where a port is open, as a sentence; in a notebook one can follow it."""

    def __init__(self, found: Fields) -> None:
        self._found = found

    def __repr__(self) -> str:
        return ports.sentence(self._found)

    def _repr_html_(self) -> str:
        address = html.escape(str(self._found["address"]), quote=True)
        said = html.escape(repr(self)).removeprefix(address)
        return f'<a href="{address}" target="_blank" rel="noopener noreferrer">{address}</a>{said}'


def _port(remote: Remote, command: Command) -> _Address:
    port, *named = command.names
    session = remote.sessions.get(named[0] if named else remote.defaults.session)
    if not session.alive:
        raise Refused(f"session {session.name} has no sandbox whose port could be opened", reason="sandbox-ended")
    return _Address(ports.ask("open", session.sandbox, port))


ACTIONS: dict[str, Action] = {
    "show": _show,
    "default": _default,
    "on": _on,
    "off": _off,
    "stop": _stop,
    "pull": _pull,
    "runs": _runs,
    "attach": _attach,
    "cancel": _cancel,
    "port": _port,
}
