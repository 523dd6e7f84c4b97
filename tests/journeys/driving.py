"""A real kernel, driven as a front end drives it: requests sent, messages and their times kept, questions answered.

Law: speaks to a kernel only by Jupyter messages. Whoever makes a Place closes it; `close` ends kernels, sandboxes and backend.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import leaks
import remora
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_event_loop
from remora.wire import PROTOCOL

Message = dict[str, Any]
DEADLINE = 60.0  # seconds, for anything at all
KERNELSPEC = Path(remora.__file__).parents[1] / "kernelspec"
_FILES = re.compile(r"^Remora: \d+ files? (sent|fetched) .*\n", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STOP = (
    "from remora.client import client; from remora.wire import StopSandboxes\n"
    "c = client(); c.run(c.request(StopSandboxes([], True)))"
)


@dataclass
class Ran:
    """One cell as its front end saw it."""

    began: float
    """When it was sent, by the monotonic clock."""
    messages: list[Message] = field(default_factory=list)
    reply: Message = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the reply says so."""
        return self.reply.get("status") == "ok"

    def of(self, kind: str) -> list[Message]:
        """Return the contents of its messages of one type, status lines left out."""
        return [m["content"] for m in self.messages if m["msg_type"] == kind and not _is_status(m)]

    def text(self, name: str) -> str:
        """Return what came on stdout or stderr."""
        return "".join(content["text"] for content in self.of("stream") if content["name"] == name)

    @property
    def stdout(self) -> str:
        """What came on stdout."""
        return self.text("stdout")

    @property
    def stderr(self) -> str:
        """What came on stderr."""
        return self.text("stderr")

    @property
    def remarks(self) -> str:
        """What came on stderr, but for what is said where files go to another machine and come home."""
        return _FILES.sub("", self.stderr)

    @property
    def result(self) -> str:
        """The last expression as text, or nothing."""
        return "".join(content["data"]["text/plain"] for content in self.of("execute_result"))

    @property
    def order(self) -> list[str]:
        """The types of its messages in order, what every cell has and status lines left out."""
        kinds = [m["msg_type"] for m in self.messages if not _is_status(m)]
        return [kind for kind in kinds if kind not in ("status", "execute_input")]

    @property
    def status_lines(self) -> list[str]:
        """The status lines in order, as text."""
        return [m["content"]["data"]["text/plain"] for m in self.messages if _is_status(m)]

    @property
    def error(self) -> str:
        """The traceback as text without colours."""
        (content,) = self.of("error")
        return plain("\n".join(content["traceback"]))

    def took(self, kind: str = "status") -> float:
        """Seconds from sending to the last message of this type."""
        return float([m["at"] for m in self.messages if m["msg_type"] == kind][-1] - self.began)


def plain(text: str) -> str:
    """Return the text without colours."""
    return _COLOUR.sub("", text)


def _is_status(message: Message) -> bool:
    return "remora" in (message["content"].get("metadata") or {})


