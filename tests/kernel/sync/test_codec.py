"""The codec's own promises: buffers, names, digests, sides, exceptions."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remora.errors import SendError
from remora.sync import check, decode, decode_exception, encode, encode_exception, fingerprint
from remora.sync.codec import HEAD

atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
hashable = st.recursive(atoms, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
values = st.recursive(
    hashable,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hashable, inner, max_size=4) | st.tuples(inner),
    max_leaves=20,
)


@settings(max_examples=150)
@given(values)
def test_builtin_values_arrive_equal(value: Any) -> None:
    """Whatever containers hold, they hold the same after the way."""
    encoded = encode({"x": value}, namespace={})
    back = decode(encoded.stream, encoded.buffers, namespace={})["x"]
    assert back == value
    assert type(back) is type(value)


@settings(max_examples=50)
@given(values)
def test_a_digest_is_stable(value: Any) -> None:
    """The same object has the same digest as long as nothing changes."""
    assert fingerprint(value, namespace={}) == fingerprint(value, namespace={})


def test_large_memory_goes_beside_the_stream() -> None:
    """An array's memory is a view of the array, not a copy in the stream."""
    array = np.zeros(10**6)
    encoded = encode({"x": array}, namespace={})
    assert len(encoded.stream) < 2000
    assert [memoryview(buffer).nbytes for buffer in encoded.buffers] == [8 * 10**6]
    assert np.shares_memory(np.frombuffer(encoded.buffers[0]), array)
    assert encoded.nbytes == len(encoded.stream) + 8 * 10**6


def test_arrays_are_writeable_whatever_the_transport_gives() -> None:
    """Read-only bytes from the wire become memory of the receiver's own; its own memory is used as it is."""
    encoded = encode({"x": np.arange(1000.0)}, namespace={})
    own = bytearray(encoded.buffers[0])
    for buffer in (bytes(own), own):
        array: Any = decode(encoded.stream, [buffer], namespace={})["x"]
        array[0] = 5
    assert np.frombuffer(own)[0] == 5


