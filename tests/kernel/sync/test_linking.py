"""Which variables share something changeable, and how a changed object takes over here."""

from __future__ import annotations

import collections
import decimal
import enum
from typing import Any

import numpy as np
import pytest
from remora.sync import bind
from remora.sync.aliases import linked


class Thing:
    """A plain object."""


class Slotted:
    """An object without a `__dict__`."""

    __slots__ = ("a",)


class Colour(enum.Enum):
    """Members are the same everywhere."""

    RED = 1


SHARED: dict[str, Any] = {
    "list": [1],
    "dict": {"a": 1},
    "set": {1},
    "array": np.zeros(3),
    "object": Thing(),
    "slots": Slotted(),
    "bytearray": bytearray(b"a"),
}
NOT_SHARED: dict[str, Any] = {
    "number": 10**9,
    "text": "long text",
    "tuple": (1, "a"),
    "class": Thing,
    "module": np,
    "member": Colour.RED,
    "decimal": decimal.Decimal(1),
    "dtype": np.dtype("f4"),
    "function": len,
}


@pytest.mark.parametrize("kind", SHARED)
def test_changeable_things_link(kind: str) -> None:
    """Two variables with one changeable thing inside have to travel together."""
    thing = SHARED[kind]
    assert linked(["a"], ["b", "c"], {"a": [thing], "b": {"deep": (thing,)}, "c": [1]}) == {"b"}


@pytest.mark.parametrize("kind", NOT_SHARED)
def test_unchangeable_things_do_not_link(kind: str) -> None:
    """What cannot change, or belongs to nobody, links nothing."""
    thing = NOT_SHARED[kind]
    assert linked(["a"], ["b"], {"a": [thing], "b": [thing]}) == set()


def test_links_lead_on() -> None:
    """A chain of shared things is one component."""
    one, two = [1], [2]
    assert linked(["a"], ["b", "c", "d"], {"a": one, "b": [one, two], "c": [two], "d": [3]}) == {"b", "c"}


def test_what_several_variables_share_is_looked_at_once() -> None:
    """Many names for parts of one large thing, as of a figure, cost one walk over it; none at all with nothing to compare to."""
    looks = []

    class Watched:
        @property
        def __class__(self) -> type:
            looks.append(self)
            return Watched

    space = {"a": Watched(), "z": [1]}
    space |= {"b": [space["a"]], "c": [space["a"]]}
    assert linked(["a", "b", "c"], [], space) == set()
    assert not looks
    assert linked(["a"], ["z"], space) == set()
    once = len(looks)
    assert linked(["a", "b", "c"], ["z"], space) == set()
    assert len(looks) == 2 * once > 0


def test_what_is_known_to_be_linked_is_not_walked_again() -> None:
    """A variable that leads into what moves already is linked at once; what only it leads to still leads on."""
    looks = []

    class Watched:
        @property
        def __class__(self) -> type:
            looks.append(self)
            return Watched

    inside, own = [Watched()], [1]
    space = {"a": [inside], "b": [inside, own], "c": [own], "d": [2]}
    assert linked(["a"], ["d"], space) == set()
    once = len(looks)
    assert linked(["a"], ["b", "c", "d"], space) == {"b", "c"}
    assert len(looks) == 2 * once > 0


def test_views_of_one_array_link() -> None:
    """Views share memory, also without sharing an object; so do elements of an object array."""
    array, part = np.zeros(10), [1]
    assert linked(["a"], ["b"], {"a": array[2:], "b": array[:2]}) == {"b"}
    assert linked(["a"], ["b"], {"a": np.array([part, None], object), "b": part}) == {"b"}


def test_a_shared_closure_cell_links() -> None:
    """Two functions over one cell change the same variable."""

    def make() -> Any:
        n = [0]
        return lambda: n, lambda: n

    first, second = make()
    assert linked(["a"], ["b"], {"a": first, "b": second}) == {"b"}


def test_the_namespace_itself_links_nothing() -> None:
    """Functions share their globals, which is no reason to send everything."""
    space: dict[str, Any] = {}
    exec("def f(): pass\ndef g(): pass\nx = [1]", space)
    assert linked(["f"], ["g", "x"], space) == set()


def _changed(old: Any, new: Any) -> Any:
    space = {"x": old, "alias": old, "box": [old]}
    bind({"x": new}, space, mutated=["x"])
    return space


@pytest.mark.parametrize(
    ("old", "new"),
    [([1], [1, 2]), ({"a": 1}, {"b": 2}), ({1}, {2, 3}), (bytearray(b"a"), bytearray(b"bc")), (np.zeros(3), np.ones(3))],
    ids=lambda value: type(value).__name__,
)
def test_an_object_takes_over_the_new_contents(old: Any, new: Any) -> None:
    """Everyone who holds the object sees what changed."""
    space = _changed(old, new)
    assert space["x"] is old is space["alias"]
    assert np.array_equal(old, new) if isinstance(old, np.ndarray) else old == new


def test_a_plain_instance_takes_over() -> None:
    """Attributes are replaced, removed ones included."""
    old, new = Thing(), Thing()
    vars(old).update(a=1, gone=2)
    vars(new).update(a=5)
    assert vars(_changed(old, new)["box"][0]) == {"a": 5}


@pytest.mark.parametrize(
    ("old", "new"),
    [([1], (1, 2)), (np.zeros(3), np.zeros(4)), (collections.deque([1]), collections.deque([2])), (Slotted(), Slotted())],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_cannot_take_over_is_succeeded_under_all_its_names(old: Any, new: Any) -> None:
    """Every name that was bound to the object is bound to its successor."""
    space = _changed(old, new)
    assert space["x"] is new is space["alias"]


def test_sharing_inside_a_batch_is_kept() -> None:
    """An object that another arriving value holds is not torn from it."""
    old, new = [1], [1, 2]
    space: dict[str, Any] = {"x": old, "alias": old}
    bind({"x": new, "y": {"x": new}}, space, mutated=["x"])
    assert space["y"]["x"] is space["x"] is space["alias"]


def test_binding_anew_leaves_others_alone() -> None:
    """Without a change in place, only the name changes; deleted names go."""
    old = [1]
    space: dict[str, Any] = {"x": old, "alias": old, "z": 1}
    bind({"x": [2]}, space, deletes=["z", "never"])
    assert (space["x"], space["alias"]) == ([2], [1])
    assert "z" not in space
