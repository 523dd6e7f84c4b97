"""The shell that runs the user's code: IPython's, behaving in every way that libraries look for like that of ipykernel.

Law: this file overrides what a kernel must do differently from a terminal, and keeps IPython's behaviour everywhere else.
History is kept in memory alone. The shell says what went wrong in a cell (`failure`); it is the caller that sends it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import CalledProcessError
from typing import Any

from IPython.core import page
from IPython.core.autocall import ZMQExitAutocall
from IPython.core.error import UsageError
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell, InteractiveShellABC
from traitlets import Any as AnyTrait
from traitlets import CBool, Instance, Type, default
from traitlets.config import Config

from ..wire import Fields
from . import origin
from .compiler import CellCompiler
from .display import ZMQDisplayPublisher, ZMQShellDisplayHook
from .installs import installed_by
from .interrupts import without_handler
from .kernelmagics import KernelMagics
from .outbox import Outbox

_NO_PAGER = {
    "TERM": "xterm-color",
    "CLICOLOR": "1",
    "FORCE_COLOR": "1",
    "CLICOLOR_FORCE": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}


class ZMQInteractiveShell(InteractiveShell):
    """The one shell of a guest; libraries take a shell of this name for a notebook's."""

    payload_manager: Any
    display_pub: Any
    displayhook: Any
    configurables: list[Any]
    extension_manager: Any
    compiler_class = Type(CellCompiler)
    displayhook_class = Type(ZMQShellDisplayHook)
    display_pub_class = Type(ZMQDisplayPublisher)
    kernel = AnyTrait()
    outbox = AnyTrait()
    readline_use = CBool(False)
    autoindent = CBool(False)
    exiter = Instance(ZMQExitAutocall)
    keepkernel_on_exit: bool | None = None
    installed: list[str]
    """What this cell has installed with pip."""
    failure: list[str] | None = None
    """The rendered traceback of what ended the cell."""
    _depth = 0
    _result: Any = None

    @default("exiter")
    def _default_exiter(self) -> ZMQExitAutocall:
        return ZMQExitAutocall(self)

    # -- what a kernel sets up differently

    def init_environment(self) -> None:
        """Let child processes colour their output and not page it."""
        os.environ.update(_NO_PAGER)
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")

    def init_path(self) -> None:
        """Leave sys.path alone: the folder of the notebook is put there when the guest has imported what it needs."""

    def init_virtualenv(self) -> None:
        """Stay in the environment that the guest was started with."""

    def init_history(self) -> None:
        """Keep the history of this sandbox in memory."""
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)
        self.configurables.append(self.history_manager)

    def init_hooks(self) -> None:
        """Let the front end page."""
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(self._page), 99)

    def init_data_pub(self) -> None:
        """Have no data publisher; it is long deprecated."""

    def init_magics(self) -> None:
        """Add the magics of a kernel."""
        super().init_magics()
        self.register_magics(KernelMagics)
        self.installed = []
        self.magics_manager.register_alias("ed", "edit")
        self.magics_manager.register_lazy("store", "IPython.extensions.storemagic")

    def init_display_pub(self) -> None:
        """Let displays go the ordered way out."""
        super().init_display_pub()
        self.display_pub.outbox = self.outbox

    def init_displayhook(self) -> None:
        """Let results go the ordered way out."""
        super().init_displayhook()
        self.displayhook.outbox = self.outbox

    def enable_gui(self, gui: Any = None) -> None:
        """Take no event loop but asyncio's, which always runs."""
        if gui not in (None, "", "inline", "asyncio", "agg"):
            raise UsageError(f"the event loop {gui!r} needs a screen, and a sandbox has none")

    @contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """Keep no second copy of all that is printed (IPython ≥9.4 would)."""
        yield

    # -- what the front end does for us, sent with the result

    def _page(self, text: Any, start: int = 0, screen_lines: int = 0, pager_cmd: Any = None) -> None:
        data = text if isinstance(text, dict) else {"text/plain": text}
        self.payload_manager.write_payload({"source": "page", "data": data, "start": max(0, start)})

    def ask_exit(self) -> None:
        """Tell the front end that the user wants to leave; the sandbox stays until it is stopped."""
        self.payload_manager.write_payload({"source": "ask_exit", "keepkernel": bool(self.keepkernel_on_exit)})

    def set_next_input(self, text: str, replace: bool = False) -> None:
        """Propose the next cell's text."""
        self.payload_manager.write_payload({"source": "set_next_input", "text": text, "replace": replace})

    # -- the request that output belongs to

    @property
    def parent_header(self) -> Fields:
        """Return the front end's request; older name of `get_parent()`."""
        return self.get_parent()

    def get_parent(self) -> Fields:
        """Return the front end's request behind the calling code, as a Jupyter message."""
        return parent_of(origin.current())

    def set_parent(self, parent: Fields) -> None:
        """Let output of the calling code belong to another request of the front end."""
        self.set_thread_parent(parent)

    def set_thread_parent(self, parent: Fields) -> Any:
        """Do so and return a token for `reset_thread_parent`."""
        whose = origin.current()
        if whose is None:
            return None
        return origin.adopt(whose.under(parent))

    def reset_thread_parent(self, token: Any) -> None:
        """Undo `set_thread_parent`."""
        if token is not None:
            origin.restore(token)

    # -- running code

    def run_cell(self, *args: Any, **kwargs: Any) -> Any:
        """Run a cell, which may itself run cells."""
        with self._cell():
            return super().run_cell(*args, **kwargs)

    async def run_cell_awaiting(self, *args: Any, **kwargs: Any) -> Any:
        """Run a cell with top-level await on the running loop, with the same hooks around it."""
        result = None
        with self._cell():
            try:
                result = await self.run_cell_async(*args, **kwargs)
            finally:
                self.events.trigger("post_execute")
                if not kwargs.get("silent"):
                    self.events.trigger("post_run_cell", result)
        return result

    async def run_ast_nodes(self, *args: Any, **kwargs: Any) -> Any:
        """Run a cell's statements, knowing whose result they fill."""
        if self._depth == 1:
            self._result = kwargs.get("result")
        return await super().run_ast_nodes(*args, **kwargs)

    @contextmanager
    def _cell(self) -> Iterator[None]:
        if self._depth == 0:
            self._result = self.failure = None
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Show the exception that just occurred; an interrupt ends where it came."""
        without_handler(sys.exc_info()[1])
        super().showtraceback(*args, **kwargs)

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        """Keep the traceback of what ended the cell; show any other, such as that of `%run` or of a widget's callback."""
        result = self._result
        ends = self._depth == 1 and (result is None or evalue in (result.error_in_exec, result.error_before_exec))
        if ends:
            self.failure = stb
        else:
            content = {"ename": etype.__name__, "evalue": str(evalue), "traceback": stb}
            self.display_pub.send("error", content)

    def system_piped(self, cmd: str) -> None:
        """Run a command of the system's shell, its output coming as it is written; the exit code is left in `_exit_code`."""
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")
        from .commands import system  # brings pexpect, which few cells need

        sys.stdout.flush()
        command = self.var_expand(cmd, depth=1)
        code = system(command)
        self.user_ns["_exit_code"] = code
        if code == 0:
            self.installed += installed_by(command)
        if getattr(self, "system_raise_on_error", False) and code != 0:
            raise CalledProcessError(code, cmd)

    system = system_piped


InteractiveShellABC.register(ZMQInteractiveShell)
# tqdm and others know a notebook by this module being loaded, or by the shell's class being of it
ZMQInteractiveShell.__module__ = "ipykernel.zmqshell"
sys.modules.setdefault("ipykernel.zmqshell", sys.modules[__name__])


def parent_of(whose: origin.Origin | None) -> Fields:
    """Return the front end's request behind an origin, shaped as a Jupyter message."""
    if whose is None or not whose.request:
        return {}
    header = whose.request["header"]
    return {
        "header": header,
        "msg_id": header.get("msg_id", ""),
        "msg_type": header.get("msg_type", "execute_request"),
        "parent_header": {},
        "metadata": {},
        "content": {},
    }


def make_shell(outbox: Outbox, namespace_module: Any, kernel: Any) -> ZMQInteractiveShell:
    """Make the one shell, whose namespace is that of the given `__main__` module."""
    config = Config()
    # tqdm asks for this section to know that it is in a notebook
    config.IPKernelApp.remora = True
    shell: ZMQInteractiveShell = ZMQInteractiveShell.instance(
        config=config, user_module=namespace_module, user_ns=vars(namespace_module), outbox=outbox, kernel=kernel
    )
    kernel.shell = shell
    return shell
