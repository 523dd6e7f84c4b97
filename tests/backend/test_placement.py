"""Which machine is taken where nothing is said, and what is remembered of machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from remora.errors import Unavailable
from remora.resources import Resources, SandboxSpec, parse_gpu
from remora_backend import placement
from remora_backend.inventory import Has, Inventory

GIB = 2**30


def has(machine: str, *models: str, cores: float = 4.0, memory: int = 8) -> Has:
    """Return a machine with devices of these models, each with its memory behind a colon."""
    pairs = [model.partition(":")[::2] for model in models]
    found = [{"id": f"acme/gpu={n}", "model": model, "memory": int(size) * GIB} for n, (model, size) in enumerate(pairs)]
    return Has.of(machine, {"cores": cores, "memory": memory * GIB, "devices": found})


LAPTOP = has("here")
THERE = [
    LAPTOP,
    has("box", "Acme L4:24", "Acme L4:24", cores=8, memory=64),
    has("big", "Acme H100:80", "Acme L4:24", cores=64, memory=512),
]


def spec(gpu: str = "", cpu: float | None = None, memory: int | None = None, on: str = "") -> SandboxSpec:
    """Return a spec that asks for this; memory in GiB."""
    resources = Resources(parse_gpu(gpu) if gpu else (), cpu, memory * GIB if memory else None)
    return SandboxSpec({"base": {}, "steps": []}, resources, on=on)


@pytest.mark.parametrize(
    ("wanted", "held", "machines"),
    [
        (spec(), {}, ["here", "box", "big"]),
        (spec("L4"), {}, ["box", "big"]),
        (spec("L4"), {"box": {"acme/gpu=0"}}, ["box", "big"]),
        (spec("L4"), {"box": {"acme/gpu=0", "acme/gpu=1"}}, ["big", "box"]),
        (spec("L4:2"), {}, ["box"]),
        (spec("L4-24GB"), {}, ["box", "big"]),
        (spec("H100,L4"), {}, ["big", "box"]),
        (spec("H100,L4"), {"big": {"acme/gpu=0"}}, ["big", "box"]),
        (spec("H100,L4"), {"big": {"acme/gpu=0", "acme/gpu=1"}}, ["box", "big"]),
        (spec("any"), {}, ["box", "big"]),
        (spec(cpu=6), {}, ["box", "big"]),
        (spec(memory=100), {}, ["big"]),
        (spec("L4", cpu=32), {}, ["big"]),
    ],
)
def test_the_first_machine_that_has_it(wanted: SandboxSpec, held: dict[str, set[str]], machines: list[str]) -> None:
    """GPUs by preference, a free one before one that is held, cores and memory, then the order of the list."""
    chosen = placement.choose(wanted, THERE, held)
    assert (list(chosen.machines), chosen.line) == (machines, "")


def test_what_nobody_has() -> None:
    """One line says what was asked, what each machine has, and what to do; cores and memory are no reason to refuse."""
    with pytest.raises(Unavailable) as raised:
        placement.choose(spec("A100:2", memory=16), [*THERE, Has("new")], {"box": {"acme/gpu=1"}})
    said = str(raised.value)
    assert "no machine has gpu=A100:2 memory=16.0 GiB. There is: here: 4 cores; 8.0 GiB of memory; no GPU. box: 8 cores;" in said
    assert "Acme L4 (24.0 GiB), free; Acme L4 (24.0 GiB), held. big:" in said
    assert "new: not known yet, `remora machine check new` finds out" in said
    assert "remora machine add NAME user@host" in said and "\n" not in said
    chosen = placement.choose(spec("L4", cpu=100), THERE, {})
    assert chosen.machines == ("box",)
    assert "no machine has gpu=L4 cpu=100; it runs with what there is" in chosen.line


def test_a_session_stays_where_it_is() -> None:
    """Its living sandbox decides while system and devices are the same."""
    placed = spec("L4", on="box")
    facts = {"kernel": "k", "session": "main", "state": "ready", "on": "box", "identity": [*placed.identity]}
    ended = facts | {"state": "ended", "on": "big"}
    sandboxes = {"s1": facts, "s2": ended, "s3": {"pool": "p", "state": "ready"}}
    assert placement.present(spec("L4", cpu=1), "k", "main", sandboxes) == "box"
    assert placement.present(spec("H100"), "k", "main", sandboxes) == ""
    assert placement.present(spec("L4"), "k", "other", sandboxes) == ""


def test_what_is_remembered(tmp_path: Path) -> None:
    """What a machine said of itself, in a check or through its agent, outlives the backend; nonsense is passed over."""
    file = tmp_path / "inventory.json"
    inventory = Inventory(file)
    assert inventory.of("box") == Has("box")
    device = {"id": "acme/gpu=0", "model": "Acme L4", "memory": 24 * GIB, "nodes": ["/dev/acme0"]}
    inventory.learn("box", {"cores": 8, "memory": 64 * GIB, "trial": {"devices": {"found": [device]}}})
    inventory.learn("big", {"cores": 64, "memory": 512 * GIB, "disk": 1, "devices": [device]})
    inventory.learn("box", {"cores": "many", "devices": [{}]})
    again = Inventory(file)
    assert again.of("box").line() == "box: 8 cores; 64.0 GiB of memory; Acme L4 (24.0 GiB), free"
    assert again.of("big").rank(spec("L4").resources) == 0
    again.forget("box")
    assert Inventory(file).of("box") == Has("box")
    file.write_text(json.dumps({"big": {"cores": "x"}}))
    assert Inventory(file).of("big") == Has("big")
