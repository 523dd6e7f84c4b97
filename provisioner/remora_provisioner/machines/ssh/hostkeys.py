"""What the user's known_hosts files say about a host's key, and the line that is added once the user has said yes.

Law: reads the format of OpenSSH and never changes a line that is there. Nothing here speaks SSH, and nothing asks.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from remora.errors import InputError, StateError

_SSH_PORT = 22
_HASHED = "|1|"


class Verdict(Enum):
    """What is known about a key that a host has shown."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Known:
    """A line of a known_hosts file that names the host: where it stands, the type of its key, the key, whether it is revoked."""

    file: Path
    line: int
    kind: str
    key: bytes
    revoked: bool

    @property
    def place(self) -> str:
        """Return file and line, as messages write it."""
        return f"{self.file}:{self.line}"


def address(host: str, port: int) -> str:
    """Return the name under which known_hosts keeps a host."""
    return host.lower() if port == _SSH_PORT else f"[{host.lower()}]:{port}"


def fingerprint(key: bytes) -> str:
    """Return a key's fingerprint as ssh-keygen prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def lookup(files: Iterable[Path], name: str) -> list[Known]:
    """Return the lines of these files that name the host; lines of authorities are left out. InputError if one cannot be read."""
    return [known for file in files for patterns, known in _lines(file) if _names(patterns, name)]


def judge(known: Iterable[Known], key: bytes) -> tuple[Verdict, Known | None]:
    """Return what the lines that name a host say about the key it has shown, and the line that decides."""
    mine = list(known)
    for line in mine:
        if line.revoked and line.key == key:
            return Verdict.REVOKED, line
    kept = [line for line in mine if not line.revoked]
    for line in kept:
        if line.key == key:
            return Verdict.KNOWN, line
    return (Verdict.CHANGED, kept[0]) if kept else (Verdict.UNKNOWN, None)


def remember(file: Path, name: str, kind: str, key: bytes, *, hashed: bool) -> None:
    """Add a line to a known_hosts file, with the host's name hashed if the user's configuration wants that. Raises StateError."""
    shown = _hash(name, os.urandom(20)) if hashed else name
    line = f"{shown} {kind} {base64.b64encode(key).decode()}\n".encode()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            whole = not size or os.pread(descriptor, 1, size - 1) == b"\n"
            os.write(descriptor, line if whole else b"\n" + line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StateError(f"the host's key cannot be added to {file} ({error.strerror})") from error


def _lines(file: Path) -> Iterator[tuple[str, Known]]:
    """Yield the host names and the key of each line that holds one."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}), so no host can be told from another") from error
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#") or marker not in {"", "@revoked"}:
            continue
        try:
            key = base64.b64decode(fields[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        yield fields[0], Known(file, number, fields[1], key, marker == "@revoked")


def _names(patterns: str, name: str) -> bool:
    """Say whether the first field of a line names the host."""
    if patterns.startswith(_HASHED):
        return _is_hash_of(patterns, name)
    found = False
    for pattern in patterns.lower().split(","):
        if pattern.startswith("!") and _matches(name, pattern[1:]):
            return False
        found = found or _matches(name, pattern)
    return found


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))  # only * and ? are wild here


def _hash(name: str, salt: bytes) -> str:
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"{_HASHED}{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _is_hash_of(hashed: str, name: str) -> bool:
    try:
        salt = base64.b64decode(hashed.split("|")[2], validate=True)
    except (binascii.Error, ValueError, IndexError):
        return False
    return hmac.compare_digest(_hash(name, salt).encode(), hashed.encode())
