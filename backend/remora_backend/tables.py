"""The tables of the database, in SQLAlchemy Core; SQLite beside the socket by default.

Law: statements only, used by the one thread of store.py, which alone imports this file: loading SQLAlchemy takes longer than
starting all the rest of the backend. What goes wrong is sqlalchemy's own error.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects.sqlite import insert

_METADATA = sql.MetaData()
_SANDBOXES = sql.Table(
    "sandboxes",
    _METADATA,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("state", sql.String, nullable=False),
    sql.Column("facts", sql.JSON, nullable=False),
    sql.Column("changed", sql.Float, nullable=False, index=True),
)
_RUNS = sql.Table(
    "runs",
    _METADATA,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("sandbox", sql.String),
    sql.Column("state", sql.String, nullable=False),
    sql.Column("facts", sql.JSON, nullable=False),
    sql.Column("changed", sql.Float, nullable=False, index=True),
)
Row = dict[str, Any]
_BUSY = 0.5
"""Seconds to wait for a lock: the backend is alone with its database, so it is somebody who only looks."""


class Tables:
    """The open database."""

    def __init__(self, path: Path) -> None:
        """Open or make the database. When that fails, nothing of it stays open, so that it can be tried again."""
        self._engine = sql.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY})
        sql.event.listen(self._engine, "connect", _tune)
        try:
            _METADATA.create_all(self._engine)
        except BaseException:
            self._engine.dispose()
            raise

    def save(self, rows: Iterable[tuple[str, Row]]) -> bool:
        """Keep rows of "sandboxes" or "runs", all of them or none; each takes the place of the one with the same id."""
        with self._engine.begin() as connection:
            for table, row in rows:
                statement = insert(_METADATA.tables[table]).values(row)
                connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=row))
        return True

    def sandboxes(self, living: bool) -> list[Row]:
        """Return the sandboxes that have not ended, or the others."""
        condition = _SANDBOXES.c.state != "ended" if living else _SANDBOXES.c.state == "ended"
        return self._read(sql.select(_SANDBOXES).where(condition).order_by(_SANDBOXES.c.changed.desc()))

    def runs(self, limit: int) -> list[Row]:
        """Return the runs that changed last, newest first."""
        return self._read(sql.select(_RUNS).order_by(_RUNS.c.changed.desc()).limit(limit))

    def unfinished_runs(self) -> list[Row]:
        """Return the runs that had not ended when they were written last."""
        return self._read(sql.select(_RUNS).where(_RUNS.c.state.in_(["queued", "running", "unknown"])))

    def settled(self) -> bool:
        """Say whether everything that is known has ended."""
        return not self.sandboxes(living=True) and not self.unfinished_runs()

    def find_runs(self, prefix: str) -> list[Row]:
        """Return the runs whose id begins so; at most two, since more than one is refused anyway."""
        return self._read(sql.select(_RUNS).where(_RUNS.c.id.startswith(prefix, autoescape=True)).limit(2))

    def forget_before(self, moment: float) -> list[str]:
        """Drop what ended before that Unix time, and return the ids of the runs dropped."""
        old = sql.and_(_RUNS.c.changed < moment, _RUNS.c.state.in_(["done", "failed", "ended"]))
        dropped = [str(row["id"]) for row in self._read(sql.select(_RUNS).where(old))]
        with self._engine.begin() as connection:
            connection.execute(sql.delete(_RUNS).where(old))
            connection.execute(sql.delete(_SANDBOXES).where(_SANDBOXES.c.changed < moment, _SANDBOXES.c.state == "ended"))
        return dropped

    def _read(self, statement: sql.Select[Any]) -> list[Row]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def close(self) -> None:
        """Close the database; safe twice."""
        self._engine.dispose()


def _tune(connection: Any, _: object) -> None:
    """Write ahead, and let the operating system decide when to flush: a commit takes 0.04 ms instead of 3.6."""
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    except BaseException:  # which nobody else would close, and its lock would keep the next one out
        connection.close()
        raise
