"""What a user can name is in the reference: reasons, settings, options, commands. Read off the code, so nothing is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import click
import pytest
from house import sources
from remora import errors, settings, states

_REFERENCE = sources.ROOT / "docs" / "reference"


def _page(name: str) -> str:
    return (_REFERENCE / name).read_text(encoding="utf-8")


def _family(kind: type[errors.RemoraError]) -> Iterator[type[errors.RemoraError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def _here(dotted: str) -> list[str]:
    """Return the module's name if its file exists: what is not built has nothing to document."""
    base = sources.PACKAGES["remora"].joinpath(*dotted.split(".")[1:])
    return [dotted] if base.with_suffix(".py").exists() or (base / "__init__.py").exists() else []


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from _commands(child, f"{name} {child.name}")
    elif not command.hidden:
        yield name, command


def _spellings(command: click.Command) -> list[str]:
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    return [o for option in options for o in option.opts if o.startswith("--") and o != "--help"]


@pytest.mark.parametrize("kind", sorted(_family(errors.RemoraError), key=lambda k: k.__name__), ids=lambda k: k.__name__)
def test_every_error_is_in_the_reference(kind: type[errors.RemoraError]) -> None:
    """Every error class of the tree is listed, with its reason and its exit code."""
    if kind.__module__ != errors.__name__:
        assert f"`{kind.__name__}`" in _page("errors.md")
        return
    row = next((line for line in _page("errors.md").splitlines() if line.startswith(f"| `{kind.__name__}` |")), "")
    assert f"`{kind.reason}`" in row
    assert row.rstrip(" |").endswith(str(kind.exit_code))


@pytest.mark.parametrize("reason", states.EndReason)
def test_every_end_reason_is_in_the_reference(reason: states.EndReason) -> None:
    """Every reason why a run ends is listed, with what to do about it."""
    assert f"| `{reason.value}` |" in _page("errors.md")


@pytest.mark.parametrize("setting", settings.SETTINGS, ids=lambda s: s.name)
def test_every_setting_is_in_the_reference(setting: settings.Setting) -> None:
    """Every setting is listed, and has help text."""
    assert f"| `{setting.name}` |" in _page("settings.md")
    assert setting.help


@pytest.mark.parametrize("module", _here("remora.jupyter.options"))
def test_every_option_is_in_the_reference(module: str) -> None:
    """Every option of %%remote has a row, under each of its spellings."""
    rows = [line.partition(" | ")[0] for line in _page("options.md").splitlines() if line.startswith("| `")]
    known = " ".join(rows)
    options = import_module(module).OPTIONS
    missing = [o.name for o in options if f"`{o.name}`" not in known and f"`--{o.name}`" not in known]
    assert not missing
    assert not [alias for o in options for alias in o.aliases if f"`{alias}`" not in known]


@pytest.mark.parametrize("module", _here("remora.cli"))
def test_every_command_is_in_the_reference(module: str) -> None:
    """Every command and every long option of it is on the page of commands, or is an option of the sandbox."""
    page, options = _page("cli.md"), _page("options.md")
    commands = dict(_commands(import_module(module).main, "remora"))
    assert not [name for name in commands if name not in page]
    spelled = [(name, o) for name, command in commands.items() for o in _spellings(command)]
    assert not [
        f"{name} {o}" for name, o in spelled if f"{o}" not in page and f"`{o[2:]}`" not in options and f"`{o}`" not in options
    ]
