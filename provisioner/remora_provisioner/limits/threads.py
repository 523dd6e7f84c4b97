"""How many threads and which processors go with `cpu=`: what numeric libraries read when they start.

Law: pure, but for asking which processors there are. Without `cpu=` nothing is limited.
"""

from __future__ import annotations

import math
import os
import random

_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "GOMAXPROCS",
    "PYTHON_CPU_COUNT",
)


def thread_environment(cpu: float | None) -> dict[str, str]:
    """Return the variables that make libraries start as many threads as there are whole cores, at least one."""
    if cpu is None:
        return {}
    return dict.fromkeys(_VARIABLES, str(max(1, math.floor(cpu))))


def affinity(cpu: float | None, sandbox_id: str = "") -> frozenset[int]:
    """Return the processors to run on, spread over the machine by the sandbox's id; empty means all."""
    if cpu is None:
        return frozenset()
    there = sorted(os.sched_getaffinity(0))
    wanted = math.ceil(cpu)
    return frozenset(random.Random(sandbox_id).sample(there, wanted)) if wanted < len(there) else frozenset()
