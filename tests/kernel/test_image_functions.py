"""Functions of images as text: what goes along, what cannot, and that the text is the same everywhere."""

from __future__ import annotations

import json
import os.path as paths
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import remora
from remora.errors import OptionError
from remora.images.functions import script_of

GREETING = {"hello": ("world", 1)}
STREAM = sys.stdout


def shout(text: str) -> str:
    """Use nothing."""
    return text.upper() + "!"


def greet(name: str, *, times: int = 1) -> None:
    """Use a module, another one under a name of its own, a function, a plain value, and a name that is an attribute elsewhere."""
    told = [shout(name) for _ in range(times)]
    print(json.dumps([told, GREETING["hello"][0], paths.basename("/a/b")]))


def countdown(number: int) -> int:
    """Call itself."""
    return countdown(number - 1) if number else 0


def spoilt() -> None:
    """Use what is no plain value."""
    STREAM.write("x")


def test_a_script_does_what_the_function_does() -> None:
    """It runs by itself, with the arguments."""
    script = script_of(remora.function(greet), ("ann",), {"times": 2})
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["ANN!", "ANN!"], "world", "b"]
    assert script == script_of(greet, ("ann",), {"times": 2})
    assert script != script_of(greet, ("bob",), {"times": 2})
    exec(script_of(countdown, (3,), {}), {})


def closed_over() -> Callable[[], Any]:
    """Return a function that encloses something."""
    kept = 3
    return lambda: kept


@pytest.mark.parametrize(
    ("function", "args", "says"),
    [
        (spoilt, (), "STREAM, which spoilt uses, is a"),
        (greet, (STREAM,), "argument 1 is a"),
        (closed_over(), (), "encloses nothing"),
        (print, (), "a plain function"),
        (lambda: 1, (), "defined with def"),
    ],
)
def test_what_is_no_text(function: Callable[..., Any], args: tuple[Any, ...], says: str) -> None:
    """What cannot be written down is named."""
    with pytest.raises(OptionError, match=says):
        script_of(function, args, {})
