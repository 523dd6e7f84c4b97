"""Run all the examples there are, here and there, and write down which are alike.

    PYTHONPATH=tests .venv/bin/python -m corpus.survey REPORT [part of a path]…

Law: a tool for a person, no test: scripts.txt and docs/reference/corpus.md are made from its report, one JSON object a line. It
takes an hour or two. A script that differs is run once more, twice here: `alone` says whether it differs from itself as well.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import leaks
from corpus import sources
from corpus.pair import Pair
from corpus.script_cells import cells
from journeys.driving import Place

# What a script says when it needs a network, a screen, other packages, all cores, or long.
_LEFT_OUT = re.compile(
    r"fetch_\w+\(|get_rdataset|webuse|urllib|requests|animation|Button|Slider|\bgtk|wx\b|tkinter|PyQt|QtWidgets|ginput|"
    r"waitforbuttonpress|plt\.pause|time\.sleep|n_jobs=|sys\.argv|argparse|__file__|subprocess|multiprocessing|callbacks|"
    r"osmnx|geopandas|pygraphviz|pydot|igraph|mayavi|plotly|polars|pymc|cvxopt"
)
_EACH = 20.0  # seconds
_TOGETHER = 25
_IMPORTS = "import sklearn.ensemble, sklearn.datasets, statsmodels.api, networkx"


def main(report: Path, *words: str) -> None:
    """Survey every script whose path holds one of the words."""
    folder = sources.fetch()
    chosen = [s for s in sources.every(folder) if not words or any(word in s.path for word in words)]
    waiting = [s for s in chosen if not _LEFT_OUT.search(s.read(folder))]
    while waiting:
        place = Place()
        try:
            with Pair(place) as pair, Pair(place, remote=False) as alone:
                _survey(waiting, folder, report, (pair, alone))
        except AssertionError as silent:  # a script took too long; the kernels go with it
            print(silent, flush=True)
        finally:
            place.close()


def _survey(waiting: list[sources.Script], folder: Path, report: Path, pairs: tuple[Pair, Pair]) -> None:
    for pair in pairs:
        pair.compare([_IMPORTS])
    for _ in range(min(_TOGETHER, len(waiting))):
        script = waiting.pop(0)
        print(script.path, flush=True)
        found = pairs[0].compare(cells(script.read(folder)), timeout=_EACH)
        row = {key: value for key, value in asdict(found).items() if key != "ran"} | asdict(script)
        if found.differences:
            row["alone"] = pairs[1].compare(cells(script.read(folder)), timeout=_EACH).differences
        with report.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="survey-") as session:
        tempfile.tempdir = session
        os.environ |= {leaks.MARK: session, "TMPDIR": session}
        main(Path(sys.argv[1]), *sys.argv[2:])
