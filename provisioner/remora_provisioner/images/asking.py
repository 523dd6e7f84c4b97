"""What may be asked about the images of a machine, and done to them: one function for each question, by name.

Law: plain values in and out. Blocks, so it is called on a thread; building is not here but in keeping.py.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from remora.errors import OptionError, Refused
from remora.images import Image
from remora.images.steps import check_name
from remora.wire import Fields

from .build.wheels import read_lock
from .built import keys_here, resolve
from .gc import collect
from .lock import building
from .records import Record, Records
from .store import Store

_PARTS = ("wheel", "layer")
"""Kinds of records that are no step of an image."""
_RECENT = 600.0
"""Seconds in which a record that was used is not given up: somebody may be about to use it again."""
Object = tuple[str, bool]


def listed(root: Path, _: Fields) -> Fields:
    """Return the steps that were built, the last used first, the published names, and the bytes of the store."""
    records = Records(root)
    steps = [_described(root, records, record) for record in records.all()[::-1] if record.step["kind"] not in _PARTS]
    names = [{"name": name, "image": records.named(name)} for name in records.names()]
    return {"steps": steps, "names": names, "size": Store(root).size()}


def shown(root: Path, args: Fields) -> Fields:
    """Return a step, or a published image, with all that it stands on and the exact packages of each step."""
    records = Records(root)
    record: Record | None = _find(root, records, str(args["what"]))
    steps: list[Fields] = []
    while record is not None:
        steps.insert(0, _described(root, records, record) | {"packages": _packages(record), "lock": record.lock})
        record = records.get(record.below) if record.below else None
    return {"steps": steps}


def log(root: Path, args: Fields) -> Fields:
    """Return the log of a step, also of one that failed."""
    prefix = str(args["what"])
    found = sorted((root / "logs").glob(f"{prefix}*.log")) if prefix.isalnum() else []
    if len(found) != 1:
        record = _find(root, Records(root), prefix)
        found = [root / record.log]
    return {"key": found[0].stem, "text": found[0].read_text(errors="replace")}


def publish(root: Path, args: Fields) -> Fields:
    """Let a name stand for an image."""
    Records(root).publish(check_name(str(args["name"])), Image.from_dict(args["image"]).to_dict())
    return {}


def remove(root: Path, args: Fields) -> Fields:
    """Forget a published name, or a step; what only it had goes with the next collection."""
    records, what = Records(root), str(args["what"])
    if records.named(what) is not None:
        records.unpublish(what)
        return {"removed": what}
    record = _find(root, records, what)
    records.remove(record.key)
    return {"removed": record.key}


def verify(root: Path, _: Fields) -> Fields:
    """Re-hash everything, and return a line for each thing that is wrong."""
    return {"faults": Store(root).verify()}


def gc(root: Path, args: Fields) -> Fields:
    """Give up steps, the one used longest ago first, until the rest fits in `most` bytes (0: all); remove what nobody has.

    Published images, and what living sandboxes run in, stay.
    """
    _empty_caches(root)
    return _collect(root, args)


def tidy(root: Path, most: int) -> None:
    """Collect if the store has grown beyond `most` bytes. Not while something is built: whoever ends last does it."""
    with contextlib.suppress(BlockingIOError), building(root, alone=True):
        if Store(root).size() > most:
            _collect(root, {"most": most})


def _collect(root: Path, args: Fields) -> Fields:
    store, records = Store(root), Records(root)
    for record in _surplus(root, store, records, args.get("most")):
        records.remove(record.key)
    grace = {"grace": float(args["grace"])} if "grace" in args else {}
    freed = collect(store, (tree for record in records.all() for tree in record.made_of), **grace)
    for path in (root / "opened").glob("*"):
        if path.name not in store.trees():
            path.unlink(missing_ok=True)
    return {"trees": freed.trees, "objects": freed.objects, "bytes": freed.bytes, "size": store.size()}


QUESTIONS: dict[str, Callable[[Path, Fields], Fields]] = {
    "list": listed,
    "show": shown,
    "log": log,
    "publish": publish,
    "remove": remove,
    "verify": verify,
    "gc": gc,
}


def answer(root: Path, op: str, args: Fields) -> Fields:
    """Answer one question. Raises Refused for one that is not known here, OptionError for what is not there."""
    if op not in QUESTIONS:
        raise Refused(f"images are not asked {op!r} in this version; use the same version of Remora")
    return QUESTIONS[op](root, args)


def _empty_caches(root: Path) -> None:
    """Remove what builders fetched, unless one is at work: what was unpacked from it is in the store."""
    with contextlib.suppress(BlockingIOError), building(root, alone=True):
        for cache in ("uv-cache", "apt-cache"):
            shutil.rmtree(root / cache, ignore_errors=True)


def _described(root: Path, records: Records, record: Record) -> Fields:
    return {
        "key": record.key,
        "kind": str(record.step["kind"]),
        "step": record.step,
        "below": record.below,
        "size": record.size,
        "seconds": record.seconds,
        "made": record.made,
        "used": records.used(record.key),
        "opened": _opened(root, record),
    }


def _opened(root: Path, record: Record) -> list[str] | None:
    """Return which of its files were opened at its first use; None before."""
    path = root / "opened" / record.tree
    return [str(file) for file in json.loads(path.read_bytes())] if record.tree and path.is_file() else None


def _packages(record: Record) -> list[str]:
    if record.step["kind"] == "apt":
        return record.lock.splitlines()
    if "[[packages]]" not in record.lock:
        return []
    return [f"{wheel.name}=={wheel.version}" if wheel.version else wheel.name for wheel in read_lock(record.lock, "")[1]]


def _find(root: Path, records: Records, what: str) -> Record:
    """Return a record by the name of an image or the beginning of a key."""
    named = records.named(what)
    if named is not None:
        image = resolve(Image.from_dict(named), records)
        built = [record for key in keys_here(image) if (record := records.get(key))]
        if built:
            return built[-1]
    found = [record for record in records.all() if record.key.startswith(what)] if what else []
    if len(found) != 1:
        raise OptionError(
            f"{'no' if not found else 'more than one'} image or step is called {what!r}; `remora image ls` lists them"
        )
    return found[0]


def _surplus(root: Path, store: Store, records: Records, most: int | None) -> list[Record]:
    """Return the records to be given up."""
    if most is None:
        return []
    every = records.all()
    published = {key for name in records.names() for key in _keys(records, name)}
    newest = max((records.used(record.key) for record in every), default=0.0)
    leased = store.leased()
    objects = {record.key: _objects(store, record) for record in every}
    users = Counter(thing for things in objects.values() for thing in things)
    size = sum({thing: count for things in objects.values() for thing, count in things.items()}.values())
    given: list[Record] = []
    for record in every:
        if most and size <= most:
            break
        recent = most > 0 and records.used(record.key) > newest - _RECENT
        if record.key in published or not leased.isdisjoint(record.made_of) or recent:
            continue
        given.append(record)
        for thing, count in objects[record.key].items():
            users[thing] -= 1
            size -= count if not users[thing] else 0
    return given


def _keys(records: Records, name: str) -> tuple[str, ...]:
    return keys_here(resolve(Image.from_dict(records.named(name) or {}), records))


def _objects(store: Store, record: Record) -> dict[Object, int]:
    there = store.trees().intersection(record.made_of)
    return {(file.digest, file.executable): file.size for tree in there for file in store.load(tree).files()}
