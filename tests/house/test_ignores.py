"""Exceptions to the rules are few, and each gives its reason beside it."""

from __future__ import annotations

import re

from house import sources

_IGNORE = re.compile(r"#\s*(?:no" + r"qa\b|type:\s*ig" + r"nore|mypy:\s*ig" + r"nore|ruff:\s*no" + r"qa)")
_BARE = re.compile(r"except\s+Exception\b[^#]*$")


def _lines() -> list[tuple[str, str]]:
    files = [*sources.code_files(), *sources.test_files()]
    return [(f"{sources.relative(p)}:{n}", line) for p in files for n, line in enumerate(p.read_text().splitlines(), 1)]


def _settings() -> list[str]:
    text = (sources.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    rules = _between(text, "\nignore = [\n", "\n]").splitlines()
    places = _between(text, "per-file-ignores]\n", "\n\n").splitlines()
    modules = [line for line in text.splitlines() if line.startswith("[[tool.mypy.overrides]]")]
    return [*rules, *places, *modules]


def _between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def test_ignores_are_few() -> None:
    """In all, at most 12 lines of code and tests switch off a rule of ruff or mypy."""
    found = [place for place, line in _lines() if _IGNORE.search(line)]
    assert len(found) <= 12, found


def test_rules_that_hold_nowhere_are_few_and_explained() -> None:
    """pyproject.toml leaves out at most eight rules, for all files or for some, each with its reason beside it."""
    left_out = _settings()
    assert 0 < len(left_out) <= 8
    assert not [line for line in left_out if "#" not in line]


def test_every_ignore_has_its_reason() -> None:
    """An ignore names its rule and is followed by a comment that says why."""
    bare = [place for place, line in _lines() if (hit := _IGNORE.search(line)) and line[hit.end() :].count("#") < 1]
    assert not bare


def test_catching_everything_is_explained() -> None:
    """A handler for every exception carries a comment, on its line or the next, that says why."""
    lines = _lines()
    bare = [i for i, (_, line) in enumerate(lines) if _BARE.search(line) and not line.strip().startswith(("#", '"', "_"))]
    assert not [lines[i][0] for i in bare if not lines[i + 1][1].strip().startswith("#")]
