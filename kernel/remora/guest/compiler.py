"""How a cell's code is named: as ipykernel names it, so that tracebacks and warnings read the same here and there.

Law: the name is a file in the temporary folder that does not exist, its stem the MurmurHash2 of the cell's text.
"""

from __future__ import annotations

import os
import tempfile

from IPython.core.compilerop import CachingCompiler

_SEED = 0xC70F6907
_MIX = 0x5BD1E995
_WORD = 0xFFFFFFFF


class CellCompiler(CachingCompiler):
    """IPython's compiler with ipykernel's names."""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        """Return the file name under which the cell's code is compiled."""
        return os.path.join(tempfile.gettempdir(), f"ipykernel_{os.getpid()}", f"{murmur2(raw_code.encode())}.py")


def murmur2(data: bytes) -> int:
    """Return the 32-bit MurmurHash2 of bytes, with the seed that ipykernel takes."""
    value = (_SEED ^ len(data)) & _WORD
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MIX & _WORD
        value = (value * _MIX & _WORD) ^ ((word ^ word >> 24) * _MIX & _WORD)
    if whole < len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * _MIX & _WORD
    value = (value ^ value >> 13) * _MIX & _WORD
    return value ^ value >> 15
