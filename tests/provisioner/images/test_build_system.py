"""Steps of the system: made in a jail, found again without one, and nothing left of one that fails, is cancelled or killed."""

from __future__ import annotations

import base64
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from provisioner.images.systems import Door, debian, look
from provisioner.images.test_build import left, lines, pip, python, quiet, start
from provisioner.images.wheels_by_hand import make_wheel
from remora.errors import ImageFailed
from remora.images import Image
from remora.images.steps import PythonBase
from remora_provisioner import jails
from remora_provisioner.images import asking, gc
from remora_provisioner.images.build import system
from remora_provisioner.images.build.apt import read_status
from remora_provisioner.images.build.run import Progress, build
from remora_provisioner.images.built import find
from remora_provisioner.images.lock import building
from remora_provisioner.images.records import Records
from remora_provisioner.images.store import Store

from provisioner import needs

pytestmark = needs.namespaces
BARE = Image(PythonBase(f"{sys.version_info[0]}.{sys.version_info[1]}"))


@pytest.fixture
def no_jail(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Put something in the way that fails the test when a jail is asked for."""
    return lambda: monkeypatch.setattr(jails, "named", lambda _: pytest.fail("a jail was opened"))


# ---- apt


@debian
def test_packages_of_the_system(root: Path, tmp_path: Path, no_jail: Callable[[], None]) -> None:
    """A package is there in a sandbox and nowhere else; its version is known; a second build starts nothing."""
    image = BARE.apt_install("hello")
    built = build(image, root, quiet)
    assert look(built, root, tmp_path, "hello; dpkg -s hello | grep Status; touch /usr/new").splitlines()[:2] == [
        "Hello, world!",
        "Status: install ok installed",
    ]
    assert not Path("/usr/bin/hello").exists()
    record = Records(root).get(built.keys[1])
    assert record is not None and record.lock.startswith("hello=") and len(record.lock.splitlines()) == 1
    paths = {entry.path for entry in Store(root).load(record.layer).entries}
    assert "var/lib/dpkg/status" in paths and "usr/bin/hello" in paths
    assert not {path for path in paths if path.startswith(("var/log", "var/lib/apt/lists", "var/cache/apt", "run", "tmp", "etc"))}
    assert (left(root), Store(root).verify()) == ([], [])
    no_jail()
    heard: list[Progress] = []
    assert build(image, root, heard.append) == built
    assert heard == []


@debian
def test_packages_with_users_and_services(root: Path, tmp_path: Path) -> None:
    """A package that adds a user, gives files to it and would start a service installs, whoever builds."""
    built = build(BARE.apt_install("ntpsec"), root, quiet)
    assert look(built, root, tmp_path, "grep -c ^ntpsec: /etc/passwd; ls /etc/ntpsec/ntp.conf").split() == [
        "1",
        "/etc/ntpsec/ntp.conf",
    ]


def test_status_of_packages() -> None:
    """What is installed is read off dpkg's own file; what was removed is not."""
    text = "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 2\n"
    assert read_status(text) == {"a": "1"}


# ---- commands


def test_commands_change_the_system(root: Path, tmp_path: Path, no_jail: Callable[[], None]) -> None:
    """They run in the image's folder with its variables; what they make and remove is seen in sandboxes."""
    image = BARE.env({"WORD": "a b"}).workdir("/data/app")
    image = image.run_commands(
        'echo "$WORD" > word; pwd', "rm /usr/bin/env && rm -r /usr/share/doc && mkdir /usr/share/doc && echo more >> /etc/hosts"
    )
    built = build(image, root, quiet)
    told = look(
        built, root, tmp_path, "cat /data/app/word; ls /usr/bin/env; ls -A /usr/share/doc; tail -n 1 /etc/hosts; echo $WORD"
    )
    assert told.splitlines()[0] == "a b" and "No such file" in told and told.splitlines()[-2:] == ["more", "a b"]
    assert "/data/app" in (root / "logs" / f"{built.keys[3]}.log").read_text()
    assert (left(root), Store(root).verify()) == ([], [])
    no_jail()
    assert build(image, root, quiet) == built


def test_a_changed_step_makes_just_what_follows(root: Path, tmp_path: Path) -> None:
    """Steps below are found; steps above are made again, on what is new."""
    lower = BARE.run_commands("mkdir /data; echo 1 > /data/one")
    build(lower.run_commands("cat /data/one > /data/two").run_commands("cat /data/two > /data/three"), root, quiet)
    heard: list[Progress] = []
    changed = lower.run_commands("echo 2 > /data/two; rm /data/one").run_commands("cat /data/two > /data/three")
    built = build(changed, root, heard.append)
    assert sorted({progress.step for progress in heard}) == [2, 3]
    assert look(built, root, tmp_path, "ls /data; cat /data/three").split() == ["three", "two", "2"]


def test_a_command_that_changes_nothing_makes_no_layer(root: Path) -> None:
    """What it reads, logs or leaves in /tmp and caches is no part of an image."""
    built = build(BARE.run_commands("ls / /usr; touch /tmp/a /var/tmp/b /var/log/c; mkdir -p ~/.cache/d"), root, quiet)
    assert (built.layers, built.trees) == ((), ())


def test_too_many_layers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image with more layers than can be laid over one another is refused while it is built, with what to do."""
    monkeypatch.setattr(system, "MOST_LAYERS", 2)
    image = BARE
    for number in range(3):
        image = image.run_commands(f"mkdir /{number}")
    with pytest.raises(ImageFailed, match="put several packages or commands into one step"):
        build(image, root, quiet)


def test_a_command_that_fails(root: Path) -> None:
    """The error has what the command said; steps below are kept, and commands after it are not run."""
    image = BARE.run_commands("mkdir /kept").run_commands("echo so far", "echo oh no >&2; exit 3", "echo never")
    with pytest.raises(ImageFailed, match=r"status 3(.|\n)*oh no") as failure:
        build(image, root, quiet)
    log = (root / "logs" / f"{failure.value.facts['key']}.log").read_text()
    assert "so far" in log and "never" not in log
    assert len([record for record in Records(root).all() if record.layer]) == 1
    assert left(root) == []


def test_commands_have_the_packages_below_and_add_some(root: Path, tmp_path: Path) -> None:
    """Python and programs of the steps below come first; what pip installs becomes a tree of packages, seen by later steps."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "lower", "1.1", {"lower.py": "def answer():\n    print(42)\n"}, (), "answer = lower:answer")
    other = make_wheel(tmp_path / "others", "other", "1.0", {"other.py": "import lower\n"}, ["lower"], "other = lower:answer")
    text = base64.b64encode(other.read_bytes()).decode()
    image = pip(BARE, wheels, "lower").run_commands(
        "test $(answer) = 42",
        f"cd /tmp && echo {text} | base64 -d > {other.name} && pip install --no-index --no-deps {other.name}",
    )
    built = build(image.run_commands("test $(other) = 42 && python3 -c 'import other'"), root, quiet)
    assert (len(built.trees), built.layers) == (2, ())
    assert python(built, root, "import other; other.lower.answer()") == "42"
    program = Store(root).farm(built.trees[1]) / "bin" / "other"
    assert program.read_text().startswith("#!/usr/bin/env python3\n")
    assert pip(image, wheels, "other").keys != image.keys
    assert build(pip(image, wheels, "other"), root, quiet).trees == built.trees


def test_commands_see_local_files(root: Path, tmp_path: Path) -> None:
    """A folder that was copied is there for the commands after it, which may change it, and in sandboxes."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "one").write_text("1\n")
    image = (
        BARE.add_local_dir(tmp_path / "source", "/srv/app", copy=True).workdir("/srv/app").run_commands("echo 2 >> one; cat one")
    )
    assert look(build(image, root, quiet), root, tmp_path, "cat /srv/app/one").split() == ["1", "2"]


def test_links_out_of_an_image_are_not_followed(root: Path, tmp_path: Path) -> None:
    """Commands that put links in the place of what is cleared afterwards reach nothing of the machine."""
    victim = tmp_path / "victim"
    (victim / "lists").mkdir(parents=True)
    (victim / "lists" / "file").write_text("mine")
    image = BARE.run_commands(f"rm -rf /var/lib/apt /root; ln -s {victim} /var/lib/apt; ln -s {victim} /root")
    build(image, root, quiet)
    assert (victim / "lists" / "file").read_text() == "mine"


# ---- what goes wrong


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_build_that_is_killed(root: Path, door: Door, number: signal.Signals) -> None:
    """Everything that the command started dies with the build; steps below are kept, and the next build makes the rest."""
    lower = BARE.run_commands("mkdir /kept")
    process = start(lower.run_commands(f"mkdir /half; setsid {door.knock} & {door.knock}"), root)
    knocking = [door.wait(), door.wait()]
    process.send_signal(number)
    process.communicate(timeout=20)
    for line in knocking:
        with line:
            assert line.recv(1) == b""
    assert len([record for record in Records(root).all() if record.layer]) == 1
    built = build(lower.run_commands("mkdir /whole"), root, quiet)
    assert len(built.layers) == 2
    assert (left(root), Store(root).verify()) == ([], [])


@debian
def test_packages_of_two_images_at_once(root: Path) -> None:
    """Builds that share apt's cache do not get into each other's way."""
    builds = [start(BARE.apt_install(name), root) for name in ("hello", "tree")]
    assert [len(lines(one)[-1]["built"]["layers"]) for one in builds] == [1, 1]


def test_layers_are_kept_and_collected(root: Path) -> None:
    """A layer stays while a step or a sandbox has it, and goes when nobody has."""
    image = BARE.run_commands("mkdir /data; echo 1 > /data/one")
    built = build(image, root, quiet)
    asking.gc(root, {"grace": 0.0})
    assert find(image, root) == built
    Store(root).lease("sandbox", built.layers)
    asking.gc(root, {"grace": 0.0, "most": 0})
    assert Store(root).trees() == {*built.layers}
    Store(root).release("sandbox")
    asking.gc(root, {"grace": 0.0, "most": 0})
    assert find(image, root) is None and Store(root).trees() == set()


def test_a_store_that_grows_too_large(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used longest ago goes when the store is beyond its size, but not while something is being built."""
    older, newer = (BARE.run_commands(f"mkdir /data; head -c 200000 /dev/urandom > /data/{name}") for name in ("older", "newer"))
    build(older, root, quiet)
    build(newer, root, quiet)
    monkeypatch.setattr(asking, "_RECENT", 0.0)
    monkeypatch.setattr(asking, "collect", partial(gc.collect, grace=0.0))
    (root / "uv-cache").mkdir(exist_ok=True)
    with building(root):
        asking.tidy(root, 300_000)
    asking.tidy(root, 500_000)
    assert len(Store(root).trees()) == 2
    asking.tidy(root, 300_000)
    assert find(older, root) is None and find(newer, root) is not None
    assert (root / "uv-cache").is_dir()


# ---- run_function


def fetch(names: list[str], where: str) -> None:
    """Stand for what a function prepares once: files, made with a package of the image."""
    import pathlib

    import lower

    folder = pathlib.Path(where)
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f"{name} by {lower.__name__}")


def test_a_function_prepares_an_image(root: Path, tmp_path: Path, no_jail: Callable[[], None]) -> None:
    """It is called once, with the packages of the steps below; what it made is there; another argument is another step."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "lower", "1.0", {"lower.py": ""})
    image = pip(BARE, wheels, "lower").run_function(fetch, args=[["a", "b"], "/opt/models/tiny"])
    built = build(image, root, quiet)
    assert look(built, root, tmp_path, "cat /opt/models/tiny/a /opt/models/tiny/b").strip() == "a by lowerb by lower"
    assert left(root) == []
    other = pip(BARE, wheels, "lower").run_function(fetch, args=[["a"], "/opt/models/tiny"])
    assert find(other, root) is None
    no_jail()
    assert build(image, root, quiet) == built
