"""A started sandbox as the supervisor holds it: one process of ours outside that stands for everything inside.

Law: ends are learnt from pidfds, never by asking again and again; a pid is signalled only through a pidfd or while it is an
unreaped child, so that a pid used anew is never hit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from remora_provisioner.jails import scratch
from remora_provisioner.sandbox import OpenSandbox

_END_SECONDS = 30.0


class LivingSandbox(OpenSandbox):
    """Common to all jails: `process` is the child that stands for the sandbox, `core` the pid whose end takes all with it."""

    def __init__(self, process: subprocess.Popen[bytes], core: int | None, place: Path, inside: Callable[[], list[int]]) -> None:
        """Take over the process; `inside` lists what runs in the sandbox, `place` is the scratch directory to be emptied."""
        self.pid = process.pid
        self._process = process
        self._place = place
        self._inside = inside
        self._ends = [os.pidfd_open(process.pid)]
        self._closed = False
        if core is not None:
            with contextlib.suppress(ProcessLookupError):
                self._ends.insert(0, os.pidfd_open(core))

    async def wait(self) -> int:
        """Wait for the end; see OpenSandbox."""
        if self._process.returncode is None:
            await _readable(self._ends[-1])
        return self._code()

    def _code(self) -> int:
        code = self._process.wait()
        return 128 - code if 128 < code <= 128 + signal.NSIG else code

    def processes(self) -> list[int]:
        """List what runs inside; see OpenSandbox."""
        return [] if self._closed else self._inside()

    def kill(self) -> None:
        """End everything inside; see OpenSandbox."""
        for end in self._ends:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(end, signal.SIGKILL)

    def close(self) -> None:
        """End and remove everything; see OpenSandbox."""
        if self._closed:
            return
        self.kill()
        for end in self._ends:
            watch = select.poll()
            watch.register(end, select.POLLIN)
            watch.poll(_END_SECONDS * 1000)
        self._process.wait()
        self._closed = True
        for end in self._ends:
            os.close(end)
        scratch.clear(self._place)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    own = os.dup(descriptor)  # one reader a descriptor: several may wait
    loop.add_reader(own, lambda: ended.done() or ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(own)
        os.close(own)
