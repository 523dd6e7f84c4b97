"""Settings: read when asked for, each with a default and help, and the state directory in every situation."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
import remora
from remora import settings
from remora.errors import OptionError
from remora.settings import BACKEND_IDLE, SETTINGS, STATE_DIRECTORY, Setting, state_directory


@pytest.fixture(autouse=True)
def _untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without any setting."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.name, raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_every_setting_is_named_and_explained(setting: Setting) -> None:
    """Names begin with REMORA_, help is a sentence."""
    assert setting.name.startswith("REMORA_")
    assert setting.help.endswith(".")
    assert setting.text == setting.default


def test_every_setting_is_listed_once() -> None:
    """The list has every setting of the file, so that the documentation can show it."""
    made = [value for value in vars(settings).values() if isinstance(value, Setting)]
    assert {s.name for s in made} == {s.name for s in SETTINGS}
    assert len({s.name for s in SETTINGS}) == len(SETTINGS)


def test_a_setting_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the environment counts at once; an empty value is none."""
    monkeypatch.setenv(BACKEND_IDLE.name, "7.5")
    assert BACKEND_IDLE.seconds == 7.5
    monkeypatch.setenv(BACKEND_IDLE.name, "")
    assert BACKEND_IDLE.seconds == 1800


@pytest.mark.parametrize("value", ["soon", "10m", "1,5", "nan", "-1", "0x10", " ", "1 2"])
def test_a_time_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The error names the setting and what it holds."""
    monkeypatch.setenv(BACKEND_IDLE.name, value)
    with pytest.raises(OptionError, match="REMORA_BACKEND_IDLE"):
        _ = BACKEND_IDLE.seconds


@pytest.mark.parametrize(("value", "seconds"), [("0", 0.0), ("1e3", 1000.0), ("inf", float("inf")), (" 5 ", 5.0)])
def test_times_that_are_understood(monkeypatch: pytest.MonkeyPatch, value: str, seconds: float) -> None:
    """Numbers in any spelling; inf is never."""
    monkeypatch.setenv(BACKEND_IDLE.name, value)
    assert BACKEND_IDLE.seconds == seconds


def test_where_the_state_directory_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The setting wins, then the desktop's, then the home; always absolute, never made by looking."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_directory() == tmp_path / ".local" / "state" / "remora"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_directory() == tmp_path / "xdg" / "remora"
    monkeypatch.setenv(STATE_DIRECTORY.name, "~/own")
    assert state_directory() == tmp_path / "own"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STATE_DIRECTORY.name, "here")
    assert state_directory() == tmp_path / "here"
    assert not list(tmp_path.iterdir())


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no home directory gets a folder of their own in the temporary one."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(settings.Path, "home", staticmethod(no_home))
    assert state_directory().name == f"remora-{os.getuid()}"


def test_nothing_else_reads_a_setting_from_the_environment() -> None:
    """No other file of the package names a variable of ours in os.environ."""
    readers = []
    for path in Path(remora.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Attribute) and node.attr in {"get", "getenv"}
            if named and path.name != "settings.py" and "guest" not in path.parts:
                source = ast.get_source_segment(path.read_text(encoding="utf-8"), node) or ""
                readers += [path.name] if "environ" in source and "REMORA_" in source else []
    assert not readers
