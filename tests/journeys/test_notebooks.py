"""The worked examples, run without a browser as `remora run` does it; what they show is what their text says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from journeys import elsewhere
from journeys.commands import Commands, shown
from journeys.driving import Place
from provisioner.images.systems import debian

from provisioner import needs

MOVED = re.compile(r"^Remora: [^\n]* files? (sent|fetched) [^\n]*\n", re.MULTILINE)
"""What a cell on another machine says of the notebook's folder."""


@pytest.fixture(scope="module")
def cells(place: Place) -> dict[str, str]:
    """Run the notebook about dependencies, once, and return what each cell has shown, by its id."""
    commands = Commands(place)
    commands.example("03-dependencies.ipynb")
    if elsewhere.machine() != "here":  # that machine has no network: the folder has for pip what it would fetch
        wheels = str(commands.folder / "wheels")
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, "roman"], check=True, timeout=60
        )
        commands.environment |= {"PIP_FIND_LINKS": wheels, "PIP_NO_INDEX": "1"}
    commands.run("run", "03-dependencies.ipynb", "out.ipynb", "--on", "here", timeout=200)
    return {cell.id: MOVED.sub("", shown(cell)) for cell in commands.read("out.ipynb").cells if cell.cell_type == "code"}


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
