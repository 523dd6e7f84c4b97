"""The order: what the agent writes, the supervisor reads, and nothing in between is ever half there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remora_provisioner.order import ORDER, Order

from provisioner import disks

_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


def an_order(directory: Path, **changes: Any) -> Order:
    """Return an order with every field set."""
    values: dict[str, Any] = {
        "sandbox": "s1",
        "directory": str(directory),
        "runs": "/runs",
        "jail": "process",
        "argv": ("python", "guest"),
        "environment": {"LANG": "C"},
        "folder": "/folder",
        "home": "/home/ada",
        "mounts": (("/a", "/a", False), ("/a/b", "/c", True)),
        "host_id": 7,
        "memory": 2**30,
        "cpu": 1.5,
        "doors": ("/door",),
        "facts": {"kernel": "k", "spec": {"deep": [1, None]}},
    }
    return Order(**(values | changes))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(_text, _text), st.lists(st.tuples(_text, _text, st.booleans())), st.none() | st.integers(0, 2**50))
def test_an_order_is_read_as_it_was_written(tmp_path: Path, environment: dict[str, str], mounts: Any, memory: int | None) -> None:
    """Every value comes back, as the same kind of value."""
    order = an_order(tmp_path, environment=environment, mounts=tuple(mounts), memory=memory)
    order.save()
    assert Order.load(tmp_path) == order
    assert [path.name for path in tmp_path.iterdir()] == [ORDER]


def test_a_newer_order_replaces_the_older_one(tmp_path: Path) -> None:
    """Saving twice leaves the second, and no other file."""
    an_order(tmp_path, jail="one").save()
    an_order(tmp_path, jail="two").save()
    assert Order.load(tmp_path).jail == "two"
    assert len(list(tmp_path.iterdir())) == 1


def test_no_order(tmp_path: Path) -> None:
    """Nothing there, or a folder that is not: OSError."""
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(OSError):
            Order.load(folder)


@pytest.mark.parametrize(
    "change",
    [lambda text: text[: len(text) // 2], lambda _: "", lambda _: "{}", lambda _: "[]", lambda _: "null", lambda _: "\0" * 9],
)
def test_half_an_order_is_none(tmp_path: Path, change: Any) -> None:
    """Whatever is not whole is a ValueError."""
    an_order(tmp_path).save()
    path = tmp_path / ORDER
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError):
        Order.load(tmp_path)


def test_an_order_of_another_version(tmp_path: Path) -> None:
    """A field that is not known, or one that is missing, is a ValueError that names it."""
    an_order(tmp_path).save()
    path = tmp_path / ORDER
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"colour": "red"}))
    with pytest.raises(ValueError, match="colour"):
        Order.load(tmp_path)
    del data["runs"]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="runs"):
        Order.load(tmp_path)


@pytest.mark.parametrize("full", disks.KINDS)
def test_a_disk_that_is_full_keeps_the_old_order(tmp_path: Path, full: Any) -> None:
    """An order that finds no room is an OSError, and what was there before stays whole."""
    place = tmp_path / "disk"
    with full(place, 64):
        place.mkdir(exist_ok=True)
        an_order(place, jail="old").save()
        with pytest.raises(OSError):
            an_order(place, facts={"large": "x" * 200_000}).save()
        assert Order.load(place).jail == "old"
