"""Small wheels and source distributions made by hand, so that tests of builds need no network."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SETUP = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str], requires: Sequence[str] = (), programs: str = ""
) -> Path:
    """Write a wheel with these files; `programs` are lines of console scripts."""
    described = f"{name}-{version}.dist-info"
    content = dict(files) | {f"{described}/METADATA": metadata(name, version, requires), f"{described}/WHEEL": _WHEEL}
    if programs:
        content[f"{described}/entry_points.txt"] = f"[console_scripts]\n{programs}\n"
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in content.items())
    content[f"{described}/RECORD"] = f"{record}{described}/RECORD,,\n"
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return wheel


def make_source(folder: Path, name: str, version: str, backend: str) -> Path:
    """Write a source distribution whose build runs `backend`, the text of a module."""
    content = {"pyproject.toml": SETUP, "backend.py": backend, "PKG-INFO": metadata(name, version, ())}
    folder.mkdir(exist_ok=True)
    source = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        for path, text in content.items():
            facts = tarfile.TarInfo(f"{name}-{version}/{path}")
            facts.size = len(text.encode())
            archive.addfile(facts, io.BytesIO(text.encode()))
    return source


def backend(name: str, port: int) -> str:
    """Return a module for `make_source` that builds an empty package; with KNOCK set it first waits at a door."""
    return f"""
import os, socket, zipfile
TEXTS = {{"METADATA": "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n", "WHEEL": {_WHEEL!r}, "RECORD": ""}}
def build_wheel(folder, settings=None, metadata=None):
    if os.environ.get("KNOCK"):
        socket.create_connection(("127.0.0.1", {port})).recv(1)
    file = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, file), "w") as archive:
        archive.writestr("{name}.py", "")
        for path, text in TEXTS.items():
            archive.writestr("{name}-1.0.dist-info/" + path, text)
    return file
"""


def metadata(name: str, version: str, requires: Sequence[str]) -> str:
    """Return the METADATA of a package."""
    lines = [f"Requires-Dist: {one}" for one in requires]
    return "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]) + "\n"


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
