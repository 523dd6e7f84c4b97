"""Packages that cells and functions declare, in a real kernel: built once, given to living sandboxes, remembered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys.commands import until
from journeys.driving import Notebook, Place
from provisioner.images.wheels_by_hand import make_source, make_wheel

HANGS = """
import time, pathlib
def build_wheel(folder, settings=None, metadata=None):
    pathlib.Path({reached!r}).touch()
    time.sleep(600)
"""


def start(place: Place) -> Notebook:
    """Start a kernel, for which the index is a folder beside the notebook."""
    notebook = place.start("remora")
    folder = notebook.folder / "wheels"
    for name in ("alpha", "beta", "gamma"):
        make_wheel(folder, name, "1.0", {f"{name}.py": f"NAME = '{name} 1'\n"}, programs=f"say-{name} = {name}:print")
    make_wheel(folder, "alpha", "2.0", {"alpha.py": "NAME = 'alpha 2'\n"})
    make_source(folder, "endless", "1.0", HANGS.format(reached=str(notebook.folder / "reached")))
    variables = {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(folder), "PIP_NO_INDEX": "1"}
    assert notebook.run(f"import os; os.environ |= {variables}").ok
    assert notebook.remote("pass").ok
    return notebook


@pytest.fixture(scope="module")
def shared(place: Place) -> Notebook:
    """Give the tests one kernel."""
    return start(place)


@pytest.fixture
def session(notebook: Notebook) -> Iterator[str]:
    """Give a test a session of its own, without a sandbox at the beginning and at the end."""
    name = f"s{time.monotonic_ns()}"
    yield name
    assert notebook.run(f"%remote stop {name}").ok


def test_a_living_session_is_given_more(notebook: Notebook, session: str):
    """Packages come into the living sandbox, programs too, its variables stay; the next sandbox has them again."""
    assert notebook.remote("kept = [1]; import os; pid = os.getpid()", f"session={session}").ok
    assert notebook.remote("import alpha; alpha.NAME, kept", f"session={session} pip='alpha<2'").result == "('alpha 1', [1])"
    assert (
        notebook.remote("import beta; beta.NAME, os.getpid() == pid", f"session={session} pip=beta").result == "('beta 1', True)"
    )
    assert notebook.remote("!command -v say-alpha", f"session={session}").stdout.rstrip().endswith("/bin/say-alpha")
    assert notebook.run(f"%remote stop {session}").ok
    ran = notebook.remote("import alpha, beta; [alpha.NAME, beta.NAME]", f"session={session}")
    assert ran.result == "['alpha 1', 'beta 1']"


def test_what_was_imported_is_said_to_be_old(notebook: Notebook, session: str):
    """A newer version of what is imported counts in the next sandbox, and a line says so; --fresh starts with the line alone."""
    assert notebook.remote("import alpha", f"session={session} pip='alpha<2'").ok
    ran = notebook.remote("alpha.NAME", f"session={session} pip='alpha>=2'")
    assert ran.result == "'alpha 1'"
    assert "alpha: imported before" in ran.stderr
    assert notebook.remote("import alpha; alpha.NAME", f"session={session} pip='alpha>=2' --fresh").result == "'alpha 2'"


def test_pip_in_a_cell_is_remembered(notebook: Notebook, session: str):
    """`%pip install` counts at once, and in the session's next sandbox."""
    install = f"%pip install -q --find-links {notebook.folder / 'wheels'} gamma\nimport gamma\ngamma.NAME"
    ran = notebook.remote(install, f"session={session}")
    assert ran.result == "'gamma 1'", ran.stdout
    assert notebook.run(f"%remote stop {session}").ok
    assert not notebook.remote("import gamma", f"session={session}").ok  # an option says where pip looks: not to be repeated
    there = f"import os; os.environ['PIP_FIND_LINKS'] = {str(notebook.folder / 'wheels')!r}\n"
    assert notebook.remote(f"{there}!pip install -q gamma", f"session={session}").ok
    assert notebook.run(f"%remote stop {session}").ok
    assert notebook.remote("import gamma; gamma.NAME", f"session={session}").result == "'gamma 1'"


