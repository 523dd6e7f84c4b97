"""Two real processes for the tests of sync: what one sends, the other receives."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from peer import Peer


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[Peer, Peer]]:
    """Give a sending and a receiving process to the tests of one file."""
    here, there = Peer(), Peer()
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def pair(processes: tuple[Peer, Peer]) -> tuple[Peer, Peer]:
    """Give both processes with empty namespaces."""
    for peer in processes:
        peer.ask("reset")
    return processes
