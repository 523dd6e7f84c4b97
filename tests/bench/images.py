"""What images cost beside uv and `cp -al`: finding one, building one, adding to a living session, and the disk.

Law: packages are real ones from the index; everything is fetched before anything is measured, so that caches are warm for both.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uv
from figures import Figure, ratio
from place import Place
from remora.images import Image
from remora_provisioner.images.keeping import Images
from remora_provisioner.images.store import Store

_ROUNDS = 7
_FILES = 20_000
_PACKAGES = [
    "requests==2.32.3", "flask==3.1.0", "sqlalchemy==2.0.36", "rich==13.9.4", "httpx==0.28.1",
    "pydantic==2.10.4", "tqdm==4.67.1", "attrs==24.3.0", "pyyaml==6.0.2", "jinja2==3.1.5", "click==8.1.8",
    "networkx==3.4.2", "beautifulsoup4==4.12.3", "lxml==5.3.0", "pandas==2.2.3", "toolz==1.0.0",
    "sympy==1.13.3", "pygments==2.18.0", "packaging==24.2", "tabulate==0.9.0",
]  # fmt: skip
_CHANGED = "tabulate==0.8.10"
_OTHERS = ["sympy==1.13.2", "networkx==3.4.1", "sqlalchemy==2.0.35", "lxml==5.2.2", "pandas==2.2.2"]
_BARE = Image.python(f"{sys.version_info[0]}.{sys.version_info[1]}")


_numbers = itertools.count()


def _another() -> Image:
    """Return a base on which nothing was built yet."""
    return _BARE.env({"N": str(next(_numbers))})


def measure(place: Place) -> list[Figure]:
    """Measure everything about images."""
    root = place.state / "images"
    return [*_builds(root), *_lookups(root), _disk(root), _farm(place.state / "farm"), *_session(place)]


def _fit(root: Path, image: Image) -> float:
    """Return the seconds that an agent takes to fit a sandbox out with an image."""

    async def fit() -> float:
        began = time.perf_counter()
        await Images(root).fit(image.to_spec(), {}, lambda _: None)
        return time.perf_counter() - began  # what an agent tidies up later, nobody waits for

    return asyncio.run(fit())


def _uv(root: Path, folder: Path, *packages: str) -> float:
    """Return the seconds that uv takes for a new environment with these packages."""
    environment = os.environ | {"UV_CACHE_DIR": str(root / "uv-cache")}
    began = time.perf_counter()
    if not folder.exists():
        subprocess.run([uv.find_uv_bin(), "venv", "-q", "--python", sys.executable, str(folder)], check=True, env=environment)
    python = str(folder / "bin" / "python")
    subprocess.run([uv.find_uv_bin(), "pip", "install", "-q", "--python", python, *packages], check=True, env=environment)
    return time.perf_counter() - began


def _rounds(*sides: Callable[[], float]) -> list[list[list[float]]]:
    """Return the samples of each side, taken by turns."""
    taken = [[[side()] for side in sides] for _ in range(_ROUNDS)]
    return [list(side) for side in zip(*taken, strict=True)]


def _builds(root: Path) -> list[Figure]:
    environment, kept = root.with_name("environment"), set[str]()

    def new(image: Image) -> float:
        return _fit(root, image)

    def anew() -> float:
        for tree in (root / "farms").iterdir():  # the same packages make the same tree: its files are to be linked again
            if tree.name not in kept:
                shutil.rmtree(tree)
        return new(_another().pip_install(_PACKAGES))

    def by_uv() -> float:
        shutil.rmtree(environment, ignore_errors=True)
        return _uv(root, environment, *_PACKAGES)

    stacked = _BARE.pip_install(_PACKAGES[:-1])
    new(stacked.pip_install(_CHANGED))
    kept.update(path.name for path in (root / "farms").iterdir())
    new(_BARE.pip_install(_PACKAGES))
    by_uv()
    built, uvs, top = _rounds(
        anew,
        by_uv,
        lambda: new(stacked.env({"N": str(next(_numbers))}).pip_install(_CHANGED)),
    )
    return [
        Figure("20 packages into a new image, caches warm", tuple(side[0] for side in built)),
        ratio("20 packages into a new image / uv venv + uv pip install", built, uvs, goal=1.2),
        ratio("one package changed in a 20-package image / the whole, warm", top, built, goal=0.5),
    ]


def _lookups(root: Path) -> list[Figure]:
    """Find an image beside 10 others, and beside 1,000."""
    image = _BARE.pip_install(_PACKAGES)
    _fit(root, image)
    few = [[_fit(root, image) for _ in range(_ROUNDS)] for _ in range(_ROUNDS)]
    record = next((root / "records").glob("*.json"))
    for number in range(1000):
        shutil.copy(record, root / "records" / f"{number:064x}.json")
    many = [[_fit(root, image) for _ in range(_ROUNDS)] for _ in range(_ROUNDS)]
    return [
        Figure("an unchanged image found and fitted", tuple(second for side in few for second in side), goal=0.020),
        ratio("an image found beside 1,000 others / beside 10", many, few, goal=1.5),
    ]


def _disk(root: Path) -> Figure:
    """Return what five images take of which each has another version of two of its 20 packages, over what one takes."""
    folder = root.with_name("five")
    _fit(folder, _BARE.pip_install(_PACKAGES))
    one = Store(folder).size()
    for number in range(4):
        others = {word.partition("==")[0]: word for word in (_OTHERS[number], _OTHERS[number + 1])}
        _fit(folder, _BARE.pip_install([others.get(word.partition("==")[0], word) for word in _PACKAGES]))
    return Figure("disk of five images that share 90 % of their packages / of one", (Store(folder).size() / one,), 1.6, True)


def _farm(folder: Path) -> Figure:
    """Make 20,000 files real by hard links, beside `cp -al` of the same files."""
    store, source = Store(folder / "store"), folder / "source"
    for number in range(_FILES):
        path = source / f"{number % 100:02d}" / f"{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"VALUE = {number}\n")
    digest = store.save(store.scan(source, link=False))

    def ours() -> float:
        store.work.throw_away(folder / "store" / "farms" / digest)
        began = time.perf_counter()
        store.farm(digest)
        return time.perf_counter() - began

    def theirs() -> float:
        shutil.rmtree(folder / "copy", ignore_errors=True)
        began = time.perf_counter()
        subprocess.run(["cp", "-al", str(folder / "store" / "farms" / digest), str(folder / "copy")], check=True)
        return time.perf_counter() - began

    store.farm(digest)
    made, copied = _rounds(ours, theirs)
    return ratio("20,000 files made real / cp -al", made, copied, goal=1.5)


def _session(place: Place) -> list[Figure]:
    """Add a package to a living session, beside `uv pip install` of it into an environment."""
    environment = place.folder / "environment"
    versions = [f"tabulate==0.8.{number}" for number in range(2, 2 + _ROUNDS)]
    _uv(place.state / "images", environment, "tabulate")
    with place.kernel("remora") as notebook:
        notebook.run("%%remote pip=humanize==4.10.0\nassert 1 + 1 == 2")
        ours, theirs = [], []
        for version in versions:
            theirs.append(_uv(place.state / "images", environment, version))
            ours.append(notebook.run(f"%%remote pip={version}\nassert 1 + 1 == 2"))
    extra = tuple(mine - yours for mine, yours in zip(ours, theirs, strict=True))
    return [Figure("a package added to a living session, beyond uv pip install of it", extra, goal=1.0)]
