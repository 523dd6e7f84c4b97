"""What the other side already holds: one ledger on each side of a session decides what is new and has to travel.

Law: each side keeps digests of its own objects only, taken at the last exchange, and compares them when asked; nothing watches
in between. A name counts as held only after the caller says that it arrived. Variables that share something changeable travel
together. No I/O, no threads.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remora.errors import SendError
from remora.sync.aliases import linked
from remora.sync.codec import Encoded, encode, mark
from remora.sync.handles import lives_in
from remora.sync.names import DYNAMIC, hidden

Mark = bytes  # a digest; empty where there is none
NO_MARK: Mark = b""
ELSEWHERE: Mark = b"elsewhere"  # the name is bound to a RemoteValue here
Seen = tuple[Mark, frozenset[str]]
"""A value's digest, and the global names that its functions and classes use."""


@dataclass(frozen=True)
class Outgoing:
    """What travels to the other side, and what it should forget; `mutated` names were changed in place, not bound anew."""

    encoded: Encoded
    deletes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    mutated: frozenset[str] = frozenset()
    marks: Mapping[str, Mark] = field(default_factory=dict)
    dynamic: bool = False


@dataclass(frozen=True)
class Snapshot:
    """How a namespace looked before a cell: its bindings, and the digests of what the cell may change in place."""

    bindings: Mapping[str, Callable[[], Any]]
    marks: Mapping[str, Mark]


@dataclass
class _Closure:
    """Names that a cell may touch through what it reads, with their digests."""

    marks: dict[str, Mark] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    failures: dict[str, SendError] = field(default_factory=dict)
    dynamic: bool = False


