"""A session of remote cells between two real processes: only what is new travels, and both sides agree afterwards."""

from __future__ import annotations

from peer import Peer, remote_cell
from remora.sync.ledger import Ledger

Pair = tuple[Peer, Peer]


def test_what_the_cell_reads_goes_and_what_it_assigns_comes_home(pair: Pair) -> None:
    """A cell sees the variables it reads and no others; its result is bound here."""
    here, there = pair
    here.run("a = 2\nunused = 3")
    moved = remote_cell(here, there, "b = a + 1")
    assert (moved["sent"], moved["came"]) == (["a"], ["b"])
    assert here.value("b") == 3
    assert not there.value("'unused' in globals()")


def test_unchanged_variables_do_not_travel_again(pair: Pair) -> None:
    """The second cell that reads a variable finds it there already; so does a cell that reads a result that came home."""
    here, there = pair
    here.run("a = {'k': [1, 2]}")
    remote_cell(here, there, "b = sorted(a)")
    moved = remote_cell(here, there, "c = (a, b)")
    assert moved["sent"] == []
    assert moved["skipped"] == ["a", "b"]


def test_a_local_change_in_place_is_sent(pair: Pair) -> None:
    """A list that grew here has grown there."""
    here, there = pair
    here.run("a = [1]")
    remote_cell(here, there, "n = len(a)")
    here.run("a.append(2)")
    assert remote_cell(here, there, "n = len(a)")["sent"] == ["a"]
    assert here.value("n") == 2


def test_a_local_rebinding_is_sent(pair: Pair) -> None:
    """A name bound to something else here is so there."""
    here, there = pair
    here.run("a = 1")
    remote_cell(here, there, "b = a")
    here.run("a = 'text'")
    remote_cell(here, there, "b = a")
    assert here.value("b") == "text"


def test_a_remote_change_in_place_comes_home(pair: Pair) -> None:
    """What a cell changes without assigning changes here, in the same object."""
    here, there = pair
    here.run("a = [1]\nalias = a\nbox = {'inner': a}")
    moved = remote_cell(here, there, "a.append(2)")
    assert (moved["came"], moved["mutated"]) == (["a"], ["a"])
    assert here.value("alias == box['inner'] == [1, 2] and alias is a is box['inner']")


def test_a_remote_rebinding_leaves_aliases_alone(pair: Pair) -> None:
    """A name bound anew there is bound anew here; another name keeps the old object."""
    here, there = pair
    here.run("a = [1]\nalias = a")
    moved = remote_cell(here, there, "a = [1, 2]")
    assert moved["mutated"] == []
    assert here.value("alias") == [1]


def test_an_array_changed_there_is_changed_in_its_memory_here(pair: Pair) -> None:
    """A view that exists only here sees what a cell wrote into the array."""
    here, there = pair
    here.run("import numpy as np\na = np.zeros(5000)\nview = a[:10]")
    remote_cell(here, there, "a[3] = 7")
    assert here.value("float(view[3])") == 7.0


def test_an_object_changed_by_a_method_is_changed_here(pair: Pair) -> None:
    """A method of a notebook class that runs there changes the same object here."""
    here, there = pair
    here.run("class Model:\n    def fit(self): self.w = 5\nm = Model()\nkept = m")
    remote_cell(here, there, "m.fit()")
    assert here.value("kept.w == 5 and kept is m and type(m) is Model")


def test_a_change_through_a_function_is_found(pair: Pair) -> None:
    """A global that only a called function changes comes home."""
    here, there = pair
    here.run("log = []\ndef note(x): log.append(x)")
    moved = remote_cell(here, there, "note(4)")
    assert moved["sent"] == ["log", "note"]
    assert here.value("log") == [4]


def test_a_change_through_an_alias_there_is_found(pair: Pair) -> None:
    """A cell that reads one of two linked variables changes both."""
    here, there = pair
    here.run("a = [1]\nb = {'a': a}")
    remote_cell(here, there, "n = (a, b)")
    moved = remote_cell(here, there, "a.append(2)")
    assert moved["came"] == ["a", "b", "n"]
    assert here.value("b['a'] is a and a == [1, 2]")


def test_aliasing_survives_a_new_variable(pair: Pair) -> None:
    """A new variable that refers to one already sent refers to the same object there."""
    here, there = pair
    here.run("a = [1]")
    remote_cell(here, there, "n = len(a)")
    here.run("b = {'a': a}")
    moved = remote_cell(here, there, "same = b['a'] is a")
    assert moved["sent"] == ["a", "b"]
    assert here.value("same")


