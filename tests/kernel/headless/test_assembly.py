"""The executed notebook is a function of the prepared one and the run's records."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from remora.headless.assembly import Assembly
from remora.headless.document import Notebook, prepare
from remora.headless.outputs import _overwritten
from remora.wire import Record, RunId

RUN = RunId("run")


class Log:
    """Records of a run, one second apart."""

    def __init__(self) -> None:
        """Start empty."""
        self.records: list[Record] = []

    def add(self, kind: str, buffers: tuple[bytes, ...] = (), **content: Any) -> Log:
        """Append a record."""
        self.records.append(Record(RUN, len(self.records), 1000.0 + len(self.records), kind, content, buffers=buffers))
        return self

    def message(self, cell: int, kind: str, buffers: tuple[bytes, ...] = (), **content: Any) -> Log:
        """Append a Jupyter message of a cell."""
        return self.add("output", buffers, msg_type=kind, content=content, metadata={}, cell=cell)

    def text(self, cell: int, text: str, name: str = "stdout") -> Log:
        """Append text of a cell."""
        return self.message(cell, "stream", name=name, text=text)

    def cell(self, index: int, status: str, **facts: Any) -> Log:
        """Append how a cell is doing."""
        return self.add("cell", index=index, status=status, execution_count=index + 1, **facts)

    def __iter__(self) -> Iterator[Record]:
        """Yield the records."""
        return iter(self.records)


def assemble(log: Log, cells: int = 2) -> tuple[Assembly, Notebook]:
    """Return what becomes of a notebook of so many cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{n}", id=f"cell-{n}") for n in range(cells)])
    prepare(notebook, {}, False, ("i", "o"))
    assembly = Assembly(notebook, lambda *_: None)
    assembly.place({"where": "sandbox"})
    for record in log:
        assembly.take(record)
    document = assembly.document()
    nbformat.validate(document)
    return assembly, document


def begun() -> Log:
    """Return the beginning of a run."""
    return Log().add("state", state="queued").add("state", state="running").cell(0, "started")


ERROR = {"ename": "E", "evalue": "v", "traceback": ["E: v"]}


def test_times_and_states_are_those_of_the_records() -> None:
    """Papermill's keys, nbclient's timing and our figures come from the log, not from the clock."""
    log = begun().text(0, "x").cell(0, "ended", ok=True, figures={"sent": 3}).add("result", ok=True).add("state", state="done")
    assembly, document = assemble(log)
    about = document.cells[0].metadata
    assert (about.papermill.duration, about.papermill.status, about.papermill.exception) == (2.0, "completed", False)
    assert about.papermill.start_time == about.execution["iopub.execute_input"] == "1970-01-01T00:16:42+00:00"
    assert about.remora == {"where": "sandbox", "seconds": 2.0, "sent": 3}
    assert document.metadata.papermill.duration == 5.0
    assert document.cells[1].metadata.papermill.status == "completed"
    assert assembly.ended


def test_the_same_log_gives_the_same_notebook() -> None:
    """Whoever follows writes the same bytes, marks included."""
    log = begun().text(0, "x").cell(0, "ended", ok=False, error=ERROR).add("result", ok=False).add("state", state="failed")
    first, second = assemble(copy.deepcopy(log))[1], assemble(log)[1]
    assert nbformat.writes(first) == nbformat.writes(second)
    assert len(first.cells) == 4


def test_text_of_one_stream_is_one_output_and_order_is_kept() -> None:
    """Pieces join; another stream or a display comes between."""
    log = begun().text(0, "a").text(0, "b\n").text(0, "c", "stderr").text(0, "d")
    outputs = assemble(log)[1].cells[0].outputs
    assert [(o.name, o.text) for o in outputs] == [("stdout", "ab\n"), ("stderr", "c"), ("stdout", "d")]


def test_clear_output_takes_away_now_or_with_the_next() -> None:
    """wait=True clears when something new comes."""
    log = begun().text(0, "a").message(0, "clear_output", wait=False).text(0, "b").message(0, "clear_output", wait=True)
    assert [o.text for o in assemble(log)[1].cells[0].outputs] == ["b"]
    assert [o.text for o in assemble(log.text(0, "c\r").text(0, "d"))[1].cells[0].outputs] == ["d"]


