"""The RECORD of a wheel: what each of its files must be.

Law: every file has its sha256 there, except RECORD itself and its signatures; a wheel for which that does not hold is refused.
"""

from __future__ import annotations

import base64
import csv
import io
import zipfile
from collections.abc import Iterable

from remora.errors import StoreRefused

_LARGEST = 64 << 20
_UNLISTED = ("RECORD", "RECORD.jws", "RECORD.p7s")


def read_record(archive: zipfile.ZipFile, members: Iterable[zipfile.ZipInfo]) -> dict[str, str]:
    """Return path to sha256 in hex for the files of a wheel; StoreRefused with "malformed" or "wrong-digest"."""
    found = {member.filename: member for member in members}
    records = [name for name in found if name.endswith(".dist-info/RECORD") and name.count("/") == 1]
    if len(records) != 1:
        raise StoreRefused("the wheel has not one RECORD; build or fetch it again", reason="malformed")
    if found[records[0]].file_size > _LARGEST:
        raise StoreRefused("the RECORD of the wheel is larger than any wheel needs", reason="too-large")
    promised = parse_record(archive.read(found[records[0]]).decode("utf-8"))
    free = {records[0].removesuffix("RECORD") + name for name in _UNLISTED}
    if unlisted := found.keys() - free - promised.keys():
        raise StoreRefused(f"{min(unlisted)!r} has no sha256 in the wheel's RECORD; do not trust it", reason="wrong-digest")
    if missing := promised.keys() - found.keys():
        raise StoreRefused(f"{min(missing)!r} is in RECORD and not in the wheel; fetch it again", reason="malformed")
    return {name: digest for name, digest in promised.items() if name not in free}


def parse_record(text: str) -> dict[str, str]:
    """Return path to sha256 in hex for each line that has one, also of a package that is installed."""
    found: dict[str, str] = {}
    for row in csv.reader(io.StringIO(text, newline="")):
        if len(row) >= 2 and row[1].startswith("sha256="):
            value = row[1].removeprefix("sha256=")
            found[row[0]] = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    return found
