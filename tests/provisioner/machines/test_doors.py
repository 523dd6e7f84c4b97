"""A folder's door: both of its sides, over a real socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from loops import in_loop
from remora.doors import Door
from remora.wire import RunId
from remora_provisioner.machines import doors

Answers = dict[str, bool]


class House:
    """A folder's door and who answers there: by question, and only as long as `may_answer` is set."""

    def __init__(self, folder: Path) -> None:
        self.answers: Answers = {"": True}
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.door = doors.Door(folder / "links" / "folder", lambda: self._answer(""), self._answer)

    def _answer(self, run: RunId | str) -> bool:
        self.asked.append(run)
        self.may_answer.wait(20)
        return self.answers[run]


def never() -> None:
    """Want to hear nothing while an answer is waited for."""


async def apart(work: Callable[[], object]) -> object:
    """Do what a cell's thread does."""
    return await asyncio.to_thread(work)


@in_loop
async def test_one_connection_answers_all_questions(tmp_path: Path) -> None:
    """About now, and about the end of a run."""
    house = House(tmp_path)
    house.answers |= {"r1": False, "r2": True}
    door = Door(str(house.door.path))

    def asks() -> list[bool]:
        return [door.ask(about) and door.answer(never) for about in ("", "r1", "r2", "")]

    assert await apart(asks) == [True, False, True, True]
    assert house.asked == ["", "r1", "r2", ""]
    door.forget()
    house.door.close()


@in_loop
async def test_one_question_at_a_time(tmp_path: Path) -> None:
    """Who comes meanwhile is to do without; an answer that nobody wants any more is not taken for the next one."""
    house = House(tmp_path)
    house.answers |= {"r1": False}
    door = Door(str(house.door.path))
    house.may_answer.clear()
    assert await apart(lambda: door.ask("r1"))
    assert not await apart(door.ask)
    door.forget()
    house.may_answer.set()
    assert await apart(lambda: door.ask() and door.answer(never))
    door.forget()
    house.door.close()


@in_loop
async def test_while_an_answer_is_awaited(tmp_path: Path) -> None:
    """Something else may be done now and then."""
    house = House(tmp_path)
    door = Door(str(house.door.path))
    house.may_answer.clear()
    ticks: list[int] = []

    def tick() -> float:
        ticks.append(1)
        if len(ticks) == 3:
            house.may_answer.set()
        return 0.001

    assert await apart(lambda: door.ask() and door.answer(tick))
    assert len(ticks) >= 3
    door.forget()
    house.door.close()


@in_loop
async def test_leaving(tmp_path: Path) -> None:
    """Another thread ends the waiting; later questions are answered again."""
    house = House(tmp_path)
    door = Door(str(house.door.path))
    house.may_answer.clear()
    assert await apart(lambda: door.ask("r1"))
    threading.Timer(0.05, door.leave).start()
    with pytest.raises(OSError, match="gone"):
        await apart(lambda: door.answer(never))
    house.answers["r1"] = True
    house.may_answer.set()
    assert await apart(lambda: door.ask("r1") and door.answer(never))
    door.forget()
    house.door.close()


@in_loop
async def test_a_backend_that_goes_and_comes_back(tmp_path: Path) -> None:
    """Whoever waits is told; who asks while there is none hears no; afterwards it is as before."""
    house = House(tmp_path)
    door = Door(str(house.door.path))
    assert await apart(lambda: door.ask() and door.answer(never))
    house.may_answer.clear()
    assert await apart(lambda: door.ask("r1"))
    house.door.close()
    with pytest.raises(OSError, match="gone"):
        await apart(lambda: door.answer(never))
    assert not await apart(door.ask)
    again = House(tmp_path)
    assert await apart(lambda: door.ask() and door.answer(never))
    house.answers["r1"] = True
    house.may_answer.set()
    door.forget()
    again.door.close()


def test_no_door() -> None:
    """Where both machines have one folder, nothing is asked."""
    assert not Door("").ask()
