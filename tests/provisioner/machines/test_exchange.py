"""The folder on two machines: both agree afterwards, nothing is lost, and what need not move does not."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from provisioner.machines.exchanging import OLD, Pair, tree, write
from remora.errors import InputError, StateError, Unavailable
from remora.headless import paper
from remora_provisioner.machines.exchange import applying, folderindex, parcels
from remora_provisioner.machines.exchange.agreed import locked
from remora_provisioner.machines.exchange.arrivals import Arrivals
from remora_provisioner.machines.exchange.beneath import Beneath
from remora_provisioner.machines.exchange.entries import Entry
from remora_provisioner.machines.exchange.home import FolderHome
from remora_provisioner.machines.exchange.receipts import Receipt, Stay

from provisioner import disks, needs

LARGE = random.Random(1).randbytes(3_500_000)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return two sides with nothing in their folders."""
    return Pair(tmp_path)


def example(pair: Pair) -> None:
    """Put some of everything into the folder here."""
    write(pair.here / "data.csv", "a,b\n1,2\n", old=True)
    write(pair.here / "pkg/module.py", "X = 1\n", old=True)
    write(pair.here / "pkg/large.bin", LARGE, old=True)
    write(pair.here / "run.sh", "#!/bin/sh\n", old=True).chmod(0o755)
    write(pair.here / "empty", b"", old=True)
    (pair.here / "bare").mkdir()
    (pair.here / "link").symlink_to("pkg/module.py")


# ---- both sides agree --------------------------------------------------------------------------------------------------------


def test_everything_arrives_and_then_nothing_moves(pair: Pair):
    """Files, folders, links, modes and times arrive; an unchanged folder costs a few hundred bytes and says nothing."""
    example(pair)
    receipt = pair.exchange()
    assert tree(pair.there) == tree(pair.here)
    assert os.stat(pair.there / "data.csv").st_mtime_ns == OLD
    assert (receipt.sent, receipt.fetched, receipt.sent_bytes) == (6, 0, len(LARGE) + 24)
    assert receipt.line() == "6 files sent (3.3 MiB)"
    assert pair.exchange() == Receipt("gpubox")
    assert Receipt("gpubox").line() == ""
    assert pair.moved < 1000


def test_what_is_written_there_comes_home(pair: Pair):
    """New, changed and removed files of the machine are so here too, and the bytes of others do not move."""
    example(pair)
    pair.exchange()
    write(pair.there / "out/model.bin", b"m" * 5000)
    write(pair.there / "data.csv", "a,b\n3,4\n")
    (pair.there / "empty").unlink()
    receipt = pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    assert receipt.line() == "2 files fetched (4.9 KiB); 1 file deleted here"
    assert pair.moved < 10_000


def test_what_is_deleted_here_goes_there(pair: Pair):
    """A deletion of files and folders here is carried out there."""
    example(pair)
    pair.exchange()
    shutil.rmtree(pair.here / "pkg")
    (pair.here / "link").unlink()
    receipt = pair.exchange()
    assert tree(pair.there) == tree(pair.here)
    assert receipt.line() == "3 files deleted on gpubox"


def test_what_both_changed_is_kept_twice_and_named(pair: Pair):
    """The user's version keeps its name, the other one lies beside it, on both sides, and the receipt names it."""
    example(pair)
    pair.exchange()
    for round_, name in enumerate(("data.csv.from-gpubox", "data.csv.from-gpubox-2")):
        write(pair.here / "data.csv", f"here {round_}")
        write(pair.there / "data.csv", f"there {round_}")
        receipt = pair.exchange()
        assert tree(pair.here) == tree(pair.there)
        assert (pair.here / "data.csv").read_text() == f"here {round_}"
        assert (pair.here / name).read_text() == f"there {round_}"
        assert receipt.conflicts == (("data.csv", name),)
        assert f"data.csv was changed on both sides: the version of gpubox is kept as {name}" in receipt.line()


def test_a_change_wins_over_a_deletion(pair: Pair):
    """What one side deleted and the other changed is there again on both."""
    example(pair)
    pair.exchange()
    shutil.rmtree(pair.here / "pkg")
    write(pair.there / "pkg/module.py", "X = 2\n")
    write(pair.here / "data.csv", "new")
    (pair.there / "data.csv").unlink()
    pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    assert (pair.here / "pkg/module.py").read_text() == "X = 2\n"
    assert (pair.there / "data.csv").read_text() == "new"


def test_a_folder_against_a_file_loses_neither(pair: Pair):
    """A folder here and a file there, both new, are both kept; and the other way round."""
    write(pair.here / "a/inner", "folder here")
    write(pair.here / "b", "file here")
    write(pair.there / "a", "file there")
    write(pair.there / "b/inner", "folder there")
    pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    assert (pair.here / "a/inner").read_text() == "folder here"
    assert (pair.here / "a.from-gpubox").read_text() == "file there"
    assert (pair.here / "b.from-gpubox/inner").read_text() == "folder there"


