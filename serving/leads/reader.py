"""Which leads of the newest book, and their rows.

What enters: a home and a checked query. What leaves: rows of the newest lead book. The promise: what was asked reaches DuckDB
as parameters alone, memory is bounded however large the book is, and a book that is damaged, replaced or gone is an error
that says so.

Two steps: which ranks and in which order (a scan of the columns asked about), then the rows with those ranks (the row groups
they are in). One step would sort whole rows, and far into a large list that takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import compress
from math import isnan, nan
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import LeadsUnavailable, MalformedRequest, NoLeadBook
from features.home import Home
from features.intake import quoted
from serving.leads.book import PROFILE, Book, BookUnreadable, Standing, books, history, open_book, row
from serving.leads.query import LeadQuery, Selection

log = logging.getLogger("inbox.leads")

Ranks = npt.NDArray[np.int32]
Row = dict[str, Any]
Shown = Callable[[Sequence[str]], npt.NDArray[np.bool_]]
"""Which of these people may be shown now."""

BLOCK_ROWS = 1_000
"""Of a download at a time: a few milliseconds, and as many as the online store is asked for at once."""
ROW_COLUMNS = (
    "rank",
    "subscriber_id",
    "score",
    "grade",
    "probability",
    "percentile",
    "score_before",
    "grade_before",
    "score_change",
    "movement",
    "change_reason",
    "reasons_for",
    "reasons_against",
    "churn_band",
    "churn_probability",
    "recommended_send_at",
    "send_time_confident",
    "last_engagement_at",
    "status",
)
"""What a page shows of each lead."""

_CONFIG: dict[str, Any] = {
    "threads": "1",
    "memory_limit": "512MB",
    # Nothing is spilled: people's data would lie where nobody looks for it.
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_BOOK = "read_parquet(?, hive_partitioning = false)"
"""A home may lie in a directory that is called like a column and its value."""
_Mark = tuple[int, int, int]


@dataclass(frozen=True)
class Page:
    """Some leads of a selection, and how many it has in all. ``withheld`` would stand on it and may not be shown."""

    book: Book
    total: int
    rows: list[Row]
    withheld: int


def _everybody(subscriber_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.ones(len(subscriber_ids), dtype=np.bool_)


class BookReader:
    """Reads the newest book of one home; for one thread at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._con: duckdb.DuckDBPyConnection | None = None
        self._seen: tuple[Path, _Mark, Book] | None = None
        self._said: set[tuple[str, _Mark | None]] = set()

    def close(self) -> None:
        if self._con is not None:
            self._con.close()
            # What is still referred to when Python ends, DuckDB complains of.
            self._con = None

    def page(self, query: LeadQuery, shown: Shown = _everybody) -> Page:
        """The leads at one place of a selection.

        Of a selection of few, and of a narrowed one in order of ids, whoever may not be shown is
        neither counted nor has a place: either would tell what they are like. Of any other they are counted, and their
        places are empty.

        Raises
        ------
        NoLeadBook
        LeadsUnavailable
        MalformedRequest
            When the list has no such attribute.
        """
        with self._newest() as book:
            ranks, all_shown = self._countable(book, query, shown)
            rows = self._rows(book, ranks[query.offset : query.offset + query.limit])
            if all_shown or not rows:
                return Page(book, len(ranks), rows, 0)
            may = shown([row["subscriber_id"] for row in rows]).tolist()
            return Page(book, len(ranks), [*compress(rows, may)], may.count(False))

    def one(self, subscriber_id: str) -> tuple[Book, Row | None, list[Standing]]:
        """One lead's whole row, None when there is none, and how they stood in every book that can be read."""
        with self._newest() as book:
            # The newest must be whole; one that is damaged among the older ones takes nobody's page away.
            found = row(book.path, subscriber_id)
            return book, found, history(self.home, subscriber_id, self._say)

    def begin(self, selection: Selection) -> tuple[Book, Iterator[pa.RecordBatch]]:
        """A whole selection in order of rank, a row group in memory at a time."""
        with self._newest() as book:
            return book, self._batches(book, _mark(book.path), self._ranks(book, selection, "rank"))

    @property
    def _sql(self) -> duckdb.DuckDBPyConnection:
        """Kept once there was a question: to connect takes as long as to answer."""
        if self._con is None:
            self._con = duckdb.connect(config=_CONFIG)
            self._con.execute("SET TimeZone = 'UTC'")
        return self._con

    @contextmanager
    def _newest(self) -> Iterator[Book]:
        """The newest book; an error if it did not stay the same meanwhile."""
        with self._told():
            book, mark = self._opened()
            with self._told(book.path):
                yield book
                _check_same(book, mark)

    def _opened(self) -> tuple[Book, _Mark]:
        found = books(self.home)
        if not found:
            raise NoLeadBook
        path, mark = found[-1], _mark(found[-1])
        if self._seen is None or self._seen[:2] != (path, mark):
            self._seen = path, mark, open_book(path)
        return self._seen[2], mark

    def _countable(self, book: Book, query: LeadQuery, shown: Shown) -> tuple[Ranks, bool]:
        """Ranks of a selection in its order, and whether all of them may be shown."""
        if not _is_of_somebody(query):
            ranks = self._ranks(book, query, query.sort)
            if len(ranks) > BLOCK_ROWS:
                return ranks, False
        found = self._found(book, query, query.sort, "rank, subscriber_id")
        kept: list[int] = []
        while block := found.fetchmany(BLOCK_ROWS):
            ranks_there, ids = zip(*block, strict=True)
            kept += compress(ranks_there, shown(ids).tolist())
        return np.asarray(kept, np.int32), True

    def _ranks(self, book: Book, selection: Selection, sort: str) -> Ranks:
        return np.asarray(self._found(book, selection, sort, "rank").fetchnumpy()["rank"], np.int32)

    def _found(self, book: Book, selection: Selection, sort: str, columns: str) -> duckdb.DuckDBPyConnection:
        conditions = [*_conditions(book, selection)]
        where = " AND ".join(["true", *(condition for condition, _ in conditions)])
        column, way = sort.removeprefix("-"), "DESC" if sort.startswith("-") else "ASC"
        order = f"ORDER BY {column} {way} NULLS LAST, rank"
        return self._sql.execute(
            f"SELECT {columns} FROM {_BOOK} WHERE {where} {order}",
            [_literal(book.path), *(value for _, value in conditions)],
        )

    def _rows(self, book: Book, ranks: Ranks) -> list[Row]:
        """In the order of ``ranks``."""
        if not len(ranks):
            return []
        places = {rank: place for place, rank in enumerate(ranks.tolist())}
        query = (
            f"SELECT {', '.join(ROW_COLUMNS)} FROM {_BOOK} "
            f"WHERE rank BETWEEN ? AND ? AND rank IN ({', '.join('?' * len(places))})"
        )
        asked = [_literal(book.path), min(places), max(places), *places]
        found: list[Row] = self._sql.sql(query, params=asked).to_arrow_table().to_pylist()
        return sorted(found, key=lambda row: places[row["rank"]])

    def _batches(self, book: Book, mark: _Mark, ranks: Ranks) -> Iterator[pa.RecordBatch]:
        with self._told(book.path), pq.ParquetFile(book.path) as file:
            # Ranks of one book are not those of another; once it is open, it stays the same.
            _check_same(book, mark)
            for group in range(file.num_row_groups):
                there = file.read_row_group(group, columns=["rank"], use_threads=False)["rank"].to_numpy()
                wanted = np.isin(there, ranks, assume_unique=True)
                if wanted.any():
                    rows = file.read_row_group(group, use_threads=False).filter(pa.array(wanted))
                    yield from rows.combine_chunks().to_batches(max_chunksize=BLOCK_ROWS)

    @contextmanager
    def _told(self, path: Path | None = None) -> Iterator[None]:
        """What goes wrong with a file, in our words; DuckDB's and Arrow's may hold what is in it."""
        try:
            yield
        except BookUnreadable as error:
            self._say(error.path, error)
            raise LeadsUnavailable("an export is damaged; the service's log says which and what to do", 60) from None
        except FileNotFoundError:
            raise LeadsUnavailable("the export was taken away while it was read", 1) from None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            self._say(path or self.home.leads, error)
            reason = "the newest export cannot be read; the service's log says which file that is and what to do"
            raise LeadsUnavailable(reason, 10) from None

    def _say(self, path: Path, error: Exception) -> None:
        """Log what is wrong with a book and what to do, once for as long as the file stays as it is."""
        text, mark = str(error), None
        if not isinstance(error, BookUnreadable):
            text = (
                f"{path} cannot be read ({type(error).__name__}). If that stays so, move it away and run "
                "`inbox export leads`: it writes a new one, which is compared with the ones that are left."
            )
        with suppress(OSError):
            mark = _mark(path)
        if (text, mark) not in self._said:
            self._said.add((text, mark))
            log.error("%s", text)


