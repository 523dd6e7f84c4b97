"""Example scripts of scikit-learn, matplotlib, statsmodels and networkx run under `%remote on` with the same outputs as here.

Which scripts, and what differs in others and why, is in docs/reference/corpus.md.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest
from corpus import sources
from corpus.pair import Pair
from corpus.script_cells import cells

_TOGETHER = 30
_OUTDATED = 5  # one script of this many may fail on both sides alike: a library's next release takes some of its examples along
_SHELL = "type(get_ipython().kernel).__module__"


def _batches() -> list[pytest.param]:
    found = []
    for library, group in groupby(sources.listed(), lambda script: script.library):
        scripts = list(group)
        parts = [scripts[i : i + _TOGETHER] for i in range(0, len(scripts), _TOGETHER)]
        found += [pytest.param(part, id=f"{library}-{number}") for number, part in enumerate(parts, 1)]
    return found


def test_at_least_a_hundred_scripts_of_four_libraries_are_listed() -> None:
    """The list has no script twice, some of each library, and a hundred also when as many fail as may."""
    scripts = sources.listed()
    count = Counter(script.library for script in scripts)
    assert len({script.path for script in scripts}) == len(scripts)
    assert len(scripts) - len(scripts) // _OUTDATED >= 100
    assert count.keys() == {"matplotlib", "networkx", "scikit_learn", "statsmodels"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scripts", _batches())
def test_scripts_show_there_what_they_show_here(pair: Pair, folder: Path, scripts: list[sources.Script]) -> None:
    """Each script runs to its end on both sides, shows something, and no text, value, pixel or file is another."""
    wrong: dict[str, list[str]] = {}
    failed = []
    for script in scripts:
        found = pair.compare(cells(script.read(folder)))
        if found.differences:
            wrong[script.path] = found.differences
        elif not found.ok or not found.shown:
            failed.append(script.path)
    assert not wrong, "\n".join(f"{path}\n    " + "\n    ".join(lines) for path, lines in wrong.items())
    assert len(failed) <= len(scripts) // _OUTDATED, failed
    assert "ipykernel" in pair.here.run(_SHELL).result
    assert "remora.guest" in pair.there.run(_SHELL).result
