"""Every jail passes the contract, as whoever runs the tests and as an ordinary user; and how a jail is chosen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import remora.errors
from remora.errors import OptionError, PlaceError, Unavailable
from remora_provisioner import jails
from remora_provisioner.jails import census
from remora_provisioner.sandbox import Mount, SandboxPlan
from remora_provisioner.testing import BadJail, FakeJail, JailContract, NeverJail, SlowJail, make_plan
from remora_provisioner.testing.visits import FAMILY

from provisioner import needs

ORDINARY = 54_321  # a user id that nobody has
SYSTEM_PYTHON = "/usr/bin/python3"


@needs.namespaces
class TestBubblewrap(JailContract):
    """The strongest jail hides files and processes."""

    jail_name = "bubblewrap"


@needs.landlock
class TestLandlock(JailContract):
    """File rules hide files, not processes."""

    jail_name = "landlock"
    hides_processes = False


class TestProcess(JailContract):
    """A plain process hides nothing, and is still tidy."""

    jail_name = "process"
    hides_files = False
    hides_processes = False

    def test_warden_is_told_to_end_while_it_ends(self, tmp_path: Path) -> None:
        """A request that comes when the command has just left changes nothing: its exit code is told."""
        code = """
            import contextlib, json, os, signal
            from remora_provisioner.jails import warden

            class Told(contextlib.suppress):
                def __exit__(self, *raised):
                    os.kill(os.getpid(), signal.SIGTERM)
                    return super().__exit__(*raised)

            warden.contextlib.suppress = Told
            orders = os.memfd_create("orders")
            wanted = {"argv": ["/bin/sh", "-c", "exit 7"], "environment": {}, "folder": "/", "pass_fds": [], "restricted": False}
            os.write(orders, json.dumps(wanted).encode())
            os.lseek(orders, 0, os.SEEK_SET)
            warden.main(orders)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.DEVNULL, check=False, cwd=tmp_path)
        assert done.returncode == 7

    def test_strays_that_become_another_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """For a moment such a process has no environment to be known by; `close` finds it all the same."""
        looked, real = set[int](), census.environment

        def environment(pid: int) -> list[bytes] | None:
            first = pid not in looked
            looked.add(pid)
            return [] if first and real(pid) is not None else real(pid)

        with self.visit(tmp_path, FAMILY + "signal.pause()") as visit:
            assert visit.hear() == "all there"
            os.kill(visit.sandbox.pid, signal.SIGKILL)
            assert visit.end() == -signal.SIGKILL
            monkeypatch.setattr(census, "environment", environment)
            visit.sandbox.close()
            assert visit.hear() is None


class TestFake(JailContract):
    """The fake keeps the contract of the jail that hides nothing."""

    jail_name = "process"
    hides_files = False
    hides_processes = False

    def jail(self) -> FakeJail:
        """Return a fake in place of the real one."""
        return FakeJail()


@pytest.fixture
def readable() -> Iterator[Path]:
    """Give a folder that everybody can enter, with the packages that an ordinary user needs."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        place = Path(made)
        place.chmod(0o755)
        for package in (Path(remora.errors.__file__).parent, Path(jails.__file__).parents[1]):
            shutil.copytree(package, place / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        (place / "own").mkdir()
        os.chown(place / "own", ORDINARY, ORDINARY)
        yield place


@needs.root
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("bubblewrap", "files", "processes"), marks=needs.namespaces),
        pytest.param(("landlock", "files"), marks=needs.landlock),
        ("process",),
    ],
)
def test_contract_as_an_ordinary_user(readable: Path, arguments: tuple[str, ...]) -> None:
    """The contract holds for an ordinary user with the system's Python."""
    done = subprocess.run(
        [SYSTEM_PYTHON, "-B", "-W", "error", "-m", "remora_provisioner.testing", *arguments],
        env={
            "PYTHONPATH": str(readable),
            "HOME": str(readable / "own"),
            "TMPDIR": str(readable / "own"),
            "PATH": "/usr/bin:/bin",
        },
        cwd=readable / "own",
        user=ORDINARY,
        group=ORDINARY,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs.namespaces
def test_best_is_chosen() -> None:
    """With no demand the strongest jail that works is taken, and nothing is complained of."""
    jail, told = jails.choose()
    assert jail.name == "bubblewrap" and told == []


def test_demand_for_less_gets_the_best() -> None:
    """A demand is a least strength."""
    assert jails.choose("process")[0].strength >= jails.named("process").strength


@needs.namespaces
def test_weaker_one_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the strongest does not work the next is taken with one line, unless more is demanded."""
    monkeypatch.setitem(jails._KINDS, "bad", "test_jails_bad:Strong")
    monkeypatch.setattr(
        jails, "import_module", lambda name: _Bad if name == "test_jails_bad" else __import__("importlib").import_module(name)
    )
    monkeypatch.setattr(jails, "names", lambda: sorted(jails._KINDS))
    jail, told = jails.choose()
    assert jail.name == "bubblewrap" and told == ["jail bad does not work here: this jail is bad on purpose: choose another one"]
    with pytest.raises(Unavailable, match="as strong as bad"):
        jails.choose("bad")


class _Bad:
    class Strong(BadJail):
        """Stronger than all, and works nowhere."""

        strength = 100


def test_unknown_jail() -> None:
    """A jail that does not exist gets the list of those that do."""
    with pytest.raises(OptionError, match="bubblewrap, landlock, process"):
        jails.choose("dungeon")


def test_strengths_are_in_order() -> None:
    """No two kinds are equally strong, so the choice is never by chance."""
    strengths = [jails.named(name).strength for name in jails.names()]
    assert len(set(strengths)) == len(strengths)


def test_plan_checks_itself(tmp_path: Path) -> None:
    """Relative paths, no command and a standard descriptor are refused before anything is made."""
    for wrong in ({"argv": ()}, {"folder": Path("x")}, {"pass_fds": (1,)}):
        with pytest.raises(ValueError):
            make_plan(tmp_path, "", **wrong)


def test_weak_jails_show_nothing_elsewhere(tmp_path: Path) -> None:
    """Without namespaces a folder cannot appear under another path: that is said, not passed over."""
    plan = make_plan(tmp_path, "", mounts=(Mount(tmp_path, Path("/elsewhere")),))
    for name in ("landlock", "process"):
        with pytest.raises(PlaceError, match="/elsewhere"):
            jails.named(name).open(plan)


def _plan(place: Path) -> SandboxPlan:
    return make_plan(place, "print('never')")


def test_slow_jail_waits_for_the_test(tmp_path: Path) -> None:
    """A slow jail opens when the test lets it."""
    jail = SlowJail()
    jail.go.set()
    jail.open(_plan(tmp_path)).close()
    assert [plan.id for plan in jail.plans] == [_plan(tmp_path).id]


def test_never_jail_is_deaf(tmp_path: Path) -> None:
    """A sandbox of the never jail lives and says nothing."""
    opened = NeverJail().open(_plan(tmp_path))
    assert opened.processes() != []
    opened.close()
    assert (tmp_path / "log").read_text() == ""


def test_bad_jail_fails(tmp_path: Path) -> None:
    """A bad jail has an obstacle and opens nothing."""
    assert BadJail().obstacle()
    with pytest.raises(PlaceError):
        BadJail().open(_plan(tmp_path))
