"""The libraries' source distributions, and the example scripts in them.

Law: what others wrote is fetched, never kept in this repository: sources.txt and scripts.txt hold names and digests alone. pip
does the fetching, so that whatever index a person has set up is asked. It always asks a source distribution for its metadata,
for which the libraries' own build systems would want a compiler: here it gets the metadata that lies in the archive already.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_CACHE = Path(sys.prefix, ".corpus")
_BACKENDS = ("mesonpy.py", "setuptools/build_meta.py", "setuptools/__init__.py")
_BACKEND = """
import pathlib, re

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    text = pathlib.Path("PKG-INFO").read_text(encoding="utf-8")
    name, version = (re.search(rf"^{field}: (.+)$", text, re.MULTILINE)[1].strip() for field in ("Name", "Version"))
    made = pathlib.Path(folder, f"{name.replace('-', '_')}-{version}.dist-info")
    made.mkdir()
    (made / "METADATA").write_text(text, encoding="utf-8")
    return made.name
"""


@dataclass(frozen=True)
class Script:
    """One example script."""

    path: str
    """Where it lies, from the top of its unpacked source distribution's parent."""
    digest: str
    """The SHA-256 of its bytes."""

    @property
    def library(self) -> str:
        """The library that ships it."""
        return self.path.partition("-")[0]

    def read(self, folder: Path) -> str:
        """Return its text; ValueError when it is not the script that was listed."""
        content = (folder / self.path).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise ValueError(f"{self.path} is not the file that scripts.txt lists")
        return content.decode()


def listed() -> list[Script]:
    """Return the chosen scripts, in order. The list is one that `sha256sum -c` reads too."""
    lines = (_HERE / "scripts.txt").read_text().splitlines()
    return [Script(path, digest) for digest, path in (line.split("  ", 1) for line in lines)]


def every(folder: Path) -> list[Script]:
    """Return all the scripts that the distributions ship."""
    return [Script(str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(folder.rglob("*.py"))]


def fetch() -> Path:
    """Return the folder in which the examples lie, fetched when they have not been yet."""
    wanted = (_HERE / "sources.txt").read_bytes()
    folder = _CACHE / hashlib.sha256(wanted).hexdigest()[:16]
    if not folder.exists():
        _CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as made:
            _download(Path(made))
            for archive in sorted(Path(made, "archives").iterdir()):
                _unpack(archive, Path(made, "scripts"))
            with suppress(OSError):  # another test run has been faster
                Path(made, "scripts").rename(folder)
    return folder


def _download(folder: Path) -> None:
    for name in _BACKENDS:
        file = folder / "backends" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("" if name.endswith("__init__.py") else _BACKEND)
    environment = os.environ | {"PYTHONPATH": str(folder / "backends")}
    environment.pop("XDG_CONFIG_HOME", None)  # the tests' own, where no pip.conf of the person lies
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options, "--dest", "archives", "-r", _HERE / "sources.txt"]
    subprocess.run(command, cwd=folder, env=environment, check=True)


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        members = list(_examples(tar))
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on; the archives' digests are pinned either way
            tar.extractall(folder, members, filter="data")
        else:
            tar.extractall(folder, members)


def _examples(tar: tarfile.TarFile) -> Iterable[tarfile.TarInfo]:
    for member in tar:
        parts = Path(member.name).parts
        if len(parts) > 2 and parts[1] in ("examples", "galleries") and member.name.endswith(".py"):
            yield member
