"""The step `pip`: Python packages by requirements.

Law: what is installed below satisfies a requirement if its version does, wherever it came from; only what is missing or differs
is fetched.
"""

from __future__ import annotations

from remora.images.steps import Part, Pip

from ..tree import Tree
from . import pinned
from .resolver import Resolver
from .wheels import split_lock, tree_of
from .work import Made, Work


def install(work: Work, step: Part) -> Made:
    """Resolve the requirements, or take the lock of an earlier time, and make the tree. Raises ImageFailed."""
    assert isinstance(step, Pip)
    resolver = Resolver.of(work, step)
    lock = work.task.lock
    if lock is None:
        work.say(f"looking for {', '.join(step.requirements[:5])}{' …' if len(step.requirements) > 5 else ''}")
        wanted, allowed = pinned.split(step.requirements)
        lock = resolver.lock(wanted)
        lock = pinned.check(*split_lock(lock), allowed) if lock and allowed else lock
    if not lock:
        work.say("everything is installed already")
        return Made(Tree())
    return Made(tree_of(resolver, lock), lock)
