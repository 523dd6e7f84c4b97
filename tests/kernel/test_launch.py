"""The folder in which a backend keeps what it has is its user's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from remora import launch
from remora.errors import StateError

_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others cannot become somebody else")
ELSE = 12345


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a state directory that is not there yet."""
    monkeypatch.setenv("REMORA_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize("umask", [0, 0o077])
def test_it_is_made_for_one_user(state: Path, umask: int) -> None:
    """Whatever the umask is; one that was opened to others since, or copied, is closed again."""
    before = os.umask(umask)
    try:
        made = launch._make(launch.backend_directory())
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (state, made)] == [0o700, 0o700]
    made.chmod(0o777)
    launch._make(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_folder_that_others_may_write(state: Path) -> None:
    """There somebody could put another folder in the place of ours; one such as /tmp, where that is forbidden, will do."""
    state.mkdir()
    state.chmod(0o777)
    with pytest.raises(StateError, match="others may write there"):
        launch.ensure_backend()
    assert not launch.backend_directory().exists()
    state.chmod(0o1777)
    assert launch._make(launch.backend_directory()).is_dir()


@_root
def test_a_folder_of_somebody_else(state: Path, tmp_path: Path) -> None:
    """Nor is a link used that somebody else has put there, and could lead elsewhere tomorrow."""
    state.mkdir()
    os.chown(state, ELSE, ELSE)
    with pytest.raises(StateError, match="belongs to another user"):
        launch.ensure_backend()
    state.rename(tmp_path / "other")
    os.chown(tmp_path / "other", 0, 0)
    state.symlink_to(tmp_path / "other")
    os.chown(state, ELSE, ELSE, follow_symlinks=False)
    with pytest.raises(StateError, match="belongs to another user"):
        launch.ensure_backend()
    assert not [*(tmp_path / "other").iterdir()]
