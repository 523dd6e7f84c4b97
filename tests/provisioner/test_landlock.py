"""What the jail `landlock` alone promises: denied system calls, no capabilities, signals that stay inside."""

from __future__ import annotations

import errno
import itertools
import os
import struct
from pathlib import Path

import pytest
from remora_provisioner.jails import rules, syscalls
from remora_provisioner.testing import JailContract

from provisioner import needs

_enter = type("Way", (JailContract,), {"jail_name": "landlock"})().visit
_CALLS = """
import ctypes, signal, threading
libc = ctypes.CDLL(None, use_errno=True)
def number(result):
    return ctypes.get_errno() if result < 0 else 0
def outside():
    try:
        os.kill(int(sys.argv[2]), 0)
    except PermissionError:
        return "denied"
    return "reached"
thread = threading.Thread(target=say, args=["thread"])
thread.start()
thread.join()
say({
    "unshare": number(libc.unshare(0x10000000)),
    "mount": number(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    "ptrace": number(libc.ptrace(0, 0, 0, 0)),
    "clone": number(libc.syscall(int(sys.argv[3]), 0x10000000 | 17, 0, 0, 0, 0)),
    "clone3": number(libc.syscall(435, 0, 0)),
})
say(outside())
say([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapPrm", "CapEff", "Seccomp:", "NoNewPrivs"))])
"""


@needs.landlock
def test_calls_are_denied(tmp_path: Path) -> None:
    """Namespaces, mounts and tracing are refused; threads still start; other processes cannot be signalled (Linux 6.12)."""
    clone = str(syscalls.numbers(os.uname().machine)["clone"])
    with _enter(tmp_path, _CALLS, str(os.getpid()), clone) as visit:
        assert visit.hear() == "thread"
        denied = dict.fromkeys(("unshare", "mount", "ptrace", "clone"), errno.EPERM)
        assert visit.hear() == denied | {"clone3": errno.ENOSYS}
        assert visit.hear() == ("denied" if rules.abi() >= 6 else "reached")
        assert visit.hear() == ["0" * 16, "0" * 16, "1", "2"]


@needs.landlock
def test_private_folders_are_pointed_to(tmp_path: Path) -> None:
    """HOME and TMPDIR lie in the scratch directory, and /tmp is closed."""
    code = "import tempfile; tempfile.mkdtemp(); say([os.environ['HOME'], os.environ['TMPDIR'], os.access('/tmp', os.R_OK)])"
    with _enter(tmp_path, code + "\nos.listdir('/tmp')") as visit:
        home, temporary, _ = visit.hear()
        assert (home, temporary) == (str(visit.plan.scratch / "home"), str(visit.plan.scratch / "tmp"))
        assert visit.end() == 1


def test_every_abi_handles_what_it_knows() -> None:
    """Later versions add rights and never lose one."""
    known = [rules.handled(version) for version in range(1, 8)]
    assert known[0] == 0x1FFF and known[4] == 0xFFFF
    assert all(earlier & later == earlier for earlier, later in itertools.pairwise(known))


def _outcome(program: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """Run the filter on one call, as the kernel would."""
    data = struct.pack("=IIQQ", number, architecture, 0, argument)
    steps = [struct.unpack("=HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    at = value = 0
    while True:
        code, then, otherwise, constant = steps[at]
        if code == 0x06:
            return int(constant)
        if code == 0x20:
            value, step = struct.unpack_from("=I", data, constant)[0], 0
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[code]
            step = then if holds else otherwise
        at += 1 + step


@pytest.mark.parametrize(("machine", "architecture", "read"), [("x86_64", 0xC000003E, 0), ("aarch64", 0xC00000B7, 63)])
def test_filter_says_what_it_should(machine: str, architecture: int, read: int) -> None:
    """On each architecture the listed calls fail, others pass, and calls of another architecture fail."""
    program = syscalls.program(machine)
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    numbers = syscalls.numbers(machine)
    clone = numbers.pop("clone")
    assert {_outcome(program, architecture, number) for number in numbers.values()} == {refuse}
    assert _outcome(program, architecture, read) == allow
    assert _outcome(program, architecture, clone, 17) == allow
    assert _outcome(program, architecture, clone, 0x1000_0000) == refuse
    assert _outcome(program, architecture, 435) == 0x00050000 | errno.ENOSYS
    assert _outcome(program, 0x4000_0003, read) == refuse
