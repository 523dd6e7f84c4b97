"""The IPython extension: `%load_ext remora`, which kernel `remora` does by itself."""

from __future__ import annotations

import sys
from typing import Any

from . import commands
from .front import Front, PlainFront
from .remote import Remote


def _front_of(shell: Any) -> Front:
    """Return the front of this shell's kernel; ipykernel is only loaded where it runs already."""
    if "ipykernel.ipkernel" not in sys.modules:
        return PlainFront(shell)
    from .kernel import front_of

    return front_of(shell)


def load_ipython_extension(shell: Any) -> None:
    """Add `%%remote` and `%remote` to a shell; again is harmless."""
    if getattr(shell, "remora", None) is not None:
        return
    shell.remora = remote = Remote(shell, _front_of(shell))
    remote.front.answer_for(remote)
    _register(shell, remote)
    _show_ready_made_syntax_errors(shell)
    shell.input_transformers_cleanup.insert(0, remote.transformer)
    shell.events.register("pre_run_cell", remote.bind_settled)


def _register(shell: Any, remote: Remote) -> None:
    """Register both magics, with variables left for us to expand, and the list of options as their help."""

    def run_cell(line: str, cell: str) -> Any:
        return remote.run_cell(line, cell)

    def command(line: str) -> Any:
        return remote.command(line)

    for kind, function in (("cell", run_cell), ("line", command)):
        function.__doc__ = commands.command_help()
        function.__dict__["_ipython_magic_no_var_expand"] = True  # what the decorator no_var_expand of IPython sets
        shell.register_magic_function(function, kind, "remote")


def _show_ready_made_syntax_errors(shell: Any) -> None:
    """Let a SyntaxError of a remote cell be shown as it was there: IPython takes a ready-made traceback from any other error."""
    stock = shell.showsyntaxerror

    def show(filename: str | None = None, running_compiled_code: bool = False) -> None:
        kind, error, _ = sys.exc_info()
        render = getattr(error, "_render_traceback_", None)
        if render is None:
            stock(filename, running_compiled_code)
        else:
            shell._showtraceback(kind, error, render())

    shell.showsyntaxerror = show


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics away; sandboxes go on until they are stopped or unused for long."""
    remote = getattr(shell, "remora", None)
    if remote is None:
        return
    shell.input_transformers_cleanup.remove(remote.transformer)
    shell.events.unregister("pre_run_cell", remote.bind_settled)
    for kind in ("cell", "line"):
        shell.magics_manager.magics[kind].pop("remote", None)
    del shell.showsyntaxerror
    remote.front.close()
    shell.remora = None
