"""The store: what is saved is found again, by a later backend too, and a database that cannot be used costs a listing alone."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from remora_backend.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database lies."""
    return tmp_path / "remora.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Open a store for one test."""
    opened = Store(path)
    yield opened
    opened.close()


def _ids(rows: list[dict[str, object]]) -> list[object]:
    return [row["id"] for row in rows]


def test_the_last_word_counts(store: Store) -> None:
    """A run that changes twice is one row, with what was said last."""
    store.save_run("r1", None, "queued", {"name": "f"})
    store.save_run("r1", "s1", "running", {"name": "f", "started": 1.0})
    (row,) = store.runs(10)
    assert (row["id"], row["sandbox"], row["state"], row["facts"]) == ("r1", "s1", "running", {"name": "f", "started": 1.0})


def test_the_newest_run_comes_first(store: Store) -> None:
    """Runs are listed by when they changed, at most as many as are asked for."""
    for run in ("r1", "r2", "r3"):
        store.save_run(run, None, "done", {})
    assert _ids(store.runs(2)) == ["r3", "r2"]


def test_living_and_ended_sandboxes_are_told_apart(store: Store) -> None:
    """A sandbox that has ended is not among the living."""
    store.save_sandbox("s1", "busy", {})
    store.save_sandbox("s2", "ended", {})
    assert (_ids(store.sandboxes(living=True)), _ids(store.sandboxes(living=False))) == (["s1"], ["s2"])


def test_a_run_is_found_by_a_beginning_of_its_id(store: Store) -> None:
    """Signs that mean something to SQL are taken as they are."""
    store.save_run("ab1", None, "done", {})
    store.save_run("ab2", None, "done", {})
    assert [_ids(store.find_runs(prefix)) for prefix in ("ab1", "a_", "%")] == [["ab1"], [], []]
    assert len(store.find_runs("ab")) == 2


def test_written_is_done_when_it_is_in_the_file(store: Store, path: Path) -> None:
    """What `written` promises can be read by another connection."""
    store.save_run("r1", None, "queued", {})
    store.written().result(timeout=30)
    other = Store(path)
    assert _ids(other.runs(1)) == ["r1"]
    other.close()


def test_what_was_left_behind_is_found_by_the_next(path: Path) -> None:
    """A backend that leaves with living sandboxes and unfinished runs finds them when it is back."""
    first = Store(path)
    first.save_sandbox("s1", "ready", {"kernel": "k"})
    first.save_sandbox("s2", "ended", {})
    first.save_run("r1", "s1", "running", {})
    first.save_run("r2", "s2", "done", {})
    first.close()
    second = Store(path)
    sandboxes, runs = second.left_behind()
    second.close()
    assert (_ids(sandboxes), _ids(runs)) == (["s1"], ["r1"])


def test_a_killed_backend_leaves_no_mark(path: Path) -> None:
    """What a process saved that never closed its store is found all the same, though the one before it had left in order."""
    Store(path).close()
    lines = (
        "import os, pathlib, sys",
        "from remora_backend.store import Store",
        "store = Store(pathlib.Path(sys.argv[1]))",
        "store.save_run('r1', None, 'queued', {})",
        "store.written().result()",
        "os._exit(9)",
    )
    code = subprocess.run([sys.executable, "-c", "\n".join(lines), str(path)], env=dict(os.environ), check=False).returncode
    store = Store(path)
    assert (code, [_ids(rows) for rows in store.left_behind()]) == (9, [[], ["r1"]])
    store.close()


def test_nothing_is_left_behind_after_a_settled_end(path: Path) -> None:
    """A backend that left with everything ended has nothing to take up."""
    first = Store(path)
    first.save_run("r1", None, "done", {})
    first.close()
    second = Store(path)
    assert second.left_behind() == ([], [])
    assert _ids(second.runs(1)) == ["r1"]
    second.close()


def test_what_ended_long_ago_is_dropped(store: Store) -> None:
    """Runs that ended before the moment are forgotten and named; those that go on stay."""
    store.save_run("r1", None, "done", {})
    store.save_run("r2", None, "running", {})
    (first, _) = sorted(store.runs(2), key=lambda row: str(row["id"]))
    assert store.forget_before(float(first["changed"]) + 60) == ["r1"]
    assert _ids(store.runs(2)) == ["r2"]


def test_closing_twice_is_harmless(path: Path) -> None:
    """The second time does nothing."""
    store = Store(path)
    store.close()
    store.close()


def test_a_file_that_is_no_database(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Writing and reading go on without it, and the log says what is wrong."""
    path.write_text("no database " * 1000)
    with caplog.at_level(logging.WARNING):
        store = Store(path)
        store.save_run("r1", None, "queued", {})
        assert (store.runs(1), store.left_behind(), store.forget_before(0.0)) == ([], ([], []), [])
        store.close()
    assert "cannot be used: file is not a database" in caplog.text


def test_a_database_that_could_not_be_opened_at_first(path: Path) -> None:
    """Once what was in its way is gone, it is opened, and what was saved meanwhile is in it."""
    in_the_way = path.with_name(f"{path.name}-journal")
    in_the_way.mkdir()
    store = Store(path)
    try:
        store.save_run("r1", None, "queued", {"said": "meanwhile"})
        store.save_run("r2", None, "queued", {})
        store.written().result()
        in_the_way.rmdir()
        store.save_run("r2", None, "running", {})
        store.written().result()
        assert {row["id"]: row["state"] for row in store.runs(10)} == {"r1": "queued", "r2": "running"}
    finally:
        store.close()
