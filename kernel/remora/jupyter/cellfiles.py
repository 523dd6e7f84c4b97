"""The notebook's folder around one cell: alike here and on the cell's machine when it begins, and again when it is over.

Law: runs on the thread of the cell, and goes on when files cannot be moved: that is said, and the next cell tries again.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

from ..client import Waiter
from ..connection import Connection
from ..errors import RemoraError, RunEnded
from ..states import EndReason
from ..wire import Fields, RunId
from .interrupting import on_interrupt
from .progress import Progress

WaitFor = Callable[[Callable[[Waiter], Coroutine[Any, Any, Fields]]], Fields]
"""Waits for work on the client's loop; see `CellRun.wait_for`."""


class CellFiles:
    """What is exchanged for one cell; nothing where both machines have the same folder."""

    def __init__(
        self,
        connection: Connection,
        progress: Progress,
        say: Callable[[str], None],
        wait_for: WaitFor,
        hearing: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Exchange with the machine of this connection; what has moved is shown by `progress` and `say`."""
        self._connection, self._progress = connection, progress
        self._say, self._wait_for, self._hearing = say, wait_for, hearing
        self._expected = self._left = False

    def bring(self) -> None:
        """Bring both folders to agreement before a run."""
        if not self._connection.is_at_rest(self._tick):
            self._exchange(whole=False)

    def expect(self, run: RunId) -> None:
        """Ask for the files of a run that has just been sent off."""
        self._expected = self._connection.expect_files(run)

    def forget(self) -> None:
        """Take note that nobody waits for the end of the run any more; safe twice."""
        if self._expected:
            self._expected = False
            self._connection.forget_files()

    def fetch(self) -> None:
        """Have files that the run has made come home; a stop leaves them to come by themselves."""
        if not self._connection.elsewhere:
            return
        try:
            with on_interrupt(signal.default_int_handler):
                self._fetch()
        except (KeyboardInterrupt, RunEnded):
            self._say("not all files are home yet; the rest comes with the next cell")
        finally:
            self.forget()

    def leave(self) -> None:
        """Let the cell not wait for files any longer; from any thread."""
        self._left = True
        if self._expected:
            self._connection.leave_files()

    def _fetch(self) -> None:
        answered = False
        if self._left:
            self.forget()
        if self._expected:
            try:
                with self._hearing():
                    home = self._connection.files_are_home(self._tick, lambda text: self._progress.stage_words("files", text))
                self._expected, answered = False, True
                if home:
                    return
            except OSError:  # the backend is gone, or the user has cancelled
                if self._left:
                    raise RunEnded("cancelled", reason=EndReason.CANCELLED.value) from None
        self._exchange(whole=not answered)

    def _exchange(self, *, whole: bool) -> None:
        try:
            moved = self._wait_for(lambda waiter: self._connection.exchange(waiter, whole=whole))
        except RunEnded:
            raise
        except RemoraError as error:
            self._say(f"files were not exchanged: {error}")
            return
        if moved.get("line"):
            self._progress.sent(moved["sent"])
            self._progress.fetched(moved["fetched"])
            self._say(moved["line"])

    def _tick(self) -> float | None:
        """Let the status line have its moment, and return the seconds until the next one."""
        now = time.monotonic()
        self._progress.tick(now)
        moment = self._progress.next_tick(now)
        return None if moment is None else max(0.0, moment - now)
