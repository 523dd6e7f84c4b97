"""The stop button: SIGINT to the guest's own process group while user code runs, and nothing at any other time.

Law: outside of `allowed` an interrupt has no effect, so our own bookkeeping cannot be torn. A cell that awaits is interrupted
at its await; one that blocks, where it is. An interrupt that comes before its run's code has begun is delivered when it begins.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import types
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from ..wire import RunId

_UNHEARD = 0.1  # seconds
_MAIN = threading.get_ident()


class Interrupts:
    """Who may be interrupted right now."""

    def __init__(self) -> None:
        """Make this process the leader of a group, and ignore SIGINT until user code runs."""
        if os.getpgrp() != os.getpid():
            os.setpgid(0, 0)
        self._current: RunId | None = None
        self._wanted: set[RunId] = set()
        self._awaiting: asyncio.Future[Any] | None = None
        self._cut = False
        self._heard = threading.Event()
        self._handlers = (self._raise, self._cut_or_raise)
        signal.signal(signal.SIGINT, _ignore)

    def request(self, run: RunId) -> None:
        """Interrupt the run if it executes, else remember it; called by the thread that receives."""
        self._wanted.add(run)
        if run == self._current:
            self._heard.clear()
            os.killpg(os.getpgrp(), signal.SIGINT)
            threading.Thread(target=self._insist, args=(run,), name="remora-stop", daemon=True).start()

    def _insist(self, run: RunId) -> None:
        """Signal again while the main thread has not noticed.

        A signal that comes just before it begins to wait for a lock does not wake it, nor does one that another thread got.
        """
        while not self._heard.wait(_UNHEARD) and run == self._current and signal.getsignal(signal.SIGINT) in self._handlers:
            signal.pthread_kill(_MAIN, signal.SIGINT)

    @contextmanager
    def allowed(self, run: RunId, early: bool = True) -> Iterator[None]:
        """Let KeyboardInterrupt reach the code inside; with `early` also one that came before it began.

        May be nested, when a widget's callback runs while a cell awaits.
        """
        before = self._current, signal.getsignal(signal.SIGINT), self._awaiting
        self._current, self._awaiting = run, None
        signal.signal(signal.SIGINT, self._raise)
        try:
            if early and run in self._wanted:
                raise KeyboardInterrupt
            yield
        finally:
            signal.signal(signal.SIGINT, _ignore)
            self._wanted.discard(run)
            self._current, handler, self._awaiting = before
            if self._current is not None:
                signal.signal(signal.SIGINT, handler)

    def forbid(self) -> None:
        """Ignore interrupts from here on, whatever was cut off before it could say so."""
        signal.signal(signal.SIGINT, _ignore)
        self._current = self._awaiting = None

    def cut(self) -> bool:
        """Interrupt the cell that awaits, since the interrupt met a task beside it; False if there is none."""
        if self._awaiting is None:
            return False
        self._cut = True
        self._awaiting.cancel()
        return True

    def forget(self) -> None:
        """Let a forked child be interrupted as any process is."""
        signal.signal(signal.SIGINT, signal.default_int_handler)

    async def awaiting(self, run: RunId, code: Coroutine[Any, Any, Any]) -> Any:
        """Await user code such that an interrupt reaches it, whether it executes or waits just then."""
        with self.allowed(run):
            self._cut = False
            self._awaiting = asyncio.ensure_future(self._interruptible(code))
            signal.signal(signal.SIGINT, self._cut_or_raise)
            return await self._awaiting

    def _raise(self, signum: int, frame: types.FrameType | None) -> None:
        self._heard.set()
        raise KeyboardInterrupt

    def _cut_or_raise(self, signum: int, frame: types.FrameType | None) -> None:
        self._heard.set()
        task = self._awaiting
        if task is None or _executes_callback(frame):
            raise KeyboardInterrupt
        self._cut = True
        task.get_loop().call_soon_threadsafe(task.cancel)

    @types.coroutine
    def _interruptible(self, code: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Drive a coroutine, and turn the cancellation by which an interrupt wakes it into KeyboardInterrupt at its await."""
        error: BaseException | None = None
        while True:
            try:
                waits_for = code.send(None) if error is None else code.throw(error)
            except StopIteration as end:
                return end.value
            try:
                yield waits_for
                error = None
            except asyncio.CancelledError as cancelled:
                error = KeyboardInterrupt() if self._cut else cancelled
                self._cut = False
            except BaseException as raised:  # whatever it is, it is meant for the code that awaits
                error = raised


def without_handler(error: BaseException | None) -> None:
    """Let a traceback end where the interrupt came, as with Python's own handler, and not in ours."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        if trace.tb_next.tb_frame.f_code in _HANDLERS:
            trace.tb_next = None
        trace = trace.tb_next


def _ignore(signum: int, frame: types.FrameType | None) -> None:
    """Do nothing; SIG_IGN instead would be inherited by child processes."""


def _executes_callback(frame: types.FrameType | None) -> bool:
    """Return whether the event loop executes code just now, rather than waiting for events."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "asyncio.events" and frame.f_code.co_name == "_run":
            return True
        if frame.f_globals.get("__name__") == "asyncio.base_events" and frame.f_code.co_name == "_run_once":
            return False
        frame = frame.f_back
    return True


_HANDLERS = {Interrupts._raise.__code__, Interrupts._cut_or_raise.__code__}
