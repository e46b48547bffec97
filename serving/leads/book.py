"""The lead book: everybody who may be exported as they stood at one moment, ranked, one Parquet file each.

What enters: the files under ``Home.leads``, which ``pipelines.leads.book`` writes. What leaves: what a book says of itself,
which book came before it, and one person's standing in all of them. The promise: a book that is listed is whole, and the
book before another is a function of the directory alone.

A book is named by its moment and the lead score's model, so that names sort as time does. Of one moment only the book made
last is kept, also when it is of a lower version: after a rollback the model that was withdrawn has none there. The book
before is therefore always of an earlier moment. Rows stand in order of rank; the
ids in it are therefore in no order, and a person is looked for by reading the column of ids, compared in Arrow, and nothing
else of a row group they are not in. Of 26 books with 100,000 leads each that takes a quarter of a second. Weighed: an
index by id beside each book, which would have to be written, kept and forgotten with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.contract import UTC_MICROSECONDS
from features.errors import FeatureError
from features.home import Home

_TEXTS = pa.list_(pa.string())

BOOK_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("subscriber_id", pa.string(), nullable=False),
        pa.field("score", pa.int32(), nullable=False),
        pa.field("grade", pa.string(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
        pa.field("percentile", pa.int32(), nullable=False),
        pa.field("score_before", pa.int32()),
        pa.field("grade_before", pa.string()),
        pa.field("score_change", pa.int32()),
        pa.field("movement", pa.string()),
        pa.field("change_reason", pa.string()),
        pa.field("reasons_for", _TEXTS),
        pa.field("reasons_against", _TEXTS),
        pa.field("churn_band", pa.string()),
        pa.field("churn_probability", pa.float64()),
        pa.field("churn_reasons", _TEXTS),
        pa.field("recommended_send_at", UTC_MICROSECONDS),
        pa.field("send_time_confident", pa.bool_()),
        pa.field("send_time_gain", pa.float64()),
        pa.field("last_engagement_at", UTC_MICROSECONDS),
        pa.field("data_age_hours", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("scored_at", UTC_MICROSECONDS, nullable=False),
    ]
)
"""Every book's first columns, in order; null where a model was not in service. The list's own attributes follow."""

PROFILE = "profile_"
"""Begins the name of a column that holds one of the list's own attributes."""
MOVEMENTS = ("new", "up", "down", "same")
"""By grade, against the book before."""

_NAME = re.compile(r"\d{8}T\d{12}Z-\w{6,}\.parquet", re.ASCII)
_STANDING = ("scored_at", "score", "grade", "probability", "model_version")


class BookUnreadable(FeatureError):
    """A file among the lead books is none."""

    code = "book_unreadable"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"{path} is no whole lead book. Move it away and run `inbox export leads`: it writes a new one, which is "
            "compared with the ones that are left."
        )


@dataclass(frozen=True)
class LeftOut:
    """Who was scored and is not in the book, by why: each person is counted once."""

    no_consent: int = 0
    converted: int = 0
    unscored: int = 0

    @property
    def total(self) -> int:
        return self.no_consent + self.converted + self.unscored


@dataclass(frozen=True)
class Book:
    """What a book says of itself. ``previous_id`` is the book it was compared with; None for a first one."""

    path: Path
    id: str
    scored_at: datetime
    model_version: str
    list_name: str
    simulated: bool
    previous_id: str | None
    gone: int
    """How many of the previous book's were no leads any more, when this one was made."""
    rows: int
    left_out: LeftOut
    schema: pa.Schema = field(repr=False)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the list's own attributes, without their prefix."""
        return tuple(name.removeprefix(PROFILE) for name in self.schema.names[len(BOOK_SCHEMA) :])


@dataclass(frozen=True)
class Standing:
    """How somebody stood in one book. ``scored_at`` is aware, UTC."""

    scored_at: datetime
    score: int
    grade: str
    probability: float
    model_version: str


def book_id(scored_at: datetime, model_version: str) -> str:
    """A book's name; names sort by time and then by version.

    >>> book_id(datetime(2026, 11, 23, 8, 15, 2, 120_000, tzinfo=UTC), "4")
    '20261123T081502120000Z-000004'
    """
    return f"{scored_at.astimezone(UTC):%Y%m%dT%H%M%S%fZ}-{model_version:0>6}"


