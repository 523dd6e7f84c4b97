"""The output notebook's file: whole at every moment, and refused before anything runs where it cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from remora.errors import InputError
from remora.headless.paper import UNFINISHED, Paper

from provisioner import needs


def paper(path: Path | str, lock: Path | None = None, pause: float = 0.5) -> Paper:
    """Return a paper of an empty notebook."""
    return Paper(str(path), nbformat.v4.new_notebook, lock, pause)


def test_it_is_written_when_something_has_changed(tmp_path: Path) -> None:
    """At once when a cell is over, after a pause otherwise, not at all when nothing is new; no other file is left."""
    one = paper(tmp_path / "o.ipynb", pause=1000)
    one.save_if_due()
    assert not (tmp_path / "o.ipynb").exists()
    one.changed()
    one.save_if_due()
    assert one.due is None
    first = (tmp_path / "o.ipynb").stat().st_ino
    one.changed()
    one.save_if_due()
    assert (tmp_path / "o.ipynb").stat().st_ino == first
    one.finish()
    assert (tmp_path / "o.ipynb").stat().st_ino != first
    assert os.listdir(tmp_path) == ["o.ipynb"]


@needs.extended_attributes
def test_it_bears_a_mark_until_it_is_finished(tmp_path: Path) -> None:
    """By which it is known that it will be written again; a file system that knows no marks is no trouble."""
    one = paper(tmp_path / "o.ipynb")
    one.changed()
    one.save_if_due()
    assert UNFINISHED in os.listxattr(tmp_path / "o.ipynb")
    one.finish()
    assert os.listxattr(tmp_path / "o.ipynb") == []
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(os, "setxattr")
        one._soonest = one._next = 0.0
        one.changed()
        one.save_if_due()
    assert (tmp_path / "o.ipynb").read_text()


def test_of_two_that_follow_one_writes_as_it_goes(tmp_path: Path) -> None:
    """The second waits until the first is gone; both write the end."""
    one, other = (paper(tmp_path / name, tmp_path / "lock") for name in ("o.ipynb", "p.ipynb"))
    for each in (one, other):
        each.changed()
        each.save_if_due(at_once=True)
    assert not (tmp_path / "p.ipynb").exists()
    assert other.due is not None
    one.close()
    other._soonest = 0.0
    other.save_if_due(at_once=True)
    assert (tmp_path / "p.ipynb").exists()
    one.finish()
    other.close()
    other.close()


def test_a_link_and_the_files_mode_are_kept(tmp_path: Path) -> None:
    """What is replaced is the file behind a link, with the permissions that it had."""
    (tmp_path / "real.ipynb").write_text("old")
    (tmp_path / "real.ipynb").chmod(0o640)
    (tmp_path / "link.ipynb").symlink_to("real.ipynb")
    paper(tmp_path / "link.ipynb").finish()
    assert (tmp_path / "link.ipynb").is_symlink()
    assert (tmp_path / "real.ipynb").stat().st_mode & 0o777 == 0o640
    assert nbformat.read(tmp_path / "real.ipynb", 4).nbformat == 4


def test_what_is_no_plain_file_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Devices and standard output get the end alone."""
    device = paper("/dev/null")
    device.check()
    device.changed()
    assert device.due is None
    device.finish()
    out = paper("-")
    out.check()
    out.finish()
    assert nbformat.reads(capsys.readouterr().out, 4).nbformat == 4


@pytest.mark.parametrize(
    ("path", "words"), [("none/o.ipynb", "is not there"), (".", "is a folder"), ("https://a/o.ipynb", "not on this machine")]
)
def test_a_place_that_cannot_be_written_is_refused(
    path: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything has run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        paper(path).check()


def test_a_full_disk_is_found_before_anything_runs() -> None:
    """Where nothing can be written, whoever asks is told; sysfs stands for a disk that takes no file."""
    with pytest.raises(InputError, match="cannot be written"):
        paper("/sys/o.ipynb").check()