class Notebook:
    """One kernel and its one front end."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient, folder: Path) -> None:
        """Drive this kernel, whose notebook lies in `folder`."""
        self.manager, self.client, self.folder = manager, client, folder
        self.seen: list[Message] = []
        """Messages of all cells since this was last cleared."""

    def send(self, code: str, **options: Any) -> str:
        """Send a cell and return its request's id."""
        return str(self.client.execute(code, **{"allow_stdin": True, **options}))

    def run(self, code: str, **options: Any) -> Ran:
        """Run a cell to its end; see `collect` for the options."""
        names = ("on", "answers", "timeout")
        watching = {name: options.pop(name) for name in names if name in options}
        return self.collect(self.send(code, **options), **watching)[0]

    def remote(self, code: str, line: str = "", **options: Any) -> Ran:
        """Run a cell there."""
        return self.run(f"%%remote {line}".rstrip() + "\n" + code, **options)

    def collect(
        self, *ids: str, on: Callable[[Message], object] | None = None, answers: Sequence[str] = (), timeout: float = DEADLINE
    ) -> list[Ran]:
        """Watch these cells to their ends; `on` sees each message, `answers` are given to the questions in turn."""
        ran = {one: Ran(time.monotonic()) for one in ids}
        open_, replies = set(ids), set(ids)
        asked = iter(answers)
        for channel, message in self._arrivals(time.monotonic() + timeout):
            whose = ran.get(message["parent_header"].get("msg_id", ""))
            if channel == "stdin":
                self._answer(message, asked, on)
            elif channel == "shell" and whose is not None:
                whose.reply = message["content"]
                replies.discard(message["parent_header"]["msg_id"])
            elif channel == "iopub":
                self._keep(message, whose)
                if on is not None:
                    on(message)
                if is_idle(message):
                    open_.discard(message["parent_header"].get("msg_id", ""))
            if not open_ and not replies:
                return list(ran.values())
        raise AssertionError("unreachable")

    def _answer(self, message: Message, answers: Iterator[str], on: Callable[[Message], object] | None) -> None:
        if on is not None:
            on(message)
        answer = next(answers, None)
        if answer is not None:
            self.client.input(answer)

    def _keep(self, message: Message, whose: Ran | None) -> None:
        message["at"] = time.monotonic()
        if whose is not None:
            whose.messages.append(message)
        if message["msg_type"] != "status":
            self.seen.append(message)

    def _arrivals(self, deadline: float) -> Iterator[tuple[str, Message]]:
        """Yield what comes on any channel; AssertionError when the time is over."""
        channels = {name: getattr(self.client, f"{name}_channel") for name in ("iopub", "shell", "stdin")}
        poller = zmq.Poller()
        for channel in channels.values():
            poller.register(channel.socket, zmq.POLLIN)
        while True:
            left = deadline - time.monotonic()
            ready = dict(poller.poll(left * 1000)) if left > 0 else {}
            assert ready, "the kernel has been silent for too long"
            for name, channel in channels.items():
                if channel.socket in ready:
                    yield name, channel.get_msg(timeout=1)

    def until(self, found: Callable[[Message], object], timeout: float = DEADLINE) -> Message:
        """Return the first message, of those seen and those still to come, which is found to be the one."""
        for message in self.seen:
            if found(message):
                return message
        for channel, message in self._arrivals(time.monotonic() + timeout):
            if channel == "iopub":
                self._keep(message, None)
                if found(message):
                    return message
        raise AssertionError("unreachable")

    def interrupt(self) -> None:
        """Press the stop button: a message or a signal, as the kernelspec says."""
        self.manager.interrupt_kernel()

    def say(self, comm: str, data: Message) -> str:
        """Send a comm message as a widget's view does, and return its id."""
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def ask(self, kind: str, *arguments: Any) -> Message:
        """Send a request such as complete, inspect or is_complete, and return the reply's content."""
        request = getattr(self.client, kind)(*arguments)
        for channel, message in self._arrivals(time.monotonic() + DEADLINE):
            if channel == "shell" and message["parent_header"].get("msg_id") == request:
                return dict(message["content"])
            if channel == "iopub":
                self._keep(message, None)
        raise AssertionError("unreachable")


def is_idle(message: Message) -> bool:
    """Tell whether the message ends a request."""
    return message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"


def _copy_packed(source: Path, target: Path) -> None:
    """Copy what a backend keeps so that it need not look at whole environments again."""
    if (source / "bundles").exists():
        shutil.copytree(source / "bundles", target / "bundles", dirs_exist_ok=True)
    if (source / "images/folders.cache").exists():
        (target / "images").mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "images/folders.cache", target / "images")


