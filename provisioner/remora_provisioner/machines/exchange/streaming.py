"""Contents both ways at once: one thread sends while the caller's own receives, and an error of either side ends both.

Law: whoever fails says so, and reads on until the other side says that no more comes: so nobody waits for somebody who waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from remora.errors import ProtocolError, RemoraError, Unavailable

from . import parcels
from .arrivals import Arrivals
from .entries import Entries
from .letters import Letters
from .moving import Moving


class Streaming:
    """One exchange of contents. Start it, `receive`, and `finish`; `close` in any case."""

    def __init__(self, folder: Path, letters: Letters, outgoing: list[parcels.Parcel], moving: Moving | None = None) -> None:
        self._folder, self._letters, self._outgoing, self._moving = folder, letters, outgoing, moving
        self._error: RemoraError | None = None
        self._thread = threading.Thread(target=self._send, name="files")
        self.sent_bytes = 0
        self.found: Entries = {}
        """Files that had no digest, and got one as they went."""
        self._thread.start()

    def apply(self, work: Callable[[], None]) -> None:
        """Do what needs no contents of the other side, while some are on their way already."""
        try:
            work()
        except RemoraError as error:
            self.fail(error)

    def receive(self, arrivals: Arrivals) -> None:
        """Take in what comes until no more comes."""
        while True:
            try:
                letter, content = self._letters.get(b"C", b"L", b"Z", b"E")
                if letter == b"E":
                    return
                if self._error is None:
                    arrivals.take(letter, content)
                    self._came(letter, content)
            except RemoraError as error:
                self.fail(error)
                if isinstance(error, (ProtocolError, Unavailable)):
                    return

    def _came(self, letter: bytes, content: memoryview) -> None:
        if self._moving is not None:
            self._moving.fetched(parcels.ZEROS.unpack(content)[3] if letter == b"Z" else len(content))

    def fail(self, error: RemoraError) -> None:
        """Stop sending, and tell the other side why."""
        if self._error is None:
            self._error = error
            self._letters.put_error(error)
        if isinstance(error, (ProtocolError, Unavailable)):
            self._letters.stop()

    def finish(self) -> None:
        """Wait until everything is sent; raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Let nothing run on."""
        if self._thread.is_alive():
            self._letters.stop()
            self._thread.join()

    def _has_failed(self) -> bool:
        return self._error is not None

    def _send(self) -> None:
        try:
            self.sent_bytes = parcels.send(
                self._folder, self._outgoing, self._letters, self._has_failed, self.found, self._moving
            )
            if self._moving is not None:
                self._moving.all_sent()
        except RemoraError as error:
            self._error = self._error or error
            self._letters.stop()
        except OSError as error:
            self.fail(Unavailable(f"the notebook's folder cannot be read any more ({error.strerror}): look whether it is there"))
        except Exception as error:  # whatever it is, nobody must be left waiting for what does not come
            self.fail(ProtocolError(f"files could not be sent: {error!r}"))
