"""Limits of memory, cores and processes: by control groups v2, else v1, else by watching.

Law: the kind is picked by trying it, in the order of `KINDS`; a kind is one file and one entry here.
"""

from __future__ import annotations

from remora.errors import OptionError
from remora.settings import LIMITS

from .keeper import DEFAULT_PIDS, LimitKeeper, Limits
from .threads import affinity, thread_environment
from .v1 import V1
from .v2 import V2
from .watching import Watching

__all__ = ["DEFAULT_PIDS", "KINDS", "LimitKeeper", "Limits", "affinity", "keep", "thread_environment"]

KINDS: dict[str, type[V2] | type[V1] | type[Watching]] = {"groups-v2": V2, "groups-v1": V1, "watching": Watching}


def keep(sandbox_id: str, limits: Limits) -> LimitKeeper:
    """Return the keeper of the best kind that works here, or of the kind that is set; the last one always works."""
    if LIMITS.text:
        if LIMITS.text not in KINDS:
            raise OptionError(f"{LIMITS.name}={LIMITS.text} is not known; it is one of {', '.join(KINDS)}")
        return KINDS[LIMITS.text](sandbox_id, limits)
    *preferred, last = KINDS.values()
    for kind in preferred:
        try:
            return kind(sandbox_id, limits)
        except OSError:  # not mounted, not handed down or not ours: the next kind is tried
            continue
    return last(sandbox_id, limits)
