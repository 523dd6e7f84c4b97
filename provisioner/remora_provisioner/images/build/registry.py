"""The base `registry`: an image of a container registry, fetched by skopeo, its layers taken in as they are.

Law: layers are archives of somebody else's, so they go straight into the store, which refuses what means harm; nothing of them is
unpacked anywhere. A layer that is here already is not read again.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remora.images.steps import Part, RegistryBase

from ..built import Base
from ..objects import expect, hash_file
from ..records import Record
from ..tree import Tree
from ..unpack import tar
from .bases import find_or_install
from .interpreters import find_python, has_musl
from .work import Work, has_tree

_HERE = re.compile(r"(localhost|127\.[0-9.]+)(:[0-9]+)?/")
"""Registries of this machine, which need no certificate."""
_SECRET = ("REGISTRY_USERNAME", "REGISTRY_PASSWORD")
_NO_PART_OF_IT = ("PATH", "HOME", "HOSTNAME")


def pull(work: Work, part: Part) -> Base:
    """Fetch an image and keep it as a layer. Raises ImageFailed, and StoreRefused if it means harm."""
    assert isinstance(part, RegistryBase)
    folder = work.folder / "fetched"
    _fetch(work, part, folder)
    return take_image(work, folder, part.reference)


def take_image(work: Work, folder: Path, name: str) -> Base:
    """Take in an image as skopeo and buildah write one into a folder (`dir:`). Raises ImageFailed and StoreRefused."""
    manifest = _read(folder / "manifest.json")
    work.say("taking it in")
    tree = Tree()
    for layer in manifest["layers"]:
        tree = tree.merged(_layer(work, folder, layer["digest"].removeprefix("sha256:")))
    config = _read(folder / manifest["config"]["digest"].removeprefix("sha256:")).get("config") or {}
    env = dict(pair.split("=", 1) for pair in config.get("Env") or [])
    found = find_python(tree, env.get("PATH", "").split(":") if "PATH" in env else ())
    if found is None or has_musl(tree):
        why = "has no python3" if found is None else "is built on musl, for which most packages are not made"
        advice = "take one with Python on Debian or its like, such as a python image ending in -slim"
        raise work.failed(f"{name} {why}", advice)
    inside, version = found
    kept = tuple((key, value) for key, value in env.items() if key not in _NO_PART_OF_IT)
    like = find_or_install(work, version)
    return Base(like, version, layer=work.store.save(tree), inside=inside, env=kept, workdir=config.get("WorkingDir") or "")


def _fetch(work: Work, part: RegistryBase, folder: Path) -> None:
    if shutil.which("skopeo") is None:
        raise work.failed("skopeo is not installed on this machine", "install it: apt-get install skopeo")
    work.say(f"fetching {part.reference}")
    words = ["--src-tls-verify=false"] if _HERE.match(part.reference) else []
    advice = "see that the name is right, that this machine reaches the registry, and that its secret= is right and not missing"
    with contextlib.ExitStack() as until_fetched:
        if part.secret:
            words += ["--src-authfile", until_fetched.enter_context(_authfile(work, part))]
        work.run(["skopeo", "copy", "--quiet", *words, f"docker://{part.reference}", f"dir:{folder}"], advice=advice)


@contextlib.contextmanager
def _authfile(work: Work, part: RegistryBase) -> Iterator[str]:
    """Write down who asks, in memory: words of a command can be read by all, and what is on a disk may stay there."""
    values = [work.registry.get(name, "") for name in _SECRET]
    if not all(values):
        advice = f"write: remora secret set {part.secret} {' '.join(_SECRET)}"
        raise work.failed(f"the secret {part.secret!r} does not give {' and '.join(_SECRET)}", advice)
    auth = base64.b64encode(":".join(values).encode()).decode()
    with os.fdopen(os.memfd_create("remora-registry"), "wb", buffering=0) as file:
        file.write(json.dumps({"auths": {_host(part.reference): {"auth": auth}}}).encode())
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _host(reference: str) -> str:
    """Return the registry of a reference, as skopeo looks for it: a first part that can be no name is one."""
    first, slash, _ = reference.partition("/")
    return first if slash and (set(".:") & set(first) or first == "localhost") else "docker.io"


def _layer(work: Work, folder: Path, digest: str) -> Tree:
    """Return the tree of a layer, whose digest is its key."""
    record = work.records.get(digest)
    if record is not None and has_tree(work.store, record.tree):
        work.records.touch(digest)
        return work.store.load(record.tree)
    expect(hash_file(folder / digest), digest)
    tree = tar(work.store, folder / digest, system=True)
    saved = work.store.save(tree)
    work.records.put(Record(digest, {"kind": "layer"}, tree=saved, size=tree.size))
    return tree


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found
