"""Lead exports: the scored list as a file a marketer opens and another system imports.

What enters: the scored table of ``pipelines.score``. What leaves: one CSV, XLSX or Parquet file and a summary of what
is in it. The promise: the same scores give the same bytes, no cell is ever a formula, nobody who withheld consent is in
it, and the file is either whole or not there.

CSV is UTF-8 with a byte order mark, because without it Excel reads names in another alphabet as rubbish; lines end in
CRLF and quotes are doubled (RFC 4180). Text that a spreadsheet would run gets a leading apostrophe there, so a program
that imports the file should take Parquet, where every text is as it came. Times are UTC; CSV and XLSX cut them to whole
seconds. XLSX cuts a text at Excel's limit of a cell and marks the cut; CSV and Parquet never cut.
"""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xlsxwriter
from xlsxwriter.exceptions import XlsxWriterException

from features.contract import UTC_MICROSECONDS
from features.errors import UnusableOption
from models.lead_score import GRADE_CUTS
from models.lead_score import GRADES as GRADES_UPWARDS

ExportFormat = Literal["csv", "xlsx", "parquet"]

SCHEMA_VERSION = "1"
"""Changes when a column is renamed, removed or gets another meaning; a new column at the end does not change it."""
GRADES = tuple(reversed(GRADES_UPWARDS))
"""Best first."""
REASON_LIMIT = 3
EXCEL_ROW_LIMIT = 1_048_576
EXCEL_TEXT_LIMIT = 32_767
"""Of one cell, in UTF-16 units: an emoji counts twice."""
CUT_MARK = " [cut: longer than a cell of Excel holds]"

_RUNS_AS_FORMULA = r"\A[=+\-@\t\r]"
_CHUNK_ROWS = 16_384
_EXCEL_DAY_OF_1970 = 25_569.0
_SECONDS_PER_DAY = 86_400.0


class Kind(Enum):
    """How a column is typed and shown."""

    TEXT = "text"
    REASONS = "reasons"
    WHOLE = "whole number"
    PROBABILITY = "probability"
    HOURS = "hours"
    MOMENT = "moment, UTC"


@dataclass(frozen=True)
class ExportColumn:
    """One column of the export; ``source`` names the scored table's column it comes from."""

    name: str
    source: str
    kind: Kind
    width: int
    meaning: str
    required: bool = True


def _grade_meaning() -> str:
    starts = [f"{grade} from {cut}" for grade, cut in zip(GRADES, reversed(GRADE_CUTS), strict=False)]
    return f"By score, with fixed cut-offs: {', '.join(starts)}, {GRADES[-1]} below."


COLUMNS = (
    ExportColumn("subscriber_id", "subscriber_id", Kind.TEXT, 22, "Who: the identifier of your own list."),
    ExportColumn(
        "score",
        "lead_score_score",
        Kind.WHOLE,
        8,
        "0 to 100: at 81, likelier to convert than 81 % of the leads the model was judged on. Rows are sorted by it.",
    ),
    ExportColumn("grade", "lead_score_grade", Kind.TEXT, 8, _grade_meaning()),
    ExportColumn(
        "probability",
        "lead_score_probability",
        Kind.PROBABILITY,
        12,
        "The chance to convert within the model's horizon, calibrated: of 100 leads at 30 %, about 30 convert.",
    ),
    ExportColumn(
        "percentile",
        "lead_score_percentile",
        Kind.WHOLE,
        11,
        "Where the probability stands, 0 to 100: at 90, about 90 % are less likely to convert.",
        required=False,
    ),
    ExportColumn(
        "reasons",
        "lead_score_reasons",
        Kind.REASONS,
        64,
        f"What moved this score most, up to {REASON_LIMIT}, strongest first: ↑ speaks for the lead, ↓ against.",
        required=False,
    ),
    ExportColumn(
        "churn_band",
        "churn_band",
        Kind.TEXT,
        12,
        "Risk of going quiet: low, medium or high.",
        required=False,
    ),
    ExportColumn(
        "recommended_send_at",
        "send_time_send_at",
        Kind.MOMENT,
        20,
        "The best moment for the next send (UTC).",
        required=False,
    ),
    ExportColumn(
        "last_engagement_at",
        "last_engagement_at",
        Kind.MOMENT,
        20,
        "Last open, click, visit, form or purchase by a person (UTC). Empty: never.",
    ),
    ExportColumn(
        "data_age_hours",
        "feature_age_s",
        Kind.HOURS,
        15,
        "How old the data behind the score was when it was made, in hours. Empty: there was none.",
    ),
    ExportColumn(
        "status",
        "status",
        Kind.TEXT,
        10,
        "ok: fresh data. stale: old data. partial: some of it missing. prior: nothing known, the list's average.",
    ),
    ExportColumn("model_version", "lead_score_model_version", Kind.TEXT, 14, "Version of the lead score model."),
    ExportColumn("scored_at", "scored_at", Kind.MOMENT, 20, "When the score was made (UTC)."),
    ExportColumn("schema_version", "", Kind.TEXT, 15, "Version of these columns and their meanings."),
)


