"""Take the picture of the README: the first notebook in JupyterLab, run from its first cell on in a real sandbox.

Law: nothing is drawn or edited; what is on the picture was on the screen. Run by hand after a change that can be seen. Needs
Chromium, and an environment of its own beside the clone's .venv, whose kernel it takes:

    sudo apt-get install chromium fonts-liberation
    python3 -m venv /tmp/lab && /tmp/lab/bin/pip install jupyterlab playwright pillow
    make demo && /tmp/lab/bin/python docs/images/make_picture.py
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_name("remote-cell.png")
NOTEBOOK = "01-first-remote-cell.ipynb"
FIRST, LAST = "Train there", "learning.csv is in the folder"  # the cells on the picture, by what they say
WIDTH, HEIGHT, SCALE = 960, 2400, 2  # of the browser's window: high enough for everything
PATIENCE = 120_000  # milliseconds, for anything at all
TOKEN = "picture"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none", "recordTiming": False},
}


def prepare(folder: Path) -> dict[str, str]:
    """Lay out notebook, kernelspec and Lab's settings in `folder`, and return the environment for the server."""
    (folder / "digits").mkdir()
    for name in (NOTEBOOK, "network.json"):
        shutil.copy(ROOT / "notebooks" / name, folder / "digits")
    spec = json.loads((ROOT / "kernel" / "kernelspec" / "kernel.json").read_text())
    spec["argv"][0] = str(ROOT / ".venv" / "bin" / "python")
    (folder / "kernels" / "remora").mkdir(parents=True)
    (folder / "kernels" / "remora" / "kernel.json").write_text(json.dumps(spec))
    (folder / "settings").mkdir()
    (folder / "settings" / "overrides.json").write_text(json.dumps(SETTINGS))
    own = {name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    return {**os.environ, **own, "JUPYTER_PATH": str(folder), "REMORA_STATE_DIR": str(folder / "state")}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run JupyterLab on `folder`, yield the notebook's address, and end the server and all that it started."""
    environment = prepare(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [f"--ServerApp.port={port}", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder / 'digits'}"]
    options += ["--ServerApp.ip=127.0.0.1", f"--LabApp.app_settings_dir={folder / 'settings'}", "--no-browser", "--allow-root"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=folder) as server:
        assert server.stderr is not None
        said = b"".join(iter_until(server.stderr, b"is running at"))
        Thread(target=server.stderr.read).start()  # so that it never waits for a reader; ends with the server
        try:
            assert server.poll() is None, said.decode()
            yield f"http://127.0.0.1:{port}/doc/tree/{NOTEBOOK}?token={TOKEN}&reset"
        finally:
            server.terminate()
            remora = [str(ROOT / ".venv" / "bin" / "remora"), "stop", "--all"]
            subprocess.run(remora, env=environment, check=False, stdout=subprocess.DEVNULL)


def iter_until(lines: Iterable[bytes], words: bytes) -> Iterator[bytes]:
    """Yield lines up to the one that holds these words."""
    for line in lines:
        yield line
        if words in line:
            return


def run_all(page: Page) -> None:
    """Run the notebook from its first cell on and wait until the last has its number."""
    page.locator(".jp-Toolbar-kernelName", has_text="Remora").wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
    page.locator(".jp-Notebook .jp-Cell").first.click()
    for _ in range(page.locator(".jp-Notebook .jp-Cell").count()):
        page.keyboard.press("Shift+Enter")
    page.locator(".jp-CodeCell .jp-OutputArea-output", has_text="still has the model").wait_for()
    page.keyboard.press("Escape")


def crop(page: Page) -> dict[str, float]:
    """Return the rectangle from the first to the last cell of the picture."""
    top = box(page, FIRST)
    bottom = box(page, LAST, below=1)
    return {"x": top["x"], "y": top["y"], "width": top["width"], "height": bottom["y"] + bottom["height"] - top["y"]}


def box(page: Page, words: str, below: int = 0) -> Any:
    """Return the rectangle of the cell that holds these words, or of the one so many cells below it."""
    cells = page.locator(".jp-Notebook .jp-Cell")
    texts = cells.all_inner_texts()
    (at, *_) = [i for i, text in enumerate(texts) if words in text]
    return cells.nth(at + below).bounding_box()


def main() -> None:
    """Take the picture."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remora-picture-")))
        address = stack.enter_context(served(folder))
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE)
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        run_all(page)
        page.screenshot(path=PICTURE, clip=crop(page))
        browser.close()
    with Image.open(PICTURE) as taken:
        taken.convert("RGB").quantize(128).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