def test_broadcast_arrays_travel_in_silence() -> None:
    """Packing what `broadcast_arrays` made warns of nothing: it was not the user who asked whether it can be written."""
    wide, deep = np.broadcast_arrays(np.arange(3.0), np.zeros((2, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoded = encode({"wide": wide, "fixed": np.broadcast_to(deep, (4, 2, 3))}, namespace={})
        assert fingerprint(wide, namespace={}) is not None
    back: dict[str, Any] = decode(encoded.stream, encoded.buffers, namespace={})
    assert np.array_equal(back["wide"], wide) and not back["fixed"].flags.writeable
    back["wide"][1] = 7


def test_two_names_of_one_array_are_one_array() -> None:
    """Sharing between variables survives, views included, in whatever order they come."""
    array = np.arange(1000.0)
    encoded = encode({"a": array[2:4], "b": array, "c": array}, namespace={})
    back: dict[str, Any] = decode(encoded.stream, encoded.buffers, namespace={})
    back["b"][2] = -1
    assert back["c"] is back["b"] and back["a"][0] == -1
    assert len(encoded.buffers) == 1


@pytest.mark.parametrize(
    "change",
    ["x['k'][0].append(1)", "x['k'][1][3] = 7", "x['f'].__defaults__ = (2,)", "x['c'].v = 2", "x['c'].f = len", "x.pop('k')"],
)
def test_a_digest_sees_a_change(change: str) -> None:
    """A change anywhere inside changes the digest."""
    space: dict[str, Any] = {"__name__": "__main__", "np": np}
    exec("class C: v = 1\ndef f(a=1): return a\nx = {'k': ([], np.zeros(2000)), 'f': f, 'c': C, 'i': C()}", space)
    before = fingerprint(space["x"], namespace=space)
    assert before == fingerprint(space["x"], namespace=space)
    exec(change, space)
    assert fingerprint(space["x"], namespace=space) != before


def test_no_digest_for_what_cannot_be_packed() -> None:
    """None says: treat it as changed."""
    assert fingerprint([iter(()), (j for j in ())], namespace={}) is None


def test_needs_are_reported() -> None:
    """The names that functions, methods and lambdas use are what has to follow."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("class C:\n    def f(self): return a\ng = lambda: [b for _ in c]\nx = [C(), g]", space)
    assert {"a", "b", "c"} <= encode({"x": space["x"]}, namespace=space).deps


def test_the_garbage_collector_is_left_as_it_was() -> None:
    """Suspended inside, back afterwards."""
    assert gc.isenabled()
    encoded = encode({"x": [1]}, namespace={})
    decode(encoded.stream, encoded.buffers, namespace={})
    assert gc.isenabled()


def test_the_standard_pickle_is_left_as_it_was() -> None:
    """Borrowing dill's savers does not hook dill into pickle; packing imports no numpy."""
    code = (
        "import pickle, sys; before = dict(pickle._Pickler.dispatch); from remora.sync import encode\n"
        "done = encode({'x': {}.keys(), 'y': [1]}, namespace={}); assert not done.failures, done.failures\n"
        "assert 'dill' in sys.modules and pickle._Pickler.dispatch == before; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"], check=True)


def test_another_python_is_found_before_anything_is_unpickled() -> None:
    """One line with both versions; nothing of the stream has run."""
    broken = from_elsewhere({"f": lambda: 1}, python=[3, 9], magic="00")
    with pytest.raises(SendError, match=r"^Python 3\.9 there and Python 3\.\d+ here: .*python=3\.\d+$"):
        decode(broken, [], namespace={})


def from_elsewhere(values: dict[str, object], **needs: object) -> bytes:
    """Return a stream that needs something else than it does, and that nobody could unpickle."""
    encoded = encode(values, namespace={})
    magic, length = HEAD.unpack_from(encoded.stream)
    head = json.loads(encoded.stream[HEAD.size : HEAD.size + length])
    assert needs.keys() <= head["needs"].keys()
    head["needs"] |= needs
    text = json.dumps(head).encode()
    return HEAD.pack(magic, len(text)) + text + b"not a pickle"


def test_data_is_read_by_any_python() -> None:
    """Without bytecode in it, a stream does not ask for a Python."""
    encoded = encode({"x": {"a": [1.5]}, "y": np.arange(3)}, namespace={})
    magic, length = HEAD.unpack_from(encoded.stream)
    head = json.loads(encoded.stream[HEAD.size : HEAD.size + length])
    assert head["needs"].keys() == {"python", "packages"} and not head["needs"]["packages"]
    head["needs"]["python"] = [3, 9]
    text = json.dumps(head).encode()
    stream = HEAD.pack(magic, len(text)) + text + encoded.stream[HEAD.size + length :]
    assert decode(stream, encoded.buffers, namespace={})["x"] == {"a": [1.5]}


def test_another_generation_of_a_package_is_found_before_anything_is_unpickled() -> None:
    """The error names the package, both versions and the fix; another version of one generation is no matter."""
    scalar = {"x": np.float64(3)}
    major = int(np.__version__.split(".")[0])
    with pytest.raises(SendError, match=rf'^numpy {major - 1}\.9\.9 there and numpy {np.__version__} here: .*pip="numpy=='):
        decode(from_elsewhere(scalar, packages={"numpy": f"{major - 1}.9.9"}), [], namespace={})
    check({"packages": {"numpy": f"{major}.999", "no_such_package": "1"}})
    with pytest.raises(SendError, match="numpy 0"):
        check({"packages": {"numpy": "0.9"}})


def test_dill_alone_is_not_used_where_it_differs() -> None:
    """A view of a dictionary needs dill's constructor, which another version may not have; the rest travels."""
    other = {"dill": "0.0"}
    encoded = encode({"v": {"a": 1}.keys(), "f": lambda: 1, "c": [1]}, namespace=globals(), packages=other)
    assert (encoded.names, list(encoded.failures)) == (("f", "c"), ["v"])
    assert encode({"v": {"a": 1}.keys()}, namespace=globals(), packages=None).names == ("v",)


def test_a_foreign_stream_is_an_error() -> None:
    """Bytes that are no stream of ours are not unpickled."""
    with pytest.raises(SendError, match="same version of Remora"):
        decode(b"garbage of some length", [], namespace={})


def _there_and_back(error: BaseException) -> BaseException:
    encoded = encode_exception(error, namespace=globals())
    assert encoded is not None
    back = decode_exception(encoded.stream, encoded.buffers, namespace=globals())
    assert back is not None
    return back


@pytest.mark.parametrize(
    "error",
    [
        ValueError("v", 1),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "/a"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        SystemExit(3),
        StopIteration(5),
        ModuleNotFoundError("no m", name="m"),
        SyntaxError("bad", ("f.py", 1, 2, "x = (", 1, 3)),
        json.JSONDecodeError("bad", "doc", 0),
        subprocess.CalledProcessError(1, ["ls"], b"out"),
        np.exceptions.AxisError(3, 2),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_arrive_as_they_were(error: BaseException) -> None:
    """Type, text, arguments and attributes are the same."""
    back = _there_and_back(error)
    assert (type(back), str(back), back.args, vars(back)) == (type(error), str(error), error.args, vars(error))
    for name in ("errno", "filename", "code", "value", "name", "lineno", "reason", "returncode"):
        assert getattr(back, name, None) == getattr(error, name, None)


def test_an_exception_with_an_attribute_that_cannot_travel() -> None:
    """The attribute is left out, an argument becomes its text, the chain stays."""
    error = ValueError("text", (i for i in ()))
    error.good, error.bad = 1, (i for i in ())
    error.__cause__ = KeyError("cause")
    back = _there_and_back(error)
    assert back.args[0] == "text" and back.args[1].startswith("<generator")
    assert vars(back) == {"good": 1}
    assert isinstance(back.__cause__, KeyError)


def test_an_exception_whose_type_cannot_travel() -> None:
    """None tells the caller to fall back to name and text."""
    kind = type("Bad", (Exception,), {"__module__": "__main__", "part": (i for i in ())})
    assert encode_exception(kind("x"), namespace={}) is None


def test_tracebacks_stay() -> None:
    """A traceback keeps frames alive and is never sent."""
    try:
        raise ValueError("v")
    except ValueError as error:
        assert _there_and_back(error).__traceback__ is None
