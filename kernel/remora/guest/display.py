"""What IPython displays, as output of the run: results, display data, updates, clearing.

Law: everything goes through the outbox, after the text printed before it. The classes carry the names and the hook methods of
ipykernel's, because libraries look for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher

from ..wire import Fields
from . import origin
from .jsonable import jsonable
from .outbox import Outbox

Hook = Callable[[Fields], "Fields | None"]


class Hooked:
    """Functions of the calling thread that see, change or swallow messages before they go."""

    outbox: Outbox

    def register_hook(self, hook: Hook) -> None:
        """Let `hook` see every message of this thread; it returns the message, or None to swallow it."""
        self._hooks().append(hook)

    def unregister_hook(self, hook: Hook) -> bool:
        """Take a hook away; False if it is not there."""
        try:
            self._hooks().remove(hook)
        except ValueError:
            return False
        return True

    def _hooks(self) -> list[Hook]:
        local = self.__dict__.setdefault("_remora_local", threading.local())
        if not hasattr(local, "hooks"):
            local.hooks = []
        hooks: list[Hook] = local.hooks
        return hooks

    def send(self, msg_type: str, content: Fields) -> None:
        """Send one Jupyter message, if all hooks let it pass."""
        whose = origin.current()
        message: Fields = {"header": {"msg_type": msg_type}, "msg_type": msg_type, "content": jsonable(content), "metadata": {}}
        for hook in self._hooks():
            passed = hook(message)
            if passed is None:
                return
            message = passed
        if whose is not None:
            self.outbox.put(whose.output(msg_type, message["content"], message.get("metadata")))


class ZMQDisplayPublisher(Hooked, DisplayPublisher):
    """Takes what `display()` shows."""

    def publish(
        self, data: Any, metadata: Any = None, source: Any = None, *, transient: Any = None, update: Any = False, **_ignored: Any
    ) -> None:
        """Send a bundle, or with `update` a new version of the one with that display id."""
        self._validate_data(data, metadata)
        content = {"data": data, "metadata": metadata or {}, "transient": transient or {}}
        self.send("update_display_data" if update else "display_data", content)

    def clear_output(self, wait: bool = False) -> None:
        """Clear the cell's output, now or when the next output comes."""
        self.send("clear_output", {"wait": wait})


class ZMQShellDisplayHook(Hooked, DisplayHook):
    """Takes the value of a cell's last expression."""

    _content: Fields | None = None

    def start_displayhook(self) -> None:
        """Begin a result."""
        self._is_active = True
        self._content = {}

    def write_output_prompt(self) -> None:
        """Note the number under which the result is kept."""
        if self._content is not None:
            self._content["execution_count"] = self.prompt_count

    def write_format_data(self, format_dict: Fields, md_dict: Fields | None = None) -> None:
        """Note the result's representations."""
        if self._content is not None:
            self._content |= {"data": format_dict, "metadata": md_dict or {}}

    def finish_displayhook(self) -> None:
        """Send the result, unless nothing represents it."""
        content, self._content = self._content, None
        if content and content.get("data"):
            self.send("execute_result", content)
        self._is_active = False
