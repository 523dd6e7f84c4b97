"""Why a sandbox ended: every piece of evidence gives one reason and one sentence that says what to do."""

from __future__ import annotations

import dataclasses
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remora.errors import RunEnded, from_dict
from remora.states import EndReason
from remora_provisioner.endings import Evidence, explain, explain_cut

_evidence = st.builds(
    Evidence,
    asked=st.none() | st.sampled_from(EndReason),
    code=st.none() | st.integers(-70, 300),
    out_of_memory=st.booleans(),
    peak=st.none() | st.integers(0, 2**40),
    limit=st.none() | st.integers(0, 2**40),
    trouble=st.text(max_size=40),
)


@settings(max_examples=200)
@given(_evidence)
def test_any_evidence_is_explained(evidence: Evidence) -> None:
    """The reason is one of the list, the text is a sentence, and the error says that the sandbox has ended; it can travel."""
    error = explain(evidence)
    assert isinstance(error, RunEnded)
    assert EndReason(error.reason)
    assert len(str(error)) > 10
    assert error.facts["sandbox_ended"] is True
    back = from_dict(error.to_dict())
    assert (type(back), back.reason, back.facts) == (RunEnded, error.reason, error.facts)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
@pytest.mark.parametrize("way", ["negative", "above 128"])
def test_a_signal_is_named(number: signal.Signals, way: str) -> None:
    """Both spellings of an end by a signal say its number and name."""
    error = explain(Evidence(asked=None, code=-number if way == "negative" else 128 + number))
    assert error.reason == "crashed"
    assert f"crashed (signal {number.value}, {number.name})" in str(error)
    assert "next remote cell gets a new sandbox" in str(error)
    assert error.facts["signal"] == number


@pytest.mark.parametrize("code", [0, 1, 2, 70, 127, 255, 250])
def test_an_exit_code_is_said(code: int) -> None:
    """An end that was no signal gives its code, and what the processes said last."""
    error = explain(Evidence(asked=None, code=code, trouble="ImportError: no module named x"))
    assert error.reason == "crashed"
    assert f"(exit code {code})" in str(error)
    assert str(error).endswith("ImportError: no module named x")


def test_a_sandbox_that_never_ran() -> None:
    """Without an exit code it was never started, and the text says why."""
    error = explain(Evidence(asked=None, code=None, trouble="bwrap: no such file"))
    assert error.reason == "sandbox-failed"
    assert "could not be started: bwrap: no such file" in str(error)


@pytest.mark.parametrize("asked", [reason for reason in EndReason if reason is not EndReason.OUT_OF_MEMORY])
def test_what_we_asked_for_is_the_reason(asked: EndReason) -> None:
    """A kill of ours is no crash, whatever the code; nor is one before the sandbox ran."""
    for code in (-9, 137, 0, None):
        assert explain(Evidence(asked=asked, code=code)).reason == asked.value


def test_out_of_memory_comes_before_all() -> None:
    """Peak and limit are in the text, in units, and in the facts as numbers."""
    evidence = Evidence(asked=None, code=-9, out_of_memory=True, peak=3 * 2**28, limit=2**28)
    error = explain(evidence)
    assert error.reason == "out-of-memory"
    assert "peak 768.0 MiB, limit 256.0 MiB" in str(error)
    assert "memory=" in str(error)
    assert (error.facts["peak"], error.facts["limit"]) == (3 * 2**28, 2**28)
    assert explain(dataclasses.replace(evidence, asked=EndReason.STOPPED)).reason == "out-of-memory"
    watched = Evidence(asked=EndReason.OUT_OF_MEMORY, code=-9)
    assert explain(watched).reason == "out-of-memory"
    assert "peak unknown, no limit was set" in str(explain(watched))


def test_a_run_that_reacted_keeps_its_session() -> None:
    """An interrupted run says so, and how to give it longer if its time was up."""
    late = explain_cut(EndReason.TIMEOUT, 2.0)
    assert late.reason == "timeout"
    assert "timeout after 2 s" in str(late)
    assert "timeout=…" in str(late)
    assert "sandbox_ended" not in late.facts
    cancelled = explain_cut(EndReason.CANCELLED, 2.0)
    assert "2 s" not in str(cancelled)
    assert "keeps its variables" in str(cancelled)
    assert "timeout" in str(explain_cut(EndReason.TIMEOUT, None))
