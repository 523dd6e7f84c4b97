"""What a sandbox sees of the machine: its image under its own paths, the notebook's folder, and a private layer on top.

The image is seen read-only. Above it lies a small virtual environment of the sandbox's own, whose packages come first: what
`%pip install` brings goes there, and lasts as long as the sandbox. pip leaves packages outside its own environment alone, so
nothing of the image is ever touched.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from remora.errors import PlaceError
from remora.resources import SandboxSpec

from .images.fitting import Fitting

LAYER = "env"
CACHES = ("huggingface", "pip", "torch", "uv")
"""Folders of ~/.cache that stay on the machine when a sandbox ends."""
LIBRARIES = "libraries"
_LIBRARY_FOLDERS = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"),
    *(f"{top}/{sys.implementation._multiarch}" for top in ("/lib", "/usr/lib") if hasattr(sys.implementation, "_multiarch")),
)
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/sys")
"""Folders that every jail shows read-only anyway."""
_EVERYBODYS = ("/", "/tmp", "/var/tmp", "/home")
"""Folders that hold what is not this user's, or have a private stand-in inside."""


def build_layer(directory: Path, fitting: Fitting) -> Path:
    """Make the private virtual environment below `directory` and return its interpreter's path."""
    layer = directory / LAYER
    base = Path(fitting.inside or os.path.realpath(fitting.executable))
    if not fitting.inside and not base.is_file():
        raise PlaceError(f"the kernel's Python {base} is not there any more; restart the kernel", reason="image-failed")
    packages = layer / "lib" / f"python{fitting.version}" / "site-packages"
    packages.mkdir(parents=True)
    (layer / "bin").mkdir()
    for name in ("python", "python3", f"python{fitting.version}"):
        (layer / "bin" / name).symlink_to(base)
    for name in ("pip", "pip3"):  # else `!pip` would be the image's, for the image's own environment
        (layer / "bin" / name).write_text(f'#!/bin/sh\nexec "{layer}/bin/python" -m pip "$@"\n')
        (layer / "bin" / name).chmod(0o755)
    (layer / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {fitting.version}\n"
    )
    (packages / "_image.pth").write_text(f"import site; list(map(site.addsitedir, {list(fitting.folders)!r}))\n")
    if fitting.libraries:
        _link_lacking(Path(fitting.libraries), layer / LIBRARIES)
    return layer / "bin" / "python"


def _link_lacking(source: Path, target: Path) -> None:
    """Link the shared libraries that this machine has none of under the same name."""
    target.mkdir()
    for library in os.scandir(source):
        if not any(os.path.exists(f"{folder}/{library.name}") for folder in _LIBRARY_FOLDERS):
            (target / library.name).symlink_to(library.path)


def lend_caches(home: Path, caches: Path, owner: int | None) -> None:
    """Let the private home directory of a sandbox have caches of the machine's, which all sandboxes of the user share."""
    place = home / ".cache"
    place.mkdir(parents=True)
    if owner is not None:
        os.chown(place, owner, owner)
    for name in CACHES:
        with contextlib.suppress(FileExistsError):  # whatever code has put there
            (caches / name).mkdir(mode=0o700)
        (place / name).symlink_to(caches / name)


def mounts(
    spec: SandboxSpec, fitting: Fitting, directory: Path, folder: str | None, caches: Path
) -> tuple[tuple[str, str, bool], ...]:
    """Return what a sandbox sees beside the system, as (source, target, writable), parents before what lies below them.

    PlaceError if something is not here that came from another machine for it.
    """
    roots = [root for root in fitting.roots if folder is None or not Path(root).is_relative_to(folder)]
    wanted = dict.fromkeys((*fitting.shown, *roots), False)
    wanted[str(Path(spec.image["guest"]).parents[2])] = False
    wanted |= dict.fromkeys((str(directory / LAYER), str(caches)), True)
    if folder is not None:
        wanted.setdefault(folder, spec.files == "rw")
    places = dict(fitting.places)
    for path, source in places.items():
        if not os.path.isdir(source):
            raise PlaceError(f"{path} did not come to this machine as a whole; run it again", reason="image-failed")
    seen = {
        path: writable
        for path, writable in (dict.fromkeys(places, False) | wanted).items()
        if os.path.isdir(places.get(path, path)) and not in_system(path, fitting.whole)
        if path not in _EVERYBODYS and not _holds_home(spec, path)
    }
    ordered = sorted(seen.items(), key=lambda item: item[0].count("/"))
    shown = [(path, w) for path, w in ordered if path in places or not _shown_already(path, w, seen)]
    return tuple((places.get(path, path), path, writable) for path, writable in shown)


