"""What the backend asks of the user while a cell waits for its sandbox: a passphrase, whether a host key is to be trusted.

Law: it is asked in the thread that runs the cell, as `input()` is; where nobody can be asked, nobody answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..client import Waiter
from ..replies import Reply
from .front import Front
from .progress import Progress


@dataclass(frozen=True)
class Asked:
    """A question, and who waits for its answer."""

    text: str
    secret: bool
    reply: Callable[[str | None], None]

    def answer(self, front: Front) -> None:
        """Ask the user. Raises KeyboardInterrupt."""
        value = None
        try:
            value = front.ask(f"{self.text} ", self.secret)
        except Exception:  # whatever this kernel raises when nobody can be asked
            value = None
        finally:
            self.reply(value)


class CellWaiter(Waiter):
    """A cell that waits."""

    def __init__(self, progress: Progress, put: Callable[[Asked], None]) -> None:
        """Show stages in the status line; `put` hands questions to the thread of the cell."""
        self._progress, self._put = progress, put

    def stage(self, name: str, text: str) -> None:
        """Show a stage."""
        self._progress.stage_words(name, text)

    def asked(self, text: str, secret: bool) -> Awaitable[str | None]:
        """Have the user asked."""
        reply = Reply()
        self._put(Asked(text, secret, reply.give))
        return reply
