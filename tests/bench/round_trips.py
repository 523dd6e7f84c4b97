"""What a warm cell and a warm call cost: round trips from the request to *idle*, as a front end sees them.

Law: what is compared runs by turns, in the same kernel, so that a busy machine slows both sides down.
"""

from __future__ import annotations

from figures import Figure, ratio
from place import Notebook, Place

_ROUNDS, _EACH = 9, 30
_GOAL = 2.0
_LOCAL, _REMOTE = "pass", "%%remote\npass"
_FUNCTION = "import remora\n@remora.function\ndef f(x):\n    return x\nassert f.remote(1) == 1"
_CALL = "f.remote(1)"


def measure(place: Place) -> list[Figure]:
    """Measure kernel `remora` and plain ipykernel with the extension."""
    found: list[Figure] = []
    for kernel in ("remora", "python3"):
        with place.kernel(kernel) as notebook:
            found += _cells(notebook, f"kernel {kernel}" if kernel == "remora" else "ipykernel")
            found += _calls(notebook) if kernel == "remora" else []
    return found


def _cells(notebook: Notebook, where: str) -> list[Figure]:
    local, remote = _interleaved(notebook, _LOCAL, _REMOTE)
    name = "%%remote pass / local pass"
    return [
        ratio(f"{name}, {where}", remote, local, _GOAL),
        Figure(f"local pass, {where}", _flat(local)),
        Figure(f"%%remote pass, {where}", _flat(remote)),
    ]


def _calls(notebook: Notebook) -> list[Figure]:
    notebook.run(_FUNCTION)
    local, call = _interleaved(notebook, _LOCAL, _CALL)
    return [ratio("f.remote(1) / local pass", call, local), Figure("f.remote(1)", _flat(call))]


def _interleaved(notebook: Notebook, one: str, other: str) -> tuple[list[list[float]], list[list[float]]]:
    """Run two cells by turns, and return the samples of each, round by round."""
    for code in (one, other) * 5:
        notebook.run(code)
    rounds = [[(notebook.run(one), notebook.run(other)) for _ in range(_EACH)] for _ in range(_ROUNDS)]
    return [[a for a, _ in r] for r in rounds], [[b for _, b in r] for r in rounds]


def _flat(rounds: list[list[float]]) -> tuple[float, ...]:
    return tuple(sample for samples in rounds for sample in samples)
