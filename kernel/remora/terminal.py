"""Who waits at a terminal: hears in words how far it has come, and is asked there."""

from __future__ import annotations

import getpass
import sys
import threading
from collections.abc import Awaitable, Callable

from .client import Waiter
from .replies import Reply


class AtTerminal(Waiter):
    """A person at a terminal, if there is one."""

    def __init__(self, words: Callable[[str], None]) -> None:
        """Let `words` take what is going on."""
        self._words = words

    def stage(self, name: str, text: str) -> None:
        """Pass on what is said in words."""
        if text:
            self._words(text)

    def asked(self, text: str, secret: bool) -> Awaitable[str | None]:
        """Ask at the terminal; where there is none, nobody answers."""
        reply = Reply()

        def run() -> None:
            reply.give(_ask(text, secret))

        threading.Thread(target=run, name="remora-terminal", daemon=True).start()  # which may be left in the middle of it
        return reply


def _ask(text: str, secret: bool) -> str | None:
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    try:
        if secret:
            return getpass.getpass(f"{text} ")
        print(f"{text} ", end="", file=sys.stderr, flush=True)
        return input()
    except (EOFError, KeyboardInterrupt):
        return None
