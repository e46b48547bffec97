"""The columns of every lead export, and what each of them means in a marketer's words.

What enters: the schema of a lead book. What leaves: the columns of it that people see, in their order. The promise: a
column has one name and one meaning, in every format, on the page and in the documents.

``docs/exports.md`` has the same table; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

from models.lead_score import GRADE_CUTS
from models.lead_score import GRADES as GRADES_UPWARDS
from serving.leads.book import PROFILE

SCHEMA_VERSION = "2"
"""Changes when a column is renamed, removed or gets another meaning; a new one before the attributes does not change it."""
GRADES = tuple(reversed(GRADES_UPWARDS))
"""Best first."""
KEPT_AS_NUMBERS = (
    "What came as true or false is kept as 1 or 0, what came as a date as days since 1970 (UTC), so it is shown so."
)
"""Of attributes; see ``features.intake.read_subscribers``."""


class Kind(Enum):
    """How a column is typed and shown."""

    TEXT = "text"
    REASONS = "reasons"
    WHOLE = "whole number"
    CHANGE = "change"
    NUMBER = "number"
    PROBABILITY = "probability"
    HOURS = "hours"
    MOMENT = "moment, UTC"
    YES_NO = "yes or no"


@dataclass(frozen=True)
class ExportColumn:
    """One column of the export; ``source`` names the book's column it comes from, empty where it is the same for all.

    ``width`` is in characters.
    """

    name: str
    source: str
    kind: Kind
    width: int
    meaning: str


def _grade_meaning() -> str:
    starts = [f"{grade} from {cut}" for grade, cut in zip(GRADES, reversed(GRADE_CUTS), strict=False)]
    return f"By score, with fixed cut-offs: {', '.join(starts)}, {GRADES[-1]} below."


def _column(name: str, kind: Kind, width: int, meaning: str, source: str | None = None) -> ExportColumn:
    return ExportColumn(name, name if source is None else source, kind, width, meaning)


COLUMNS = (
    _column("subscriber_id", Kind.TEXT, 22, "Who: the identifier of your own list."),
    _column("rank", Kind.WHOLE, 9, "Place in the whole list: 1 is the best lead. Rows are sorted by it."),
    _column(
        "score",
        Kind.WHOLE,
        9,
        "0 to 100: at 81, likelier to convert than 81 % of the leads the model was judged on.",
    ),
    _column("grade", Kind.TEXT, 9, _grade_meaning()),
    _column(
        "probability",
        Kind.PROBABILITY,
        13,
        "The chance to convert within the model's horizon, calibrated: of 100 leads at 30 %, about 30 convert.",
    ),
    _column(
        "percentile",
        Kind.WHOLE,
        12,
        "Where the probability stands, 0 to 100: at 90, about 90 % are less likely to convert.",
    ),
    _column("score_before", Kind.WHOLE, 14, "The score in the export before this one. Empty: not in it."),
    _column("score_change", Kind.CHANGE, 14, "Score now less score before. Empty: new, or there was no export before."),
    _column("grade_before", Kind.TEXT, 14, "The grade in the export before this one. Empty: not in it."),
    _column(
        "movement",
        Kind.TEXT,
        12,
        "By grade, since the export before: new, up, down or same. Empty: there was no export before.",
    ),
    _column(
        "change_reason",
        Kind.TEXT,
        44,
        "Why the score moved. Empty: score and grade are as they were, or there is nothing to compare with.",
    ),
    _column("reasons_for", Kind.REASONS, 52, "What speaks most for this lead, up to 3, strongest first."),
    _column("reasons_against", Kind.REASONS, 52, "What speaks most against this lead, up to 3, strongest first."),
    _column("churn_band", Kind.TEXT, 13, "Risk of going quiet or opting out: low, medium or high."),
    _column(
        "churn_probability",
        Kind.PROBABILITY,
        18,
        "The chance to go quiet or opt out within the churn model's horizon, calibrated.",
    ),
    _column("recommended_send_at", Kind.MOMENT, 21, "The best moment for the next send (UTC)."),
    _column(
        "send_time_clear",
        Kind.YES_NO,
        16,
        "yes: the recommended moment clearly beats the list's usual one. no: this data does not show that it does.",
        source="send_time_confident",
    ),
    _column(
        "last_engagement_at",
        Kind.MOMENT,
        20,
        "Last open, click, visit, form or purchase by a person (UTC). Empty: never.",
    ),
    _column(
        "data_age_hours",
        Kind.HOURS,
        16,
        "How old the data behind the score was when it was made, in hours. Empty: there was none.",
    ),
    _column(
        "status",
        Kind.TEXT,
        10,
        "ok: fresh data. stale: old data. partial: some of it missing. prior: nothing known, the list's average.",
    ),
    _column("model_version", Kind.TEXT, 15, "Version of the lead score model."),
    _column("scored_at", Kind.MOMENT, 20, "When the score was made (UTC)."),
    _column("schema_version", Kind.TEXT, 16, "Version of these columns and their meanings.", source=""),
)
"""Every column but the list's own attributes, which follow them."""


def columns_of(schema: pa.Schema) -> tuple[ExportColumn, ...]:
    """The columns that rows with this schema have, in their order: ours, then the list's own attributes.

    Parameters
    ----------
    schema
        Of a book or of a part of its columns.
    """
    found = {"", *schema.names}
    return (*(column for column in COLUMNS if column.source in found), *_attributes(schema))


def _attributes(schema: pa.Schema) -> Iterator[ExportColumn]:
    for field in schema:
        if field.name.startswith(PROFILE):
            name = field.name.removeprefix(PROFILE)
            kind = _kind_of(field.type)
            meaning = f"The attribute “{name}” of your own list, as it was last told."
            if kind in (Kind.WHOLE, Kind.NUMBER):
                meaning = f"{meaning} {KEPT_AS_NUMBERS}"
            yield ExportColumn(field.name, field.name, kind, 18, meaning)


def _kind_of(type: pa.DataType) -> Kind:
    if pa.types.is_integer(type):
        return Kind.WHOLE
    if pa.types.is_floating(type) or pa.types.is_decimal(type):
        return Kind.NUMBER
    if pa.types.is_boolean(type):
        return Kind.YES_NO
    return Kind.MOMENT if pa.types.is_timestamp(type) else Kind.TEXT
