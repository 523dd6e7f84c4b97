"""The default base of an image: the environment of the process that asks, read-only.

Law: this file alone can be run by another environment's Python, which then describes itself.
"""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .steps import MirrorBase


@dataclass(frozen=True)
class Mirror:
    """A Python environment of this machine, as a sandbox is to see it: under the same paths, read-only."""

    executable: str
    prefix: str
    base_prefix: str
    version: str
    """Major and minor, such as "3.11"."""
    site_packages: tuple[str, ...]
    roots: tuple[str, ...]
    """Further folders that modules are imported from.

    Editable installs, path files, PYTHONPATH. The notebook's own is not among them.
    """

    @classmethod
    def here(cls) -> Mirror:
        """Describe the environment of this very process."""
        paths = sysconfig.get_paths()
        named = [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages")]
        sites = tuple(dict.fromkeys(p for p in (*named, paths["purelib"], paths["platlib"]) if os.path.isdir(p)))
        return cls(
            executable=sys.executable,
            prefix=sys.prefix,
            base_prefix=sys.base_prefix,
            version=f"{sys.version_info[0]}.{sys.version_info[1]}",
            site_packages=sites,
            roots=_roots((sys.prefix, sys.base_prefix, "/usr", *sites)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"site_packages": list(self.site_packages), "roots": list(self.roots)}

    def base(self) -> MirrorBase:
        """Return the base of images that mirror this environment."""
        from .steps import MirrorBase

        return MirrorBase(**asdict(self))


GUEST_NEEDS = ("comm>=0.2", "dill>=0.4,<0.5", "ipython>=8.20,<10", "ipywidgets>=8.1,<9", "pip>=23", "xxhash>=3.4,<5")
"""What a guest imports beside the standard library, and pip; a mirror has it, behind another base it is a tree of its own."""


def roots_here() -> tuple[str, ...]:
    """Return the folders from which this process imports code of the user's, the notebook's own left out."""
    return _mirror_of(tuple(sys.path), _working_directory()).roots


@cache
def _mirror_of(path: tuple[str, ...], folder: str) -> Mirror:
    del path, folder  # they only say when to look again
    return Mirror.here()


@cache
def guest_file() -> str:
    """Return the file that starts a guest of this version."""
    return str(Path(__file__).resolve().parents[1] / "guest" / "__main__.py")


CARRIED = re.compile(
    r"LANG|LC_.*|TZ|PYTHON(HASHSEED|WARNINGS|DONTWRITEBYTECODE|UTF8|IOENCODING)|(OMP|MKL|OPENBLAS|NUMEXPR|BLIS|NVPL)_.*"
    r"|(PIP|UV)_.*|(HTTPS?|FTP|NO|ALL)_PROXY|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE",
    re.IGNORECASE,
)
"""Names of variables that change results or that installing needs."""


def carried_environment() -> dict[str, str]:
    """Return the variables that a sandbox is given of this process's environment.

    Those that change results (locale, hash seed, threads, numeric libraries) or that installing needs (pip, proxies,
    certificates); nothing else, since environments hold secrets.
    """
    return {name: value for name, value in os.environ.items() if CARRIED.fullmatch(name)}


def _roots(inside: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders on sys.path that lie outside of these.

    The working directory is left out, being the notebook's folder.
    """
    here = _working_directory()
    found: list[str] = []
    for entry in (*_path_files(), *sys.path, str(Path(__file__).resolve().parents[2])):
        path = os.path.normpath(os.path.join(here, entry)) if entry else here
        outside = not any(path == p or path.startswith(p.rstrip("/") + "/") for p in inside)
        if os.path.isabs(path) and path != here and outside and os.path.isdir(path) and path not in found:
            found.append(path)
    return tuple(found)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return ""


def _path_files() -> list[str]:
    """Return the plain folders named in the environment's .pth files, which editable installs leave there."""
    found: list[str] = []
    for folder in site.getsitepackages() if hasattr(site, "getsitepackages") else []:
        for file in sorted(Path(folder).glob("*.pth")):
            lines = file.read_text(errors="replace").splitlines()
            found += [line.strip() for line in lines if line.strip() and not line.startswith(("import ", "import\t", "#"))]
    return found
