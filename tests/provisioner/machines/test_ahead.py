"""What is sent ahead of a sandbox: a file that changes on its way is looked at again, and what is there is what it is now."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from remora.errors import StoreRefused
from remora.resources import SandboxSpec
from remora.wire import Request
from remora_provisioner.agent import Agent
from remora_provisioner.images.fitting import Fitting
from remora_provisioner.images.store import Store
from remora_provisioner.machines import ahead
from remora_provisioner.machines.ahead import Ahead
from remora_provisioner.machines.control import Control
from remora_provisioner.machines.folders import Folders
from remora_provisioner.machines.luggage import Luggage, Wanted, receive
from remora_provisioner.machines.threads import apart
from remora_provisioner.opening import Opening

from provisioner import sandboxes

FITTING = Fitting("python", "3.11", ())
WAYS = {
    "longer": lambda file: file.write_text("longer"),
    "another": lambda file: (file.parent.parent / "new").replace(file),
    "gone": Path.unlink,
}


class _Control(Control):
    """An agent that lacks everything, and is asked for it before anything is sent."""

    def __init__(self, before: Callable[[], object]) -> None:
        super().__init__("box", socket.socket, list, lambda _: None)
        self._before = before

    async def ask(self, request: Request) -> Any:
        self._before()
        return SimpleNamespace(result={"obstacle": "", "lacking": request.trees})


class Road:
    """The way of one folder to a machine whose store is here."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
        """Do `before` each time that something is about to be sent."""
        self.folder, self.store = root / "folder", Store(root / "store")
        self.folder.mkdir()
        (self.folder / "file").write_text("old")
        (self.folder / "other").write_text("other")
        (root / "new").write_text("new")
        here, control = Agent(root / "state", (), sandboxes.Listener()), _Control(before)
        self._ahead = Ahead("box", self._dial, control, here, Folders(root / "cache"))
        self._taking: list[asyncio.Future[None]] = []

        def packed(_: SandboxSpec, fitting: Fitting, __: Path, folders: Folders) -> Luggage:
            tree = folders.tree(self.folder).digest
            return Luggage(fitting, {str(self.folder): tree}, "", {tree: folders}, "")

        monkeypatch.setattr(ahead, "packed", packed)

    def _dial(self, _: str) -> socket.socket:
        ours, theirs = socket.socketpair()

        def take() -> None:
            with theirs:
                receive(self.store, theirs)

        self._taking.append(asyncio.ensure_future(apart(take)))
        return ours

    async def go(self) -> dict[str, str]:
        """Bring it, and return what is there."""
        try:
            fitting = await self._ahead.bring(Wanted(SandboxSpec({}), FITTING, Opening()))
        finally:
            await asyncio.gather(*self._taking)
        (tree,) = fitting["trees"]
        farm = self.store.farm(tree)
        return {name: (farm / name).read_text() for name in os.listdir(farm)}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_changes_on_its_way_is_sent_again(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever becomes of it, nobody has to run anything again."""
    file, ways = tmp_path / "folder/file", [WAYS[way]]
    found = asyncio.run(Road(tmp_path, monkeypatch, lambda: ways and ways.pop()(file)).go())
    assert found == {"other": "other"} | ({"file": file.read_text()} if file.exists() else {})


def test_a_file_that_changes_for_ever_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the end it is said what stands in the way."""
    seen: list[int] = []

    def change() -> None:
        seen.append(len(seen))
        (tmp_path / "folder/file").write_text(str(100 + len(seen)))

    with pytest.raises(StoreRefused) as refused:
        asyncio.run(Road(tmp_path, monkeypatch, change).go())
    assert (refused.value.reason, len(seen)) == ("wrong-digest", 3)
