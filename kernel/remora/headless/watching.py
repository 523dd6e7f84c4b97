"""Printing what any run prints: from its first record on, up to now or until its end.

Law: nothing is written here but the terminal; a run that is watched does not know it.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

from .. import client as clients
from ..errors import RemoraError, from_dict
from ..states import ENDED, RunState
from ..wire import Fields, Record, RunId
from . import starting
from .console import Console
from .following import Stop


class Watching:
    """One run, seen from a terminal."""

    def __init__(self, facts: Fields, console: Console) -> None:
        """Watch the run with these facts."""
        self.run, self.console = RunId(facts["id"]), console
        self.state = RunState(facts["state"])
        self.items: queue.SimpleQueue[Record | RemoraError | Stop] = queue.SimpleQueue()
        self.ended: RemoraError | None = None
        """Why the run was ended before its code was, if it was."""

    def replay(self) -> None:
        """Print what there is by now."""
        client = clients.client()
        client.run(client.replay(self.run, self.items.put))
        while not self.items.empty():
            self._take(self.items.get())
        self.console.close()

    def follow(self, stop: Callable[[Stop], None]) -> None:
        """Print until the run has ended; `stop` is told of Ctrl-C, and may raise."""
        self.state = RunState.QUEUED
        try:
            with starting.signals_into(self.items.put):
                starting.follow(self.run, self.items.put)
                while self.state not in ENDED:
                    item = self.items.get()
                    stop(item) if isinstance(item, Stop) else self._take(item)
        finally:
            self.console.close()

    def _take(self, item: Record | RemoraError | Stop) -> None:
        if isinstance(item, RemoraError):
            raise item
        if isinstance(item, Record):
            self.console.show(item)
            if item.type == "state":
                self.state = RunState(item.content["state"])
            elif item.type == "result" and item.content.get("ended"):
                self.ended = from_dict(item.content["ended"])
