"""Limits of memory, cores and processes: by control groups v2, else v1, else by watching.

Law: the kind is picked by trying it, in the order of `KINDS`; a kind is one file and one entry here.
"""

from __future__ import annotations

from .keeper import DEFAULT_PIDS, LimitKeeper, Limits
from .threads import affinity, thread_environment
from .v1 import V1
from .v2 import V2
from .watching import Watching

__all__ = ["DEFAULT_PIDS", "KINDS", "LimitKeeper", "Limits", "affinity", "keep", "thread_environment"]

KINDS: tuple[type[V2] | type[V1] | type[Watching], ...] = (V2, V1, Watching)


def keep(sandbox_id: str, limits: Limits) -> LimitKeeper:
    """Return the keeper of the best kind that works here; the last one always does."""
    for kind in KINDS[:-1]:
        try:
            return kind(sandbox_id, limits)
        except OSError:  # not mounted, not handed down or not ours: the next kind is tried
            continue
    return KINDS[-1](sandbox_id, limits)
