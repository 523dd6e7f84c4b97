"""How a sandbox is fitted out with an image: its interpreter, where packages and programs are found, what is shown for them.

Law: plain values; what has to be built was built before. The folder of all farms is shown as a whole, so that a sandbox that
lives sees what is added to its image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remora.images.steps import MirrorBase


@dataclass(frozen=True)
class Fitting:
    """What a sandbox needs to know of its image; paths are those of the machine, which it has inside too."""

    executable: str
    version: str
    """Major and minor."""
    folders: tuple[str, ...]
    """Where packages are found, the first one first."""
    programs: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    """Folders to show read-only, wherever they lie."""
    roots: tuple[str, ...] = ()
    """Further ones, unless they lie in the notebook's folder."""
    environment: tuple[tuple[str, str], ...] = ()
    trees: tuple[str, ...] = ()
    """Digests of the trees that the sandbox uses, to be kept as long as it lives."""
    layers: tuple[str, ...] = ()
    """Farms of what steps changed of the system, the lowest first."""
    whole: bool = False
    """The layers are a system of their own."""
    inside: str = ""
    """The interpreter as it is called inside, where that is another one than `executable`, or not to be seen from outside."""
    libraries: str = ""
    """A folder of shared libraries for those that the machine lacks of them, with an interpreter from another machine."""
    places: tuple[tuple[str, str], ...] = ()
    """(path inside, folder of this machine): what came from another machine, and is shown under the path that it had there."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Fitting:
        """Rebuild from what `dataclasses.asdict` gives, after a way through JSON."""
        pairs = {name: tuple((one, other) for one, other in data[name]) for name in ("environment", "places")}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()} | pairs)

    @classmethod
    def mirror(cls, base: MirrorBase) -> Fitting:
        """Fit out with the asking kernel's own environment."""
        return cls(
            executable=base.executable,
            version=base.version,
            folders=(*base.site_packages, *base.roots),
            programs=(os.path.join(base.prefix, "bin"),),
            shown=(base.prefix, base.base_prefix, *base.site_packages),
            roots=base.roots,
        )

    @classmethod
    def python(cls, executable: str, version: str, roots: Iterable[str] = ()) -> Fitting:
        """Fit out with a bare Python: its standard library, no packages, and code of the user's below `roots`."""
        real, own = Path(os.path.realpath(executable)), tuple(roots)
        return cls(executable, version, own, (str(real.parent),), (str(real.parents[1]),), own)

    @classmethod
    def own(cls, inside: str, version: str, roots: tuple[str, ...] = ()) -> Fitting:
        """Fit out with the interpreter of a system of its own, and code of the user's below `roots`."""
        return cls("", version, roots, roots=roots, inside=inside)

    def above(self, farms: Sequence[Path], site: str, environment: tuple[tuple[str, str], ...] = ()) -> Fitting:
        """Return the fitting with trees on top, the last one first; `site` is where packages lie in a tree."""
        tops = [*farms][::-1]
        return replace(
            self,
            folders=(*(str(top / site) for top in tops), *self.folders),
            programs=(*(str(top / "bin") for top in tops), *self.programs),
            environment=(*self.environment, *environment),
            trees=(*self.trees, *(top.name for top in tops)),
        )

    def behind(self, farms: Sequence[Path], site: str) -> Fitting:
        """Return the fitting with trees behind everything else, where they clash with nothing."""
        folders = (*self.folders, *(str(farm / site) for farm in farms))
        return replace(self, folders=folders, trees=(*self.trees, *(farm.name for farm in farms)))

    def over(self, layers: Sequence[Path], whole: bool) -> Fitting:
        """Return the fitting with these layers, the lowest first, over the machine's system, or in its place."""
        return replace(self, layers=tuple(map(str, layers)), whole=whole)

    def showing(self, folder: Path) -> Fitting:
        """Return the fitting with one more folder to be seen."""
        return replace(self, shown=(*self.shown, str(folder)))
