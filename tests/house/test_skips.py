"""In CI a skip without a listed reason is a failure."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import skips


def _report(reason: str) -> SimpleNamespace:
    return SimpleNamespace(skipped=True, outcome="skipped", longrepr=("test_x.py", 1, f"Skipped: {reason}"))


@pytest.mark.parametrize(
    ("ci", "reason", "outcome"),
    [
        ("true", "needs root: ids are mapped", "skipped"),
        ("true", "does not work here", "failed"),
        ("", "does not work here", "skipped"),
    ],
)
def test_a_skip_is_judged_by_its_reason(monkeypatch: pytest.MonkeyPatch, ci: str, reason: str, outcome: str) -> None:
    """Listed reasons stay skips; others fail in CI, and only there."""
    monkeypatch.setenv("CI", ci)
    report = _report(reason)
    skips.judge(report)
    assert report.outcome == outcome
    assert outcome == "skipped" or reason in report.longrepr
