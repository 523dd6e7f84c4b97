"""The user's SSH configuration as one text: Include lines replaced by what they name, and the names of its hosts.

Law: reads files, and knows of their meaning only Host, Match and Include; what an option means is paramiko's business.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from remora.errors import InputError

_DEPTH = 16  # as deep as ssh follows Include
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.+)")
_SYSTEM = Path("/etc/ssh")


def read() -> str:
    """Return the user's configuration and then the system's, as ssh reads them; InputError if a file cannot be read."""
    user = Path.home() / ".ssh"
    return "\n".join([*_lines(user / "config", user, 0), "Host *", *_lines(_SYSTEM / "ssh_config", _SYSTEM, 0)])


def hosts() -> list[str]:
    """Return the names that the configuration gives to hosts, wildcards left out, in their order."""
    found: dict[str, None] = {}
    for line in read().splitlines():
        key, value = _parts(line)
        if key == "host":
            found |= {name: None for name in _words(value) if not set(name) & set("*?!")}
    return list(found)


def _lines(file: Path, base: Path, depth: int) -> Iterator[str]:
    """Yield the lines of a file; after an Include the section that it stands in goes on."""
    section = ""
    for line in _text(file).splitlines():
        key, value = _parts(line)
        if key != "include":
            section = line if key in {"host", "match"} else section
            yield line
            continue
        if depth >= _DEPTH:
            raise InputError(f"{file} includes itself, or files nested more than {_DEPTH} deep: {line.strip()}")
        for named in _named(value, base):
            yield from _lines(named, base, depth + 1)
        yield section or "Host *"


def _named(value: str, base: Path) -> Iterator[Path]:
    for word in _words(value):
        yield from map(Path, sorted(glob.glob(os.path.join(base, os.path.expanduser(word)))))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, IsADirectoryError):
        return ""
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error


def _parts(line: str) -> tuple[str, str]:
    found = None if line.lstrip().startswith("#") else _LINE.match(line)
    return (found[1].lower(), found[2]) if found else ("", "")


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:
        return value.split()
