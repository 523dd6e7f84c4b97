"""What each kind of base gives its steps: an interpreter, and what counts as installed with it.

Law: a kind of base is one function. A base makes no tree here; its interpreter stays where it is.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from remora.errors import ImageFailed
from remora.images.steps import MirrorBase, Part, PythonBase

from ..built import Base, mirrored
from .resolver import Resolver
from .work import Work


def mirror(work: Work, part: Part) -> Base:
    """Return the asking kernel's environment: all of its packages count as installed."""
    assert isinstance(part, MirrorBase)
    if not os.access(part.executable, os.X_OK):
        raise work.failed(f"the kernel's Python {part.executable} is not there any more", "restart the kernel")
    return mirrored(part)


def python(work: Work, part: Part) -> Base:
    """Find a bare Python of a version on this machine, or let uv install one; none of its packages count as installed."""
    assert isinstance(part, PythonBase)
    return Base(find_or_install(work, part.version), minor(part.version))


def minor(version: str) -> str:
    """Return the major and minor part of a version."""
    return ".".join(version.split(".")[:2])


def find_or_install(work: Work, version: str, *, portable: bool = False) -> str:
    """Return a Python of a version on this machine, installed by uv if need be; `portable`: one that runs on any system."""
    resolver, preference = Resolver(work), {"UV_PYTHON_PREFERENCE": "only-managed"} if portable else {}
    try:
        return _find(resolver, version, **preference)
    except ImageFailed:
        work.say(f"there is no Python {version} here; fetching one")
        advice = f"install Python {version} on this machine, or take a version that `uv python list` shows"
        resolver.uv("python", "install", "--no-bin", version, advice=advice, UV_PYTHON_DOWNLOADS="manual")
        return _find(resolver, version, **preference)


def _search() -> str:
    """Return a search path with our own Python first, then also those that pyenv has installed; its shims make uv give up.

    What goes to other machines with the kernel's packages can go there without them; the system's Python cannot.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    own = [str(Path(sys.base_prefix) / "bin")]
    own += [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(folder) != pyenv / "shims"]
    with contextlib.suppress(OSError):  # another user's, named by an environment that was taken over
        own += [str(folder) for folder in sorted(pyenv.glob("versions/*/bin"), reverse=True)]
    return os.pathsep.join(own)


def _find(resolver: Resolver, version: str, **variables: str) -> str:
    found = resolver.uv("python", "find", "--system", "--no-project", version, PATH=_search(), **variables).strip()
    # What is found may be a script that starts a Python (pyenv), so the Python itself is asked.
    code = "import os, sys; print(os.path.realpath(sys.executable))"
    return resolver.work.run([found, "-I", "-c", code]).strip()
