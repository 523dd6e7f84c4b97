"""The IPython extension: `%load_ext remora`, which kernel `remora` does by itself."""

from __future__ import annotations

import atexit
import sys
from typing import Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from . import commands
from .front import Front, PlainFront
from .remote import Remote


@magics_class
class RemoteMagics(Magics):  # type: ignore[misc]  # IPython's decorators and base are not typed
    """`%%remote` above a cell, and `%remote` with its commands."""

    def __init__(self, shell: Any, remote: Remote) -> None:
        """Serve this shell."""
        super().__init__(shell)
        self._remote = remote

    @no_var_expand
    @cell_magic("remote")
    def cell(self, line: str, cell: str) -> Any:
        """Run the cell in a sandbox. `%remote?` lists the options."""
        return self._remote.run_cell(line, cell)

    @no_var_expand
    @line_magic("remote")
    def line(self, line: str) -> Any:
        """Show sessions, machines and what is held where, or carry out a command."""
        return self._remote.command(line)


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
    remote = Remote(shell, _front_of(shell))
    shell.remora = remote
    shell.register_magics(RemoteMagics(shell, remote))
    for magic in (RemoteMagics.cell, RemoteMagics.line):
        magic.__doc__ = f"{magic.__doc__}\n\n{commands.command_help()}"
    shell.input_transformers_cleanup.insert(0, remote.transformer)
    shell.events.register("pre_run_cell", remote.bind_settled)
    atexit.register(remote.leave, restart=True)


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics away; sandboxes go on until they are stopped or unused for long."""
    remote = getattr(shell, "remora", None)
    if remote is None:
        return
    shell.input_transformers_cleanup.remove(remote.transformer)
    shell.events.unregister("pre_run_cell", remote.bind_settled)
    for kind in ("cell", "line"):
        shell.magics_manager.magics[kind].pop("remote", None)
    shell.remora = None
