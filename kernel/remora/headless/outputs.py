"""Outputs put where a front end would put them, by nbclient's own rules, without a kernel of nbclient's.

Law: nbclient decides what a message does to a notebook (display ids, clear_output, widgets, Output widgets); added here is
only what front ends do beyond it: text of one stream is one output, and what a carriage return overwrites is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nbclient import NotebookClient
from nbformat import NotebookNode

from ..wire import Fields

_BACKSPACE = re.compile("[^\n]\b")
_RETURN = re.compile(r"[^\n]*\r(?=[^\n\r])")

Talk = Callable[[str, Fields, Fields, Fields], None]
"""Sends a front end's comm message to the code: msg_type, content, metadata, parent."""


class _Session:
    """Makes messages, for nbclient's mimic of an Output widget."""

    def msg(self, msg_type: str, content: Fields, parent: Fields, metadata: Fields) -> Fields:
        return {"msg_type": msg_type, "content": content, "parent": parent, "metadata": metadata}


class _Door:
    """The part of a kernel client that nbclient's mimic of an Output widget uses."""

    def __init__(self, talk: Talk) -> None:
        self.session, self.shell_channel, self._talk = _Session(), self, talk

    def send(self, message: Fields) -> None:
        self._talk(message["msg_type"], message["content"], message["metadata"], {"header": message["parent"]})


class Outputs(NotebookClient):
    """Takes the Jupyter messages of a run."""

    def __init__(self, notebook: NotebookNode, talk: Talk) -> None:
        """Put outputs into this notebook; answer its widgets by `talk`."""
        super().__init__(notebook)
        door: Any = _Door(talk)  # all that is used of a kernel client
        self.kc = door

    def take(self, message: Fields, index: int) -> None:
        """Put one message where it belongs, as a message of the cell with this index."""
        cell = self.nb.cells[index]
        before = cell.outputs[-1] if cell.outputs else None
        self.process_message(message, cell, index)
        if message["msg_type"] == "stream" and cell.outputs and cell.outputs[-1] is not before:
            _join(cell.outputs)

    def begin(self, index: int) -> None:
        """Let a cell begin without outputs."""
        self.nb.cells[index].outputs = []
        self.clear_before_next_output = False


def _join(outputs: list[NotebookNode]) -> None:
    """Make the last two outputs one if they are of one stream, and apply what overwrites text."""
    last = outputs[-1]
    if len(outputs) > 1 and outputs[-2].output_type == "stream" and outputs[-2].name == last.name:
        outputs.pop()
        last.text = _overwritten(outputs[-1].text, last.text)
        outputs[-1].text = last.text
    else:
        last.text = _overwritten("", last.text)


def _overwritten(before: str, text: str) -> str:
    """Return the text after more of it has come; lines that are complete stay as they are."""
    if "\r" not in text and "\b" not in text and not before.endswith("\r"):
        return before + text
    start = before.rfind("\n") + 1
    line, old = before[start:] + text, ""
    while line != old:
        line, old = _BACKSPACE.sub("", line), line
    return before[:start] + _RETURN.sub("", line)


def message(content: Fields, buffers: tuple[Any, ...], parent: str) -> Fields:
    """Return the Jupyter message that a record's content stands for."""
    kind, body = content["msg_type"], dict(content["content"])
    if kind.startswith("comm"):
        body.setdefault("data", {})
    foreign = (content.get("parent") or {}).get("msg_id") or (content.get("parent") or {}).get("header", {}).get("msg_id")
    header = {"msg_id": foreign or parent}
    return {
        "msg_type": kind,
        "header": {"msg_type": kind},
        "parent_header": header,
        "content": body,
        "metadata": content.get("metadata") or {},
        "buffers": list(buffers),
    }
