"""What cannot travel is named with its path, a reason and a way out, and harms nothing else."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from remora.errors import SendError
from remora.sync import decode, decode_each, encode, fingerprint


def _failure(value: object, name: str = "x") -> SendError:
    encoded = encode({name: value, "fine": [1]}, namespace=globals())
    assert encoded.names == ("fine",)
    assert decode(encoded.stream, encoded.buffers, namespace={}) == {"fine": [1]}
    return encoded.failures[name]


class Holder:
    """An object with a part that cannot travel."""

    def __init__(self, part: object) -> None:
        self.part = part


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("generator", "x"),
        ([1, {"a": "generator"}], "x[1]['a']"),
        ({"a": ("generator",)}, "x['a'][0]"),
        (SimpleNamespace(cfg=SimpleNamespace(rows=["generator"])), "x.cfg.rows[0]"),
    ],
)
def test_path_to_the_part(value: Any, path: str) -> None:
    """The message starts with the variable and the way inside it."""
    assert str(_failure(_planted(value))).startswith(f"{path}: generator cannot be sent: ")


def _planted(value: Any) -> Any:
    """Put a real generator where the text stands, since a parameter must be printable."""
    if value == "generator":
        return (item for item in ())
    if isinstance(value, (list, tuple)):
        return type(value)(map(_planted, value))
    if isinstance(value, dict):
        return {key: _planted(item) for key, item in value.items()}
    if isinstance(value, SimpleNamespace):
        return SimpleNamespace(**_planted(vars(value)))
    return value


def test_held_lock_in_a_model() -> None:
    """The example of the documentation: variable, path, type, what to do."""
    lock = threading.Lock()
    with lock:
        model = SimpleNamespace(callbacks=[1, 2, SimpleNamespace(lock=lock)])
        error = _failure(model, "model")
    assert str(error).startswith("model.callbacks[2].lock: _thread.lock cannot be sent: it is held; ")
    assert error.facts["path"] == "model.callbacks[2].lock"
    assert error.reason == "cannot-send"


def test_held_reentrant_lock() -> None:
    """A lock held by this thread is held."""
    lock = threading.RLock()
    with lock:
        assert "it is held" in str(_failure([lock]))


def test_in_closure_default_and_class() -> None:
    """Functions and classes are looked into."""
    part = (item for item in ())

    def closing():
        return part

    def default(a, part=part):
        return part

    local = type("Local", (), {"part": part, "__module__": "__main__"})
    assert _failure(closing).facts["path"] == "x.<closure part>"
    assert _failure(default).facts["path"] == "x.<default part>"
    assert _failure(local()).facts["path"] == "x.__class__.part"


def test_operating_system_things(tmp_path: Path) -> None:
    """Files, sockets, connections, threads and processes are refused with a reason of their own."""
    with open(tmp_path / "f", "w") as file, socket.socket() as plug, ThreadPoolExecutor(1) as pool:
        assert "open it inside the remote cell" in str(_failure(Holder(file)))
        assert "socket" in str(_failure(plug))
        assert "owns threads" in str(_failure(pool))
    database = sqlite3.connect(":memory:")
    assert _failure({"db": database}).facts["path"] == "x['db']"
    database.close()
    assert "start it inside the remote cell" in str(_failure(threading.Thread()))
    assert "identity" in str(_failure(contextvars.ContextVar("v")))
    process = subprocess.Popen([sys.executable, "-c", ""])
    assert "process of this machine" in str(_failure(process))
    process.wait()


def test_a_file_is_not_touched(tmp_path: Path) -> None:
    """Trying to send an open file neither empties nor moves it."""
    path = tmp_path / "f"
    with open(path, "w+") as file:
        file.write("content")
        _failure(file)
        assert file.tell() == 7
    assert path.read_text() == "content"


def test_coroutine_and_loop() -> None:
    """What is tied to an event loop is refused."""

    async def work() -> None:
        task = asyncio.current_task()
        assert "event loop" in str(_failure(task))
        assert "event loop" in str(_failure(asyncio.get_running_loop()))

    coroutine = work()
    assert "await it" in str(_failure(coroutine))
    asyncio.run(coroutine)


class Fussy:
    """An object whose own reduction fails."""

    def __getstate__(self) -> dict[str, Any]:
        raise ZeroDivisionError("no state today")


def test_the_users_own_error_is_told() -> None:
    """What `__getstate__` raised is part of the message."""
    assert "ZeroDivisionError: no state today" in str(_failure([Fussy()]))


def test_failures_do_not_harm_what_is_shared() -> None:
    """A list that a failed variable shares with two good ones is whole, and still shared by them."""
    shared = [1, 2]
    values = {"a": [shared, (i for i in ())], "b": {"s": shared}, "c": shared}
    encoded = encode(values, namespace=globals())
    assert set(encoded.failures) == {"a"}
    back = decode(encoded.stream, encoded.buffers, namespace={})
    assert back["b"]["s"] is back["c"]
    assert back["c"] == [1, 2]


def test_the_senders_value_is_not_changed() -> None:
    """Packing leaves a value as it was, also when it fails."""
    value = {"a": [1], "g": (i for i in (5, 6))}
    _failure(value)
    assert next(value["g"]) == 5


def test_very_deep_nesting_is_an_error_or_works() -> None:
    """Nesting beyond any limit ends in a clear error, not in a crash."""
    deep: list[Any] = []
    for _ in range(300_000):
        deep = [deep]
    assert "nested too deeply" in str(_failure(deep))


def test_moderately_deep_nesting_works() -> None:
    """A linked list of some thousand nodes travels, although it is deeper than Python's limit."""
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    encoded = encode({"x": deep}, namespace={})
    if sys.version_info >= (3, 12):
        return  # the limit for C code is fixed there: the error of the test above
    back: Any = decode(encoded.stream, encoded.buffers, namespace={})["x"]
    for _ in range(5_000):
        (back,) = back
    assert back == []
    assert fingerprint(deep, namespace={}) is not None


