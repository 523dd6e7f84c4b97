"""`remora logs` and `remora attach`: what a run printed, and what it goes on to print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..headless.watching import Watching

_INTERRUPTED = 130


@click.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on as output comes, until the run ends.")
def logs(run: str, follow: bool) -> None:
    """Print what a run printed. RUN may be the beginning of its id."""
    from ..headless.console import Console
    from ..headless.starting import find
    from ..headless.watching import Watching

    watching = Watching(find(run), Console(status=False))
    if follow:
        _follow(watching)
    else:
        watching.replay()


@click.command()
@click.argument("run")
@click.option("--log-output/--no-log-output", default=True, help="Print the output.")
def attach(run: str, log_output: bool) -> int:
    """Print everything from a run's start, then follow it; Ctrl-C leaves it running.

    The output notebook of a notebook's run is written anew, from the start, and as the run goes on. Ends with the run's exit
    code.
    """
    from ..headless import job, running
    from ..headless.console import Console
    from ..headless.starting import find
    from ..headless.watching import Watching

    facts = find(run)
    known = job.load(facts["id"])
    console = Console(show=log_output)
    if known is None:
        return _follow(Watching(facts, console))
    try:
        return running.attach(facts, known, console)
    except running.Detached:
        return _left(facts["id"])


def _follow(watching: Watching) -> int:
    from ..headless import running
    from ..states import RunState

    def leave(_: object) -> None:
        raise running.Detached

    try:
        watching.follow(leave)
    except running.Detached:
        return _left(watching.run)
    if watching.ended is not None:
        raise watching.ended
    return 0 if watching.state is RunState.DONE else 1


def _left(run: str) -> int:
    click.echo(f"remora: the run goes on; `remora attach {run}` comes back to it, `remora cancel {run}` ends it", err=True)
    return _INTERRUPTED
