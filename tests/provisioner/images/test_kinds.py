"""What holds for every kind of step and base: made once, found again, and whole or not at all, however a build ends."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from provisioner.images.containers import Registry
from provisioner.images.kinds import KINDS, Base, Kind
from provisioner.images.systems import Door
from provisioner.images.test_build import BARE, left, lines, quiet, start
from remora.errors import ImageFailed
from remora.images import Image
from remora.images.steps import MirrorBase, NamedBase
from remora_provisioner.images import asking
from remora_provisioner.images.build import BASES, STEPS
from remora_provisioner.images.build.run import Progress, build
from remora_provisioner.images.built import Built, find, keys_here
from remora_provisioner.images.records import Records
from remora_provisioner.images.store import Store

from provisioner import disks, needs

pytestmark = needs.namespaces
LOWER = BARE.env({"LOWER": "1"}).run_commands("echo lower >/lower")
"""What lies below the step that is looked at."""


@dataclass
class Made:
    """An image that two builds made which began together, in a store in which a build of it had been killed."""

    root: Path
    image: Image
    built: Built
    makers: int
    """How many of the builds made the step."""


@pytest.fixture(scope="module", params=[pytest.param(kind, id=kind.name, marks=kind.marks) for kind in KINDS])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    """Give each kind in turn."""
    door, place = Door(), tmp_path_factory.mktemp(request.param.name)
    registry = Registry(place / "registry") if request.param.name in ("registry", "dockerfile") else None
    yield request.param(place / "own", door, registry)
    door.close()
    if registry is not None:
        registry.close()


@pytest.fixture(scope="module")
def made(kind: Kind, tmp_path_factory: pytest.TempPathFactory, archives: Path) -> Made:
    """Make an image of each kind."""
    root = with_archives(tmp_path_factory.mktemp("images"), archives)
    if kind.lets_in:
        stop(kind, root, kill)
    image = kind.good(LOWER)
    said = [lines(process) for process in [start(image, root), start(image, root)]]
    assert said[0][-1] == said[1][-1]
    number = 0 if isinstance(kind, Base) else len(image.steps)
    makers = [one for one in said if any(line.get("step") == number and line.get("stage") != "wait" for line in one)]
    return Made(root, image, Built.from_dict(said[0][-1]["built"]), len(makers))


def with_archives(root: Path, archives: Path) -> Path:
    """Let a root of images use what apt has fetched."""
    root.mkdir(exist_ok=True)
    root.chmod(0o700)
    (root / "apt-cache").symlink_to(archives)
    return root


# ---- how a build ends before it is done


def kill(root: Path, image: Image, variables: dict[str, str]) -> Ending:
    """Start a build that will be killed."""
    return Ending(start(image, root, **variables), signal.SIGKILL)


def terminate(root: Path, image: Image, variables: dict[str, str]) -> Ending:
    """Start a build that will be cancelled, as the stop button does it."""
    return Ending(start(image, root, **variables), signal.SIGTERM)


def orphan(root: Path, image: Image, variables: dict[str, str]) -> Ending:
    """Start a build whose parent will be killed."""
    code = (
        "import os, subprocess, sys\n"
        f"argv = [sys.executable, '-m', 'remora_provisioner.images.build', {str(root)!r}, str(os.getpid())]\n"
        "p = subprocess.Popen(argv, stdin=subprocess.PIPE)\n"
        "p.stdin.write(sys.stdin.buffer.read()); p.stdin.close(); print(p.pid, flush=True); p.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | variables
    )
    assert parent.stdin is not None and parent.stdout is not None
    with parent.stdin:
        parent.stdin.write(json.dumps(image.to_dict()))
    parent.stdin = None
    return Ending(parent, signal.SIGKILL, os.pidfd_open(int(parent.stdout.readline())))


@dataclass
class Ending:
    """A build that is under way and what will end it."""

    process: subprocess.Popen[str]
    signal: signal.Signals
    builder: int | None = None
    """A descriptor of the builder's, where that is not the process."""

    def begun(self, number: int) -> None:
        """Wait until it works on a step."""
        assert self.process.stdout is not None
        assert any(json.loads(line).get("step") == number for line in self.process.stdout)

    def end(self) -> None:
        """End it, and wait until it is gone."""
        self.process.send_signal(self.signal)
        self.process.communicate(timeout=20)
        if self.builder is not None:
            assert select.select([self.builder], [], [], 20)[0], "the builder lives on"
            os.close(self.builder)


def stop(kind: Kind, root: Path, how: Callable[[Path, Image, dict[str, str]], Ending]) -> Image:
    """Start a build, end it in the middle of a step, and see that everything it started dies; return what it was to build."""
    image = kind.slow(LOWER)
    kind.door.forget()
    ending = how(root, image, kind.variables())
    if kind.name == "local":  # it opens no line
        ending.begun(len(image.steps))
        ending.end()
    else:
        with kind.door.wait() as line:
            ending.end()
            while line.recv(4096):  # what it wanted to say to a server
                pass
    return image


# ---- the contract


def test_every_kind_is_here() -> None:
    """A new kind of step or base has to be added; a mirror and a name make nothing."""
    assert {kind.name for kind in KINDS} | {MirrorBase.kind, NamedBase.kind} == {*BASES, *STEPS, NamedBase.kind}


def test_it_is_made_once(kind: Kind, made: Made, tmp_path: Path) -> None:
    """What was killed left nothing; of two builds that began together one made the step; it is there in a sandbox."""
    assert kind.shown(made.built, made.root, tmp_path) == "made"
    assert made.makers == (0 if kind.full is None else 1)  # what was only found is not worth a word
    assert (left(made.root), Store(made.root).verify()) == ([], [])


