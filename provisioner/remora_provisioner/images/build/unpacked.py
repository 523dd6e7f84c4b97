"""What uv has unpacked, before it is taken into the store: programs freed of its folder, modules compiled, files by owner.

Law: nothing here is changed in place, since uv may have linked it from its cache; a file is replaced.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import posixpath
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .work import Work

_ANY_PYTHON = b"#!/usr/bin/env python3\n"
_LONG = re.compile(rb"#!/bin/sh\n'''exec' [^\n]*\n' '''\n")
"""What stands in place of a first line that is too long for the kernel."""
_FEW = 200  # modules that one process compiles sooner than several start


@dataclass(frozen=True)
class Unpacked:
    """A folder laid out as a prefix; `site` is where packages lie in it."""

    folder: Path
    site: str

    def free_programs(self, python: Path) -> None:
        """Let programs look for their Python on the path instead of the one that unpacked them, and correct their RECORDs."""
        changed: dict[str, bytes] = {}
        for entry in os.scandir(self.folder / "bin") if (self.folder / "bin").is_dir() else ():
            if entry.is_file(follow_symlinks=False) and (freed := _freed(Path(entry.path).read_bytes(), python)):
                _replace(Path(entry.path), freed)
                changed[f"bin/{entry.name}"] = freed
        for record in self._records() if changed else ():
            self._correct(record, changed)

    def compile(self, work: Work, python: Path) -> None:
        """Compile all modules, since nothing can be written beside them later; what is no Python of this version is left."""
        several = ["-j", "0"] if sum(1 for _ in (self.folder / self.site).rglob("*.py")) > _FEW else []
        words = ["-m", "compileall", "-qq", *several, "-s", str(self.folder), "--invalidation-mode", "unchecked-hash"]
        work.attempt([str(python), "-I", *words, str(self.folder / self.site)])

    def owned(self, version: str) -> tuple[dict[str, set[str]], dict[str, str]]:
        """Return each package's paths by its name, and the digest (sha256, hex) that RECORD gives for each path.

        No RECORD is asked about a path that several packages have, which is whichever was unpacked last, nor about compiled
        modules that a wheel brings along, since they were made anew.
        """
        files: dict[str, set[str]] = {}
        known: dict[str, str] = {}
        tag = f".cpython-{version.replace('.', '')}.pyc"
        for record in self._records():
            own = files.setdefault(_project(record.parent), set())
            for listed, digest, _ in _rows(record):
                path = self._path(listed)
                own |= {path, _compiled(path, tag)}
                if digest.startswith("sha256="):
                    known[path] = base64.urlsafe_b64decode(digest[7:] + "==").hex()
        times = Counter(path for own in files.values() for path in own)
        return files, {path: digest for path, digest in known.items() if times[path] == 1 and not path.endswith(".pyc")}

    def _records(self) -> list[Path]:
        return sorted((self.folder / self.site).glob("*.dist-info/RECORD"))

    def _path(self, listed: str) -> str:
        return posixpath.normpath(posixpath.join(self.site, listed))

    def _correct(self, record: Path, changed: dict[str, bytes]) -> None:
        rows = _rows(record)
        for row in rows:
            if content := changed.get(self._path(row[0])):
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                row[1:] = [f"sha256={digest}", str(len(content))]
        aside = record.with_name("RECORD.new")
        with aside.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        os.replace(aside, record)


def _rows(record: Path) -> list[list[str]]:
    with record.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if len(row) == 3]


def _project(described: Path) -> str:
    return re.sub(r"[-_.]+", "-", described.name.split("-")[0]).lower()


def _compiled(path: str, tag: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name[:-3]}{tag}" if name.endswith(".py") else path


def _freed(content: bytes, python: Path) -> bytes | None:
    """Return a program that no longer names this Python; None if it does not."""
    if (found := _LONG.match(content)) and os.fsencode(python) in found[0]:
        return _ANY_PYTHON + content[found.end() :]
    first, _, rest = content.partition(b"\n")
    return _ANY_PYTHON + rest if first.startswith(b"#!" + os.fsencode(python)) else None


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f"{path.name}.new")
    aside.write_bytes(content)
    aside.chmod(path.stat().st_mode)
    os.replace(aside, path)
