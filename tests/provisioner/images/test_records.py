"""Records and names: whole or not there, found in one step, the one used longest ago first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from remora_provisioner.images.records import Record, Records

KEYS = ["a" * 64, "b" * 64, "c" * 64]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """What was put is what is found, also by another process's object; what was not put is None."""
    record = Record(KEYS[0], {"kind": "pip"}, below=KEYS[1], tree=KEYS[2], lock="six==1", log="logs/a.log", seconds=1.5, size=3)
    Records(tmp_path).put(record)
    assert Records(tmp_path).get(KEYS[0]) == record
    assert Records(tmp_path).get(KEYS[1]) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "x", "unknown": 1}'])
def test_a_record_that_is_not_whole_is_none(tmp_path: Path, text: str) -> None:
    """A torn file, or one of another version, is taken for no record, and a new one takes its place."""
    records = Records(tmp_path)
    (tmp_path / "records" / f"{KEYS[0]}.json").write_text(text)
    assert records.get(KEYS[0]) is None
    records.put(Record(KEYS[0], {"kind": "pip"}))
    assert records.get(KEYS[0]) is not None


def test_finding_a_record_lists_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of finding one does not depend on how many there are."""
    records = Records(tmp_path)
    records.put(Record(KEYS[0], {"kind": "pip"}))
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("the folder was listed"))
    assert records.get(KEYS[0]) is not None


def test_the_one_used_longest_ago_comes_first(tmp_path: Path) -> None:
    """`touch` makes a record young; a key that is not there is passed over."""
    records = Records(tmp_path)
    for age, key in enumerate(KEYS):
        records.put(Record(key, {"kind": "pip"}))
        os.utime(tmp_path / "records" / f"{key}.json", (1000 + age, 1000 + age))
    records.touch(KEYS[0])
    assert [record.key for record in records.all()] == [KEYS[1], KEYS[2], KEYS[0]]
    assert records.used(KEYS[1]) == 1001
    records.remove(KEYS[1])
    records.remove(KEYS[1])
    records.touch(KEYS[1])
    assert records.get(KEYS[1]) is None
    assert records.used(KEYS[1]) == 0


def test_a_key_leads_nowhere_else(tmp_path: Path) -> None:
    """A text that is not a sha256 is no key."""
    with pytest.raises(ValueError, match="not a key"):
        Records(tmp_path).get("../../etc/passwd")


def test_a_name_stands_for_an_image(tmp_path: Path) -> None:
    """Names with a tag are published, found, listed, and taken over by the next."""
    records = Records(tmp_path)
    assert records.named("torch:1") is None
    records.publish("torch:1", {"base": {"kind": "mirror"}})
    records.publish("a", {"base": {"kind": "python"}})
    records.publish("torch:1", {"base": {"kind": "python"}})
    assert records.named("torch:1") == {"base": {"kind": "python"}}
    assert records.names() == ["a", "torch:1"]
