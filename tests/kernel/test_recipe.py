"""Recipes of images: values that only grow, keys that say what is the same, and bad input refused in words that help."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remora.errors import InputError, OptionError
from remora.images import Image
from remora.images import steps as s
from remora.images.elsewhere import ModuleElsewhere, found_there

BARE = Image.python("3.12")
WORDS = st.lists(st.sampled_from(["numpy", "torch>=2.1,<3", "x[extra]==1.0"]), min_size=1, max_size=3)
STEPS = st.one_of(
    WORDS.map(lambda words: s.Pip(tuple(words))),
    WORDS.map(lambda words: s.Run(tuple(words))),
    st.sampled_from([s.Apt(("ffmpeg",)), s.Env((("A", "b"),)), s.Workdir("/data"), s.UvSync("[project]", "lock", ("g",))]),
)


# ---- values ----------------------------------------------------------------------------------------------------------------


def test_each_call_returns_another_image() -> None:
    """An image is never changed: a step makes another one, whose steps stand in the order of the calls."""
    more = BARE.pip_install("a").apt_install("ffmpeg").env({"A": "1"})
    assert BARE.steps == ()
    assert [step.kind for step in more.steps] == ["pip", "apt", "env"]
    assert dataclasses.replace(more, steps=()) == BARE


def test_the_default_is_this_environment() -> None:
    """Without a base an image is the mirror of this very environment."""
    base = Image.mirror().base
    assert isinstance(base, s.MirrorBase)
    assert (base.executable, base.prefix) == (sys.executable, sys.prefix)
    assert Image() == Image.mirror()


@given(st.lists(STEPS, max_size=5))
def test_an_image_is_the_same_on_the_other_side(steps: list[s.Part]) -> None:
    """Through JSON and back nothing is lost, the keys included."""
    image = BARE.with_steps(steps)
    again = Image.from_dict(json.loads(json.dumps(image.to_dict())))
    assert again == image
    assert again.keys == image.keys


@given(st.lists(STEPS, min_size=1, max_size=4), STEPS)
def test_a_key_depends_on_all_below_it(steps: list[s.Part], other: s.Part) -> None:
    """A changed step changes its own key and all above, none below; equal beginnings have equal keys."""
    image = BARE.with_steps(steps)
    grown = image.with_steps([other])
    assert grown.keys[: len(image.keys)] == image.keys
    assert Image.python("3.11").with_steps(steps).keys[-1] != image.keys[-1]
    assert len(set(grown.keys)) == len(grown.keys)


def test_what_has_its_default_changes_no_key() -> None:
    """A field that is not used is not part of the key, so that a new one leaves old images what they are."""
    assert s.Pip(("a",)).to_dict() == {"kind": "pip", "requirements": ["a"]}


def test_force_build_makes_another_key() -> None:
    """A step that is forced differs from itself."""
    first, second = (BARE.pip_install("a", force_build=True) for _ in range(2))
    assert len({first.keys[-1], second.keys[-1], BARE.pip_install("a").keys[-1]}) == 3


def test_nothing_to_install_is_no_step() -> None:
    """Empty lists add nothing."""
    assert BARE.pip_install() is BARE
    assert BARE.pip_install([]) is BARE
    assert BARE.apt_install() is BARE


def test_words_come_one_by_one_or_in_lists() -> None:
    """Packages may be given as Modal takes them."""
    assert BARE.pip_install("a", ["b", "c"]) == BARE.pip_install(["a", "b", "c"])
    assert BARE.uv_pip_install("a") == BARE.pip_install("a")


# ---- files -----------------------------------------------------------------------------------------------------------------


def test_requirements_are_read_when_they_are_written_down(tmp_path: Path) -> None:
    """Comments, nested files and continued lines are understood; a later change of the file changes no image."""
    (tmp_path / "more.txt").write_text("b==2  # two\n")
    file = tmp_path / "requirements.txt"
    file.write_text("# first\na>=1, \\\n  <2\n-r more.txt\n\nc @ file:///c.whl\n")
    image = BARE.pip_install_from_requirements(file)
    file.write_text("")
    (step,) = image.steps
    assert isinstance(step, s.Pip)
    assert [" ".join(r.split()) for r in step.requirements] == ["a>=1, <2", "b==2", "c @ file:///c.whl"]


def test_dependencies_of_a_pyproject(tmp_path: Path) -> None:
    """A project's dependencies and chosen extras are taken; an extra that is not there is named with those that are."""
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\nname = "p"\ndependencies = ["a"]\noptional-dependencies = {plot = ["b"], dev = ["c"]}\n')
    assert BARE.pip_install_from_pyproject(file, "plot") == BARE.pip_install("a", "b")
    with pytest.raises(OptionError, match="'plots'; it has dev, plot"):
        BARE.pip_install_from_pyproject(file, ["plots"])


