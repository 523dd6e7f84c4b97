"""Machines with next to nothing: a root folder of their own with a shell and its usual programs, an empty home, and no Python.

Law: made by bwrap from what is installed here, without a network, with a process namespace of their own; nothing of this machine
but the programs that are named below can be seen. The bundles of these tests run as any other, but are a few bytes large.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from remora_provisioner.jails.bubblewrap import programs
from remora_provisioner.machines.settling import dialogue as settling
from remora_provisioner.machines.settling import elf
from remora_provisioner.machines.settling.bundle import Bundle, Part, archive
from remora_provisioner.machines.settling.contents import Entry

USUAL = ("cat", "chmod", "date", "dd", "df", "find", "getconf", "grep", "gzip", "id", "ln", "ls", "mkdir", "mv", "nproc", "rm")
USUAL += ("sha256sum", "touch", "true", "uname", "unshare", "wc")
_STATIC = [p for p in ("/bin/busybox", "/usr/bin/busybox") if Path(p).exists() and elf.loader_of(Path(p)) is None]
KINDS = ["gnu", *(["busybox"] if _STATIC else [])]
"""A C library, dash and bash, and the programs of GNU; a busybox that needs no library, and nothing else."""

LOGIN_SHELLS = [name for name in ("bash", "dash", "zsh", "fish", "tcsh", "ksh", "mksh", "busybox") if shutil.which(name)]
OWN = f"/var/tmp/remora-{os.getuid()}"
"""Where things are kept on a machine whose home cannot be used."""
ECHO = settling.Program("encodings.rot_13")
"""What is there in any Python, and talks."""


@dataclass
class Machine:
    """One machine; its root and its home are folders here."""

    root: Path
    home: Path
    options: list[str] = field(default_factory=list)
    """More of bwrap's, after those that show the root."""

    def argv(self, *command: str) -> list[str]:
        """Return what runs a command there."""
        bwrap = str(next(iter(programs())).path)
        system = ["--unshare-all", "--die-with-parent", "--ro-bind", str(self.root), "/", "--proc", "/proc", "--dev", "/dev"]
        places = ["--bind", str(self.home), "/home/ada", "--perms", "1777", "--tmpfs", "/tmp", "--perms", "1777"]
        places += ["--tmpfs", "/var/tmp", "--perms", "1777", "--tmpfs", "/dev/shm", *self.options]
        environment = ["--clearenv", "--setenv", "HOME", "/home/ada", "--setenv", "PATH", "/bin"]
        return [bwrap, *system, *places, *environment, "--chdir", "/home/ada", "--", *command]

    def run(self, *command: str) -> str:
        """Return what a command prints there."""
        done = subprocess.run(self.argv(*command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def agent(self) -> Path:
        """Return our folder in its home, as seen from here."""
        return self.home / ".local/share/remora/agent"

    def without(self, *names: str) -> None:
        """Take programs away."""
        for name in names:
            (self.root / "bin" / name).unlink(missing_ok=True)

    def instead_of(self, name: str, script: str) -> None:
        """Put a script where a program was."""
        self.without(name)
        place = self.root / "bin" / name
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)


def make(place: Path, template: Path) -> Machine:
    """Make a machine below a folder, with the programs of a template."""
    root, home = place / "root", place / "home"
    shutil.copytree(template, root, symlinks=True, copy_function=os.link)
    home.mkdir(0o700)
    return Machine(root, home)


def lay_out(root: Path, kind: str) -> Path:
    """Make the root of a machine of that kind, for others to be made from."""
    for name in ("bin", "tmp", "var/tmp", "dev", "proc", "home/ada"):
        (root / name).mkdir(parents=True)
    if kind == "busybox":
        shutil.copy(_STATIC[0], root / "bin/busybox")
        for name in ("sh", *USUAL):
            (root / "bin" / name).symlink_to("busybox")
    else:
        for name in ("sh", "bash", *USUAL):
            _copy_program(name, root)
    return root


def _copy_program(name: str, root: Path) -> None:
    found = shutil.which(name, path="/usr/bin:/bin")
    assert found is not None, name
    shutil.copy(found, root / "bin" / name)
    listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
    for word in listed.split():
        target = root / word.lstrip("/")
        if word.startswith("/") and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, target)


@contextlib.contextmanager
def reached(argv: list[str], environment: dict[str, str] | None = None) -> Iterator[socket.socket]:
    """Run a command and yield the socket that is its standard input and output; when left, it has ended."""
    mine, theirs = socket.socketpair()
    with mine:
        with theirs:
            process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
        try:
            yield mine
        finally:
            mine.close()
            process.wait(30)


def exchange(sock: socket.socket, said: bytes) -> bytes:
    """Say something to the program that was started, and return all that it answers."""
    sock.setblocking(True)
    sock.settimeout(30)
    sock.sendall(said)
    sock.shutdown(socket.SHUT_WR)
    with sock.makefile("rb") as answers:
        return answers.read()


_LOADER = """
case $* in
*/unpacking.py*)
    while [ $# -gt 2 ]; do last=$2; shift; done
    mkdir -p "$1/bin" && cat "$2/wrapper" >"$1/bin/python" && chmod 755 "$1/bin/python"
    ;;
esac
"""
_WRAPPER = """#!/bin/sh
[ "$2" = -c ] && exit
shift 3
printf '%s\\n' "$@"
exec cat
"""


def small_bundle(store: Path, code: bytes = b"1", size: int = 0, loader: str = _LOADER) -> Bundle:
    """Return a bundle of scripts that do as a Python does; `size` bytes that cannot be compressed make it larger."""
    script = Entry("loader", f"#!/bin/sh\n{loader}".encode(), executable=True)
    python = [script, Entry("python", b"-"), Entry("unpacking.py", b"-"), Entry("wrapper", _WRAPPER.encode())]
    noise = Entry("libs/noise", hashlib.shake_256(b"noise").digest(size) or b"-")
    parts = {"python": archive([*python, noise]), "code": archive([Entry("code/one.py", code)])}
    kept = [_part(store, name, data) for name, data in parts.items()]
    return Bundle(platform.machine(), *kept)


def _part(store: Path, name: str, data: bytes) -> Part:
    store.mkdir(exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()
    file = store / f"{name}-{digest}.gz"
    file.write_bytes(gzip.compress(data))
    return Part(name, digest, len(data), file)
