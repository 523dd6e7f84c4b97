"""The magics that a kernel has and a terminal has not, or has in another way.

Law: they act through the front end, by payload or display, since there is neither a terminal nor an editor here.
"""

from __future__ import annotations

import os
from typing import Any

from IPython.core import page
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magics.code import CodeMagics, MacroToEdit
from IPython.display import Javascript, display


@magics_class
class KernelMagics(Magics):
    """The magics that a kernel has and a terminal has not."""

    shell: Any

    @line_magic
    def clear(self, _line: str) -> None:
        """Clear the terminal."""
        self.shell.system("clear")

    @line_magic
    def less(self, line: str) -> None:
        """Show a file in the pager."""
        if not line:
            raise UsageError("Missing filename.")
        with open(os.path.expanduser(line), encoding="utf-8", errors="replace") as file:
            page.page(file.read())

    @line_magic
    def more(self, line: str) -> None:
        """Show a file in the pager."""
        self.shell.run_line_magic("less", line)

    @line_magic
    def edit(self, line: str) -> None:
        """Let the front end open a file, or the file in which an object is defined."""
        options, arguments = self.parse_options(line, "prn:")
        find: Any = CodeMagics._find_edit_target
        try:
            filename, number, _ = find(self.shell, arguments, options, ["", ""])
        except MacroToEdit:
            raise UsageError("A macro cannot be edited in a notebook; define it anew with %macro.") from None
        payload = {"source": "edit_magic", "filename": os.path.abspath(filename), "line_number": number}
        self.shell.payload_manager.write_payload(payload)

    @line_magic
    def autosave(self, line: str) -> None:
        """Set how often the notebook saves itself, in seconds; 0 for never."""
        try:
            seconds = int(line)
        except ValueError:
            raise UsageError(f"%autosave requires an integer, got {line!r}") from None
        display(Javascript(f"IPython.notebook.set_autosave_interval({seconds * 1000})"))
        print(f"Autosaving every {seconds} seconds" if seconds else "Autosave disabled")

    @line_magic
    def man(self, line: str) -> None:
        """Show a manual page in the pager."""
        page.page(self.shell.getoutput(f"man {line} | col -b", split=False))
