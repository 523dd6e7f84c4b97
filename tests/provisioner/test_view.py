"""What a sandbox sees: a layer of its own above an environment that nothing touches, asked of real interpreters."""

from __future__ import annotations

import dataclasses
import ensurepip
import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from remora.errors import PlaceError
from remora.images import Image, Mirror
from remora.images.steps import MirrorBase
from remora.resources import SandboxSpec
from remora_provisioner import view
from remora_provisioner.images.fitting import Fitting

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def install(site: Path, name: str, version: str) -> None:
    """Put a package into a folder of packages, as pip leaves one there."""
    (site / f"{name}.py").write_text(f"version = {version!r}\n")
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA.format(name=name, version=version))
    (info / "RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
    (info / "INSTALLER").write_text("pip\n")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a virtual environment with pip and one package, `carried` 1.0."""
    place = tmp_path_factory.mktemp("environment") / "env"
    wheels = list(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    venv.create(place, symlinks=True, with_pip=not wheels)
    site = place / "lib" / f"python{VERSION}" / "site-packages"
    for wheel in wheels:  # unpacked, which takes a tenth of the time that installing it takes
        zipfile.ZipFile(wheel).extractall(site)
    install(site, "carried", "1.0")
    yield place


@pytest.fixture
def base(environment: Path, tmp_path: Path) -> MirrorBase:
    """Give the image of that environment, with an editable folder beside it."""
    site = environment / "lib" / f"python{VERSION}" / "site-packages"
    root = tmp_path / "editable"
    root.mkdir()
    (root / "edited.py").write_text("here = True\n")
    (root / "own.pth").write_text(f"{tmp_path / 'further'}\n")
    return Mirror(
        executable=str(environment / "bin" / "python"),
        prefix=str(environment),
        base_prefix=sys.base_prefix,
        version=VERSION,
        site_packages=(str(site),),
        roots=(str(root),),
    ).base()


@pytest.fixture
def interpreter(base: MirrorBase, tmp_path: Path) -> Path:
    """Give the interpreter of a layer above it."""
    (tmp_path / "sandbox").mkdir()
    return view.build_layer(tmp_path / "sandbox", Fitting.mirror(base))


def ask(interpreter: Path, code: str) -> Any:
    """Return what code prints as JSON, run by that interpreter with nothing in its environment."""
    done = subprocess.run([interpreter, "-c", code], cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pip(interpreter: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pip in the layer, without a network."""
    env = {"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run([interpreter, "-m", "pip", *arguments], cwd="/", env=env, capture_output=True, text=True)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every file below a folder with size and time, compiled ones left out."""
    found = {p: p.lstat() for p in folder.rglob("*") if "__pycache__" not in p.parts}
    return {str(path): (about.st_size, about.st_mtime_ns) for path, about in found.items() if path.is_file()}


# ---- the layer ------------------------------------------------------------------------------------------------------------


def test_what_is_installed_comes_first_then_the_mirror(interpreter: Path, base: MirrorBase) -> None:
    """The order of sys.path: the standard library, the layer, the mirrored packages, the editable folders."""
    path = ask(interpreter, "import json, sys; print(json.dumps(sys.path))")
    layer = str(interpreter.parents[1] / "lib" / f"python{VERSION}" / "site-packages")
    places = [path.index(folder) for folder in (layer, *base.site_packages, *base.roots)]
    assert places == sorted(places)
    assert path.index(next(p for p in path if p.endswith(f"/lib/python{VERSION}"))) < places[0]


def test_the_interpreter_is_the_kernels_in_an_environment_of_its_own(interpreter: Path) -> None:
    """It says that it lives in the layer, and that its base is the kernel's base."""
    code = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.executable]))"
    assert ask(interpreter, code) == [str(interpreter.parents[1]), sys.base_prefix, str(interpreter)]


def test_everything_mirrored_can_be_imported(interpreter: Path) -> None:
    """Packages of the environment and of editable folders are there; so is what their own path files name."""
    assert ask(interpreter, "import carried, edited, json; print(json.dumps([carried.version, edited.here]))") == ["1.0", True]


def test_pip_sees_the_mirrored_packages_and_leaves_them_alone(interpreter: Path, environment: Path) -> None:
    """They are listed and satisfy requirements, but lie outside of the layer: pip removes none of them."""
    before = snapshot(environment)
    assert "carried" in pip(interpreter, "list").stdout
    assert pip(interpreter, "install", "carried").returncode == 0
    removed = pip(interpreter, "uninstall", "-y", "carried")
    assert "outside environment" in removed.stdout + removed.stderr
    assert snapshot(environment) == before
    assert ask(interpreter, "import carried, json; print(json.dumps(carried.version))") == "1.0"


