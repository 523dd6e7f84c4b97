"""Building images from wheels: made once, found by key, shared by hash, and nothing half-made when a build fails or dies."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from provisioner.images.wheels_by_hand import make_source, make_wheel
from remora.errors import ImageFailed, OptionError, StoreRefused
from remora.images import Image
from remora.images.steps import Part, PythonBase
from remora_provisioner.images.build import pinned, resolver
from remora_provisioner.images.build.local import ignored
from remora_provisioner.images.build.run import Progress, build
from remora_provisioner.images.built import Built, find
from remora_provisioner.images.records import Records
from remora_provisioner.images.store import Store

BARE = Image(PythonBase(f"{sys.version_info[0]}.{sys.version_info[1]}"))
FAILS = """
def build_wheel(folder, settings=None, metadata=None):
    raise RuntimeError("this package cannot be built here")
"""


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Make a folder with two packages, the first of which needs the second and has a program."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "Upper_One", "1.0", {"upper/__init__.py": "import lower\n"}, ["lower>=1"], "upper = upper:lower.answer")
    make_wheel(folder, "lower", "1.1", {"lower.py": "def answer():\n    print(42)\n"})
    make_wheel(folder, "other", "1.0", {"other.py": "NAME = 'other 1'\n"})
    make_wheel(folder, "other", "2.0", {"other.py": "NAME = 'other 2'\n"})
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the root of images."""
    return tmp_path / "images"


