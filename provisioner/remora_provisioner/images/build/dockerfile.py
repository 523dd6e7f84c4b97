"""The base `dockerfile`: what a Dockerfile makes, by buildah in a jail, from images that it fetches itself.

Law: buildah mounts, which it may in a user namespace of its own inside the jail; what is read-only stays so there. What it makes
is taken in as an image of a registry is.
"""

from __future__ import annotations

import re
from pathlib import Path

from remora.images.steps import DockerfileBase, Part

from ...sandbox import Mount
from ..built import Base
from . import system
from .registry import take_image
from .work import Work

_HERE = re.compile(r"(?im)^\s*FROM\s+(--\S+\s+)*(localhost|127\.[0-9.]+)(:[0-9]+)?/")
_CONTEXT, _OWN, _MADE = Path("/run/context"), Path("/run/own"), Path("/run/made")
_ONE_USER = 'APT::Sandbox::User "root";\n'
"""For apt-get inside, which would become another user to fetch something."""
# buildah shows /dev read-only, which it cannot with the jail's own; so there is one that belongs to it.
_SCRIPT = f"""
set -e
mkdir /run/dev
mount -t tmpfs -o mode=755 tmpfs /run/dev
for name in null zero full random urandom tty; do : >/run/dev/$name; mount --bind /dev/$name /run/dev/$name; done
mkdir /run/dev/pts /run/dev/shm
ln -s /proc/self/fd /run/dev/fd
mount --rbind /run/dev /dev
buildah="buildah --storage-driver vfs --root /run/buildah/root --runroot /run/buildah/run"
apt=--volume={_OWN}/apt.conf:/etc/apt/apt.conf.d/00one-user:ro
$buildah bud --isolation chroot --layers=false $apt --tag made --file {_OWN}/Dockerfile "$@" {_CONTEXT}
$buildah push --quiet made dir:{_MADE}/image
"""


def make(work: Work, part: Part) -> Base:
    """Make what a Dockerfile says and keep it as a layer. Raises ImageFailed, and StoreRefused if it means harm."""
    assert isinstance(part, DockerfileBase)
    if system.find(work, "/usr/bin/buildah") is None:
        raise work.failed("buildah is not installed on this machine", "install it: apt-get install buildah")
    own, made = work.folder / "own", work.folder / "made"
    own.mkdir()
    made.mkdir()
    (own / "Dockerfile").write_text(part.text)
    (own / "apt.conf").write_text(_ONE_USER)
    context = Path(part.context) if part.context else own
    mounts = [Mount(own, _OWN), Mount(context, _CONTEXT), Mount(made, _MADE, writable=True)]
    work.say("making what the Dockerfile says")
    words = ["--tls-verify=false"] if _HERE.search(part.text) else []
    argv = ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", _SCRIPT, "sh", *words]
    system.run(work, argv, {}, mounts, "correct the Dockerfile, or see that this machine reaches its registry")
    return take_image(work, made / "image", "the Dockerfile's image")
