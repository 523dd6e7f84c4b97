"""Notebooks read, prepared as papermill prepares them, and marked."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import nbformat
import pytest
from remora.errors import InputError
from remora.headless.document import ERROR_TAG, Declared, Notebook, declared, load, marked, prepare, read, tags

OLD = {
    "nbformat": 3,
    "nbformat_minor": 0,
    "metadata": {"name": "x"},
    "worksheets": [
        {
            "metadata": {},
            "cells": [{"cell_type": "code", "input": ["1 + 1"], "language": "python", "outputs": [], "metadata": {}}],
        }
    ],
}


def notebook(*cells: tuple[str, list[str]]) -> Notebook:
    """Return a notebook of code cells with tags."""
    made = [nbformat.v4.new_code_cell(text, metadata={"tags": tagged}) for text, tagged in cells]
    return nbformat.v4.new_notebook(cells=made)


def sources(found: Notebook) -> list[str]:
    """Return the texts of all cells."""
    return [cell.source for cell in found.cells]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "not JSON"),
        ("[1]", "no notebook"),
        ('{"a": 1}', "no notebook"),
        ('{"nbformat": 9, "nbformat_minor": 0, "metadata": {}, "cells": []}', "format 9"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "odd"}]}', "no valid notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}', "no valid notebook"),
    ],
)
def test_what_is_no_notebook_is_said_in_one_line(text: str, words: str) -> None:
    """Text, other JSON, a format to come and a broken notebook are told apart."""
    with pytest.raises(InputError, match=words) as caught:
        load(text, "the notebook x")
    assert "\n" not in str(caught.value)


def test_an_old_notebook_is_upgraded() -> None:
    """Format 3 becomes 4.5, with cell ids."""
    found = load(json.dumps(OLD), "x")
    assert (found.nbformat, found.nbformat_minor, sources(found)) == (4, 5, ["1 + 1"])
    assert found.cells[0].id


@pytest.mark.parametrize(
    ("path", "words"), [("nope.ipynb", "there is no notebook"), (".", "cannot be read"), ("s3://a/b", "not on this machine")]
)
def test_a_notebook_that_cannot_be_read_is_named(path: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing files, folders and addresses elsewhere."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        read(path)
    (tmp_path / "binary.ipynb").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no text"):
        read("binary.ipynb")


def test_a_notebook_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """- stands for it."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(nbformat.writes(notebook(("1", [])))))
    assert sources(read("-")) == ["1"]


def test_parameters_go_below_the_tagged_cell_or_on_top_or_where_they_were() -> None:
    """Below `parameters`, in place of `injected-parameters`, else first, and that is said."""
    below = notebook(("1", []), ("a = 1", ["parameters"]), ("2", []))
    assert prepare(below, {"a": 2}, False, ("i", "o")) == []
    assert sources(below) == ["1", "a = 1", "# Parameters\na = 2", "2"]
    assert prepare(below, {"a": 3}, False, ("i", "o")) == []
    assert sources(below) == ["1", "a = 1", "# Parameters\na = 3", "2"]
    top = notebook(("1", []))
    assert "no cell has the tag" in prepare(top, {"a": 2}, False, ("i", "o"))[0]
    assert tags(top.cells[0]) == ["injected-parameters"]
    none = notebook(("1", []))
    assert (prepare(none, {}, False, ("i", "o")), len(none.cells)) == ([], 1)


def test_an_executed_notebook_is_prepared_afresh() -> None:
    """Outputs, counts, marks of a failure, figures and widget state of an earlier run are gone."""
    used = notebook(("1", []), ("2", []))
    used.cells[0].outputs, used.cells[0].execution_count = [nbformat.v4.new_output("stream", text="x")], 7
    used.cells[0].metadata["remora"] = {"seconds": 1}
    used.metadata["widgets"] = {}
    again = marked(used, 1)
    prepare(again, {}, False, ("i", "o"))
    assert len(again.cells) == 2
    assert (again.cells[0].outputs, again.cells[0].execution_count) == ([], None)
    assert "remora" not in again.cells[0].metadata
    assert "widgets" not in again.metadata
    assert again.metadata.papermill.input_path == "i"


def test_report_mode_hides_code() -> None:
    """Every code cell is hidden, the injected one too."""
    found = notebook(("1", []))
    prepare(found, {"a": 1}, True, ("i", "o"))
    assert [cell.metadata["jupyter"]["source_hidden"] for cell in found.cells] == [True, True]


def test_marks_stand_on_top_and_before_the_failed_cell() -> None:
    """The first links to the second; the notebook itself is not changed, and is valid."""
    found = notebook(("1", []), ("2", []))
    found.cells[1].execution_count = 2
    shown = marked(found, 1)
    assert [ERROR_TAG in tags(cell) for cell in shown.cells] == [True, False, True, False]
    assert "#papermill-error-cell" in shown.cells[0].source
    assert 'id="papermill-error-cell"' in shown.cells[2].source
    assert len(found.cells) == 2
    nbformat.validate(shown)
    assert marked(found, None) is found


def test_declared_parameters_are_read_with_their_types() -> None:
    """Annotations, type comments, help and defaults; no code is run; what is no Python declares nothing."""
    source = "a: int = 1  # how many\nb = 'x'  # type: str its name\nc = d = [1]\nprint(1)"
    found = declared(notebook((source, ["parameters"])))
    assert found == [
        Declared("a", "1", "int", "how many"),
        Declared("b", "'x'", "str", "its name"),
        Declared("c", "[1]"),
        Declared("d", "[1]"),
    ]
    assert declared(notebook(("!ls", ["parameters"]))) == []
    assert declared(notebook(("a = 1", []))) == []
