"""What `remora run NOTEBOOK` comes to: options become a prepared notebook, a place to write to, and a run."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..errors import InputError, OptionError
from ..headless import document, kernels, naming, parameters, running, starting
from ..headless.console import Clock, Console
from ..headless.job import Job
from ..headless.paper import PAUSE, Paper
from ..jupyter.kept import NAMED, default_of
from ..options import CellOptions

_LEVELS = {"NOTSET": 0, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
Given = dict[str, Any]


class Voice:
    """Says what is going on, on standard error, if it is loud enough."""

    def __init__(self, console: Console, level: str) -> None:
        """Say what is at least of this level."""
        self._console, self._level = console, _LEVELS[level]

    def info(self, line: str) -> None:
        """Say what papermill logs as information."""
        if self._level <= _LEVELS["INFO"]:
            self._console.say(line)

    def warn(self, line: str) -> None:
        """Say what the user may have meant otherwise."""
        if self._level <= _LEVELS["WARNING"]:
            self._console.say(f"remora: {line}")


def run_notebook(source: str, chosen: CellOptions, given: Given) -> int:
    """Carry out the command and return its exit code."""
    values = parameters.Given(given["base64"], given["files"], given["yaml"], given["typed"], given["raw"])
    if given["help_notebook"]:
        return _help(source)
    source, out, found = _paths(source, given, values)
    notebook = document.read(source)
    console = _console(given, out)
    voice = Voice(console, "ERROR" if out == "-" and given["log_level"] == "INFO" else given["log_level"])
    for line in [*_unknown(notebook, found), *document.prepare(notebook, found, given["report_mode"], (source, out))]:
        voice.warn(line)
    if given["prepare_only"]:
        return _write(notebook, out)
    wish = replace(_wish(notebook, source, chosen, given), machines=naming.machines(notebook, found))
    pause = PAUSE if given["autosave_cell_every"] is None else given["autosave_cell_every"] or None
    job = running.draft(notebook, out, pause, given["steps"])
    voice.info(f"Input Notebook:  {source}")
    voice.info(f"Output Notebook: {out}")
    if given["detach"]:
        click.echo(running.leave(job, wish, console))
        return 0
    return _run(job, wish, console, voice)


def _run(job: Job, wish: starting.Wish, console: Console, voice: Voice) -> int:
    clock = Clock()
    code = running.run(job, wish, console)
    words = {running.DONE: "every cell passed", running.FAILED: "a cell failed"}.get(code, "interrupted")
    voice.info(f"remora: {words}, {clock} (run {job.run})")
    return code


def _paths(source: str, given: Given, values: parameters.Given) -> tuple[str, str, parameters.Parameters]:
    """Return input, output and parameters; paths may name parameters, and parameters may be the paths."""
    plain = values.values({})
    source = parameters.fill(source, plain)
    out = parameters.fill(given["output"] or _beside(source, given["detach"]), plain)
    first: parameters.Parameters = {}
    if given["inject_input_path"] or given["inject_paths"]:
        first["PAPERMILL_INPUT_PATH"] = source
    if given["inject_output_path"] or given["inject_paths"]:
        first["PAPERMILL_OUTPUT_PATH"] = out
    return source, out, first | plain


def _beside(source: str, detach: bool) -> str:
    if source != "-" and (detach or sys.stdout.isatty()):
        return str(Path(source).with_suffix(".out.ipynb"))
    return "-"


def _console(given: Given, out: str) -> Console:
    copies = {name: given[f"{name}_file"] for name in ("stdout", "stderr") if given[f"{name}_file"] is not None}
    log = given["log_output"] and not given["detach"]
    if log and out == "-":
        raise OptionError("--log-output and the notebook cannot both go to standard output; give the output notebook a name")
    status = given["progress_bar"]
    return Console(log, copies, False if status is None and log else status)


def _unknown(notebook: document.Notebook, found: parameters.Parameters) -> list[str]:
    known = {p.name for p in document.declared(notebook)}
    return [f"the notebook declares no parameter {name}; it is set all the same" for name in found if known and name not in known]


def _write(notebook: document.Notebook, out: str) -> int:
    paper = Paper(out, lambda: notebook)
    paper.check()
    paper.finish()
    return 0


def _wish(notebook: document.Notebook, source: str, chosen: CellOptions, given: Given) -> starting.Wish:
    language = given["language"] or notebook.metadata.get("kernelspec", {}).get("language") or "python"
    if str(language).lower() not in ("python", "python3", "ipython"):
        raise InputError(f"the notebook is in {language}; `remora run` runs Python notebooks")
    asked = given["kernel"]
    name = asked or notebook.metadata.get("kernelspec", {}).get("name")
    return starting.Wish(
        place=_named(kernels.place(name, asked is not None), source),
        options=chosen.over(default_of(notebook.metadata)),
        folder=_folder(source, given["cwd"]),
        name="standard input" if source == "-" else Path(source).name,
        cell_limit=given["execution_timeout"],
        start_limit=given["start_timeout"],
    )


def _named(place: kernels.Place, source: str) -> kernels.Place:
    """Let cells know the notebook's path as Jupyter tells it."""
    path = () if source == "-" else ((NAMED, os.path.abspath(source)),)
    return replace(place, environment=(*path, *place.environment))


def _folder(source: str, cwd: str | None) -> str:
    if cwd is not None and not os.path.isdir(cwd):
        raise InputError(f"there is no folder {cwd} to run in; make it, or give another one with --cwd")
    return os.path.abspath(cwd or (os.getcwd() if source == "-" else os.path.dirname(os.path.abspath(source))))


def _help(source: str) -> int:
    declared = document.declared(document.read(source))
    click.echo(f"Parameters of {source}:")
    for p in declared:
        click.echo(f"  {p.name}: {p.kind or 'unknown type'} (default {p.default})" + (f"  {p.help}" if p.help else ""))
    if not declared:
        click.echo("  none: no cell has the tag `parameters`, or it sets nothing")
    return 0