def test_packages_outlive_the_kernel(place: Place, shared: Notebook):
    """A kernel that is started again has the packages of its sessions, asked for or installed; one that has ended leaves none."""
    notebook = start(place)
    try:
        wheels = str(notebook.folder / "wheels")
        install = f"import os; os.environ['PIP_FIND_LINKS'] = {wheels!r}\n%pip install -q gamma"
        assert notebook.remote("import beta", "pip=beta").ok
        assert notebook.remote(install).ok
        assert notebook.remote("import alpha", "session=other pip='alpha<2'").ok
        assert notebook.run("%remote stop").ok and notebook.run("%remote stop other").ok
        for _ in range(2):  # and a first cell that fails costs nothing
            notebook.manager.restart_kernel(now=True)
            notebook.client.wait_for_ready(timeout=60)
            assert "no secret 'nobody'" in notebook.remote("1", "secret=nobody").error
        assert notebook.run(f"import os; os.environ |= {{'UV_OFFLINE': '1', 'UV_FIND_LINKS': {wheels!r}}}").ok
        assert notebook.remote("import beta, gamma; beta.NAME, gamma.NAME").result == "('beta 1', 'gamma 1')"
        assert notebook.run("%remote stop").ok
        notebook.manager.restart_kernel(now=False)
        notebook.client.wait_for_ready(timeout=60)
        assert notebook.remote("import alpha; alpha.NAME", "session=other").result == "'alpha 1'"
        assert notebook.remote("import alpha", "session=other --fresh").reply["ename"] == "ModuleNotFoundError"
        assert notebook.run("%remote stop other").ok
        before = [*(place.state / "kernels").iterdir()]
    finally:
        place.end(notebook)
    assert len([*(place.state / "kernels").iterdir()]) == len(before) - 1


def test_the_notebooks_own_default(place: Place, shared: Notebook):
    """What its metadata says holds for each cell, as if `%remote default` had said it; what is wrong there is told."""
    wheels = place.root / "wheels-of-default"
    make_wheel(wheels, "delta", "1.0", {"delta.py": "NAME = 'delta 1'\n"})
    path = place.root / "mine.ipynb"
    content: dict[str, object] = {"cells": [], "metadata": {"remora": {"default": "pip=delta env=WORD=x"}}}
    path.write_text(json.dumps(content))
    environment = {"JPY_SESSION_NAME": str(path), "UV_OFFLINE": "1", "UV_FIND_LINKS": str(wheels)}
    notebook = place.start("remora", **environment)
    try:
        assert notebook.remote("import delta, os; delta.NAME, os.environ['WORD']").result == "('delta 1', 'x')"
        assert 'pip="delta"' in notebook.run("%remote default").result
        assert notebook.run("%remote stop").ok
    finally:
        place.end(notebook)
    content["metadata"] = {"remora": {"default": {"memroy": "1GiB"}}}
    path.write_text(json.dumps(content))
    notebook = place.start("remora", **environment)
    try:
        assert "remora.default in the notebook's metadata: there is no option 'memroy'; did you mean memory?" in (
            notebook.remote("1").error
        )
        assert notebook.run("%remote default none").ok
        assert notebook.remote("1").result == "1"
        assert notebook.run("%remote stop").ok
    finally:
        place.end(notebook)


