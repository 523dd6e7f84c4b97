"""The file system of a test's host: a bare Debian made of this machine's own files, by an overlay that hides all the rest.

Law: writes the overlay's upper layer and nothing else; mounts nothing. What is shown is listed here, whatever is not is hidden.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

# Whose programs a host has: what no Debian is without, but for Perl, and what sshd comes with.
_PACKAGES = (
    *("bash", "bsdutils", "coreutils", "dash", "debianutils", "diffutils", "findutils", "grep", "gzip", "hostname", "libc-bin"),
    *("login", "mount", "ncurses-bin", "passwd", "procps", "sed", "tar", "util-linux"),
    *("openssh-client", "openssh-server", "openssh-sftp-server"),
)
_LIBRARIES = ("libgcc-s1", "libstdc++6")  # which every Debian has, too
_TOP = ("etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")
_USR = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "share")
_LIB = ("*-linux-*", "ld-linux*", "locale", "openssh", "os-release", "ssl", "terminfo")
_SHARE = ("terminfo", "zoneinfo")
_ETC = (
    *("alternatives", "bash.bashrc", "ca-certificates.conf", "debian_version", "host.conf", "inputrc", "ld.so.*", "localtime"),
    *(
        "locale.alias",
        "login.defs",
        "nsswitch.conf",
        "os-release",
        "pam.conf",
        "pam.d",
        "profile",
        "protocols",
        "rpc",
        "security",
    ),
    *("services", "shells", "ssl", "terminfo", "timezone"),
)
_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
_STICKY = 0o1777


def lay(upper: Path, programs: Iterable[str], without: Iterable[str]) -> None:
    """Write into `upper` what an overlay over this machine's root file system needs to look like a host's.

    `programs` are there beside those of a bare Debian, those in `without` are not.
    """
    found = tuple(sorted(path for name in programs if (path := shutil.which(name))))
    names, libraries = _shown(found)
    shown = names - set(without)
    upper.chmod(0o755)
    _show(upper, Path("/"), _TOP)
    _show(_folder(upper / "usr"), Path("/usr"), _USR)
    _show(_folder(upper / "etc"), Path("/etc"), _ETC)
    _show(_folder(upper / "usr/share"), Path("/usr/share"), _SHARE)
    for name in ("bin", "sbin"):
        _show(_folder(upper / "usr" / name), Path("/usr", name), shown)
    _show(_folder(upper / "usr/lib"), Path("/usr/lib"), _LIB)
    for folder in Path("/usr/lib").glob("*-linux-*"):
        _show(_folder(upper / "usr/lib" / folder.name), folder, libraries | {"gconv", "security"})
    _lay_folders(upper)
    _lay_devices(_folder(upper / "dev", new=True))


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file of root's, with exactly that mode, in place of what was there."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)


def accounts(people: dict[str, tuple[int, str]]) -> dict[str, str]:
    """Return the files of /etc for root, sshd, nobody and these people: name to id and login shell."""
    users = {
        "root": (0, 0, "/root", "/bin/bash"),
        "sshd": (101, 65534, "/run/sshd", "/usr/sbin/nologin"),
        "nobody": (65534, 65534, "/nonexistent", "/usr/sbin/nologin"),
        **{name: (number, number, f"/home/{name}", shell) for name, (number, shell) in people.items()},
    }
    groups = {"root": 0, "tty": 5, "shadow": 42, "nogroup": 65534, **{name: number for name, (number, _) in people.items()}}
    return {
        "passwd": "".join(f"{n}:x:{uid}:{gid}:{n}:{home}:{shell}\n" for n, (uid, gid, home, shell) in users.items()),
        "group": "".join(f"{name}:x:{number}:\n" for name, number in groups.items()),
        "shadow": "".join(f"{name}:*:19700:0:99999:7:::\n" for name in users),
    }


@functools.cache
def _shown(found: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the programs that are shown with these, and of the libraries that they all need."""
    files = [str(Path(path).resolve()) for path in found]
    places = [*files, *(path.removeprefix("/usr") for path in files)]  # packages call /usr/bin /bin, some of them
    owners = {line.partition(":")[0] for line in _query("-S", *places)}
    listed = [line.rpartition("/") for line in _query("-L", *_PACKAGES)]
    names = {name for folder, _, name in listed if folder.endswith("bin")} | {Path(path).name for path in (*found, *files)}
    needed = _query("-L", *sorted(_with_all_needed({*_PACKAGES, *_LIBRARIES, *owners})))
    libraries = {Path(path).name for path in needed if ".so" in path and "-linux-" in Path(path).parent.name}
    return frozenset(names), frozenset(name for name in libraries if "python" not in name)


def _with_all_needed(names: set[str]) -> set[str]:
    """Return these packages and all that they depend on, of those that this machine has."""
    rows = (line.split("|", 1) for line in _query("-W", "-f=${Package}|${Depends}, ${Pre-Depends}\n"))
    needs = {name: set(re.findall(r"(?:^|, |\| )([a-z0-9.+-]+)", depends)) for name, depends in rows}
    reached: set[str] = set()
    while names:
        reached |= names
        names = {other for name in names for other in needs.get(name, ()) if other in needs} - reached
    return reached & needs.keys()


def _query(*words: str) -> list[str]:
    return subprocess.run(["dpkg-query", *words], capture_output=True, text=True, check=False).stdout.splitlines()


def _show(upper: Path, lower: Path, shown: Iterable[str]) -> None:
    """Hide in this folder of the overlay all but these names and patterns."""
    exact = {name for name in shown if "*" not in name}
    patterns = [name for name in shown if "*" in name]
    for name in os.listdir(lower):
        if name not in exact and not any(fnmatch(name, pattern) for pattern in patterns):
            os.mknod(upper / name, stat.S_IFCHR, os.makedev(0, 0))


def _folder(path: Path, mode: int = 0o755, *, new: bool = False) -> Path:
    """Make a folder of the overlay that shows what lies below it, or, with `new`, that is empty."""
    if new:
        path.unlink(missing_ok=True)  # what hid the machine's own
    path.mkdir()
    path.chmod(mode)
    if new:
        os.setxattr(path, "trusted.overlay.opaque", b"y")
    return path


def _lay_folders(upper: Path) -> None:
    for name in ("home", "mnt", "opt", "proc", "run", "srv", "sys", "var", "usr/local"):
        _folder(upper / name, new=True)
    _folder(upper / "root", 0o700, new=True)
    _folder(upper / "tmp", _STICKY, new=True)
    for name in ("bin", "lib", "sbin", "share"):
        _folder(upper / "usr/local" / name)
    for name in ("cache", "lib", "log", "spool"):
        _folder(upper / "var" / name)
    _folder(upper / "var/tmp", _STICKY)
    (upper / "var/run").symlink_to("/run")
    _folder(upper / "etc/ssh", new=True)
    _folder(upper / "etc/ssh/keys")
    write(upper / "etc/machine-id", f"{secrets.token_hex(16)}\n", 0o444)


def _lay_devices(folder: Path) -> None:
    for name, numbers in _NODES.items():
        os.mknod(folder / name, stat.S_IFCHR, os.makedev(*numbers))
        (folder / name).chmod(0o666)
    for name, target in _DEVICE_LINKS.items():
        (folder / name).symlink_to(target)
    for name in ("pts", "shm"):
        _folder(folder / name)
