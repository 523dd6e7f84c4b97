"""A link: many connections over one byte stream at a time, which go on over the next stream where the last one broke."""

from .carrying import Link
from .stream import Stream

__all__ = ["Link", "Stream"]
