"""The three things that a command does with a notebook run: run it here and now, leave it behind, attach to it again.

Law: options have been read and the notebook is prepared; what is decided here is who stays, and what the command ends with.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import client as clients
from ..errors import InputError, RemoraError
from ..states import RunState
from ..wire import Fields, RunId
from . import starting
from .console import Clock, Console
from .document import Notebook
from .following import Following, Stop
from .job import Job
from .paper import PAUSE, Paper

DONE, FAILED, INTERRUPTED = 0, 1, 130


class Detached(Exception):
    """The person has left a run that goes on."""


def draft(notebook: Notebook, out: str, pause: float | None = PAUSE, steps: bool = True) -> Job:
    """Return the job of a prepared notebook, not saved yet. InputError if its output cannot be written."""
    place = out if out == "-" else str(Path(out).absolute())
    Paper(place, lambda: notebook).check()
    return Job(clients.new_run(), place, _plain(notebook), {}, pause, steps)


def _plain(value: Any) -> Any:
    """Return a notebook as plain dictionaries and lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def run(job: Job, wish: starting.Wish, console: Console) -> int:
    """Run a notebook, write it as it goes, and return the exit code. RunEnded when something else than its code ended it."""
    line = starting.Line()
    following = Following(job, console, line.send)
    job = _begin(following, job, wish, line, console)
    stopped: list[Stop] = []

    def stop(item: Stop) -> None:
        stopped.append(item)
        words = "interrupting the run; again to end its sandbox" if len(stopped) == 1 else "ending the sandbox"
        console.say(f"remora: {words}")
        starting.cancel(RunId(job.run), hard=len(stopped) > 1)

    with starting.signals_into(following.items.put):
        following.follow(stop)
    if stopped and following.assembly.state is not RunState.DONE:
        return INTERRUPTED
    return _exit_code(following)


def _begin(following: Following, job: Job, wish: starting.Wish, line: starting.Line, console: Console) -> Job:
    """Open the sandbox, then save the job, then start it."""
    following.stage("starting the sandbox")
    try:
        line.connection = starting.open_sandbox(job.run, wish, lambda name, text: following.stage(text or f"starting the {name}"))
        for notice in line.connection.facts.get("notices", []):
            console.say(f"remora: {notice}")
        job = replace(job, where=starting.where(line.connection))
        following.assembly.place(job.where)
        job.save()
        starting.start(job, wish, line.connection, following.items.put, following.stage)
    except BaseException:
        console.close()
        raise
    return job


def leave(job: Job, wish: starting.Wish, console: Console) -> str:
    """Start a notebook and return its run's id; a process that needs no terminal writes it as it goes."""
    if job.out == "-":
        raise InputError("a detached run cannot write to standard output; give the output notebook a name")
    clock = Clock()

    def stage(name: str) -> None:
        console.status(f"{name} · {clock}")

    stage("starting the sandbox")
    connection = starting.open_sandbox(job.run, wish, lambda name, text: stage(text or name))
    for notice in connection.facts.get("notices", []):
        console.say(f"remora: {notice}")
    job = replace(job, where=starting.where(connection))
    job.save()
    accepted = Following(job, console, lambda _: None)
    starting.start(job, wish, connection, accepted.items.put, stage)
    first = accepted.items.get()  # the run is in its log when its first record comes
    console.close()
    if isinstance(first, RemoraError):
        raise first
    starting.detach(job)
    return job.run


def attach(facts: Fields, job: Job, console: Console) -> int:
    """Follow a run from its first record on, write its notebook, and return the exit code. Detached when the person leaves."""
    line = starting.Line(starting.connect(facts))
    out = job.out if job.out != "-" else f"{job.run}.ipynb"
    following = Following(job, console, line.send, out)
    with starting.signals_into(following.items.put):
        starting.follow(RunId(job.run), following.items.put)
        following.follow(_detach)
    return _exit_code(following)


def _detach(_: Stop) -> None:
    raise Detached


def _exit_code(following: Following) -> int:
    ended = following.outcome()
    if ended is not None:
        raise ended
    return DONE if following.assembly.state is RunState.DONE else FAILED
