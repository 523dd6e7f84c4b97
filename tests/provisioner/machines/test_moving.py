"""What is said of the contents of an exchange while they move."""

from __future__ import annotations

from pathlib import Path

import pytest
from provisioner.machines.exchanging import Pair, write
from remora_provisioner.machines.exchange import moving
from remora_provisioner.machines.exchange.moving import Moving

MIB = 1 << 20


class Clock:
    """A clock that stands until it is set."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_it_is_said_now_and_then() -> None:
    """Nothing at first, then no more often than a person reads; of a way on which all has gone, nothing any more."""
    clock, said = Clock(), list[str]()
    told = Moving("box", said.append, clock)
    told.expect(4 * MIB, 0)
    told.sent(MIB)
    assert said == []
    for clock.now in (0.6, 0.7, 1.2):
        told.sent(MIB // 2)
    assert said == ["sending files to box: 1.5 MiB of 4.0 MiB", "sending files to box: 2.5 MiB of 4.0 MiB"]
    told.expect(4 * MIB, 3 * MIB)
    clock.now = 2.0
    told.fetched(MIB)
    assert said[2:] == ["sending files to box: 2.5 MiB of 4.0 MiB; bringing files home from box: 1.0 MiB of 3.0 MiB"]
    clock.now = 3.0
    told.sent(2 * MIB)
    assert said[3:] == ["bringing files home from box: 1.0 MiB of 3.0 MiB"]
    clock.now = 4.0
    told.fetched(2 * MIB)
    assert said[4:] == []


def test_both_ways_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files and large ones, what goes and what comes; and nothing where nothing moves."""
    monkeypatch.setattr(moving, "_PAUSE", 0.0)
    pair, said = Pair(tmp_path), list[str]()
    write(pair.here / "small", "x" * 1000)
    write(pair.here / "large", b"y" * 3 * MIB)
    write(pair.there / "its", b"z" * 2 * MIB)
    pair.exchange(say=said.append)
    for words in ("sending files to gpubox: 2.0 MiB of 3.0 MiB", "bringing files home from gpubox: 1.0 MiB of 2.0 MiB"):
        assert any(words in line for line in said), said
    said.clear()
    pair.exchange(say=said.append)
    assert said == []
