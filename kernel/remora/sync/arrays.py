"""numpy arrays: their memory travels as one buffer beside the stream, and views of one array stay views of one array.

Law: numpy is used only when the process has imported it, never imported for its own sake by the sending side. An array arrives
as writeable as it was. Arrays of Python objects and subclasses take numpy's own way.
"""

from __future__ import annotations

import sys
from pickle import PickleBuffer
from typing import Any

WRITEABLE = 0x0400  # among numpy's flags; `flags.writeable` warns about arrays that `broadcast_arrays` has made
COVERS_ENOUGH = 0.5  # of its root: a view below that is sent as a copy of its own elements


def make_array(buffer: Any, dtype: Any, shape: tuple[int, ...], order: str, writeable: bool) -> Any:
    """Rebuild an array over a buffer."""
    numpy = sys.modules["numpy"]
    made = numpy.ndarray(shape, dtype, buffer=buffer, order=order)
    made.flags.writeable = writeable and made.flags.writeable
    return made


def make_view(root: Any, dtype: Any, place: tuple[tuple[int, ...], tuple[int, ...], int], writeable: bool) -> Any:
    """Rebuild a view on an array from its shape, strides and offset in bytes."""
    numpy = sys.modules["numpy"]
    shape, strides, offset = place
    memory = root if root.flags.c_contiguous else root.T
    was_writeable = memory.flags.writeable
    made = numpy.ndarray(shape, dtype, buffer=memory, offset=offset, strides=strides)
    made.flags.writeable = writeable and was_writeable
    return made


def root_of(array: Any) -> Any:
    """Return the array that owns the memory of a view."""
    while type(array.base) is type(array):
        array = array.base
    return array


def reduce_array(packer: Any, array: Any) -> Any:
    """Take an array apart."""
    if array.dtype.hasobject:
        return NotImplemented
    root = root_of(array)
    if root is not array and _shares(packer, array, root):
        return _view(array, root)
    packer.roots.add(id(array))
    return _owner(array, _writeable(array))


def reduce_memmap(packer: Any, array: Any) -> Any:
    """Send the contents of a memory-mapped file as a plain array."""
    del packer
    numpy = sys.modules["numpy"]
    return NotImplemented if array.dtype.hasobject else _owner(numpy.array(array), True)


def _shares(packer: Any, array: Any, root: Any) -> bool:
    contiguous = root.flags.c_contiguous or root.flags.f_contiguous
    if not contiguous or root.dtype.hasobject or array.size == 0:
        return False
    return id(root) in packer.roots or array.nbytes >= COVERS_ENOUGH * root.nbytes


def _view(array: Any, root: Any) -> Any:
    offset = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    place = (array.shape, array.strides, offset)
    return make_view, (root, array.dtype, place, _writeable(array))


def _writeable(array: Any) -> bool:
    return bool(array.flags.num & WRITEABLE)


def _owner(array: Any, writeable: bool) -> Any:
    numpy = sys.modules["numpy"]
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat = numpy.asarray(array, order=order).reshape(-1, order=order)
    memory = flat.view("u1") if flat.size else bytearray()
    return make_array, (PickleBuffer(memory), array.dtype, array.shape, order, writeable)