def device_mounts(wanted: Iterable[tuple[str, str, bool]], fitting: Fitting) -> tuple[tuple[str, str, bool], ...]:
    """Return what is to be shown of devices: of files below the system's folders, what differs and has a place to lie over."""
    return tuple(
        (source, target, writable)
        for source, target, writable in wanted
        if not in_system(target, fitting.whole) or (source != target and os.path.exists(target))
    )


def _shown_already(path: str, writable: bool, seen: dict[str, bool]) -> bool:
    """Say whether the nearest folder above that is shown shows this one, too, in the same way."""
    above = next((str(p) for p in Path(path).parents if str(p) in seen), None)
    return above is not None and seen[above] == writable


def exceeds(wanted: Iterable[tuple[str, str, bool]], own: Iterable[tuple[str, str, bool]]) -> str | None:
    """Return what a sandbox would see that another one, whose own mounts are given, does not; None if there is nothing.

    Below a folder that it may write, code could put a link to anywhere in the place of what was looked at; so such a folder
    may be handed on whole, or not at all.
    """
    mine = [(os.path.realpath(source), writable) for source, _, writable in own]
    for source, _, writable in wanted:
        real = os.path.realpath(source)
        whole = any(real == one and (may_write or not writable) for one, may_write in mine)
        part = not writable and any(not may_write and Path(real).is_relative_to(one) for one, may_write in mine)
        if not whole and not part:
            return source
    return None


def in_system(path: str, other: bool = False) -> bool:
    """Say whether a path is one of the system's folders, or below one, where the sandbox's system is no `other` one."""
    return any(path == top or (not other and path.startswith(top + "/")) for top in _SYSTEM)


def _holds_home(spec: SandboxSpec, path: str) -> bool:
    """Say whether a folder is the user's home directory, or one above it."""
    return Path(os.path.realpath(spec.home or "/")).is_relative_to(os.path.realpath(path))


def environment(spec: SandboxSpec, fitting: Fitting, interpreter: Path, threads: dict[str, str]) -> dict[str, str]:
    """Return the environment of everything that runs in the sandbox."""
    layer = interpreter.parent.parent
    path = [str(layer / "bin"), *fitting.programs, "/usr/local/bin", "/usr/bin", "/bin"]
    own = {"PATH": ":".join(dict.fromkeys(path)), "VIRTUAL_ENV": str(layer), "TERM": "xterm-256color"}
    if fitting.libraries:
        own["LD_LIBRARY_PATH"] = str(layer / LIBRARIES)
    return {"LANG": "C.UTF-8"} | dict(fitting.environment) | dict(spec.environment) | threads | own | {"HOME": spec.home or "/"}


def own_folder(spec: SandboxSpec) -> str:
    """Return where code starts that shares no folder: an empty one of that name, or its home where the system would be hidden."""
    folder = os.path.normpath(spec.folder or "/")
    return (spec.home or "/") if folder == "/" or in_system(folder) else folder


def shared_folder(spec: SandboxSpec, state: Path) -> tuple[str | None, str | None]:
    """Return the folder to be shared, if any, and a line that says why it is not; `state` is what no sandbox may see."""
    if spec.folder is None or spec.files == "none":
        return None, None
    folder = os.path.normpath(spec.folder)
    if folder in _EVERYBODYS or in_system(folder):
        return None, f"the notebook's folder is {folder}, which is not shared; move the notebook into a folder of its own"
    if Path(os.path.realpath(state)).is_relative_to(os.path.realpath(folder)):
        advice = "which sandboxes do not see; give the notebook a folder of its own, or set REMORA_STATE_DIR"
        return None, f"the notebook's folder holds Remora's state directory, {advice}"
    if spec.home and _holds_home(spec, folder):
        what = "is your" if os.path.realpath(folder) == os.path.realpath(spec.home) else "holds your"
        advice = "which sandboxes do not see; give the notebook a folder of its own"
        return None, f"the notebook's folder {what} home directory, {advice}"
    return folder, None
