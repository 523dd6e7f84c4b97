"""What an image has become on this machine, and how it is found again.

Law: found by its keys, from a few small files; nothing is read as a whole, built or started here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from remora.errors import ImageFailed
from remora.images import Image
from remora.images.steps import METADATA, Apt, Env, MirrorBase, NamedBase, Part, PythonBase, Run, Workdir

from .records import Record, Records

_DESCRIBING = (".dist-info", ".egg-info", ".egg-link", ".pth")


@dataclass(frozen=True)
class Base:
    """The Python that packages are for, and what counts as installed with it."""

    python: str
    """The interpreter, absolute."""
    version: str
    """Major and minor."""
    sites: tuple[str, ...] = ()
    """Folders whose packages count as installed, the first one first."""
    layer: str = ""
    """The digest of its own system; empty if it stands on the machine's."""
    inside: str = ""
    """The interpreter of its own system, for its sandboxes; `python` is then one of this machine's that is like it."""
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = ""

    @property
    def site(self) -> str:
        """Return where packages lie in a tree."""
        return f"lib/python{self.version}/site-packages"


@dataclass(frozen=True)
class Stack:
    """What base and steps have made, as digests, the lowest first, and what they have set."""

    trees: tuple[str, ...] = ()
    """Packages for Python."""
    layers: tuple[str, ...] = ()
    """What was changed of the system."""
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = ""

    @classmethod
    def on(cls, base: Base) -> Stack:
        """Return what a base makes."""
        return cls(layers=(base.layer,) if base.layer else (), env=base.env, workdir=base.workdir)

    def above(self, step: Part, record: Record | None) -> Stack:
        """Return the stack with a step on top, and what it made, if it makes anything."""
        if isinstance(step, Env):
            return replace(self, env=(*self.env, *step.pairs))
        if isinstance(step, Workdir) or record is None:
            return replace(self, workdir=step.path) if isinstance(step, Workdir) else self
        trees, layers = (tuple(filter(None, one)) for one in ((*self.trees, record.tree), (*self.layers, record.layer)))
        return replace(self, trees=trees, layers=layers)


@dataclass(frozen=True)
class Built:
    """What an image has become on this machine."""

    trees: tuple[str, ...]
    """Digests, the lowest first; steps that changed no file are left out."""
    env: tuple[tuple[str, str], ...]
    workdir: str
    python: str
    """The interpreter, absolute."""
    version: str
    """Major and minor."""
    site: str
    """Where packages lie in a tree."""
    keys: tuple[str, ...]
    """Of the base and of each step."""
    layers: tuple[str, ...] = ()
    """Digests of what was changed of the system, the lowest first."""
    root: bool = False
    """The lowest layer is a system of its own, so that the machine's is not below it."""
    inside: str = ""
    """The interpreter of that system; if it is empty, `python` is used, which lies on the machine."""

    @classmethod
    def of(cls, keys: tuple[str, ...], base: Base, stack: Stack) -> Built:
        """Return what a base and what lies on it come to."""
        return cls(
            trees=stack.trees,
            env=stack.env,
            workdir=stack.workdir,
            python=base.python,
            version=base.version,
            site=base.site,
            keys=keys,
            layers=stack.layers,
            root=bool(base.layer),
            inside=base.inside,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Built:
        """Rebuild from `to_dict` after a way through JSON."""
        pairs = tuple((name, value) for name, value in data["env"])
        return cls(**data | {"env": pairs} | {name: tuple(data[name]) for name in ("trees", "layers", "keys")})


def find(image: Image, root: Path) -> Built | None:
    """Return what an image has become here, every tree with its farm; None if something has to be built first.

    Raises ImageFailed if no image has the name that it begins with.
    """
    records = Records(root)
    image = resolve(image, records)
    keys = keys_here(image)
    base = _base(image.base, records, root, keys[0])
    if base is None:
        return None
    stack = Stack.on(base)
    for key, step in zip(keys[1:], image.steps, strict=True):
        record = None if isinstance(step, METADATA) else whole(records, root, key)
        if record is None and not isinstance(step, METADATA):
            return None
        stack = stack.above(step, record)
    made = all((root / "farms" / tree).is_dir() for tree in (*stack.trees, *stack.layers))
    return Built.of(keys, base, stack) if made else None


def resolve(image: Image, records: Records) -> Image:
    """Return the image with a published one in place of its name. Raises ImageFailed if there is none."""
    if not isinstance(image.base, NamedBase):
        return image
    found = records.named(image.base.name)
    if found is None:
        known = ", ".join(records.names()) or "none"
        text = f"no image is published as {image.base.name!r} on this machine; published are: {known}"
        raise ImageFailed(text, step=image.base.to_dict(), key=image.keys[0], log="")
    return resolve(Image.from_dict(found), records).with_steps(image.steps)


def whole(records: Records, root: Path, key: str) -> Record | None:
    """Return the record with this key if its trees are still in the store; it counts as used now."""
    record = records.get(key)
    if record is None or not all((root / "trees" / tree).is_file() for tree in record.made_of):
        return None
    records.touch(key)
    return record


def keys_here(image: Image) -> tuple[str, ...]:
    """Return a key for the base and each step.

    What is installed on a mirror is part of what steps make of it; so is the release of a system that they change.
    """
    there = ""
    if isinstance(image.base, MirrorBase) and image.steps:
        there = _installed((*image.base.site_packages, *image.base.roots))
    if isinstance(image.base, MirrorBase | PythonBase) and any(isinstance(step, Apt | Run) for step in image.steps):
        there += _release()
    return image.keys_above(there)


def _installed(sites: tuple[str, ...]) -> str:
    """Return what tells one set of installed packages from another: the names of their descriptions, by folder."""
    names: list[str] = []
    for site in sites:
        with contextlib.suppress(OSError):
            names += sorted(name for name in os.listdir(site) if name.endswith(_DESCRIBING))
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _release() -> str:
    try:
        return hashlib.sha256(Path("/etc/os-release").read_bytes()).hexdigest()
    except OSError:
        return ""


def _base(part: Part, records: Records, root: Path, key: str) -> Base | None:
    if isinstance(part, MirrorBase):
        return mirrored(part)
    return known_base(records, root, key)


def mirrored(part: MirrorBase) -> Base:
    """Return the asking kernel's environment as a base: all of its packages count as installed."""
    return Base(part.executable, part.version, (*part.site_packages, *part.roots))


def known_base(records: Records, root: Path, key: str) -> Base | None:
    """Return the base with this key if it was made, and its interpreter and system are still there."""
    record = whole(records, root, key)
    if record is None or not os.access(record.lock, os.X_OK):
        return None
    found = record.step["found"]
    pairs = tuple((name, value) for name, value in found.get("env", ()))
    return Base(**found | {"sites": tuple(found["sites"]), "env": pairs})