def test_a_display_is_updated_in_the_cell_where_it_is() -> None:
    """update_display_data of a later cell changes the earlier one's output."""
    shown = {"data": {"text/plain": "old"}, "metadata": {}, "transient": {"display_id": "d"}}
    log = begun().message(0, "display_data", **shown).cell(0, "ended", ok=True).cell(1, "started")
    log.message(1, "update_display_data", **(shown | {"data": {"text/plain": "new"}}))
    document = assemble(log)[1]
    assert document.cells[0].outputs[0].data["text/plain"] == "new"
    assert document.cells[1].outputs == []


def test_widgets_are_kept_with_their_buffers() -> None:
    """State and binary state go into the notebook's metadata; a comm that is no widget's harms nothing."""
    state = {"_model_name": "M", "_model_module": "m", "_model_module_version": "1", "value": 1}
    log = begun().message(0, "comm_open", comm_id="w", target_name="jupyter.widget", data={"state": state, "buffer_paths": []})
    update = {"method": "update", "state": {"value": 2}, "buffer_paths": [["raw"]]}
    log.message(0, "comm_msg", (b"xyz",), comm_id="w", data=update).message(0, "comm_close", comm_id="w")
    log.message(0, "comm_open", comm_id="o", target_name="other", data={})
    (model,) = assemble(log)[1].metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    assert (model["state"]["value"], model["buffers"][0]["data"]) == (2, "eHl6")


def test_late_output_goes_to_its_own_cell() -> None:
    """A thread that prints after its cell is over prints there; what names no cell goes to the last one."""
    log = begun().cell(0, "ended", ok=True).cell(1, "started").text(0, "late")
    log.add("notice", text="no room")
    document = assemble(log)[1]
    assert document.cells[0].outputs[0].text == "late"
    assert document.cells[1].outputs[0].text == "Remora: no room\n"


def test_an_expected_error_is_shown_and_marks_nothing() -> None:
    """raises-exception: the error is an output, the cell is completed."""
    log = begun().cell(0, "ended", ok=False, error=ERROR, expected=True).add("result", ok=True).add("state", state="done")
    assembly, document = assemble(log)
    assert assembly.failed is None
    assert document.cells[0].outputs[0].output_type == "error"
    assert document.cells[0].metadata.papermill.status == "completed"


def test_a_run_that_is_cut_off_marks_the_cell_that_ran() -> None:
    """A crash gives the cell an error that says why, and the notebook its marks."""
    ended = {"error": "RunEnded", "reason": "crashed", "message": "crashed (signal 9)", "facts": {}}
    log = begun().text(0, "a").add("result", ok=False, ended=ended).add("state", state="ended", reason="crashed")
    assembly, document = assemble(log)
    assert assembly.failed == 0
    assert document.cells[2].outputs[-1].evalue == "crashed (signal 9)"
    assert document.metadata.papermill.exception is True


def test_a_notebook_left_early_says_which_cells_did_not_run() -> None:
    """After sys.exit() the rest is pending, and nothing is marked."""
    log = (
        begun()
        .cell(0, "ended", ok=False, error=ERROR, expected=True, leaves=True)
        .add("result", ok=True)
        .add("state", state="done")
    )
    document = assemble(log)[1]
    assert [cell.metadata.papermill.status for cell in document.cells] == ["completed", "pending"]


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [
        ("", "abc", "abc"),
        ("10%\r", "20%", "20%"),
        ("10%", "\r20%", "20%"),
        ("kept\n10%\r", "20%\n", "kept\n20%\n"),
        ("a\r", "\nb", "a\r\nb"),
        ("abc", "\b\bX", "aX"),
        ("kept\n", "\bX", "kept\n\bX"),
    ],
)
def test_what_overwrites_text_leaves_the_last_of_it(before: str, text: str, after: str) -> None:
    """Carriage returns and backspaces work on their own line, across pieces."""
    assert _overwritten(before, text) == after
