"""A container registry on this machine, for real, and small container images made by hand.

Law: what is pushed is read from this machine, nothing is fetched.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

needed = pytest.mark.skipif(
    not all(map(shutil.which, ("skopeo", "docker-registry"))), reason="needs a registry: the packages skopeo and docker-registry"
)
_OCI = "application/vnd.oci.image"
_NEEDED = ("*.py", "collections/*.py", "encodings/*.py", "importlib/*.py", "re/*.py", "lib-dynload/_json*.so")


class Registry:
    """A registry that listens on a port of this machine and keeps its images below a folder."""

    def __init__(self, place: Path, users: str = "") -> None:
        """Start it, and return when it listens; with `users`, lines as htpasswd makes them, it asks for a password."""
        place.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        config = place / "config.yml"
        config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {place}}}}}\nhttp: {{addr: '{self.host}'}}\n")
        if users:
            (place / "users").write_text(users)
            with config.open("a") as file:
                file.write(f"auth: {{htpasswd: {{realm: test, path: {place / 'users'}}}}}\n")
        # what it says is read to the end by somebody: it would not survive a pipe that nobody reads
        command = f"docker-registry serve {config} 2>&1 | {{ sed -u '/listening on/q'; cat >/dev/null; }}"
        self._process = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        assert any(b"listening on" in line for line in self._process.stdout), "docker-registry did not start"

    def push(self, place: Path, name: str, layers: list[bytes], config: Mapping[str, Any], user: str = "") -> str:
        """Push an image with these layers, as `user:password`, and return its reference."""
        layout(place, layers, config)
        reference = f"{self.host}/{name}"
        words = ["--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{place}", f"docker://{reference}"]
        words += ["--dest-creds", user] if user else []
        subprocess.run(["skopeo", "copy", *words], check=True)
        return reference

    def close(self) -> None:
        """End it; safe twice."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


def layout(place: Path, layers: list[bytes], config: Mapping[str, Any]) -> None:
    """Write an image as an OCI layout."""
    (place / "blobs" / "sha256").mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (place / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
    hashes = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    described = {"architecture": machine, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": hashes}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": blob(json.dumps(described).encode(), "config.v1+json"),
        "layers": [blob(data, "layer.v1.tar+gzip") for data in packed],
    }
    index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (place / "index.json").write_text(json.dumps(index))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def layer(files: Mapping[str, bytes | str]) -> bytes:
    """Return an archive with these programs; a text is a link's target."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path, data in files.items():
            facts = tarfile.TarInfo(path)
            facts.mode = 0o755
            if isinstance(data, str):
                facts.type, facts.linkname = tarfile.SYMTYPE, data
            else:
                facts.size = len(data)
            archive.addfile(facts, io.BytesIO(data) if isinstance(data, bytes) else None)
    return content.getvalue()


@functools.cache
def python_layer() -> bytes:
    """Return a layer with this interpreter, what it needs to start, and a shell, laid out like a python image."""
    python = Path(os.path.realpath(sys.executable))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    programs = {f"usr/local/bin/python{version}": python, "bin/sh": Path("/bin/sh"), "bin/cat": Path("/bin/cat")}
    files: dict[str, bytes | str] = {path: source.read_bytes() for path, source in programs.items()}
    files |= {str(path).lstrip("/"): path.read_bytes() for path in _libraries([*programs.values()])}
    stdlib = Path(sysconfig.get_path("stdlib"))
    for path in (path for pattern in _NEEDED for path in stdlib.glob(pattern)):
        files[f"usr/local/lib/python{version}/{path.relative_to(stdlib)}"] = path.read_bytes()
    return layer(files | {"usr/local/bin/python3": f"python{version}"})


def _libraries(programs: list[Path]) -> set[Path]:
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    words = (word for line in told.splitlines() if not line.endswith(":") for word in line.split())
    return {Path(word) for word in words if word.startswith("/") and Path(word).is_file()}
