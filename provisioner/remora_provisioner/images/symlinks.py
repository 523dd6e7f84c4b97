"""Where the symbolic links of a tree lead: never out of it.

Law: pure. A target is followed through the tree's other links as a kernel would, since `a/b/up/../..` is harmless by its letters
and leads out as soon as `up` is a link to the top. A loop leads nowhere and is no danger.
"""

from __future__ import annotations

from collections.abc import Mapping

from remora.errors import StoreRefused

from .paths import check_text

_MOST_FOLLOWED = 40  # as in the kernel
_LONGEST = 4095


def check_links(links: Mapping[str, str], system: bool) -> None:
    """Check every link (path to target); absolute targets only in a root file system, from whose top they count.

    StoreRefused with "link-escapes" or "malformed".
    """
    for path, target in links.items():
        check_text(target)
        if not target or "\0" in target or len(target) > _LONGEST:
            raise StoreRefused(f"the link {path!r} has no target that could exist", reason="malformed")
        if (target.startswith("/") and not system) or _escapes(path, links):
            raise StoreRefused(f"the link {path!r} leads out of its tree, to {target!r}", reason="link-escapes")


def _escapes(path: str, links: Mapping[str, str]) -> bool:
    here: list[str] = []
    ahead = path.split("/")[::-1]
    followed = 0
    while ahead and followed <= _MOST_FOLLOWED:
        part = ahead.pop()
        if part == "..":
            if not here:
                return True
            here.pop()
        elif part not in ("", "."):
            here.append(part)
            target = links.get("/".join(here))
            if target is not None:
                followed += 1
                here = [] if target.startswith("/") else here[:-1]
                ahead += target.split("/")[::-1]
    return False
