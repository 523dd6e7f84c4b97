"""What the documentation claims of security is shown by tests that there are."""

from __future__ import annotations

import re

from house import sources

_PAGE = sources.ROOT / "docs" / "explanation" / "security.md"
_NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_every_claim_names_tests_that_there_are() -> None:
    """Each row of a table of claims names one test or more, each of which is in the file that is named."""
    lines = _PAGE.read_text(encoding="utf-8").splitlines()
    heads = [number for number, line in enumerate(lines) if line == "| claim | test |"]
    rows = [line for head in heads for line in _rows(lines[head + 2 :])]
    assert len(rows) > 20
    assert not [row for row in rows if not _NAMED.search(row)]
    named = [found.groups() for row in rows for found in _NAMED.finditer(row)]
    assert not [
        f"{file}::{test}"
        for file, test in named
        if f"def {test}(" not in (sources.ROOT / "tests" / file).read_text(encoding="utf-8")
    ]


def _rows(lines: list[str]) -> list[str]:
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
