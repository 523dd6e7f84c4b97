"""Images from Python and the command line: functions with packages, `build`, `publish`, and `remora image …`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import remora
from journeys import elsewhere
from journeys.calling import backend, calling
from journeys.commands import Commands, until
from journeys.driving import Place
from provisioner.images.systems import Door
from provisioner.images.wheels_by_hand import make_wheel
from remora.errors import ImageFailed, OptionError

from provisioner import needs


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the packages that can be had."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("alpha", "beta"):
        for version in ("1.0", "2.0"):
            make_wheel(folder, name, version, {f"{name}.py": f"NAME = '{name} {version}'\n"})
    return folder


@pytest.fixture(scope="module")
def warm(wheels: Path) -> Iterator[Place]:
    """Give the file's tests a place whose backend runs, with a folder as its index."""
    with calling(UV_OFFLINE="1", UV_FIND_LINKS=str(wheels)) as place:
        backend()
        elsewhere.reached(place)
        yield place


@pytest.fixture
def commands(warm: Place) -> Commands:
    """Give a test the command, in a folder of its own."""
    return Commands(warm)


def name_of(module: str) -> str:
    """Return what a module calls itself."""
    from importlib import import_module

    return str(import_module(module).NAME)


def test_functions_with_packages(warm: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """A function runs where its packages are; another version is another sandbox; the build says what it does, once."""
    older = remora.Image.mirror().pip_install("alpha<2")
    newer = remora.Image.mirror().pip_install("alpha>=2", "beta<2").env({"GREETING": "hello"})
    assert remora.function(image=older)(name_of).remote("alpha") == "alpha 1.0"
    assert capfd.readouterr().err.count("looking for alpha<2") == 1
    assert list(remora.function(image=newer)(name_of).map(["alpha"] * 5)) == ["alpha 2.0"] * 5
    assert capfd.readouterr().err.count("looking for alpha>=2, beta<2") == 1
    assert remora.function(pip="beta")(name_of).remote("beta") == "beta 2.0"

    def greeting() -> str:
        import os

        return os.environ["GREETING"]

    assert remora.function(image=newer)(greeting).remote() == "hello"
    with pytest.raises(ModuleNotFoundError):
        remora.function(name_of).remote("alpha")


@needs.namespaces
def test_a_build_that_nobody_waits_for_ends(warm: Place) -> None:
    """When its last call is cancelled while its image is built, the build ends, and the next call has it built again."""
    door = Door()
    try:
        image = remora.Image.mirror().run_commands(f"{door.knock}; mkdir /made")
        there = remora.function(image=image)(os.path.exists)
        calls = [there.spawn("/made"), there.spawn("/made")]
        with door.wait() as line:
            calls[0].cancel()
            with pytest.raises(TimeoutError):
                calls[1].get(timeout=1)
            calls[1].cancel()
            assert line.recv(1) == b""
        again = there.spawn("/made")
        with door.wait() as line:
            line.sendall(b"+")
        assert again.get(timeout=60) is True
    finally:
        door.close()


def test_the_first_use_says_which_files_it_opened(commands: Commands) -> None:
    """Of every tree it is known what its first use opened: modules that were imported, none of the others."""
    image = remora.Image.mirror().pip_install("alpha<2", "beta<2").env({"FIRST": "1"}).build()
    assert remora.function(image=image)(name_of).remote("alpha") == "alpha 1.0"

    def opened() -> list[str] | None:
        rows = json.loads(commands.run("image", "ls", "--json").stdout)
        return next(row["opened"] for row in rows if row["step"].get("requirements") == ["alpha<2", "beta<2"])

    until(opened, "the list")
    files = opened() or []
    assert any("alpha" in file and file.endswith((".py", ".pyc")) for file in files)
    assert not any(file.endswith("beta.py") for file in files)


def test_what_cannot_be_built_fails_the_call(warm: Place) -> None:
    """The error of the build is what the call raises."""
    broken = remora.Image.mirror().pip_install("no-such-package-at-all")
    with pytest.raises(remora.RemoraError, match="no-such-package-at-all was not found"):
        remora.function(image=broken)(name_of).remote("alpha")
    with pytest.raises(ImageFailed, match="no-such-package-at-all was not found"):
        broken.build()


def test_built_published_listed_shown_and_removed(commands: Commands, capfd: pytest.CaptureFixture[str]) -> None:
    """An image goes from a recipe to a name that anybody on this machine can use, and away again."""
    image = remora.Image.mirror().pip_install("beta<2")
    assert image.build() is image
    assert "looking for beta<2" in capfd.readouterr().err
    assert image.publish("mine") is image
    assert remora.function(image="mine")(name_of).remote("beta") == "beta 1.0"
    assert remora.function(image=remora.Image.from_name("mine"), pip="alpha")(name_of).remote("alpha") == "alpha 2.0"
    rows = json.loads(commands.run("image", "ls", "--json").stdout)
    (row,) = [row for row in rows if row["step"].get("requirements") == ["beta<2"]]
    listing = commands.run("image", "ls").stdout
    assert row["key"][:12] in listing and "Published: mine" in listing
    shown = json.loads(commands.run("image", "show", "mine", "--json").stdout)
    assert shown[-1]["packages"] == ["beta==1.0"]
    assert "sha256" in shown[-1]["lock"]
    assert "beta==1.0" in commands.run("image", "show", row["key"][:12]).stdout
    assert "beta" in commands.run("image", "logs", row["key"][:12]).stdout
    assert commands.run("image", "verify").stderr == "all is well\n"
    assert commands.run("image", "rm", "mine").stdout == "mine\n"
    with pytest.raises(remora.RemoraError, match="no image is published as 'mine'"):
        remora.function(image="mine")(name_of).remote("beta")
    for words in (("show", "mine"), ("rm", "mine"), ("logs", "zz")):
        assert "lists them" in commands.run("image", *words, code=2).stderr


def test_what_is_used_is_not_collected(commands: Commands) -> None:
    """A collection of everything leaves what is published and what a living sandbox runs in, whole."""
    kept = remora.Image.mirror().pip_install("alpha<2")
    kept.publish("kept")
    remora.Image.mirror().pip_install("alpha>=2", "beta<2").build()
    size = json.loads(commands.run("image", "gc", "--json").stdout)[0]["size"]
    (freed,) = json.loads(commands.run("image", "gc", "--all", "--json").stdout)
    assert freed["bytes"] > 0 and freed["size"] < size
    keys = {row["key"] for row in json.loads(commands.run("image", "ls", "--json").stdout)}
    assert len(keys) == 1
    assert commands.run("image", "verify").stderr == "all is well\n"
    assert remora.function(image=kept)(name_of).remote("alpha") == "alpha 1.0"
    assert "most=16GiB" in commands.run("image", "gc", "--most", "lots", code=2).stderr


def nested(image: remora.Image) -> str:
    """Call a function with an image from inside a sandbox."""
    return str(remora.function(image=image, idle=1)(name_of).remote("alpha"))


def test_code_in_a_sandbox_has_images_built(warm: Place, tmp_path: Path) -> None:
    """From inside, packages of an index are built; what reads this machine's files is refused, and so are other questions."""
    outer = remora.function(nested)
    assert outer.remote(remora.Image.mirror().pip_install("alpha<2", "beta>=2")) == "alpha 1.0"
    for image in (
        remora.Image.mirror().pip_install(str(tmp_path / "alpha-1.0-py3-none-any.whl")),
        remora.Image.mirror().pip_install("alpha", find_links=str(tmp_path)),
        remora.Image.mirror().add_local_file("/etc/passwd", "/data/passwd", copy=True),
        remora.Image.debian_slim(),
    ):
        with pytest.raises(remora.RemoraError, match="is not built for code in a sandbox"):
            outer.remote(image)
    with pytest.raises(remora.RemoraError, match="not for code in a sandbox"):
        remora.function(lambda: remora.Image.mirror().build()).remote()


def test_a_build_runs_nothing_that_a_sandbox_has_made(warm: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that names a program of the sandbox's as its Python is built with ours, whatever else its spec says."""
    monkeypatch.chdir(tmp_path)
    evil = tmp_path / "python"
    evil.write_text(f'#!/bin/sh\necho "in $REMORA_SANDBOX" >> {tmp_path}/ran\nexec {sys.executable} "$@"\n')
    evil.chmod(0o755)
    forged = remora.Image(replace(remora.Image.mirror().base, executable=str(evil))).pip_install("beta<2", "alpha<2")
    image = forged.to_spec() | {"built_on": forged.base.to_dict()}
    spec = remora.function(nested)._pack()._place()[0] | {"image": image}

    def forge() -> None:
        from remora.client import client
        from remora.wire import OpenSession

        client().run(client().request(OpenSession("forger", "main", spec)))

    with contextlib.suppress(remora.RemoraError):
        remora.function(forge).remote()
    ran = (tmp_path / "ran").read_text().splitlines() if (tmp_path / "ran").exists() else []
    assert "in " not in ran  # which sandbox runs it is its own business


@needs.namespaces
def test_files_of_this_machine(warm: Place, tmp_path: Path) -> None:
    """A folder is there as it is when a sandbox starts: an edit counts at the next call; what is ignored stays away."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "value.txt").write_text("one")
    (folder / "secret.key").write_text("secret")
    image = remora.Image.mirror().add_local_dir(folder, "/data/of/ours", ignore=["*.key"])

    def read() -> tuple[list[str], str]:
        import os

        return sorted(os.listdir("/data/of/ours")), open("/data/of/ours/value.txt").read()

    reading = remora.function(image=image)(read)
    assert reading.remote() == (["value.txt"], "one")
    (folder / "value.txt").write_text("another")
    assert reading.remote() == (["value.txt"], "another")
    shutil.rmtree(folder)
    with pytest.raises(remora.RemoraError, match="is not there any more"):
        reading.remote()


def test_recipes_that_cannot_be(warm: Place) -> None:
    """A name that is none is refused before anything is built."""
    with pytest.raises(OptionError, match="no name of an image"):
        remora.Image.mirror().publish("not a name")


def test_a_notebook_runs_with_packages(commands: Commands) -> None:
    """`remora run --pip` gives the notebook's sandbox packages; what is not to be had ends it with the build's words."""
    commands.notebook("n.ipynb", "import alpha\nprint(alpha.NAME)")
    commands.run("run", "n.ipynb", "out.ipynb", "--pip", "alpha<2")
    assert commands.read("out.ipynb").cells[0].outputs[0].text == "alpha 1.0\n"
    ended = commands.run("run", "n.ipynb", "out2.ipynb", "--pip", "no-such-package-at-all", code=3)
    assert "no-such-package-at-all was not found" in ended.stderr
