"""What a sandbox runs in. The default image is the mirror: the environment of the kernel that asks, read-only.

Law: values only; nothing is built here. Standard library only.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


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
    """Further folders that modules are imported from: editable installs, path files, PYTHONPATH. The notebook's own is not among them."""

    kind: str = "mirror"

    @classmethod
    def here(cls) -> Mirror:
        """Describe the environment of this very process."""
        paths = sysconfig.get_paths()
        sites = tuple(dict.fromkeys(p for p in (paths["purelib"], paths["platlib"], *_user_site()) if os.path.isdir(p)))
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


def _user_site() -> tuple[str, ...]:
    return (site.getusersitepackages(),) if site.ENABLE_USER_SITE else ()


def _roots(inside: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders on sys.path that lie outside of these; the working directory is left out, being the notebook's folder."""
    here = os.getcwd() if os.path.isdir(".") else ""
    found: list[str] = []
    for entry in (*_path_files(), *sys.path, str(Path(__file__).resolve().parents[1])):
        path = os.path.abspath(entry) if entry else here
        outside = not any(path == p or path.startswith(p.rstrip("/") + "/") for p in inside)
        if path and path != here and outside and os.path.isdir(path) and path not in found:
            found.append(path)
    return tuple(found)


def _path_files() -> list[str]:
    """Return the plain folders named in the environment's .pth files, which editable installs leave there."""
    found: list[str] = []
    for folder in site.getsitepackages() if hasattr(site, "getsitepackages") else []:
        for file in sorted(Path(folder).glob("*.pth")):
            lines = file.read_text(errors="replace").splitlines()
            found += [line.strip() for line in lines if line.strip() and not line.startswith(("import ", "import\t", "#"))]
    return found
