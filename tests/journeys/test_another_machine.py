"""The worked example about another machine, run without a browser: what it shows, and what goes over the link."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from journeys import elsewhere
from journeys.commands import Commands, shown
from journeys.elsewhere import knowing
from provisioner.links import Carried

from provisioner import needs

pytestmark = [needs.hosts, needs.namespaces]


class Elsewhere(NamedTuple):
    """What the notebook about another machine has left and moved."""

    folder: Path
    cells: dict[str, Any]
    carried: dict[str, Carried]
    """What had gone over the link when a cell printed its line, by the line; "" is the beginning."""


@pytest.fixture(scope="module")
def there() -> Iterator[Elsewhere]:
    """Run the notebook about another machine, once."""
    with elsewhere.host() as host, knowing(host, sys.executable) as place:
        commands, carried = Commands(place), {"": host.link.carried()}
        commands.example("05-another-machine.ipynb")
        options = ["-p", "machine", "box", "--on", "here", "--log-output"]
        process = commands.start("run", "05-another-machine.ipynb", "out.ipynb", *options)
        assert process.stdout is not None
        for line in process.stdout:
            carried[line.strip()] = host.link.carried()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        yield Elsewhere(commands.folder, {cell.id: cell for cell in commands.read("out.ipynb").cells}, carried)


def test_a_folder_on_another_machine(there: Elsewhere) -> None:
    """A cell there reads the data and imports the module of the folder; local cells use the model and picture that it wrote."""
    train = there.cells["train"]
    assert (there.folder / "data/pixels.csv").stat().st_size > 30_000_000
    assert "2 files sent (29.6 MiB)" in shown(train) and "2 files fetched" in shown(train)
    assert train.metadata.remora.sandbox != there.cells["data"].metadata.remora.sandbox
    assert train.metadata.remora.sent > 30_000_000
    (picture,) = there.cells["picture"].outputs
    assert base64.b64decode(picture.data["image/png"]) == (there.folder / "repaired.png").read_bytes()
    assert "dead pixels are 7.4 of 255 off" in shown(there.cells["use"])


def test_what_has_not_changed_does_not_move_again(there: Elsewhere) -> None:
    """The second run over the same data moves no file: no line says so, and hardly a byte goes over the link."""
    again = there.cells["again"]
    assert shown(again) == "learned again\n"
    assert again.metadata.remora.sent < 10_000 and again.metadata.remora.fetched < 10_000
    before, after = there.carried["once more"], there.carried["that was it"]
    assert after.up - before.up < 100_000
    assert after.down - before.down < 100_000


def test_an_edit_of_the_module(there: Elsewhere) -> None:
    """Is announced where the module was imported before, and counts when it is reloaded."""
    stale, fresh = shown(there.cells["stale"]), shown(there.cells["reload"])
    assert "repairing.py changed since the import here" in stale and "7.4 of 255 off" in stale
    assert fresh.endswith("2.9 of 255 off\n")
    assert "box" in shown(there.cells["sessions"])
