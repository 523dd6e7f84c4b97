"""What is seen of a sandbox's system: the machine's folders, layers of an image over them, and for a build its own changes.

Law: layers are seen through overlays alone, never bound: a lock or a change in one sandbox must not reach another one. Here it is
decided what lies over what, in the words of bwrap; nothing is mounted. A build's changes are kept by place, since folders with
mounts below them cannot be one overlay; `gather` puts them together afterwards. The folder of changes has, before it is used,
a folder ground/: the topmost layer, with all names that are at the top, which belongs to the sandbox.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..sandbox import SandboxPlan

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/sys")
"""Folders of the machine that every sandbox sees, unless its layers are a system of their own."""
CHANGED = ("/usr", "/etc", "/opt", "/var/lib/dpkg")
"""Folders of the machine that a build may change; the last one says what is installed, and nothing else of /var is shown."""
SHARED_FILES = ("/etc/resolv.conf", "/etc/hosts")
"""Files of the machine that a system of its own sees as well, since it shares the network."""
OWN = ("proc", "dev", "sys", "tmp", "run")
"""Names at the top that never come from a layer."""
GROUND, POINTS, UPPER, _WORK = "ground", "points", "upper", "work"

At = Callable[[Path], Path]
"""Where bwrap finds a tree of the plan."""


@dataclass
class Seen:
    """Folders by target, each with the sources that lie over one another there, the lowest first; and links by target."""

    folders: dict[str, list[Path]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def add_machine(self) -> None:
        """Add the machine's own system."""
        for place in map(Path, SYSTEM):
            if place.is_symlink():
                self.links[str(place)] = str(place.readlink())
            elif place.is_dir():
                self.folders[str(place)] = [place]

    def add_layer(self, layer: Path, seen_at: Path) -> None:
        """Add what a layer has at its top."""
        with os.scandir(layer) as listed:
            for entry in listed:
                target = f"/{entry.name}"
                if entry.name in OWN or target in self.links:
                    continue
                if entry.is_symlink():
                    self.folders.pop(target, None)
                    self.links[target] = os.readlink(entry.path)
                elif entry.is_dir():
                    self.folders.setdefault(target, []).append(seen_at / entry.name)


def obstacle(plan: SandboxPlan) -> str | None:
    """Return why the layers cannot be laid over the machine's folders; None if they can."""
    covered = (
        [] if plan.whole else _places(plan) if plan.changes else [f"/{name}" for one in plan.layers for name in os.listdir(one)]
    )
    for place in covered:
        if place in (*SYSTEM, *CHANGED) and (mounted := _mounted_below(place)):
            return (
                f"{mounted} is a file system of its own, so nothing can be laid over {place} on this machine; "
                "begin the image with debian_slim() or from_registry(), which do not use the machine's system"
            )
    return None


def prepare(plan: SandboxPlan) -> None:
    """Make what the overlays of a plan need: places for what is mounted over them, and a build's folders for its changes."""
    if plan.changes is None:
        if plan.layers:
            _make_points(plan)
        return
    for place in ("/", *_places(plan)):
        for part in (UPPER, _WORK):
            folder = _part(plan.changes, place) / part
            folder.mkdir(parents=True)
            if plan.host_id is not None:
                os.chown(folder, plan.host_id, plan.host_id)


def system(plan: SandboxPlan, at: At) -> list[str]:
    """Return what shows the system, as words of bwrap."""
    if plan.changes is not None:
        return _changeable(plan, plan.changes, at)
    seen = Seen({"/sys": [Path("/sys")]} if plan.whole else {})
    if not plan.whole:
        seen.add_machine()
    machine = dict.fromkeys(seen.folders)
    for layer in plan.layers:
        seen.add_layer(layer, at(layer))
    words = [word for target, link in seen.links.items() for word in ("--symlink", link, target)]
    for target, sources in sorted(seen.folders.items()):
        if target in machine and len(sources) == 1:
            words += ["--ro-bind", target, target]
        else:
            points = at(plan.scratch) / POINTS / target.strip("/")
            words += [*_sources([*sources, points]), "--ro-overlay", target]
    return [*words, *_shared_files(plan)]


def gather(changes: Path) -> Path:
    """Put a build's changes together, laid out like a root, and return their folder. Nothing may use them any more."""
    whole = _part(changes, "/") / UPPER
    for place in CHANGED:
        part = _part(changes, place) / UPPER
        if part.is_dir() and any(part.iterdir()):
            target = whole / place.strip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(part, target)  # over the empty folder that it was mounted on, if that was changed at all
    return whole


def _changeable(plan: SandboxPlan, changes: Path, at: At) -> list[str]:
    """Show a system that can be changed as a whole, and under some of the machine's folders."""
    places = _places(plan)
    stack = [*((at(layer), layer) for layer in plan.layers), (at(changes) / GROUND, changes / GROUND)]
    words = []
    for place in ("/", *places):
        inside = place.strip("/")
        sources = [Path(place)] if place != "/" else []
        sources += [seen_at / inside for seen_at, layer in stack if (layer / inside).is_dir()]
        part = _part(at(changes), place)
        words += [*_sources(sources), "--overlay", str(part / UPPER), str(part / _WORK), place]
    return [*words, "--ro-bind", "/sys", "/sys", *_shared_files(plan)]


def _places(plan: SandboxPlan) -> list[str]:
    return [] if plan.whole else [place for place in CHANGED if os.path.isdir(place) and not os.path.islink(place)]


def _mounted_below(place: str) -> str | None:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        points = (line.split()[4] for line in mounts)
        return next((point for point in points if point.startswith(f"{place}/")), None)


def _part(changes: Path, place: str) -> Path:
    return changes / ("+" + place.strip("/").replace("/", "+"))


def _sources(sources: Iterable[Path]) -> list[str]:
    return [word for source in sources for word in ("--overlay-src", str(source))]


def _shared_files(plan: SandboxPlan) -> list[str]:
    files = [name for name in SHARED_FILES if plan.whole and os.path.isfile(name)]
    return [word for name in files for word in ("--ro-bind", os.path.realpath(name), name)]


def _make_points(plan: SandboxPlan) -> None:
    """Make a topmost layer of empty folders, in which everything can be mounted: nothing can be made in a read-only overlay."""
    points = plan.scratch / POINTS
    files = {mount.target for mount in plan.mounts if not mount.source.is_dir()}
    targets = [plan.home, plan.folder, Path("/var/tmp"), *(mount.target for mount in plan.mounts if mount.target not in files)]
    for layer in plan.layers:
        targets += [Path("/", name) for name in os.listdir(layer)]
    for target in targets:
        (points / target.relative_to("/")).mkdir(parents=True, exist_ok=True)
    for name in (*map(str, files), *(SHARED_FILES if plan.whole else ())):
        file = points / name.strip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
