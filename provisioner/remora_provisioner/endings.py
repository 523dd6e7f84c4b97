"""Why a sandbox ended, in a word for programs and a sentence for people. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from remora.errors import RunEnded
from remora.resources import format_bytes
from remora.states import EndReason

_SIGNALLED = 128


@dataclass(frozen=True)
class Evidence:
    """What is known when a sandbox has ended."""

    asked: EndReason | None
    """Why we ended it, if we did."""
    code: int | None
    """Exit code; negative or 128 + n for a signal; None if it never ran."""
    out_of_memory: bool = False
    peak: int | None = None
    limit: int | None = None
    trouble: str = ""
    """What went wrong when it was opened, with the last lines of its log."""


def explain(evidence: Evidence) -> RunEnded:
    """Return the error that ends what was running or queued; its `reason` is an EndReason, its fact `sandbox_ended` true."""
    error = _explain(evidence)
    error.facts["sandbox_ended"] = True
    return error


def _explain(evidence: Evidence) -> RunEnded:
    if evidence.out_of_memory or evidence.asked is EndReason.OUT_OF_MEMORY:
        return _out_of_memory(evidence)
    if evidence.asked is not None:
        return _ended(_ASKED.get(evidence.asked, f"the sandbox ended: {evidence.asked.value}"), evidence.asked)
    if evidence.code is None:
        return _ended(f"the sandbox could not be started: {evidence.trouble}", EndReason.SANDBOX_FAILED)
    number = -evidence.code if evidence.code < 0 else evidence.code - _SIGNALLED
    if number in set(signal.Signals):
        text = f"crashed (signal {number}, {signal.Signals(number).name}); the next remote cell gets a new sandbox"
        return _ended(text, EndReason.CRASHED, signal=number)
    text = f"crashed (exit code {evidence.code}); the next remote cell gets a new sandbox{_after(evidence.trouble)}"
    return _ended(text, EndReason.CRASHED, code=evidence.code)


def explain_cut(reason: EndReason, limit: float | None) -> RunEnded:
    """Return the error of a run that was interrupted from outside and reacted, so that its sandbox lives on."""
    after = f" after {limit:g} s" if limit and reason is EndReason.TIMEOUT else ""
    advice = "; give it longer with timeout=…" if reason is EndReason.TIMEOUT else ""
    return _ended(f"{reason.value}{after}: the code was interrupted, the session keeps its variables{advice}", reason)


_ASKED = {
    EndReason.STOPPED: "the sandbox was stopped; the next remote cell gets a new one",
    EndReason.IDLE: "the sandbox was ended because nothing used it; the next remote cell gets a new one",
    EndReason.MACHINE_LOST: "no backend of yours was in touch with the rented machine for as long as REMORA_RENTED_LEASE says, "
    "so the sandbox was ended; what its runs printed is kept",
    EndReason.CANCELLED: "cancelled: the code did not react, so its sandbox was ended; the next remote cell gets a new one",
    EndReason.TIMEOUT: "timeout: the code did not react, so its sandbox was ended; the next remote cell gets a new one",
}


def _ended(text: str, reason: EndReason, **facts: int | None) -> RunEnded:
    return RunEnded(text, reason=reason.value, **facts)


def _out_of_memory(evidence: Evidence) -> RunEnded:
    peak = f"peak {format_bytes(evidence.peak)}" if evidence.peak else "peak unknown"
    limit = f"limit {format_bytes(evidence.limit)}" if evidence.limit else "no limit was set, so the machine itself ran out"
    text = f"out of memory ({peak}, {limit}): ask for more with memory=…, or load less at a time"
    return _ended(text, EndReason.OUT_OF_MEMORY, peak=evidence.peak, limit=evidence.limit)


def _after(trouble: str) -> str:
    return f"\n{trouble}" if trouble else ""
