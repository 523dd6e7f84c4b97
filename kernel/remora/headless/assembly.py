"""The executed notebook, put together from the records of its run: outputs, counts, times, states, figures.

Law: a function of the prepared notebook and the records alone, clock and process left out, so that the same log always gives the
same notebook. Times are those at which the run's supervisor wrote the records.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..states import ENDED, RunState
from ..wire import Fields, Record
from . import outputs
from .document import COMPLETED, FAILED, PENDING, RUNNING, Notebook, marked
from .outputs import Outputs, Talk


class Assembly:
    """One notebook that is being run."""

    def __init__(self, notebook: Notebook, talk: Talk) -> None:
        """Fill in this prepared notebook; `talk` answers its widgets."""
        self.notebook = notebook
        self.state = RunState.QUEUED
        self.result: Fields = {}
        self.running: int | None = None
        """The cell that is being executed, by its index."""
        self.failed: int | None = None
        self._outputs = Outputs(notebook, talk)
        self._last = 0
        self._left = False
        self._run = ""
        self._begun: dict[int, float] = {}
        self._where: Fields = {}

    # -- what is known

    @property
    def ended(self) -> bool:
        """True when the run has come to an end."""
        return self.state in ENDED

    @property
    def finished_cells(self) -> int:
        """Return how many code cells have come to their end."""
        return sum(cell.metadata.papermill.status in (COMPLETED, FAILED) for cell in self.code_cells)

    @property
    def code_cells(self) -> list[Notebook]:
        """Return the cells that hold code."""
        return [cell for cell in self.notebook.cells if cell.cell_type == "code" and cell.source.strip()]

    def document(self) -> Notebook:
        """Return the notebook as it is to be written now."""
        self._outputs.set_widgets_metadata()
        return marked(self.notebook, self.failed if self.ended else None)

    # -- taking records

    def place(self, where: Fields) -> None:
        """Note where the cells run, for their metadata."""
        self._where = where

    def take(self, record: Record) -> None:
        """Take the next record of the run."""
        self._run = record.run
        if record.type == "output":
            self._show(record.content, record.buffers)
        elif record.type == "cell":
            self._cell(record.content, record.at)
        elif record.type == "state":
            self._state(RunState(record.content["state"]), record.at)
        elif record.type == "result":
            self.result = record.content
        elif record.type == "notice":
            text = f"Remora: {record.content['text']}\n"
            self._show({"msg_type": "stream", "content": {"name": "stderr", "text": text}}, ())

    def _show(self, content: Fields, buffers: tuple[Any, ...]) -> None:
        index = content.get("cell", self._last)
        if 0 <= index < len(self.notebook.cells) and self.notebook.cells[index].cell_type == "code":
            # the guest gives a cell's request this id, and an Output widget names it to say whose output it wants
            self._outputs.take(outputs.message(content, buffers, f"{self._run}.{index}"), index)

    def _cell(self, content: Fields, at: float) -> None:
        index = int(content["index"])
        if content["status"] == "started":
            self._cell_begins(index, content, at)
        else:
            self._cell_ends(index, content, at)

    def _cell_begins(self, index: int, content: Fields, at: float) -> None:
        cell = self.notebook.cells[index]
        self.running = self._last = index
        self._begun[index] = at
        self._outputs.begin(index)
        cell["execution_count"] = content.get("execution_count")
        cell.metadata["execution"] = {key: _text(at) for key in ("iopub.status.busy", "iopub.execute_input")}
        cell.metadata.papermill.update(start_time=_text(at), status=RUNNING, exception=False)

    def _cell_ends(self, index: int, content: Fields, at: float) -> None:
        cell, error = self.notebook.cells[index], content.get("error")
        self.running = None
        if error:
            shown = {name: error[name] for name in ("ename", "evalue", "traceback")}
            self._show({"msg_type": "error", "content": shown, "cell": index}, ())
        seconds = at - self._begun.get(index, at)
        cell.metadata["execution"] |= {key: _text(at) for key in ("shell.execute_reply", "iopub.status.idle")}
        cell.metadata.papermill.update(end_time=_text(at), duration=round(seconds, 6), status=COMPLETED)
        cell.metadata["remora"] = self._where | {"seconds": round(seconds, 6)} | (content.get("figures") or {})
        self._left = bool(content.get("leaves"))
        if error and not content.get("expected"):
            self._fail(index)

    def _fail(self, index: int) -> None:
        self.failed = index
        self.notebook.cells[index].metadata.papermill.update(status=FAILED, exception=True)
        self.notebook.metadata.papermill["exception"] = True

    def _state(self, state: RunState, at: float) -> None:
        self.state = state
        about = self.notebook.metadata.papermill
        if state is RunState.RUNNING:
            about.update(start_time=_text(at), exception=False)
            self._begun[-1] = at
        elif self.ended:
            self._close(at)
            about.update(end_time=_text(at), duration=round(at - self._begun.get(-1, at), 6))

    def _close(self, at: float) -> None:
        """Give the cell that was cut off its end, and the others their last state."""
        if self.running is not None and self.state is RunState.ENDED:
            ended = self.result.get("ended") or {}
            words = str(ended.get("message") or "the run was ended")
            error = {"ename": str(ended.get("error") or "RunEnded"), "evalue": words, "traceback": [words]}
            self._cell_ends(self.running, {"error": error}, at)
        whole = self.state is RunState.DONE and not self._left
        for index in range(len(self.notebook.cells) if whole else self._last + 1):
            about = self.notebook.cells[index].metadata.papermill
            about["status"] = COMPLETED if about["status"] == PENDING else about["status"]
        if self.state is not RunState.DONE:
            self.notebook.metadata.papermill["exception"] = True


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
