"""Tensors on a device, with a made-up torch. What torch itself does with them, and a real device, are not tested here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_torch
import pytest
from remora.errors import SendError
from remora.sync import Ledger, decode, decode_each, encode, tensors


@pytest.fixture
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the made-up torch."""
    fake_torch.write(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    yield importlib.import_module("torch")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        del sys.modules[name]


def carry(torch: Any, devices: set[str], **values: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what variables become on a side with these devices, and the lines on them; all devices of before are back then."""
    encoded = encode(values, namespace={})
    assert not encoded.failures
    before, torch.DEVICES = torch.DEVICES, devices
    try:
        decoded = decode_each(encoded.stream, encoded.buffers, namespace={})
    finally:
        torch.DEVICES = before
    assert not decoded.failures
    return decoded.values, decoded.notes


def test_home_and_back(torch: Any) -> None:
    """On a side without the device it is a CPU tensor, which one line says; sent on, it is on its device again."""
    torch.DEVICES = {"cuda:0"}
    there = torch.Tensor([1, 2], "cuda:0", requires_grad=True)
    home, notes = carry(torch, set(), w=there, also=[there], n=1)
    assert (str(home["w"].device), home["w"].data_, home["w"].requires_grad) == ("cpu", [1, 2], True)
    assert home["also"][0] is home["w"]
    (line,) = notes
    assert line.startswith("w: what was on cuda:0 there is on the CPU here")
    back, notes = carry(torch, {"cuda:0"}, **home)
    assert (str(back["w"].device), back["w"].data_, back["w"].requires_grad) == ("cuda:0", [1, 2], True)
    assert notes == ()


def test_parameters(torch: Any) -> None:
    """A parameter inside an object stays a parameter, at home and when it is back on its device."""
    torch.DEVICES = {"cuda:0"}
    there = torch.nn.Parameter(torch.Tensor([3], "cuda:0"), requires_grad=False)
    home, _ = carry(torch, set(), model={"weight": there})
    assert type(home["model"]["weight"]) is torch.nn.Parameter
    assert str(home["model"]["weight"].device) == "cpu"
    back, _ = carry(torch, {"cuda:0"}, **home)
    weight = back["model"]["weight"]
    assert (type(weight), str(weight.device), weight.requires_grad) == (torch.nn.Parameter, "cuda:0", False)


def test_another_device_of_the_kind(torch: Any) -> None:
    """Where there is a device of its kind, it is put there, and nothing is said."""
    torch.DEVICES = {"cuda:3"}
    values, notes = carry(torch, {"cuda:0"}, w=torch.Tensor([1], "cuda:3"))
    assert (str(values["w"].device), notes) == ("cuda:0", ())


def test_tensors_of_the_cpu_are_left_to_torch(torch: Any) -> None:
    """A tensor that was never on a device stays on the CPU, on a side that has devices, too; so does one without memory."""
    values, notes = carry(torch, {"cuda:0"}, w=torch.Tensor([1]), shape=torch.Tensor([], "meta"))
    assert (str(values["w"].device), str(values["shape"].device), notes) == ("cpu", "meta", ())


def test_what_was_made_at_home_has_no_device(torch: Any) -> None:
    """What is computed from a tensor at home is a CPU tensor and stays one; nothing is kept of a tensor that is gone."""
    torch.DEVICES = {"cuda:0"}
    home, _ = carry(torch, set(), w=torch.Tensor([1], "cuda:0"))
    made = torch.Tensor(home["w"].data_)
    values, _ = carry(torch, {"cuda:0"}, made=made)
    assert str(values["made"].device) == "cpu"
    before = len(tensors._belongs)
    del home
    assert len(tensors._belongs) == before - 1


def test_unchanged_tensors_do_not_travel_again(torch: Any) -> None:
    """What came home and was not changed there is held by both sides; changed in place, it goes back to its device."""
    torch.DEVICES = {"cuda:0"}
    home, _ = carry(torch, set(), w=torch.Tensor([1], "cuda:0"))
    ledger = Ledger()
    ledger.incoming(home, home)
    assert ledger.outgoing(["w"], home).skipped == ("w",)
    home["w"].data_[0] = 5
    encoded = ledger.outgoing(["w"], home).encoded
    back = decode(encoded.stream, encoded.buffers, namespace={})["w"]
    assert isinstance(back, torch.Tensor)
    assert (str(back.device), back.data_) == ("cuda:0", [5])


def test_a_kind_of_the_users_own(torch: Any) -> None:
    """A subclass that is not known is refused on a device, with what to do instead."""
    special = type("Special", (torch.Tensor,), {})
    encoded = encode({"w": special([1], "cuda:0")}, namespace={})
    assert isinstance(encoded.failures["w"], SendError)
    assert "cuda:0" in str(encoded.failures["w"])
    assert "tensor.cpu()" in str(encoded.failures["w"])
