"""The process that a detached notebook run leaves behind: `python -m remora.headless.follower RUN FD`.

It follows the run and writes its notebook, in a session of its own, with no terminal; when the run's first record has come
it closes the descriptor FD. When it is killed nothing is lost: whoever attaches to the run writes the notebook anew.
"""

from __future__ import annotations

import os
import sys

from ..errors import InputError, RemoraError
from ..wire import Record, RunId
from . import job as jobs
from . import starting
from .console import Console
from .following import Following, Stop


def main(run: RunId, taken_over: int) -> None:
    """Follow one run to its end. RemoraError if it is lost."""
    job = jobs.load(run)
    if job is None:
        raise InputError(f"the run {run} is no notebook run of this machine")
    line = starting.Line(starting.connect(starting.find(run)))
    following = Following(job, Console(show=False, status=False, errors=False), line.send)
    waiting = [taken_over]

    def take(item: Record | RemoraError) -> None:
        following.items.put(item)
        if waiting:
            os.close(waiting.pop())

    starting.follow(run, take)
    with starting.signals_into(following.items.put):
        following.follow(_leave)


def _leave(_: Stop) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    try:
        main(RunId(sys.argv[1]), int(sys.argv[2]))
    except RemoraError as error:
        sys.exit(f"remora: {error}")
