"""`remora secret`: set in each way, listed without values, forgotten; wrong usage is one line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from remora.vault import Vault

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vault:
    """Give the vault that the commands use."""
    monkeypatch.setenv("REMORA_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("REMORA_KEY_FILE", str(tmp_path / "key"))
    return Vault(tmp_path / "secrets", tmp_path / "key")


def test_pairs_files_and_standard_input(run: Run, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way adds to what there is; nothing shows a value."""
    (tmp_path / "x.env").write_text("B='of the file'\nC=3\n")
    assert run("secret", "set", "mine", "A=a=b")[:2] == (0, "mine: A\n")
    assert run("secret", "set", "mine", "--from-dotenv", str(tmp_path / "x.env"), "C=4")[:2] == (0, "mine: B, C\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("line one\nline two\n"))
    assert run("secret", "set", "mine", "D")[0] == 0
    assert vault.get("mine") == {"A": "a=b", "B": "of the file", "C": "4", "D": "line one\nline two"}
    assert json.loads(run("secret", "ls", "--json")[1]) == [{"name": "mine", "variables": ["A", "B", "C", "D"]}]
    assert run("secret", "ls")[1].split() == ["NAME", "VARIABLES", "mine", "A,", "B,", "C,", "D"]
    assert run("secret", "rm", "mine", "A", "B")[0] == 0
    assert run("secret", "rm", "mine")[0] == 0
    assert run("secret", "ls")[1:] == ("", "there are no secrets; `remora secret set NAME` adds one\n")


class Terminal(io.StringIO):
    """A terminal, as far as a command asks."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_a_terminal_is_asked(run: Run, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable's name is asked for, then its value, which is not shown."""
    asked = []

    def prompt(text: str, **options: object) -> str:
        asked.append((text, bool(options.get("hide_input"))))
        return "TOKEN" if text == "Variable" else "typed"

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(click, "prompt", prompt)
    assert run("secret", "set", "mine")[0] == 0
    assert asked == [("Variable", False), ("TOKEN (is not shown)", True)]
    assert vault.get("mine") == {"TOKEN": "typed"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["set", "a b", "A=hunter2"], "no name of a secret"),
        (["set", "", "A=hunter2"], "no name of a secret"),
        (["set", "mine"], "no variable is named"),
        (["set", "mine", "A", "B"], "standard input holds one value"),
        (["set", "mine", "1A=hunter2"], "no name of a variable"),
        (["set", "mine", "=hunter2"], "no name of a variable"),
        (["set", "mine", "A="], "A has no value"),
        (["set", "mine", "PATH=hunter2"], "PATH is set by Remora itself"),
        (["set", "mine", "--from-dotenv", "none.env"], "none.env cannot be read"),
        (["rm", "mine"], "there is no secret 'mine'; there is none yet"),
    ],
)
def test_wrong_usage(run: Run, words: list[str], said: str) -> None:
    """One line, exit code 2, no value in it, and nothing is set."""
    code, out, err = run("secret", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err and "hunter2" not in err
    assert run("secret", "ls", "--json")[1] == "[]\n"
