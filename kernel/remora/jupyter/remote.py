"""`%%remote` and `%remote` for one shell: what a cell or a command comes to.

Law: this object owns the notebook's sessions and its defaults; the way of one cell is in cells.py, of detached ones in
detached.py, what `%remote …` does in actions.py.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

from .. import client as clients
from .. import specs
from ..errors import OptionError, RemoraError, RemoteError, RunEnded
from ..outcomes import show_traceback
from ..resources import device_name
from ..states import EndReason
from ..sync.names import analyse
from ..wire import Fields, RunId
from . import commands, header, options, variables
from .cancelling import CancelButton, cancel_widget
from .cells import CellRun
from .detached import ABSENT, Background, DetachedRun, attach
from .front import Front
from .kept import Kept, default_here
from .options import CellOptions
from .progress import Progress
from .relay import Relay
from .sessions import Session, Sessions
from .statusline import Bundle, Final, StatusLine, text
from .variables import Cargo

_NAME = 60
_PATIENCE = 1.0
"""Seconds that whoever presses Tab waits for a sandbox."""


class Remote:
    """Remora in one IPython shell; the shell has it as `remora`."""

    def __init__(self, shell: Any, front: Front) -> None:
        """Take over the shell's remote cells."""
        self.shell, self.front = shell, front
        self.sessions = Sessions(front.kernel, clients.client, Kept(front.restarts_as()))
        self._defaults: CellOptions | None = None
        self.transformer = header.CellTransformer()
        self._settled: list[DetachedRun] = []
        self._figures: Fields = {}

    @property
    def defaults(self) -> CellOptions:
        """Return what lines of options stand on; at first what the notebook's metadata says. OptionError if that is wrong."""
        if self._defaults is None:
            self._defaults = default_here()
        return self._defaults

    @defaults.setter
    def defaults(self, defaults: CellOptions) -> None:
        """Take what `%remote default` says in its place."""
        self._defaults = defaults

    # -- cells

    def run_cell(self, line: str, cell: str) -> DetachedRun | None:
        """Run a cell in its session's sandbox and wait for it; with `--detach` return its handle at once."""
        given = specs.with_script(options.parse(line, self._evaluate), header.script_block(cell))
        session = self.sessions.get(given.over(self.defaults).session)
        chosen = given.over(session.options).over(self.defaults)
        if chosen.both:
            self.shell.run_cell(cell, silent=True, store_history=False).raise_error()
        comms = None if chosen.detach else self.front.comms()
        progress = self._progress(session, chosen.on, cancel_widget(lambda: run.cancel(), live=comms is not None, comms=comms))
        run = CellRun(self.front, session, self.shell.user_ns, progress)
        try:
            self.sessions.ensure(session, chosen, run.say, run.wait_for)
            session.options = chosen.lasting()
            facts = run.connection.facts
            devices = ", ".join(map(device_name, facts.get("devices") or ()))
            progress.place(machine=str(facts.get("on", "here")), jail=str(facts.get("jail", "")), gpu=devices)
            if chosen.detach:
                return self._detach(run, session, cell, chosen)
            run.execute(cell, _first_line(cell), chosen, self._cell_fields())
        except BaseException as error:
            _shorten(error)
            if not progress.finish(*_final(error), aside=True):
                _sign(error, text(progress.line))
            raise
        else:
            progress.finish(Final.DONE)
            return None
        finally:
            self.sessions.keep()
            self._figures = progress.figures | {"run": run.run, "sandbox": session.sandbox}

    def take_figures(self) -> Fields:
        """Return the figures of the remote cell that has just run, once; nothing after any other cell."""
        figures, self._figures = self._figures, {}
        return figures

    def _detach(self, cell_run: CellRun, session: Session, cell: str, chosen: CellOptions) -> DetachedRun:
        cargo = variables.load(cell, session, chosen, self.shell.user_ns)
        names = analyse(cell)
        untouched = {n: self.shell.user_ns.get(n, ABSENT) for n in names.reads | names.writes}
        run = DetachedRun(cell_run.run, session, cargo, self.shell.user_ns, untouched)
        run.settled, run.say = self._settled.append, cell_run.say
        cell_run.files().bring()
        background = Background(run, cell_run.relay, cell_run.progress, cell_run.connection)
        fields = self._cell_fields() | {"allow_stdin": False}
        cell_run.send(cell, _first_line(cell), chosen, fields, cargo, background.take)
        return run

    def bind_settled(self, *_: object) -> None:
        """Bind what detached runs have made meanwhile; called between cells."""
        while self._settled:
            run = self._settled.pop(0)
            touched = run.bind()
            lines = [f'{name} was bound anew here while run {run.id} made one; run["{name}"] has that' for name in touched]
            for line in (*lines, *run.notes):
                self.front.publish("stream", {"name": "stderr", "text": f"Remora: {line}\n"}, {}, (), self.front.parent())

    def attach(self, facts: Fields, session: Session) -> None:
        """Replay a run here and follow it; what it made is bound to names that are free here."""
        run = DetachedRun(RunId(facts["id"]), session, Cargo(None, {}), self.shell.user_ns, {})
        relay = Relay(self.front, session, self.front.parent())
        run.say = relay.say
        attach(self.client(), facts, run, relay)

    def client(self) -> clients.Client:
        """Return this process's client."""
        return clients.client()

    def _cell_fields(self) -> Fields:
        content = self.front.parent().get("content") or {}
        return {
            # what the cell's prompt says: IPython counts on before it runs a cell, or after, by version
            "execution_count": self.shell.displayhook.prompt_count,
            "silent": bool(content.get("silent", False)),
            "store_history": bool(content.get("store_history", True)),
            "allow_stdin": bool(content.get("allow_stdin", True)),
        }

    def _progress(self, session: Session, machine: str, cancel: CancelButton | None) -> Progress:
        parent, name = self.front.parent(), f"remora-{uuid.uuid4().hex[:12]}"

        def publish(bundle: Bundle, metadata: dict[str, Any], display_id: str, update: bool) -> None:
            content = {"data": bundle, "metadata": metadata, "transient": {"display_id": display_id}}
            self.front.publish("update_display_data" if update else "display_data", content, {}, (), parent)

        return Progress(StatusLine(session=session.name, machine=machine), publish, time.monotonic, name, cancel)

    def _evaluate(self, expression: str) -> object:
        return eval(expression, self.shell.user_global_ns, self.shell.user_ns)

    # -- what remote names the front end may ask for

    def body(self, code: str) -> str:
        """Return the code below the header of a remote cell; any other code as it is."""
        found = header.split(code)
        return found.body if found is not None else code

    def complete(self, code: str, cursor: int) -> Fields | None:
        """Return the sandbox's completions for a remote cell; None where this kernel is to complete."""
        session = self._session_of(code)
        if session is None or session.connection is None or cursor <= _header_end(code):
            return None
        return self._ask(session, "complete", {"code": _blanked(code), "cursor_pos": cursor})

    def inspect(self, code: str, cursor: int, detail: int) -> Fields | None:
        """Return what the sandbox knows of the name at the cursor of a remote cell; None where this kernel is to look."""
        session = self._session_of(code)
        if session is None or session.connection is None or cursor <= _header_end(code):
            return None
        return self._ask(session, "inspect", {"code": _blanked(code), "cursor_pos": cursor, "detail_level": detail})

    def _ask(self, session: Session, op: str, args: Fields) -> Fields | None:
        if not session.alive or session.connection is None:
            return None
        asked = asyncio.wait_for(session.connection.ask(op, args), _PATIENCE)
        try:
            reply = session.connection.client.run(asked).result
        except TimeoutError:  # a detached run keeps it busy
            return None
        return reply if op == "complete" or reply.get("found") else None

    def _session_of(self, code: str) -> Session | None:
        found = header.split(code)
        if found is None or found.marker != "remote":
            return None
        try:
            name = options.parse(found.line, self._evaluate).over(self.defaults).session
        except OptionError:
            return None  # a half-typed line: nothing to ask yet
        return self.sessions.named.get(name)

    # -- the line magic

    def command(self, line: str) -> Any:
        """Carry out `%remote LINE`."""
        from . import actions

        return actions.carry_out(self, commands.parse_command(line, self._evaluate))

    def leave(self, restart: bool = False) -> None:
        """Take leave: the kernel ends, for good or to be restarted."""
        if not restart:
            self.sessions.leave()