@dataclass(frozen=True)
class ExportContext:
    """What the rows do not say about themselves. ``scored_at`` is an aware datetime."""

    model_version: str
    scored_at: datetime
    simulated: bool
    list_name: str


@dataclass(frozen=True)
class ExportSummary:
    """What an export holds and what was left out of it.

    ``no_consent`` rows withheld consent, ``unscored`` ones have no finite lead score, ``converted`` ones are customers
    already; none of them is in the file.
    ``cut_texts`` counts the cells cut at Excel's limit. ``grades`` always names all five.
    """

    path: Path
    format: ExportFormat
    rows: int
    no_consent: int
    unscored: int
    converted: int
    cut_texts: int
    grades: dict[str, int]
    expected_conversions: float


def write_leads(scored: pa.Table, out: Path, format: ExportFormat, context: ExportContext) -> ExportSummary:
    """Write the leads of a scored table, best first (score, probability, then subscriber_id), and say what was written.

    Parameters
    ----------
    scored
        One row per subscriber with the lead score's columns; those of churn and send time, and the reasons, are taken
        along where they are present. Rows without consent are left out and counted.
    out
        The file to write or replace; its directory is made.
    format
        ``csv``, ``xlsx`` or ``parquet``.
    context
        What goes on the summary sheet and into the file's properties.

    Raises
    ------
    UnusableOption
        When the format is unknown, the scores hold no lead score, there is no lead to export, the leads are more than a
        sheet holds, or the file cannot be written. In each case what was at ``out`` before is still there.
    """
    _check_format(format)
    open_leads, converted = _without_converted(scored)
    leads, no_consent, unscored = _leads(open_leads)
    _check_size(leads.num_rows, format, no_consent, unscored)
    summary = ExportSummary(
        path=out,
        format=format,
        rows=leads.num_rows,
        no_consent=no_consent,
        unscored=unscored,
        converted=converted,
        cut_texts=_cut_count(leads) if format == "xlsx" else 0,
        grades=_grade_counts(leads),
        expected_conversions=float(pc.sum(leads["probability"]).as_py()),
    )
    with replacing(out) as beside:
        _WRITERS[format](leads, beside, context, summary)
    return summary


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Lend a path on ``out``'s own disk; what is written there takes ``out``'s place when the block ends well.

    Raises
    ------
    UnusableOption
        On any error of the file system inside or at the end of the block; ``out`` is then as it was.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=out.parent) as room:
            beside = Path(room) / out.name
            yield beside
            _sync(beside)
            beside.replace(out)
            _sync(out.parent)
    except OSError as error:
        raise UnusableOption(
            "--out",
            f"{out} could not be written ({error.strerror or error}). Nothing was changed there; free some space, "
            "close the file where it is open, or name another file.",
        ) from error


