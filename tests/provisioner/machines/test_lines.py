"""The line to a machine, as those see it who wait for it: asked while they wait, and no longer than that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from loops import in_loop
from remora.errors import Unavailable
from remora_provisioner.machines import lines
from remora_provisioner.machines.lines import Line
from remora_provisioner.opening import Opening


class _Door:
    """A machine that asks for a password, and opens for nobody."""

    def __init__(self) -> None:
        self.heard: list[str | None] = []
        self.tried = asyncio.Event()

    async def __call__(self, opening: Opening) -> socket.socket:
        self.heard.append(await opening.ask("who?", False))
        self.tried.set()
        raise Unavailable("box lets nobody in", reason="not-authorised")


def _person(answer: str | None, asked: asyncio.Event, answers: asyncio.Event | None = None) -> Opening:
    async def ask(text: str, secret: bool) -> str | None:
        asked.set()
        if answers is not None:
            await answers.wait()
        return answer

    return Opening(ask=ask)


@in_loop
async def test_who_waits_now_is_asked() -> None:
    """Whoever leaves over a question answers nothing; whoever has come meanwhile is asked, and not refused for it."""
    door, asked, leaves, second = _Door(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    line = Line("box", door)
    first = asyncio.create_task(line.reached(_person(None, asked, leaves)))
    await asked.wait()
    other = asyncio.create_task(line.reached(_person("ada", second)))
    first.cancel()
    await asyncio.wait({first})
    leaves.set()
    with pytest.raises(Unavailable, match="lets nobody in"):
        await other
    assert door.heard[-1] == "ada"
    line.close()


@in_loop
async def test_what_nobody_waits_for_is_given_up() -> None:
    """An attempt ends with the last who waits for it, and whoever comes then begins a new one."""
    ended, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def slow(opening: Opening) -> socket.socket:
        begun.release()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    line = Line("box", slow)
    for _ in range(2):
        ended.clear()
        waiting = asyncio.create_task(line.reached(Opening()))
        await begun.acquire()
        waiting.cancel()
        await ended.wait()
        assert waiting.cancelled()
    line.close()


@in_loop
async def test_nobody_is_asked_when_nobody_waits() -> None:
    """A machine that is reached again by itself gets no answer."""
    door = _Door()
    line = Line("box", door)
    line.dial("agent").close()
    await door.tried.wait()
    assert door.heard == [None]
    line.close()


@in_loop
async def test_who_wants_the_machine_waits_for_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who dials it while it is not tried, or has done so during a try that failed, has it tried at once."""
    monkeypatch.setattr(lines, "_SOONEST", 3600.0)
    begun, fails = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def shut(opening: Opening) -> socket.socket:
        begun.release()
        await fails.acquire()
        raise Unavailable("box is away", reason="unreachable")

    line = Line("box", shut)
    dialled = [line.dial("agent")]
    async with asyncio.timeout(60):
        await begun.acquire()
        dialled.append(line.dial("agent"))
        fails.release()
        await begun.acquire()
        fails.release()
        await asyncio.sleep(0.05)
        assert begun.locked()
        dialled.append(line.dial("agent"))
        await begun.acquire()
    line.close()
    for sock in dialled:
        sock.close()


@in_loop
async def test_waiting_has_an_end_but_for_answers() -> None:
    """Who waits within a time hears what is so until then; the time of a person who types does not count."""

    async def silent(opening: Opening) -> socket.socket:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    line = Line("box", silent)
    with pytest.raises(Unavailable, match="box cannot be reached: files wait"):
        await line.reached_within(0.01, "files wait")
    line.close()
    door, asked, typed = _Door(), asyncio.Event(), asyncio.Event()
    line = Line("box", door)
    waiting = asyncio.create_task(line.reached_within(0.01, "files wait", _person("ada", asked, typed)))
    await asked.wait()
    assert not (await asyncio.wait({waiting}, timeout=0.1))[0]
    typed.set()
    with pytest.raises(Unavailable, match=r"box lets nobody in\. Until that is mended, files wait"):
        await waiting
    line.close()


@in_loop
async def test_work_in_work_is_given_up_as_a_whole() -> None:
    """Giving up ends all of what is waited for, wherever it is in it."""
    opening, inner, said = Opening(), asyncio.Event(), list[str]()

    async def part() -> None:
        inner.set()
        await asyncio.get_running_loop().create_future()

    async def whole(after: Callable[[str], None]) -> None:
        await opening.during(asyncio.sleep(0))
        try:
            await opening.during(part())
        finally:
            after("ended")

    task = asyncio.create_task(opening.during(whole(said.append)))
    await inner.wait()
    opening.give_up()
    with pytest.raises(Exception, match="cancelled before its sandbox was there"):
        await task
    assert said == ["ended"]
