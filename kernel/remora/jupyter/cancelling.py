"""The Cancel button beside the status line of a cell that takes long.

Law: a widget costs 0.2 s, so it is made when a cell has taken long; it is closed with its cell.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

from .statusline import Bundle


class Comms(Protocol):
    """Hears what front ends say while a cell runs; listening.py has the real ones."""

    def serve(self, comm: str, handle: Callable[[dict[str, Any]], None]) -> None:
        """Have what is said to this comm handled at once."""

    def forget(self, comm: str) -> None:
        """Take note that the comm is closed."""


class CancelButton:
    """A line with a button, as a widget in the same display: gone from the notebook as soon as the result takes its place."""

    def __init__(self, on_click: Callable[[], object], comms: Comms | None = None) -> None:
        self._on_click, self._comms = on_click, comms
        self._box: Any = None

    @property
    def opened(self) -> bool:
        """Tell whether the widget is there."""
        return self._box is not None

    def open(self, line: str) -> Bundle:
        """Make the widget around this HTML, if there is none, and return the part of a mime bundle that shows it."""
        if self._box is None:
            self._make(line)
        view = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
        return {"application/vnd.jupyter.widget-view+json": view}

    def _make(self, line: str) -> None:
        import ipywidgets  # costs 0.2 s and is needed for slow cells only

        button = ipywidgets.Button(
            description="Cancel", tooltip="End this cell's run", layout={"width": "auto", "height": "24px"}
        )
        button.on_click(self._clicked)
        self._box = ipywidgets.HBox([ipywidgets.HTML(line), button])
        if self._comms is not None:
            self._comms.serve(button.model_id, self._heard)

    def _heard(self, message: dict[str, Any]) -> None:
        """Take what the button's view says, past the kernel's own way, which a running cell may block."""
        box, said = self._box, message["content"].get("data", {}).get("content")
        if box is not None and isinstance(said, dict) and said.get("event") == "click":
            box.children[1].click()

    def update(self, line: str) -> None:
        """Show other HTML beside the button."""
        self._box.children[0].value = line

    def close(self) -> None:
        """Take the widget away; safe twice."""
        box, self._box = self._box, None
        for widget in (*box.children, box) if box is not None else ():
            if self._comms is not None:
                self._comms.forget(widget.model_id)
            widget.close()

    def _clicked(self, button: Any) -> None:
        button.disabled, button.description = True, "Cancelling…"
        self._on_click()


def cancel_widget(on_click: Callable[[], object], *, live: bool, comms: Comms | None = None) -> CancelButton | None:
    """Return a Cancel button if widgets are `live` while a cell runs here and ipywidgets can be imported, else None."""
    return CancelButton(on_click, comms) if live and _has_widgets() else None


@cache
def _has_widgets() -> bool:
    return find_spec("ipywidgets") is not None
