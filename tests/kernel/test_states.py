"""The life of a run and of a sandbox: every pair of state and event is in the table or refused, and an end is an end."""

from __future__ import annotations

import itertools
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remora.errors import InternalError
from remora.states import (
    ENDED,
    RUN_TABLE,
    SANDBOX_TABLE,
    EndReason,
    RunEvent,
    RunState,
    SandboxEvent,
    SandboxState,
    advance,
)

LIVES = [
    pytest.param(RUN_TABLE, RunState, RunEvent, RunState.QUEUED, id="run"),
    pytest.param(SANDBOX_TABLE, SandboxState, SandboxEvent, SandboxState.STARTING, id="sandbox"),
]
PAIRS = [
    pytest.param(table, state, event, id=f"{state.value} + {event.value}")
    for table, states, events in ((RUN_TABLE, RunState, RunEvent), (SANDBOX_TABLE, SandboxState, SandboxEvent))
    for state, event in itertools.product(states, events)
]


@pytest.mark.parametrize(("table", "state", "event"), PAIRS)
def test_every_pair_is_in_the_table_or_refused(table: Any, state: Any, event: Any) -> None:
    """An ended thing stays as it is, the table says the rest, and what it does not say is an error that names both."""
    if state in ENDED:
        assert advance(table, state, event) is state
    elif (state, event) in table:
        assert advance(table, state, event) is table[state, event]
    else:
        with pytest.raises(InternalError) as caught:
            advance(table, state, event)
        assert event.value in str(caught.value)
        assert state.value in str(caught.value)


@pytest.mark.parametrize(("table", "states", "events", "first"), LIVES)
def test_every_state_can_be_reached_and_left(table: Any, states: Any, events: Any, first: Any) -> None:
    """From the first state every other one can be reached, and from each that is no end an end."""
    reached, waiting = {first}, [first]
    while waiting:
        here = waiting.pop()
        new = {after for (before, _), after in table.items() if before is here} - reached
        reached |= new
        waiting += new
    assert reached == set(states)
    ends = {before for (before, _), after in table.items() if after in ENDED}
    assert ends == {state for state in states if state not in ENDED}


@pytest.mark.parametrize(("table", "states", "events", "first"), LIVES)
def test_the_table_uses_every_event_and_no_end(table: Any, states: Any, events: Any, first: Any) -> None:
    """No event is without a use, and no line begins at an end."""
    assert {event for _, event in table} == set(events)
    assert not {state for state, _ in table} & ENDED


def test_the_ends() -> None:
    """These are the states after which nothing comes."""
    assert {RunState.DONE, RunState.FAILED, RunState.ENDED, SandboxState.ENDED} == ENDED
    assert RunState.UNKNOWN not in ENDED


@settings(max_examples=50)
@given(st.lists(st.sampled_from(RunEvent), max_size=30))
def test_a_run_that_has_ended_stays_so_whatever_comes(events: list[RunEvent]) -> None:
    """On a random walk the first end is the last state, and nothing but InternalError is ever raised."""
    _walk(RUN_TABLE, RunState.QUEUED, events)


@settings(max_examples=50)
@given(st.lists(st.sampled_from(SandboxEvent), max_size=30))
def test_a_sandbox_that_has_ended_stays_so_whatever_comes(events: list[SandboxEvent]) -> None:
    """The same for sandboxes."""
    _walk(SANDBOX_TABLE, SandboxState.STARTING, events)


def _walk(table: Any, state: Any, events: list[Any]) -> None:
    end: Enum | None = None
    for event in events:
        try:
            state = advance(table, state, event)
        except InternalError:
            assert (state, event) not in table
        if end is not None:
            assert state is end
        if state in ENDED:
            end = state


@pytest.mark.parametrize("kind", [RunState, RunEvent, SandboxState, SandboxEvent, EndReason])
def test_values_are_words_for_people_and_programs(kind: type[Enum]) -> None:
    """Each value is lower case text that JSON can carry, and rebuilds its member."""
    for member in kind:
        assert isinstance(member, str)
        assert member.value == member.value.lower()
        assert kind(member.value) is member


def test_out_of_sight_is_not_the_end() -> None:
    """A run that was lost sight of can be found again, queued or running, or can turn out to be over."""
    lost = advance(RUN_TABLE, RunState.RUNNING, RunEvent.LOST_SIGHT)
    assert advance(RUN_TABLE, lost, RunEvent.SEEN_RUNNING) is RunState.RUNNING
    assert advance(RUN_TABLE, lost, RunEvent.SEEN_QUEUED) is RunState.QUEUED
    assert advance(RUN_TABLE, lost, RunEvent.SUCCEEDED) is RunState.DONE
    assert advance(RUN_TABLE, lost, RunEvent.CUT) is RunState.ENDED
