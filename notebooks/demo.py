"""`make demo`: the first notebook, run without a browser through the kernel *Python 3 (Remora)*, and a table of what ran where.

Law: works on a copy in demo/, or in the folder given as argument, with a state directory of its own that is gone afterwards;
the figures are those that the kernel reports in the metadata of its replies, none is measured here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from remora.errors import RemoraError
from remora.resources import format_bytes
from remora.settings import STATE_DIRECTORY

SOURCE = Path(__file__).resolve().parent
NAME = "01-first-remote-cell"
WIDTH = 48  # characters of a cell's title
ROW = f"{{:<{WIDTH}}}  {{:<29}}  {{:<8}}  {{:>7}}  {{:>9}}  {{:>9}}"
HEAD = ROW.format("cell", "ran", "started", "took", "sent", "fetched")


@contextmanager
def own_state() -> Iterator[Path]:
    """Give Remora a state directory of its own; end whatever it has started when all is over."""
    with tempfile.TemporaryDirectory(prefix="remora-demo-") as folder:
        os.environ[STATE_DIRECTORY.name] = folder
        try:
            yield Path(folder)
        finally:
            # which returns when nothing of it writes there any more
            subprocess.run([sys.executable, "-m", "remora", "stop", "--all"], check=True, stdout=subprocess.DEVNULL)


def copy(target: Path) -> Path:
    """Put the notebook and its files into an empty folder `target`, and return the notebook's path there."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in (f"{NAME}.ipynb", "network.json"):
        shutil.copy(SOURCE / name, target)
    return target / f"{NAME}.ipynb"


def execute(path: Path, log: Path) -> nbformat.NotebookNode:
    """Run the notebook where it lies, print a row for each cell as it ends, and keep the result beside it.

    What the kernel says for itself goes to the file `log`.

    Raises CellExecutionError when a cell fails that is not tagged to do so; what there is by then is kept.
    """
    notebook = nbformat.read(path, as_version=4)

    def keep(cell: Any, execute_reply: Any, **_: Any) -> None:
        figures = execute_reply["metadata"].get("remora")
        if figures:
            cell.metadata["remora"] = figures
        print(row(cell), flush=True)

    runner = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="remora",
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_executed=keep,
    )
    try:
        with log.open("wb") as words:
            runner.execute(stdout=words, stderr=words)
    finally:
        nbformat.write(notebook, path)
        page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": NAME}})
        path.with_suffix(".html").write_text(page, encoding="utf-8")
    return notebook


def row(cell: Any) -> str:
    """Return the row of a cell that has run: its first line, where it ran, and what its metadata says."""
    figures, times = cell.metadata.get("remora", {}), cell.metadata["execution"]
    began, ended = (datetime.fromisoformat(times[k]) for k in ("iopub.execute_input", "shell.execute_reply"))
    where = f"sandbox {figures['sandbox']} ({figures.get('jail', 'not started')})" if figures else "here"
    took = figures.get("elapsed", (ended - began).total_seconds())
    moved = [format_bytes(figures[way]) if figures else "" for way in ("sent", "fetched")]
    failed = next((f" → {output.ename}" for output in cell.outputs if output.output_type == "error"), "")
    title = " ".join(cell.source.split("\n", 2)[:2] if figures else cell.source.split("\n", 1)[:1])
    return ROW.format(title[: WIDTH - len(failed)] + failed, where, f"{began.astimezone():%H:%M:%S}", f"{took:.2f} s", *moved)


def main(target: Path) -> int:
    """Run the demo in the folder `target`, and return its exit code."""
    path = copy(target)
    print(f"remora: running notebooks/{NAME}.ipynb on {os.cpu_count()} cores\n\n{HEAD}\n{'-' * len(HEAD)}", flush=True)
    try:
        with own_state() as state:
            execute(path, state / "kernel.log")
    except (CellExecutionError, RemoraError) as error:
        print(error, file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(
        f"\nThe executed notebook: {os.path.relpath(path)}\nThe same as a page:    {os.path.relpath(path.with_suffix('.html'))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else SOURCE.parent / "demo"))
