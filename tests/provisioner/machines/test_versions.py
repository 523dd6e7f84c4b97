"""Which of two versions is the newer one."""

from __future__ import annotations

import pytest
from remora.wire import PROTOCOL
from remora_provisioner.machines.versions import newer, ours, state_of

ORDER = ["", "0", "0.1.dev3", "0.1.dev10", "0.1a1", "0.1b1", "0.1rc2", "0.1", "0.1.1", "0.2", "0.10", "1", "1.0.1", "2024.1"]


def test_versions_are_in_order() -> None:
    """Each is newer than those before it, and than nothing else."""
    for place, one in enumerate(ORDER):
        assert [newer(one, other) for other in ORDER] == [number < place for number in range(len(ORDER))], one


@pytest.mark.parametrize(("one", "other"), [("1.0", "1"), ("1.0+local", "1.0"), ("v1.2", "1.2"), ("nonsense", "")])
def test_the_same_in_other_words(one: str, other: str) -> None:
    """Neither is newer."""
    assert not newer(one, other)
    assert not newer(other, one)


def test_ours(tmp_path) -> None:
    """It is a version; what belongs to it bears the protocol's number."""
    assert newer(ours(), "")
    assert state_of(tmp_path).name == f"state-{PROTOCOL}"
