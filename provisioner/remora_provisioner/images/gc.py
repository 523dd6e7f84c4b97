"""Collection: what no root and no lease keeps is removed.

Law: what anybody may still be about to use stays: a tree or an object that was put or found less than an hour ago is kept, since
between a scan and the lease on its result lies time. The order (farms, trees, objects) is such that a crash at any point leaves a
store in which every tree is whole. A tree that is to be kept and cannot be read stops the collection before anything is removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from .store import Store

GRACE = 3600.0


@dataclass(frozen=True)
class Freed:
    """What a collection removed: numbers of trees and objects, and the bytes of the objects."""

    trees: int
    objects: int
    bytes: int


def collect(store: Store, roots: Iterable[str], *, grace: float = GRACE) -> Freed:
    """Remove what neither these trees nor leases keep and what is older than `grace` seconds; waits for scans to end."""
    with store.lock.alone():
        store.work.clear_stale()
        before = time.time() - grace
        live = _live(store, set(roots), before)
        kept = set[tuple[str, bool]]().union(*(store.load(digest).objects() for digest in live))
        # Chosen before any farm goes, since the removal of a link makes an object look young.
        dead = [(d, x, facts) for d, x, facts in store.objects.every() if (d, x) not in kept and facts.st_ctime <= before]
        for name in sorted(set(os.listdir(store.root / "farms")) - live):
            store.work.throw_away(store.root / "farms" / name)
        trees = sorted(store.trees() - live)
        for digest in trees:
            os.unlink(store.root / "trees" / digest)
        for digest, executable, _ in dead:
            os.unlink(store.objects.place(digest, executable))
        return Freed(len(trees), len(dead), sum(facts.st_size for _, _, facts in dead))


def _live(store: Store, roots: set[str], before: float) -> set[str]:
    there = store.trees()
    young = {digest for digest in there if os.stat(store.root / "trees" / digest).st_ctime > before}
    return young | (there & (roots | store.leased()))
