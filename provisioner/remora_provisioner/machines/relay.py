"""A socket of this machine that leads to something elsewhere: clients connect to it as if that were here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from remora import streams
from remora.errors import RemoraError


class Relay:
    """Listens at a path, for this user alone, and passes bytes on unread."""

    def __init__(self, path: Path, join: Callable[[socket.socket], None]) -> None:
        """Listen; each connection is given to `join`. On a running loop."""
        self.path, self._join = path, join
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with streams.short_path(path) as short:
            self._listening.bind(short)
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        self._listening.listen(64)
        self._listening.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, RemoraError):  # a link that takes no more has closed the socket
            sock, _ = self._listening.accept()
            if streams.other_end(sock) in (os.getuid(), 0):
                self._join(sock)
            else:
                sock.close()

    def close(self) -> None:
        """Listen no more; connections go on until one side ends them."""
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()
