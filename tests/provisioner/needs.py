"""What a machine must have for a test of jails and limits, found out without the code under test where that is possible.

Law: marks only; each reason is one that tests/skips.py knows, except that a program is missing which .ci/apt-packages brings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from remora_provisioner.jails import rules
from remora_provisioner.limits import v1


def _makes_namespaces() -> bool:
    if not Path("/usr/bin/unshare").exists():
        return True  # cannot be asked: then the tests find out
    return subprocess.run(["/usr/bin/unshare", "-Urm", "/bin/true"], capture_output=True, check=False).returncode == 0


def _lacks_for_hosts() -> str:
    making = ["unshare", "--mount", "--net", "--uts", "--ipc", "true"]
    if os.geteuid() != 0 or subprocess.run(making, capture_output=True, check=False).returncode:
        return "needs root: others cannot make networks"
    wanted = ("sshd", "ssh", "ip", "tc", "ss", "nsenter", "setpriv", "dpkg-query", "insmod", "linux.uml")
    missing = [name for name in wanted if not shutil.which(name)]
    return f"needs programs that .ci/apt-packages brings: {' '.join(missing)}" if missing else ""


def _has_attributes() -> bool:
    with tempfile.NamedTemporaryFile() as file:
        try:
            os.setxattr(file.name, "user.remora.test", b"")
        except OSError:
            return False
    return True


root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others cannot choose host ids or become somebody else")
namespaces = pytest.mark.skipif(not _makes_namespaces(), reason="needs user namespaces, which this machine forbids")
landlock = pytest.mark.skipif(rules.abi() == 0, reason="needs Landlock in the kernel")
v1_groups = pytest.mark.skipif(
    os.geteuid() != 0 or not {"memory", "pids", "cpu"} <= set(v1.controllers()),
    reason="needs control groups v1 (memory, pids and cpu) that this user may make",
)
extended_attributes = pytest.mark.skipif(not _has_attributes(), reason="needs extended attributes, which the disk of /tmp lacks")
_lacking = _lacks_for_hosts()
hosts = pytest.mark.skipif(bool(_lacking), reason=_lacking)
csh = pytest.mark.skipif(shutil.which("csh") is None, reason="needs programs that .ci/apt-packages brings: csh")
