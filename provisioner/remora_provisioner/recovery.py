"""What is left when a supervisor was killed, and how to bring it to an end.

Its runs' logs get the last words it could not write.
"""

from __future__ import annotations

import time
from pathlib import Path

from remora.errors import RemoraError, StateError
from remora.states import RunState
from remora.wire import Fields, Record, RunId

from . import runlog
from .hearing import UNFINISHED
from .jails import scratch
from .limits import groups
from .order import GROUPS, RUNS
from .runs import LOG_NAME

ENDED_STATE = RunState.ENDED.value


def unfinished_runs(runs: Path, directory: Path) -> list[RunId]:
    """Return the runs of a dead sandbox whose logs have no end, or that it had just taken and not begun to log."""
    try:
        names = (directory / RUNS).read_text().splitlines()
    except OSError:
        return []
    last = set(names[-1:])  # of older ones without a log, the log was dropped in its time
    return [RunId(n) for n in names if (state := last_state(runs, RunId(n))[0]) in UNFINISHED or (state is None and n in last)]


def last_state(runs: Path, run: RunId) -> tuple[str | None, Fields]:
    """Return the state that a run's log ends with, and all its facts; None without a log."""
    state: str | None = None
    facts: Fields = {}
    for record, _ in runlog.read(runs / run / LOG_NAME):
        if record.type == "state":
            facts |= {k: v for k, v in record.content.items() if k != "state"}
            state = str(record.content["state"])
    return state, facts


def finish(runs: Path, run: RunId, error: RemoraError) -> Fields:
    """Append the end of a run whose supervisor is gone; return its facts."""
    facts = {"reason": error.reason, "ended": time.time()}
    state, known = last_state(runs, run)
    if state is not None and state not in UNFINISHED:
        return known  # it had come to its end, and nobody had heard of it
    try:
        log = runlog.RunLog(runs / run / LOG_NAME)
    except StateError:
        return facts  # no room to write the end down; whoever asks is told from memory
    content = {"ok": False, "reason": error.reason, "ended": error.to_dict()}
    log.append(Record(run, log.seq + 1, time.time(), "result", content))
    log.append(Record(run, log.seq + 1, time.time(), "state", {"state": ENDED_STATE, "reason": error.reason}))
    log.close()
    return facts


def remove(directory: Path) -> None:
    """Take away a dead sandbox's control groups and files.

    What a killed supervisor left, and what is left after an orderly end.
    """
    if (directory / GROUPS).exists():
        for group in (directory / GROUPS).read_text().splitlines():
            groups.remove(Path(group))
    scratch.clear(directory)
    directory.rmdir()
