"""Building on the mirror base: what the kernel's environment has counts as installed, and what is added comes first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from provisioner.images.wheels_by_hand import make_wheel, metadata
from remora.images import Image
from remora.images.steps import MirrorBase
from remora_provisioner.images.build.resolver import NO_INDEX
from remora_provisioner.images.build.run import Progress, build
from remora_provisioner.images.store import Store


@pytest.fixture
def mirrored(tmp_path: Path) -> Image:
    """Make an environment with a local build of `heavy`, which is in no index, and an old `other`."""
    site = tmp_path / "prefix" / "site-packages"
    for name, version in (("heavy", "2.0+mine"), ("other", "1.0")):
        (site / f"{name}-{version}.dist-info").mkdir(parents=True)
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata(name, version, ()))
    (site / "other.py").write_text("NAME = 'other 1'\n")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Image(MirrorBase(sys.executable, sys.prefix, sys.base_prefix, version, (str(site),)))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Make packages that can be had."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "other", "2.0", {"other.py": "NAME = 'other 2'\n"})
    make_wheel(folder, "needs", "1.0", {"needs.py": ""}, ["heavy>=2", "other"])
    return folder


def installed(image: Image, wheels: Path, root: Path, *requirements: str) -> tuple[list[str], Any]:
    """Build a step; return the packages that it brought, and what was built."""

    def quiet(progress: Progress) -> None:
        """Hear nothing."""

    built = build(image.pip_install(*requirements, index_url=NO_INDEX, find_links=str(wheels)), root, quiet)
    described = [file for tree in built.trees for file in Store(root).load(tree).files()]
    return sorted(f.path.split("/")[-2] for f in described if f.path.endswith("/METADATA")), built


def test_what_is_there_adds_nothing(tmp_path: Path, mirrored: Image, wheels: Path) -> None:
    """A satisfied requirement makes no tree, also if no index has the package."""
    assert installed(mirrored, wheels, tmp_path / "images", "heavy>=2", "other")[0] == []


def test_only_what_is_missing_is_installed(tmp_path: Path, mirrored: Image, wheels: Path) -> None:
    """A package whose needs are met below comes alone."""
    assert installed(mirrored, wheels, tmp_path / "images", "needs")[0] == ["needs-1.0.dist-info"]


def test_what_differs_comes_first(tmp_path: Path, mirrored: Image, wheels: Path) -> None:
    """A conflicting requirement brings its own version, which the tree's place on the path prefers."""
    brought, built = installed(mirrored, wheels, tmp_path / "images", "other>=2")
    assert brought == ["other-2.0.dist-info"]
    farm = Store(tmp_path / "images").farm(built.trees[-1])
    assert (farm / built.site / "other.py").read_text() == "NAME = 'other 2'\n"


def test_a_step_above_sees_what_differs(tmp_path: Path, mirrored: Image, wheels: Path) -> None:
    """Of two versions of one package, the mirrored one and that of a step below, the step's counts."""
    lower = mirrored.pip_install("other>=2", index_url=NO_INDEX, find_links=str(wheels))
    assert installed(lower, wheels, tmp_path / "images", "other>1.5")[0] == ["other-2.0.dist-info"]


def test_this_very_environment_is_seen(tmp_path: Path, wheels: Path) -> None:
    """The packages of the Python that runs the tests satisfy, as its own description says."""
    assert installed(Image.mirror(), wheels, tmp_path / "images", "tornado", "uv")[0] == []