def test_two_names_of_one_object_and_a_container_all_see_a_change(pair: Pair) -> None:
    """Names that travelled together are still one object, the one that others here hold."""
    here, there = pair
    here.run("a = [1]\nb = a\nbox = {'inner': a}")
    moved = remote_cell(here, there, "a.append(len(b))")
    assert moved["mutated"] == ["a", "b"]
    assert here.value("a is b is box['inner'] and a == [1, 1]")


def test_a_class_changed_there_is_changed_here(pair: Pair) -> None:
    """A class attribute that a cell sets is set here, in the same class."""
    here, there = pair
    here.run("class C: n = 1\nx = C()\nkept = C")
    remote_cell(here, there, "C.n = 5\nx.own = 2")
    assert here.value("C is kept and C.n == 5 and x.own == 2 and type(x) is C")
    assert remote_cell(here, there, "y = (C, x)")["sent"] == []


def test_functions_made_there_work_here(pair: Pair) -> None:
    """A function defined remotely uses this side's variables, and its changes are seen when it goes back."""
    here, there = pair
    here.run("rate = 2")
    remote_cell(here, there, "def f(x): return x * rate")
    here.run("rate = 10")
    assert here.value("f(1)") == 10
    remote_cell(here, there, "y = f(2)")
    assert here.value("y") == 20


def test_modules_and_their_names(pair: Pair) -> None:
    """An import made there is an import here, and the other way round."""
    here, there = pair
    here.run("import json as j")
    remote_cell(here, there, "import os.path as p\ntext = j.dumps([1])")
    assert here.value("p.join('a', 'b') + text") == "a/b[1]"


def test_a_name_deleted_here_is_deleted_there(pair: Pair) -> None:
    """Del here, NameError there."""
    here, there = pair
    here.run("a = 1")
    remote_cell(here, there, "b = a")
    here.run("del a")
    assert remote_cell(here, there, "c = 1")["forgotten"] == ["a"]
    assert not there.value("'a' in globals()")


def test_a_name_deleted_there_is_deleted_here(pair: Pair) -> None:
    """Del there, NameError here; it can be sent again afterwards."""
    here, there = pair
    here.run("a = 1")
    assert remote_cell(here, there, "del a")["gone"] == ["a"]
    assert not here.value("'a' in globals()")
    here.run("a = 2")
    remote_cell(here, there, "b = a")
    assert here.value("b") == 2


def test_code_that_hides_its_names_is_compared_in_full(pair: Pair) -> None:
    """A cell with exec may change anything that is there."""
    here, there = pair
    here.run("a = [1]\nn = 0")
    remote_cell(here, there, "n = len(a)")
    moved = remote_cell(here, there, "exec('a' + '.append(2)')")
    assert moved["came"] == ["a"]
    assert here.value("a") == [1, 2]


def test_a_function_that_hides_its_names_is_compared_in_full(pair: Pair) -> None:
    """The same when only a called function uses globals()."""
    here, there = pair
    here.run("a = [1]\ndef f(): globals()['a'].append(2)")
    remote_cell(here, there, "n = a")
    remote_cell(here, there, "f()")
    assert here.value("a") == [1, 2]


def test_a_cell_that_fails_still_brings_home_what_it_did(pair: Pair) -> None:
    """The half-changed list is the truth on both sides."""
    here, there = pair
    here.run("a = []")
    remote_cell(here, there, "a.append(1)\n1 / 0\na.append(2)")
    assert here.value("a") == [1]


def test_what_cannot_be_sent_is_named_and_the_rest_goes(pair: Pair) -> None:
    """A generator stays here with a reason; its neighbour travels."""
    here, there = pair
    here.run("g = (i for i in [])\na = 1")
    moved = remote_cell(here, there, "b = a if a else g")
    assert moved["sent"] == ["a"]
    assert moved["send_failures"]["g"].startswith("g: generator cannot be sent: ")


