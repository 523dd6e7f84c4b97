"""Which Python a notebook runs in: that of its kernel, found among the installed kernelspecs and asked to describe itself.

Law: a kernelspec only names an interpreter here; its kernel is never started.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path

from .. import images
from ..errors import InputError
from ..images import mirror

_GENERIC = re.compile(r"python(3(\.\d+)?)?(\.exe)?")
_NATIVE = ("python3", "remora")
_PATIENCE = 60.0
_NEEDED = ("IPython", "dill")
_DESCRIBE = """
import json, runpy, sys
from importlib.util import find_spec
described = runpy.run_path(sys.argv[1])["Mirror"].here().to_dict()
print(json.dumps([described, [name for name in sys.argv[2:] if find_spec(name) is None]]))
"""


@dataclass(frozen=True)
class Place:
    """The environment of a kernel."""

    image: images.Image
    environment: tuple[tuple[str, str], ...] = ()


def place(name: str | None, asked: bool) -> Place:
    """Return the environment of the kernel of this name, None for our own; `asked`: the command line names it, not the notebook.

    InputError if there is no such kernel, or if it is none that Remora can run.
    """
    spec = _spec(name) if name else None
    if spec is None:
        if name and name not in _NATIVE:
            raise InputError(_missing(name, asked))
        return Place(images.Image())
    if str(spec.get("language", "python")).lower() != "python":
        raise InputError(
            f"the kernel {name} runs {spec['language']}; `remora run` runs Python notebooks. Choose a kernel with -k"
        )
    environment = tuple((str(k), str(v)) for k, v in (spec.get("env") or {}).items())
    return Place(_describe(str(name), [str(word) for word in spec.get("argv", [])]), environment)


def installed() -> dict[str, Path]:
    """Return the kernelspecs there are, by name."""
    found: dict[str, Path] = {}
    for folder in jupyter_path("kernels"):
        for path in sorted(Path(folder).glob("*/kernel.json")):
            found.setdefault(path.parent.name.lower(), path)
    return found


def _spec(name: str) -> dict[str, Any] | None:
    path = installed().get(name.lower())
    if path is None:
        return None
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the kernelspec {path} cannot be read: {error}; install that kernel again") from None
    if not isinstance(spec, dict):
        raise InputError(f"the kernelspec {path} is none; install that kernel again")
    return spec


def _missing(name: str, asked: bool) -> str:
    known = ", ".join(sorted(set(installed()) | {"python3"}))
    whose = f"there is no kernel {name}" if asked else f"the notebook wants the kernel {name}, which is not installed here"
    return f"{whose}; choose one with -k: {known}"


def _describe(name: str, argv: list[str]) -> images.Image:
    """Return the image of a kernelspec's interpreter."""
    python = argv[0] if argv else ""
    if _GENERIC.fullmatch(python) or (python and os.path.abspath(python) == os.path.abspath(sys.executable)):
        return images.Image()
    if not os.path.isabs(python) or not os.access(python, os.X_OK) or "python" not in os.path.basename(python):
        raise InputError(
            f"the kernel {name} is started by {python or 'nothing'}, which is no Python on this machine; choose another with -k"
        )
    try:
        command = [python, "-c", _DESCRIBE, str(mirror.__file__), *_NEEDED]
        said = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout
        image, lacking = json.loads(said.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        lines = str(getattr(error, "stderr", "") or error).strip().splitlines() or [""]
        raise InputError(f"the Python of the kernel {name}, {python}, does not work: {lines[-1]}") from None
    if lacking:
        raise InputError(f"the kernel {name} lacks {' and '.join(lacking)}: {python} -m pip install {' '.join(lacking).lower()}")
    return images.Image(_without_ours(images.Mirror(**image)).base())


def _without_ours(there: images.Mirror) -> images.Mirror:
    """Leave our own folder out of another environment's path: the guest finds its own files by itself."""
    ours = str(Path(mirror.__file__).resolve().parents[2])
    return replace(there, roots=tuple(root for root in there.roots if root != ours))
