"""Leads on their way into a file, counted as they pass.

What enters: rows of a lead book in rank order, batch by batch. What leaves: the same rows in pieces of bounded size, and
counts of them. The promise: one look at each row, and memory for one piece.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.leads.movement import AGO
from serving.leads.book import Book
from serving.leads.columns import GRADES, ExportColumn, columns_of

PIECE_ROWS = 16_384
PIECE_BYTES = 16_000_000
"""What is made of a piece takes several times as much, so long attributes make pieces of fewer rows."""
_REASONS_KEPT = 20_000
"""An attribute with a value of its own for everybody makes as many reasons; the rare ones may then be forgotten."""


@dataclass
class Tally:
    """Counts of what was written. ``grades`` and ``expected`` name all five grades, best first.

    ``cut`` counts the texts cut and the numbers left empty because the format holds no more; ``unkeyed`` the rows left
    out because their identifier is longer than the format's; ``formulas`` the texts that a spreadsheet would run.
    """

    rows: int = 0
    grades: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GRADES, 0))
    expected: dict[str, float] = field(default_factory=lambda: dict.fromkeys(GRADES, 0.0))
    reasons: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    unkeyed: int = 0
    formulas: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a piece's rows."""
        self.rows += batch.num_rows
        for grade, count in _counted(batch["grade"]):
            self.grades[grade] = self.grades.get(grade, 0) + count
        for grade, expected in _summed(batch["grade"], batch["probability"]).items():
            self.expected[grade] = self.expected.get(grade, 0.0) + expected
        if "reasons_for" in batch.schema.names:
            for words, count in _counted(batch["reasons_for"].flatten()):
                self.reasons[without_numbers(words)] += count
        if len(self.reasons) > 2 * _REASONS_KEPT:
            self.reasons = Counter(dict(self.reasons.most_common(_REASONS_KEPT)))

    def top_reasons(self, number: int) -> list[tuple[str, int]]:
        """The commonest reasons for a lead, without their numbers, and how many leads have them, commonest first."""
        return sorted(self.reasons.items(), key=lambda reason: (-reason[1], reason[0]))[:number]


@dataclass(frozen=True)
class Leads:
    """What is to be written: rows of a book, which of them they are, in words, and how many."""

    book: Book
    batches: Iterable[pa.RecordBatch]
    chosen: str
    rows: int
    tally: Tally = field(default_factory=Tally)

    @property
    def columns(self) -> tuple[ExportColumn, ...]:
        return columns_of(self.book.schema)

    def pieces(self, fit: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda piece: piece) -> Iterator[pa.RecordBatch]:
        """The rows that ``fit`` leaves of each piece, once, counted as they pass."""
        for batch in self.batches:
            for piece in map(fit, _sliced(batch)):
                self.tally.add(piece)
                yield piece


def _sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    fitting = PIECE_BYTES * batch.num_rows // max(batch.nbytes, 1)
    rows = max(1, min(PIECE_ROWS, fitting))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def without_numbers(words: str) -> str:
    """A reason as it is for everybody who has it; a list's own attribute keeps its value.

    >>> without_numbers("last click 12 days ago"), without_numbers("plan: 12 months")
    ('last click … days ago', 'plan: 12 months')
    """
    return words if ": " in words else re.sub(r"\d[\d.,]*", AGO, words)


def _counted(values: pa.Array) -> list[tuple[str, int]]:
    return [(item["values"], item["counts"]) for item in pc.value_counts(values.drop_null()).to_pylist()]


def _summed(group: pa.Array, probability: pa.Array) -> dict[str, float]:
    # One thread, because the last digits of a sum depend on its order.
    grouped = pa.table({"group": group, "probability": probability}).group_by("group", use_threads=False)
    summed = grouped.aggregate([("probability", "sum")])
    return dict(zip(summed["group"].to_pylist(), summed["probability_sum"].to_pylist(), strict=True))
