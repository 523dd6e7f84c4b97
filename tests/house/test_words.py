"""The words of the repository: module names that mean something, docstrings everywhere, nothing about where it was written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house import sources

_EMPTY_NAMES = {"base", "common", "helper", "helpers", "lib", "manager", "managers", "misc", "tools", "util", "utils"}
_CODE = [pytest.param(p, id=sources.relative(p)) for p in sources.code_files()]
_TESTS = [pytest.param(p, id=sources.relative(p)) for p in sources.test_files()]
# Absolute paths of somebody's machine. Those that stand for a user's folder in examples and tests are spelled /home/ada.
_PRIVATE = re.compile(r"(?<![\w.$}])(?:/work/|/root/|/home/(?!ada\b)\w|/Users/\w|C:\\Users)")
_NOTES = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b|for n" + r"ow\b", re.IGNORECASE)
_TEXT = {".cfg", ".css", ".ipynb", ".js", ".json", ".md", ".py", ".sh", ".svg", ".toml", ".ts", ".tsx", ".yaml", ".yml", ""}


def _texts() -> list[tuple[str, str]]:
    kept = [p for p in sources.kept_files() if p.suffix in _TEXT and p != Path(__file__).resolve()]
    return [(sources.relative(p), p.read_text(encoding="utf-8")) for p in kept]


def _hits(pattern: re.Pattern[str]) -> list[str]:
    lines = ((name, number, line) for name, text in _texts() for number, line in enumerate(text.splitlines(), 1))
    return [f"{name}:{number}: {line.strip()[:120]}" for name, number, line in lines if pattern.search(line)]


def test_module_names_say_what_is_inside() -> None:
    """No module or folder of the packages has a name that fits anything."""
    names = {sources.relative(p): {p.stem, *p.relative_to(sources.ROOT).parent.parts} for p in sources.code_files()}
    assert not [path for path, parts in names.items() if parts & _EMPTY_NAMES]


@pytest.mark.parametrize("path", _CODE)
def test_everything_public_is_documented(path: Path) -> None:
    """Every module says its law, and every public class, function and method says what it does."""
    assert ast.get_docstring(sources.syntax(path)), "the module says no law in its first lines"
    public = [f for f in sources.definitions(path) if not any(p.startswith("_") for p in f.name.split("."))]
    inner = {f.name for f in sources.definitions(path) if not isinstance(f.node, ast.ClassDef)}
    top = [f for f in public if f.name.rpartition(".")[0] not in inner]
    assert not [f.name for f in top if not ast.get_docstring(f.node) and not _is_overload(f.node)]


@pytest.mark.parametrize("path", _TESTS)
def test_every_test_says_what_it_proves(path: Path) -> None:
    """Every test has a docstring."""
    tests = [f for f in sources.functions([path]) if f.node.name.startswith("test_") and path.name.startswith("test_")]
    assert not [f.name for f in tests if not ast.get_docstring(f.node)]


def test_no_path_of_a_workplace_is_mentioned() -> None:
    """No kept file holds an absolute path of the machine that it was written on."""
    assert not _hits(_PRIVATE)


def test_no_note_to_self_is_left() -> None:
    """No kept file holds a note that something remains to be done."""
    assert not _hits(_NOTES)


@pytest.mark.parametrize("path", sorted((sources.ROOT / "docs" / "decisions").glob("*.md")), ids=lambda p: p.name)
def test_a_decision_is_short(path: Path) -> None:
    """A decision has at most 40 lines, a number, and says when to look at it again."""
    assert sources.line_count(path) <= 40
    assert path.name == "README.md" or re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name)
    assert path.name == "README.md" or "Look again" in path.read_text(encoding="utf-8")


def _is_overload(node: sources.Definition) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
