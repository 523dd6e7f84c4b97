"""A class of the notebook is one class, wherever it goes and comes back from."""

from __future__ import annotations

from peer import Peer, carry

Pair = tuple[Peer, Peer]


def test_an_instance_made_there_is_an_instance_here(pair: Pair) -> None:
    """Isinstance holds for what a remote cell makes of a notebook class."""
    here, there = pair
    here.run("class C: pass")
    carry(here, there, "C")
    there.run("x = [C(), {'deep': C()}]")
    carry(there, here, "x")
    assert here.value("type(x[0]) is C and isinstance(x[1]['deep'], C)")


def test_class_then_instance_are_one_class_there(pair: Pair) -> None:
    """A class sent first and an instance sent later agree."""
    here, there = pair
    here.run("class C: pass\nx = C()")
    carry(here, there, "C")
    carry(here, there, "x")
    assert there.value("type(x) is C")


def test_a_class_made_there_is_one_class_here(pair: Pair) -> None:
    """The same the other way round."""
    here, there = pair
    there.run("class C:\n    def f(self): return 3\nx = C()")
    carry(there, here, "x")
    carry(there, here, "C")
    here.run("y = C()")
    carry(here, there, "y")
    assert here.value("type(x) is C") and there.value("type(y) is C and y.f() == 3")


def test_state_set_there_is_not_reset_by_the_next_arrival(pair: Pair) -> None:
    """An unchanged class does not overwrite what a remote cell did to it."""
    here, there = pair
    here.run("class C: count = 0\nx = C()")
    carry(here, there, "C", "x")
    there.run("C.count = 5")
    carry(here, there, "x")
    assert there.value("C.count") == 5


def test_state_changed_at_the_sender_is_applied(pair: Pair) -> None:
    """A changed class arrives changed, removed attributes included, and existing instances see it."""
    here, there = pair
    here.run("class C:\n    count = 0\n    old = 1\nx = C()")
    carry(here, there, "x")
    here.run("C.count = 5\ndel C.old\nC.f = lambda self: self.count")
    carry(here, there, "C")
    assert there.value("x.f() == 5 and not hasattr(x, 'old')")


def test_changes_go_back_and_forth(pair: Pair) -> None:
    """Each side's change reaches the other, time after time."""
    here, there = pair
    here.run("class C: n = 0")
    for turn in (1, 2, 3):
        here.run(f"C.n = {turn * 10}")
        carry(here, there, "C")
        assert there.value("C.n") == turn * 10
        there.run("C.n += 1")
        carry(there, here, "C")
        assert here.value("C.n") == turn * 10 + 1


def test_a_class_statement_run_again_is_another_class(pair: Pair) -> None:
    """As in Python: old instances keep their class."""
    here, there = pair
    here.run("class C: v = 1\nx = C()")
    carry(here, there, "x", "C")
    here.run("class C: v = 2")
    carry(here, there, "C")
    assert there.value("C.v == 2 and type(x) is not C and x.v == 1")


def test_enum_members_are_compared_by_identity_on_both_sides(pair: Pair) -> None:
    """A member that made the round trip is the member."""
    here, there = pair
    here.run("import enum\nclass E(enum.Enum):\n    A = 1")
    carry(here, there, "E")
    there.run("x = [E.A]")
    carry(there, here, "x")
    assert here.value("x[0] is E.A")


def test_an_exception_of_a_notebook_class_is_caught_by_its_type(pair: Pair) -> None:
    """What is raised there with an __init__ of its own, attributes, notes and a cause can be caught here."""
    here, there = pair
    here.run("class Bad(ValueError):\n    def __init__(self, a, *, b): super().__init__('text'); self.a, self.b = a, b")
    carry(here, there, "Bad")
    there.run(
        "try:\n    try: 1 / 0\n    except ZeroDivisionError as e: raise Bad(1, b=2) from e\n"
        "except Bad as e: x = e\nx.add_note('n')"
    )
    carry(there, here, "x")
    here.run(
        "try: raise x\nexcept Bad as e: seen = (e.a, e.b, str(e), type(e.__cause__).__name__, e.__notes__, "
        "e.__suppress_context__)"
    )
    assert here.value("seen") == (1, 2, "text", "ZeroDivisionError", ["n"], True)


def test_subclasses_of_a_class_that_is_there_already(pair: Pair) -> None:
    """A subclass sent later has the base that was sent earlier."""
    here, there = pair
    here.run("class A: pass")
    carry(here, there, "A")
    here.run("class B(A): pass")
    carry(here, there, "B")
    assert there.value("B.__mro__[1] is A")
