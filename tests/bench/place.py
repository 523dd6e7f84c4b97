"""Where a bench takes place: a folder for the notebook, a state directory of its own, and kernels driven by jupyter_client.

Law: nothing of the person's is touched, and nothing is left when a Place is closed.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager

_DEADLINE = 60.0
_KERNELSPEC = Path(__file__).resolve().parents[2] / "kernel" / "kernelspec"
_STOP = (
    "from remora.client import client; from remora.wire import StopSandboxes\n"
    "c = client(); c.run(c.request(StopSandboxes([], True)))"
)


class Specs(KernelSpecManager):
    """The two kernels that are compared, started by one Python."""

    python = sys.executable

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return kernel `remora` as it is in the tree, or plain ipykernel."""
        spec = KernelSpec.from_resource_dir(str(_KERNELSPEC))
        spec.argv = [self.python, *(a for a in spec.argv[1:] if kernel_name == "remora" or "kernel_class" not in a)]
        return spec


class Place:
    """A folder, a state directory, and what runs there."""

    def __init__(self, root: Path) -> None:
        """Use this empty folder."""
        self.state, self.folder = root / "state", root / "notebook"
        for folder in (self.state, self.folder):
            folder.mkdir()
        self.environment = os.environ | {"REMORA_STATE_DIR": str(self.state)}

    def run(self, *arguments: str) -> None:
        """Run this Python to its end."""
        subprocess.run([sys.executable, *arguments], env=self.environment, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        """End every sandbox and the backend, if there is one."""
        if any(self.state.glob("backend-*/socket")):
            self.run("-c", _STOP)

    @contextmanager
    def kernel(self, name: str, python: str = sys.executable, folder: Path | None = None) -> Iterator[Notebook]:
        """Start a kernel by a Python in a folder, and end it afterwards."""
        specs = Specs()
        specs.python = python
        door = str(self.state / f"door-{secrets.token_hex(3)}")
        manager = KernelManager(kernel_name=name, kernel_spec_manager=specs, transport="ipc", ip=door)
        manager.start_kernel(cwd=str(folder or self.folder), env=self.environment)
        client: BlockingKernelClient = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=_DEADLINE)
            notebook = Notebook(client)
            if name != "remora":
                notebook.run("%load_ext remora")
            yield notebook
        finally:
            client.stop_channels()
            manager.shutdown_kernel()


@contextmanager
def place() -> Iterator[Place]:
    """Make a place, and take away all that came to be there."""
    with tempfile.TemporaryDirectory(prefix="remora-bench-", ignore_cleanup_errors=True) as root:
        here = Place(Path(root))
        try:
            yield here
        finally:
            here.stop()


class Notebook:
    """One kernel, as its front end sees it."""

    def __init__(self, client: BlockingKernelClient) -> None:
        """Drive the kernel of this client."""
        self._client = client

    def run(self, code: str) -> float:
        """Run a cell and return the seconds until the kernel is idle again; AssertionError when the cell fails."""
        began = time.perf_counter()
        request = self._client.execute(code)
        while not self._idle(request):
            pass
        took = time.perf_counter() - began
        reply = self._client.get_shell_msg(timeout=_DEADLINE)["content"]
        assert reply["status"] == "ok", reply
        return took

    def watch(self, code: str, seen: Callable[[str], None], until: Callable[[], bool] = lambda: False) -> None:
        """Run a cell and pass on what it prints as it comes, to its end or `until` that is enough."""
        request = self._client.execute(code)
        while not until():
            message = self._client.get_iopub_msg(timeout=_DEADLINE)
            if message["parent_header"].get("msg_id") == request:
                seen(message["content"].get("text", ""))
                if message["content"].get("execution_state") == "idle":
                    break

    def start(self, code: str) -> None:
        """Start a cell without waiting for it."""
        self._client.execute(code)

    def _idle(self, request: str) -> bool:
        message = self._client.get_iopub_msg(timeout=_DEADLINE)
        ours = message["parent_header"].get("msg_id") == request
        return ours and message["content"].get("execution_state") == "idle"