def test_it_is_found_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second build says nothing and starts nothing."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("something was started"))
    heard: list[Progress] = []
    assert build(made.image, made.root, heard.append) == find(made.image, made.root) == made.built
    assert heard == []


def test_a_change_makes_just_what_follows(kind: Kind, made: Made) -> None:
    """With another step in its place, what lies below is found, and the step and what stands on it are made."""
    if kind.name == "debian":  # a second Debian takes long: what follows is told by the keys alone
        assert not {*keys_here(kind.changed(LOWER))} & {*made.built.keys}
        return
    heard: list[Progress] = []
    changed = kind.changed(LOWER).run_commands("echo upper >/upper")
    build(changed, made.root, heard.append)
    first = 0 if isinstance(kind, Base) else len(kind.changed(LOWER).steps)
    done = {progress.step for progress in heard}
    ran = {number for number, step in enumerate(changed.steps, 1) if step.kind in STEPS and number >= first}
    assert done - {0} == ran
    assert build(made.image, made.root, quiet) == made.built


def test_a_failure_says_why(kind: Kind, made: Made) -> None:
    """The error has the step, its words and what to do; its log is kept, nothing else of it; what lies below stays."""
    image = kind.bad(LOWER)
    with pytest.raises(ImageFailed, match=kind.says) as failure:
        build(image, made.root, quiet)
    key, log = failure.value.facts["key"], failure.value.facts["log"]
    assert key in keys_here(image) and failure.value.facts["step"]["kind"] == kind.name
    assert (made.root / "logs" / f"{key}.log").read_text().splitlines()[-len(log.splitlines()) :] == log.splitlines()
    assert (left(made.root), Records(made.root).get(key)) == ([], None)
    assert find(made.image, made.root) == made.built


@pytest.mark.parametrize("how", [kill, terminate, orphan])
def test_it_ends_with_the_build(
    kind: Kind, tmp_path: Path, archives: Path, how: Callable[[Path, Image, dict[str, str]], Ending]
) -> None:
    """However a build ends in the middle of a step: all that it started dies, the next one clears up and makes it."""
    root = with_archives(tmp_path / "images", archives)
    image = stop(kind, root, how)
    assert Records(root).get(keys_here(image)[0 if isinstance(kind, Base) else -1]) is None
    if not isinstance(kind, Base):
        assert Records(root).get(keys_here(LOWER)[-1]) is not None
    if kind.lets_in:
        again = start(image, root, **kind.variables())
        with kind.door.wait() as line:
            line.sendall(b"+")
        assert "built" in lines(again)[-1]
    else:
        build(LOWER.run_commands("echo other >/other"), root, quiet)
    assert (left(root), Store(root).verify()) == ([], [])


def test_another_build_waits_for_it(kind: Kind, tmp_path: Path, archives: Path) -> None:
    """While a step is being made, another build of it says that it waits, and finds it made, or makes it if that one dies."""
    root = with_archives(tmp_path / "images", archives)
    image, variables = kind.slow(LOWER), kind.variables()
    kind.door.forget()
    first = Ending(start(image, root, **variables), signal.SIGKILL)
    line = held(kind, first, image)
    second = start(image, root, **variables)
    assert second.stdout is not None
    assert any(json.loads(text)["stage"] == "wait" for text in second.stdout)
    if kind.lets_in or line is None:
        let_go(first, line)
        assert lines(first.process)[-1]["built"] == lines(second)[-1]["built"]
        return
    first.end()
    line.close()
    kind.door.forget()
    with kind.door.wait():
        Ending(second, signal.SIGTERM).end()


def held(kind: Kind, ending: Ending, image: Image) -> socket.socket | None:
    """Wait until a build is in the middle of the step, and keep it there; return the line that it waits at, if it is one."""
    if kind.name != "local":
        return kind.door.wait()
    ending.begun(len(image.steps))
    ending.process.send_signal(signal.SIGSTOP)
    return None


def let_go(ending: Ending, line: socket.socket | None) -> None:
    """Let a build go on that is held."""
    if line is None:
        ending.process.send_signal(signal.SIGCONT)
        return
    with line:
        line.sendall(b"+")


@needs.root
def test_a_full_disk(kind: Kind, tmp_path: Path, archives: Path) -> None:
    """A step that finds no room fails and says so, nothing of it is left; with room the next build makes it."""
    if kind.full is None:
        return
    root = tmp_path / "images"
    with disks.tiny(root, kind.small) as make_room:
        with_archives(root, archives)
        image = kind.large(LOWER)
        with pytest.raises(ImageFailed, match=kind.full):
            build(image, root, quiet)
        assert (left(root), Store(root).verify()) == ([], [])
        make_room()
        if kind.name != "debian":  # which takes long
            build(image, root, quiet)
            assert (left(root), Store(root).verify()) == ([], [])


def test_what_a_sandbox_uses_is_kept(kind: Kind, made: Made, tmp_path: Path) -> None:
    """While it is leased, nothing of it is collected; afterwards it is. The last one, since it takes away what was made."""
    everything: dict[str, Any] = {"grace": 0.0, "most": 0}
    used = {*made.built.trees, *made.built.layers}
    Store(made.root).lease("sandbox", used)
    asking.gc(made.root, everything)
    assert Store(made.root).trees() == used
    assert kind.shown(made.built, made.root, tmp_path) == "made"
    Store(made.root).release("sandbox")
    asking.gc(made.root, everything)
    assert find(made.image, made.root) is None and Store(made.root).trees() == set()
