"""The other half of reaching.py inside the process of a connection: what to do, questions and answers, how it went.

Law: JSON lines over one inherited socket. When whoever started the process is gone, so is the process.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
from typing import Any


class Asker:
    """The line to whoever started this process."""

    def __init__(self, sock: socket.socket) -> None:
        """Speak over a connected socket."""
        self._sock = sock
        self._came: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._hear, daemon=True).start()

    def order(self) -> dict[str, Any]:
        """Return what this process is to do: the first thing that is said."""
        return self._came.get()

    def ask(
        self, kind: str, text: str, *, secret: bool = False, again: bool = False, facts: dict[str, str] | None = None
    ) -> str | None:
        """Ask a person, and return the answer; None if nobody answers."""
        self.tell(ask={"kind": kind, "text": text, "secret": secret, "again": again, "facts": facts or {}})
        answer = self._came.get()["answer"]
        return None if answer is None else str(answer)

    def tell(self, **what: Any) -> None:
        """Say how it went."""
        try:
            self._sock.sendall(json.dumps(what).encode() + b"\n")
        except OSError:
            os._exit(1)

    def _hear(self) -> None:
        with self._sock.makefile("rb") as lines:
            for line in lines:
                self._came.put(json.loads(line))
        os._exit(1)