def test_another_version_goes_into_the_layer(interpreter: Path, environment: Path, tmp_path: Path) -> None:
    """Installing a newer version puts it in front and changes nothing of the mirrored environment."""
    source = tmp_path / "wheel"
    source.mkdir()
    install(source, "carried", "2.0")
    wheel = tmp_path / "carried-2.0-py3-none-any.whl"
    (source / "carried-2.0.dist-info" / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    subprocess.run([sys.executable, "-m", "zipfile", "-c", wheel, *source.iterdir()], check=True)
    before = snapshot(environment)
    done = pip(interpreter, "install", str(wheel))
    assert done.returncode == 0, done.stderr
    assert snapshot(environment) == before
    code = "import carried, json; print(json.dumps([carried.version, carried.__file__]))"
    version, file = ask(interpreter, code)
    assert version == "2.0"
    assert Path(file).is_relative_to(interpreter.parents[1])
    assert ask(environment / "bin" / "python", code)[0] == "1.0"


def test_an_interpreter_that_is_gone(base: MirrorBase, tmp_path: Path) -> None:
    """An environment that was deleted under a living kernel is said, with what to do."""
    with pytest.raises(PlaceError, match="restart the kernel") as caught:
        view.build_layer(tmp_path, Fitting.mirror(dataclasses.replace(base, executable=str(tmp_path / "gone" / "python"))))
    assert caught.value.reason == "image-failed"


@pytest.mark.parametrize("name", ["with space", "qu'ote", 'dou"ble', "back\\slash", "é"])
def test_folders_with_odd_names(base: MirrorBase, tmp_path: Path, name: str) -> None:
    """Any name that a folder can have comes through the path file."""
    odd = tmp_path / name
    odd.mkdir()
    (odd / "odd.py").write_text("here = 1\n")
    (tmp_path / "layer").mkdir()
    interpreter = view.build_layer(tmp_path / "layer", Fitting.mirror(dataclasses.replace(base, roots=(str(odd),))))
    assert ask(interpreter, "import json, odd; print(json.dumps(odd.here))") == 1


# ---- what is seen ---------------------------------------------------------------------------------------------------------


STATE = Path("/nowhere/state")


@pytest.fixture
def spec(base: MirrorBase, tmp_path: Path) -> SandboxSpec:
    """Give a spec with a home and a notebook's folder in it."""
    home = tmp_path / "ada"
    (home / "project" / "src").mkdir(parents=True)
    return SandboxSpec(Image(base).to_spec(), folder=str(home / "project"), home=str(home))


def with_base(spec: SandboxSpec, **changes: object) -> SandboxSpec:
    """Return the spec with another base of its image."""
    return dataclasses.replace(spec, image=spec.image | {"base": spec.image["base"] | changes})


def fitting(spec: SandboxSpec) -> Fitting:
    """Return how a sandbox by that spec is fitted out."""
    base = Image.from_dict(spec.image).base
    assert isinstance(base, MirrorBase)
    return Fitting.mirror(base)


def seen(spec: SandboxSpec, directory: Path) -> dict[str, bool]:
    """Return what a sandbox by that spec would see, and whether it may write there, in mount order."""
    (directory / view.LAYER).mkdir(exist_ok=True)
    folder, _ = view.shared_folder(spec, STATE)
    (directory / "caches").mkdir(exist_ok=True)
    found = view.mounts(spec, fitting(spec), directory, folder, directory / "caches")
    assert all(source == target for source, target, _ in found)
    return {source: writable for source, _, writable in found}


def test_the_folder_the_layer_and_caches_can_be_written_and_nothing_else(spec: SandboxSpec, tmp_path: Path) -> None:
    """The environment, its base and editable folders are shown read-only."""
    found = seen(spec, tmp_path)
    own = {spec.folder, str(tmp_path / view.LAYER), str(tmp_path / "caches")}
    assert {path for path, writable in found.items() if writable} == own
    assert {spec.image["base"]["prefix"], *spec.image["base"]["roots"]} <= found.keys()


def test_parents_come_before_what_lies_below(spec: SandboxSpec, tmp_path: Path) -> None:
    """A mount never covers one that was made before it."""
    paths = list(seen(spec, tmp_path))
    for place, path in enumerate(paths):
        assert not [later for later in paths[place + 1 :] if path.startswith(later + "/")]


@pytest.mark.parametrize(("files", "expected"), [("rw", True), ("ro", False), ("none", None)])
def test_files(spec: SandboxSpec, tmp_path: Path, files: str, expected: bool | None) -> None:
    """The folder is there to write, to read, or not at all; none of them needs a line of explanation."""
    changed = dataclasses.replace(spec, files=files)
    assert seen(changed, tmp_path).get(str(spec.folder)) is expected
    assert view.shared_folder(changed, STATE)[1] is None


def test_an_editable_folder_inside_the_notebooks_can_be_written(spec: SandboxSpec, tmp_path: Path) -> None:
    """What lies in the notebook's folder follows files=, even if modules are imported from there."""
    inside = str(Path(str(spec.folder)) / "src")
    changed = with_base(spec, roots=[inside, str(spec.folder)])
    found = seen(changed, tmp_path)
    assert found[str(spec.folder)] is True
    assert inside not in found


def test_an_environment_inside_the_notebooks_folder_stays_read_only(spec: SandboxSpec, tmp_path: Path) -> None:
    """A virtual environment of the project's is the image, and the image is never written."""
    env = Path(str(spec.folder)) / ".venv"
    env.mkdir()
    found = seen(with_base(spec, prefix=str(env)), tmp_path)
    assert found[str(env)] is False
    assert list(found).index(str(spec.folder)) < list(found).index(str(env))


def test_the_home_is_never_shown(spec: SandboxSpec, tmp_path: Path) -> None:
    """Neither the home directory nor one that holds it, by its own name or by a link, comes in by any way."""
    home = str(spec.home)
    (tmp_path / "link").symlink_to(home)
    for folder in (home, str(tmp_path), str(tmp_path / "link"), home + "/", home + "/project/.."):
        changed = dataclasses.replace(with_base(spec, roots=[folder]), folder=folder)
        assert view.shared_folder(changed, STATE)[0] is None
        assert "home directory" in str(view.shared_folder(changed, STATE)[1])
        assert not {home, str(tmp_path), str(tmp_path / "link"), folder} & seen(changed, tmp_path).keys()


@pytest.mark.parametrize("folder", ["/", "/tmp", "/var/tmp", "/home", "/usr", "/etc", "/usr/share/doc", "/opt/project", "/sys/x"])
def test_what_belongs_to_everybody_is_not_shared(spec: SandboxSpec, tmp_path: Path, folder: str) -> None:
    """A notebook that lies in such a folder is told that its files are not there."""
    changed = dataclasses.replace(spec, folder=folder)
    shared, line = view.shared_folder(changed, STATE)
    assert shared is None
    assert f"is {folder}, which is not shared; move the notebook" in str(line)
    assert folder not in seen(changed, tmp_path)


def test_a_folder_with_our_own_state_in_it(spec: SandboxSpec) -> None:
    """It is not shared, and the line says what to do."""
    folder, line = view.shared_folder(spec, Path(spec.folder or "") / ".remora" / "backend-1")
    assert folder is None and line is not None and "REMORA_STATE_DIR" in line


def test_no_folder_at_all(spec: SandboxSpec, tmp_path: Path) -> None:
    """A script or test without a folder sees its environment only."""
    changed = dataclasses.replace(spec, folder=None)
    assert view.shared_folder(changed, STATE) == (None, None)
    writable = {path for path, writable in seen(changed, tmp_path).items() if writable}
    assert writable == {str(tmp_path / view.LAYER), str(tmp_path / "caches")}


def test_what_is_not_there_is_not_mounted(spec: SandboxSpec, tmp_path: Path) -> None:
    """A folder that was deleted since does not keep a sandbox from starting."""
    changed = with_base(spec, roots=[str(tmp_path / "gone")])
    assert str(tmp_path / "gone") not in seen(changed, tmp_path)


def test_what_came_from_another_machine_is_there_or_it_is_said(spec: SandboxSpec, tmp_path: Path) -> None:
    """No sandbox starts without a part of its image."""
    fitted = dataclasses.replace(fitting(spec), places=(("/elsewhere/env", str(tmp_path / "farms/lost")),))
    with pytest.raises(PlaceError, match="/elsewhere/env did not come"):
        view.mounts(spec, fitted, tmp_path, None, tmp_path / "caches")


def test_the_environment_inside(spec: SandboxSpec, tmp_path: Path) -> None:
    """PATH begins with the layer; what was carried comes through; nothing of this process's own does."""
    changed = dataclasses.replace(spec, environment=(("LANG", "de_DE.UTF-8"), ("TZ", "UTC"), ("PATH", "/evil")))
    found = view.environment(changed, fitting(changed), tmp_path / "env" / "bin" / "python", {"OMP_NUM_THREADS": "2"})
    assert found["PATH"].split(":")[:2] == [str(tmp_path / "env" / "bin"), os.path.join(spec.image["base"]["prefix"], "bin")]
    assert (found["LANG"], found["TZ"], found["OMP_NUM_THREADS"]) == ("de_DE.UTF-8", "UTC", "2")
    assert found["VIRTUAL_ENV"] == str(tmp_path / "env")
    assert found["HOME"] == spec.home
    assert view.environment(dataclasses.replace(spec, home=None), fitting(spec), tmp_path / "e" / "bin" / "p", {})["HOME"] == "/"
    assert set(found) == {"PATH", "VIRTUAL_ENV", "TERM", "LANG", "TZ", "OMP_NUM_THREADS", "HOME"}
