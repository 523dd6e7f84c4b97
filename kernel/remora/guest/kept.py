"""Values of secrets that this sandbox was given: variables that hold one go home beside the run log, never in it.

Law: here the guest only finds them in what it is about to send; output is masked outside, by the supervisor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import SendError
from ..sync.codec import Encoded

_SHORTEST = 4  # characters, as for what is masked in output
_WORDS = frozenset({"true", "false", "none", "null"})
_values: dict[str, tuple[bytes, ...]] = {}


def take() -> None:
    """Learn from the environment which variables are secrets; called once, before any code of the user's."""
    names = os.environ.pop("REMORA_SECRETS", "").split(",")
    add({name: os.environ[name] for name in names if name in os.environ})


def add(variables: Mapping[str, str]) -> None:
    """Learn of more secrets."""
    for name, value in variables.items():
        if len(value) >= _SHORTEST and value.lower() not in _WORDS:
            _values[name] = (*_values.get(name, ()), value.encode(), value.encode("utf-32-le"))


def found_in(encoded: Encoded) -> str | None:
    """Return the name of a secret whose value is in these bytes; None if there is none."""
    pieces = (encoded.stream, *encoded.buffers) if _values else ()
    for piece in pieces:
        data = bytes(piece)
        for name, codes in _values.items():
            if any(code in data for code in codes):
                return name
    return None


def refusal(name: str) -> SendError:
    """Return the error of a function whose result cannot go home, since results are kept in the run log."""
    return SendError(
        f"what it returns holds the value of the secret variable {name}, which no run log may hold; return something else"
    )
