"""A handle says where its value lives, and nothing that is done with it goes unnoticed."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from remora.errors import SendError
from remora.sync import RemoteValue, encode, lives_in


@pytest.fixture
def handle() -> Any:
    """Give a handle of a generator in the session main."""
    return RemoteValue("g", "generator", "<generator object f at 0x1>\nsecond line", "main", "its frame runs in that process")


USES: dict[str, Callable[[Any], object]] = {
    "attribute": lambda g: g.send,
    "set attribute": lambda g: setattr(g, "a", 1),
    "delete attribute": lambda g: delattr(g, "a"),
    "call": lambda g: g(),
    "iteration": lambda g: list(g),
    "next": lambda g: next(g),
    "membership": lambda g: 1 in g,
    "item": lambda g: g[0],
    "set item": lambda g: g.__setitem__(0, 1),
    "length": lambda g: len(g),
    "truth": lambda g: bool(g),
    "addition": lambda g: g + 1,
    "right addition": lambda g: 1 + g,
    "comparison": lambda g: g < 1,
    "equality": lambda g: g == 1,
    "negation": lambda g: -g,
    "with": lambda g: g.__enter__(),
    "int": lambda g: int(g),
    "path": lambda g: os.fspath(g),
    "pickle": lambda g: pickle.dumps(g),
    "copy": lambda g: copy.copy(g),
    "star": lambda g: [*g],
}


@pytest.mark.parametrize("use", USES)
def test_every_use_says_where_the_value_lives(use: str, handle: Any) -> None:
    """The error names the variable, its type, its session, and what to do."""
    with pytest.raises(
        SendError, match=r"g \(generator\) lives in sandbox 'main' .*; use it in remote cells of that session"
    ) as caught:
        USES[use](handle)
    assert caught.value.reason == "remote-only"


def test_printing_shows_one_line(handle: Any) -> None:
    """A cell that ends with the name shows what it is."""
    assert repr(handle) == str(handle) == "<g: generator in sandbox 'main': <generator object f at 0x1> second line>"


def test_a_long_text_is_cut() -> None:
    """A handle never holds more than a short text."""
    assert len(repr(RemoteValue("x", "T", "a" * 10**6, "main"))) < 200


def test_inspectors_find_nothing(handle: Any) -> None:
    """IPython asks any object for display methods; that is no use of the value."""
    assert not hasattr(handle, "_repr_html_")
    assert not hasattr(handle, "_ipython_display_")
    assert type(handle) is RemoteValue


def test_it_can_be_kept_in_sets_and_compared_by_identity(handle: Any) -> None:
    """Namespaces and inspectors use handles as keys."""
    assert handle in {id(handle): 1} or {handle: 1}


def test_a_session_is_known_without_touching(handle: Any) -> None:
    """The ledger asks where a value lives."""
    assert lives_in(handle) == "main"
    assert lives_in(5) is None


def test_inside_another_value_it_is_named_with_its_path(handle: Any) -> None:
    """A list that holds a handle cannot travel, and the message says which place."""
    error = encode({"x": [1, handle]}, namespace={}).failures["x"]
    assert str(error).startswith("x[1]: ")
    assert "lives in sandbox 'main'" in str(error)
