"""What came of a run, read from records as a supervisor writes them: values, exceptions, ends, and output shown here."""

from __future__ import annotations

import pickle

import pytest
import remora
from remora import outcomes
from remora.calls import Call, Cargo, End, _may_be_tried_again
from remora.guest.outcome import Outcome
from remora.runs import Run, unpack
from remora.states import EndReason
from remora.sync.codec import encode
from remora.wire import Record, RunId

RUN = RunId("abc")


class Odd(Exception):
    """An exception of the user's."""


def result(value=None, error=None, namespace=None):
    """Return the result record of a run that the guest ended so."""
    outcome = Outcome()
    if error is not None:
        outcome.fail(error)
    else:
        outcome.values = encode({"result": value}, namespace=namespace or {})
    emit = outcome.emit(RUN, namespace or {})
    return Record(RUN, 3, 0.0, "result", emit.content, buffers=emit.buffers)


def ended(reason):
    """Return the result record of a run that something else ended."""
    error = remora.RunEnded("it ended", reason=reason)
    return Record(RUN, 3, 0.0, "result", {"ok": False, "reason": reason, "ended": error.to_dict()})


def raised(error):
    """Return an exception as it is when user code has raised it."""
    try:
        raise error
    except type(error) as caught:
        return caught


def end(record=None, error=None):
    """Return the end of a call."""
    return End(Call(None, RUN), record, error)


def test_value():
    """The value of a call is its result."""
    assert unpack(end(result([1, 2])), {}) == {"result": [1, 2]}
    assert unpack(end(result(None)), {}) == {"result": None}


def test_exception_with_the_traceback_from_there():
    """The user's exception is raised with its type, and shows where it happened."""
    with pytest.raises(Odd) as caught:
        unpack(end(result(error=raised(Odd("x", 1)))), {})
    assert caught.value.args == ("x", 1)
    (note,) = caught.value.__notes__
    assert note.startswith("In the sandbox:\n  Traceback") and "raise error" in note


def test_one_note_for_a_chain_of_sandboxes():
    """An exception that has come through two sandboxes shows its traceback once, beside the user's own notes."""
    inner = outcomes.failure(result(error=raised(Odd())), {})
    inner.add_note("the user's")
    outer = outcomes.failure(result(error=raised(inner)), {})
    assert [note.split("\n")[0] for note in outer.__notes__] == ["the user's", "In the sandbox:"]


def test_exception_that_cannot_be_rebuilt():
    """Where the type cannot be had, name, text and traceback are."""
    record = result(error=raised(Odd("x")))
    content = record.content | {"exception": False}
    with pytest.raises(remora.RemoteError, match="x") as caught:
        unpack(end(Record(RUN, 3, 0.0, "result", content)), {})
    assert type(caught.value).__name__ == "Odd"
    assert caught.value.facts["ename"] == "Odd"
    assert caught.value.__notes__ and "Odd" in caught.value._render_traceback_()[-1]


def test_errors_of_ours_need_no_traceback():
    """An error that says what to do is raised as it is."""
    error = outcomes.failure(result(error=raised(remora.SendError("result: cannot be sent"))), {})
    assert isinstance(error, remora.SendError) and not hasattr(error, "__notes__")


@pytest.mark.parametrize("reason", EndReason)
def test_ends(reason):
    """A run that something ended raises RunEnded with that reason."""
    with pytest.raises(remora.RunEnded) as caught:
        unpack(end(ended(reason.value)), {})
    assert caught.value.reason == reason.value


def test_lost_sight_and_never_sent():
    """What kept a call from being followed is raised; one that never went out was cancelled."""
    with pytest.raises(remora.Unavailable):
        unpack(end(error=remora.Unavailable("nobody")), {})
    with pytest.raises(remora.RunEnded) as caught:
        unpack(end(), {})
    assert caught.value.reason == "cancelled"


@pytest.mark.parametrize(
    ("record", "again"),
    [
        (result(1), False),
        (result(error=raised(Odd())), True),
        (ended("crashed"), True),
        (ended("out-of-memory"), True),
        (ended("machine-lost"), True),
        (ended("cancelled"), False),
        (ended("timeout"), False),
        (ended("stopped"), False),
        (None, False),
    ],
)
def test_what_is_tried_again(record, again):
    """Exceptions and crashes are tried again; what somebody wanted is not."""
    assert _may_be_tried_again(record) is again


def stream(name, text):
    """Return a record of text."""
    content = {"msg_type": "stream", "content": {"name": name, "text": text}, "metadata": {}}
    return Record(RUN, 2, 0.0, "output", content)


def test_output_is_shown_here(capsys):
    """Text goes to the stream it was written to; displays show as text where there is no notebook; notices go to stderr."""
    display = {"msg_type": "display_data", "content": {"data": {"text/plain": "<Figure>", "text/html": "<b>"}}, "metadata": {}}
    for record in (
        stream("stdout", "out"),
        stream("stderr", "err"),
        Record(RUN, 3, 0.0, "output", display),
        Record(RUN, 4, 0.0, "output", {"msg_type": "clear_output", "content": {"wait": True}, "metadata": {}}),
        Record(RUN, 5, 0.0, "notice", {"text": "the disk is full"}),
    ):
        outcomes.show(record)
    shown = capsys.readouterr()
    assert shown.out == "out<Figure>\n"
    assert shown.err == "errRemora: the disk is full\n"


def test_handle_gives_the_same_each_time():
    """A handle that has seen the end gives the same value or exception whenever it is asked."""
    for record, check in ((result(5), lambda run: run.get() == run["result"] == 5), (result(error=raised(Odd())), None)):
        call = Call(None, RUN)
        run = Run(call, "f", {})
        run._feed(End(call, record))
        if check is not None:
            assert check(run) and run.values() == {"result": 5}
        else:
            for _ in range(2):
                with pytest.raises(Odd):
                    run.get()
    assert "abc" in repr(run) and "f" in repr(run)


def test_cargo_is_a_value():
    """What is to be sent is a plain value, so that it can be sent again."""
    cargo = Cargo("f", {"files": "rw"}, {"entry": "call"}, (b"x",), 2)
    assert pickle.loads(pickle.dumps(cargo)) == cargo
