"""The step `local`: files of this machine as they are when it is built, which is anew when they have changed.

Law: modules go where packages lie, as a tree of packages; what has another target becomes a layer of the system, in which the
target's own links are followed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from remora.images.steps import Local, Part

from ...jails.layers import OWN
from ..tree import Tree
from . import system
from .work import Made, Work


def copy(work: Work, step: Part) -> Made:
    """Copy a file or folder, without what is ignored, and make its tree. Raises ImageFailed."""
    assert isinstance(step, Local)
    source, folder = Path(step.source), work.folder / "copied"
    path = _inside(work, step.target) if step.target else f"{work.base.site}/{source.name}"
    work.say(f"copying {step.source}")
    folder.mkdir()
    try:
        for name in _names(source, ignored(step.ignore)):
            target = folder / path / name if name else folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target, follow_symlinks=False)
    except OSError as error:
        raise work.failed(f"{error.filename or step.source}: {error.strerror}", "see that it is there and can be read") from error
    return Made(Tree(), layer=work.store.scan(folder, system=True)) if step.target else Made(work.store.scan(folder))


def _inside(work: Work, target: str) -> str:
    """Return where a target lies in a layer."""
    path = system.resolve(work, target).strip("/")
    if not path or path.split("/")[0] in OWN:
        raise work.failed(f"{target} is no place for files of an image, each sandbox has its own", "choose another path")
    return path


def _names(source: Path, left_out: Callable[[str, bool], bool]) -> Iterator[str]:
    """Yield the files below a folder, relative to it; the empty name if it is a file itself."""
    if not source.is_dir():
        yield ""
        return
    for top, folders, files in os.walk(source, onerror=_raise):
        inside = os.path.relpath(top, source)
        prefix = "" if inside == "." else inside + "/"
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        folders[:] = [name for name in folders if name not in links and not left_out(prefix + name, True)]
        yield from (prefix + name for name in (*files, *links) if not left_out(prefix + name, False))


def ignored(patterns: tuple[str, ...]) -> Callable[[str, bool], bool]:
    """Return what says of a path, and whether it is a folder, that it is left out; patterns as in .gitignore, the last counts."""
    rules = [(_pattern(text.lstrip("!").rstrip("/")), text.startswith("!"), text.endswith("/")) for text in patterns]

    def left_out(path: str, folder: bool) -> bool:
        found = False
        for rule, keeps, folders_only in rules:
            if (folder or not folders_only) and rule.fullmatch(path):
                found = not keeps
        return found

    return left_out


def _pattern(text: str) -> re.Pattern[str]:
    """Return one pattern of .gitignore as a regular expression for a whole path."""
    anchored = "/" in text
    parts = re.split(r"(\*\*/|/\*\*$|\*|\?|\[!?[^\]]+\])", text.lstrip("/"))
    words = {"**/": "(?:.*/)?", "/**": "/.*", "*": "[^/]*", "?": "[^/]"}
    made = "".join(words.get(p) or (p.replace("[!", "[^") if p.startswith("[") else re.escape(p)) for p in parts if p)
    return re.compile(made if anchored else f"(?:.*/)?{made}")


def _raise(error: OSError) -> None:
    raise error
