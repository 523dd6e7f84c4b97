"""The run log: every event and output of a run, appended before it is shown, so that it outlives whoever watches.

A log is one file of frames (see remora.frames), each a Record. Law: append-only; a record is in the file before anybody is
sent it; a half-written tail, left by a crash or a full disk, is cut off before the next append and passed over when
reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from remora import frames
from remora.errors import ProtocolError, StateError
from remora.states import ENDED, RunState
from remora.streams import Peer
from remora.wire import Buffer, Record


class RunLog:
    """The writing end, owned by one supervisor. Appends go through to the operating system at once, to the disk in groups."""

    def __init__(self, path: Path) -> None:
        """Open or create the log; StateError if that cannot be done."""
        self.path = path
        self.trouble: str | None = None
        self.size = 0
        self._held: list[tuple[Record, list[Buffer]]] = []
        self._unsynced = False
        self._syncing: asyncio.Task[None] | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.size, self.seq = _whole(path)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, self.size)
        except OSError as error:
            raise StateError(
                f"the run log {path} cannot be written ({error.strerror}); free space or set REMORA_STATE_DIR"
            ) from error

    def append(self, record: Record) -> list[Buffer]:
        """Write a record and return its pieces.

        What a full disk refuses is held in memory and written as soon as there is room.
        """
        pieces = frames.encode(record)
        self.seq = record.seq
        self._held.append((record, pieces))
        self._write_held()
        return pieces

    def held(self) -> list[Record]:
        """Return the records that a full disk keeps out of the file, in order."""
        return [record for record, _ in self._held]

    def _write_held(self) -> None:
        try:
            while self._held:
                self._write(self._held[0][1])
                self._held.pop(0)
            self.trouble = None
        except OSError as error:
            os.ftruncate(self._file, self.size)
            self.trouble = error.strerror

    def _write(self, pieces: list[Buffer]) -> None:
        at = self.size
        for piece in pieces:
            view = memoryview(piece).cast("B")
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
        self.size = at

    def sync_soon(self, delay: float = 0.2) -> None:
        """Have what was appended on disk within `delay` seconds; many appends share one fsync."""
        self._unsynced = True
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.get_running_loop().create_task(self._sync(delay))

    async def _sync(self, delay: float) -> None:
        while self._unsynced:
            await asyncio.sleep(delay)
            self._unsynced = False
            descriptor = os.dup(self._file)
            try:
                await asyncio.to_thread(os.fdatasync, descriptor)
            except OSError as error:
                self.trouble = error.strerror
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Write what is held if there is room by now, and close the file; safe twice."""
        if self._syncing is not None:
            self._syncing.cancel()
        if self._file >= 0:
            self._write_held()
            os.close(self._file)
            self._file = -1


def read(path: Path, after: int = -1, start: int = 0) -> Iterator[tuple[Record, int]]:
    """Yield each whole record with `seq` > `after`, and the file offset behind it; nothing if there is no log.

    What is torn or was never a record (zeros that a power cut left, say) ends the log: nothing that follows is of any use.
    """
    decoder = frames.Decoder()
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return
    with file, contextlib.suppress(ProtocolError):
        file.seek(start)
        while count := file.readinto(decoder.writable()):
            for message in decoder.wrote(count):
                if not isinstance(message, Record):
                    return
                if message.seq > after:
                    yield message, start + decoder.taken


def _whole(path: Path) -> tuple[int, int]:
    """Return the length of the part that is whole, and the last number in it."""
    size, seq = 0, -1
    for record, offset in read(path):
        size, seq = offset, record.seq
    return size, seq


class Follower:
    """Sends one run's records to one peer: from the file while it is behind, straight from memory once it has caught up."""

    def __init__(
        self, peer: Peer, path: Path, after: int, ended: Callable[[], bool], held: Callable[[], list[Record]] = list
    ) -> None:
        """Start behind; `ended` says whether no further record will come, `held` gives those that are not in the file yet."""
        self.peer, self.path, self._held = peer, path, held
        self._after, self._offset, self._ended = after, 0, ended
        self._live = self._complete = False
        self._more = asyncio.Event()

    def push(self, record: Record, pieces: list[Buffer], offset: int | None = None) -> None:
        """Take a record that was just appended; `offset`, if known, is the log's length behind it."""
        if record.seq <= self._after:
            return  # it was in the file already when that was read
        if self._live and record.seq == self._after + 1 and not self.peer.congested:
            self.peer.send_pieces(pieces)
            self._sent(record, self._offset if offset is None else offset)
        else:
            self._live = False
        self._more.set()

    def wake(self) -> None:
        """Finish, since the run has ended, with whatever was written to the log behind our back."""
        self._live = self._live and self._complete
        self._more.set()

    def _sent(self, record: Record, offset: int) -> None:
        self._after, self._offset = record.seq, offset
        self._complete = record.type == "state" and RunState(record.content["state"]) in ENDED

    async def run(self) -> None:
        """Send until the run has ended and everything is sent; cancelled when the peer goes away."""
        while True:
            self._more.clear()
            if not self._live:
                await self._catch_up()
            if self._live and self._ended():
                return
            await self._more.wait()

    async def _catch_up(self) -> None:
        for record, offset in read(self.path, self._after, self._offset):
            await self._send(record, offset)
        for record in self._held():
            if record.seq > self._after:
                await self._send(record, self._offset)
        self._live = not self._more.is_set()  # else something came while the peer was slow: look again

    async def _send(self, record: Record, offset: int) -> None:
        self.peer.send(record)
        self._sent(record, offset)
        if self.peer.congested:
            await self.peer.wait_drained()
