"""Runs on another machine under random faults: each comes to its end or says why not; nothing is lost, doubled, torn or left.

FAULTS says how many there are, SEED which ones.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys import faults
from journeys.commands import until
from journeys.driving import Place
from journeys.elsewhere import knowing
from provisioner.hosts import Host
from remora import errors
from remora.states import EndReason

from provisioner import disks, needs

pytestmark = needs.hosts
COUNT = int(os.environ.get("FAULTS", "14"))
SEED = os.environ.get("SEED", "remora")
SEATS = 3
_REASONS = {reason.value for reason in EndReason}
_KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.RemoraError)}
_KINDS -= {"InternalError"}  # nobody should see one


@pytest.fixture
def disk() -> Iterator[Path]:
    """Give a test a small disk."""
    place = Path(tempfile.mkdtemp(prefix="disk-"))
    with disks.tiny(place, 300 << 10):
        yield place
    place.rmdir()


@pytest.mark.timeout(600 + 10 * COUNT)
def test_random_faults(small_environment: str, disk: Path) -> None:
    """Every kind of fault, over and over, in an order that the seed says."""
    chance = random.Random(SEED)
    with Host(name="box", home="size=400m") as host, knowing(host, small_environment) as place:
        place.state = disk / "state"
        place.environment |= {"REMORA_STATE_DIR": str(place.state), "REMORA_KERNEL_GRACE": "10"}
        clocks = faults.Clocks(host, place)
        observer = faults.Observer(place, small_environment, patience=20)
        seats = [faults.Seat(n, place, observer, random.Random(f"{SEED} {n}"), _folder(disk, n)) for n in range(SEATS)]
        struck = faults.Faults(host, place, seats, chance, clocks)
        for seat in seats:
            seat.start()
        try:
            seats[0].begun.wait()
            clocks.there()
            struck.strike(_kinds(struck, chance))
        finally:
            struck.mend()
            for seat in seats:
                seat.stop()
            observer.close()
        outcomes = Counter(outcome(sent) for seat in seats for sent in seat.sent)
        print(f"seed {SEED}: {struck.struck}; {dict(outcomes)}", file=sys.stderr)
        again = faults.Observer(place, small_environment, patience=1)
        try:
            wrong = [why for seat in seats for why in judged(seat, again)]
        finally:
            again.close()
        for seat in seats:
            wrong += [f"seat {seat.number}: {why}" for why in seat.trouble]
        wrong += left(host, place)
        assert not wrong, "\n".join([f"seed {SEED}, {struck.struck}", *wrong])
        assert outcomes["done"] + outcomes["ended crashed"] >= max(1, COUNT // 20), "too few runs had their way to tell anything"


def _kinds(struck: faults.Faults, chance: random.Random) -> list[str]:
    """Return which faults happen: each kind about as often."""
    kinds: list[str] = []
    while len(kinds) < COUNT:
        kinds += chance.sample([*struck.kinds], len(struck.kinds))
    return kinds[:COUNT]


def outcome(sent: faults.Sent) -> str:
    """Return in a few words what became of a run."""
    words = [sent.seen.get("state"), sent.seen.get("reason")] if sent.run else ["refused", sent.refused.partition(":")[0]]
    return " ".join(filter(None, words))


def _folder(disk: Path, number: int) -> Path:
    folder = disk / f"notebook-{number}"
    folder.mkdir()
    return folder


def judged(seat: faults.Seat, again: faults.Observer) -> Iterator[str]:
    """Yield what is wrong with the runs of a seat."""
    for sent in seat.sent:
        if not sent.run:
            if sent.refused and "KernelGone" not in sent.refused and sent.refused.split(":")[0] not in _KINDS:
                yield f"run {sent.number} was not begun: {sent.refused}"
            continue
        replayed = again.follow(sent.run)
        same = all(replayed.get(name) == sent.seen.get(name) for name in ("state", "reason", "text"))
        if not same and sent.seen.get("reason") != "no-such-run" and not sent.seen.get("in_memory"):
            yield f"run {sent.number} ({sent.run}) was {sent.seen}, is told otherwise now: {replayed}"
        told = sent.seen if sent.seen.get("in_memory") else replayed  # what found no room may be lost with its sandbox
        wrong = (*_wrong(sent, told), *_wrong_files(seat, sent, told))
        yield from (f"run {sent.number} ({sent.run}), {what}" for what in wrong)


def _wrong_files(seat: faults.Seat, sent: faults.Sent, seen: dict[str, str]) -> Iterator[str]:
    made, given = (f"made-{sent.number}.txt", 20_000), (f"given-{sent.number}.txt", 5000)
    for name, times in (made, given):
        file = seat.folder / name
        if file.exists() and file.read_text() != f"{sent.number}\n" * times:
            yield f"{name} is torn"
        if not file.exists() and (seen["text"] if name in made else "made True\n" * sent.given).endswith("made True\n"):
            yield f"{name} is lost"


def _wrong(sent: faults.Sent, seen: dict[str, str]) -> Iterator[str]:
    text, state, reason = seen.get("text", ""), seen.get("state"), seen.get("reason")
    lines = text.removesuffix("made True\n").removesuffix("made False\n")
    if state == "done":
        if lines != sent.wanted or lines == text:
            yield f"done, but printed {text!r}"
    elif not sent.wanted.startswith(lines):
        yield f"{state}, printed {text!r}"
    elif state == "ended" and reason not in _REASONS:
        yield f"ended without a reason: {seen}"
    elif state == "lost" and reason != "no-such-run" and not (_has_no_end(seen) and reason in _REASONS):
        yield f"lost sight of: {seen}"
    elif state not in ("ended", "lost") and not (state == "failed" and _for_want_of_room(seen)):
        yield f"{state}: {seen}"


def _has_no_end(seen: dict[str, str]) -> bool:
    """Tell whether the end found no room in the log, and is told as an error, with its reason."""
    return bool(seen.get("in_memory")) or "is not all there any more" in seen.get("message", "")


def _for_want_of_room(seen: dict[str, str]) -> bool:
    return bool(seen.get("in_memory")) or "No space left on device" in seen.get("message", "")


def left(host: Host, place: Place) -> Iterator[str]:
    """Yield what is left when all was ended."""
    place.stop_all(place.state)
    try:
        until(lambda: not host.processes(), "the end of all there")
    except AssertionError:
        yield f"left there: {host.processes()}"
    agent = host.home_path / ".local/share/remora/agent"
    assert [*agent.glob("state-*/images")]
    for pattern in ("state-*/sandboxes/*", "incoming/*"):
        for path in agent.glob(pattern):
            yield f"left there: {path}"
    for path in place.state.glob("backend-*/sandboxes/*"):
        yield f"left here: {path}"
    host.stop()  # what was started anew since would count as left behind by the place
