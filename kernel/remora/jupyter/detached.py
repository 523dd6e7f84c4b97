"""Cells that were sent off with `--detach`, and runs attached to later.

Their output appears where they were started or attached, and what they make is bound only to names that nobody has touched
since.

Law: results are bound between cells, never while one runs; what is not bound can be had from the handle.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..client import Client, Waiter
from ..connection import Connection
from ..errors import Refused, RemoraError
from ..outcomes import cell_failure
from ..states import ENDED, RunState
from ..wire import Fields, Record, RunId
from . import variables
from .cells import INTERRUPT, interrupts_into
from .progress import Progress
from .relay import Relay
from .sessions import Session
from .statusline import Final
from .variables import Cargo, Delivery

ABSENT = object()


class DetachedRun:
    """The handle of a cell that runs on its own: `state`, `wait()`, `cancel()`, and `run["name"]` for what it made."""

    def __init__(self, run: RunId, session: Session, cargo: Cargo, namespace: dict[str, Any], untouched: dict[str, Any]) -> None:
        """Follow this run. `untouched` holds what the names it may bind are bound to now (ABSENT: to nothing)."""
        self.id = run
        self.state = RunState.QUEUED
        self.settled: Callable[[DetachedRun], None] = lambda _: None
        self.say: Callable[[str], None] = lambda _: None
        """Shows a line of ours."""
        self._session, self._cargo, self._namespace, self._untouched = session, cargo, namespace, untouched
        self._result: Record | None = None
        self._delivery: Delivery | None = None
        self._over = threading.Event()

    def __repr__(self) -> str:
        """Return a line that says how it goes."""
        return f"<run {self.id}: {self.state.value}; %remote attach {self.id} shows it again, here or in another kernel>"

    def take(self, item: Record | RemoraError) -> None:
        """Take note of what comes of the run (on the client's loop)."""
        if isinstance(item, RemoraError):
            self._end(RunState.UNKNOWN)
        elif item.type == "result":
            self._result = item
        elif item.type == "state":
            self.state = RunState(item.content["state"])
            if self.state in ENDED:
                self._end(self.state)

    def _end(self, state: RunState) -> None:
        self.state = state
        self._over.set()
        self.settled(self)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end, at most so many seconds, and bind what it made; raises TimeoutError, or what the code raised."""
        if not self._over.wait(timeout):
            raise TimeoutError(f"run {self.id} is still {self.state.value}")
        self.fetch_files()
        self.bind()
        error = cell_failure(self._result, self._namespace) if self._result is not None else None
        if error is not None:
            raise error

    def cancel(self) -> None:
        """End the run."""
        if self._session.connection is not None:
            self._session.connection.cancel(self.id)

    def fetch_files(self) -> None:
        """Have the files that the run has made on a machine elsewhere come home; a failure is said."""
        connection = self._session.connection
        if connection is None or not connection.elsewhere or not connection.alive:
            return
        try:
            moved = connection.client.run(connection.exchange(Waiter(), whole=True))
        except RemoraError as error:
            self.say(f"files were not exchanged: {error}")
            return
        if moved.get("line"):
            self.say(moved["line"])

    def __getitem__(self, name: str) -> Any:
        """Return a variable that the run made; waits for its end."""
        self._over.wait()
        self.bind()
        if self._delivery is None or name not in self._delivery.values:
            raise KeyError(f"run {self.id} made no variable {name}")
        return self._delivery.values[name]

    def bind(self) -> list[str]:
        """Bind what the run made to names untouched since, once; return those that were touched."""
        if self._delivery is not None or self._result is None:
            return []
        self._delivery = variables.unload(self._result, self._session, self._cargo, self._namespace, self._fetch)
        free = {name for name in self._delivery.values if self._namespace.get(name, ABSENT) is self._untouched.get(name, ABSENT)}
        kept = {name: value for name, value in self._delivery.values.items() if name in free}
        deleted = tuple(n for n in self._delivery.deleted if self._namespace.get(n, ABSENT) is self._untouched.get(n, ABSENT))
        variables.bind(Delivery(kept, self._delivery.mutated & free, deleted), self._session, self._namespace)
        self._untouched = {}
        return sorted(n for n in self._delivery.values.keys() - free if self._namespace.get(n) is not self._delivery.values[n])

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on variables that are not as they were there; none before they are bound."""
        return self._delivery.notes if self._delivery is not None else ()

    def _fetch(self, names: list[str]) -> Any:
        if not self._session.alive or self._session.connection is None:
            raise Refused(f"{', '.join(names)} stayed in a sandbox that has ended", reason="sandbox-ended")
        return self._session.connection.fetch(names)


class Background:
    """Shows a detached run's output and its status line, from the client's loop."""

    def __init__(self, run: DetachedRun, relay: Relay, progress: Progress, connection: Connection) -> None:
        """Show under the cell that sent it off."""
        self._run, self._relay, self._progress, self._connection = run, relay, progress, connection

    def take(self, item: Record | RemoraError) -> None:
        """Take what comes of the run."""
        if isinstance(item, RemoraError):
            self._relay.say(str(item))
        elif item.type == "input_request":
            self._relay.say("a detached cell cannot ask for input")
            self._connection.refuse_input(item.run)
        elif item.type == "result":
            self._show_failure(item)
        else:
            self._relay.show(item)
        self._run.take(item)
        if self._run.state in ENDED:
            self._progress.finish(Final.DONE if self._run.state is RunState.DONE else Final.FAILED, self._run.state.value)

    def _show_failure(self, result: Record) -> None:
        about = result.content.get("error") or {}
        ended = result.content.get("ended")
        if about:
            self._relay.publish({"msg_type": "error", "content": {k: about[k] for k in ("ename", "evalue", "traceback")}})
        elif ended:
            self._relay.say(str(ended["message"]))


def attach(client: Client, facts: Fields, run: DetachedRun, relay: Relay) -> RunState:
    """Replay a run's output here and follow it to its end; a stop leaves the run alone and says how to come back."""
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    following = client.start(client.follow(RunId(facts["id"]), items.put))
    with interrupts_into(items.put):
        while run.state not in ENDED:
            item = items.get()
            if item == INTERRUPT:
                following.cancel()
                relay.say(f"no longer following; the run goes on, and %remote attach {facts['id']} comes back to it")
                return run.state
            if isinstance(item, RemoraError):
                raise item
            relay.show(item)
            run.take(item)
    run.fetch_files()
    with suppress(Refused):
        touched = run.bind()
        for line in run.notes:
            relay.say(line)
        for name in touched:
            relay.say(f'{name} is bound here already and was left alone; run["{name}"] has what the run made')
    return run.state
