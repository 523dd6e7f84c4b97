"""The worked examples, run without a browser as `remora run` does it; what they show is what their text says."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from house import sources
from journeys.commands import Commands
from journeys.driving import Place, plain
from provisioner.images.systems import debian

from provisioner import needs


@pytest.fixture(scope="module")
def cells(place: Place) -> dict[str, str]:
    """Run the notebook about dependencies, once, and return what each cell has shown, by its id."""
    commands = Commands(place)
    shutil.copy(sources.ROOT / "notebooks" / "03-dependencies.ipynb", commands.folder)
    commands.run("run", "03-dependencies.ipynb", "out.ipynb")
    executed: Any = commands.read("out.ipynb")
    return {cell.id: plain("".join(map(_text, cell.outputs))) for cell in executed.cells if cell.cell_type == "code"}


def _text(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    return "" if "remora" in output.metadata else str(output.data.get("text/plain", ""))


@debian
@needs.namespaces
def test_dependencies(cells: dict[str, str]) -> None:
    """Mirror, packages, a program of the system, a script's block, local code that is edited, and what is installed by hand."""
    version = __import__("sklearn").__version__
    assert cells["mirror"] == f"there, too: {version}\n"
    assert cells["pip"] == "1 hour, 6 minutes and 40 seconds\n"
    assert cells["apt"] == "0.5 s at 48000 Hz\n"
    assert "programs" in cells["block"]
    assert (cells["own"], cells["own-there"]) == ("'Hello, Ada.'", "Hello, Grace.\n")
    assert cells["edited"] == "'Good morning, Ada!'"
    assert cells["stale"].count("phrases.py changed since the import here") == 1 and "Hello, Grace." in cells["stale"]
    assert cells["edited-again"].endswith("'How good to see you, Ada!'")  # the notebook's own import is old, too
    assert cells["fresh"] == "How good to see you, Grace!\n"
    assert cells["hand"].endswith("MMXXVI\n")
    assert cells["again"] == "MCMLXVIII and 1.0 billion are still understood\n"
