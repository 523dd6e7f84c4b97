"""The step `apt`: packages of Debian and its kin, by the system's own apt-get and from the mirrors that it is set up for.

Law: lists and archives lie in a cache that builds on the same kind of system share; they never get into an image.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from remora.images.steps import Apt, Part

from ...sandbox import Mount
from ..tree import Tree
from . import system
from .work import Made, Work

_CACHE = "/run/apt"
_STATUS = "var/lib/dpkg/status"
_FRESH = 360  # minutes in which lists of packages need not be fetched again
_DAYS = 30  # that an archive is kept
_OPTIONS = (
    "APT::Sandbox::User=root",
    f"Dir::State::lists={_CACHE}/lists",
    f"Dir::Cache::archives={_CACHE}/archives",
    "Debug::NoLocking=1",
    "Acquire::Retries=2",
    "Acquire::Languages=none",
    "Dpkg::Use-Pty=0",
    "Dpkg::Options::=--force-unsafe-io",
    "Dpkg::Options::=--force-confdef",
    "Dpkg::Options::=--force-confold",
)
# The lock keeps others from changing the lists meanwhile; it goes with the process that holds it, however that ends.
_SCRIPT = f"""
get() {{ apt-get -q -y --no-install-recommends {" ".join(f"-o {option}" for option in _OPTIONS)} "$@"; }}
update() {{ get update && touch {_CACHE}/updated; }}
exec 9>{_CACHE}/lock && flock 9 || exit 1
find {_CACHE}/archives -name '*.deb' -mtime +{_DAYS} -delete
[ -n "$(find {_CACHE}/updated -mmin -{_FRESH} 2>/dev/null)" ] || update || exit 1
get --download-only install -- "$@" 9>&- || {{ update && get --download-only install -- "$@"; }} || exit 1
flock -u 9
exec 9>&-
get install -- "$@"
"""


def install(work: Work, step: Part) -> Made:
    """Install packages with what they need, not with what they recommend. Raises ImageFailed."""
    assert isinstance(step, Apt)
    if system.find(work, "/usr/bin/apt-get") is None:
        advice = "begin with Image.debian_slim(), which is a Debian of its own, or use this system's own way in run_commands"
        raise work.failed("this system is no Debian, there is no apt-get", advice)
    work.say(f"installing {', '.join(step.packages[:5])}{' …' if len(step.packages) > 5 else ''}")
    before = _installed(work)
    advice = "correct the packages' names (`apt-cache search`), or see that this machine reaches its mirror (`apt-get update`)"
    argv = ["/bin/sh", "-c", _SCRIPT, "sh", *step.packages]
    layer = system.run(work, argv, {"DEBIAN_FRONTEND": "noninteractive"}, [_cache(work)], advice)
    return Made(Tree(), _lock(work, layer, before), layer)


def _cache(work: Work) -> Mount:
    """Return the cache for this kind of system, made if need be."""
    release = system.find(work, "/usr/lib/os-release") or system.find(work, "/etc/os-release")
    kind = hashlib.sha256(release.read_bytes() if release else b"").hexdigest()[:16]
    folder = work.root / "apt-cache" / kind
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    return Mount(folder, Path(_CACHE), writable=True)


def _installed(work: Work) -> dict[str, str]:
    status = system.find(work, _STATUS)
    return read_status(status.read_text(errors="replace")) if status else {}


def _lock(work: Work, layer: Tree, before: dict[str, str]) -> str:
    """Return the packages that the step brought, as name=version, one a line."""
    status = next((file for file in layer.files() if file.path == _STATUS), None)
    if status is None:
        return ""
    now = read_status(Path(work.store.objects.place(status.digest, status.executable)).read_text(errors="replace"))
    return "".join(f"{name}={version}\n" for name, version in sorted(now.items()) if before.get(name) != version)


def read_status(text: str) -> dict[str, str]:
    """Return the packages that dpkg's file `status` says are installed: name → version."""
    found = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"(?m)^(Package|Status|Version): (.*)$", stanza))
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields.get("Version", "")
    return found
