"""The example scripts, fetched once, and a place for the kernels that run them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus import sources
from corpus.pair import Pair
from journeys.driving import Place


@pytest.fixture(scope="session")
def folder() -> Path:
    """Return the folder of the example scripts."""
    return sources.fetch()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give a test two fresh kernels, one of them with `%remote on`."""
    place = Place()
    try:
        with Pair(place) as pair:
            yield pair
    finally:
        place.close()
