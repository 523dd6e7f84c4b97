"""Every kind of step and base, and how a test makes it do well, change, fail, take its time and need much room.

Law: one class for a kind; what it does is the real thing. A kind that `lets_in` stops at a door in the middle of its work and
goes on when the door opens; of the others a test knows only that they have begun.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest
from provisioner.images.containers import Registry, layer, python_layer
from provisioner.images.containers import needed as containers_needed
from provisioner.images.systems import Door, debian, look, mmdebstrap
from provisioner.images.test_build import BARE, pip, python
from provisioner.images.wheels_by_hand import backend, make_source, make_wheel
from remora.images import Image
from remora_provisioner.images.build import resolver
from remora_provisioner.images.built import Built

LARGE = 30_000_000
"""Bytes that do not fit on a small disk."""
_APT_HOOK = 'DPkg::Pre-Invoke {\\"/usr/local/bin/knock\\";};'


class Kind:
    """A kind of step; each method puts such a step on an image."""

    name: ClassVar[str]
    marks: ClassVar[tuple[pytest.MarkDecorator, ...]] = ()
    says: ClassVar[str] = ""
    """What its failure says."""
    full: ClassVar[str | None] = "No space left on device"
    """What it says when the disk is full; None for one that puts nothing on the disk."""
    small: ClassVar[int] = 40_000
    """Kibibytes of a disk that is too small for `large`."""
    lets_in: ClassVar[bool] = True

    def __init__(self, place: Path, door: Door, registry: Registry | None) -> None:
        """Make what its steps need below `place`."""
        self.place, self.door, self.registry = place, door, registry
        place.mkdir(exist_ok=True)

    def good(self, below: Image) -> Image:
        """Add a step that succeeds."""
        raise NotImplementedError

    def shown(self, built: Built, root: Path, place: Path) -> str:
        """Return what is seen of `good` from inside; it is "made"."""
        raise NotImplementedError

    def changed(self, below: Image) -> Image:
        """Add one that differs from it in what it makes."""
        raise NotImplementedError

    def bad(self, below: Image) -> Image:
        """Add one that fails."""
        raise NotImplementedError

    def slow(self, below: Image) -> Image:
        """Add one that stops at the door."""
        raise NotImplementedError

    def variables(self) -> dict[str, str]:
        """Return what a build that is to stop needs in its environment."""
        return {}

    def large(self, below: Image) -> Image:
        """Add one that needs much room."""
        raise NotImplementedError


class PipKind(Kind):
    """Packages by requirements."""

    name = "pip"
    says = "no-such-package was not found"

    def __init__(self, place: Path, door: Door, registry: Registry | None) -> None:
        """Make wheels."""
        super().__init__(place, door, registry)
        self.wheels = place / "wheels"
        make_wheel(self.wheels, "lower", "1.0", {"lower.py": "def answer():\n    print('made')\n"})
        make_wheel(self.wheels, "lower", "2.0", {"lower.py": "def answer():\n    print('changed')\n"})
        make_wheel(self.wheels, "large", "1.0", {"large.py": "", "data.txt": "a" * LARGE})
        make_source(self.wheels, "source", "1.0", backend("source", door.port))

    def good(self, below: Image) -> Image:
        """See Kind."""
        return pip(below, self.wheels, "lower<2")

    def shown(self, built: Built, root: Path, place: Path) -> str:
        """See Kind."""
        return python(built, root, "import lower; lower.answer()")

    def changed(self, below: Image) -> Image:
        """See Kind."""
        return pip(below, self.wheels, "lower>=2")

    def bad(self, below: Image) -> Image:
        """See Kind."""
        return pip(below, self.wheels, "no-such-package")

    def slow(self, below: Image) -> Image:
        """See Kind."""
        return pip(below, self.wheels, "source")

    def variables(self) -> dict[str, str]:
        """See Kind."""
        return {"KNOCK": "1"}

    def large(self, below: Image) -> Image:
        """See Kind."""
        return pip(below, self.wheels, "large")


class UvSyncKind(PipKind):
    """Packages of a project with a lock."""

    name = "uv_sync"
    says = "no-such-group"

    def good(self, below: Image) -> Image:
        """See Kind."""
        return below.uv_sync(self._project("lower<2"))

    def changed(self, below: Image) -> Image:
        """See Kind."""
        return below.uv_sync(self._project("lower>=2"))

    def bad(self, below: Image) -> Image:
        """See Kind."""
        return below.uv_sync(self._project("lower<2"), groups="no-such-group")

    def slow(self, below: Image) -> Image:
        """See Kind."""
        return below.uv_sync(self._project("source"))

    def large(self, below: Image) -> Image:
        """See Kind."""
        return below.uv_sync(self._project("large"))

    def _project(self, requirement: str) -> Path:
        """Make a project that needs a package, with its lock."""
        folder = self.place / f"project {requirement}"
        if not folder.exists():
            folder.mkdir()
            (folder / "pyproject.toml").write_text(
                f'[project]\nname = "mine"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["{requirement}"]\n'
                f'[tool.uv]\nno-index = true\nfind-links = ["{self.wheels}"]\n'
            )
            subprocess.run([resolver.uv_binary(), "lock", "-q", "--project", str(folder)], check=True)
        return folder


class SystemKind(Kind):
    """Of those that change the system, what one of their files says is seen in a sandbox."""

    look = "cat /data/made"

    def shown(self, built: Built, root: Path, place: Path) -> str:
        """See Kind."""
        return look(built, root, place, self.look)


class RunKind(SystemKind):
    """Commands."""

    name = "run"
    says = "status 3"

    def good(self, below: Image) -> Image:
        """See Kind."""
        return below.run_commands("mkdir -p /data; echo made > /data/made")

    def changed(self, below: Image) -> Image:
        """See Kind."""
        return below.run_commands("mkdir -p /data; echo changed > /data/made")

    def bad(self, below: Image) -> Image:
        """See Kind."""
        return below.run_commands("mkdir -p /half; exit 3")

    def slow(self, below: Image) -> Image:
        """See Kind."""
        return below.run_commands(f"mkdir /half; {self.door.knock}")

    def large(self, below: Image) -> Image:
        """See Kind."""
        return below.run_commands(f"mkdir /data; head -c {2 * LARGE} /dev/zero > /data/large")


def write(text: str, size: int = 0) -> None:
    """Write what a look into the image shows; run inside an image."""
    import pathlib

    folder = pathlib.Path("/data")
    folder.mkdir(exist_ok=True)
    (folder / "made").write_text(text)
    (folder / "large").write_bytes(bytes(size))


def fail() -> None:
    """Fail as code does; run inside an image."""
    raise ValueError("these weights are not there")


def knock(port: int) -> None:
    """Wait at a door; run inside an image."""
    import socket

    socket.create_connection(("127.0.0.1", port)).recv(1)


class RunFunctionKind(SystemKind):
    """A function."""

    name = "run_function"
    says = "these weights are not there"

    def good(self, below: Image) -> Image:
        """See Kind."""
        return below.run_function(write, args=["made"])

    def changed(self, below: Image) -> Image:
        """See Kind."""
        return below.run_function(write, args=["changed"])

    def bad(self, below: Image) -> Image:
        """See Kind."""
        return below.run_function(fail)

    def slow(self, below: Image) -> Image:
        """See Kind."""
        return below.run_function(knock, args=[self.door.port])

    def large(self, below: Image) -> Image:
        """See Kind."""
        return below.run_function(write, args=["", 2 * LARGE])


class AptKind(SystemKind):
    """Packages of the system."""

    name = "apt"
    marks = (debian,)
    says = "Unable to locate package no-such-package-anywhere"
    full = "No space left on device|enough free space"
    small = 12_000
    look = "hello -g made"

    def good(self, below: Image) -> Image:
        """See Kind."""
        return below.apt_install("hello")

    def changed(self, below: Image) -> Image:
        """See Kind."""
        return below.apt_install("hello", "tree")

    def bad(self, below: Image) -> Image:
        """See Kind."""
        return below.apt_install("no-such-package-anywhere")

    def slow(self, below: Image) -> Image:
        """See Kind."""
        script = base64.b64encode(f"#!/bin/sh\n{self.door.knock}\n".encode()).decode()
        commands = (
            f"echo {script} | base64 -d >/usr/local/bin/knock && chmod +x /usr/local/bin/knock",
            f'echo "{_APT_HOOK}" >/etc/apt/apt.conf.d/99knock',
        )
        return below.run_commands(*commands).apt_install("hello")

    def large(self, below: Image) -> Image:
        """See Kind."""
        return below.apt_install("python3-sympy")


class LocalKind(SystemKind):
    """Files of this machine."""

    name = "local"
    says = "choose another path"
    lets_in = False

    def good(self, below: Image) -> Image:
        """See Kind."""
        return self._folder(below, "good", "made")

    def changed(self, below: Image) -> Image:
        """See Kind."""
        return self._folder(below, "changed", "changed")

    def bad(self, below: Image) -> Image:
        """See Kind."""
        return below.add_local_file(__file__, "/tmp/one.py", copy=True)

    def slow(self, below: Image) -> Image:
        """See Kind."""
        folder = self.place / "many"
        if not folder.exists():
            folder.mkdir()
            for number in range(5_000):
                (folder / str(number)).write_text(f"{number}")
        return below.add_local_dir(folder, "/data", copy=True)

    def large(self, below: Image) -> Image:
        """See Kind."""
        return self._folder(below, "large", "a" * LARGE * 2)

    def _folder(self, below: Image, name: str, text: str) -> Image:
        folder = self.place / name
        folder.mkdir(exist_ok=True)
        (folder / "made").write_text(text)
        return below.add_local_dir(folder, "/data", copy=True)


class Base(SystemKind):
    """A kind of base: it is put below everything, in place of what is there."""

    lets_in = False
    full = "[Nn]o space left on device"

    def good(self, below: Image) -> Image:
        """See Kind."""
        return Image(self._base("good").base, below.steps)

    def changed(self, below: Image) -> Image:
        """See Kind."""
        return Image(self._base("changed").base, below.steps)

    def bad(self, below: Image) -> Image:
        """See Kind."""
        return Image(self._base("bad").base, below.steps)

    def slow(self, below: Image) -> Image:
        """See Kind."""
        return Image(self._base("slow").base, below.steps)

    def large(self, below: Image) -> Image:
        """See Kind."""
        return Image(self._base("large").base, below.steps)

    def _base(self, how: str) -> Image:
        raise NotImplementedError


class PythonKind(Base):
    """A bare Python; it is found on the machine, so nothing is put on a disk."""

    name = "python"
    says = "install Python 3.99 on this machine"
    full = None

    def shown(self, built: Built, root: Path, place: Path) -> str:
        """See Kind."""
        return python(built, root, "print('made')")

    def variables(self) -> dict[str, str]:
        """See Kind."""
        return {"UV_PYTHON_INSTALL_MIRROR": f"http://127.0.0.1:{self.door.port}", "UV_PYTHON_INSTALL_DIR": str(self.place)}

    def _base(self, how: str) -> Image:
        own = BARE.base.to_dict()["version"]
        other = "3.14" if own != "3.14" else "3.13"
        versions = {"good": own, "changed": f"{own}.{_patch()}", "bad": "3.99", "slow": other}
        return Image.python(versions[how])


def _patch() -> int:
    import sys

    return sys.version_info[2]


class DebianKind(Base):
    """A Debian of its own."""

    name = "debian"
    marks = (debian, mmdebstrap)
    says = "there is such a release"
    look = (
        "grep -q bookworm /etc/os-release && python3 -c 'import json' && test -s /etc/resolv.conf && "
        "! test -e /usr/share/man/man1/ls.1.gz && ! ls /var/lib/apt/lists/* /var/cache/apt/* 2>/dev/null && echo made"
    )

    def variables(self) -> dict[str, str]:
        """See Kind."""
        return {"http_proxy": f"http://127.0.0.1:{self.door.port}"}

    def _base(self, how: str) -> Image:
        releases = {"changed": "trixie", "bad": "nosuchrelease", "slow": "trixie"}
        return Image.debian_slim(release=releases.get(how, "bookworm"))


class RegistryKind(Base):
    """An image of a registry."""

    name = "registry"
    marks = (containers_needed,)
    says = "manifest unknown"
    small = 15_000

    def _base(self, how: str) -> Image:
        assert self.registry is not None
        host = self.registry.host
        if how in ("bad", "slow"):
            return Image.from_registry(f"{host if how == 'bad' else self.door.host}/not/there:1")
        text = {"good": "made\n"}.get(how, f"{how}\n").encode()
        folder = self.place / how
        if not folder.exists():
            self.registry.push(folder, f"{self.name}/{how}:1", [python_layer(), layer({"data/made": text})], {})
        return Image.from_registry(f"{host}/{self.name}/{how}:1")


class DockerfileKind(RegistryKind):
    """What a Dockerfile makes."""

    name = "dockerfile"
    marks = (containers_needed, pytest.mark.skipif(shutil.which("buildah") is None, reason="needs Debian: the package buildah"))
    says = "correct the Dockerfile"

    def _base(self, how: str) -> Image:
        assert self.registry is not None
        base = super()._base("slow" if how == "slow" else "large").base.to_dict()["reference"]
        text = "made" if how == "good" else how
        copied = "COPY nothing /data/" if how == "bad" else "COPY made /data/made"
        folder = self.place / f"context {how}"
        folder.mkdir(exist_ok=True)
        (folder / "made").write_text(f"{text}\n")
        (folder / "Dockerfile").write_text(f"FROM {base}\n{copied}\n")
        return Image.from_dockerfile(folder / "Dockerfile")


KINDS = (PipKind, UvSyncKind, RunKind, RunFunctionKind, AptKind, LocalKind, PythonKind, DebianKind, RegistryKind, DockerfileKind)