def moment_of(book_id: str) -> datetime:
    """When a book's scores were made.

    >>> moment_of("20261123T081502120000Z-000004").isoformat()
    '2026-11-23T08:15:02.120000+00:00'
    """
    return datetime.strptime(_moment(book_id), "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)


def books(home: Home) -> list[Path]:
    """All books, oldest first."""
    return sorted(path for path in home.leads.glob("*.parquet") if _NAME.fullmatch(path.name))


def before(home: Home, book_id: str) -> Path | None:
    """The latest book of an earlier moment than another's, which need not be there."""
    return next((path for path in reversed(books(home)) if _moment(path.stem) < _moment(book_id)), None)


def same_moment(home: Home, book_id: str) -> list[Path]:
    """All books of another's very moment, by whichever model; with itself, where it is there."""
    return [path for path in books(home) if _moment(path.stem) == _moment(book_id)]


def _moment(book_id: str) -> str:
    return book_id.partition("-")[0]


def newest(home: Home) -> Book | None:
    """The latest book; None before the first export.

    Raises
    ------
    BookUnreadable
    """
    for path in reversed(books(home)):
        try:
            return open_book(path)
        except FileNotFoundError:
            # Another export has just let go of it.
            continue
    return None


def open_book(path: Path) -> Book:
    """Read what a book says of itself; no row of it.

    Raises
    ------
    BookUnreadable
        When it is damaged.
    FileNotFoundError
    """
    with _whole(path), pq.ParquetFile(path) as file:
        return _described(path, file)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What Arrow says of a damaged file, in our words."""
    try:
        yield
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise BookUnreadable(path) from error
    except OSError as error:
        # Arrow says so too of pages it cannot read, without a number; with one, it is the disk's own word.
        if error.errno is not None:
            raise
        raise BookUnreadable(path) from error


def _described(path: Path, file: pq.ParquetFile) -> Book:
    schema = file.schema_arrow
    if schema.names[: len(BOOK_SCHEMA)] != BOOK_SCHEMA.names:
        raise BookUnreadable(path)
    said = {key.decode(): text.decode() for key, text in (schema.metadata or {}).items()}
    return Book(
        path=path,
        id=said["inbox.book_id"],
        scored_at=datetime.fromisoformat(said["inbox.scored_at"]),
        model_version=said["inbox.model_version"],
        list_name=said["inbox.list_name"],
        simulated=said["inbox.simulated"] == "true",
        previous_id=said["inbox.previous_book_id"] or None,
        gone=int(said["inbox.gone"]),
        rows=file.metadata.num_rows,
        left_out=LeftOut(
            no_consent=int(said["inbox.left_out_no_consent"]),
            converted=int(said["inbox.left_out_converted"]),
            unscored=int(said["inbox.left_out_unscored"]),
        ),
        schema=schema,
    )


def history(
    home: Home, subscriber_id: str, unreadable: Callable[[Path, Exception], None] | None = None
) -> list[Standing]:
    """How somebody stood in every book they are in, oldest first.

    Parameters
    ----------
    unreadable
        Told of each book that cannot be read, which is then left out; without it, such a book is an error.

    Raises
    ------
    BookUnreadable
    """
    found: list[Standing] = []
    for path in books(home):
        try:
            values = row(path, subscriber_id, _STANDING)
        except (BookUnreadable, OSError) as error:
            if unreadable is None:
                raise
            unreadable(path, error)
            continue
        if values is not None:
            found.append(Standing(**values))
    return found


def row(path: Path, subscriber_id: str, columns: tuple[str, ...] | None = None) -> dict[str, Any] | None:
    """One person's row of a book, as Python values; None when they are not in it, or the book is gone.

    Raises
    ------
    BookUnreadable
    """
    try:
        with _whole(path), pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["subscriber_id"], use_threads=False)["subscriber_id"]
                place = pc.index(ids, pa.scalar(subscriber_id, pa.string())).as_py()
                if place >= 0:
                    rows = file.read_row_group(group, columns=columns, use_threads=False)
                    return dict(rows.slice(place, 1).to_pylist()[0])
    except FileNotFoundError:
        return None
    return None
