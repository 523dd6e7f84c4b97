"""The base `debian`: a Debian of its own, by mmdebstrap from the machine's Debian mirror, with little more than Python.

Law: mmdebstrap runs in a jail like a step does, so that it is the same for root and for anybody. Documentation and translations
are left out, now and in what is installed later.
"""

from __future__ import annotations

from pathlib import Path

from remora.images.steps import DebianBase, Part

from ...sandbox import Mount
from ..built import Base
from ..tree import Tree
from . import system
from .bases import find_or_install, minor
from .difference import take_in
from .interpreters import find_python
from .work import Work

_TARGET = Path("/run/debian")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*/LC_MESSAGES/*")
# Which proxies are to be used, mmdebstrap asks nobody; the machine's own apt-get knows.
_SCRIPT = """
apt-config dump --format '%f "%v";%n' 2>/dev/null | grep -i '^Acquire::.*Proxy' | grep -v ' "";' >/run/proxies
exec mmdebstrap --mode=root --variant=apt --format=directory --aptopt=/run/proxies "$@"
"""


def bootstrap(work: Work, part: Part) -> Base:
    """Make a Debian and keep it as a layer. Raises ImageFailed."""
    assert isinstance(part, DebianBase)
    work.say(f"making a Debian {part.release}")
    tree = _tree(work, part.release)
    found = find_python(tree)
    if found is None:
        raise work.failed(f"Debian {part.release} has no Python 3 under a name with its version", "take a later release")
    inside, version = found
    own = part.version in ("", version)
    like = find_or_install(work, version if own else part.version, portable=not own)
    return Base(like, version if own else minor(part.version), layer=work.store.save(tree), inside=inside if own else "")


def _tree(work: Work, release: str) -> Tree:
    if system.find(work, "/usr/bin/mmdebstrap") is None:
        raise work.failed("mmdebstrap is not installed on this machine", "install it: apt-get install mmdebstrap")
    folder = work.folder / "debian"
    folder.mkdir()
    left_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    words = [
        "--include=python3,ca-certificates",
        "--dpkgopt=force-unsafe-io",
        '--aptopt=APT::Sandbox::User "root"',
        *left_out,
        release,
        str(_TARGET),
    ]
    advice = "see that this machine reaches its Debian mirror, and that there is such a release"
    system.run(work, ["/bin/sh", "-c", _SCRIPT, "sh", *words], {}, [Mount(folder, _TARGET, writable=True)], advice)
    return take_in(work, folder)
