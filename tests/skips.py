"""Skips are never silent: with CI=true a skip whose reason is not listed here is a failure.

Law: a test may be skipped only for what a machine cannot have, and its reason says what is missing. Nothing else lives here.
"""

from __future__ import annotations

import os
from typing import Any

# The start of each reason that a machine may have; every line says why no machine can be asked for it.
ALLOWED = (
    "needs root",  # the same suite runs as root and as an ordinary user; each of the two leaves out the other's
    "needs an ordinary user",
    "needs control groups",  # a container may own no group, and cannot give itself one
    "needs Landlock",  # decided by the kernel of the machine
    "needs extended attributes",  # a file system may have none
    "needs a package index",  # a machine may have no network
    "needs Debian",  # apt-get is that of Debian and its kin, and an ordinary user cannot install mmdebstrap
    "needs a registry",  # an ordinary user cannot install one
    "needs sshd",  # an ordinary user cannot install one
    "differs elsewhere",  # with --elsewhere only; tests/journeys/differences.py lists what and why
    "needs user namespaces",  # Ubuntu 24.04 and containers forbid them to ordinary users
)


def in_ci() -> bool:
    """Say whether this is a run in which nothing may be left out."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def reason_of(report: Any) -> str:
    """Return the reason of a skipped report, without pytest's prefix."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def judge(report: Any) -> None:
    """Turn a skip without a listed reason into a failure, in place, when this is a run in CI."""
    if not report.skipped or hasattr(report, "wasxfail") or not in_ci():
        return
    reason = reason_of(report)
    if not reason.startswith(ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, and tests/skips.py does not list the reason: {reason}"