def test_an_environment_that_is_no_venv(place: Place, shared: Notebook):
    """One that has a whole Python of its own, as conda makes them: its packages are there, under its own paths, read-only."""
    prefix, stdlib = place.root / "miniconda3" / "envs" / "science", Path(sysconfig.get_path("stdlib"))
    python = prefix / "bin" / "python"
    python.parent.mkdir(parents=True)
    shutil.copy2(os.path.realpath(sys.executable), python.with_name(stdlib.name))
    python.symlink_to(stdlib.name)
    left_out = shutil.ignore_patterns("test", "idlelib", "*-packages", "config-*", "__pycache__")
    shutil.copytree(stdlib, prefix / "lib" / stdlib.name, symlinks=True, ignore=left_out)
    (prefix / "conda-meta").mkdir()
    asked = [python, "-I", "-c", "import site; print(site.getsitepackages()[0])"]
    site = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    assert site.is_relative_to(prefix)
    shutil.copytree(sysconfig.get_path("purelib"), site, ignore=shutil.ignore_patterns("__pycache__"))
    (site / "only_there.py").write_text("NAME = 'in conda'\n")
    place.add_kernel("science", str(python))
    notebook = place.start("science", CONDA_PREFIX=str(prefix))
    try:
        assert notebook.run("%load_ext remora").ok
        ran = notebook.remote("import only_there, sys\nprint(only_there.NAME, only_there.__file__, sys.base_prefix)")
        assert ran.stdout == f"in conda {site / 'only_there.py'} {prefix}\n"
        writing = "try:\n    open(only_there.__file__, 'a')\nexcept OSError:\n    print('refused')"
        assert notebook.remote(writing).stdout == "refused\n"
        assert notebook.run("%remote stop").ok
    finally:
        place.end(notebook)


def test_a_script_block(notebook: Notebook, session: str):
    """A PEP 723 block above `%%remote`, or below it, says what the cell needs."""
    block = "# /// script\n# dependencies = ['{}']\n# ///\n"
    ran = notebook.run(f"{block.format('beta')}%%remote session={session}\nimport beta; beta.NAME")
    assert ran.result == "'beta 1'"
    assert notebook.remote(f"{block.format('gamma')}import gamma; gamma.NAME", f"session={session}").result == "'gamma 1'"


def test_a_file_of_requirements(notebook: Notebook, session: str):
    """A file is read beside the notebook; one that is missing is an error, and the next cell runs."""
    (notebook.folder / "needs.txt").write_text("beta\nalpha<2\n")
    assert notebook.remote("import alpha; alpha.NAME", f"session={session} requirements=needs.txt").result == "'alpha 1'"
    ran = notebook.remote("1", f"session={session} requirements=gone.txt")
    assert "gone.txt cannot be read" in ran.error
    assert notebook.remote("1", f"session={session} requirements=needs.txt").result == "1"


def test_what_is_not_to_be_had(notebook: Notebook, session: str):
    """The error has uv's words and where the log is; the sandbox lives on."""
    assert notebook.remote("kept = 3", f"session={session}").ok
    ran = notebook.remote("kept", f"session={session} pip=no-such-package-at-all")
    assert "no-such-package-at-all was not found" in ran.error
    assert "remora image logs" in ran.error
    assert notebook.remote("kept", f"session={session}").result == "3"


def test_a_build_is_stopped(notebook: Notebook, session: str):
    """The stop button ends a build at once; its processes are gone, and the sandbox is as it was."""
    assert notebook.remote("kept = 4", f"session={session}").ok
    request = notebook.send(f"%%remote session={session} pip=endless\nkept")
    until((notebook.folder / "reached").exists, "the build")
    time.sleep(1.5)  # a quick cell shows no status line
    pressed = time.monotonic()
    notebook.interrupt()
    (ran,) = notebook.collect(request)
    assert ran.reply["ename"] == "KeyboardInterrupt"
    assert ran.messages[-1]["at"] - pressed < 2.0
    assert any("looking for endless" in line for line in ran.status_lines)
    assert notebook.remote("kept", f"session={session}").result == "4"


@pytest.fixture
def online(notebook: Notebook) -> Iterator[None]:
    """Let builds look where they would without the tests."""
    there = notebook.run("off = {name: os.environ.pop(name) for name in ('UV_OFFLINE', 'UV_FIND_LINKS')}")
    yield
    assert there.ok and notebook.run("os.environ |= off").ok


