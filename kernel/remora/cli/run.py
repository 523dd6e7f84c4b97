"""`remora run`: a notebook as a batch job, in papermill's grammar, or a function of a script.

Law: what the words mean is papermill's; where Remora differs is in docs/reference/cli.md. What happens to a notebook is in
remora/headless, what happens to a function in functions.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import click

from .. import options as table
from ..errors import OptionError

_TARGET = re.compile(r".+\.py::[^:]+")
_OWN = (
    "on",
    "gpu",
    "cpu",
    "memory",
    "timeout",
    "idle",
    "files",
    "jail",
    "env",
    "secret",
    "pip",
    "apt",
    "requirements",
    "python",
    "image",
)
_REST = "remora.rest"


class RunCommand(click.Command):
    """A command whose words after SCRIPT.py::FUNCTION are the function's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep back what is the function's."""
        at = next((i for i, word in enumerate(args) if _TARGET.fullmatch(word)), None)
        if at is not None:
            ctx.meta[_REST] = args[at + 1 :]
            args = args[: at + 1]
        return super().parse_args(ctx, args)


def _sandbox_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe the sandbox."""
    named = {option.name: option for option in table.OPTIONS}
    for name in reversed(_OWN):
        option = named[name]
        about = f"{option.help} (default: {'none: it ends with the run' if name == 'idle' else option.default})."
        metavar = "NAME=VALUE" if name == "env" else "VALUE"
        add = click.option(f"--{name}", f"box_{name}", multiple=option.repeats, metavar=metavar, help=about)
        command = add(command)
    for name in table.LATER:
        command = click.option(f"--{name}", hidden=True, expose_value=False, callback=_refuse)(command)
    return command


def _refuse(_: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None:
        table.find(str(parameter.name))


@click.command(cls=RunCommand)
@click.argument("notebook", required=False)
@click.argument("output", required=False)
@click.option(
    "-p",
    "--parameters",
    "typed",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="A parameter; numbers, True, False and None are recognised.",
)
@click.option("-r", "--parameters_raw", "raw", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter that stays text.")
@click.option("-f", "--parameters_file", "files", multiple=True, metavar="FILE", help="Parameters from a YAML or JSON file.")
@click.option("-y", "--parameters_yaml", "yaml", multiple=True, metavar="TEXT", help="Parameters as YAML.")
@click.option("-b", "--parameters_base64", "base64", multiple=True, metavar="TEXT", help="Parameters as base64 of YAML.")
@click.option("--inject-input-path", is_flag=True, help="Add the parameter PAPERMILL_INPUT_PATH.")
@click.option("--inject-output-path", is_flag=True, help="Add the parameter PAPERMILL_OUTPUT_PATH.")
@click.option("--inject-paths", is_flag=True, help="Add both.")
@click.option("-k", "--kernel", metavar="NAME", help="The kernel whose Python it runs in, when not the notebook's own.")
@click.option("-l", "--language", metavar="NAME", help="The notebook's language, when it does not say; it must be Python.")
@click.option("--cwd", metavar="DIR", help="The folder to run in (default: the notebook's).")
@click.option("--prepare-only/--prepare-execute", default=False, help="Write the notebook with its parameters, run nothing.")
@click.option("--report-mode/--no-report-mode", default=False, help="Hide the code in the output.")
@click.option(
    "--autosave-cell-every",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How often to write while a cell runs; 0: after cells only (default: 0.5).",
)
@click.option(
    "--request-save-on-cell-execute/--no-request-save-on-cell-execute",
    "steps",
    default=True,
    help="Write the output as the run goes.",
)
@click.option("--progress-bar/--no-progress-bar", default=None, help="Show how far it is (default: in a terminal).")
@click.option("--log-output/--no-log-output", default=False, help="Print the cells' output as it comes.")
@click.option("--stdout-file", type=click.File("w", encoding="utf-8"), help="Write the cells' standard output to this file, too.")
@click.option("--stderr-file", type=click.File("w", encoding="utf-8"), help="Write the cells' standard error to this file, too.")
@click.option(
    "--log-level",
    type=click.Choice(["NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
    default="INFO",
    help="What to say on standard error.",
)
@click.option(
    "--start-timeout",
    "--start_timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    metavar="SECONDS",
    help="The longest its sandbox may take to start.",
)
@click.option(
    "--execution-timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="The longest one cell may take."
)
@click.option("--help-notebook", is_flag=True, help="Print the notebook's parameters and their defaults.")
@click.option("--detach", is_flag=True, help="Print the run's id and return.")
@_sandbox_options
@click.pass_context
def run(ctx: click.Context, /, notebook: str | None, **given: Any) -> int:
    """Run NOTEBOOK in a sandbox, or call a function: SCRIPT.py::FUNCTION ARGUMENTS.

    OUTPUT is written as it goes. Without it the notebook goes to standard output, or beside NOTEBOOK as NAME.out.ipynb where
    that is a terminal. `-` stands for standard input and output. Exit codes: 0 every cell passed, 1 one failed, 2 wrong usage,
    3 Remora or a machine failed.
    """
    box = {name: given.pop(f"box_{name}") for name in _OWN}
    if notebook is None and sys.stdin.isatty():
        raise click.UsageError("Missing argument 'NOTEBOOK'.", ctx)
    chosen = _chosen(box)
    if notebook is not None and _TARGET.fullmatch(notebook):
        from .calling import call

        return call(notebook, ctx.meta[_REST], chosen, given["detach"])
    from .notebook import run_notebook

    return run_notebook(notebook or "-", chosen, given)


def _chosen(box: dict[str, Any]) -> table.CellOptions:
    """Return the options of the sandbox; those that repeat come as several values."""
    found: dict[str, object] = {}
    for name, value in box.items():
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            try:
                table.add(found, table.find(name), one)
            except OptionError as error:
                raise OptionError(str(error).replace(f"{name}=", f"--{name} ")) from None
    return table.assemble(found)
