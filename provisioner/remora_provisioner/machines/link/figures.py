"""What a status line shows of a link.

Law: plain values, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """What is known of a link at one moment."""

    round_trip: float | None
    """Seconds, measured of late; None until the link was carried."""
    rate: float | None
    """Bytes a second that the link is known to deliver; None until it has been kept busy."""
    sent: int
    """Bytes written to all streams so far."""
    received: int
    connections: int
    buffered: int
    """Bytes that are kept in memory: under way, to be sent, or not read yet."""
    lost: str
    """Why the last stream ended."""
