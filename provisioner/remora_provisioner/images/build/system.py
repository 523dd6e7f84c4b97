"""Steps that change the system: their commands run in a jail, and what they changed there becomes a layer.

Law: the commands see the system with the layers below and change a copy of what they touch; nothing of the machine is changed.
Everything that they start ends with the step.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from remora.errors import PlaceError

from ... import jails
from ...jails.layers import GROUND, OWN, SHARED_FILES, gather
from ...limits import DEFAULT_PIDS
from ...sandbox import FIRST_HOST_ID, Mount, SandboxPlan
from ..tree import Tree
from .difference import take_in
from .ground import Ground, no_services
from .interpreters import follow
from .work import Work

MOST_LAYERS = 24
"""That a kernel is sure to lay over one another: their paths together fit into a page."""
_HOST_IDS = 0x0F00_0000
_PASSED = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ")
"""Of our own environment, besides what begins with PIP_: how the network is reached from here."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHOWN = ("/usr/", "/etc/", "/opt/")
"""Of the machine, unless the image is a system of its own."""
_TOPS = ("boot", "home", "media", "mnt", "root", "srv", "var")
"""Folders that any system has at its top."""
_WORKING = ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "var/log/apt", "var/tmp")
"""Folders that programs expect and that images do not keep."""


def run(work: Work, argv: Sequence[str], environment: Mapping[str, str], mounts: Sequence[Mount] = (), advice: str = "") -> Tree:
    """Run a command as user 0 of a jail and return what it changed in the system. Raises ImageFailed."""
    if len(work.stack.layers) >= MOST_LAYERS:
        raise work.failed(f"it has {MOST_LAYERS} layers already", "put several packages or commands into one step")
    changes, scratch = work.folder / "changes", work.folder / "scratch"
    changes.mkdir()
    scratch.mkdir()
    host_id = FIRST_HOST_ID + int.from_bytes(os.urandom(4), "big") % _HOST_IDS if os.geteuid() == 0 else None
    ground = None if work.base.layer else Ground.of_machine(work.store)
    _make_top(work, changes / GROUND, mounts, host_id)
    farms = [work.store.farm(digest) for digest in work.stack.layers]
    plan = SandboxPlan(
        id=f"build-{work.task.key[:12]}",
        argv=tuple(argv),
        environment={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"} | _passed() | dict(environment),
        folder=Path("/"),
        home=Path("/root"),
        scratch=scratch,
        mounts=tuple(mounts),
        log=Path(work.log.name),
        hostname="build",
        host_id=host_id,
        layers=tuple(farms if ground is None else [ground.folder, *farms]),
        whole=bool(work.base.layer),
        changes=changes,
        pids=DEFAULT_PIDS,
    )
    status = _run(work, plan)
    if status:
        raise work.failed(f"it ended with {f'signal {-status}' if status < 0 else f'status {status}'}", advice)
    work.say("taking in what was changed")
    return take_in(work, gather(changes), [*plan.layers, changes / GROUND], ground.closed if ground else frozenset())


def _make_top(work: Work, folder: Path, mounts: Sequence[Mount], owner: int | None) -> None:
    """Make the topmost layer: what has to be there so that something can be mounted on it."""
    places = [mount.target for mount in mounts if mount.source.is_dir()]
    tops = [name for name in (*_TOPS, *OWN) if not any(os.path.islink(root / name) for root in roots(work))]
    working = _WORKING if "var" in tops else ()
    for place in (*tops, *working, *(place.relative_to("/") for place in places)):
        (folder / place).mkdir(parents=True, exist_ok=True)
    if work.base.layer:
        no_services(folder)
        for name in SHARED_FILES:
            (folder / name.strip("/")).parent.mkdir(exist_ok=True)
            (folder / name.strip("/")).touch()
    if owner is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner, owner)


def roots(work: Work) -> list[Path]:
    """Return the folders that make up the system below a step, the topmost first."""
    farms = [work.store.farm(digest) for digest in work.stack.layers[::-1]]
    return farms if work.base.layer else [*farms, Path("/")]


def resolve(work: Work, path: str) -> str:
    """Return where a path leads in the system below a step, whether anything is there or not."""
    links, known = dict[str, str](), roots(work)
    for place in (*reversed(PurePosixPath(path).parents), PurePosixPath(path)):
        name = follow(str(place), links).strip("/")
        found = next((root / name for root in known if os.path.lexists(root / name)), None)
        if name and found is not None and found.is_symlink():
            links[name] = os.readlink(found)
    return follow(path, links)


def find(work: Work, path: str) -> Path | None:
    """Return where a file of the system below a step lies; None if there is none."""
    return next((found for root in roots(work) if (found := root / path.strip("/")).is_file()), None)


def _passed() -> dict[str, str]:
    return {n: v for n, v in os.environ.items() if n.lower() in _PASSED or n in _PASSED or n.startswith("PIP_")}


def _run(work: Work, plan: SandboxPlan) -> int:
    try:
        sandbox = jails.named("bubblewrap").open(plan)
    except PlaceError as error:
        raise work.failed(str(error), "steps of the system need the jail bubblewrap; see `remora doctor`") from error
    try:
        return asyncio.run(sandbox.wait())
    finally:
        sandbox.close()
