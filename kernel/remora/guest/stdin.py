"""`input()` and `getpass()` in the guest: asked of the front end through the run that asks.

Law: nothing reads descriptor 0. Who may not ask gets IPython's StdinNotImplementedError at once. Waiting can be interrupted.
"""

from __future__ import annotations

import builtins
import getpass
import warnings
from queue import Empty, SimpleQueue
from typing import Any

from ..wire import Emit, InputReply
from . import origin
from .console import Console
from .outbox import Outbox


class Stdin:
    """Questions to whoever sits in front of the notebook."""

    def __init__(self, outbox: Outbox, console: Console) -> None:
        """Replace `input` and `getpass` for all code of this process."""
        self._outbox, self._console = outbox, console
        self._replies: SimpleQueue[InputReply] = SimpleQueue()
        builtins.input = self.input
        getpass.getpass = self.getpass

    def reply(self, message: InputReply) -> None:
        """Take an answer; called by the thread that receives."""
        self._replies.put(message)

    def input(self, prompt: object = "", /) -> str:
        """Ask for a line of text, as `builtins.input` does."""
        return self._ask(str(prompt), password=False)

    def getpass(self, prompt: str = "Password: ", stream: Any = None, **_options: Any) -> str:
        """Ask for a line of text that is not shown, as `getpass.getpass` does."""
        if stream is not None:
            warnings.warn("The `stream` parameter of `getpass.getpass` has no effect in a notebook", UserWarning, stacklevel=2)
        return self._ask(prompt, password=True)

    def _ask(self, prompt: str, password: bool) -> str:
        asking = origin.current()
        if asking is None or not asking.allow_stdin:
            what = "getpass" if password else "raw_input"
            raise not_possible(f"{what} was called, but this frontend does not support input requests.")
        self._forget_stale()
        self._console.drain()
        self._outbox.put(Emit(asking.run, "input_request", {"prompt": prompt, "password": password}))
        while True:
            reply = self._replies.get()
            if reply.run != asking.run:
                continue
            if reply.error is not None:
                raise not_possible(reply.error)
            return reply.value

    def _forget_stale(self) -> None:
        try:
            while True:
                self._replies.get_nowait()
        except Empty:
            return


def not_possible(why: str) -> Exception:
    """Return the error that notebooks know for a question that cannot be asked."""
    try:
        from IPython.core.error import StdinNotImplementedError
    except ImportError:
        return EOFError(why)
    return StdinNotImplementedError(why)