def test_a_file_becomes_a_folder_and_a_folder_a_link(pair: Pair):
    """What one side alone has turned into something else becomes that on the other."""
    example(pair)
    pair.exchange()
    (pair.here / "data.csv").unlink()
    write(pair.here / "data.csv/part", "p")
    shutil.rmtree(pair.there / "pkg")
    (pair.there / "pkg").symlink_to("bare")
    receipt = pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    assert not receipt.conflicts
    assert os.readlink(pair.here / "pkg") == "bare"


def test_read_only_brings_nothing_home(tmp_path: Path):
    """With files=ro nothing here changes, what lacks there is sent again, and a version there is kept aside."""
    pair = Pair(tmp_path, writable=False)
    example(pair)
    pair.exchange()
    before = tree(pair.here)
    write(pair.there / "new", "n")
    write(pair.there / "data.csv", "there")
    (pair.there / "run.sh").unlink()
    pair.exchange()
    assert tree(pair.here) == before
    assert (pair.there / "run.sh").exists()
    write(pair.here / "data.csv", "here")
    receipt = pair.exchange()
    assert (pair.there / "data.csv").read_text() == "here"
    assert (pair.there / "data.csv.from-gpubox").read_text() == "there"
    assert receipt.fetched == 0


def test_content_that_is_there_under_another_name_is_not_sent(pair: Pair):
    """A rename or a copy, on either side, moves no content, and times are kept."""
    example(pair)
    pair.exchange()
    (pair.here / "pkg").rename(pair.here / "package")
    shutil.copy(pair.here / "package/large.bin", pair.here / "copy.bin")
    receipt = pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    assert receipt.sent_bytes == 0
    assert pair.moved < 20_000
    assert os.stat(pair.there / "package/large.bin").st_mtime_ns == OLD
    (pair.there / "copy.bin").rename(pair.there / "moved.bin")
    receipt = pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    assert (receipt.fetched, receipt.fetched_bytes, receipt.deleted_here) == (1, 0, 1)


@needs.root
def test_another_file_system_below_the_folder(pair: Pair):
    """Content that is here already gets to a folder that lies on another disk, and comes back from there."""
    write(pair.here / "large", LARGE, old=True)
    (pair.here / "mounted").mkdir()
    pair.exchange()
    with disks.tiny(pair.there / "mounted", 20_000):
        shutil.copy(pair.here / "large", pair.here / "mounted" / "copy")
        assert pair.exchange().sent_bytes == 0
        assert tree(pair.here) == tree(pair.there)
        (pair.there / "mounted" / "copy").rename(pair.there / "mounted" / "renamed")
        (pair.there / "large").unlink()
        pair.exchange()
        assert tree(pair.here) == tree(pair.there)


