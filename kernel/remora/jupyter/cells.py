"""One remote cell from its options to its result: the way of a cell, as the notebook sees it.

Law: everything here runs on the thread that executes the cell and blocks it, where Ctrl-C and the stop button arrive as
tokens in the same queue as the run's records; so nothing of ours is ever torn by a KeyboardInterrupt.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, suppress
from typing import Any

from .. import client as clients
from ..client import Sink, Waiter, new_run
from ..connection import Connection
from ..errors import RemoraError, RunEnded
from ..outcomes import cell_failure
from ..states import ENDED, EndReason, RunState
from ..wire import Buffer, Fields, InputReply, Record, RunId, StartRun
from . import variables
from .asking import Asked, CellWaiter
from .cellfiles import CellFiles
from .front import Front
from .interrupting import on_interrupt
from .options import CellOptions
from .progress import Progress
from .relay import Relay
from .sessions import Session
from .variables import Cargo

INTERRUPT, CANCEL = "interrupt", "cancel"
_REACTION = 3.0
"""Seconds after which code that has not reacted to the stop button is said not to."""
_STAGES = {"queued": "queued", "running": "running"}


def interrupts_into(token: Callable[[str], None]) -> AbstractContextManager[None]:
    """Turn SIGINT into tokens while a cell waits."""
    return on_interrupt(lambda *_: token(INTERRUPT))


class CellRun:
    """A cell that runs there while the notebook waits for it."""

    def __init__(self, front: Front, session: Session, namespace: dict[str, Any], progress: Progress) -> None:
        """Run in this session, with the variables of this namespace."""
        self._front, self._session, self._namespace, self.progress = front, session, namespace, progress
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.relay = Relay(front, session, front.parent())
        self._late = False
        self._lock = threading.Lock()
        self.run: RunId = new_run()
        self.result: Record | None = None
        self._opening: Future[Fields] | None = None
        self._files: CellFiles | None = None
        self._stopped = 0
        self._hint_at: float | None = None

    def wait_for(self, work: Callable[[Waiter], Coroutine[Any, Any, Fields]]) -> Fields:
        """Wait for work on the client's loop that `work` makes, given who hears of its stages; the status line goes on meanwhile.

        Questions are asked of the user. Cancel and the stop button end it: RunEnded, KeyboardInterrupt.
        """
        arrived: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        with self._front.hearing():
            waiting = self._opening = clients.client().start(work(CellWaiter(self.progress, arrived.put)))
            waiting.add_done_callback(lambda _: arrived.put(None))
            try:
                while True:
                    moment = self.progress.next_tick(time.monotonic())
                    with suppress(queue.Empty):
                        asked = arrived.get(timeout=None if moment is None else max(0.0, moment - time.monotonic()))
                        if asked is None:
                            return waiting.result()
                        asked.answer(self._front)
                    self.progress.tick(time.monotonic())
            except CancelledError:
                raise RunEnded("cancelled before it began", reason=EndReason.CANCELLED.value) from None
            finally:
                waiting.cancel()
                self._opening = None

    def execute(self, code: str, name: str, options: CellOptions, fields: Fields) -> None:
        """Run the cell to its end, and bind its variables.

        Raises SendError before anything has gone if something that it reads cannot travel, and what its code raises there.
        """
        self._cargo = variables.load(code, self._session, options, self._namespace)
        files = self._files = self.files()
        files.bring()
        over = False
        try:
            with interrupts_into(self._items.put), self._front.hearing():
                self.send(code, name, options, fields, self._cargo, self.take)
                files.expect(self.run)
                self._wait()
                over = True
                if not self.connection.elsewhere:
                    self._finish()
                    return
        finally:
            if not over:
                files.forget()
            files.fetch()
        with interrupts_into(self._items.put), self._front.hearing():
            self._finish()

    def files(self) -> CellFiles:
        """Return what brings the notebook's folder to the cell's machine and back."""
        return CellFiles(self.connection, self.progress, self.say, self.wait_for, self._front.hearing)

    def send(self, code: str, name: str, options: CellOptions, fields: Fields, cargo: Cargo, sink: Sink) -> None:
        """Send the cell off with this cargo; `sink` gets its records."""
        self.progress.sent(cargo.nbytes)
        body = fields | cargo.body | {"code": code, "timeout": options.timeout, "parent": _header(self.relay.parent)}
        self.connection.start(StartRun(self.run, "cell", name, body, buffers=cargo.buffers), sink)

    @property
    def connection(self) -> Connection:
        """Return the connection to the sandbox."""
        assert self._session.connection is not None
        return self._session.connection

    def say(self, line: str) -> None:
        """Show a line of ours under the cell."""
        self.relay.say(line)

    def cancel(self) -> None:
        """End the run; from any thread."""
        self._items.put(CANCEL)
        if (opening := self._opening) is not None:
            opening.cancel()
        if (files := self._files) is not None:
            files.leave()

    def take(self, item: Record | RemoraError) -> None:
        """Take what comes of the run (on the client's loop).

        For who waits, or, once the cell is over, straight to the front end.
        """
        with self._lock:
            if not self._late:
                self._items.put(item)
                return
        if isinstance(item, Record):
            self.relay.show(item)

    def _wait(self) -> None:
        """Show what the run prints until it has ended."""
        for item in self._arrivals():
            if item == INTERRUPT:
                self._interrupt()
            elif item == CANCEL:
                self.connection.cancel(self.run)
            elif isinstance(item, RemoraError):
                raise item
            elif isinstance(item, Record) and self._over(item):
                return

    def _arrivals(self) -> Iterator[Any]:
        """Yield what comes, letting the status line have its moments in between."""
        while True:
            moments = [m for m in (self.progress.next_tick(time.monotonic()), self._hint_at) if m is not None]
            with suppress(queue.Empty):
                yield self._items.get(timeout=max(0.0, min(moments) - time.monotonic()) if moments else None)
            self._hint_if_due(time.monotonic())
            self.progress.tick(time.monotonic())

    def _hint_if_due(self, now: float) -> None:
        if self._hint_at is not None and now >= self._hint_at:
            self._hint_at = None
            self.progress.hint(
                "the code does not react to the interrupt; stop again to end its sandbox, which loses its variables"
            )

    def _over(self, record: Record) -> bool:
        if record.type == "result":
            self.result = record
        elif record.type == "input_request":
            self._ask(record.content)
        elif record.type == "state":
            self.progress.stage(_STAGES.get(record.content["state"], ""))
            return RunState(record.content["state"]) in ENDED
        else:
            self._note_display(record)
            self.relay.show(record)
        return False

    def _note_display(self, record: Record) -> None:
        """Tell the status line what becomes of the output it stands in."""
        if record.type == "output" and record.content["msg_type"] == "clear_output":
            self.progress.cleared(bool(record.content["content"].get("wait")))
        elif record.type == "output" and not record.content["msg_type"].startswith("comm_"):
            self.progress.output()

    def _ask(self, content: Fields) -> None:
        try:
            with on_interrupt(signal.default_int_handler):
                reply = InputReply(self.run, self._front.ask(str(content["prompt"]), bool(content["password"])))
        except KeyboardInterrupt:
            self._interrupt()
            return
        except Exception as error:  # whatever this kernel raises when input is not possible
            reply = InputReply(self.run, error=str(error))
        self.connection.send(reply)

    def _fetch(self, names: list[str]) -> tuple[tuple[Buffer, ...], Fields]:
        """Bring large variables home; a stop leaves them where they are."""
        try:
            with on_interrupt(signal.default_int_handler):
                return self.connection.fetch(names)
        except KeyboardInterrupt:
            why = "bringing it home was interrupted; %remote pull brings it"
            return (), {"remote": {name: {"type": "value", "repr": "", "reason": why} for name in names}}

    def _interrupt(self) -> None:
        """First stop: interrupt the code. Second: end its sandbox."""
        self._stopped += 1
        if self._stopped == 1:
            self.connection.interrupt(self.run)
            self._hint_at = time.monotonic() + _REACTION
        else:
            self.connection.cancel(self.run, hard=True)

    def _finish(self) -> None:
        with self._lock:
            self._late = True
        while not self._items.empty():
            item = self._items.get()
            if isinstance(item, Record):
                self.relay.show(item)
        if self.result is None:
            raise RunEnded("the run ended without a result", reason="crashed")
        result, cargo = self.result, self._cargo
        self.result = None  # late output keeps this object alive, and large variables are not to be kept with it
        del self._cargo
        delivery = variables.unload(result, self._session, cargo, self._namespace, self._fetch)
        variables.bind(delivery, self._session, self._namespace)
        for line in delivery.notes:
            self.say(line)
        self.progress.fetched(delivery.nbytes)
        self._session.remember(result.content.get("installed") or [])
        self._front.add_payload(result.content.get("payload") or [])
        error = cell_failure(result, self._namespace)
        if error is not None:
            self._explain_loss(error)
            raise error

    def _explain_loss(self, error: BaseException) -> None:
        """Say which variables were lost with the sandbox: those of which there is no copy here."""
        if isinstance(error, RunEnded) and error.facts.get("sandbox_ended"):
            self.connection.ended = True
            names = self._session.lost_names(self._namespace)
            error.facts["lost"] = names
            error.args = (f"{error}. Lost with it: what this cell had made{''.join(', ' + name for name in names)}",)


def _header(parent: Fields) -> Fields:
    header = parent.get("header") or {}
    return {"header": {k: v if isinstance(v, (str, int, float, type(None))) else str(v) for k, v in header.items()}}
