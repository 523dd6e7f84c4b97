"""Which Python a system of its own has, read off its tree.

Law: pure; nothing of the system is executed. Links are followed as they would be inside.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from ..tree import File, Link, Tree

_USUAL = ("/usr/local/bin", "/usr/bin", "/bin")
_NAMED = re.compile(r"python(3\.\d+)")
_MOST_FOLLOWED = 40


def find_python(tree: Tree, search: Sequence[str] = ()) -> tuple[str, str] | None:
    """Return the path and version (major and minor) of the first python3 on a search path; None if there is none."""
    links = {entry.path: entry.target for entry in tree.entries if isinstance(entry, Link)}
    files = {entry.path for entry in tree.entries if isinstance(entry, File) and entry.executable}
    for folder in (*search, *_USUAL):
        real = follow(f"{folder}/python3", links)
        named = _NAMED.fullmatch(posixpath.basename(real))
        if real.strip("/") in files and named:
            return real, named[1]
    return None


def has_musl(tree: Tree) -> bool:
    """Say whether its C library is musl, for which most packages have no wheels."""
    return any(posixpath.basename(entry.path).startswith("ld-musl-") for entry in tree.entries)


def follow(path: str, links: dict[str, str]) -> str:
    """Return where a path leads when all links in it are followed; a loop leads to where it is noticed."""
    here: list[str] = []
    ahead = path.strip("/").split("/")[::-1]
    followed = 0
    while ahead and followed <= _MOST_FOLLOWED:
        part = ahead.pop()
        if part == "..":
            del here[-1:]
        elif part not in ("", "."):
            here.append(part)
            if (target := links.get("/".join(here))) is not None:
                followed += 1
                here = [] if target.startswith("/") else here[:-1]
                ahead += target.split("/")[::-1]
    return "/" + "/".join(here)
