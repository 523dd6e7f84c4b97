"""Hears front ends while a remote cell keeps the kernel's thread: what they say to a widget of ours is handled at once.

Law: only comm_msg and comm_close for the comms named here are taken, and only while a cell waits; every other message goes its
usual way, in its order. One class for each generation of ipykernel, since they hold their shell channel differently; no
ipykernel is imported.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from ..wire import Fields

Handle = Callable[[Fields], None]
_KINDS = ("comm_msg", "comm_close")


class Listener:
    """What front ends say to these comms. This one hears nothing before a cell has ended, as in any kernel."""

    live = False
    """Whether messages are heard while a cell waits."""

    def __init__(self, kernel: Any) -> None:
        """Listen for this kernel."""
        self.kernel = kernel
        self._handles: dict[str, Handle] = {}
        self._waits: list[Fields] = []
        self._lock = threading.RLock()

    @property
    def _waiting(self) -> Fields | None:
        """The request whose cell waits; the first one, where several do in subshells."""
        return next(iter(self._waits), None)

    def serve(self, comm: str, handle: Handle) -> None:
        """Have what is said to this comm handled at once, on whatever thread hears it."""
        self._handles[comm] = handle

    def forget(self, comm: str) -> None:
        """Take note that the comm is closed."""
        self._handles.pop(comm, None)

    @contextmanager
    def waiting(self, parent: Fields) -> Iterator[None]:
        """Listen while the cell of this request waits."""
        self._waits.append(parent)
        try:
            yield
        finally:
            with self._lock:  # whoever says that the cell is busy has said so, or will not
                self._waits.remove(parent)

    def close(self) -> None:
        """Leave the kernel as it was."""

    def _take(self, raw: list[Any]) -> bool:
        """Handle a message for a comm of ours; False for any other one."""
        parent = self._waiting
        if parent is None or not self._handles:
            return False
        try:
            message = self._read(raw)
        except (ValueError, LookupError, TypeError, AttributeError):  # malformed or badly signed: the kernel says so itself
            return False
        if message is None:
            return False
        try:
            if handle := self._handles.get(message["content"]["comm_id"]):  # it may just have been closed
                handle(message)
        except Exception:  # as in any kernel, a handler that fails is logged, and whoever spoke is answered all the same
            self.kernel.log.exception("a message to a widget could not be handled")
        self._settle(message, parent)
        return True

    def _read(self, raw: list[Any]) -> Fields | None:
        """Return a message for a comm of ours. Only such a one is read as a whole: a signature is good once."""
        session = self.kernel.session
        _, frames = session.feed_identities(raw, copy=False)
        if session.unpack(frames[1].bytes)["msg_type"] not in _KINDS:
            return None
        if session.unpack(frames[4].bytes).get("comm_id") not in self._handles:
            return None
        return dict(session.deserialize(frames, content=True, copy=False))

    def _settle(self, message: Fields, cell: Fields) -> None:
        """Say that the message is dealt with, for which views wait, and that the kernel is as busy as before."""
        with self._lock:
            states = [("idle", message), *([("busy", cell)] if any(one is cell for one in self._waits) else [])]
            for state, parent in states:
                self.kernel.session.send(self.kernel.iopub_socket, "status", {"execution_state": state}, parent=parent)


class ChannelListener(Listener):
    """ipykernel 7: a thread of its own has the shell channel, and hands us each message before the kernel's threads."""

    live = True

    def __init__(self, kernel: Any) -> None:
        """Stand before the kernel's own handler, whether the kernel is running already or not."""
        super().__init__(kernel)
        self._stock = kernel.shell_channel_thread_main
        kernel.shell_channel_thread_main = self._heard
        self._register(self._heard)

    def close(self) -> None:
        """Give the channel back to the kernel's own handler; safe twice."""
        self.kernel.shell_channel_thread_main = self._stock
        self._register(self._stock)

    def _register(self, handler: Callable[[list[Any]], Any]) -> None:
        stream = self.kernel.shell_stream
        if stream.receiving():  # else the kernel registers its handler when it starts, and that is ours by now
            self.kernel.shell_channel_thread.io_loop.add_callback(lambda: stream.on_recv(handler, copy=False))

    async def _heard(self, raw: list[Any]) -> None:
        if not self._take(raw):
            await self._stock(raw)


class PumpListener(Listener):
    """ipykernel 6: the thread that waits has the shell channel, so while it waits another thread reads there in its stead."""

    live = True

    def __init__(self, kernel: Any) -> None:
        """Read nothing yet: only a cell that waits, when there is a comm of ours, is worth a thread."""
        super().__init__(kernel)
        self._thread: threading.Thread | None = None
        self._stop = -1
        self._others: deque[list[Any]] = deque()

    def serve(self, comm: str, handle: Handle) -> None:
        """Begin to read if a cell waits already."""
        super().serve(comm, handle)
        self._begin()

    @contextmanager
    def waiting(self, parent: Fields) -> Iterator[None]:
        """Read until the cell is over; the kernel reads on from there, beginning with what was not for us."""
        if threading.current_thread() is not threading.main_thread():  # which has the channel, and reads there itself
            yield
            return
        try:
            with super().waiting(parent):
                if self._handles:
                    self._begin()
                yield
        finally:
            self._end()

    def _begin(self) -> None:
        with self._lock:  # late output of an earlier cell may bring a comm, on the client's thread
            if self._thread is None and self._waiting is not None:
                reading, self._stop = os.pipe()
                self._thread = threading.Thread(target=self._pump, args=(reading,), name="remora-listener", daemon=True)
                self._thread.start()

    def _end(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            os.write(self._stop, b".")
            thread.join()
            os.close(self._stop)
            while self._others:
                self.kernel.schedule_dispatch(self.kernel.dispatch_shell, self._others.popleft())

    def _pump(self, reading: int) -> None:
        socket = self.kernel.shell_stream.socket
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(reading, zmq.POLLIN)
        try:
            while reading not in dict(poller.poll()):
                raw = socket.recv_multipart(copy=False)
                if not self._take(raw):
                    self._others.append(raw)
        finally:
            os.close(reading)


def listener(kernel: Any) -> Listener:
    """Return the listener for this kernel's generation of ipykernel."""
    if getattr(kernel, "shell_channel_thread", None) is not None:
        return ChannelListener(kernel)
    if hasattr(kernel, "schedule_dispatch"):
        return PumpListener(kernel)
    return Listener(kernel)
