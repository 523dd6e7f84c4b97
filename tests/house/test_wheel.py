"""One wheel gives the kernelspec, the IPython extension and the command, in an environment that never saw the repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from house import sources

_LOOK = """
import importlib.metadata, json, pathlib, sys
from jupyter_client.kernelspec import KernelSpecManager
import remora
spec = KernelSpecManager().get_kernel_spec("remora")
print(json.dumps({
    "argv": spec.argv, "name": spec.display_name, "interrupt": spec.interrupt_mode, "folder": spec.resource_dir,
    "code": remora.__file__, "version": importlib.metadata.version("remora"),
    "extension": "load_ipython_extension" in dir(remora) and callable(remora.load_ipython_extension),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from what the repository keeps, copied elsewhere."""
    copy = tmp_path_factory.mktemp("copy")
    for path in sources.kept_files():
        target = copy / sources.relative(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a clean environment that sees the dependencies of this one, but not Remora."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = str(place / "bin" / "python")
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--no-cache", "--python", python]
    subprocess.run([*uv, str(wheel)], check=True, capture_output=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # Not a .pth of ours is followed this way: the folder is on the path, but not a site folder, so nothing editable shows.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def test_the_wheel_holds_three_packages_and_nothing_generic(wheel: Path) -> None:
    """The wheel's top level has our three packages; no test, no notebook, no `kernel` or `backend`."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.startswith("remora-")} == set(sources.PACKAGES)
    assert all(f"{package}/py.typed" in names for package in sources.PACKAGES)


def test_a_clean_environment_finds_all_that_is_promised(environment: Path, tmp_path: Path) -> None:
    """The kernelspec, the IPython extension and the version are found, and come from the wheel."""
    python = environment / "bin" / "python"
    done = subprocess.run([str(python), "-c", _LOOK], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["name"] == "Python 3 (Remora)"
    assert found["interrupt"] == "message"
    assert found["argv"][-1].endswith("kernel_class=remora.jupyter.kernel.RemoraKernel")
    assert Path(found["folder"]).is_relative_to(environment)
    assert Path(found["code"]).is_relative_to(environment)
    assert found["extension"]


def test_the_command_answers(environment: Path, tmp_path: Path) -> None:
    """The command `remora` is installed and describes itself."""
    command = [str(environment / "bin" / "remora"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
