"""`remora run SCRIPT.py::FUNCTION …`: the script is loaded here, the function runs there, what it returns is printed here."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
import types
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from ..errors import InputError, RemoraError
from ..options import CellOptions
from .words import arguments

_THERE = "In the sandbox:"


def call(target: str, words: list[str], chosen: CellOptions, detach: bool) -> int:
    """Call the function in a sandbox, print what it returns, and return the exit code."""
    from ..functions import Function

    path, _, name = target.rpartition("::")
    try:
        found = _find(load(path), path, name)
    except Exception as error:  # the script's own code runs when it is loaded
        return _failed(error)
    retries = found._retries if isinstance(found, Function) else 0
    options = chosen.over(found._options) if isinstance(found, Function) else chosen
    function: Function[..., Any] = Function(_plain(found), options, retries)
    args, kwargs = arguments(_plain(found), words)
    if detach:
        click.echo(function.spawn(*args, **kwargs).id)
        return 0
    try:
        value = function.remote(*args, **kwargs)
    except Exception as error:  # whatever the function raises comes home as it is
        return _failed(error)
    if value is not None:
        click.echo(value if isinstance(value, str) else repr(value))
    return 0


def _failed(error: Exception) -> int:
    """Print an exception of the user's code as the code saw it, and return the exit code; raises what is ours."""
    if isinstance(error, RemoraError) and error.exit_code != 1:
        raise error
    there = [note for note in getattr(error, "__notes__", []) if note.startswith(_THERE)]
    text = there[0] if there else "".join(traceback.format_exception(error))
    click.echo(text.rstrip("\n"), err=True)
    return 1


def load(path: str) -> types.ModuleType:
    """Import a script from its file, as `python SCRIPT` does but for its `__main__` part."""
    if not Path(path).is_file():
        raise InputError(f"there is no script {path}; write it like train.py::main")
    module_name = Path(path).stem
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _find(module: types.ModuleType, path: str, name: str) -> Any:
    found = getattr(module, name, None)
    if not callable(found):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        near = get_close_matches(name, names, 1)
        raise InputError(f"{path} has no function {name}{f'; did you mean {near[0]}?' if near else ''}")
    return found


def _plain(found: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = inspect.unwrap(found)
    return function
