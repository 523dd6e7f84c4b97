"""Fixtures of tests that build images of systems."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from provisioner.images.containers import Registry
from provisioner.images.systems import Door


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for what apt fetches, so that it is fetched once."""
    return tmp_path_factory.mktemp("apt-cache")


@pytest.fixture
def root(tmp_path: Path, archives: Path) -> Path:
    """Return the root of images, empty but for what apt has fetched."""
    place = tmp_path / "images"
    place.mkdir(mode=0o700)
    (place / "apt-cache").symlink_to(archives)
    return place


@pytest.fixture
def door() -> Iterator[Door]:
    """Give a door."""
    opened = Door()
    yield opened
    opened.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Give a registry."""
    opened = Registry(tmp_path / "registry")
    yield opened
    opened.close()
