"""`make demo`: the first notebook as a stranger runs it, in a real sandbox; what it leaves behind and what it says about it."""

from __future__ import annotations

import base64
import csv
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import leaks
import nbformat
import pytest
from house import sources
from journeys.driving import plain

_NOTEBOOKS = sources.ROOT / "notebooks"
_NAME = "01-first-remote-cell"
_HERE, _THERE = ["load", "look", "use"], ["train", "mistake", "on"]


class Shown(NamedTuple):
    """What one run of the demo left and printed."""

    folder: Path
    cells: dict[str, Any]
    """Those of the executed notebook, by id."""
    table: list[str]
    """The rows printed for code cells, in order."""
    left: object
    """What of it was still there a moment later."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Run the demo once for all tests, as `make demo` does, but in a folder of theirs."""
    folder = tmp_path_factory.mktemp("demo") / "notebook"
    session = Path(tempfile.gettempdir())
    before = leaks.take(session)
    command = [sys.executable, str(_NOTEBOOKS / "demo.py"), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    left = leaks.settle(before, session)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    kept = nbformat.read(folder / f"{_NAME}.ipynb", as_version=4)
    table = ran.stdout.partition("---\n")[2].partition("\n\n")[0].splitlines()
    return Shown(folder, {cell.id: cell for cell in kept.cells if cell.cell_type == "code"}, table, left)


def _text(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def _machine(cell: Any) -> str:
    """Return the machine that the cell says it ran on."""
    found = re.search(r"(?:loaded on|training on|says) (\S+)$|^(\S+) still has", _text(cell), re.MULTILINE)
    assert found is not None
    return found[1] or found[2]


def test_cells_run_where_they_say(shown: Shown):
    """Local cells see this machine, remote ones a sandbox of another name, and only those bear figures."""
    assert [name for name, cell in shown.cells.items() if "remora" in cell.metadata] == _THERE
    here, there = _machine(shown.cells["load"]), _machine(shown.cells["train"])
    assert _machine(shown.cells["use"]) == here != there
    assert _machine(shown.cells["on"]) == there


def test_figures_are_in_the_metadata(shown: Shown):
    """A remote cell's metadata say which run it was, where, how it ended, how long it took and what moved."""
    train, mistake, on = (shown.cells[name].metadata["remora"] for name in _THERE)
    assert len({figures["sandbox"] for figures in (train, mistake, on)}) == 1
    assert len({figures["run"] for figures in (train, mistake, on)}) == 3
    assert [figures["state"] for figures in (train, mistake, on)] == ["done", "failed", "done"]
    assert mistake["reason"] == "TooManyMistakes"
    assert train["elapsed"] > 0
    assert train["jail"] in {"bubblewrap", "landlock", "process"}


def test_variables_travel_once(shown: Shown):
    """The data go with the first cell that reads them, the model comes home, and no later cell sends any of it again."""
    train, mistake, on = (shown.cells[name].metadata["remora"] for name in _THERE)
    assert train["sent"] > 500_000
    assert train["fetched"] > 10_000
    assert on["sent"] < 1_000
    assert mistake["sent"] < 1_000


def test_the_training_shows_its_progress(shown: Shown):
    """Every tenth epoch is a line, and the network learns the digits."""
    epochs = re.findall(r"^epoch +(\d+) +loss [\d.]+ +accuracy ([\d.]+)$", _text(shown.cells["train"]), re.MULTILINE)
    assert [int(epoch) for epoch, _ in epochs] == [10, 20, 30, 40, 50, 60]
    assert float(epochs[-1][1]) > 0.9


def test_files_go_both_ways(shown: Shown):
    """The cell has read network.json from the notebook's folder; what it wrote is there and belongs to this user."""
    assert '"epochs": 60' in (shown.folder / "network.json").read_text()
    with (shown.folder / "learning.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 61))
    assert (shown.folder / "learning.csv").stat().st_uid == shown.folder.stat().st_uid


def test_the_matrix_is_drawn_here(shown: Shown):
    """A local cell draws the model's confusion matrix and the written file as one picture."""
    (output,) = shown.cells["look"].outputs
    assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
    assert "digits were misread" in _text(shown.cells["use"])


def test_the_mistake_is_shown_as_it_is(shown: Shown):
    """The error has the type that the cell defined, its message, and the cell's own lines; none of Remora's."""
    (error,) = (output for output in shown.cells["mistake"].outputs if output.output_type == "error")
    traceback = plain("\n".join(error.traceback))
    assert error.ename == "TooManyMistakes"
    assert re.search(r"99\.9% was wanted, \d\d\.\d% reached", error.evalue)
    assert "---> 12 demand(accuracy=0.999)" in traceback
    assert "remora" not in traceback


def test_the_table_has_a_row_for_each_cell(shown: Shown):
    """A row says where its cell ran, when it started and how long it took; of a remote one also what moved."""
    assert len(shown.table) == len(shown.cells)
    for row, (name, cell) in zip(shown.table, shown.cells.items(), strict=True):
        figures = cell.metadata.get("remora", {})
        assert cell.source.splitlines()[0][:8] == row[:8]
        assert (f"sandbox {figures['sandbox']} ({figures['jail']})" if figures else " here ") in row, name
        began = datetime.fromisoformat(cell.metadata["execution"]["iopub.execute_input"]).astimezone()
        assert f"{began:%H:%M:%S}" in row
        assert re.search(r"\d+\.\d\d s" + (r" +[\d.]+ [KM]?i?B +[\d.]+ [KM]?i?B$" if figures else " *$"), row)
    assert "→ TooManyMistakes" in shown.table[-2]


def test_a_page_is_left_beside_the_notebook(shown: Shown):
    """The page holds the cells, the picture and the status line."""
    page = (shown.folder / f"{_NAME}.html").read_text(encoding="utf-8")
    assert "data:image/png;base64" in page
    assert "<b>Remora</b>" in page
    assert "Make a mistake" in page


def test_nothing_else_is_left(shown: Shown):
    """No process, socket, mount or temporary folder of the demo outlives it, and its sources are as they were."""
    assert not shown.left
    assert not (_NOTEBOOKS / "learning.csv").exists()
    source = nbformat.read(_NOTEBOOKS / f"{_NAME}.ipynb", as_version=4)
    assert not [cell.id for cell in source.cells if cell.get("outputs")]