def _final(error: BaseException) -> tuple[Final, str]:
    """Return how an exception ends the status line."""
    if isinstance(error, RunEnded):
        return (Final.CANCELLED if error.reason == EndReason.CANCELLED.value else Final.ENDED), str(error.reason)
    return Final.FAILED, type(error).__name__


def _shorten(error: BaseException) -> None:
    """Say in one line that a cell was stopped while it waited: how we wait is nobody's business."""
    if type(error) is KeyboardInterrupt and not hasattr(error, "_render_traceback_"):
        show_traceback(error, ["KeyboardInterrupt: stopped before anything of the cell had run"])


def _sign(error: BaseException, line: str) -> None:
    """Put the status line below a traceback.

    A quick failure is one output, as in a local cell. Our refusals say all themselves.
    """
    render = getattr(error, "_render_traceback_", None)
    if render is None or (isinstance(error, RemoraError) and not isinstance(error, (RunEnded, RemoteError))):
        return
    show_traceback(error, [*render(), line])


def _first_line(cell: str) -> str:
    """Return the first line of code, by which people know a run in a listing."""
    lines = (line.strip() for line in cell.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")[:_NAME]


def _header_end(code: str) -> int:
    """Return the offset behind the header's last line."""
    at = code.find("%%remote")
    end = code.find("\n", at)
    return len(code) if end < 0 else end


def _blanked(code: str) -> str:
    """Return the cell with its header made a comment of the same length, so that offsets stay."""
    end = _header_end(code)
    return "".join("\n" if c == "\n" else "#" for c in code[:end]) + code[end:]
