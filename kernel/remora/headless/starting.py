"""How a notebook run begins, and how one that goes on is found again. Everything that talks to backend and sandbox is here.

Law: the run is made durable before it is started: whatever dies afterwards, `remora attach` finds it and its notebook.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from .. import client as clients
from .. import giving, specs
from ..client import Sink
from ..connection import Connection
from ..errors import RemoraError, Unavailable
from ..options import CellOptions
from ..resources import SandboxSpec
from ..terminal import AtTerminal
from ..wire import CancelRun, CommMessage, Fields, FindRun, OpenSession, RunId, StartRun
from .following import Stop
from .job import FOLLOWER_LOG, Job
from .kernels import Place

SESSION = "notebook"
_NAME = 60
_TAKING_OVER = 30.0
"""Seconds that the process that follows a detached run may take to begin; without it `remora attach` does its work."""


@dataclass(frozen=True)
class Wish:
    """How a notebook is to be run."""

    place: Place
    options: CellOptions
    folder: str
    """The folder to run in, absolute."""
    name: str
    """What listings call the run."""
    cell_limit: float | None = None
    """Seconds that one cell may take."""
    start_limit: float = 60.0
    """Seconds until its sandbox must be there, counted anew while its image is being built."""
    machines: tuple[str, ...] = ()
    """Those elsewhere that its remote cells may use."""

    def spec(self) -> SandboxSpec:
        """Return how the sandbox is made: for this run alone, so it ends when nothing runs any more."""
        image = specs.recipe(self.options, self.place.image)
        made = specs.spec(self.options, image.to_spec(), self.folder, dict(self.place.environment))
        made = replace(made, machines=self.machines)
        return made if made.idle is not None else replace(made, idle=0.0)


class Line:
    """The connection of one process to one run's sandbox, opened when there is something to say."""

    def __init__(self, connection: Connection | None = None) -> None:
        """Take a connection, or have none."""
        self.connection = connection

    def send(self, message: CommMessage) -> None:
        """Send a message to the code, if the sandbox lives."""
        if self.connection is not None and self.connection.alive:
            self.connection.send(message)


def open_sandbox(run: str, wish: Wish, stage: Callable[[str, str], None]) -> Connection:
    """Open a sandbox for one run and return the connection to it."""
    client, spec = clients.client(), wish.spec()
    request = OpenSession(f"run-{run}", SESSION, spec.to_dict(), secrets=giving.for_spec(spec))

    async def open_and_connect() -> Connection:
        async with asyncio.timeout(wish.start_limit) as limit:

            class Starting(AtTerminal):
                def stage(self, name: str, text: str) -> None:
                    """Wait longer, since something happens."""
                    limit.reschedule(asyncio.get_running_loop().time() + wish.start_limit)
                    stage(name, text)

            facts = await client.staged(request, Starting(lambda _: None))
            connection = Connection(client, facts)
            await connection.connect()
            return connection

    try:
        return client.run(open_and_connect())
    except TimeoutError:
        raise Unavailable(f"no sandbox was there after {wish.start_limit:g} s; give it longer with --start-timeout") from None


def start(job: Job, wish: Wish, connection: Connection, sink: Sink, stage: Callable[[str], None]) -> None:
    """Start the run of a job that is saved; its records go to `sink`, what is done before it to `stage`, in words."""
    connection.client.run(connection.exchange(AtTerminal(stage)))
    stage("starting the notebook")
    body: Fields = {"notebook": _lean(job.notebook), "timeout": wish.options.timeout, "cell_timeout": wish.cell_limit}
    connection.start(StartRun(RunId(job.run), "notebook", wish.name[:_NAME], body), sink)


def _lean(notebook: Fields) -> Fields:
    """Return what the guest needs of a notebook: its code and tags, in place."""
    cells = [
        {
            "cell_type": c["cell_type"],
            "id": c.get("id"),
            "source": c["source"] if c["cell_type"] == "code" else "",
            "metadata": {"tags": c["metadata"].get("tags", [])},
        }
        for c in notebook["cells"]
    ]
    return {"cells": cells}


def where(connection: Connection) -> Fields:
    """Return what the cells' metadata says of the place they run in."""
    facts = connection.facts
    return {"where": "sandbox", "sandbox": facts["id"], "machine": facts.get("on", "here")}


def find(prefix: str) -> Fields:
    """Return the facts of a run by the beginning of its id. Refused if there is none, or more than one."""
    client = clients.client()
    return client.run(client.request(FindRun(prefix))).result


_held: set[asyncio.Future[None]] = set()


def follow(run: RunId, sink: Sink) -> None:
    """Feed a run's records to `sink` from the first one on, until its end, and an error if it is lost. Returns at once."""
    client = clients.client()

    async def see() -> None:
        try:
            await client.follow(run, sink)
        except RemoraError as error:
            sink(error)

    def begin() -> None:
        task = asyncio.ensure_future(see())
        _held.add(task)
        task.add_done_callback(_held.discard)

    client.soon(begin)


def connect(facts: Fields) -> Connection | None:
    """Return a connection to the sandbox of a run, if that lives."""
    client = clients.client()
    if not facts.get("endpoint"):
        return None
    connection = Connection(client, facts | {"id": facts["sandbox"]})
    try:
        client.run(connection.connect())
    except RemoraError:
        return None  # it ended just now; its log tells how
    return connection


def cancel(run: RunId, hard: bool) -> None:
    """End a run."""
    client = clients.client()
    client.run(client.request(CancelRun(run, hard)))


def detach(job: Job) -> None:
    """Leave a process behind that goes on writing the notebook, and return when it has taken over; it needs no terminal."""
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "remora.headless.follower", job.run, str(writing)]
    with open(reading, "rb") as taken_over, (job.folder / FOLLOWER_LOG).open("ab") as log:
        try:
            subprocess.Popen(
                command, pass_fds=[writing], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        finally:
            os.close(writing)
        select.select([taken_over], [], [], _TAKING_OVER)


@contextmanager
def signals_into(put: Callable[[Stop], None]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into items of a loop, so that nothing of ours is torn by them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = {signal.SIGINT: Stop.INTERRUPT, signal.SIGTERM: Stop.TERMINATE}
    before = {number: signal.signal(number, lambda n, _: put(kinds[signal.Signals(n)])) for number in kinds}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
