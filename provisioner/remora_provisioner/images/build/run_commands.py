"""The steps `run` and `run_function`: commands of the shell, as user 0 inside the image as it is so far.

Law: what they change of the system becomes a layer; packages that they install with pip become a tree of packages, like those of
pip_install. Python and the programs of the steps below come first on the path.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from remora.images.steps import Part, Run, RunFunction

from ...sandbox import Mount
from ..tree import Tree
from . import system
from .resolver import uv_binary
from .unpacked import Unpacked
from .work import Made, Work

_PYTHON = Path("/run/python")
"""Where the commands find a virtual environment with what is installed so far; it gets what they install."""
_UV = Path("/run/uv")
_CALLED = Path("/run/function.py")
_PIP = f"""#!/bin/sh
"{_PYTHON}/bin/python3" -c "import pip" 2>/dev/null && exec "{_PYTHON}/bin/python3" -m pip "$@"
exec {_UV} pip "$@"
"""
_SCRIPT = """
cd / && { [ -d "$1" ] || mkdir -p -- "$1"; } && cd -- "$1" && shift || exit 1
for command; do
    printf '+ %s\\n' "$command"
    /bin/sh -c "$command" </dev/null || exit
done
"""


def run(work: Work, step: Part) -> Made:
    """Run the commands one after the other; the first one that fails ends the step. Raises ImageFailed."""
    assert isinstance(step, Run)
    work.say(f"running {step.commands[0][:80]}{' …' if len(step.commands) > 1 else ''}")
    return execute(work, step.commands)


def call(work: Work, step: Part) -> Made:
    """Run the script that calls a function, with the image's Python. Raises ImageFailed."""
    assert isinstance(step, RunFunction)
    work.say(f"calling {step.name}")
    script = work.folder / "function.py"
    script.write_text(step.script)
    return execute(work, [f"python {_CALLED}"], [Mount(script, _CALLED)])


def execute(work: Work, commands: Sequence[str], more: Sequence[Mount] = ()) -> Made:
    """Run commands of the shell with the image's Python first on the path, and return what they made."""
    folder = work.folder / "python"
    _make_environment(work, folder)
    mounts = [*_shown(work), Mount(folder, _PYTHON, writable=True), Mount(Path(uv_binary()), _UV), *more]
    argv = ["/bin/sh", "-c", _SCRIPT, "sh", work.stack.workdir or "/", *commands]
    advice = "correct the command, which runs as user 0 of the image, not of this machine"
    layer = system.run(work, argv, _environment(work), mounts, advice)
    return Made(_packages(work, folder), "", layer)


def _sites(work: Work) -> list[str]:
    return [*(str(farm / work.base.site) for farm in _farms(work)), *work.base.sites]


def _farms(work: Work) -> list[Path]:
    return [work.store.farm(digest) for digest in work.stack.trees[::-1]]


def _own_files(work: Work) -> dict[str, str]:
    """Return what makes the environment: texts of files, and targets of links, which begin with a slash."""
    python = work.base.inside or os.path.realpath(work.base.python)
    version = f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\nversion = {work.base.version}\n"
    programs = dict.fromkeys(("bin/python", "bin/python3", f"bin/python{work.base.version}"), python)
    packages = f"import site; list(map(site.addsitedir, {_sites(work)!r}))\n"
    files = {"pyvenv.cfg": version, "bin/pip": _PIP, "bin/pip3": _PIP, "bin/uv": str(_UV)}
    return programs | files | {f"{work.base.site}/_image.pth": packages}


def _make_environment(work: Work, folder: Path) -> None:
    for name, content in _own_files(work).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("/"):
            path.symlink_to(content)
        else:
            path.write_text(content)
            path.chmod(0o755)


def _environment(work: Work) -> dict[str, str]:
    own = dict(work.stack.env)
    programs = [_PYTHON / "bin", *(farm / "bin" for farm in _farms(work)), Path(work.base.python).parent]
    path = [*map(str, programs), own.get("PATH", system.PATH)]
    fixed = {"VIRTUAL_ENV": str(_PYTHON), "PYTHONDONTWRITEBYTECODE": "1"}  # what is imported is no change of the system
    return own | fixed | {"PATH": ":".join(path)}


def _shown(work: Work) -> list[Mount]:
    """Return the base's Python and the packages so far, to be seen at their own paths, parents first."""
    python = Path(work.base.python)
    places = [*_farms(work), *map(Path, work.base.sites)]
    places += [] if work.base.inside else [python.parents[1], Path(os.path.realpath(python)).parents[1]]
    seen = () if work.base.layer else system.SHOWN
    wanted = {place for place in places if place.is_dir() and not f"{place}/".startswith(seen)}
    return [Mount(place, place) for place in sorted(wanted) if wanted.isdisjoint(place.parents)]


def _packages(work: Work, folder: Path) -> Tree:
    """Return what the commands installed into the environment; links of theirs lead nowhere here."""
    for name, content in _own_files(work).items():
        path = folder / name
        if any(above.is_symlink() for above in path.parents if above.is_relative_to(folder)):
            raise work.failed(f"{path.parent.relative_to(folder)} of the environment was made a link", "install with plain pip")
        if (os.readlink(path) if path.is_symlink() else path.read_text(errors="replace") if path.is_file() else "") == content:
            path.unlink()
    (folder / ".lock").unlink(missing_ok=True)  # of uv
    if not any(files for _, _, files in os.walk(folder)):
        return Tree()
    unpacked = Unpacked(folder, work.base.site)
    unpacked.free_programs(_PYTHON / "bin" / "python")
    unpacked.compile(work, Path(work.base.python))
    return work.store.scan(folder)
