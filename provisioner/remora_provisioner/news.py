"""What a supervisor's watchers are told: at once where something waits for it, else a moment later and all of it together.

Law: the order is kept, the last word on each thing always comes; only words that were overtaken meanwhile are left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from remora.streams import Peer
from remora.wire import Message

_MOMENT = 0.005  # seconds: what a small cell takes, so that watchers do not work while it runs


class News:
    """The watchers of one sandbox, and what they have not been told yet."""

    def __init__(self) -> None:
        """Start with nobody to tell."""
        self.watchers: set[Peer] = set()
        self._untold: dict[Hashable, Message] = {}
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, about: Hashable, message: Message, *, soon: bool = False) -> None:
        """Tell the watchers; `soon`: in a moment, unless there is newer news about the same by then."""
        self._untold.pop(about, None)
        self._untold[about] = message
        if not soon:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MOMENT, self.flush)

    def flush(self) -> None:
        """Tell what has not been told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        untold, self._untold = self._untold, {}
        for watcher in self.watchers:
            for message in untold.values():
                watcher.send(message)
