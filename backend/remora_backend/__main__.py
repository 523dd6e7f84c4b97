"""The backend's process: `python -m remora_backend DIRECTORY [FD]`, started by whoever needs it first.

One line is written to FD when it serves, or when it cannot: "ready", or "error " and what is wrong. A second one beside it
sees the lock and leaves; if the first one is just ending, it takes its place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from remora.errors import RemoraError
from remora_provisioner.single import the_one

from .service import Service


def main() -> int:
    """Take the lock, serve, and return the exit code."""
    directory = Path(sys.argv[1])
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    with the_one(directory / "lock", directory / "socket") as alone:
        if not alone:
            _say("ready")
            return 0
        try:
            asyncio.run(_serve(directory))
        except (RemoraError, OSError) as error:
            _say(f"error {error}")
            return 1
    return 0


async def _serve(directory: Path) -> None:
    service = Service(directory)
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.over.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(service.live(ready))
        await ready.wait()
        _say("ready")


def _say(line: str) -> None:
    if len(sys.argv) > 2:
        descriptor = int(sys.argv.pop(2))
        try:
            os.write(descriptor, line.encode() + b"\n")
        except BrokenPipeError:
            return  # whoever started us has gone; we serve all the same
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