class Gone:
    """Can be sent and not rebuilt."""

    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    raise ZeroDivisionError("not here")


def test_what_cannot_be_rebuilt_is_named_and_the_rest_arrives() -> None:
    """A broken variable in the middle of a batch leaves its neighbours whole; sharing among them survives."""
    shared = ["s"]
    values = {"a": [shared], "b": Gone(), "c": [shared, ["t"]], "d": Gone(), "e": shared}
    encoded = encode(values, namespace={"__name__": "__main__"})
    decoded = decode_each(encoded.stream, encoded.buffers, namespace={})
    assert set(decoded.failures) == {"b", "d"}
    assert "b: cannot be rebuilt where it arrived: ZeroDivisionError: not here" in str(decoded.failures["b"])
    assert decoded.values["c"] == [["s"], ["t"]]
    assert decoded.values["e"] is decoded.values["a"][0] is decoded.values["c"][0]


def test_what_needs_a_part_of_a_broken_variable_fails_too() -> None:
    """It never gets a wrong object in its place."""
    shared = ["s"]
    values = {"a": [shared, Gone()], "b": [shared], "c": 3}
    encoded = encode(values, namespace={"__name__": "__main__"})
    decoded = decode_each(encoded.stream, encoded.buffers, namespace={})
    assert set(decoded.failures) == {"a", "b"}
    assert decoded.values == {"c": 3}


def test_a_missing_module_is_named() -> None:
    """The message says which module is missing and how to add it."""
    import types

    module = types.ModuleType("not_installed_there")
    module.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec("not_installed_there", None)
    sys.modules["not_installed_there"] = module
    try:
        encoded = encode({"m": module}, namespace={})
    finally:
        del sys.modules["not_installed_there"]
    with pytest.raises(SendError, match=r"m: module 'not_installed_there' is not installed .* pip="):
        decode(encoded.stream, encoded.buffers, namespace={})
