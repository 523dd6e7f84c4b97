"""Everything that leaves the guest, in one order: text is gathered and sent at most twenty times a second, the rest at once.

Law: whoever has something to send appends it to one deque, which no signal handler, destructor or exception can leave half
done; the writer thread alone takes from it and sends. Senders wait only for text that comes after a pause (so that it is out
before the next statement runs, whatever that does), for bulk bytes (which may be live memory of the user's) and when too much
is queued.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from ..wire import Message
from .origin import Origin

INTERVAL = 0.05  # seconds between two pieces of text
_PAUSE = 0.08  # seconds after which text comes after a pause; more than INTERVAL, or it would overtake what is due just then
_UNFINISHED = 0.01  # seconds for which text that does not end a line waits for more
_QUEUED = 1 << 22  # characters that may wait before whoever prints waits, and the most in one message

Text = tuple[Origin, str, str]


class Outbox:
    """The ordered way out."""

    def __init__(self, send: Callable[[Message], None], log: int) -> None:
        """Send by `send`; text that belongs to no run goes to the descriptor `log`."""
        self._send, self._log = send, log
        self._entries: deque[Any] = deque()
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._awake = self._forked = False
        self._sent = 0.0
        self._size = 0
        self._thread = threading.Thread(target=self._write_forever, name="remora-out", daemon=True)
        self._thread.start()

    def text(self, origin: Origin | None, name: str, text: str) -> None:
        """Append text of "stdout" or "stderr", and wait until it is out if it comes after a pause."""
        paused = time.monotonic() - self._sent >= _PAUSE
        self.append(origin, name, text)
        if paused and text.endswith("\n"):
            self.settle()
        else:
            self.relieve()

    def append(self, origin: Origin | None, name: str, text: str) -> None:
        """Append text and never wait."""
        if origin is None:
            os.write(self._log, text.encode("utf-8", "replace"))
            return
        self._entries.append((origin, name, text))
        self._size += len(text)
        if not self._awake:
            self._wake.put(False)

    def relieve(self) -> None:
        """Wait if so much is queued that the other side must first keep up."""
        if self._size > _QUEUED:
            self.settle()

    def put(self, message: Message) -> None:
        """Append a message and let it go at once, after all that was appended before it."""
        if self._forked:
            _write_plain(message)
            return
        self._entries.append(message)
        self._wake.put(True)
        if message.buffers:
            self.settle()

    def flush(self) -> None:
        """Send the text at hand, unless some was sent just now: it will go in time then."""
        if self._entries and time.monotonic() - self._sent >= _PAUSE:
            self.settle()

    def settle(self) -> None:
        """Wait until everything appended so far is sent."""
        if threading.get_ident() == self._thread.ident:
            return
        gone = threading.Lock()
        gone.acquire()
        self._entries.append(gone)
        self._wake.put(True)
        gone.acquire()

    def forget(self) -> None:
        """Become the outbox of a forked child, whose way out are the descriptors that the parent reads."""
        self._forked = True

    def _write_forever(self) -> None:
        while True:
            self._awake = False
            if not self._entries:
                self._wait(None)
            self._awake = True
            self._wait_due()
            self._drain()

    def _wait(self, seconds: float | None) -> bool:
        try:
            return self._wake.get(timeout=seconds)
        except Empty:
            return False

    def _wait_due(self) -> None:
        begun = time.monotonic()
        while (left := self._due(begun) - time.monotonic()) > 0:
            if self._wait(left):
                return

    def _due(self, begun: float) -> float:
        last = self._entries[-1] if self._entries else None
        if not isinstance(last, tuple):
            return begun
        return max(self._sent + INTERVAL, begun + (0 if last[2].endswith("\n") else _UNFINISHED))

    def _drain(self) -> None:
        while not self._wake.empty():
            self._wake.get_nowait()
        self._size = 0
        texts: list[Text] = []
        while self._entries:
            entry = self._entries.popleft()
            if isinstance(entry, tuple):
                if texts and texts[-1][:2] != entry[:2]:
                    self._send_text(texts)
                texts.append(entry)
                continue
            self._send_text(texts)
            if isinstance(entry, Message):
                self._send(entry)
            else:
                entry.release()
        self._send_text(texts)

    def _send_text(self, texts: list[Text]) -> None:
        if not texts:
            return
        origin, name, _ = texts[0]
        whole = "".join(text for _, _, text in texts)
        texts.clear()
        for start in range(0, len(whole), _QUEUED):
            piece = whole[start : start + _QUEUED]
            self._send(origin.output("stream", {"name": name, "text": piece}))
        self._sent = time.monotonic()


def _write_plain(message: Message) -> None:
    content = getattr(message, "content", {}).get("content", {})
    plain = content.get("data", {}).get("text/plain")
    if plain:
        os.write(1, f"{plain}\n".encode("utf-8", "backslashreplace"))