def test_uv_projects(tmp_path: Path) -> None:
    """The texts of both files are part of the step; a missing lock says how to make it."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(InputError, match="uv lock"):
        BARE.uv_sync(tmp_path)
    (tmp_path / "uv.lock").write_text("version = 1\n")
    (step,) = BARE.uv_sync(tmp_path, groups="dev").steps
    assert step == s.UvSync("[project]\n", "version = 1\n", ("dev",))


def test_nothing_is_built_on_files_that_come_late(tmp_path: Path) -> None:
    """What is added when a sandbox starts comes last; copied files may come before other steps."""
    late = BARE.add_local_dir(tmp_path, "/data")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    docker = Image.from_dockerfile(tmp_path / "Dockerfile")
    told = docker.as_of_now().base
    (tmp_path / "more").write_text("x")
    assert docker.as_of_now().base != told
    before = late.as_of_now()
    assert before.steps[-1] != late.steps[-1] and before == late.as_of_now()
    with pytest.raises(OptionError, match="copy=True"):
        late.pip_install("a")
    assert BARE.add_local_dir(tmp_path, "/data", copy=True).pip_install("a").steps[-1] == s.Pip(("a",))


def test_sources_of_modules_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module's file or a package's folder is added; a module that cannot be imported is named."""
    (tmp_path / "single.py").touch()
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    steps = BARE.add_local_python_source("single", "whole").steps
    assert [step.source for step in steps if isinstance(step, s.Local)] == [str(tmp_path / "single.py"), str(tmp_path / "whole")]
    with pytest.raises(InputError, match="'not_there' cannot be imported"):
        BARE.add_local_python_source("not_there")


# ---- bad input -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Image.python("2.7"), "python=3.12"),
        (lambda: Image.debian_slim(release="../etc"), "bookworm"),
        (lambda: Image.from_registry("a b"), "docker.io/library/python"),
        (lambda: Image.from_name("a/../b"), "no name of an image"),
        (lambda: BARE.apt_install("ffmpeg; rm -rf /"), "ffmpeg"),
        (lambda: BARE.apt_install("-o=x"), "no package"),
        (lambda: BARE.pip_install(3), "no text"),
        (lambda: BARE.pip_install(" "), "no text"),
        (lambda: BARE.env({"A=B": "c"}), "no name of an environment variable"),
        (lambda: BARE.workdir("data"), "begins with /"),
        (lambda: BARE.workdir("/a/../../etc"), "no path inside"),
        (lambda: Image.from_dict({"base": {"kind": "pip"}}), "cannot begin with"),
        (lambda: Image.from_dict({"base": {"kind": "moon"}}), "same version"),
        (lambda: Image.from_dict({"base": {"kind": "mirror", "colour": 1}}), "has no colour"),
        (lambda: Image.from_dict({"base": 7}), "same version"),
        (lambda: Image.from_dict({}), "no image"),
        (lambda: Image.from_dict({"base": {"kind": "mirror"}, "steps": 7}), "no image"),
    ],
)
def test_bad_words_are_refused(make: types.FunctionType, words: str) -> None:
    """What cannot be meant is an OptionError that says what to write."""
    with pytest.raises(OptionError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: BARE.pip_install_from_requirements(folder / "none.txt"), "none.txt cannot be read"),
        (lambda folder: Image.from_dockerfile(folder / "Dockerfile"), "Dockerfile cannot be read"),
        (lambda folder: BARE.add_local_file(folder / "none", "/x"), "is not there"),
        (lambda folder: BARE.pip_install_from_pyproject(folder / "bad.toml"), "no TOML"),
        (lambda folder: BARE.pip_install_from_requirements(folder / "odd.txt"), "index_url="),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, make: types.FunctionType, words: str) -> None:
    """A file that cannot be used is an InputError that names it."""
    (tmp_path / "bad.toml").write_text("= = =")
    (tmp_path / "odd.txt").write_text("--index-url https://example.org/simple\n")
    with pytest.raises(InputError, match=words):
        make(tmp_path)


# ---- modules that only the image has ---------------------------------------------------------------------------------------

_BLOCK = """
from remora.images import Image
with Image.python("3.12").imports():
    import json
    import only_there.deep as deep
    import only_there.other
    from only_there import name as renamed
"""


def test_imports_of_what_only_the_image_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing here becomes a stand-in that says where it is; what is here is imported."""
    (tmp_path / "uses_image.py").write_text(_BLOCK)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("uses_image")
    try:
        assert module.json is json
        assert repr(module.deep) == "<only_there.deep, in the image only>"
        assert repr(module.renamed) == "<only_there.name, in the image only>"
        with pytest.raises(ModuleNotFoundError, match="only_there is in the image only"):
            module.only_there.other()
    finally:
        del sys.modules["uses_image"]


def test_a_stand_in_travels_as_what_it_stands_for() -> None:
    """On the other side it is the real thing if that is installed there, and a stand-in again if not."""
    assert pickle.loads(pickle.dumps(ModuleElsewhere("json"))) is json
    assert pickle.loads(pickle.dumps(ModuleElsewhere("json", "dumps"))) is json.dumps
    assert isinstance(found_there("only_there"), ModuleElsewhere)


def test_other_errors_of_the_block_are_raised() -> None:
    """Only an import that fails is passed over."""
    with pytest.raises(ZeroDivisionError), BARE.imports():
        raise ZeroDivisionError
