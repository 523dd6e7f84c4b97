"""The tree of errors: as drawn, each with its reason and exit code, and the same on the other side of a process."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remora import errors
from remora.errors import (
    BackendError,
    InternalError,
    PlaceError,
    ProtocolError,
    RemoraError,
    RemoteError,
    RunEnded,
    StateError,
    UserError,
    from_dict,
)

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RemoraError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_crosses_a_process(kind: type[RemoraError]) -> None:
    """Kind, reason, text and facts are the same after the way through JSON."""
    error = kind("mend it like so: é", reason="special", path="/home/ada", count=3, deep={"list": [1, None]})
    back = from_dict(json.loads(json.dumps(error.to_dict())))
    assert type(back) is kind
    assert (str(back), back.reason, back.facts) == (str(error), "special", error.facts)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_reason_a_code_and_a_sentence(kind: type[RemoraError]) -> None:
    """A reason is a short stable word; the docstring says when the error comes."""
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind("x").reason)
    assert kind.exit_code in {1, 2, 3}
    assert kind.__doc__


def test_no_two_errors_share_a_reason() -> None:
    """A program can tell errors apart by their reason alone."""
    assert len({kind.reason for kind in ALL}) == len(ALL)


def test_the_tree_is_the_drawn_one() -> None:
    """The drawing at the top of the file shows every error under its parent."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in str(errors.__doc__).splitlines():
        if match := re.match(r"^( {4}|    [│ ├└─]+)([A-Z]\w+)", line):
            depth = len(match[1])
            above = [entry for entry in above if entry[0] < depth]
            drawn[match[2]] = above[-1][1] if above else ""
            above.append((depth, match[2]))
    real = {kind.__name__: "" if kind is RemoraError else str(kind.__base__.__name__) for kind in ALL if kind.__base__}
    assert drawn == real


@pytest.mark.parametrize(
    ("kind", "code"), [(UserError, 2), (PlaceError, 3), (RemoteError, 1), (InternalError, 3), (RunEnded, 3), (BackendError, 3)]
)
def test_exit_codes_say_whose_fault_it_is(kind: type[RemoraError], code: int) -> None:
    """The user's mistake is 2, code that failed is 1, everything else 3."""
    assert kind.exit_code == code


def test_a_cell_shows_one_line() -> None:
    """IPython prints the kind, the reason and the text, and no traceback of ours."""
    assert StateError("the disk is full; free space")._render_traceback_() == [
        "StateError [state-directory]: the disk is full; free space"
    ]


def test_a_reason_of_its_own_does_not_stick_to_the_class() -> None:
    """A more precise reason belongs to one error only."""
    assert ProtocolError("x", reason="odd").reason == "odd"
    assert ProtocolError("x").reason == "protocol"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"error": "FromTheFuture", "reason": "new", "message": "m", "facts": {"a": 1}},
        {"error": None, "reason": None, "message": None, "facts": None},
        {"error": "RemoraError", "facts": ["no", "mapping"]},
        {"error": "Exception", "message": "not one of ours"},
        {"error": "StateError", "message": 7, "reason": 8, "facts": 9},
        {"error": "RunEnded", "message": "m", "facts": {"message": "x", "reason": "y", "self": "z"}},
    ],
)
def test_whatever_the_other_side_says_becomes_an_error_of_ours(data: dict[str, Any]) -> None:
    """An unknown or malformed error is still a RemoraError."""
    assert isinstance(from_dict(data), RemoraError)


def test_an_error_of_a_newer_version_keeps_what_it_says() -> None:
    """Text, reason and facts survive when the kind is not known."""
    error = from_dict({"error": "FromTheFuture", "reason": "new", "message": "do this", "facts": {"a": 1}})
    assert type(error) is RemoraError
    assert (str(error), error.reason, error.facts) == ("do this", "new", {"a": 1})


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["error", "reason", "message", "facts", "more"]), st.none() | st.text() | st.integers()))
def test_no_dictionary_is_too_odd(data: dict[str, Any]) -> None:
    """from_dict never raises."""
    assert isinstance(from_dict(data), RemoraError)
