"""How a notebook's run begins, seen by whoever waits for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from remora.client import Waiter
from remora.connection import Connection
from remora.headless import starting
from remora.headless.job import Job
from remora.headless.kernels import Place
from remora.images import Image
from remora.options import CellOptions
from remora.wire import Fields, StartRun


class There:
    """A connection to a sandbox on another machine whose files take their time."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.client = self

    def run(self, work: Any) -> Any:
        """Wait for work, as a client does."""
        return asyncio.run(work)

    async def exchange(self, waiter: Waiter) -> Fields:
        """Say how far files have come, and what has no words."""
        waiter.stage("sandbox", "")
        waiter.stage("image", "sending files to box: 1.0 MiB of 2.0 MiB")
        self.done.append("files")
        return {}

    def start(self, message: StartRun, sink: object) -> None:
        """Take a run."""
        self.done.append(message.form)


def test_files_are_there_first_and_it_is_said_how_far_they_are() -> None:
    """Nothing begins before them, and nobody waits in silence."""
    there, said = There(), list[str]()
    job = Job("r1", "-", {"cells": []}, {})
    wish = starting.Wish(Place(Image()), CellOptions(), "/folder", "name")
    starting.start(job, wish, cast(Connection, there), lambda _: None, said.append)
    assert said == ["sending files to box: 1.0 MiB of 2.0 MiB", "starting the notebook"]
    assert there.done == ["files", "notebook"]