class Ledger:
    """One side's account of a session."""

    def __init__(self, session: str = "main", packages: Mapping[str, str] | None = None) -> None:
        """Start with nothing held on the other side, which has `packages` of these versions; None: those of this side."""
        self.session = session
        self.packages = packages
        self.held: dict[str, Mark] = {}

    def outgoing(self, names: Iterable[str], namespace: dict[str, Any], *, explicit: bool = False) -> Outgoing:
        """Pack those of the names, and of what they need, that the other side does not hold as they are now.

        Names that do not exist are left out; `explicit` names (the user's own list) must exist and may be hidden ones.
        """
        closure = self._closure(names, namespace, explicit)
        new = {name for name, digest in closure.marks.items() if not digest or self.held.get(name) != digest}
        if new:
            new |= linked(new, self._here(namespace) - new, namespace)
        encoded = self._encode(new, namespace, closure.failures)
        marks = {name: closure.marks.get(name) or _mark(namespace[name], namespace)[0] for name in encoded.names}
        deletes = tuple(sorted(name for name in self.held if name not in namespace))
        skipped = tuple(sorted((closure.marks.keys() - new) | set(closure.elsewhere)))
        return Outgoing(encoded, deletes, skipped, frozenset(), marks, closure.dynamic)

    def sent(self, outgoing: Outgoing, failed: Collection[str] = ()) -> None:
        """Note that the other side has bound what went out, but for the names that failed there."""
        for name in outgoing.deletes:
            self.held.pop(name, None)
        self.held.update((name, digest) for name, digest in outgoing.marks.items() if name not in failed)

    def incoming(
        self, values: Mapping[str, object], namespace: dict[str, Any], deletes: Iterable[str] = ()
    ) -> Mapping[str, Seen]:
        """Note what came from the other side and is bound here now; it holds the same. Return what `before` need not look at."""
        for name in deletes:
            self.held.pop(name, None)
        seen: dict[str, Seen] = {}
        for name, value in values.items():
            bound = namespace.get(name, value)  # an older object may have taken over the contents
            if not lives_in(bound):
                seen[name] = _mark(bound, namespace)
            self.held[name] = seen[name][0] if name in seen else ELSEWHERE
        return seen

    def forget(self) -> None:
        """Note that the other side is gone, with all that it held."""
        self.held.clear()

    def before(
        self, namespace: dict[str, Any], candidates: Iterable[str] | None, seen: Mapping[str, Seen] | None = None
    ) -> Snapshot:
        """Note how the namespace looks before a cell that reads `candidates` (None: that may touch anything).

        `seen` is what `incoming` has returned just now: nothing of it is looked at again.
        """
        names = self._visible(namespace)
        closure = self._closure(names if candidates is None else candidates, namespace, False, seen)
        if closure.dynamic:
            closure = self._closure(names, namespace, False, seen)
        marks = dict(closure.marks)
        for name in linked(marks, names - marks.keys(), namespace) if marks else ():
            marks[name] = _mark(namespace[name], namespace)[0]
        # What was noted at the last exchange counts: a thread may have changed it since, and that must go home too.
        marks = {name: self.held.get(name, digest) or digest for name, digest in marks.items()}
        return Snapshot({name: _loosely(namespace[name]) for name in names}, marks)

    def changes(self, namespace: dict[str, Any], before: Snapshot, only: Iterable[str] | None = None) -> Outgoing:
        """Pack what a cell created, bound anew or changed in place; `only` is the user's own list of names to bring home."""
        visible = self._visible(namespace)
        bound = {name for name in visible if name not in before.bindings or before.bindings[name]() is not namespace[name]}
        marks = {name: _mark(namespace[name], namespace)[0] for name in bound | (before.marks.keys() & visible)}
        mutated = {name for name in marks.keys() - bound if self._differs(name, marks[name], before.marks[name])}
        new = bound | mutated
        if new:
            shared = linked(new, self._here(namespace) - new, namespace)
            marks.update((name, _mark(namespace[name], namespace)[0]) for name in shared)
            new |= shared
        deletes = tuple(sorted(name for name in before.bindings if name not in namespace))
        failures: dict[str, SendError] = {}
        if only is not None:
            new, failures = _chosen(only, namespace, new, self.held)
            deletes = tuple(name for name in deletes if name in set(only))
        encoded = self._encode(new, namespace, failures)
        marks = {name: marks.get(name, NO_MARK) for name in (*encoded.names, *(encoded.failures.keys() & namespace.keys()))}
        return Outgoing(encoded, deletes, tuple(sorted(before.marks.keys() & visible - new)), frozenset(mutated - bound), marks)

    def _differs(self, name: str, now: Mark, was: Mark) -> bool:
        # What has no digest counts as changed, unless the other side has been told already that it cannot have it.
        return now != was or (not now and name not in self.held)

    def _encode(self, names: Iterable[str], namespace: dict[str, Any], failures: dict[str, SendError]) -> Encoded:
        encoded = encode({name: namespace[name] for name in sorted(names)}, namespace=namespace, packages=self.packages)
        encoded.failures.update(failures)
        return encoded

    def _here(self, namespace: dict[str, Any]) -> set[str]:
        return {name for name in self.held if name in namespace and not lives_in(namespace[name])}

    def _visible(self, namespace: dict[str, Any]) -> set[str]:
        return {name for name in namespace if not hidden(name)}

    def _closure(
        self, names: Iterable[str], namespace: dict[str, Any], explicit: bool, seen: Mapping[str, Seen] | None = None
    ) -> _Closure:
        closure, waiting = _Closure(), list(dict.fromkeys(names))
        chosen = set(waiting) if explicit else set()
        met: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in met or (hidden(name) and name not in chosen):
                continue
            met.add(name)
            if name in namespace:
                waiting.extend(self._visit(name, namespace, closure, seen or {}))
            elif name in chosen:
                text = f"{name}: there is no variable of this name; check the list given with -i"
                closure.failures[name] = SendError(text, name=name)
        return closure

    def _visit(self, name: str, namespace: dict[str, Any], closure: _Closure, seen: Mapping[str, Seen]) -> frozenset[str]:
        value = namespace[name]
        place = lives_in(value)
        if place == self.session:
            closure.elsewhere.append(name)
            return frozenset()
        closure.marks[name], needs = seen.get(name) or _mark(value, namespace)
        closure.dynamic = closure.dynamic or not DYNAMIC.isdisjoint(needs)
        return needs


def _mark(value: object, namespace: dict[str, Any]) -> Seen:
    digest, needs = mark(value, namespace=namespace)
    return digest or NO_MARK, needs


def _loosely(value: Any) -> Callable[[], Any]:
    """Return something that gives the value back, without keeping large things alive where that can be helped."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


def _chosen(
    only: Iterable[str], namespace: dict[str, Any], changed: set[str], held: Mapping[str, Mark]
) -> tuple[set[str], dict[str, SendError]]:
    chosen, missing = set(), {}
    for name in only:
        if name not in namespace:
            missing[name] = SendError(f"{name}: the cell made no variable of this name; check the list given with -o", name=name)
        elif name in changed or name not in held:
            chosen.add(name)
    return chosen, missing