def test_what_cannot_come_home_stays_usable_there(pair: Pair) -> None:
    """A generator made there is a handle here, goes on in the next cell, and is not sent back."""
    here, there = pair
    moved = remote_cell(here, there, "g = (i for i in [7, 8])\nok = 1")
    assert (moved["came"], list(moved["failures"])) == (["ok"], ["g"])
    assert here.value("type(g).__name__") == "RemoteValue"
    moved = remote_cell(here, there, "first = next(g)")
    assert (moved["sent"], moved["skipped"]) == ([], ["g"])
    assert here.value("first") == 7


def test_a_handle_bound_anew_here_replaces_the_value_there(pair: Pair) -> None:
    """Assigning to the name of a handle sends the new value; deleting it deletes there."""
    here, there = pair
    remote_cell(here, there, "g = (i for i in [])\nh = (i for i in [])")
    here.run("g = 5\ndel h")
    moved = remote_cell(here, there, "n = g")
    assert moved["forgotten"] == ["h"]
    assert here.value("n") == 5


def test_the_users_own_lists_are_followed(pair: Pair) -> None:
    """-i sends exactly those names and what they need, hidden ones too; -o brings exactly those home."""
    here, there = pair
    here.run("a = 1\n_ = 9\ndef f(): return a\nz = 3")
    moved = remote_cell(here, there, "b = f() + _\nc = 2", inputs=["f", "_"], outputs=["b"])
    assert moved["sent"] == ["_", "a", "f"]
    assert moved["came"] == ["b"]
    assert here.value("b") == 10


def test_a_name_that_does_not_exist_is_reported_for_the_users_own_lists(pair: Pair) -> None:
    """A misspelt name in -i or -o is a clear error."""
    here, there = pair
    moved = remote_cell(here, there, "b = 1", inputs=["nope"], outputs=["nothing"])
    assert "check the list given with -i" in moved["send_failures"]["nope"]
    assert "check the list given with -o" in moved["failures"]["nothing"]


def test_nothing_hidden_travels(pair: Pair) -> None:
    """IPython's history and Python's own names stay where they are."""
    here, there = pair
    here.run("In = ['x']\nOut = {}\n_ = 1\n_i3 = 'x'\nget_ipython = print\na = 1")
    moved = remote_cell(here, there, "for _ in range(3): b = (a, In, Out) if a > 9 else 0\n__ = 4")
    assert moved["sent"] == ["a"]
    assert moved["came"] == ["b"]


def test_a_fresh_sandbox_gets_everything_again(pair: Pair) -> None:
    """After forget() nothing counts as held."""
    here, there = pair
    here.run("a = 1")
    remote_cell(here, there, "b = a")
    there.ask("reset")
    here.ask("forget")
    assert remote_cell(here, there, "c = a + b")["sent"] == ["a", "b"]


def test_an_undelivered_batch_does_not_count(pair: Pair) -> None:
    """What failed on the other side is sent again."""
    here, _ = pair
    here.run("a = 1\nfrom remora.sync import Ledger\nledger = Ledger()")
    here.run("out = ledger.outgoing(['a'], globals())")
    assert here.value("ledger.outgoing(['a'], globals()).encoded.names") == ("a",)
    here.run("ledger.sent(out, failed=['a'])")
    assert here.value("ledger.outgoing(['a'], globals()).encoded.names") == ("a",)
    here.run("ledger.sent(out)")
    assert here.value("ledger.outgoing(['a'], globals()).encoded.names") == ()


def test_a_handle_of_another_session_cannot_be_sent(pair: Pair) -> None:
    """The error says where the value lives."""
    here, _ = pair
    here.run("from remora.sync import Ledger, RemoteValue\nv = RemoteValue('v', 'generator', '<g>', 'main')")
    here.run("out = Ledger('other').outgoing(['v'], globals())")
    assert "lives in sandbox 'main'" in here.value("str(out.encoded.failures['v'])")


def test_what_has_just_come_is_looked_at_once() -> None:
    """What `incoming` has seen `before` does not look at again; without that it finds the same."""
    taken: list[object] = []

    class Counted:
        """Says when it is looked at."""

        def __reduce__(self) -> tuple[type, tuple[()]]:
            taken.append(self)
            return Counted, ()

    ledger, came = Ledger(), {"a": Counted()}
    namespace = {"__name__": "__main__", **came}
    seen = ledger.incoming(came, namespace)
    assert taken == [came["a"]]
    before = ledger.before(namespace, ["a"], seen)
    assert taken == [came["a"]]
    assert ledger.before(namespace, ["a"]).marks == before.marks
    assert len(taken) == 2
