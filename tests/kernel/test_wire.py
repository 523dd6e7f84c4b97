"""Messages: every kind travels, is what it says it is, and keeps to the law of the file."""

from __future__ import annotations

import ast
import dataclasses
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from remora import frames, wire
from remora.frames import Decoder, encode
from remora.wire import Message, Request

KINDS = sorted(Message.kinds)
_SAMPLES: dict[Any, Any] = {str: "text é\n", int: 7, float: 1.5, bool: True, dict: {"deep": [1, {"er": None}]}, list: ["a", "b"]}


def sample(kind: type[Message]) -> Message:
    """Return a message of the kind with every field filled."""
    hints = typing.get_type_hints(kind)
    values = {f.name: _fill(hints[f.name]) for f in dataclasses.fields(kind) if f.name != "buffers"}
    return kind(**values, buffers=(b"bulk", b""))


def _fill(hint: Any) -> Any:
    if isinstance(hint, typing.NewType):
        return _fill(hint.__supertype__)
    arms = [arm for arm in typing.get_args(hint) if arm is not type(None)]
    if type(None) in typing.get_args(hint):
        return _fill(arms[0])
    if hint == list[int]:
        return [80, 24]
    return _SAMPLES[typing.get_origin(hint) or hint]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_travels(name: str) -> None:
    """A message of each kind, with every field set, comes out as it went in."""
    message = sample(Message.kinds[name])
    (found,) = Decoder().feed(b"".join(encode(message)))
    assert type(found) is type(message)
    for field in dataclasses.fields(message):
        if field.name != "buffers":
            assert getattr(found, field.name) == getattr(message, field.name)
    assert [bytes(b) for b in found.buffers] == [b"bulk", b""]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_frozen_documented_and_named_once(name: str) -> None:
    """A message does not change after it was made, says what it is for, and is registered under its class's name."""
    kind = Message.kinds[name]
    assert kind.__name__ == name
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{name}(")
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample(kind).buffers = ()  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize("name", [name for name in KINDS if issubclass(Message.kinds[name], Request)])
def test_a_request_can_be_asked_without_a_number(name: str) -> None:
    """The number of a request is set by who sends it, never by who makes it."""
    asked = {f.name: f for f in dataclasses.fields(Message.kinds[name])}["ask"]
    assert asked.kw_only
    assert asked.default == 0


@pytest.mark.parametrize("module", [wire, frames])
def test_wire_and_frames_lean_on_the_standard_library_alone(module: Any) -> None:
    """They start on a bare Python: nothing but the standard library, errors and each other is imported."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    outside = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    outside |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    inside = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    assert outside <= sys.stdlib_module_names
    assert inside <= {"errors", "wire"}


def test_a_new_kind_is_its_class_and_nothing_else() -> None:
    """A class of its own is all that a new message takes."""
    try:

        @dataclasses.dataclass(frozen=True)
        class Teleported(Message):
            """Somebody has arrived."""

            to: str

        (found,) = Decoder().feed(b"".join(encode(Teleported("moon"))))
        assert isinstance(found, Teleported)
        assert found.to == "moon"
    finally:
        Message.kinds.pop("Teleported", None)


def test_the_defaults_of_messages_are_not_shared() -> None:
    """Two answers without a result do not write into the same dictionary."""
    one, other = wire.Answer(1), wire.Answer(2)
    assert one.result is not other.result