def _sync(path: Path) -> None:
    """A rename survives a power cut only when the bytes, and then the directory, reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_format(format: str) -> None:
    if format not in get_args(ExportFormat):
        raise UnusableOption("--format", f"{format!r} is not one of {', '.join(get_args(ExportFormat))}.")


def _check_size(rows: int, format: str, no_consent: int, unscored: int) -> None:
    if rows == 0:
        raise UnusableOption(
            "export leads",
            f"there is no lead to export: of {no_consent + unscored:,} scored, {no_consent:,} withheld consent and "
            f"{unscored:,} have no lead score. Nothing was written; score the list with `inbox score` first.",
        )
    if format == "xlsx" and rows >= EXCEL_ROW_LIMIT:
        raise UnusableOption(
            "--format",
            f"{rows:,} leads do not fit on a sheet of Excel, which holds {EXCEL_ROW_LIMIT - 1:,} below its header. Use "
            "--format csv or --format parquet.",
        )


def _without_converted(scored: pa.Table) -> tuple[pa.Table, int]:
    """Those who have not converted yet, and how many have."""
    if "lead_score_converted" not in scored.column_names:
        return scored, 0
    still_open = scored.filter(pc.invert(pc.fill_null(scored["lead_score_converted"], False)))
    return still_open, scored.num_rows - still_open.num_rows


def _leads(scored: pa.Table) -> tuple[pa.Table, int, int]:
    """Rank the exportable rows; count those without consent and those without a score."""
    columns = _present_columns(scored)
    objected = pc.equal(scored["status"], "no_consent")
    finite = pc.fill_null(pc.is_finite(scored["lead_score_probability"]), False)
    kept = scored.filter(pc.and_(pc.invert(objected), pc.and_(finite, pc.is_valid(scored["lead_score_score"]))))
    no_consent = int(pc.sum(objected).as_py() or 0)
    arrays = [_typed(kept, column) for column in columns]
    leads = pa.Table.from_arrays(arrays, names=[column.name for column in columns])
    ranked = leads.sort_by([("score", "descending"), ("probability", "descending"), ("subscriber_id", "ascending")])
    return ranked, no_consent, scored.num_rows - no_consent - kept.num_rows


def _present_columns(scored: pa.Table) -> list[ExportColumn]:
    found = {*scored.column_names, ""}
    missing = [column.source for column in COLUMNS if column.required and column.source not in found]
    if missing:
        raise UnusableOption(
            "export leads", f"the scores lack {', '.join(missing)}. Score the list with the model lead_score first."
        )
    return [column for column in COLUMNS if column.source in found]


def _typed(scored: pa.Table, column: ExportColumn) -> pa.ChunkedArray:
    if not column.source:
        return pa.chunked_array([pa.repeat(pa.scalar(SCHEMA_VERSION), scored.num_rows)])
    values = scored[column.source]
    match column.kind:
        case Kind.REASONS:
            return pc.list_slice(values, 0, REASON_LIMIT)
        case Kind.WHOLE:
            return values.cast(pa.int32())
        case Kind.PROBABILITY:
            return values.cast(pa.float64())
        case Kind.HOURS:
            hours = pc.round(pc.divide(values.cast(pa.float64()), 3600.0), 2)
            return pc.if_else(pc.is_finite(hours), hours, pa.scalar(None, pa.float64()))
        case Kind.MOMENT:
            return values.cast(UTC_MICROSECONDS)
        case Kind.TEXT:
            return values.cast(pa.string())


def _grade_counts(leads: pa.Table) -> dict[str, int]:
    counted = {item["values"]: item["counts"] for item in pc.value_counts(leads["grade"]).to_pylist()}
    return {grade: counted.get(grade, 0) for grade in GRADES}


def _columns_of(leads: pa.Table) -> list[ExportColumn]:
    return [column for column in COLUMNS if column.name in leads.column_names]


def _joined(array: pa.Array) -> pa.Array:
    return pc.binary_join(array, "; ")


def _seconds(array: pa.Array) -> pa.Array:
    return pc.floor_temporal(array, unit="second").cast(pa.timestamp("s", tz="UTC"))


# --- Parquet


def _write_parquet(leads: pa.Table, beside: Path, context: ExportContext, summary: ExportSummary) -> None:
    facts = {
        "inbox.schema_version": SCHEMA_VERSION,
        "inbox.model_version": context.model_version,
        "inbox.scored_at": _iso(context.scored_at),
        "inbox.simulated": str(context.simulated).lower(),
        "inbox.list_name": context.list_name,
    }
    pq.write_table(leads.replace_schema_metadata(facts), beside, compression="zstd")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- CSV


def _write_csv(leads: pa.Table, beside: Path, context: ExportContext, summary: ExportSummary) -> None:
    columns = _columns_of(leads)
    with beside.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(column.name for column in columns)
        for batch in leads.to_batches(max_chunksize=_CHUNK_ROWS):
            writer.writerows(zip(*(_csv_cells(batch[column.name], column.kind) for column in columns), strict=True))


def _csv_cells(array: pa.Array, kind: Kind) -> list[Any]:
    match kind:
        case Kind.TEXT:
            cells = _without_formulas(array)
        case Kind.REASONS:
            cells = _without_formulas(_joined(array))
        case Kind.MOMENT:
            cells = pc.strftime(_seconds(array), format="%Y-%m-%dT%H:%M:%SZ")
        case _:
            cells = array
    listed: list[Any] = cells.to_pylist()
    return listed


def _without_formulas(texts: pa.Array) -> pa.Array:
    """An apostrophe before every text a spreadsheet would run; numbers never come here."""
    runs = pc.match_substring_regex(texts, _RUNS_AS_FORMULA)
    return pc.if_else(runs, pc.binary_join_element_wise("'", texts, ""), texts)


# --- XLSX


def _write_xlsx(leads: pa.Table, beside: Path, context: ExportContext, summary: ExportSummary) -> None:
    # Rows wait in a temporary file, not in memory; beside the target, so that a full disk shows before the rename.
    book = xlsxwriter.Workbook(beside, {"constant_memory": True, "tmpdir": str(beside.parent)})
    book.use_zip64()
    created = context.scored_at.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    book.set_properties({"title": "Lead export", "subject": context.list_name, "created": created})
    book.set_custom_property("schema_version", SCHEMA_VERSION)
    looks = {name: book.add_format(look) for name, look in _LOOKS.items()}
    try:
        _leads_sheet(book.add_worksheet("Leads"), leads, looks)
        _summary_sheet(book.add_worksheet("Summary"), leads, looks, context, summary)
        book.close()
    except XlsxWriterException as error:
        raise OSError(str(error)) from error
    finally:
        _release(book)


_LOOKS = {
    "title": {"bold": True, "font_size": 16},
    "heading": {"bold": True, "font_size": 12, "bottom": 1},
    "header": {"bold": True, "bg_color": "#1F3A5F", "font_color": "#FFFFFF"},
    "bold": {"bold": True},
    "wrapped": {"text_wrap": True, "valign": "top"},
    # Keeps a text a text even after somebody edits the cell.
    "guarded": {"quote_prefix": True},
    "whole": {"num_format": "#,##0", "align": "left"},
    Kind.WHOLE: {"num_format": "0"},
    Kind.PROBABILITY: {"num_format": "0.00%"},
    Kind.HOURS: {"num_format": "#,##0.0"},
    Kind.MOMENT: {"num_format": "yyyy-mm-dd hh:mm"},
}
_SCORE_COLOURS = {
    "type": "2_color_scale",
    "min_type": "num",
    "min_value": 0,
    "min_color": "#FFFFFF",
    "max_type": "num",
    "max_value": 100,
    "max_color": "#6FB58B",
}
_Looks = dict[Any, Any]


def _release(book: Any) -> None:
    """A workbook that failed half-way has left its row files open."""
    for sheet in book.worksheets():
        with suppress(OSError):
            sheet.row_data_fh.close()


def _leads_sheet(sheet: Any, leads: pa.Table, looks: _Looks) -> None:
    columns = _columns_of(leads)
    sheet.freeze_panes(1, 1)
    sheet.autofilter(0, 0, leads.num_rows, len(columns) - 1)
    sheet.ignore_errors({"number_stored_as_text": f"A2:A{leads.num_rows + 1}"})
    score = leads.column_names.index("score")
    sheet.conditional_format(1, score, leads.num_rows, score, _SCORE_COLOURS)
    for position, column in enumerate(columns):
        sheet.set_column(position, position, column.width)
        sheet.write_string(0, position, column.name, looks["header"])
    for number, row in enumerate(_xlsx_rows(leads, columns), start=1):
        for position, (column, value) in enumerate(zip(columns, row, strict=True)):
            _write_cell(sheet, number, position, value, looks.get(column.kind), looks)


def _xlsx_rows(leads: pa.Table, columns: Sequence[ExportColumn]) -> Iterator[tuple[Any, ...]]:
    for batch in leads.to_batches(max_chunksize=_CHUNK_ROWS):
        yield from zip(*(_xlsx_cells(batch[column.name], column.kind) for column in columns), strict=True)


def _xlsx_cells(array: pa.Array, kind: Kind) -> list[Any]:
    if kind is Kind.REASONS:
        array = _joined(array)
    elif kind is Kind.MOMENT:
        seconds = _seconds(array).cast(pa.int64()).cast(pa.float64())
        array = pc.add(pc.divide(seconds, _SECONDS_PER_DAY), _EXCEL_DAY_OF_1970)
    listed: list[Any] = array.to_pylist()
    return listed


def _write_cell(sheet: Any, row: int, position: int, value: Any, look: Any, looks: _Looks) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        sheet.write_number(row, position, value, look)
        return
    guard = looks["guarded"] if re.match(_RUNS_AS_FORMULA, value) else look
    sheet.write_string(row, position, _excel_text(value), guard)


def _excel_text(text: str) -> str:
    """The text as a cell can hold it."""
    if _is_too_long(text):
        kept = text.encode("utf-16-le")[: 2 * (EXCEL_TEXT_LIMIT - len(CUT_MARK))]
        text = kept.decode("utf-16-le", errors="ignore") + CUT_MARK
    # XlsxWriter, when it streams, takes such a text for finished XML and would let it break the sheet.
    return f"{text} " if text.startswith("<r>") and text.endswith("</r>") else text


def _is_too_long(text: str) -> bool:
    return len(text) > EXCEL_TEXT_LIMIT // 2 and len(text.encode("utf-16-le")) > 2 * EXCEL_TEXT_LIMIT


def _cut_count(leads: pa.Table) -> int:
    texts = [leads[column.name] for column in _columns_of(leads) if column.kind is Kind.TEXT]
    texts += [_joined(leads[column.name]) for column in _columns_of(leads) if column.kind is Kind.REASONS]
    # UTF-8 never takes fewer bytes than UTF-16 takes units, so nothing too long is missed.
    suspects = (column.filter(pc.greater(pc.binary_length(column), EXCEL_TEXT_LIMIT)) for column in texts)
    return sum(_is_too_long(text) for column in suspects for text in column.to_pylist())


def _summary_sheet(sheet: Any, leads: pa.Table, looks: _Looks, context: ExportContext, summary: ExportSummary) -> None:
    sheet.set_column(0, 0, 24)
    sheet.set_column(1, 3, 22)
    sheet.hide_gridlines(2)
    rows = (*_facts(context, summary), (), *_grade_rows(leads, summary), (), *_column_meanings(leads))
    for row, cells in enumerate(rows):
        for position, (value, look) in enumerate(cells):
            _write_cell(sheet, row, position, value, looks.get(look), looks)


_Cells = tuple[tuple[Any, Any], ...]


def _facts(context: ExportContext, summary: ExportSummary) -> Iterator[_Cells]:
    yield (("Lead export", "title"),)
    if context.simulated:
        yield (("SIMULATED DATA: made by a program to show how this works. These people do not exist.", "bold"),)
    yield ("List", "bold"), (context.list_name, None)
    yield ("Leads in this file", "bold"), (summary.rows, "whole")
    yield ("Left out: no consent", "bold"), (summary.no_consent, "whole")
    yield ("Left out: no score", "bold"), (summary.unscored, "whole")
    yield ("Left out: converted before", "bold"), (summary.converted, "whole")
    yield ("Texts cut for Excel", "bold"), (summary.cut_texts, "whole")
    yield ("Model version", "bold"), (context.model_version, None)
    yield ("Scored at (UTC)", "bold"), (f"{context.scored_at.astimezone(UTC):%Y-%m-%d %H:%M}", None)
    yield ("Version of the columns", "bold"), (SCHEMA_VERSION, None)


def _grade_rows(leads: pa.Table, summary: ExportSummary) -> Iterator[_Cells]:
    yield tuple((words, "header") for words in ("Grade", "Leads", "Share of the leads", "Expected conversions"))
    expected = expected_by_group(leads["grade"], leads["probability"])
    for grade, count in summary.grades.items():
        share = (count / summary.rows, Kind.PROBABILITY)
        yield (grade, "bold"), (count, "whole"), share, (expected.get(grade, 0.0), Kind.HOURS)
    total = (summary.expected_conversions, Kind.HOURS)
    yield ("All", "bold"), (summary.rows, "whole"), (1, Kind.PROBABILITY), total
    yield (("Expected conversions are the sum of the leads' probabilities.", None),)


def expected_by_group(group: pa.ChunkedArray, probability: pa.ChunkedArray) -> dict[str, float]:
    """Sum of the probabilities of each group present: of how many of its people the thing is expected."""
    # One thread, because the last digits of a sum depend on its order.
    grouped = pa.table({"group": group, "probability": probability}).group_by("group", use_threads=False)
    summed = grouped.aggregate([("probability", "sum")])
    return dict(zip(summed["group"].to_pylist(), summed["probability_sum"].to_pylist(), strict=True))


def _column_meanings(leads: pa.Table) -> Iterator[_Cells]:
    yield ("Column", "header"), ("What it means", "header")
    for column in _columns_of(leads):
        yield (column.name, "bold"), (column.meaning, None)


_WRITERS = {"csv": _write_csv, "xlsx": _write_xlsx, "parquet": _write_parquet}
