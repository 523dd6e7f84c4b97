"""Running a whole notebook: every code cell in turn, in the one shell, as one run.

Law: the tags `skip-execution` and `raises-exception` mean what nbclient means by them. Each cell says when it starts and how it
ends; the first error that is not expected ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ..errors import RemoraError
from ..wire import Emit, Fields, StartRun
from . import origin
from .cells import Cell, execute
from .outcome import Outcome

if TYPE_CHECKING:
    from .service import Guest


async def run_notebook(guest: Guest, message: StartRun, outcome: Outcome) -> None:
    """Run all code cells of a notebook."""
    guest.load_remora()
    shell: Any = guest.shell  # the extension has given it the attribute `remora`
    try:
        await _run_all(guest, message, outcome)
    finally:
        with contextlib.suppress(RemoraError):  # the backend, if it is away, ends them with this sandbox
            shell.remora.leave()  # the sandboxes of its remote cells were for this run alone


async def _run_all(guest: Guest, message: StartRun, outcome: Outcome) -> None:
    for index, cell in enumerate(message.body["notebook"].get("cells", [])):
        if _skipped(cell):
            continue
        await asyncio.sleep(0)  # tasks of earlier cells and answers of front ends have their turn, as between cells of a kernel
        ended = await _run(guest, message, index, cell)
        outcome.execution_count = guest.shell.execution_count - 1
        if _is_exit(ended.exception):
            return
        if ended.error is not None and not _is_expected(message, cell, ended):
            outcome.error, outcome.exception = ended.error, ended.exception
            return


def _is_exit(error: BaseException | None) -> bool:
    """Return whether the cell asked to leave the notebook early and in order, by sys.exit()."""
    return isinstance(error, SystemExit) and error.code in (None, 0)


def _is_expected(message: StartRun, cell: Fields, ended: Outcome) -> bool:
    """Return whether the notebook goes on after this; an interrupt is meant for all of it."""
    if ended.error is None or _is_exit(ended.exception):
        return True
    allowed = bool(message.body.get("allow_errors")) or "raises-exception" in _tags(cell)
    return allowed and not isinstance(ended.exception, KeyboardInterrupt)


async def _run(guest: Guest, message: StartRun, index: int, cell: Fields) -> Outcome:
    request = origin.as_message({"msg_id": f"{message.run}.{index}", "msg_type": "execute_request"})
    origin.begin(origin.Origin(message.run, index, request, bool(message.body.get("allow_stdin"))))
    count = guest.shell.execution_count
    tell(guest, message, {"index": index, "status": "started", "execution_count": count})
    guest.outbox.settle()  # it is out before the cell runs, whatever that does to this process
    ended = Outcome()
    await execute(guest, message.run, Cell(_source(cell), cell_id=cell.get("id")), ended)
    guest.console.drain()
    facts: Fields = {"index": index, "status": "ended", "execution_count": count, "ok": ended.error is None}
    shell: Any = guest.shell
    if figures := shell.remora.take_figures():
        facts["figures"] = figures
    if ended.error is not None:
        facts |= {"error": ended.error, "expected": _is_expected(message, cell, ended), "leaves": _is_exit(ended.exception)}
    tell(guest, message, facts)
    return ended


def tell(guest: Guest, message: StartRun, facts: Fields) -> None:
    """Send how a cell is doing."""
    guest.outbox.put(Emit(message.run, "cell", facts))


def _source(cell: Fields) -> str:
    source: Any = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def _tags(cell: Fields) -> list[str]:
    tags: list[str] = cell.get("metadata", {}).get("tags", [])
    return tags


def _skipped(cell: Fields) -> bool:
    return cell.get("cell_type") != "code" or not _source(cell).strip() or "skip-execution" in _tags(cell)
