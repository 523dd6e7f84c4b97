"""Papermill's grammar of parameters: what its own code makes of the same words is what ours does."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import pytest
from papermill.cli import _resolve_type
from remora.errors import InputError
from remora.headless.parameters import Given, code, fill, literal, typed

WORDS = [
    "True",
    "False",
    "None",
    "true",
    "null",
    "1",
    "-1",
    "1_000",
    " 3 ",
    "0x10",
    "1.5",
    "1e5",
    "inf",
    "x",
    "",
    "1,2",
    "3a",
]
VALUES = [
    None,
    True,
    3,
    -1.5,
    "a",
    'q"uote',
    "new\nline",
    "back\\slash",
    "ünï 😀",
    "\u2028",
    "\ud800",
    [1, "a"],
    {"a": [1.5, None]},
    {},
    (),
]


@pytest.mark.parametrize("word", WORDS)
def test_words_become_the_values_that_papermill_makes_of_them(word: str) -> None:
    """-p recognises what papermill recognises, and nothing else."""
    theirs = _resolve_type(word)
    assert (typed(word), type(typed(word))) == (theirs, type(theirs))


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_values_survive_as_code(value: object) -> None:
    """The code that sets a parameter gives the value back; a tuple as a list, as YAML has no tuples."""
    assert eval(literal(value)) == (list(value) if isinstance(value, tuple) else value)


def test_numbers_that_have_no_literal_are_written_as_calls() -> None:
    """Infinity and not-a-number are floats in the notebook, too."""
    assert eval(literal(float("-inf"))) == -math.inf
    assert math.isnan(eval(literal(float("nan"))))


def test_the_cell_reads_as_papermills() -> None:
    """A comment, then one assignment a line, texts in double quotes."""
    assert code({"a": 1, "b": "x"}) == '# Parameters\na = 1\nb = "x"\n'


def test_later_sources_win_in_papermills_order(tmp_path: Path) -> None:
    """base64, files, YAML, typed, raw: each overrides those before, whatever their order on the line."""
    (tmp_path / "p.yaml").write_text("a: 2\nb: 2\nday: 2020-01-02\n")
    encoded = base64.b64encode(b"{a: 1, z: 1}").decode()
    given = Given((encoded,), (str(tmp_path / "p.yaml"),), ("{b: 3, c: 3}",), (("c", "4"), ("d", "4")), (("d", "5"),))
    assert given.values({"first": 0}) == {"first": 0, "a": 2, "z": 1, "b": 3, "day": "2020-01-02", "c": 4, "d": "5"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Given(files=("/nowhere/p.yaml",)), "cannot be read"),
        (Given(yaml=("[1, 2]",)), "no names with values"),
        (Given(yaml=("{a: ",)), "not YAML"),
        (Given(base64=("%%%",)), "not base64"),
        (Given(typed=(("1x", "1"),)), "no Python name"),
        (Given(raw=(("class", "1"),)), "no Python name"),
        (Given(yaml=("1: 2",)), "no Python name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_a_parameter_is_one_clear_error(given: Given, words: str) -> None:
    """Each fault names the option, file or name."""
    with pytest.raises(InputError, match=words) as caught:
        given.values({})
    assert "\n" not in str(caught.value)


def test_an_empty_file_of_parameters_is_none(tmp_path: Path) -> None:
    """An empty YAML text sets nothing."""
    assert Given(yaml=("",)).values({}) == {}


def test_paths_may_name_parameters(tmp_path: Path) -> None:
    """{name} is replaced, {pm.…} too; a path that exists as written is left alone; an unknown name is an error."""
    assert fill("out-{epochs}.ipynb", {"epochs": 3}) == "out-3.ipynb"
    assert len(fill("{pm[run_uuid]}", {})) == 36
    (tmp_path / "{x}.ipynb").touch()
    assert fill(str(tmp_path / "{x}.ipynb"), {}).endswith("{x}.ipynb")
    with pytest.raises(InputError, match="no parameter"):
        fill("{nope}.ipynb", {})