class Place:
    """A state directory, kernelspecs and a notebook's folder of their own, and the kernels started with them."""

    packed: ClassVar[Path | None] = None
    """Where it is kept what backends know of files that go to other machines: the next one need not look at them all again."""

    def __init__(self, **environment: str) -> None:
        """Make the folders; kernels get these environment variables too."""
        self.root = Path(tempfile.mkdtemp(prefix="place-"))
        self.state = self.root / "state"
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "REMORA_STATE_DIR": str(self.state),
            "JUPYTER_PATH": str(self.root),
            **environment,
        }
        self.environment.pop("PYTHONPATH", None)
        self._kernels: list[Notebook] = []
        ensure_event_loop()  # jupyter_client makes one at its first request, and keeps it
        self._before = leaks.take(self.root.parent)
        self._log = (self.root / "kernel.log").open("ab")
        if self.packed:
            _copy_packed(self.packed, self.backend)
        self.add_kernel("remora", sys.executable, json.loads((KERNELSPEC / "kernel.json").read_text()))
        self.add_kernel("plain", sys.executable)

    def keep_packed(self) -> None:
        """Let the next place's backend know what this one's knows of files that go to other machines."""
        if self.packed:
            _copy_packed(self.backend, self.packed)

    @property
    def backend(self) -> Path:
        """The folder of the backend that kernels here start."""
        return self.state / f"backend-{PROTOCOL}"

    def add_kernel(self, name: str, python: str, spec: Message | None = None) -> None:
        """Add a kernelspec that starts this Python; without `spec` ipykernel as it is."""
        argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = spec or {"argv": argv, "display_name": name, "language": "python"}
        folder = self.root / "kernels" / name
        folder.mkdir(parents=True)
        argv = [python if word == "python" else word for word in spec["argv"]]
        (folder / "kernel.json").write_text(json.dumps(spec | {"argv": argv}))

    @cached_property
    def specs(self) -> KernelSpecManager:
        """The kernelspecs of this place, no others."""
        return KernelSpecManager(kernel_dirs=[str(self.root / "kernels")], ensure_native_kernel=False)

    def start(self, kernel: str = "remora", folder: Path | None = None, **environment: str) -> Notebook:
        """Start a kernel for a notebook in `folder`, by default a new one."""
        folder = folder or Path(tempfile.mkdtemp(prefix="notebook-", dir=self.root))
        door = self.root / f"door-{secrets.token_hex(3)}"  # a number of a port may be another's before the kernel takes it
        manager = KernelManager(kernel_name=kernel, kernel_spec_manager=self.specs, transport="ipc", ip=str(door))
        manager.start_kernel(cwd=str(folder), env=self.environment | environment, stdout=self._log, stderr=self._log)
        client = manager.client()
        client.start_channels()
        notebook = Notebook(manager, client, folder)
        self._kernels.append(notebook)
        client.wait_for_ready(timeout=DEADLINE)
        return notebook

    def end(self, notebook: Notebook) -> None:
        """End one kernel as its front end does."""
        self._kernels.remove(notebook)
        notebook.client.stop_channels()
        notebook.manager.shutdown_kernel()
        notebook.manager.cleanup_resources()

    def stop_all(self, state: Path) -> None:
        """End the backend that has this state directory, with all its sandboxes."""
        environment = self.environment | {"REMORA_STATE_DIR": str(state)}
        subprocess.run([sys.executable, "-c", STOP], env=environment, check=True, timeout=DEADLINE)

    def processes(self, module: str) -> list[int]:
        """Return the processes of this place that run a module of ours, found as `ps` shows them."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if module.encode() in words and any(str(self.state).encode() in word for word in words):
                found.append(int(path.parent.name))
        return found

    def close(self) -> None:
        """End kernels, sandboxes and backend, and fail if anything of them is left."""
        for notebook in self._kernels[::-1]:
            self.end(notebook)
        if self.state.exists():
            self.stop_all(self.state)
        self._log.close()
        self.keep_packed()
        left = leaks.settle(self._before, self.root.parent)
        shutil.rmtree(self.root)
        assert not left, f"left behind: {left}"
