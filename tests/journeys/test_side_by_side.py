"""Several at once: kernels, queued cells, a headless notebook, and two versions of Remora in one state directory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import remora
from journeys.driving import DEADLINE, STOP, Notebook, Place
from journeys.elsewhere import kept
from remora.wire import PROTOCOL

SOURCES = Path(remora.__file__).parents[2]


def _sandboxes(place: Place) -> set[Path]:
    return set((kept(place) / "sandboxes").iterdir())


def test_two_kernels_have_separate_sessions(place: Place, notebook: Notebook) -> None:
    """What one notebook's session holds is not in the other's, though both are called main."""
    before = _sandboxes(place)
    other = place.start(folder=notebook.folder)
    assert notebook.remote("mine = 1").ok
    assert "NameError" in other.remote("print(mine)").error
    assert len(_sandboxes(place) - before) == 1
    place.end(other)


def test_a_kernel_that_ends_takes_its_sandbox_along(place: Place, notebook: Notebook) -> None:
    """When a kernel is shut down for good, its sandbox ends."""
    before = _sandboxes(place)
    other = place.start()
    assert other.remote("1").ok
    (its,) = _sandboxes(place) - before
    gone = _wait_gone(its, lambda: place.end(other))
    assert gone


def _wait_gone(directory: Path, act: object) -> bool:
    """Act, and wait with inotify's own tool in reach of everybody: the directory's descriptor says when it is unlinked."""
    import select
    import time

    act()
    deadline = time.monotonic() + DEADLINE
    while directory.exists() and time.monotonic() < deadline:
        select.select([], [], [], 0.02)
    return not directory.exists()


def test_queued_cells_run_in_order(notebook: Notebook) -> None:
    """Twenty cells sent at once run one after the other, each with its own output."""
    assert notebook.remote("order = []").ok
    ran = notebook.collect(*(notebook.send(f"%%remote\norder.append({i}); print({i})") for i in range(20)))
    assert [cell.stdout for cell in ran] == [f"{i}\n" for i in range(20)]
    assert notebook.run("order").result == str(list(range(20)))


def test_headless_notebook_beside_a_kernel(place: Place, notebook: Notebook) -> None:
    """A notebook runs headless while a cell of a kernel runs, and neither waits for the other."""
    path = notebook.folder / "job.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('headless')")]), path)
    running = notebook.send("%%remote\nimport time\nfor i in range(200):\n    time.sleep(0.05)\nprint('long')")
    command = [str(Path(sys.executable).with_name("remora")), "run", str(path), str(path.with_name("out.ipynb"))]
    done = subprocess.run(command, env=place.environment, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    assert "headless" in path.with_name("out.ipynb").read_text()
    notebook.interrupt()
    (ran,) = notebook.collect(running)
    assert "KeyboardInterrupt" in ran.error


def test_two_versions_side_by_side(place: Place, notebook: Notebook, small_environment: str) -> None:
    """A version that speaks another protocol has a backend of its own beside the first, in the same state directory."""
    tree = place.root / "other-version"
    for part in ("kernel/remora", "provisioner/remora_provisioner", "backend/remora_backend"):
        shutil.copytree(SOURCES / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    wire = tree / "kernel" / "remora" / "wire.py"
    text = wire.read_text()
    wire.write_text(text.replace(f"PROTOCOL = {PROTOCOL}\n", "PROTOCOL = 900\n"))
    assert wire.read_text() != text
    paths = ":".join(str(tree / part) for part in ("kernel", "provisioner", "backend"))
    place.add_kernel("other", small_environment)
    other = place.start("other", PYTHONPATH=paths)
    assert other.run("%load_ext remora").ok
    assert other.run("import remora.wire; remora.wire.PROTOCOL").result == "900"
    ran = other.remote("print('newer')")
    assert ran.stdout == "newer\n", ran.error
    assert notebook.remote("print('older')").stdout == "older\n"
    assert {p.name for p in place.state.glob("backend-*")} == {f"backend-{PROTOCOL}", "backend-900"}
    assert other.run("%remote stop").ok
    subprocess.run([sys.executable, "-c", STOP], env=place.environment | {"PYTHONPATH": paths}, check=True, timeout=DEADLINE)
    place.end(other)
