"""Everybody the report is about, as a table that is only ever asked for sums.

What enters: a lead book. What leaves: answers to SQL over its view ``people``. The promise: memory stays bounded whatever the
book's size, nothing is written beside it, and the same book gives the same digits: sums are taken in one thread, in order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from features.intake import quoted
from pipelines.leads.book import scan
from pipelines.leads.movement import MACROS
from serving.leads.book import BOOK_SCHEMA, PROFILE

MEMORY_LIMIT = "256MB"


class People:
    """A relation ``people`` with the book's columns. A column nobody has a value in counts as not there."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        described = con.execute("DESCRIBE people").fetchall()
        self._types = {str(name): str(kind) for name, kind, *_ in described}
        names = list(self._types)
        filled = con.execute(f"SELECT {', '.join(f'count({quoted(name)})' for name in names)}, count(*) FROM people")
        *counts, self.count = (int(one) for one in filled.fetchall()[0])
        self._filled = {name for name, count in zip(names, counts, strict=True) if count}

    def has(self, *columns: str) -> bool:
        """Whether somebody has a value in each of these."""
        return self._filled.issuperset(columns)

    @property
    def texts(self) -> list[str]:
        """The list's own attributes that are texts, in their order; without their prefix."""
        named = [name for name in self._types if name.startswith(PROFILE) and name in self._filled]
        return [name.removeprefix(PROFILE) for name in named if self._types[name] == "VARCHAR"]

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Answer a question about ``people``."""
        return self._con.execute(sql, list(parameters)).fetchall()

    def one(self, sql: str, *parameters: Any) -> tuple[Any, ...]:
        """The only row of an answer."""
        return self.rows(sql, *parameters)[0]


def of_book(path: Path) -> People:
    """Everybody in a lead book."""
    con = _connection()
    con.execute(f"CREATE VIEW people AS {scan(path)}")
    return People(con)


def of_scores(path: Path, profiles: pa.Table) -> People:
    """Everybody scored who may be, on a list without lead scores: what a book would say of them, as far as it goes.

    Parameters
    ----------
    path
        A Parquet file of what ``pipelines.score`` gives.
    profiles
        ``subscriber_id`` and the list's own attributes.
    """
    con = _connection()
    con.register("profiles", profiles)
    con.execute(f"CREATE VIEW scored AS {scan(path)}")
    there = {str(name) for name, *_ in con.execute("DESCRIBE scored").fetchall()}
    sources = {"data_age_hours": "feature_age_s / 3600.0", "recommended_send_at": "send_time_send_at"}
    wanted = [(name, sources.get(name, name)) for name in BOOK_SCHEMA.names]
    known = [f"scored.{source} AS {name}" for name, source in wanted if source.split(" ")[0] in there]
    own = [name for name in profiles.column_names if name != "subscriber_id"]
    attributes = [f"profiles.{quoted(name)} AS {quoted(PROFILE + name)}" for name in own]
    con.execute(
        f"CREATE VIEW people AS SELECT {', '.join([*known, *attributes])} FROM scored LEFT JOIN profiles "
        "USING (subscriber_id) WHERE scored.status <> 'no_consent'"
    )
    return People(con)


def _connection() -> duckdb.DuckDBPyConnection:
    alone = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "temp_directory": ""}
    con = duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "threads": "1", **alone})
    for macro in MACROS:
        con.execute(macro)
    return con
