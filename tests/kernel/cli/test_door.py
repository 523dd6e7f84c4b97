"""The front door: light to open, one line and an exit code for each error, open to other packages' commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint

import click
import pytest
from remora import cli
from remora.cli import table
from remora.errors import InputError, RemoteError, RunEnded


def test_nothing_heavy_is_loaded_before_a_command_runs() -> None:
    """`remora --help` loads click, and none of what commands work with."""
    heavy = [
        "asyncio",
        "IPython",
        "ipykernel",
        "nbclient",
        "nbformat",
        "rich",
        "sqlalchemy",
        "yaml",
        "remora.client",
        "remora.headless",
    ]
    code = "import sys\nfrom remora.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in sys.argv[1:] if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "No such command 'nope'"),
        (["run", "--gpuu", "A100", "a.ipynb"], "Did you mean"),
        (["run", "a.ipynb", "--memory", "16"], "--memory 16 is no amount"),
        (["run", "a.ipynb", "--volume", "v"], "cannot do volume= yet"),
        (["run", "a.ipynb", "--jail", "strong"], "one of bubblewrap"),
        (["run", "nope.ipynb", "o.ipynb"], "there is no notebook nope.ipynb"),
        (["run", "nope.ipynb", "o.ipynb", "-f", "nope.yaml"], "nope.yaml cannot be read"),
        (["run", "nope.ipynb", "-", "--log-output"], "there is no notebook"),
        (["run", "nope.py::main"], "there is no script nope.py"),
        (["stop"], "name the sandboxes"),
        (["stop", "a", "--all"], "name the sandboxes"),
    ],
)
def test_wrong_usage_is_one_line_and_2(run: Callable[..., tuple[int, str, str]], words: list[str], said: str) -> None:
    """No traceback, no usage block, nothing on standard output."""
    code, out, err = run(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("remora: ")
    assert said in err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("no such thing"), 2, "remora: no such thing\n"),
        (RunEnded("ended", reason="crashed"), 3, "remora: ended\n"),
        (RemoteError("raised"), 1, "remora: raised\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 0, ""),
        (ZeroDivisionError("ours"), 3, "ZeroDivisionError: ours"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_become_exit_codes(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    """Each kind of error has its code; a fault of ours keeps its traceback and is never taken for the user's."""

    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.main.commands, "fail", click.Command("fail", callback=fail))
    monkeypatch.setattr("os.dup2", lambda *_: None)
    found, _, err = run("fail")
    assert found == code
    assert said in err


def test_a_terminal_obeys_no_error(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error may quote another machine: of that only text, lines and tabs are printed."""

    def fail() -> None:
        raise InputError("one\n\ttwo \x1b]52;c;AAAA\x07 \x9b2J")

    monkeypatch.setitem(cli.main.commands, "fail", click.Command("fail", callback=fail))
    assert run("fail") == (2, "", "remora: one\n\ttwo  ]52;c;AAAA   2J\n")


def test_other_packages_add_commands(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point's command is listed and run; it is loaded when it is used."""
    plugin = EntryPoint("other", f"{__name__}:missing", cli.PLUGINS)
    monkeypatch.setattr(cli, "entry_points", lambda group: [plugin])
    monkeypatch.setattr(EntryPoint, "load", lambda _: click.Command("other", callback=lambda: click.echo("there")))
    assert run("other")[:2] == (0, "there\n")
    assert "other" in run("--help")[1]


def test_the_version_is_that_of_the_distribution(run: Callable[..., tuple[int, str, str]]) -> None:
    """`remora --version`."""
    assert run("--version")[1].startswith("remora 0")


def test_a_listing_is_columns_json_or_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Aligned where it is no terminal; all of it as JSON; nothing is said on standard error."""
    rows = [{"id": "a", "n": 1}, {"id": "longer", "n": 22}]
    columns: table.Columns = {"id": lambda row: str(row["id"]), "n": lambda row: str(row["n"])}
    table.show(rows, columns, False, "none")
    assert capsys.readouterr().out == "ID      N\na       1\nlonger  22\n"
    table.show(rows, columns, True, "none")
    assert json.loads(capsys.readouterr().out) == rows
    table.show([], columns, False, "none")
    assert capsys.readouterr() == ("", "none\n")
    table.show([], columns, True, "none")
    assert capsys.readouterr() == ("[]\n", "")
