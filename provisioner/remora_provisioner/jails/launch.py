"""Starts a jail's first process and watches it: what every jail has in common.

Law: nothing here knows what isolates. The child is forked from the calling thread; between fork and exec it enters its control
groups, ties its life to the caller's, and does what the jail adds. The caller should have one thread only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from ..sandbox import SandboxPlan
from . import calls

_START_SECONDS = 30.0
_COMPLAINT_BYTES = 2000


class NotStarted(Exception):
    """The plan's command was not reached; the text is what the jail complained of."""


@dataclass(frozen=True)
class Command:
    """What a jail executes on the machine so that the plan's command runs inside.

    It writes a newline to its standard input, a pipe, when the plan's command is about to be executed.
    """

    argv: list[str]
    pass_fds: tuple[int, ...] = ()
    before_exec: Callable[[], None] | None = None
    parent_death_signal: signal.Signals = signal.SIGKILL
    environment: dict[str, str] = field(default_factory=dict)


def start(plan: SandboxPlan, command: Command) -> subprocess.Popen[bytes]:
    """Start the command and return once it says that it is ready; raise NotStarted if it ends or keeps silent instead."""
    with open(plan.log, "ab+") as log, _pipe() as (ready, said):
        begin = log.seek(0, os.SEEK_END)
        try:
            process = _fork(plan, command, said, log)
        except (OSError, subprocess.SubprocessError) as problem:
            raise NotStarted(_complaint(log, begin) or str(problem)) from problem
        os.close(said)
        if not _is_ready(ready):
            process.kill()
            process.wait()
            raise NotStarted(_complaint(log, begin) or "it gave no reason")
        return process


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):  # the writing end is closed early when all goes well
                os.close(end)


def _fork(plan: SandboxPlan, command: Command, said: int, log: BinaryIO) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def before_exec() -> None:
        try:
            _forget_signals()
            for group in plan.groups:
                _enter(group)
            if plan.cpus:
                os.sched_setaffinity(0, plan.cpus)
            if command.before_exec is not None:
                command.before_exec()
            calls.signal_on_parent_death(command.parent_death_signal, parent)
        except OSError as problem:
            os.write(2, f"{problem}\n".encode())
            raise

    return subprocess.Popen(
        command.argv,
        stdin=said,
        stdout=log,
        stderr=log,
        env=command.environment,
        pass_fds=(*plan.pass_fds, *command.pass_fds),
        preexec_fn=before_exec,
        start_new_session=True,
    )


def _forget_signals() -> None:
    """Give the sandbox the plain signals, whatever the opener ignores or blocks (a job in the background ignores SIGINT)."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)


def _enter(group: os.PathLike[str]) -> None:
    entrance = os.open(group, os.O_WRONLY)
    try:
        os.write(entrance, b"0")
    finally:
        os.close(entrance)


def _is_ready(ready: int) -> bool:
    watch = select.poll()
    watch.register(ready, select.POLLIN)
    return bool(watch.poll(_START_SECONDS * 1000)) and os.read(ready, 1) == b"\n"


def _complaint(log: BinaryIO, begin: int) -> str:
    log.seek(begin)
    return log.read(_COMPLAINT_BYTES).decode(errors="replace").strip()
