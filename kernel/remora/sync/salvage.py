"""What can still be read of a batch after one of its variables could not be rebuilt.

Law: slow and careful, used after a failure only. What the broken variable would have shared with later ones is lost, and a later
variable that needs it fails too; it never gets a wrong object in its place.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any


class Lost:
    """Keeps a place in the memo for an object that was never rebuilt."""


class _Memo(dict[int, Any]):
    def __getitem__(self, index: int) -> Any:
        value = super().__getitem__(index)
        if isinstance(value, Lost):
            raise KeyError(index)
        return value

    def copy(self) -> _Memo:
        """Return the same memo again for the next failure, lost places included."""
        return _Memo(self)


def memo_after(known: dict[int, Any], before: bytes, broken: bytes) -> dict[int, Any]:
    """Return the memo behind a broken segment: what came before it is kept, its own places are lost."""
    first = _memoized(before)
    memo = _Memo({index: value for index, value in known.items() if index < first})
    memo.update((first + offset, Lost()) for offset in range(_memoized(broken)))
    return memo


def _memoized(segments: bytes) -> int:
    file, count = io.BytesIO(segments), 0
    while file.tell() < len(segments):
        count += sum(1 for code, _, _ in pickletools.genops(file) if code.name == "MEMOIZE")
    return count
