"""Variables in and out of a cell."""

import numpy


def test_values_arrive_and_come_home(guest):
    """What was sent is there; what the cell made and changed comes home, what it only read does not."""
    ended = guest.run("z = x + y\nl.append(3)", send={"x": 1, "y": 2, "l": [1]}, reads=["x", "y", "l"])
    assert ended.values == {"z": 3, "l": [1, 3]} and ended.result["mutated"] == ["l"]


def test_namespace_lasts(guest):
    """A later cell sees what an earlier one made."""
    guest.run("x = 5")
    assert guest.run("x * 2", reads=["x"]).plain() == "10"


def test_deletes_go_both_ways(guest):
    """Names deleted here are gone there, and the other way round."""
    guest.run("a = 1\nb = 2")
    ended = guest.run("del b\n'a' in globals()", deletes=["a"], reads=["b"])
    assert ended.plain() == "False" and ended.result["deleted"] == ["b"]


def test_functions_bind_to_the_living_namespace(guest):
    """A function that was sent reads the guest's variables."""
    namespace = {"__name__": "__main__"}
    exec("def f(): return other", namespace)
    assert guest.run("other = 7\nf()", send={"f": namespace["f"]}, namespace=namespace, reads=["f"]).plain() == "7"


def test_what_cannot_come_home_is_described(guest):
    """A generator stays there, with type, text and reason; the rest comes."""
    ended = guest.run("steps = (i for i in ())\nn = 1")
    assert ended.values["n"] == 1 and ended.result["ok"]
    assert ended.result["remote"]["steps"]["type"] == "generator" and "steps" in ended.result["remote"]["steps"]["reason"]


def test_large_values_stay_away(guest):
    """More than 16 MiB is left there, named, and fetched by a question."""
    ended = guest.run("import numpy\nbig = numpy.zeros(3 << 20)")
    assert "big" in ended.result["away"] and ended.result["values"] is None
    assert sum(memoryview(b).nbytes for b in guest.ask("pull", names=["big"]).buffers) > 24 << 20


def test_array_arrives_writeable_and_whole(guest):
    """An array goes out and comes home by buffers."""
    ended = guest.run("a += 1", send={"a": numpy.arange(10_000)}, reads=["a"])
    assert (ended.values["a"] == numpy.arange(1, 10_001)).all()


def test_outs_and_no_sync(guest):
    """-o brings what it names; without sync nothing comes."""
    assert guest.run("p = 1\nq = 2", outs=["q"]).values == {"q": 2}
    assert guest.run("r = 3", sync=False).result["values"] is None


def test_values_of_a_failed_cell_come_home(guest):
    """What a cell had made before it failed comes home with the error, as it would be there after a local one."""
    ended = guest.run("made = 1\n1 / 0")
    assert not ended.result["ok"] and ended.values == {"made": 1}


def test_values_that_cannot_be_rebuilt_fail_the_cell(guest):
    """A broken stream is the cell's error, in one line, and the code does not run."""
    run = guest.start("cell", {"code": "print('ran')", "values": {"names": ["x"]}}, [b"nonsense-nonsense"])
    ended = guest.finish(run)
    assert ended.error["ename"] == "SendError" and ended.text() == "" and len(ended.error["traceback"]) == 1
    assert guest.run("1").plain() == "1"


def test_exception_class_of_the_notebook_comes_home(guest):
    """An exception whose class the cell defines arrives as such."""
    ended = guest.run("class Mine(Exception): pass\nraise Mine('x')")
    assert type(ended.exception).__name__ == "Mine" and ended.exception.args == ("x",)
