"""Which leads of a book are wanted: by grade, by segment, only the changed, only the best.

What enters: the texts of options, and a book. What leaves: its rows in order of rank, some thousand at a time. The promise: the
rows are the book's own, unchanged and in its order, and memory does not grow with the book.

Conditions of different kinds must all hold; of several grades, or several values of one attribute, any. An attribute is
exactly the given text, capital letters included, or the given number. "Changed" is whose score or grade is not what it was
in the book before, and who was not in it: the rows another system needs to hear about. The best are counted last, among
those all else holds for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.errors import UnusableOption
from serving.leads.book import PROFILE, Book
from serving.leads.columns import GRADES

BATCH_ROWS = 8_192
OWN_SEGMENTS = ("churn_band", "movement")
"""Columns of the book that are segments, too. An attribute of the same name is meant by ``profile_`` and its name."""
VALUES_NAMED = 12
"""An attribute with more different values is not listed where nobody has the one that was asked for."""
LEAST_NAMED = 5
"""Nor is a value that fewer leads have: it might tell who they are."""
NAME_SHOWN = 60
"""Characters of an attribute's name in a message."""


@dataclass(frozen=True)
class Segment:
    """One value of one attribute."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


@dataclass(frozen=True)
class Selection:
    """Which leads; everybody unless anything is said."""

    grades: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()
    changed_only: bool = False
    top: int | None = None

    def __str__(self) -> str:
        """In words, for a summary.

        >>> str(Selection(("A", "B"), (Segment("country", "DE"),), top=500))
        'the best 500 of grade A or B, country=DE'
        """
        said = [f"grade {' or '.join(self.grades)}"] if self.grades else []
        said += [str(segment) for segment in self.segments]
        said += ["changed since the export before"] if self.changed_only else []
        which = ", ".join(said) or "all of them"
        return which if self.top is None else f"the best {self.top:,} of {which}"


def chosen(
    grades: Sequence[str] = (), segments: Sequence[str] = (), changed_only: bool = False, top: int | None = None
) -> Selection:
    """What options say: grades separated by commas, segments as NAME=VALUE; each may be repeated.

    Raises
    ------
    UnusableOption

    >>> chosen(["a,B"], ["country=DE"]).segments
    (Segment(name='country', value='DE'),)
    """
    named = {grade.strip().upper() for text in grades for grade in text.split(",")}
    if named - set(GRADES):
        raise UnusableOption("--grade", f"there are {', '.join(GRADES)}; write them like A,B")
    if top is not None and top < 1:
        raise UnusableOption("--top", "give a number from 1")
    asked = tuple(_segment(text) for text in segments)
    return Selection(tuple(grade for grade in GRADES if grade in named), asked, changed_only, top)


def _segment(text: str) -> Segment:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UnusableOption("--segment", "write it like country=DE: the name of an attribute, and its value")
    return Segment(name, value)


def batches(book: Book, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows, best first; each batch has at least one."""
    left = book.rows if selection.top is None else selection.top
    with pq.ParquetFile(book.path) as file:
        for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
            if left <= 0:
                return
            found = batch.filter(_holds(batch, selection))[:left]
            left -= found.num_rows
            if found.num_rows:
                yield found


def refuse_nothing(book: Book, selection: Selection) -> int:
    """How many leads are selected: at least one. To be asked before anything is written.

    Raises
    ------
    UnusableOption
        With what stands in the way: an attribute or a value that is not there, or all of it together.
    """
    if selection.changed_only and book.previous_id is None:
        raise UnusableOption("--changed", "there is no export before this one to compare with; leave it out this time")
    for segment in selection.segments:
        _refuse_unfit(book, segment)
    if found := _count(book, selection):
        return found if selection.top is None else min(found, selection.top)
    for name in dict.fromkeys(segment.name for segment in selection.segments):
        asked = tuple(segment for segment in selection.segments if segment.name == name)
        if not _count(book, Selection(segments=asked)):
            raise UnusableOption("--segment", f"no lead has that value of {name}{_values(book, name)}")
    raise UnusableOption(
        "export leads",
        f"none of the {book.rows:,} leads is all of that at once: {_without_values(selection)}. No file was written; "
        "ask for less at once.",
    )


