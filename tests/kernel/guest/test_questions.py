"""Questions between cells."""

import numpy
from remora.sync import codec


def test_completion_knows_remote_names(guest):
    """Names and attributes of the sandbox complete, with their types."""
    guest.run("a_long_name = {'key': 1}")
    reply = guest.ask("complete", code="a_lo", cursor_pos=4).result
    assert "a_long_name" in reply["matches"] and (reply["cursor_start"], reply["cursor_end"]) == (0, 4)
    assert reply["metadata"]["_jupyter_types_experimental"][0]["text"]
    assert "items" in str(guest.ask("complete", code="a_long_name.it", cursor_pos=14).result["matches"])
    assert guest.ask("complete", code="zzzz_nothing", cursor_pos=12).result["matches"] == []


def test_inspection(guest):
    """`?` knows objects of the sandbox, and says when there is none."""
    guest.run("def mine(x):\n    'What it does.'")
    assert "What it does." in guest.ask("inspect", code="mine", cursor_pos=2).result["data"]["text/plain"]
    assert guest.ask("inspect", code="nothing_here", cursor_pos=2).result["found"] is False


def test_names_tell_type_and_size(guest):
    """The listing shows the user's own variables."""
    guest.run("import numpy\narray = numpy.zeros((3, 4))\ntext = 'abc'")
    facts = guest.ask("names").result
    assert facts["array"] == {"type": "numpy.ndarray", "shape": [3, 4], "size": 96} and facts["text"] == {
        "type": "str",
        "size": 3,
    }
    assert "In" not in facts and "get_ipython" not in facts


def test_pull_brings_values_and_reasons(guest):
    """Values come with their buffers; what cannot come says why."""
    guest.run("import numpy\narray = numpy.arange(5000)\nsteps = (i for i in ())")
    answer = guest.ask("pull", names=["array", "steps", "nothing"])
    values = codec.decode(bytes(answer.buffers[0]), answer.buffers[1:], namespace={"__name__": "__main__"})
    assert (values["array"] == numpy.arange(5000)).all() and answer.result["values"]["names"] == ["array"]
    assert answer.result["remote"]["steps"]["type"] == "generator" and "nothing" in answer.result["remote"]["nothing"]["reason"]


def test_forget(guest):
    """Forgotten names are gone."""
    guest.run("a = 1")
    assert guest.ask("forget", names=["a", "b"]).error is None
    assert guest.run("a").error["ename"] == "NameError"


def test_unknown_question_is_refused(guest):
    """A question of another version is answered with an error, not with silence."""
    assert guest.ask("dance").error["error"] == "Refused"


def test_question_that_fails_is_answered(guest):
    """A question without its arguments gets an error and harms nobody."""
    assert guest.ask("pull").error["error"] == "InternalError"
    assert guest.run("1").plain() == "1"
