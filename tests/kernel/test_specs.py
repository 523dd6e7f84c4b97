"""From options to recipes: bases, packages, what a living session adds, and PEP 723 blocks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from remora import specs
from remora.errors import InputError, OptionError
from remora.images import Image
from remora.images.steps import NamedBase, Pip, PythonBase
from remora.options import CellOptions, build

MIRROR = Image.mirror()
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def recipe(**options: Any) -> Image:
    """Return the recipe of these options."""
    return specs.recipe(build(options), MIRROR)


def packages(image: Image) -> list[tuple[str, ...]]:
    """Return the requirements of each step."""
    return [step.requirements for step in image.steps if isinstance(step, Pip)]


def test_without_options_it_is_the_mirror() -> None:
    """Nothing asked for is the kernel's own environment."""
    assert recipe() is MIRROR


def test_bases() -> None:
    """A version, a name or a recipe to begin with; two of them are refused."""
    assert recipe(python="3.12").base == PythonBase("3.12")
    assert recipe(image="mine").base == NamedBase("mine")
    own = Image.python("3.12").pip_install("a")
    assert recipe(image=own, pip="b").steps == own.pip_install("b").steps
    with pytest.raises(OptionError, match="give one of them"):
        recipe(image="mine", python="3.12")


def test_files_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read where the notebook is, and comes first; paths become absolute; a missing file is named."""
    monkeypatch.chdir(tmp_path)
    Path("r.txt").write_text("a>=1  # why\n\nb\n")
    assert packages(recipe(requirements="r.txt", pip="./c-1.whl d")) == [("a>=1", "b"), (str(tmp_path / "c-1.whl"), "d")]
    with pytest.raises(InputError, match=r"gone\.txt"):
        recipe(requirements="gone.txt")


def test_a_session_grows() -> None:
    """What is new comes as a step on top, what is there does not come again, another base begins anew."""
    first = specs.grown(MIRROR, recipe(pip="a b"))
    assert packages(first) == [("a", "b")]
    second = specs.grown(first, recipe(pip="b c"))
    assert packages(second) == [("a", "b"), ("c",)]
    assert specs.grown(second, recipe(pip="a")) == specs.grown(second, recipe()) == second
    assert specs.grown(second, recipe(pip="a", python="3.12")) == recipe(pip="a", python="3.12")
    with_env = specs.grown(second, MIRROR.env({"A": "1"}))
    assert with_env.steps[:-1] == second.steps
    assert specs.grown(with_env, MIRROR.env({"A": "1"})) == with_env


def script(text: str, **given: Any) -> CellOptions:
    """Return the options of a cell with this block."""
    return specs.with_script(build(given), text)


def test_script_blocks() -> None:
    """Dependencies are pip=, together with those of the line; a table has options, over which the line goes."""
    found = script('dependencies = ["a>=1,<2", "b"]\n[tool.remora]\ncpu = 2\nmemory = "1GiB"\n', pip="c", cpu=4)
    assert found.pip == ("a>=1,<2", "b", "c")
    assert (found.resources.cpu, found.resources.memory) == (4, 2**30)
    assert specs.with_script(build({"cpu": 1}), None) == build({"cpu": 1})


@pytest.mark.parametrize(
    ("needed", "version"), [("", None), (f"=={HERE}.*", None), (">=3.8", None), ("==3.14.*", "3.14"), ("<3.11", "3.10")]
)
def test_requires_python(needed: str, version: str | None) -> None:
    """The kernel's own Python is taken if it will do, else the newest that does."""
    assert script(f'requires-python = "{needed}"').python == version


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dependencies = [", "cannot be read"),
        ("dependencies = 3", "cannot be read"),
        ("tool = 3", "cannot be read"),
        ('dependencies = ["-e ."]', "no requirement"),
        ('requires-python = "soon"', "write it like >=3.11"),
        ('requires-python = "<3"', "met by no Python"),
        ("[tool.remora]\ncpus = 2", "did you mean cpu"),
    ],
)
def test_malformed_blocks(text: str, says: str) -> None:
    """Whatever is wrong in a block is said."""
    with pytest.raises(OptionError, match=says):
        script(text)