@pytest.mark.parametrize(
    ("package", "module"), [("dill==0.3.8", "dill"), ("ipython==8.20.0", "IPython"), ("traitlets==5.13.0", "traitlets")]
)
@pytest.mark.usefixtures("online")
def test_older_packages_that_remora_uses_itself(notebook: Notebook, session: str, package: str, module: str):
    """The user's version is the one imported, and variables, functions and classes of the notebook travel all the same."""
    made = "def add(x): return x + 1\nclass Pair:\n    def __init__(self): self.both = (1, 2)\npair, keys = Pair(), [1]"
    assert notebook.run(made).ok
    code = f"import {module}\nback = lambda: add(2)\n[{module}.__version__, add(1), pair.both, keys]"
    ran = notebook.remote(code, f"session={session} pip={package}", timeout=180)
    assert ran.result == f"['{package.split('==')[1]}', 2, (1, 2), [1]]", ran.error
    assert notebook.run("back()").result == "3"


@pytest.mark.parametrize("package", ["ipython==8.5.0", "traitlets==5.9.0"])
@pytest.mark.usefixtures("online")
def test_packages_below_the_floor(notebook: Notebook, session: str, package: str):
    """A cell is refused in one line that says what to write; a function runs."""
    ran = notebook.remote("1", f"session={session} pip={package}", timeout=180)
    line = ran.error.splitlines()[0]
    assert package.split("==")[0] in line.lower() and 'add pip="' in line
    called = notebook.run(f"import remora; remora.function(pip={package!r}, idle=1)(lambda: 7).remote()", timeout=180)
    assert called.ok, called.error
    assert called.result == "7"


@pytest.mark.usefixtures("online")
def test_a_bare_python(notebook: Notebook, session: str):
    """`python=` begins without the kernel's packages; what Remora needs lies behind the cell's own."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    code = "from importlib.util import find_spec; find_spec('sklearn')"
    ran = notebook.remote(code, f"session={session} python={version}", timeout=180)
    assert ran.ok and ran.result == "", ran.error
    assert notebook.remote("import dill\n%pip --version", f"session={session}").ok


def test_an_edited_module_is_announced(notebook: Notebook, session: str):
    """A local module that was edited after its import is named, once; with `%autoreload 2` it is simply the new one."""
    module = notebook.folder / "helpers_here.py"
    module.write_text("VALUE = 1\n")
    assert notebook.remote("import helpers_here; helpers_here.VALUE", f"session={session}").result == "1"
    assert notebook.remote("helpers_here.VALUE", f"session={session}").remarks == ""
    module.write_text("VALUE = 2\n# longer\n")
    ran = notebook.remote("helpers_here.VALUE", f"session={session}")
    assert ran.result == "1"
    assert ran.remarks.startswith("Remora: helpers_here.py changed since the import here; ")
    assert notebook.remote("helpers_here.VALUE", f"session={session}").remarks == ""
    reload = "from importlib import reload; reload(helpers_here); helpers_here.VALUE"
    assert notebook.remote(reload, f"session={session}").result == "2"
    assert notebook.remote("helpers_here.VALUE", f"session={session}").remarks == ""
    assert notebook.remote("%load_ext autoreload\n%autoreload 2", f"session={session}").ok
    module.write_text("VALUE = 3\n# longer still\n")
    ran = notebook.remote("helpers_here.VALUE", f"session={session}")
    assert (ran.result, ran.remarks) == ("3", "")


def test_a_build_outlives_the_backend():
    """The backend is killed in the middle of a build: its builder goes along, and the cell goes on with a new one."""
    place = Place()
    try:
        notebook = start(place)
        reached = notebook.folder / "reached"
        request = notebook.send("%%remote pip=endless\n1")
        until(reached.exists, "the build")
        (builder,) = place.processes("remora_provisioner.images.build")
        (backend,) = place.processes("remora_backend")
        os.kill(backend, signal.SIGKILL)
        until(lambda: builder not in place.processes("remora_provisioner.images.build"), "the builder's end")
        until(lambda: place.processes("remora_provisioner.images.build"), "the next builder")
        notebook.interrupt()
        (ran,) = notebook.collect(request)
        assert ran.reply["ename"] == "KeyboardInterrupt"
        assert notebook.remote("1").result == "1"
    finally:
        place.close()
