"""The files that the house tests look at, and what can be read off them without importing them.

Law: reads, never judges; the tests beside it judge.
"""

from __future__ import annotations

import ast
import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "remora": ROOT / "kernel" / "remora",
    "remora_provisioner": ROOT / "provisioner" / "remora_provisioner",
    "remora_backend": ROOT / "backend" / "remora_backend",
}
STARRED = (
    "kernel/remora/wire.py",
    "kernel/remora/states.py",
    "kernel/remora/errors.py",
    "provisioner/remora_provisioner/sandbox.py",
    "backend/remora_backend/fleet.py",
)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Found:
    """A definition in a file: where it stands, its dotted name inside the file, and its syntax."""

    path: Path
    name: str
    node: Definition

    @property
    def lines(self) -> int:
        """Return how many lines it takes, from `def` to its last."""
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1

    @property
    def place(self) -> str:
        """Return file and name, as the waiver lists and the messages write it."""
        return f"{relative(self.path)}::{self.name}"


def code_files() -> list[Path]:
    """Return the Python files of the three packages."""
    return sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))


def test_files() -> list[Path]:
    """Return the Python files below tests/."""
    return sorted((ROOT / "tests").rglob("*.py"))


def kept_files() -> list[Path]:
    """Return all files that the repository keeps or would keep: tracked, or new and not ignored."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive, or no git: look at what would be kept
        return sorted(p for p in ROOT.rglob("*") if p.is_file() and not {".venv", ".git", "__pycache__"} & set(p.parts))
    return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def relative(path: Path) -> str:
    """Return the path as seen from the top of the repository."""
    return path.relative_to(ROOT).as_posix()


def line_count(path: Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def syntax(path: Path) -> ast.Module:
    """Return the file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def definitions(path: Path) -> Iterator[Found]:
    """Yield every function and class of a file, those inside others too."""
    yield from _inside(path, syntax(path), "")


def functions(paths: list[Path]) -> list[Found]:
    """Return the functions and methods of the files."""
    return [found for path in paths for found in definitions(path) if not isinstance(found.node, ast.ClassDef)]


def modules_imported(path: Path, package: str) -> Iterator[str]:
    """Yield the dotted names of the modules that a file of `package` imports, relative ones resolved."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _resolved(node, path, package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def percentile(values: list[int], part: float) -> int:
    """Return the value that `part` of all values do not exceed."""
    return sorted(values)[max(math.ceil(part * len(values)) - 1, 0)]


def _inside(path: Path, node: ast.AST, prefix: str) -> Iterator[Found]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield Found(path, prefix + child.name, child)
            yield from _inside(path, child, f"{prefix}{child.name}.")
        else:
            yield from _inside(path, child, prefix)


def _resolved(node: ast.ImportFrom, path: Path, package: str) -> str:
    if not node.level:
        return node.module or ""
    here = [package, *path.relative_to(PACKAGES[package]).parent.parts]
    return ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])])