def test_permissions_of_a_file_that_is_replaced_are_kept(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """A private file stays private, also on its way in, and one that becomes a program can be run by those who may read it."""
    write(pair.here / "private", "1").chmod(0o600)
    pair.exchange()
    write(pair.there / "private", "22")
    (pair.there / "private").chmod(0o755)
    aside: list[int] = []
    real = applying.write

    def watched(descriptor, content, at=0):
        aside.append(os.fstat(descriptor).st_mode & 0o777)
        real(descriptor, content, at)

    monkeypatch.setattr(applying, "write", watched)
    pair.exchange()
    assert aside == [0o600]
    assert (pair.here / "private").read_text() == "22"
    assert (pair.here / "private").stat().st_mode & 0o777 == 0o700


# ---- when nothing may be deduced ---------------------------------------------------------------------------------------------


def test_a_folder_that_was_made_anew_deletes_nothing(pair: Pair):
    """When the place there is wiped, or the folder here, the files come back instead of being deleted."""
    example(pair)
    pair.exchange()
    before = tree(pair.here)
    shutil.rmtree(pair.there)
    pair.exchange()
    assert tree(pair.here) == tree(pair.there) == before
    shutil.rmtree(pair.here)
    pair.here.mkdir()
    pair.exchange()
    assert tree(pair.here) == tree(pair.there) == before


def test_a_machine_that_was_set_back_deletes_and_overwrites_nothing(pair: Pair, tmp_path: Path):
    """When folder and state there are an older copy, its version of a file comes beside the newer one."""
    example(pair)
    pair.exchange()
    for folder in (pair.there, pair.state):
        shutil.copytree(folder, tmp_path / f"old-{folder.name}", symlinks=True)
    for number in range(3):
        write(pair.here / "data.csv", f"newer {number}")
        pair.exchange()
    for folder in (pair.there, pair.state):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(tmp_path / f"old-{folder.name}", folder, symlinks=True, dirs_exist_ok=True)
    pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    assert (pair.here / "data.csv").read_text() == "newer 2"
    assert (pair.here / "data.csv.from-gpubox").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("lost", ["home", "state"])
def test_lost_or_damaged_state_loses_no_file(pair: Pair, tmp_path: Path, lost: str):
    """Without what was remembered equal files are equal still, others are kept twice, nothing is deleted."""
    example(pair)
    pair.exchange()
    write(pair.here / "data.csv", "here")
    (pair.there / "empty").unlink()
    for path in (tmp_path / lost).iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    receipt = pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    assert (pair.here / "empty").exists()
    assert receipt.conflicts == (("data.csv", "data.csv.from-gpubox"),)


def test_a_file_that_was_just_written_is_read_again(pair: Pair):
    """A change that leaves size and times as they were is found, as long as the times are young."""
    path = write(pair.here / "data", "one")
    pair.exchange()
    before = os.stat(path)
    known = pair.home.state / "digests"
    index = folderindex.Index.from_bytes(known.read_bytes()[32:]) if known.exists() else folderindex.Index()
    assert b"data" not in index.entries
    assert folderindex.is_old(folderindex.stamp_of(before), before.st_mtime_ns + 3_000_000_000)


def test_a_file_from_the_future_is_not_read_again_for_ever():
    """One that a clock far ahead has dated is believed by the clock here."""
    second = 1_000_000_000
    now, ahead = 1_800_000_000 * second, 31_536_000 * second
    assert folderindex.is_old((1, now + ahead, now - 3 * second, 1), now)
    assert not folderindex.is_old((1, now + ahead, now, 1), now)


def test_unchanged_files_are_not_read_again(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """The second exchange reads no content, on either side."""
    example(pair)
    pair.exchange()
    read = _note_reads(monkeypatch)
    write(pair.here / "data.csv", "new", old=True)
    pair.exchange()
    assert read == [b"data.csv"]


def _note_reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    read: list[bytes] = []
    real = folderindex._read
    monkeypatch.setattr(folderindex, "_read", lambda top, path: read.append(path) or real(top, path))
    return read


def test_what_cannot_be_there_is_read_only_as_it_goes(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """A new file of a size that nothing there has gets its digest on its way; afterwards all is known as if it had been read."""
    example(pair)
    write(pair.there / "its.csv", "A,B\n1,2\n", old=True)  # as large as data.csv
    write(pair.here / "large-1.txt", LARGE[:100_000], old=True)
    read = _note_reads(monkeypatch)
    assert pair.exchange().sent == 7
    assert sorted(read) == [b"data.csv", b"empty", b"its.csv", b"pkg/large.bin"]
    read.clear()
    (pair.here / "pkg/module.py").rename(pair.here / "module.py")
    receipt = pair.exchange()
    assert (receipt.sent, receipt.sent_bytes, receipt.deleted_there, read) == (1, 0, 1, [b"module.py"])
    assert tree(pair.here) == tree(pair.there)


def test_what_changes_before_it_is_read_waits(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """Without a digest a file is known by its stamp: what is gone, or was written or made a program meanwhile, goes next time."""
    for name in ("gone", "longer", "other", "program", "same"):
        write(pair.here / name, f"as it was: {name}\n", old=True)
    real = parcels.send

    def edit(folder, *rest):
        if folder == pair.here:
            (pair.here / "gone").unlink()
            write(pair.here / "longer", "much longer than it was before\n")
            write(pair.here / "other", "as it is: other!\n")
            (pair.here / "program").chmod(0o755)
        return real(folder, *rest)

    monkeypatch.setattr(parcels, "send", edit)
    receipt = pair.exchange()
    monkeypatch.undo()
    assert ({stay.path for stay in receipt.stays}, receipt.sent) == ({"gone", "longer", "other", "program"}, 1)
    assert tree(pair.there).keys() == {b"same"}
    assert pair.exchange().sent == 3
    assert tree(pair.here) == tree(pair.there)
    assert pair.exchange() == Receipt("gpubox")


def test_what_is_written_while_it_is_read_is_not_torn(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """Half of the old and half of the new is no content: it goes when it is whole."""
    write(pair.here / "data", b"a" * 400_000, old=True)
    real = os.readv

    def half(descriptor, views):
        if len(views[0]) != 400_000:
            return real(descriptor, views)
        count = real(descriptor, [views[0][:200_000]])
        with (pair.here / "data").open("r+b") as file:
            file.write(b"b" * 400_000)
        return count

    monkeypatch.setattr(os, "readv", half)
    assert [stay.path for stay in pair.exchange().stays] == ["data"]
    monkeypatch.undo()
    assert not (pair.there / "data").exists()
    pair.exchange()
    assert (pair.there / "data").read_bytes() == b"b" * 400_000


def test_what_may_not_be_sure_is_read_before_it_goes(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """What was written just now, what is not ours, and what perhaps cannot be read."""
    names = [b"just now", b"locked", b"not ours", b"sure"]
    for name in names:
        write(pair.here / os.fsdecode(name), b"x" * len(name), old=name != b"just now")
    (pair.here / "locked").chmod(0)
    read = _note_reads(monkeypatch)
    if os.geteuid() == 0:
        os.chown(pair.here / "not ours", 4711, -1)
    pair.exchange()
    assert sorted(read) == names[: -1 if os.geteuid() == 0 else 2]


def test_what_went_before_a_cut_is_known_by_its_digest(pair: Pair):
    """A deletion here, or an edit, between the cut and the next exchange is one, and no conflict."""
    write(pair.here / "agreed", "on", old=True)
    pair.exchange()
    for name in ("edited", "removed"):
        write(pair.here / name, f"{name} as it was", old=True)
    write(pair.here / "z", random.Random(0).randbytes(4 << 20), old=True)
    with pytest.raises(Unavailable):
        pair.exchange(2 << 20)
    assert (pair.there / "edited").exists()
    write(pair.here / "edited", "mine", old=True)
    (pair.here / "removed").unlink()
    receipt = pair.exchange()
    assert (receipt.sent, receipt.deleted_there, receipt.conflicts) == (2, 1, ())
    assert tree(pair.here) == tree(pair.there)
    assert tree(pair.here).keys() == {b"agreed", b"edited", b"z"}


def test_what_came_before_a_cut_is_known_too(pair: Pair):
    """A file that was fetched, whose digest is not kept here, and that is deleted there meanwhile, is deleted here."""
    write(pair.here / "agreed", "on", old=True)
    pair.exchange()
    write(pair.there / "its", "its", old=True)
    write(pair.there / "z", random.Random(0).randbytes(4 << 20), old=True)
    with pytest.raises(Unavailable):
        pair.exchange(2 << 20)
    assert (pair.here / "its").exists()
    (pair.home.state / "digests").unlink()
    (pair.there / "its").unlink()
    assert pair.exchange().deleted_here == 1
    assert tree(pair.here) == tree(pair.there)


# ---- what stays --------------------------------------------------------------------------------------------------------------


def test_what_stays_is_named_once(tmp_path: Path):
    """Links that lead outside, pipes, sockets and files beyond the cap stay, each with a clear line, told once."""
    pair = Pair(tmp_path, most=100_000)
    os.truncate(write(pair.here / "model.bin", b""), 1 << 40)
    (pair.here / "out").symlink_to("../secret")
    (pair.here / "absolute").symlink_to(pair.here / "model.bin")
    (pair.here / "sly").symlink_to("up/../../secret")
    os.mkfifo(pair.here / "pipe")
    write(pair.here / "small", "s")
    receipt = pair.exchange()
    assert tree(pair.there) == {b"small": ("file", b"s")}
    assert Stay("model.bin", "1.0 TiB") in receipt.stays
    assert [stay.path for stay in receipt.stays] == ["absolute", "model.bin", "out", "pipe", "sly"]
    assert "absolute (leads outside), " in receipt.line()
    again = pair.exchange()
    assert len(again.stays) == 5
    assert again.line() == ""
    os.mkfifo(pair.there / "pipe there")
    assert pair.exchange().line() == "pipe there (no file) stays on gpubox"
    assert pair.exchange().line() == ""


def test_a_file_that_outgrows_the_cap_is_not_deleted_there(tmp_path: Path):
    """It stays on both sides as it is, and travels when the cap allows; so does one that the cap on everything left out."""
    pair = Pair(tmp_path, most=1000)
    write(pair.here / "log", b"l" * 900)
    write(pair.here / "other", b"o" * 500)
    receipt = pair.exchange()
    assert receipt.line() == "1 file sent (500 B); log (900 B) stays here"
    write(pair.here / "other", b"p" * 2000)
    assert pair.exchange().line() == "1 file sent (900 B); other (2.0 KiB) stays here"
    assert (pair.there / "other").read_bytes() == b"o" * 500


def test_ignored_files_stay_on_their_side(pair: Pair):
    """What `.remoraignore` and our own rules leave out is neither sent, fetched nor deleted, even if it was agreed on before."""
    example(pair)
    for name in (
        ".git/config",
        "pkg/__pycache__/m.pyc",
        "node_modules/x/y.js",
        "env/pyvenv.cfg",
        "env/bin/python",
        ".ipynb_checkpoints/n",
    ):
        write(pair.here / name, "x")
    pair.exchange()
    assert set(tree(pair.there)) == {
        b"data.csv",
        b"pkg",
        b"pkg/module.py",
        b"pkg/large.bin",
        b"run.sh",
        b"empty",
        b"bare",
        b"link",
    }
    write(pair.here / ".remoraignore", "*.csv\npkg/large.*\n!node_modules\n")
    write(pair.there / "there.csv", "t")
    receipt = pair.exchange()
    assert receipt.deleted_there == receipt.deleted_here == receipt.fetched == 0
    assert (pair.there / "data.csv").exists()
    assert (pair.there / "pkg/large.bin").exists()
    assert not (pair.here / "there.csv").exists()
    assert (pair.there / "node_modules/x/y.js").exists()


def test_the_rules_stay_here(pair: Pair):
    """`.remoraignore` is not sent, and one that code on the machine writes changes nothing, or it could ask for what stays."""
    write(pair.here / ".remoraignore", "*.key\n")
    write(pair.here / "my.key", "private")
    pair.exchange()
    assert tree(pair.there) == {}
    write(pair.there / ".remoraignore", "!*.key\n!.git\n")
    pair.exchange()
    pair.exchange()
    assert set(tree(pair.here)) == {b".remoraignore", b"my.key"}
    assert (pair.here / ".remoraignore").read_text() == "*.key\n"
    assert set(tree(pair.there)) == {b".remoraignore"}


def test_rules_that_cannot_be_understood_are_named(pair: Pair):
    """A line of `.remoraignore` that is no pattern is an error with its number; nothing moves."""
    write(pair.here / ".remoraignore", "good\n[z-a]\n")
    with pytest.raises(InputError, match=r"line 2 of \.remoraignore"):
        pair.exchange()
    assert not pair.there.exists() or not tree(pair.there)


def test_a_folder_that_cannot_be_read_is_left_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """What was agreed on in a folder that cannot be read any more is not deleted there."""
    example(pair)
    pair.exchange()
    real = os.open

    def refuse(path, flags, mode=0o777, *, dir_fd=None):
        if path in ("pkg", b"pkg") and flags & os.O_DIRECTORY and threading.current_thread() is threading.main_thread():
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    receipt = pair.exchange()
    assert receipt.line() == "pkg (cannot be read) stays here"
    assert (pair.there / "pkg/large.bin").exists()


def test_names_of_all_kinds_arrive(pair: Pair):
    """Names with newlines, bytes that are no UTF-8, spaces at the end, a leading dash, and the longest ones."""
    names = [b"new\nline", b"\xff\xfe.bin", b"end ", b"-rf", b"\\", b"n" * 255, "grüße/ü".encode(), b"d/" * 100 + b"deep", b"*?["]
    for name in names:
        path = os.path.join(os.fsencode(pair.here), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name)
    pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    os.unlink(os.path.join(os.fsencode(pair.there), b"\xff\xfe.bin"))
    os.rename(os.path.join(os.fsencode(pair.there), b"new\nline"), os.path.join(os.fsencode(pair.there), b"new\r"))
    with open(os.path.join(os.fsencode(pair.there), b"n" * 255), "wb") as there:
        there.write(b"there")
    write(pair.here / ("n" * 255), "here")
    pair.exchange()
    assert tree(pair.here) == tree(pair.there)
    assert tree(pair.here)[b"n" * 243 + b".from-gpubox"] == ("file", b"there")


def test_a_sparse_file_takes_no_room_and_no_time(tmp_path: Path):
    """Of a large file with a hole in it the hole is not sent, and is one there."""
    pair = Pair(tmp_path)
    path = write(pair.here / "sparse", b"begin")
    os.truncate(path, 50 << 20)
    with open(path, "r+b") as file:
        file.seek(20 << 20)
        file.write(b"middle")
    pair.exchange()
    assert pair.moved < 3 << 20
    assert (pair.there / "sparse").stat().st_blocks * 512 < 4 << 20
    assert (pair.there / "sparse").read_bytes() == path.read_bytes()


# ---- cuts, faults, races -----------------------------------------------------------------------------------------------------


def test_a_cut_anywhere_loses_and_tears_nothing(tmp_path: Path):
    """Wherever the connection breaks each file is as it was or as it will be, and the next exchange completes."""
    chance = random.Random(7)
    whole = Pair(tmp_path / "whole")
    _both_sides_changed(whole)
    whole.exchange()
    for attempt in range(8):
        pair = Pair(tmp_path / str(attempt))
        versions = _both_sides_changed(pair)
        for _ in range(2):
            with contextlib.suppress(Unavailable):  # or it broke behind the last letter that counts
                pair.exchange(chance.randrange(whole.moved))
            for side in (pair.here, pair.there):
                assert {data for kind, data in tree(side).values() if kind == "file"} - _parts(side) <= versions
        pair.exchange()
        assert tree(pair.here) == tree(pair.there) == tree(whole.here)
        shutil.rmtree(tmp_path / str(attempt))


def _both_sides_changed(pair: Pair) -> set[bytes]:
    """Change everything in every way on both sides; return all versions of files that there are."""
    for name in ("same", "edited", "gone", "gone there", "both", "d/in"):
        write(pair.here / name, f"base {name}", old=True)
    pair.exchange()
    write(pair.here / "edited", "edited here")
    write(pair.here / "both", "both here")
    write(pair.there / "both", "both there")
    (pair.here / "gone").unlink()
    (pair.there / "gone there").unlink()
    write(pair.here / "large", LARGE)
    write(pair.there / "large there", LARGE[::-1])
    (pair.there / "d").rename(pair.there / "e")
    return {data for side in (pair.here, pair.there) for _, data in tree(side).values()}


def _parts(side: Path) -> set[bytes]:
    return {path.read_bytes() for path in side.rglob(".remora-*.part")}


def test_a_large_file_goes_on_where_it_was_cut(pair: Pair):
    """After a cut only the rest of a large file is sent, in either direction, and nothing half remains."""
    write(pair.here / "large", LARGE)
    with pytest.raises(Unavailable, match="the connection to gpubox broke"):
        pair.exchange(3_000_000)
    (half,) = tree(pair.there)
    assert half == parcels.aside(b"large", Entry(0, len(LARGE), blake3(LARGE).digest()))
    pair.exchange()
    assert pair.moved < 2_000_000
    write(pair.there / "back", LARGE[::-1])
    with pytest.raises(Unavailable):
        pair.exchange(3_000_000)
    pair.exchange()
    assert pair.moved < 2_000_000
    assert tree(pair.here) == tree(pair.there)
    assert tree(pair.here)[b"back"] == ("file", LARGE[::-1])


def test_half_a_file_that_is_not_wanted_any_more_is_removed(pair: Pair):
    """What was cut off and has changed since is swept, the user's own files of a like name are not."""
    write(pair.here / "large", LARGE)
    write(pair.there / ".remora-mine.part", "m")
    with pytest.raises(Unavailable):
        pair.exchange(3_000_000)
    write(pair.here / "large", "small now")
    pair.exchange()
    assert set(tree(pair.there)) == {b"large", b".remora-mine.part"}


def test_an_output_notebook_that_is_being_written_stays(pair: Pair):
    """It has another name in a moment; files of a like name are the user's own."""
    write(pair.here / ".remora-0a1b2c3d-out.ipynb.new", "half")
    write(pair.here / ".remora-mine.new", "m")
    pair.exchange()
    assert set(tree(pair.there)) == {b".remora-mine.new"}


@needs.extended_attributes
def test_an_output_notebook_that_will_be_written_again_stays(pair: Pair):
    """Until its run is over, or somebody else has written it: it neither goes nor is missed, and nothing is said of it."""
    write(pair.here / "out.ipynb", "first")
    write(pair.here / "data.csv", "a,b\n1,2\n", old=True)
    pair.exchange()
    for text in ("second", "third"):
        write(pair.here / "out.ipynb", text)
        paper._mark(pair.here / "out.ipynb")
        assert pair.exchange() == Receipt("gpubox")
    assert (pair.there / "out.ipynb").read_text() == "first"
    write(pair.here / "out.ipynb", "last")  # by an editor that knows of no marks, and keeps them
    assert pair.exchange().sent == 1
    assert (pair.there / "out.ipynb").read_text() == "last"
    write(pair.here / "out.ipynb", "never finished", old=True)
    paper._mark(pair.here / "out.ipynb")
    assert pair.exchange().sent == 1


def test_what_changed_again_after_a_cut_is_no_conflict(pair: Pair):
    """A file that had arrived when the connection broke, and is edited here again, is simply sent again."""
    example(pair)
    pair.exchange()
    write(pair.here / "data.csv", "second")
    write(pair.here / "z", LARGE[:2_000_000])
    with pytest.raises(Unavailable):
        pair.exchange(1_500_000)
    assert (pair.there / "data.csv").read_text() == "second"
    write(pair.here / "data.csv", "third")
    assert pair.exchange().conflicts == ()
    assert (pair.there / "data.csv").read_text() == "third"


def test_a_file_made_anew_after_a_cut_is_not_deleted(pair: Pair):
    """A deletion that was carried out before the cut does not reach a file that is made again with the same content."""
    example(pair)
    pair.exchange()
    (pair.here / "data.csv").unlink()
    write(pair.here / "z", LARGE[::-1])
    with pytest.raises(Unavailable):
        pair.exchange(2_000_000)
    assert not (pair.there / "data.csv").exists()
    write(pair.here / "data.csv", "a,b\n1,2\n")
    pair.exchange()
    assert (pair.here / "data.csv").exists()
    assert (pair.there / "data.csv").exists()


@pytest.mark.parametrize("kind", disks.KINDS)
@pytest.mark.parametrize("side", ["here", "there"])
def test_a_full_disk_is_named_and_what_arrived_stays(tmp_path: Path, kind, side: str):
    """Which side is full is said, what arrived is kept, and with room again the exchange goes on."""
    place = tmp_path / side
    pair = Pair(tmp_path)
    (tmp_path / "there").mkdir()
    source = pair.here if side == "there" else pair.there
    for number in range(10):
        write(source / f"{number}", LARGE[: 300_000 + number])
    write(source / "9-large", LARGE)
    with kind(place, 3000) as freed:
        full = kind is disks.tiny
        if full:
            with pytest.raises(StateError, match="^gpubox: no room" if side == "there" else "^no room") as caught:
                pair.exchange()
            assert caught.value.reason == "disk-full"
        else:
            assert "9-large (File too large) waits for the next run" in pair.exchange().line()
        assert len([path for path in tree(place) if b".part" not in path]) >= (6 if full else 10)
        freed()
        pair.exchange()
        assert tree(pair.here) == tree(pair.there)
        assert pair.moved < 3_000_000 + len(LARGE) - (1_500_000 if full else 0)


def test_a_file_that_changes_while_it_is_exchanged_is_not_overwritten(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """An edit here that comes between looking and fetching is kept, and meets the other version next time."""
    example(pair)
    pair.exchange()
    write(pair.there / "data.csv", "there")
    real = Arrivals.take

    def edit(self, letter, content):
        if threading.current_thread() is threading.main_thread():
            write(pair.here / "data.csv", "here, meanwhile")
        real(self, letter, content)

    monkeypatch.setattr(Arrivals, "take", edit)
    assert pair.exchange().line() == "data.csv (it was changed meanwhile) waits for the next run"
    monkeypatch.undo()
    assert (pair.here / "data.csv").read_text() == "here, meanwhile"
    pair.exchange()
    assert (pair.here / "data.csv.from-gpubox").read_text() == "there"


def test_a_file_that_changes_while_it_is_read_is_sent_next_time(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """What is sent is not what the index said: it is refused there, and goes next time."""
    example(pair)
    write(pair.there / "as large", "a,b\n3,4\n")  # so that data.csv is read before it goes
    real = parcels.send

    def edit(folder, *rest):
        if folder == pair.here:
            write(pair.here / "data.csv", "A,B\n1,2\n")
            os.truncate(pair.here / "pkg/large.bin", 1_000_000)
        return real(folder, *rest)

    monkeypatch.setattr(parcels, "send", edit)
    assert {stay.path for stay in pair.exchange().stays} == {"data.csv", "pkg/large.bin"}
    assert not (pair.there / "data.csv").exists()
    monkeypatch.undo()
    pair.exchange()
    assert tree(pair.here) == tree(pair.there)


@pytest.mark.parametrize("kind", ["cannot", "shrinks", "breaks"])
def test_files_that_the_system_sends(pair: Pair, monkeypatch: pytest.MonkeyPatch, kind: str):
    """Where it cannot they are read; one that shrinks meanwhile is left for the next time, all others are not."""
    write(pair.there / "as large", LARGE[9:100_009])  # so that those here are read before they go
    for number in range(4):
        write(pair.here / f"{number}", LARGE[number : number + 100_000] if number % 2 else b"%d" % number, old=True)
    real = os.sendfile

    def send(sink, source, at, size):
        if kind == "cannot":
            raise OSError(errno.EINVAL, "this disk has never learned it")
        os.truncate(pair.here / "3", 50_000)
        return real(sink, source, at, size)

    if kind != "breaks":
        monkeypatch.setattr(os, "sendfile", send)
    with pytest.raises(Unavailable) if kind == "breaks" else contextlib.nullcontext():
        receipt = pair.exchange(most=100_000 if kind == "breaks" else 1 << 60)
        assert [stay.path for stay in receipt.stays] == (["3"] if kind == "shrinks" else [])
        assert {path: tree(pair.here)[path] for path in tree(pair.there)} == tree(pair.there)
        assert receipt.sent == (3 if kind == "shrinks" else 4)
    monkeypatch.undo()
    pair.exchange()
    assert tree(pair.here) == tree(pair.there)


def test_what_is_written_into_a_file_as_it_gets_its_name_is_seen(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """A write into it between its digest and its name is no content that was agreed on, however old it pretends to be."""
    write(pair.here / "data.csv", "a,b\n1,2\n", old=True)
    real = Beneath.rename

    def edit(self, old, new):
        if new == b"data.csv":
            write(pair.there / os.fsdecode(old), "A,B\n1,2\n")
            os.utime(pair.there / os.fsdecode(old), ns=(OLD, OLD + 1))
        real(self, old, new)

    monkeypatch.setattr(Beneath, "rename", edit)
    pair.exchange()
    monkeypatch.undo()
    assert pair.exchange().fetched == 1
    assert (pair.here / "data.csv").read_text() == "A,B\n1,2\n"


def test_another_exchange_of_the_same_folder_waits(pair: Pair):
    """While somebody holds the folder's lock nothing is said; then the exchange goes its way."""
    example(pair)
    received: list[Receipt] = []
    with locked(pair.home.state):
        waiting = threading.Thread(target=lambda: received.append(pair.exchange()))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert not tree(pair.there) if pair.there.exists() else True
    waiting.join()
    assert received[0].sent == 6


def test_one_that_waits_here_holds_nothing_there(pair: Pair):
    """Of two exchanges of a folder the one that is later here may be there earlier: the other one does not wait for it."""
    example(pair)
    ends = socket.socketpair()
    early = threading.Thread(target=pair.serve, args=[ends[1]])
    received: list[Receipt] = []
    other = threading.Thread(target=lambda: received.append(pair.exchange()))
    early.start()
    early.join(0.2)
    other.start()
    other.join(20)
    done = [*received]
    ends[0].close()
    for thread in (early, other):
        thread.join()
    assert done[0].sent == 6


def test_two_machines_share_one_folder(tmp_path: Path):
    """Each machine has its own agreement with the folder; what one brings home goes to the other."""
    first = Pair(tmp_path)
    example(first)
    second = Pair(tmp_path / "second")
    second.here, second.home = first.here, FolderHome(first.here, first.home.state, "cloud/1", writable=True, most=1 << 30)
    first.exchange()
    second.exchange()
    write(second.there / "data.csv", "from the second")
    second.exchange()
    assert first.exchange().sent == 1
    assert tree(first.there) == tree(second.there) == tree(first.here)


# ---- any history -------------------------------------------------------------------------------------------------------------

_PATHS = ["a", "b", "a/x", "a/y", "b/x/z", "c"]
_EDITS = st.tuples(
    st.booleans(), st.sampled_from(_PATHS), st.sampled_from(["write", "program", "link", "folder", "remove", "rename"])
)


@settings(max_examples=25)
@given(history=st.lists(st.lists(_EDITS, max_size=5), min_size=1, max_size=4), cuts=st.lists(st.integers(0, 4000), max_size=2))
def test_any_history_ends_in_agreement_and_loses_nothing(history, cuts):
    """Whatever both sides do and wherever a connection breaks: both agree, and no version that nobody replaced is lost."""
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(Path(name))
        pair.exchange()
        for number, edits in enumerate(history):
            common = set(tree(pair.here).items()) & set(tree(pair.there).items())
            for at, (is_here, path, what) in enumerate(edits):
                _edit(pair.here if is_here else pair.there, path, what, f"{number} {at} {is_here}")
            news = {
                data
                for side in (pair.here, pair.there)
                for item in tree(side).items() - common
                if (data := item[1])[0] != "folder"
            }
            for cut in cuts:
                try:
                    pair.exchange(cut)
                except Unavailable:
                    continue
            receipt = pair.exchange()
            assert tree(pair.here) == tree(pair.there)
            assert news <= set(tree(pair.here).values()), receipt
        assert pair.exchange() == Receipt("gpubox")


def _edit(folder: Path, path: str, what: str, content: str) -> None:
    """Do something to a path as a user would; what cannot be done is not."""
    place = folder / path
    try:
        if what == "remove":
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        elif what == "rename":
            place.rename(folder / f"{path}-2")
        elif what == "folder":
            place.mkdir(parents=True)
        elif what == "link":
            place.symlink_to("c")
        else:
            write(place, content).chmod(0o755 if what == "program" else 0o644)
    except OSError:
        return


# ---- many files --------------------------------------------------------------------------------------------------------------


def test_thousands_of_files(pair: Pair):
    """Many small files arrive, and then ten of them cost no more than their own bytes and the digests of their folders."""
    for number in range(5_000):
        folder = pair.here / f"{number % 100:02d}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}").write_bytes(b"%d" % number)
    assert pair.exchange().sent == 5_000
    for number in range(0, 1000, 100):
        (pair.there / "00" / f"{number}").write_bytes(b"changed")
    assert pair.exchange().fetched == 10
    assert pair.moved < 40_000
    assert (pair.here / "00" / "900").read_bytes() == b"changed"
