"""The notebook before and after its run: read, prepared as papermill prepares it, marked when a cell failed.

Law: pure but for `read` and `load`; the order of cells that are run is never changed here, since the run log counts them.
"""

from __future__ import annotations

import ast
import copy
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..errors import InputError
from . import parameters as values

Notebook = nbformat.NotebookNode
ERROR_TAG = "papermill-error-cell-tag"
"""The tag of the cells that mark a failure; tools that read papermill's notebooks look for it."""
PENDING, RUNNING, COMPLETED, FAILED = "pending", "running", "completed", "failed"
_STYLE = 'style="color:red; font-family:Helvetica Neue, Helvetica, Arial, sans-serif; font-size:2em;"'
_AT_TOP = f"<span {_STYLE}>An Exception was encountered at '<a href=\"#papermill-error-cell\">In [{{}}]</a>'.</span>"
_AT_CELL = f'<span id="papermill-error-cell" {_STYLE}>The run stopped at the exception of this cell:</span>'


def read(path: str) -> Notebook:
    """Return the notebook at a path, "-" for standard input, in the newest form of format 4. InputError if there is none."""
    name = "the notebook on standard input" if path == "-" else f"the notebook {path}"
    return load(_text(path, name), name)


def load(text: str, name: str) -> Notebook:
    """Return the notebook that this text is; `name` is what errors call it."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"{name} is not JSON ({error}); is it a notebook, and whole?") from None
    if not isinstance(data, dict) or "nbformat" not in data or not ("cells" in data or "worksheets" in data):
        raise InputError(f"{name} is JSON, but no notebook; a notebook has nbformat and cells")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            notebook: Notebook = nbformat.v4.upgrade(nbformat.reads(text, as_version=4))
            nbformat.validate(notebook)
    except Exception as error:  # nbformat raises whatever a malformed or too new notebook leads it to
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise InputError(f"{name} is no valid notebook of format {data['nbformat']}: {said[0]}") from None
    return notebook


def _text(path: str, name: str) -> str:
    if "://" in path:
        raise InputError(f"{name} is not on this machine; download it first, or write - and pipe it in")
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"there is no notebook {path}; give the path of an .ipynb file, or - for standard input") from None
    except UnicodeError:
        raise InputError(f"{name} is not JSON (it is no text); is it a notebook?") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from None


def prepare(notebook: Notebook, given: Mapping[str, Any], report: bool, paths: tuple[str, str]) -> list[str]:
    """Make a notebook ready to run: parameters in their cell, no outputs, papermill's metadata. Returns lines to be said."""
    notebook.cells = [cell for cell in notebook.cells if ERROR_TAG not in tags(cell)]
    said = _inject(notebook, given, report) if given else []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if report:
                cell.metadata.setdefault("jupyter", {})["source_hidden"] = True
        cell.metadata.setdefault("tags", [])
        cell.metadata.pop("remora", None)
        cell.metadata["papermill"] = {
            "exception": None,
            "start_time": None,
            "end_time": None,
            "duration": None,
            "status": PENDING,
        }
    about: dict[str, Any] = {"default_parameters": {}, "environment_variables": {}, "parameters": dict(given)}
    about |= {"input_path": paths[0], "output_path": paths[1]}
    notebook.metadata["papermill"] = about | {"start_time": None, "end_time": None, "duration": None, "exception": None}
    notebook.metadata.pop("widgets", None)
    return said


def tags(cell: Notebook) -> list[str]:
    """Return a cell's tags."""
    return list(cell.metadata.get("tags", []))


def _inject(notebook: Notebook, given: Mapping[str, Any], report: bool) -> list[str]:
    """Put the parameters into the injected cell there is, else below the tagged cell, else on top."""
    new = nbformat.v4.new_code_cell(source=values.code(given).rstrip("\n"), metadata={"tags": ["injected-parameters"]})
    if report:
        new.metadata["jupyter"] = {"source_hidden": True}
    injected, tagged = _first(notebook, "injected-parameters"), _first(notebook, "parameters")
    if injected is not None:
        new["id"] = notebook.cells[injected].get("id", new["id"])
        notebook.cells[injected] = new
        return []
    notebook.cells.insert(0 if tagged is None else tagged + 1, new)
    return ["no cell has the tag `parameters`, so the parameters are set on top"] if tagged is None else []


@dataclass(frozen=True)
class Declared:
    """A parameter as the tagged cell declares it: its default as code, its type and its comment."""

    name: str
    default: str
    kind: str = ""
    help: str = ""


def declared(notebook: Notebook) -> list[Declared]:
    """Return the parameters that the tagged cell sets; none where it is no plain Python."""
    index = _first(notebook, "parameters")
    source = notebook.cells[index].source if index is not None else ""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return []
    lines = source.splitlines()
    return [found for s in statements for found in _declared(s, lines[(s.end_lineno or 1) - 1][s.end_col_offset or 0 :])]


def _declared(statement: ast.stmt, rest: str) -> list[Declared]:
    """Read one statement and the comment behind it, which may begin with `type:`."""
    kind, help = "", rest.partition("#")[2].strip()
    if help.startswith("type:"):
        kind, _, help = (part.strip() for part in help.removeprefix("type:").strip().partition(" "))
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is not None:
        return [Declared(statement.target.id, ast.unparse(statement.value), ast.unparse(statement.annotation), help)]
    if isinstance(statement, ast.Assign):
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        return [Declared(name, ast.unparse(statement.value), kind, help) for name in names]
    return []


def _first(notebook: Notebook, tag: str) -> int | None:
    return next((index for index, cell in enumerate(notebook.cells) if tag in tags(cell)), None)


def marked(notebook: Notebook, failed: int | None) -> Notebook:
    """Return the notebook with a mark on top and before the failed cell; as it is if none failed."""
    if failed is None:
        return notebook
    cells = list(notebook.cells)
    count = cells[failed].get("execution_count")
    cells.insert(failed, _mark("papermill-error-cell", _AT_CELL))
    cells.insert(0, _mark("papermill-error-top", _AT_TOP.format(" " if count is None else count)))
    shown = copy.copy(notebook)
    shown["cells"] = cells
    return shown


def _mark(name: str, text: str) -> Notebook:
    cell: Notebook = nbformat.v4.new_markdown_cell(text, id=name, metadata={"tags": [ERROR_TAG]})
    return cell
