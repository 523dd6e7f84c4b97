"""What a machine must have for a test of jails and limits, found out without the code under test where that is possible.

Law: marks only; each reason is one that tests/skips.py knows.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from remora_provisioner.jails import rules
from remora_provisioner.limits import v1


def _makes_namespaces() -> bool:
    if not Path("/usr/bin/unshare").exists():
        return True  # cannot be asked: then the tests find out
    return subprocess.run(["/usr/bin/unshare", "-Urm", "/bin/true"], capture_output=True, check=False).returncode == 0


root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others cannot choose host ids or become somebody else")
namespaces = pytest.mark.skipif(not _makes_namespaces(), reason="needs user namespaces, which this machine forbids")
landlock = pytest.mark.skipif(rules.abi() == 0, reason="needs Landlock in the kernel")
v1_groups = pytest.mark.skipif(
    os.geteuid() != 0 or not {"memory", "pids", "cpu"} <= set(v1.controllers()),
    reason="needs control groups v1 (memory, pids and cpu) that this user may make",
)
