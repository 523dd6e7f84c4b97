"""A started sandbox as the supervisor holds it: one process of ours outside that stands for everything inside.

Law: ends are learnt from pidfds, never by asking again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from abc import abstractmethod
from pathlib import Path

from ..sandbox import OpenSandbox
from . import scratch

_END_SECONDS = 30.0


class LivingSandbox(OpenSandbox):
    """What all jails have in common: a child `process` that stands for the sandbox, and a scratch directory to be emptied."""

    def __init__(self, process: subprocess.Popen[bytes], core: int | None, place: Path, warnings: tuple[str, ...] = ()) -> None:
        """Take over the process; `core` is another pid whose end takes everything inside with it, if there is one."""
        self.pid = process.pid
        self.warnings = warnings
        self._process = process
        self._place = place
        self._closed = False
        self._ends = [os.pidfd_open(process.pid)]
        if core is not None:
            with contextlib.suppress(ProcessLookupError):
                self._ends.insert(0, os.pidfd_open(core))

    @abstractmethod
    def _inside(self) -> list[int]:
        """Return what runs inside; see `processes`."""

    async def wait(self) -> int:
        """Wait for the end; see OpenSandbox."""
        if self._process.returncode is None:
            await _wait_ended(self._ends[-1])
        code = self._process.wait()
        return 128 - code if 128 < code <= 128 + signal.NSIG else code

    def processes(self) -> list[int]:
        """List what runs inside; see OpenSandbox."""
        return [] if self._closed else self._inside()

    def kill(self) -> None:
        """End everything inside; see OpenSandbox."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for end in [] if self._closed else self._ends:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(end, number)

    def close(self) -> None:
        """End and remove everything; see OpenSandbox."""
        if self._closed:
            return
        self.kill()
        for end in self._ends:
            ended(end, _END_SECONDS)
        self._process.wait()
        self._closed = True
        for end in self._ends:
            os.close(end)
        scratch.clear(self._place)


def ended(end: int, seconds: float) -> bool:
    """Wait until the process of a pidfd has ended; say whether it has within the time."""
    watch = select.poll()
    watch.register(end, select.POLLIN)
    return bool(watch.poll(seconds * 1000))


async def _wait_ended(end: int) -> None:
    loop = asyncio.get_running_loop()
    told = loop.create_future()
    own = os.dup(end)  # the loop knows one reader a descriptor, and several may wait
    loop.add_reader(own, lambda: None if told.done() else told.set_result(None))
    try:
        await told
    finally:
        loop.remove_reader(own)
        os.close(own)
