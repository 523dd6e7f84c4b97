"""A folder's door: both of its sides, over a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from loops import in_loop
from remora import streams
from remora.doors import Door
from remora.wire import AT_REST, RunId
from remora_provisioner.machines import doors

Answers = dict[str, bool]


class House:
    """A folder's door and who answers there: by question, and only as long as `may_answer` is set."""

    def __init__(self, folder: Path) -> None:
        self.answers: Answers = {"": True}
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.says: list[str] = []
        self.door = doors.Door(folder / "links" / "folder", lambda: self._answer("", None), self._answer)

    def _answer(self, run: RunId | str, waiting: doors.Waiting | None) -> bool:
        self.asked.append(run)
        for text in self.says if waiting is not None else ():
            waiting.say(text)
        self.may_answer.wait(20)
        if run not in self.answers:
            raise ConnectionAbortedError("nobody knows")
        return self.answers[run]


def never(_: object = None) -> None:
    """Want to hear nothing while an answer is waited for."""


def asked(door: Door) -> bool:
    """Ask about now, as a cell does."""
    with suppress(OSError):
        return door.ask() and door.answer(never)
    return False


def until_asked(house: House) -> None:
    """Wait until a question has come."""
    while not house.asked:
        time.sleep(0.01)


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
async def test_what_is_said_before_an_answer(tmp_path: Path) -> None:
    """Lines for a person come before it, each as one line; it stays the answer to its question, whoever listens."""
    house, heard = House(tmp_path), list[str]()
    house.answers |= {"r1": False, "r2": True}
    house.says = ["sending files: 1 of 2", "= two\nlines ✓"]
    door = Door(str(house.door.path))

    def asks() -> list[bool]:
        found = [door.ask("r1") and door.answer(never, heard.append), door.ask("") and door.answer(never)]
        return [*found, door.ask("r2") and door.answer(never), door.ask("r2") and door.answer(never, heard.append)]

    assert await apart(asks) == [False, True, True, True]
    assert heard == ["sending files: 1 of 2", "= two lines ✓"] * 2
    door.forget()
    house.door.close()


@in_loop
async def test_a_kernel_that_does_not_listen(tmp_path: Path) -> None:
    """One of an earlier version asks in other words, and gets the answer alone; what is no run is not asked about."""
    house = House(tmp_path)
    house.answers |= {"r1": True}
    house.says = ["sending files: 1 of 2"]

    def asks(question: bytes) -> bytes:
        with streams.dial(house.door.path) as sock:
            sock.setblocking(True)
            sock.sendall(question)
            return sock.recv(100)

    assert await apart(lambda: asks(b"r1\n")) == AT_REST
    assert str(await apart(lambda: asks(b"+r1\n"))).startswith("b'+sending")
    assert await apart(lambda: asks(b"../r1\n")) == b""
    assert house.asked == ["r1", "r1"]
    house.door.close()


@in_loop
async def test_more_visitors_than_there_is_room_for(tmp_path: Path) -> None:
    """They are turned away, until one of those who wait has left: a wait ends with whoever waits."""
    never_said, other = socket.socketpair()
    waiting: list[bool] = []

    def is_home(_: RunId, visitor: doors.Waiting) -> bool:
        waiting.append(True)
        visitor.until(never_said)
        return True

    def until(so: Callable[[], object]) -> None:
        while not so():
            time.sleep(0.01)

    def come_and_go(path: str) -> None:
        visitors = [Door(path) for _ in range(doors._VISITORS)]
        assert sum(visitor.ask("r1") for visitor in visitors) == len(visitors)
        until(lambda: len(waiting) == len(visitors))
        more = Door(path)
        assert not asked(more)
        visitors[0].forget()
        until(lambda: asked(more))
        for visitor in (more, *visitors):
            visitor.forget()
        until(lambda: not door._visitors)

    with never_said, other:
        door = doors.Door(tmp_path / "links" / "folder", lambda: True, is_home)
        await apart(lambda: come_and_go(str(door.path)))
        door.close()


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
async def test_a_door_that_closes(tmp_path: Path) -> None:
    """Whoever waits gets the answer; who asks afterwards hears no; when there is one again it is as before."""
    house = House(tmp_path)
    door = Door(str(house.door.path))
    house.answers["r1"] = False
    house.may_answer.clear()
    assert await apart(lambda: door.ask("r1"))
    await apart(lambda: until_asked(house))
    house.door.close()
    house.may_answer.set()
    assert not await apart(lambda: door.answer(never))
    assert not await apart(lambda: asked(door))
    again = House(tmp_path)
    assert await apart(lambda: door.ask() and door.answer(never))
    door.forget()
    again.door.close()


@in_loop
async def test_an_answer_that_cannot_be_given(tmp_path: Path) -> None:
    """Whoever waits is told that there is none, which is not no; the next question is answered."""
    house = House(tmp_path)
    door = Door(str(house.door.path))
    assert await apart(lambda: door.ask("r1"))
    with pytest.raises(OSError, match="gone"):
        await apart(lambda: door.answer(never))
    assert await apart(lambda: door.ask() and door.answer(never))
    door.forget()
    house.door.close()


def test_no_door() -> None:
    """Where both machines have one folder, nothing is asked."""
    assert not Door("").ask()