def _refuse_unfit(book: Book, segment: Segment) -> None:
    column = _column(book.schema, segment.name)
    if column is None:
        known = ", ".join(_shown(name) for name in dict.fromkeys((*book.attributes, *OWN_SEGMENTS)))
        raise UnusableOption("--segment", f"the list has no attribute {_shown(segment.name)!r}; there are {known}")
    if _is_number(book.schema.field(column).type) and isnan(_number(segment.value)):
        raise UnusableOption("--segment", f"{segment.name} holds numbers; write it like {segment.name}=3")


def _shown(name: str) -> str:
    return name if len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}…"


def _column(schema: pa.Schema, name: str) -> str | None:
    """Where a segment is looked for."""
    if name in OWN_SEGMENTS:
        return name
    return next((one for one in (PROFILE + name, name) if one.startswith(PROFILE) and one in schema.names), None)


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_floating(type) or pa.types.is_integer(type))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _holds(batch: pa.RecordBatch, selection: Selection) -> pa.Array:
    """Which rows are selected, but for how many."""
    holds = pa.repeat(pa.scalar(True), batch.num_rows)
    if selection.grades:
        holds = pc.and_(holds, pc.is_in(batch["grade"], pa.array(selection.grades, pa.string())))
    if selection.changed_only:
        moved = pc.is_in(batch["movement"], pa.array(["new", "up", "down"]))
        rescored = pc.fill_null(pc.not_equal(batch["score_change"], 0), False)
        holds = pc.and_(holds, pc.or_(moved, rescored))
    for name in dict.fromkeys(segment.name for segment in selection.segments):
        column = _column(batch.schema, name) or name
        wanted = [segment.value for segment in selection.segments if segment.name == name]
        holds = pc.and_(holds, _is_any(batch[column], wanted))
    return holds


def _is_any(column: pa.Array, wanted: Sequence[str]) -> pa.Array:
    if _is_number(column.type):
        # To add nothing makes one zero of the two there are, which Arrow tells apart.
        numbers = pc.add(column.cast(pa.float64(), safe=False), 0.0)
        return pc.is_in(numbers, pa.array([_number(text) + 0.0 for text in wanted], pa.float64()))
    return pc.is_in(column.cast(pa.string()), pa.array(wanted, pa.string()))


def _count(book: Book, selection: Selection) -> int:
    """How many all holds for."""
    named = [_column(book.schema, segment.name) for segment in selection.segments]
    needed = ["grade", "movement", "score_change", *(name for name in named if name)]
    with pq.ParquetFile(book.path) as file:
        parts = file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(needed)), use_threads=False)
        return sum(pc.sum(_holds(part, selection)).as_py() or 0 for part in parts)


def _values(book: Book, name: str) -> str:
    """The values there are, where they are few and each is many people's."""
    counts: dict[str, int] = {}
    column = _column(book.schema, name) or name
    with pq.ParquetFile(book.path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=[column], use_threads=False):
            for one in pc.value_counts(batch[column].drop_null()).to_pylist():
                value = str(one["values"]).removesuffix(".0")
                counts[value] = counts.get(value, 0) + one["counts"]
            if len(counts) > VALUES_NAMED:
                return ""
    common = sorted(value for value, count in counts.items() if count >= LEAST_NAMED)
    return f"; there are {', '.join(common)}" if common else ""


def _without_values(selection: Selection) -> str:
    said = [f"grade {' or '.join(selection.grades)}"] if selection.grades else []
    said += dict.fromkeys(f"the given {segment.name}" for segment in selection.segments)
    return ", ".join([*said, *(["changed"] if selection.changed_only else [])])
