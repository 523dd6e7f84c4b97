"""Steps that change the system: their commands run in a jail, and what they changed there becomes a layer.

Law: the commands see the system with the layers below and change a copy of what they touch; nothing of the machine is changed.
Everything that they start ends with the step. Code in here has made the folders that are read afterwards, so no link in them is
followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from remora.errors import PlaceError

from ... import jails
from ...jails.layers import GROUND, OWN, SHARED_FILES, gather
from ...sandbox import FIRST_HOST_ID, Mount, SandboxPlan
from ..tree import Entry, Folder, Gone, Tree
from ..work import remove
from .ground import Ground, no_services
from .work import Work

_HOST_IDS = 0x0F00_0000
_PASSED = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ")
"""Of our own environment, besides what begins with PIP_: how the network is reached from here."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHOWN = ("/usr/", "/etc/", "/opt/")
"""Of the machine, unless the image is a system of its own."""
_NOISE = (
    *("proc", "dev", "sys", "tmp", "run", "var/tmp", "var/log", "var/backups", "var/run", "var/lock", "etc/.pwd.lock"),
    *("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/resolv.conf"),
    *("var/lib/apt/lists", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/triggers/Lock"),
    *("var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old"),
    *("root/.cache", "root/.npm", "root/.bash_history", "root/.python_history", "root/.wget-hsts"),
)
"""Traces of the work that nobody needs, relative to the top."""
_TOPS = ("boot", "home", "media", "mnt", "root", "srv")
"""Folders that any system has at its top."""
_CACHE, _KEPT_CACHE = "var/cache", "debconf"


def run(work: Work, argv: Sequence[str], environment: Mapping[str, str], mounts: Sequence[Mount] = (), advice: str = "") -> Tree:
    """Run a command as user 0 of a jail and return what it changed in the system. Raises ImageFailed."""
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
    )
    status = _run(work, plan)
    if status:
        raise work.failed(f"it ended with {f'signal {-status}' if status < 0 else f'status {status}'}", advice)
    work.say("taking in what was changed")
    return _difference(work, changes, [*plan.layers, changes / GROUND], ground.closed if ground else frozenset())


def _make_top(work: Work, folder: Path, mounts: Sequence[Mount], owner: int | None) -> None:
    """Make the topmost layer: what has to be there so that something can be mounted on it."""
    places = [mount.target for mount in mounts if mount.source.is_dir()]
    tops = [name for name in (*_TOPS, *OWN) if not any(os.path.islink(root / name) for root in roots(work))]
    for place in (*(folder / name for name in tops), *(folder / place.relative_to("/") for place in places)):
        place.mkdir(parents=True, exist_ok=True)
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


# ---- what was changed


def _difference(work: Work, changes: Path, below: Sequence[Path], closed: frozenset[str]) -> Tree:
    folder = gather(changes)
    for name in (*_NOISE, *_caches(folder)):
        if not any((folder / above).is_symlink() for above in Path(name).parents):
            remove(folder / name)
    _settle(folder)
    entries: list[Entry] = []
    for entry in work.store.scan(folder, system=True).entries:
        if isinstance(entry, Folder) and entry.path in closed:
            entries.append(Gone(entry.path))
        elif isinstance(entry, Folder) and entries[-1:] != [Gone(entry.path)] and _has_folder(below, entry.path):
            continue  # it was there before; what is new in it has entries of its own
        entries.append(entry)
    return Tree(tuple(dict.fromkeys(entries)))


def _has_folder(layers: Sequence[Path], path: str) -> bool:
    found = next((place for layer in reversed(layers) if os.path.lexists(place := layer / path)), None)
    return found is not None and found.is_dir() and not found.is_symlink()


def _caches(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return [f"{_CACHE}/{name}" for name in os.listdir(folder / _CACHE) if name != _KEPT_CACHE]
    return []


def _settle(folder: Path) -> None:
    """Make what was changed ours, readable and plain: no sockets, and no file that still says which overlay it came through."""
    waiting, root = [str(folder)], os.geteuid() == 0
    while waiting:
        here = waiting.pop()
        os.chmod(here, 0o755)
        with os.scandir(here) as listed:
            for entry in listed:
                if root:
                    os.chown(entry.path, 0, 0, follow_symlinks=False)
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append(entry.path)
                elif stat.S_ISREG(mode):
                    _plain(entry.path, mode)
                elif stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
                    os.unlink(entry.path)


def _plain(path: str, mode: int) -> None:
    if not mode & stat.S_IRUSR:
        os.chmod(path, stat.S_IMODE(mode) | stat.S_IRUSR)
    for name in os.listxattr(path):
        if name.startswith("user.overlay."):
            os.removexattr(path, name)
