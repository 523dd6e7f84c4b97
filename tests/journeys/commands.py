"""The command `remora` in a place of its own, and notebooks for it to run.

Law: commands are processes, as a user starts them. Cells that are to be met in the middle wait at a gate in their folder.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from house import sources
from journeys import elsewhere
from journeys.driving import DEADLINE, Place, plain

REMORA = [sys.executable, "-m", "remora"]
GATE = "exec(open('gate').read())"
"""Code that waits until the test opens the gate: a FIFO here, and elsewhere, where none goes, a file that says whom to call."""
Cell = str | tuple[str, list[str]]


class Commands:
    """Runs `remora` for one test, in a folder of its own."""

    def __init__(self, place: Place) -> None:
        """Work in a new folder of this place."""
        self.place = place
        self.folder = Path(tempfile.mkdtemp(prefix="commands-", dir=place.root))
        self.python = sys.executable
        self.site = sysconfig.get_paths()["purelib"]
        self._bell: socket.socket | None = None
        self.environment = place.environment | {"COLUMNS": "200", "NO_COLOR": "1"}

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([*REMORA, *words], cwd=self.folder, env=self.environment, text=True, **given)

    def run(
        self, *words: str, code: int = 0, text: str | None = None, timeout: float = DEADLINE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with `text` as its standard input, and check its exit code."""
        process = self.start(*words, stdin=subprocess.DEVNULL if text is None else subprocess.PIPE)
        out, err = process.communicate(text, timeout=timeout)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def notebook(self, name: str, *cells: Cell) -> Path:
        """Write a notebook of code cells, each a text or a text with tags."""
        pairs = [(cell, []) if isinstance(cell, str) else cell for cell in cells]
        made = [nbformat.v4.new_code_cell(code, metadata={"tags": tags} if tags else {}) for code, tags in pairs]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.folder / name
        nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel, **elsewhere.metadata()}), path)
        return path

    def example(self, name: str) -> None:
        """Put a worked example into the folder; it says where its remote cells run, if that is not here."""
        notebook: Any = nbformat.read(sources.ROOT / "notebooks" / name, as_version=4)
        notebook.metadata |= elsewhere.metadata()
        nbformat.write(notebook, self.folder / name)

    def read(self, name: str) -> Any:
        """Return a notebook."""
        return nbformat.read(self.folder / name, as_version=4)

    def gate(self) -> None:
        """Make the gate."""
        self._bell = elsewhere.bell()
        if self._bell is None:
            os.mkfifo(self.folder / "gate", 0o666)
        else:
            code = f"import socket; socket.create_connection({self._bell.getsockname()!r}).recv(1)"
            (self.folder / "gate").write_text(code)

    def open_gate(self) -> None:
        """Let the cell that waits go on."""
        if self._bell is None:
            (self.folder / "gate").write_text("")
        else:
            self._bell.accept()[0].close()
            self.close()

    def close(self) -> None:
        """Take a gate away that has not been opened. Safe twice."""
        if self._bell is not None:
            self._bell.close()


def text(cell: Any) -> str:
    """Return what a cell printed on stdout."""
    return "".join(o["text"] for o in cell["outputs"] if o["output_type"] == "stream" and o["name"] == "stdout")


def shown(cell: Any) -> str:
    """Return what a cell has shown as text, status lines left out."""
    outputs = [o for o in cell.outputs if "remora" not in o.get("metadata", {})]
    return plain("".join(o.text if o.output_type == "stream" else o.data.get("text/plain", "") for o in outputs))


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Wait for something that tells nobody when it happens, such as a file that is replaced."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        select.select([], [], [], 0.02)


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, commands: Commands, *words: str) -> None:
        """Start it."""
        self.master, slave = os.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
        self.process = commands.start(*words, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.seen = ""

    def wait(self, text: str) -> None:
        """Read until a text is there."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.seen:
            assert select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0], self.seen
            self.seen += os.read(self.master, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self.master, text.encode())

    def __enter__(self) -> Terminal:
        """Let it be used."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the window."""
        self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self.master)
