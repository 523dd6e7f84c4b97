"""The Python behind a kernel's name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from remora.errors import InputError
from remora.headless.kernels import installed, place
from remora.images import Image


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what adds a kernelspec, in a place where no others are looked for first."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def add(name: str, spec: Any) -> None:
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))

    return add


def test_no_name_and_the_native_names_are_this_python(add: Any) -> None:
    """A kernelspec that says just "python", or names this interpreter, is this environment too."""
    ours = Image()
    add("same", {"argv": [sys.executable, "-m", "ipykernel_launcher"], "language": "python", "env": {"A": "b"}})
    add("generic", {"argv": ["python3", "-m", "ipykernel_launcher"]})
    for name in (None, "python3", "remora", "same", "generic"):
        assert place(name, False).image == ours
    assert place("same", False).environment == (("A", "b"),)
    assert {"same", "generic"} <= set(installed())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"argv": ["R"], "language": "R"}, "runs R"),
        ({"argv": ["/nowhere/python"], "language": "python"}, "no Python on this machine"),
        ({"argv": ["/bin/ls"], "language": "python"}, "no Python on this machine"),
        ({"argv": []}, "no Python on this machine"),
        ("{", "cannot be read"),
        ("[]", "is none"),
    ],
)
def test_a_kernel_that_cannot_be_run_says_why(add: Any, spec: Any, words: str) -> None:
    """Other languages, interpreters that are gone, broken kernelspecs."""
    add("odd", spec)
    with pytest.raises(InputError, match=words):
        place("odd", True)


def test_a_kernel_that_is_not_there_lists_those_that_are(add: Any) -> None:
    """Whether the command line or the notebook names it."""
    add("there", {"argv": ["python"]})
    with pytest.raises(InputError, match=r"there is no kernel nope; .*there"):
        place("nope", True)
    with pytest.raises(InputError, match="the notebook wants the kernel nope"):
        place("nope", False)


def test_an_interpreter_that_fails_says_so(add: Any, tmp_path: Path) -> None:
    """Its last line is passed on."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    broken.chmod(0o755)
    add("broken", {"argv": [str(broken)], "language": "python"})
    with pytest.raises(InputError, match="it is broken"):
        place("broken", True)
