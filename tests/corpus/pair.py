"""Two kernels that run the same scripts: one here, plainly, the other with `%remote on`.

Law: each script finds what a new notebook would: no variables, matplotlib's defaults, seeded generators. Both kernels get the
cells at once, so that they work side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from corpus import outputs
from journeys.driving import Notebook, Place, Ran

_FIRST = """
import matplotlib as _matplotlib, matplotlib.pyplot as _pyplot, numpy as _numpy, random as _random, warnings as _warnings
for _name in [name for name in globals() if not name.startswith("_")]:
    if _name not in ("In", "Out", "exit", "quit", "open", "get_ipython"):
        del globals()[_name]
_pyplot.close("all")
_pyplot.switch_backend("module://matplotlib_inline.backend_inline")
_matplotlib.rcdefaults()
_warnings.resetwarnings()
_numpy.random.seed(0)
_random.seed(0)
"""
# Sets are in the same order on both sides, and sums of floats in that of one thread.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"}


@dataclass(frozen=True)
class Compared:
    """One script, run here and there."""

    differences: list[str]
    """A line for each output or file that differs."""
    ok: bool
    """Whether it ran to its end here."""
    shown: int
    """How many outputs it showed here."""
    seconds: tuple[float, float]
    """How long it took, here and there."""
    ran: list[tuple[Ran, Ran]]
    """What came of each cell, here and there."""


class Pair:
    """The two kernels, each with a notebook's folder of its own."""

    def __init__(self, place: Place, *, remote: bool = True) -> None:
        """Start both; without `remote` the second is a plain one too, which tells what is never the same twice."""
        self._place = place
        self.here = place.start("plain", **_ENVIRONMENT)
        self.there = place.start("remora" if remote else "plain", **_ENVIRONMENT)
        assert not remote or self.there.run("%remote on").ok

    def __enter__(self) -> Pair:
        """Give the pair."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End both kernels."""
        for notebook in (self.here, self.there):
            self._place.end(notebook)

    def compare(self, cells: Sequence[str], timeout: float = 60.0) -> Compared:
        """Run the cells in both kernels, as a front end runs a notebook; compare what they show, and the files they leave."""
        sent = [(notebook, [notebook.send(cell) for cell in (_FIRST, *cells)]) for notebook in (self.here, self.there)]
        ran = [notebook.collect(*ids, timeout=timeout) for notebook, ids in sent]
        assert all(first.ok for first, *_ in ran), [first.reply for first, *_ in ran]
        pairs = list(zip(*ran, strict=True))[1:]
        lines, count = [], 0
        for number, (a, b) in enumerate(pairs, 1):
            here, there = outputs.shown(a, self.here.folder), outputs.shown(b, self.there.folder)
            count += len(here) - 1
            lines += [f"cell {number}: {line}" for line in outputs.differences(here, there)]
        lines += outputs.differences(_files(self.here), _files(self.there))
        seconds = (_seconds(ran[0]), _seconds(ran[1]))
        return Compared(lines, all(a.ok for a, _ in pairs), count, seconds, pairs)


def _seconds(ran: Sequence[Ran]) -> float:
    dates = [message["header"]["date"] for one in ran for message in one.messages]
    return float((max(dates) - min(dates)).total_seconds())


def _files(notebook: Notebook) -> list[outputs.Output]:
    return [(f"file {name}", content) for name, content in outputs.files(notebook.folder).items()]
