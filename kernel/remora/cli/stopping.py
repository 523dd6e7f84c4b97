"""`remora cancel` and `remora stop`: ending runs, sandboxes, and everything."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator

import click

from ..errors import PlaceError
from ..wire import Fields

_FAREWELL = 10.0  # seconds that the backend may take to go once it has said that everything is stopped


@click.command()
@click.argument("run")
@click.option("--hard", is_flag=True, help="End its sandbox at once, whatever the code does.")
def cancel(run: str, hard: bool) -> None:
    """Interrupt a run; if it does not react within a second, end its sandbox."""
    from ..headless import starting
    from ..states import ENDED, RunState

    facts = starting.find(run)
    if RunState(facts["state"]) in ENDED:
        click.echo(f"remora: the run {facts['id']} has ended already ({facts['state']})", err=True)
        return
    starting.cancel(facts["id"], hard)


@click.command()
@click.argument("sandboxes", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every sandbox of yours, and then the backend itself.")
def stop(sandboxes: tuple[str, ...], everything: bool) -> int:
    """End sandboxes. What is running in them ends."""
    if everything == bool(sandboxes):
        raise click.UsageError("name the sandboxes to end (`remora ps` lists them), or --all.")
    if everything and not _anything():
        click.echo("nothing is running", err=True)
        return 0
    with _departure() if everything else contextlib.nullcontext():
        result = _stop(list(sandboxes), everything)
        for name in result["stopped"]:
            click.echo(name)
        for why in dict.fromkeys(result["left"].values()):
            click.echo(f"remora: {why}", err=True)
    return PlaceError.exit_code if result["left"] else 0


def _stop(sandboxes: list[str], everything: bool) -> Fields:
    from .. import client as clients
    from ..wire import StopSandboxes

    client = clients.client()
    return client.run(client.request(StopSandboxes(sandboxes, everything))).result


def _anything() -> bool:
    """Return whether a backend serves, or sandboxes wait for one to take them up."""
    from .. import launch
    from ..settings import UPLINK

    if UPLINK.text:
        return True
    with contextlib.suppress(OSError):
        _dial().close()
        return True
    return any(any((launch.backend_directory() / place).glob("*")) for place in ("sandboxes", "links"))


def _dial() -> socket.socket:
    from .. import launch, streams

    return streams.dial(launch.backend_socket())


@contextlib.contextmanager
def _departure() -> Iterator[None]:
    """Return when the backend's process is gone, so that nothing is left when the command ends."""
    from .. import launch
    from ..settings import UPLINK

    if UPLINK.text:
        yield
        return
    launch.ensure_backend()
    with _dial() as sock:
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    process = os.pidfd_open(pid)
    try:
        yield
        select.select([process], [], [], _FAREWELL)
    finally:
        os.close(process)