@pytest.fixture
def no_uv(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Put a uv in the way that fails the test when it is started."""
    return lambda: monkeypatch.setattr(resolver, "uv_binary", lambda: pytest.fail("uv was started"))


def pip(image: Image, wheels: Path, *requirements: str, **options: Any) -> Image:
    """Add a step that finds packages in a folder alone."""
    return image.pip_install(*requirements, index_url=resolver.NO_INDEX, find_links=str(wheels), **options)


def quiet(progress: Progress) -> None:
    """Hear nothing."""


def python(built: Built, root: Path, code: str) -> str:
    """Run code with an image's packages, and nothing else that is installed."""
    sites = [str(Store(root).farm(digest) / built.site) for digest in built.trees[::-1]]
    text = f"import sys; sys.path[:0] = {sites!r}\n{code}"
    done = subprocess.run([built.python, "-I", "-S", "-c", text], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def left(root: Path) -> list[Path]:
    """Return what lies in the store's workshop."""
    return list((root / "work").iterdir())


def test_packages_are_installed_with_what_they_need(root: Path, wheels: Path) -> None:
    """The tree has both packages, compiled, and a program that finds its Python on the path; the store is sound."""
    heard: list[Progress] = []
    built = build(pip(BARE, wheels, "upper-one"), root, heard.append)
    farm = Store(root).farm(built.trees[0])
    assert python(built, root, "import upper; upper.lower.answer()") == "42"
    assert (farm / built.site / "__pycache__" / f"lower.cpython-{built.version.replace('.', '')}.pyc").exists()
    program = (farm / "bin" / "upper").read_text()
    assert program.startswith("#!/usr/bin/env python3\n")
    assert str(root) not in program
    assert Store(root).verify() == []
    assert {p.stage for p in heard} == {"pip"}
    assert {(p.step, p.of) for p in heard} == {(1, 1)}
    assert left(root) == []


def test_record_of_a_program_says_what_it_is(root: Path, wheels: Path) -> None:
    """After a program was freed of the build's folder, RECORD still has its digest and size."""
    built = build(pip(BARE, wheels, "upper-one"), root, quiet)
    farm = Store(root).farm(built.trees[0])
    content = (farm / "bin" / "upper").read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    record = next((farm / built.site).glob("Upper*.dist-info/RECORD")).read_text()
    assert f"bin/upper,sha256={digest},{len(content)}" in record


def test_another_requirement_links_the_others_again(root: Path, wheels: Path) -> None:
    """Of a changed step, only the wheel that is new is unpacked."""
    build(pip(BARE, wheels, "upper-one", "other<2"), root, quiet)
    heard: list[Progress] = []
    built = build(pip(BARE, wheels, "upper-one", "other>=2"), root, heard.append)
    assert [p.text for p in heard if "installing" in p.text] == ["installing other 2.0; 2 are here already"]
    assert python(built, root, "import other, upper; print(other.NAME)") == "other 2"
    assert len([r for r in Records(root).all() if r.step["kind"] == "wheel"]) == 4


def test_wheels_that_share_a_file_keep_their_own(root: Path, wheels: Path) -> None:
    """Two wheels with one path: each one's tree has its own content, whatever was unpacked last."""
    make_wheel(wheels, "first", "1", {"shared.py": "N = 1\n", "first.py": ""})
    make_wheel(wheels, "second", "1", {"shared.py": "N = 2\n", "second.py": ""})
    built = build(pip(BARE, wheels, "first", "second"), root, quiet)
    alone = build(pip(BARE, wheels, "first"), root, quiet)
    assert python(built, root, "import first, shared; print(shared.N)") == "2"
    assert python(alone, root, "import shared; print(shared.N)") == "1"


def test_compiled_modules_of_a_wheel_are_made_anew(root: Path, wheels: Path) -> None:
    """A wheel that brings compiled modules along, of whatever age, is taken in with ours in their place."""
    compiled = f"__pycache__/old.cpython-{sys.version_info[0]}{sys.version_info[1]}.pyc"
    make_wheel(wheels, "old", "1", {"old.py": "N = 1\n", compiled: "of another time"})
    built = build(pip(BARE, wheels, "old"), root, quiet)
    assert python(built, root, "import old; print(old.N)") == "1"
    assert (Store(root).farm(built.trees[0]) / built.site / compiled).read_bytes() != b"of another time"


def test_a_step_above_does_not_install_again(root: Path, wheels: Path) -> None:
    """What a step below has satisfies; what differs is on top."""
    lower = pip(BARE, wheels, "upper-one", "other<2")
    same = build(pip(lower, wheels, "lower", "other"), root, quiet)
    assert len(same.trees) == 1
    newer = build(pip(lower, wheels, "other==2"), root, quiet)
    assert len(newer.trees) == 2
    assert python(newer, root, "import other; print(other.NAME)") == "other 2"
    third = build(pip(pip(lower, wheels, "other==2"), wheels, "other>1"), root, quiet)
    assert third.trees == newer.trees


def test_variables_and_folder_make_no_tree(root: Path) -> None:
    """`env` and `workdir` are in what was built; the last folder counts."""
    built = build(Image.mirror().env({"A": "1"}).workdir("/a").env({"B": "2"}).workdir("/b"), root, quiet)
    assert (built.trees, built.env, built.workdir) == ((), (("A", "1"), ("B", "2")), "/b")
    assert built.python == sys.executable


def test_a_lost_tree_is_made_again_from_its_lock(root: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its record and uv's cache a step comes back as it was, although its packages are nowhere to be found any more."""
    image = pip(BARE, wheels, "upper-one")
    first = build(image, root, quiet)
    for digest in Store(root).trees():
        Store(root).remove_tree(digest)
    monkeypatch.setattr(resolver.Resolver, "missing", lambda *_: pytest.fail("it was resolved again"))
    again = build(image, root, quiet)
    assert again.keys == first.keys
    assert python(again, root, "import upper; upper.lower.answer()") == "42"


def test_what_is_not_whole_is_not_found(root: Path, wheels: Path) -> None:
    """Without its farm, or without its tree, an image has to be built; a build mends both."""
    image = pip(BARE, wheels, "lower")
    built = build(image, root, quiet)
    shutil.rmtree(root / "farms" / built.trees[0])
    assert find(image, root) is None
    assert build(image, root, quiet) == find(image, root) == built
    Store(root).remove_tree(built.trees[0])
    assert find(image, root) is None
    assert build(image, root, quiet) == find(image, root)


def test_a_bare_python_is_ours_if_it_can_be(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several Pythons of that version the one is taken on which Remora stands: the system's could not go to other machines."""
    monkeypatch.setenv("UV_PYTHON_PREFERENCE", "only-system")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert build(BARE, root, quiet).python == os.path.realpath(sys.executable)


def test_what_cannot_be_resolved_says_so_in_uvs_words(root: Path, wheels: Path) -> None:
    """The error has the step, its key and the end of the log; the log stays, the store is clean, and steps below are kept."""
    image = pip(pip(BARE, wheels, "lower"), wheels, "no-such-package")
    with pytest.raises(ImageFailed, match=r"no-such-package was not found") as failure:
        build(image, root, quiet)
    facts = failure.value.facts
    assert facts["key"] == image.keys[2]
    assert facts["step"]["requirements"] == ["no-such-package"]
    assert "no-such-package was not found" in facts["log"]
    assert "no-such-package" in (root / "logs" / f"{image.keys[2]}.log").read_text()
    assert Records(root).get(image.keys[1]) is not None
    assert Records(root).get(image.keys[2]) is None
    assert left(root) == []
    assert Store(root).verify() == []


def test_a_source_that_cannot_be_built_says_why(root: Path, wheels: Path) -> None:
    """The words of a package's own build are in the error."""
    make_source(wheels, "source", "1.0", FAILS)
    with pytest.raises(ImageFailed, match="this package cannot be built here"):
        build(pip(BARE, wheels, "source"), root, quiet)
    assert left(root) == []


def test_kinds_that_are_not_known_are_named(root: Path) -> None:
    """A base that this version cannot build is refused before anything is made, and what to write instead is said."""

    class Odd(Part):
        kind = "odd"

    try:
        with pytest.raises(ImageFailed, match=r"cannot build 'odd'.*from_registry"):
            build(Image(Odd()), root, quiet)
    finally:
        del Part.kinds["odd"]


def test_a_digest_that_was_asked_for(root: Path, wheels: Path) -> None:
    """A package with another digest than its requirement gives is refused, and so is a digest of another kind."""
    own = hashlib.sha256((wheels / "lower-1.1-py3-none-any.whl").read_bytes()).hexdigest()
    built = build(pip(BARE, wheels, f"lower==1.1 --hash=sha256:{'0' * 64} --hash=sha256:{own}"), root, quiet)
    assert python(built, root, "import lower; lower.answer()") == "42"
    with pytest.raises(StoreRefused, match=r"lower 1\.1 is not what the requirement asks for") as refused:
        build(pip(BARE, wheels, f"Lower >= 1 --hash=sha256:{'0' * 64}"), root, quiet)
    assert refused.value.reason == "wrong-digest"
    with pytest.raises(OptionError, match="--hash=sha256:"):
        build(pip(BARE, wheels, "lower --hash=md5:00"), root, quiet)
    assert (left(root), Store(root).verify()) == ([], [])


A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.mark.parametrize(
    ("files", "wanted", "kept"),
    [
        ("wheels = [{ url = 'w', hashes = { sha256 = 'A' } }, { url = 'v', hashes = { sha256 = 'B' } }]", "B", "B"),
        ("wheels = [\n    { url = 'w', hashes = { sha256 = 'A' } },\n    { url = 'v', hashes = { sha256 = 'B' } },\n]", "A", "A"),
        ("sdist = { url = 's', hashes = { sha256 = 'C' } }\nwheels = [{ url = 'w', hashes = { sha256 = 'A' } }]", "C", ""),
        ("wheels = [{ url = 'w', hashes = { sha256 = 'A' } }]", "C", None),
        ("vcs = { type = 'git', url = 'u', commit-id = '1' }", "A", None),
        ("directory = { path = 'p' }", "A", None),
    ],
)
def test_files_that_a_requirement_allows(files: str, wanted: str, kept: str | None) -> None:
    """Of several wheels those stay whose digest was asked for; what has no digest, or another one, is refused."""
    names = {"A": A, "B": B, "C": C}
    for name, digest in names.items():
        files = files.replace(f"'{name}'", f'"{digest}"')
    part = f'[[packages]]\nname = "x-y"\nversion = "1"\n{files}\n'.replace("'", '"')
    allowed = {"x-y": {names[wanted]}}
    if kept is None:
        with pytest.raises(StoreRefused, match="x-y 1 is not what the requirement asks for"):
            pinned.check("", [part], allowed)
        return
    package = tomllib.loads(pinned.check("", [part], allowed))["packages"][0]
    assert [wheel["hashes"]["sha256"] for wheel in package["wheels"]] == [names[one] for one in kept]


def test_a_wheel_that_is_not_what_its_lock_says(root: Path, wheels: Path) -> None:
    """A step that is made again from its lock takes no other file for the one that it had."""
    image = pip(BARE, wheels, "lower")
    built = build(image, root, quiet)
    shutil.rmtree(root / "uv-cache")
    Store(root).remove_tree(built.trees[0])
    make_wheel(wheels, "lower", "1.1", {"lower.py": "import evil\n"})
    with pytest.raises(StoreRefused, match=r"lower.*is not what its index promised") as refused:
        build(image, root, quiet)
    assert refused.value.reason == "wrong-digest"
    assert (left(root), Store(root).verify()) == ([], [])


@pytest.fixture
def project(tmp_path: Path, wheels: Path) -> Path:
    """Make a project of uv with its lock."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["upper-one"]\n'
        f'[dependency-groups]\ndev = ["other<2"]\n[tool.uv]\nno-index = true\nfind-links = ["{wheels}"]\n'
    )
    subprocess.run([resolver.uv_binary(), "lock", "-q", "--project", str(folder)], check=True)
    return folder


def test_packages_of_a_project(root: Path, project: Path, wheels: Path, no_uv: Callable[[], None]) -> None:
    """The packages of the lock are installed, those of a group too, the project is not; the same lock is found again."""
    image = BARE.uv_sync(project, groups="dev")
    make_wheel(wheels, "lower", "9.0", {"lower.py": ""})  # newer than the lock
    built = build(image, root, quiet)
    assert python(built, root, "import upper, other; upper.lower.answer(); print(other.NAME)") == "42\nother 1"
    assert "mine" not in {path.name for path in (Store(root).farm(built.trees[0]) / built.site).iterdir()}
    assert {"upper-one", "lower", "other"} <= {r.step.get("name", "").lower() for r in Records(root).all()}
    no_uv()
    assert build(BARE.uv_sync(project, groups="dev"), root, quiet) == built


def test_a_changed_lock_is_another_step(root: Path, project: Path, wheels: Path) -> None:
    """What changes in the lock is installed anew; a project whose lock does not fit it fails with uv's words."""
    first = build(BARE.uv_sync(project), root, quiet)
    make_wheel(wheels, "lower", "9.0", {"lower.py": "def answer():\n    print(9)\n"})
    subprocess.run([resolver.uv_binary(), "lock", "-q", "--upgrade", "--project", str(project)], check=True)
    second = build(BARE.uv_sync(project), root, quiet)
    assert second.keys[1] != first.keys[1]
    assert python(second, root, "import upper; upper.lower.answer()") == "9"
    with pytest.raises(ImageFailed, match="no-such-group"):
        build(BARE.uv_sync(project, groups="no-such-group"), root, quiet)


def test_a_published_image_is_a_base(root: Path, wheels: Path, no_uv: Callable[[], None]) -> None:
    """An image by name is the image that was published; a name that nobody published is an error with those that are."""
    image = pip(BARE, wheels, "lower")
    built = build(image, root, quiet)
    Records(root).publish("mine", image.to_dict())
    no_uv()
    assert build(Image.from_name("mine").env({"A": "1"}), root, quiet).trees == built.trees
    with pytest.raises(ImageFailed, match="published are: mine"):
        build(Image.from_name("yours"), root, quiet)


def test_local_files_are_copied(root: Path, tmp_path: Path) -> None:
    """Files with a target become layers, in which links of the system are followed; what is ignored stays away."""
    source = tmp_path / "package"
    (source / "data").mkdir(parents=True)
    for name in ("__init__.py", "data/one.csv", "data/two.bin", "notes.txt"):
        (source / name).write_text("VALUE = 7\n")
    image = BARE.add_local_dir(source, "/data/p", copy=True, ignore=["*.bin", "notes.*"])
    built = build(image.add_local_file(source / "__init__.py", "/bin/one.py", copy=True), root, quiet)
    farms = [Store(root).farm(tree) for tree in built.layers]
    found = sorted(str(path.relative_to(farm)) for farm in farms for path in farm.rglob("*") if path.is_file())
    assert found == ["data/p/__init__.py", "data/p/data/one.csv", "usr/bin/one.py"]
    with pytest.raises(ImageFailed, match="choose another path"):
        build(BARE.add_local_file(source / "__init__.py", "/tmp/one.py", copy=True), root, quiet)


@pytest.mark.parametrize(
    ("patterns", "path", "folder", "expected"),
    [
        (("*.pyc",), "a/b.pyc", False, True),
        (("/b.pyc",), "a/b.pyc", False, False),
        (("build/",), "build", True, True),
        (("build/",), "build", False, False),
        (("a/**/c",), "a/b/d/c", False, True),
        (("a/**",), "a/b/c", False, True),
        (("*.txt", "!keep.txt"), "x/keep.txt", False, False),
        (("[!a]?.py",), "bc.py", False, True),
    ],
)
def test_patterns_are_those_of_gitignore(patterns: tuple[str, ...], path: str, folder: bool, expected: bool) -> None:
    """Of several patterns the last one counts; one with a slash is for the whole path."""
    assert ignored(patterns)(path, folder) is expected


def test_packages_come_from_the_index(root: Path) -> None:
    """A small real package, if the index can be reached."""
    try:
        built = build(BARE.pip_install("six", "tqdm"), root, quiet)
    except ImageFailed as failure:
        if "Failed to fetch" not in str(failure):
            raise
        pytest.skip("needs a package index, and none can be reached")
    assert python(built, root, "import six, tqdm; print(six.PY3)") == "True"


# ---- as a process


def start(image: Image, root: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a build as a process of its own."""
    argv = [sys.executable, "-m", "remora_provisioner.images.build", str(root)]
    env = os.environ | environment
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdin is not None
    process.stdin.write(json.dumps(image.to_dict()))
    process.stdin.close()
    process.stdin = None
    return process


def lines(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return what a build says until it ends."""
    output, _ = process.communicate(timeout=60)
    return [json.loads(line) for line in output.splitlines()]


def test_a_process_tells_what_it_does(root: Path, wheels: Path) -> None:
    """Lines of progress, then what was built; an error is a line as well."""
    process = start(pip(BARE, wheels, "lower"), root)
    said = lines(process)
    assert process.returncode == 0
    assert [list(line) for line in said[:-1]] == [["stage", "text", "step", "of", "seconds", "expected"]] * (len(said) - 1)
    assert len(said[-1]["built"]["trees"]) == 1
    failing = start(pip(BARE, wheels, "no-such-package"), root)
    assert lines(failing)[-1]["error"]["reason"] == "image-failed"
    assert failing.returncode == 1
