"""What a bench measured: samples in, one line of the table out.

Law: nothing is measured here. A single figure depends on the machine and on what else it does; a ratio, taken between samples of
one run, hardly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One figure of the table."""

    name: str
    samples: tuple[float, ...]
    """Seconds, or plain numbers for a ratio."""
    goal: float | None = None
    """What the median must not pass."""
    is_ratio: bool = False

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return median(self.samples)

    @property
    def least(self) -> float:
        """The smallest sample: what the machine can do when nobody disturbs it."""
        return min(self.samples)

    @property
    def kept(self) -> bool:
        """Whether the goal, if there is one, is reached."""
        return self.goal is None or self.median <= self.goal

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        facts = {"name": self.name, "unit": "ratio" if self.is_ratio else "s", "median": self.median, "least": self.least}
        return facts | {"goal": self.goal, "samples": len(self.samples)}


def ratio(name: str, above: Sequence[Sequence[float]], below: Sequence[Sequence[float]], goal: float | None = None) -> Figure:
    """Return the ratio of interleaved rounds: of their medians, one for each round, so that a disturbance hits both sides."""
    each = (median(a) / median(b) for a, b in zip(above, below, strict=True))
    return Figure(name, tuple(each), goal, is_ratio=True)


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as text: name, median, least, number of samples, and the goal."""
    rows = [("figure", "median", "least", "samples", "goal"), *(_row(figure) for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(_aligned(row, widths)).rstrip() for row in rows)


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _row(figure: Figure) -> tuple[str, ...]:
    goal = "" if figure.goal is None else f"{'kept' if figure.kept else 'MISSED'}, {_text(figure.goal, figure)}"
    return figure.name, _text(figure.median, figure), _text(figure.least, figure), str(len(figure.samples)), goal


def _text(value: float, figure: Figure) -> str:
    if figure.is_ratio:
        return f"{value:.2f} x"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
