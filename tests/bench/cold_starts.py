"""What it takes from starting a kernel to its first remote result: with no backend running, and with the backend up.

Law: a kernel's own start is measured beside it, since that much any notebook waits.
"""

from __future__ import annotations

import time

from figures import Figure, ratio
from place import Place

_ROUNDS = 7
_REMOTE = "%%remote\nassert 1 + 1 == 2"


def measure(place: Place) -> list[Figure]:
    """Start kernels with nothing running, and with the backend running."""
    cold, warm, plain = [], [], []
    for _ in range(_ROUNDS):
        place.stop()
        cold.append(_start(place, "remora", _REMOTE))
        warm.append(_start(place, "remora", _REMOTE))
        plain.append(_start(place, "python3", "assert 1 + 1 == 2"))
    whole = {"no backend": cold, "backend up": warm}
    return [
        *(
            Figure(f"kernel start to first remote result, {how}", tuple(ready + cell for ready, cell in s))
            for how, s in whole.items()
        ),
        Figure("kernel start to first local result, ipykernel", tuple(ready + cell for ready, cell in plain)),
        *(Figure(f"first remote cell alone, {how}", tuple(cell for _, cell in s)) for how, s in whole.items()),
        *(ratio(f"first remote / first local result, {how}", _totals(s), _totals(plain)) for how, s in whole.items()),
    ]


def _totals(starts: list[tuple[float, float]]) -> list[list[float]]:
    return [[ready + cell] for ready, cell in starts]


def _start(place: Place, kernel: str, code: str) -> tuple[float, float]:
    """Return the seconds until the kernel is ready, and those of its first cell."""
    began = time.perf_counter()
    with place.kernel(kernel) as notebook:
        ready = time.perf_counter() - began
        return ready, notebook.run(code)
