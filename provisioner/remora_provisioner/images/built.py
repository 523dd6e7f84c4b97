"""What an image has become on this machine, and how it is found again.

Law: found by its keys, from a few small files; nothing is read as a whole, built or started here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remora.errors import ImageFailed
from remora.images import Image
from remora.images.steps import METADATA, Env, MirrorBase, NamedBase, Part, Workdir

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

    @property
    def site(self) -> str:
        """Return where packages lie in a tree."""
        return f"lib/python{self.version}/site-packages"


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

    @classmethod
    def of(cls, image: Image, keys: tuple[str, ...], base: Base, trees: list[str]) -> Built:
        """Return what these trees, on this base, come to with the steps that change no file."""
        return cls(
            trees=tuple(trees),
            env=tuple(pair for step in image.steps if isinstance(step, Env) for pair in step.pairs),
            workdir=next((step.path for step in reversed(image.steps) if isinstance(step, Workdir)), ""),
            python=base.python,
            version=base.version,
            site=base.site,
            keys=keys,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Built:
        """Rebuild from `to_dict` after a way through JSON."""
        pairs = tuple((name, value) for name, value in data["env"])
        return cls(**data | {"env": pairs, "trees": tuple(data["trees"]), "keys": tuple(data["keys"])})


def find(image: Image, root: Path) -> Built | None:
    """Return what an image has become here, every tree with its farm; None if something has to be built first.

    Raises ImageFailed if no image has the name that it begins with.
    """
    records = Records(root)
    image = resolve(image, records).built
    keys = keys_here(image)
    base = _base(image.base, records, keys[0])
    if base is None:
        return None
    trees = []
    for key, step in zip(keys[1:], image.steps, strict=True):
        if isinstance(step, METADATA):
            continue
        record = whole(records, root, key)
        if record is None or (record.tree and not (root / "farms" / record.tree).is_dir()):
            return None
        trees += [record.tree] if record.tree else []
    return Built.of(image, keys, base, trees)


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
    """Return the record with this key if its tree is still in the store; it counts as used now."""
    record = records.get(key)
    if record is None or (record.tree and not (root / "trees" / record.tree).is_file()):
        return None
    records.touch(key)
    return record


def keys_here(image: Image) -> tuple[str, ...]:
    """Return a key for the base and each step; on a mirror, what is installed there is part of what steps make of it."""
    if isinstance(image.base, MirrorBase) and image.steps:
        return image.keys_above(_installed((*image.base.site_packages, *image.base.roots)))
    return image.keys


def _installed(sites: tuple[str, ...]) -> str:
    """Return what tells one set of installed packages from another: the names of their descriptions, by folder."""
    names: list[str] = []
    for site in sites:
        with contextlib.suppress(OSError):
            names += sorted(name for name in os.listdir(site) if name.endswith(_DESCRIBING))
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _base(part: Part, records: Records, key: str) -> Base | None:
    if isinstance(part, MirrorBase):
        return mirrored(part)
    record = records.get(key)
    return base_from(record) if record is not None and os.access(record.lock, os.X_OK) else None


def mirrored(part: MirrorBase) -> Base:
    """Return the asking kernel's environment as a base: all of its packages count as installed."""
    return Base(part.executable, part.version, (*part.site_packages, *part.roots))


def base_from(record: Record) -> Base:
    """Return the base that a record describes."""
    found = record.step["found"]
    return Base(found["python"], found["version"], tuple(found["sites"]))
