"""What is known of every sandbox and run, so that it is known after the backend was away.

Law: facts are written soon after they change, and read when the backend starts or somebody lists. A run log, not the database, is
the truth about a run; so a full disk here costs a listing, never a run. One thread has the database (tables.py): it opens it
while the backend serves already, and what changes several times in a moment is written once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .tables import Tables

_LOG = logging.getLogger(__name__)
Row = dict[str, Any]
T = TypeVar("T")


class Store:
    """The database. Writing returns at once; reading waits for what was written before, and finds nothing where it fails."""

    def __init__(self, path: Path) -> None:
        """Begin to open or make the database."""
        self._path, self._mark = path, path.with_suffix(".settled")
        self._was_settled = self._mark.exists() or not path.exists()
        self._mark.unlink(missing_ok=True)
        self._changes: dict[tuple[str, str], Row] = {}
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="remora-store")
        self._thread.submit(self._try, lambda _: None, None)

    def save_sandbox(self, sandbox: str, state: str, facts: Row) -> None:
        """Keep a sandbox's state and facts."""
        self._save("sandboxes", {"id": sandbox, "state": state, "facts": facts, "changed": time.time()})

    def save_run(self, run: str, sandbox: str | None, state: str, facts: Row) -> None:
        """Keep a run's state and facts."""
        self._save("runs", {"id": run, "sandbox": sandbox, "state": state, "facts": facts, "changed": time.time()})

    def _save(self, table: str, row: Row) -> None:
        self._changes[table, row["id"]] = row
        self._thread.submit(self._write)

    def written(self) -> Future[None]:
        """Return what is done when everything saved so far is in the database."""
        return self._thread.submit(lambda: None)

    def sandboxes(self, living: bool) -> list[Row]:
        """Return the sandboxes that have not ended, or the others."""
        return self._ask(lambda tables: tables.sandboxes(living), [])

    def runs(self, limit: int) -> list[Row]:
        """Return the runs that changed last, newest first."""
        return self._ask(lambda tables: tables.runs(limit), [])

    def left_behind(self) -> tuple[list[Row], list[Row]]:
        """Return the sandboxes and runs that had not ended when the backend went away."""
        if self._was_settled:  # which is known without waiting until the database is open
            return [], []
        return self.sandboxes(living=True), self._ask(lambda tables: tables.unfinished_runs(), [])

    def find_runs(self, prefix: str) -> list[Row]:
        """Return the runs whose id begins so; at most two, since more than one is refused anyway."""
        return self._ask(lambda tables: tables.find_runs(prefix), [])

    def forget_before(self, moment: float) -> list[str]:
        """Drop what ended before that Unix time, and return the ids of the runs dropped."""
        return self._ask(lambda tables: tables.forget_before(moment), [])

    def close(self) -> None:
        """Close the database when all is written, and leave a mark if nothing is left to be taken up; safe twice."""
        if self._closed:
            return
        self._closed = True
        if self._ask(lambda tables: tables.settled(), False):
            with suppress(OSError):  # without the mark the next start takes a little longer
                self._mark.touch()
        self._ask(lambda tables: tables.close(), None)
        self._thread.shutdown()

    def _ask(self, work: Callable[[Tables], T], otherwise: T) -> T:
        return self._thread.submit(self._try, work, otherwise).result()

    # -- on the thread

    @cached_property
    def _tables(self) -> Tables:
        from .tables import Tables

        return Tables(self._path)

    def _write(self) -> None:
        changes = {}
        while self._changes:
            key, row = self._changes.popitem()
            changes[key] = row
        if changes and not self._try(lambda tables: tables.save((table, row) for (table, _), row in changes.items()), False):
            for key, row in changes.items():  # for the next time, unless there is a newer one
                self._changes.setdefault(key, row)

    def _try(self, work: Callable[[Tables], T], otherwise: T) -> T:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return work(self._tables)
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", error)
            _LOG.warning("the database %s cannot be used: %s (%s)", self._path, cause, getattr(cause, "sqlite_errorname", "?"))
            return otherwise
