"""Following a notebook run to its end: each record into the notebook, onto the console, and the notebook into its file.

Law: one loop on the caller's thread; records, errors and the stop button come through one queue.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from enum import Enum

from ..errors import RemoraError, RunEnded, from_dict
from ..states import RunState
from ..wire import CommMessage, Fields, Record, RunId
from .assembly import Assembly
from .console import Clock, Console
from .job import Job
from .paper import Paper

_TICK = 1.0


class Stop(Enum):
    """What the person in front of the terminal, or whoever runs us, wants."""

    INTERRUPT = "interrupt"
    """Ctrl-C."""
    TERMINATE = "terminate"


class Following:
    """One notebook run, seen from here."""

    def __init__(self, job: Job, console: Console, send: Callable[[CommMessage], None], out: str | None = None) -> None:
        """Follow this job; `send` brings front ends' messages to its code; `out` is another place to write to."""
        self.job, self.console = job, console
        self.items: queue.SimpleQueue[Record | RemoraError | Stop] = queue.SimpleQueue()
        self.assembly = Assembly(job.prepared(), self._talk)
        self.assembly.place(job.where)
        pause = float("inf") if job.pause is None else job.pause
        self.paper = Paper(out or job.out, self.assembly.document, job.lock, pause)
        self._send = send
        self._since = time.time()
        self._at = 0.0
        self._clock = Clock()
        self._stage = "starting"

    @property
    def run(self) -> RunId:
        """Return the run's id."""
        return RunId(self.job.run)

    def _talk(self, msg_type: str, content: Fields, metadata: Fields, parent: Fields) -> None:
        """Bring an answer of a widget to the code, unless it is history that is being replayed."""
        if self._at >= self._since:
            self._send(CommMessage(msg_type, content, metadata, parent))

    def stage(self, name: str) -> None:
        """Show a stage on the way to the first cell."""
        self._stage = name
        self.console.status(f"{name} · {self._clock}")

    def follow(self, stop: Callable[[Stop], None]) -> None:
        """Go on until the run has ended and its notebook is written; `stop` is told of Ctrl-C, and may raise.

        Raises what the run is lost by; RunEnded is in `outcome`.
        """
        try:
            for item in self._arrivals():
                if isinstance(item, Stop):
                    stop(item)
                elif isinstance(item, RemoraError):
                    raise item
                else:
                    self._take(item)
                if self.assembly.ended:
                    break
        finally:
            self.console.close()
            self._leave()

    def _leave(self) -> None:
        try:
            if self.assembly.ended:
                self.paper.finish()
            elif self.job.steps:
                self.paper.save_if_due(at_once=True)
        finally:
            self.paper.close()

    def _arrivals(self) -> Iterator[Record | RemoraError | Stop]:
        while True:
            with contextlib.suppress(queue.Empty):
                yield self.items.get(timeout=self._patience())
            if self.job.steps:
                self.paper.save_if_due()
            self._show_progress()

    def _patience(self) -> float | None:
        moments = [self.paper.due - time.monotonic()] if self.job.steps and self.paper.due not in (None, float("inf")) else []
        moments += [_TICK] if self.console.ticks else []
        return max(0.0, min(moments)) if moments else None

    def _take(self, record: Record) -> None:
        self._at = record.at
        self.assembly.take(record)
        self.console.show(record)
        self.paper.changed()
        if record.type in ("cell", "state") and self.job.steps and not self.assembly.ended:
            self.paper.save_if_due(at_once=True)

    def _show_progress(self) -> None:
        assembly = self.assembly
        if not self.console.says_progress:
            return
        if assembly.state is not RunState.RUNNING:
            self.console.status(f"{self._stage} · {self._clock}")
            return
        done, all_cells = assembly.finished_cells, len(assembly.code_cells)
        index = assembly.running
        first = assembly.notebook.cells[index].source.strip().partition("\n")[0][:40] if index is not None else ""
        self.console.status(
            " · ".join(filter(None, [f"cell {min(done + 1, all_cells)} of {all_cells}", str(self._clock), first]))
        )

    def outcome(self) -> RemoraError | None:
        """Return why the run was ended before its code was, if it was."""
        ended = self.assembly.result.get("ended")
        if self.assembly.state is not RunState.ENDED:
            return None
        return from_dict(ended) if ended else RunEnded("the run was ended", reason="crashed")
