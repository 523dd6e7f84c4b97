"""The mirror image: what an environment says of itself, in a virtual environment, editable installs and path files included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import remora
from remora.images import Mirror, carried_environment, guest_file

KERNEL = Path(remora.__file__).resolve().parents[1]
_TELL = "import json; from remora.images import Mirror; print(json.dumps(Mirror.here().to_dict()))"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give an empty virtual environment."""
    place = tmp_path_factory.mktemp("mirror") / "env"
    venv.create(place, symlinks=True)
    yield place


def told(environment: Path, cwd: Path, **variables: str) -> dict[str, Any]:
    """Return what an interpreter of that environment says of itself."""
    command = [environment / "bin" / "python", "-c", f"import sys; sys.path.append({str(KERNEL)!r}); " + _TELL]
    env = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def packages(environment: Path) -> Path:
    """Return where the environment keeps its packages."""
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def test_this_process() -> None:
    """The mirror of this very process names its interpreter, its packages and the guest's file."""
    mirror = Mirror.here()
    assert mirror.executable == sys.executable
    assert (mirror.prefix, mirror.base_prefix) == (sys.prefix, sys.base_prefix)
    assert Path(guest_file()).is_file()
    assert mirror.version == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert all(os.path.isdir(p) for p in (*mirror.site_packages, *mirror.roots))
    assert json.loads(json.dumps(mirror.to_dict())) == mirror.to_dict()


def test_a_virtual_environment(environment: Path, tmp_path: Path) -> None:
    """Prefix and base are told apart, and the folder that brings Remora is a root."""
    found = told(environment, tmp_path)
    assert found["executable"] == str(environment / "bin" / "python")
    assert found["prefix"] == str(environment)
    assert found["base_prefix"] == sys.base_prefix
    assert found["site_packages"] == [str(packages(environment))]
    assert found["roots"] == [str(KERNEL)]


def test_editable_installs_and_the_path_are_roots(environment: Path, tmp_path: Path) -> None:
    """Folders of .pth files come, those of PYTHONPATH too; what is inside the environment or missing does not."""
    for name in ("editable", "on-the-path", "here"):
        (tmp_path / name).mkdir()
    file = packages(environment) / "editable.pth"
    lines = [
        str(tmp_path / "editable"),
        "import sys",
        "# a comment",
        str(tmp_path / "gone"),
        str(packages(environment) / ".."),
        "",
    ]
    file.write_text("\n".join(lines))
    try:
        found = told(environment, tmp_path / "here", PYTHONPATH=f"{tmp_path / 'on-the-path'}:{tmp_path / 'gone'}")
    finally:
        file.unlink()
    assert found["roots"] == [str(tmp_path / "editable"), str(tmp_path / "on-the-path"), str(KERNEL)]


def test_the_notebooks_folder_is_no_root(environment: Path, tmp_path: Path) -> None:
    """The working directory is on the path of every kernel, and is shared by rules of its own."""
    found = told(environment, tmp_path, PYTHONPATH=str(tmp_path))
    assert str(tmp_path) not in found["roots"]


def test_a_path_file_that_is_no_text(environment: Path, tmp_path: Path) -> None:
    """Bytes that are no text in a .pth file do not stop a mirror."""
    file = packages(environment) / "broken.pth"
    file.write_bytes(b"\xff\xfe\x00binary\n" + os.fsencode(tmp_path) + b"\n")
    try:
        mirror = subprocess.run(
            [environment / "bin" / "python", "-I", "-S", "-c", f"import sys; sys.path.append({str(KERNEL)!r}); " + _TELL],
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        file.unlink()
    assert json.loads(mirror.stdout)["prefix"]


def test_a_working_directory_that_is_gone(environment: Path, tmp_path: Path) -> None:
    """A notebook whose folder was deleted still has an environment."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys; sys.path.append({str(KERNEL)!r}); os.rmdir({str(gone)!r}); " + _TELL
    done = subprocess.run([environment / "bin" / "python", "-c", code], cwd=gone, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["prefix"] == str(environment)


def test_what_a_sandbox_is_given_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locale, threads, hash seed, pip, proxies and certificates go; secrets, paths and ours stay."""
    wanted = {
        "LANG": "de_DE.UTF-8",
        "LC_TIME": "C",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "PIP_INDEX_URL": "https://packages.example",
        "UV_OFFLINE": "1",
        "http_proxy": "http://proxy.example",
        "SSL_CERT_FILE": "/etc/ssl/cert.pem",
        "REQUESTS_CA_BUNDLE": "/etc/ssl/cert.pem",
    }
    kept = {
        "AWS_SECRET_ACCESS_KEY": "s",
        "GITHUB_TOKEN": "t",
        "PYTHONPATH": "/home/ada/lib",
        "PYTHONSTARTUP": "/home/ada/start.py",
        "LD_PRELOAD": "x.so",
        "HOME": "/home/ada",
        "MY_TZ": "UTC",
        "REMORA_UPLINK_FD": "5",
        "LANGUAGE_MODEL_KEY": "k",
        "XPIP_X": "1",
    }
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in (wanted | kept).items():
        monkeypatch.setenv(name, value)
    assert carried_environment() == wanted
