"""Folders as trees: what is read, what is believed, what stays, and that a tree from a folder is real elsewhere."""

from __future__ import annotations

import errno
import os
import py_compile
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from remora.errors import StoreRefused, Unavailable
from remora_provisioner.images import transfer
from remora_provisioner.images.store import Store
from remora_provisioner.images.tree import File, Link, Tree
from remora_provisioner.machines import folders
from remora_provisioner.machines.folders import Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a program, a module that is compiled, and a link out of it."""
    place = tmp_path / "folder"
    (place / "package").mkdir(parents=True)
    (place / "empty").mkdir()
    (place / "program").write_text("#!/bin/sh\n")
    (place / "program").chmod(0o755)
    (place / "package/module.py").write_text("VALUE = 41 + 1\n")
    py_compile.compile(str(place / "package/module.py"))
    (place / "out").symlink_to("/usr/bin/env")
    return place


def sent(shelf: transfer.Shelf, digest: str, store: Store) -> Tree:
    """Send a tree to a store, over a pair of sockets."""
    ours, theirs = socket.socketpair()
    found: list[Tree | StoreRefused] = []

    def take() -> None:
        with theirs, theirs.makefile("rb") as reader, theirs.makefile("wb") as writer:
            try:
                found.append(transfer.receive(store, reader, writer, system=True))
            except StoreRefused as refused:
                found.append(refused)

    taking = threading.Thread(target=take)
    taking.start()
    try:
        with ours, ours.makefile("rb") as reader, ours.makefile("wb") as writer:
            transfer.send(shelf, digest, reader, writer)
    finally:
        taking.join()
    assert isinstance(found[0], Tree)
    return found[0]


def test_a_folder_is_real_elsewhere(folder: Path, tmp_path: Path):
    """Files, programs, links and empty folders; compiled modules are used although the times of all files are others."""
    looking, store = Folders(tmp_path / "cache"), Store(tmp_path / "store")
    tree = looking.tree(folder)
    assert sent(looking, tree.digest, store) == tree
    farm = store.farm(tree.digest)
    assert os.readlink(farm / "out") == "/usr/bin/env"
    assert (farm / "empty").is_dir()
    assert os.access(farm / "program", os.X_OK)
    code = "import sys; sys.path.insert(0, sys.argv[1]); from package import module; print(module.VALUE)"
    said = subprocess.run([sys.executable, "-v", "-c", code, str(farm)], capture_output=True, text=True, check=True)
    assert said.stdout == "42\n"
    assert any("code object from" in line and "module.cpython" in line for line in said.stderr.splitlines())


def test_what_has_not_changed_is_not_read_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor by another process; what has changed is, also if its size and time are the same."""
    first = Folders(tmp_path / "cache")
    tree = first.tree(folder)
    first.keep()

    def read(path: str) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(folders, "_digest", read)
    assert Folders(tmp_path / "cache").tree(folder) == tree
    facts = (folder / "program").stat()
    (folder / "program").write_text("#!/bin/ls\n")
    os.utime(folder / "program", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(AssertionError, match="program"):
        Folders(tmp_path / "cache").tree(folder)


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x78\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_cache_is_no_cache(folder: Path, tmp_path: Path, damage: bytes):
    """Everything is read again."""
    (tmp_path / "cache").write_bytes(damage)
    assert Folders(tmp_path / "cache").tree(folder).size > 0


def test_stale_compiled_modules_stay(folder: Path, tmp_path: Path):
    """Since nobody over there would notice."""
    (folder / "package/module.py").write_text("VALUE = 'another'\n")
    paths = [entry.path for entry in Folders(tmp_path / "cache").tree(folder).entries]
    assert paths == ["empty", "out", "package/module.py", "program"]


def test_what_is_no_file_is_passed_over(folder: Path, tmp_path: Path):
    """Sockets, pipes, and what somebody wants to stay; a folder that is not there is an error."""
    os.mkfifo(folder / "pipe")
    tree = Folders(tmp_path / "cache").tree(folder, lambda path: path == "package")
    assert [entry.path for entry in tree.entries] == ["empty", "out", "program"]
    assert Link("out", "/usr/bin/env") in tree.entries
    for trouble in (folder / "nothing", folder / "program"):
        with pytest.raises(Unavailable, match="cannot be read"):
            Folders(tmp_path / "cache").tree(trouble)
        with pytest.raises(Unavailable, match="cannot be read"):
            Folders(tmp_path / "cache").gathered({"library": trouble / "library"})


@pytest.mark.parametrize("what", ["package", "module.py"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOENT, errno.EACCES])
def test_nothing_is_left_out_in_silence(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, number: int):
    """But for what goes just then, or is not its user's to read."""
    real = {"scandir": os.scandir, "open": os.open}

    def failing(name: str) -> Callable[..., Any]:
        def call(path: Any, *words: Any, **options: Any) -> Any:
            if os.path.basename(str(path).rstrip("/")) == what:
                raise OSError(number, os.strerror(number), str(path))
            return real[name](path, *words, **options)

        return call

    for name in real:
        monkeypatch.setattr(os, name, failing(name))
    looking = Folders(tmp_path / "cache")
    if number in (errno.EIO, errno.EMFILE):
        with pytest.raises(Unavailable, match=f"{what}.* cannot be read"):
            looking.tree(folder)
    else:
        assert what not in {part for entry in looking.tree(folder).files() for part in entry.path.split("/")}


def test_files_from_anywhere_are_gathered(folder: Path, tmp_path: Path):
    """A library is mostly named by a link to it: what goes is the file, under the name that was asked for."""
    (folder / "library.so.8").symlink_to("package/module.py")
    shelf = Folders(tmp_path / "cache")
    tree = shelf.gathered({"library.so.8": folder / "library.so.8", "program": folder / "program"})
    assert [(entry.path, type(entry)) for entry in tree.entries] == [("library.so.8", File), ("program", File)]
    assert b"".join(shelf.read(next(e for e in tree.entries if isinstance(e, File)).digest, False)) == b"VALUE = 41 + 1\n"


def test_a_file_that_changes_meanwhile_is_not_taken_for_what_it_was(folder: Path, tmp_path: Path):
    """Whoever receives it notices; a folder that is looked at again is sent as it is then."""
    looking, store = Folders(tmp_path / "cache"), Store(tmp_path / "store")
    tree = looking.tree(folder)
    (folder / "program").write_text("#!/bin/no\n")
    with pytest.raises(StoreRefused) as refused:
        sent(looking, tree.digest, store)
    assert refused.value.reason == "wrong-digest"
    again = looking.tree(folder)
    assert sent(looking, again.digest, store) == again
    assert any(isinstance(entry, File) and entry.path == "program" for entry in again.entries)
