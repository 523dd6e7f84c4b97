"""Running one cell, with IPython's own machinery, on the loop that always runs.

Law: a cell that awaits runs as a task of that loop, any other one blocks it, as in ipykernel. Whatever the code does, `execute`
returns; only then do its variables go home.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..wire import Fields, RunId, StartRun
from . import values
from .freshness import tell
from .outcome import Outcome

if TYPE_CHECKING:
    from .service import Guest
    from .shell import ZMQInteractiveShell

_REMOTE = re.compile(r"(?m)^[ \t]*%%remote\b")


@dataclass(frozen=True)
class Cell:
    """One cell's text and how it is to be run."""

    code: str
    silent: bool = False
    store_history: bool = True
    cell_id: str | None = None


async def run_cell(guest: Guest, message: StartRun, outcome: Outcome) -> None:
    """Run a cell that was sent with its variables."""
    body = message.body
    shell = guest.shell
    noted = values.before(guest, body, values.arrive(guest, message))
    shell.execution_count = outcome.execution_count = int(body.get("execution_count") or shell.execution_count)
    cell = Cell(body["code"], bool(body.get("silent")), bool(body.get("store_history", True)), body.get("cell_id"))
    await execute(guest, message.run, cell, outcome)
    values.go_home(guest, body, noted, outcome)


async def execute(guest: Guest, run: RunId, cell: Cell, outcome: Outcome) -> None:
    """Run a cell's text and put its error and its payload, if any, into the outcome."""
    shell = guest.shell
    if "%remote" in cell.code:
        guest.load_remora()
    result = None
    if not _REMOTE.search(cell.code):  # else the sandbox of that cell says so
        tell(guest.freshness, shell)
    try:
        result = await _run(guest, shell, run, cell)
    except KeyboardInterrupt as interrupt:  # it came when the code had just begun or ended
        guest.interrupts.forbid()
        outcome.fail(interrupt, shell.failure or ["KeyboardInterrupt: "])
    guest.end_fork()
    guest.freshness.look()
    if result is not None and not result.success:
        outcome.fail(result.error_before_exec or result.error_in_exec, shell.failure or [])
    outcome.installed, shell.installed = shell.installed, []
    outcome.payload = shell.payload_manager.read_payload()
    shell.payload_manager.clear_payload()


async def _run(guest: Guest, shell: ZMQInteractiveShell, run: RunId, cell: Cell) -> Any:
    transformed, failed = _transform(shell, cell.code)
    options: Fields = {"store_history": cell.store_history, "silent": cell.silent, "cell_id": cell.cell_id}
    given: Fields = {"transformed_cell": transformed, "preprocessing_exc_tuple": failed}
    if guest.loop_runs(shell) and shell.should_run_async(cell.code, **given):
        return await guest.interrupts.awaiting(run, shell.run_cell_awaiting(cell.code, **options, **given))
    with guest.interrupts.allowed(run):
        return shell.run_cell(cell.code, **options)


def _transform(shell: ZMQInteractiveShell, code: str) -> tuple[str, Any]:
    try:
        return shell.transform_cell(code), None
    except Exception:  # whatever a transformer raises is shown as the cell's own error
        return code, sys.exc_info()
