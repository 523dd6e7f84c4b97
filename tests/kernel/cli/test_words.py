"""Words of a command line become a function's arguments by its type hints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from remora.cli.words import arguments
from remora.errors import OptionError


def typed(
    n: int, rate: float = 0.1, *, mode: Literal["fast", "slow"] = "fast", deep: bool = False, where: Path | None = None
) -> None:
    """Take values of many types."""


def plain(a, b="x", *rest, flag=True, **more):  # type: ignore[no-untyped-def]  # a function without hints is what is tested
    """Take values without types."""


def collections(
    names: list[str], sizes: tuple[int, ...] = (), table: dict[str, int] | None = None, many: set[int] | None = None
) -> None:
    """Take several values at once."""


@pytest.mark.parametrize(
    ("function", "line", "args", "kwargs"),
    [
        (typed, "3", (3,), {}),
        (typed, "--n 3 --rate 2", (3, 2.0), {}),
        (typed, "3 --mode slow --deep --where /tmp", (3,), {"mode": "slow", "deep": True, "where": Path("/tmp")}),
        (typed, "3 --no-deep --where none", (3,), {"deep": False, "where": None}),
        (typed, "3 --deep false", (3,), {"deep": False}),
        (typed, "--n=-3", (-3,), {}),
        (typed, "-3", (-3,), {}),
        (plain, "1 2.5 True y", (1, 2.5, True, "y"), {}),
        (plain, "1 --no-flag --other 3", (1,), {"flag": False, "other": 3}),
        (plain, "-- --a", ("--a",), {}),
        (collections, 'a,b 1,2 {"a":1} 3', (["a", "b"], (1, 2), {"a": 1}, {3}), {}),
        (collections, '["a","b"]', (["a", "b"],), {}),
    ],
)
def test_words_are_read_as_the_function_wants_them(
    function: Any, line: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Positions and names, flags, choices, collections; by type, else by what a word looks like."""
    assert arguments(function, line.split()) == (args, kwargs)


@pytest.mark.parametrize(
    ("function", "line", "words"),
    [
        (typed, "x", "--n x is no int"),
        (typed, "", "missing a required argument: 'n'"),
        (typed, "1 --nope 3", "unexpected keyword argument 'nope'"),
        (typed, "1 --mode quick", "none of fast, slow"),
        (typed, "1 --deep maybe", "--rate maybe is no float"),
        (typed, "1 --deep=maybe", "neither true nor false"),
        (typed, "1 --rate", "has no value"),
        (collections, "a 1,x", "--sizes x is no int"),
        (collections, "a 1 {", "no JSON object"),
    ],
)
def test_what_the_function_does_not_take_is_one_clear_error(function: Any, line: str, words: str) -> None:
    """The option and the signature are named."""
    with pytest.raises(OptionError, match=words):
        arguments(function, line.split())
