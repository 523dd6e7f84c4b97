"""What is left when a supervisor was killed, and how to bring it to an end.

Its runs' logs get the last words it could not write.
"""

from __future__ import annotations

import contextlib
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


def runs_of(runs: Path, directory: Path) -> list[RunId]:
    """Return the runs of a dead sandbox, those that it had just taken and not begun to log, too."""
    try:
        names = (directory / RUNS).read_text().splitlines()
    except OSError:
        return []
    last = set(names[-1:])  # of older ones without a log, the log was dropped in its time
    return [RunId(name) for name in names if name in last or (runs / name / LOG_NAME).exists()]


def last_state(runs: Path, run: RunId) -> tuple[str | None, Fields]:
    """Return the state that a run's log ends with, and all its facts; None without a log."""
    state: str | None = None
    facts: Fields = {}
    for record, _ in runlog.read(runs / run / LOG_NAME):
        if record.type == "state":
            facts |= {k: v for k, v in record.content.items() if k != "state"}
            state = str(record.content["state"])
            if state not in UNFINISHED:
                facts["ended"] = record.at
    return state, facts


def finish(runs: Path, run: RunId, error: RemoraError) -> tuple[str, Fields]:
    """Append the end of a run whose supervisor is gone, if it lacks one; return its state and facts."""
    state, known = last_state(runs, run)
    if state is not None and state not in UNFINISHED:
        return state, known  # it had come to its end, and perhaps nobody had heard of it
    facts = {"reason": error.reason, "message": str(error), "ended": time.time()}
    try:
        log = runlog.RunLog(runs / run / LOG_NAME)
    except StateError:
        return ENDED_STATE, known | facts  # no room to write the end down; whoever asks is told from memory
    with contextlib.closing(log):
        if (result := _result(log.path)) is not None:  # the last thing that its supervisor wrote
            state = RunState.DONE.value if result.get("ok") else RunState.FAILED.value
            facts = {"ended": facts["ended"]} | ({} if result.get("ok") else {"reason": result.get("reason") or "error"})
        else:
            state, content = ENDED_STATE, {"ok": False, "reason": error.reason, "ended": error.to_dict()}
            log.append(Record(run, log.seq + 1, time.time(), "result", content))
        told = {name: value for name, value in facts.items() if name == "reason"}
        log.append(Record(run, log.seq + 1, time.time(), "state", {"state": state} | told))
    return state, known | facts


def _result(path: Path) -> Fields | None:
    return next((record.content for record, _ in runlog.read(path) if record.type == "result"), None)


def remove(directory: Path) -> None:
    """Take away a dead sandbox's control groups and files.

    What a killed supervisor left, and what is left after an orderly end.
    """
    if (directory / GROUPS).exists():
        for group in (directory / GROUPS).read_text().splitlines():
            groups.remove(Path(group))
    scratch.clear(directory)
    directory.rmdir()
