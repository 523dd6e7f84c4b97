"""What outlives a kernel's process: the default options that its notebook's metadata holds, and the packages of its sessions.

Law: the notebook is read and never written. Packages are kept for a kernel that is restarted, under the name of its connection
file, which stays the same; they go when it ends for good.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import settings
from ..errors import OptionError, RemoraError
from ..images import Image
from ..options import CellOptions, build
from .options import parse

NAMED = "JPY_SESSION_NAME"
"""The variable in which Jupyter Server gives a kernel the path of its notebook."""
_DAYS = 30
"""For which packages are kept of a kernel that never said that it ended."""


def default_of(metadata: Mapping[str, Any]) -> CellOptions:
    """Return the options in a notebook's metadata under remora.default: a line of options, or values by name.

    Raises OptionError for what is none.
    """
    about = metadata.get("remora")
    default = about.get("default") if isinstance(about, Mapping) else None
    try:
        return build(default) if isinstance(default, Mapping) else parse(str(default or ""), _no_expression)
    except OptionError as error:
        raise OptionError(f"remora.default in the notebook's metadata: {error}") from error


def default_here() -> CellOptions:
    """Return the default of the notebook that this kernel belongs to, as it is on the disk; none where that is not known."""
    path = os.environ.get(NAMED, "")
    with contextlib.suppress(OSError, ValueError, AttributeError):  # whoever opens a damaged notebook is told by Jupyter
        content = Path(path).read_bytes() if path.endswith(".ipynb") else b""
        if b'"default"' in content:  # large ones need not be read through for nothing
            default = default_of(json.loads(content).get("metadata", {}))
            return default.without("secret") if settings.SANDBOX.text else default  # which code in a sandbox cannot give
    return CellOptions()


def _no_expression(text: str) -> object:
    raise OptionError(f"{{{text}}} cannot be expanded there; write the value itself")


class Kept:
    """The images of one kernel's sessions, in a small file of the state directory."""

    def __init__(self, name: str) -> None:
        """Keep them under this name; nothing is kept where it is empty."""
        self._name = re.sub(r"[^\w.-]", "_", name)

    @property
    def _path(self) -> Path | None:
        return settings.state_directory() / "kernels" / f"{self._name}.json" if self._name else None

    def load(self) -> dict[str, Image]:
        """Return what was kept, by the session's name; what cannot be read is forgotten."""
        path = self._path
        try:
            kept = json.loads(path.read_bytes()) if path else {}
            return {str(name): Image.from_dict(image) for name, image in kept.items()}
        except (OSError, ValueError, AttributeError, RemoraError):
            return {}

    def save(self, images: Mapping[str, Image]) -> None:
        """Keep these; a disk that is full costs no more than that they are not kept."""
        path = self._path
        if path is None:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in path.parent.glob("*.json"):
                if time.time() - old.stat().st_mtime > _DAYS * 86_400:
                    old.unlink(missing_ok=True)
            new = path.with_suffix(".new")
            new.write_text(json.dumps({name: image.to_dict() for name, image in images.items()}))
            new.replace(path)

    def forget(self) -> None:
        """Keep nothing any more."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