def _is_of_somebody(query: LeadQuery) -> bool:
    """Whether an empty place would tell what one person is like, however many leads there are: between two ids there may be
    one. A search narrows by the id alone, and so tells nothing else.
    """
    narrowed = query.grade or query.churn_band or query.movement or query.segment
    return bool(narrowed) and query.sort.removeprefix("-") == "subscriber_id"


def _conditions(book: Book, selection: Selection) -> Iterator[tuple[str, object]]:
    """Conditions in SQL, each with the one parameter it has."""
    if selection.search is not None:
        yield "contains(lower(subscriber_id), lower(?))", selection.search
    for column in ("grade", "churn_band", "movement"):
        if words := getattr(selection, column):
            yield f"list_contains(?::VARCHAR[], {column})", list(words)
    wanted: dict[str, list[str]] = {}
    for segment in selection.segment:
        name, _, value = segment.partition("=")
        wanted.setdefault(name, []).append(value)
    for name, texts in wanted.items():
        yield _is_any(book, name, texts)


def _is_any(book: Book, name: str, texts: list[str]) -> tuple[str, object]:
    """That an attribute has one of the given values; the same leads as ``inbox export leads --segment``."""
    if name not in book.attributes:
        raise MalformedRequest("segment", f"should name one of {', '.join(book.attributes) or 'no attributes'}")
    type = book.schema.field(PROFILE + name).type
    column = quoted(PROFILE + name)
    if not (pa.types.is_integer(type) or pa.types.is_floating(type)):
        return f"list_contains(?::VARCHAR[], CAST({column} AS VARCHAR))", texts
    return f"list_contains(?::DOUBLE[], CAST({column} AS DOUBLE))", [_number(name, text) for text in texts]


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = nan
    if isnan(number):
        raise MalformedRequest("segment", f"should be a number, as {name} is")
    return number


def _literal(path: Path) -> str:
    """A path as DuckDB opens it: stars and brackets in it are no pattern."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in str(path))


def _check_same(book: Book, mark: _Mark) -> None:
    if _mark(book.path) != mark:
        raise LeadsUnavailable("the export was written anew while it was read", 1)


def _mark(path: Path) -> _Mark:
    """What changes when a book is written anew."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
