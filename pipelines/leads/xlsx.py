"""Leads as an Excel workbook: a sheet of leads and a sheet that says what they are.

What enters: leads in rank order and what changed since the export before. What leaves: the workbook. The promise: no cell
is a formula, the same leads give the same bytes, and memory for one piece of rows.

XlsxWriter makes the workbook, all but the rows, for which it would take 85 µs of a processor each. Their XML is made
here, whole columns at once, in a quarter of that, most of it compression, and put where XlsxWriter left room for it.
Which number a look has in the workbook is read from two rows that XlsxWriter wrote as a pattern.

Weighed: reasons wrapped in their cells. Rows would be three lines high, and Excel works out every row's height when it
opens the file; so rows stay one line high and the columns are wide. Links: Excel allows 65,530 of them, and here every
text is only a text.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import xlsxwriter
from xlsxwriter.utility import xl_col_to_name, xl_rowcol_to_cell

from features.errors import UnusableOption
from pipelines.leads.changes import Changes, changes_of
from pipelines.leads.limits import within
from pipelines.leads.summary_sheet import write_summary_sheet
from pipelines.leads.tally import Leads
from serving.leads.book import Book
from serving.leads.cells import cell_texts, finite, may_hold, starts_a_formula, values, whole_seconds
from serving.leads.columns import SCHEMA_VERSION, ExportColumn, Kind

EXCEL_ROW_LIMIT = 1_048_576
EXCEL_COLUMN_LIMIT = 16_384
EXCEL_TEXT_LIMIT = 32_767
"""Of one cell, in UTF-16 units: an emoji counts twice."""
SHEET_BYTE_LIMIT = 2**31 - 2**24
"""A larger one needs the 64-bit form of ZIP, for which Excel offers to repair the workbook."""
CUT_MARK = " [cut: longer than a cell of Excel holds]"

_SHEET = "xl/worksheets/sheet1.xml"
_CONTENTS = "[Content_Types].xml"
_FIRST_ROW = 2
_DIMENSION = re.compile(rb'<dimension ref="[^"]*"/>')
_ESCAPED = (b"&", b"<", b">", b"_x")
_OUTER_SPACE = r"\A\s|\s\z|\n"
_EXCEL_DAY_OF_1970 = 25_569.0
_SECONDS_PER_DAY = 86_400.0
_YEAR_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def write_xlsx(leads: Leads, beside: Path) -> None:
    """Write the workbook.

    Raises
    ------
    UnusableOption
        When the leads are more than a sheet holds.
    """
    if leads.rows >= EXCEL_ROW_LIMIT:
        raise _too_large(f"{leads.rows:,} leads")
    if len(leads.columns) > EXCEL_COLUMN_LIMIT:
        raise _too_large(f"{len(leads.columns):,} columns")
    pattern, changes = _frame(leads, 1, None), changes_of(leads.book)
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=5) as whole:
        whole.writestr(_entry(_CONTENTS), pattern.files[_CONTENTS])
        with whole.open(_entry(_SHEET), "w") as sheet:
            _write_rows(sheet, leads, pattern)
            # The counts are known only now: what stands behind the rows, and the other sheet, come from a second frame.
            final = _frame(leads, leads.tally.rows, changes)
            sheet.write(final.around_rows(_last_cell(leads))[1])
        for name, content in final.files.items():
            if name not in (_CONTENTS, _SHEET):
                whole.writestr(_entry(name), content)


def _too_large(what: str) -> UnusableOption:
    return UnusableOption(
        "--format",
        f"{what} do not fit on a sheet of Excel. Use --format csv or --format parquet, or choose fewer leads with "
        "--grade, --segment, --changed or --top.",
    )


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _YEAR_OF_ZIP)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
    return entry


# --- the frame


_LOOKS: dict[Any, dict[str, Any]] = {
    Kind.TEXT: {},
    Kind.REASONS: {},
    Kind.YES_NO: {},
    Kind.WHOLE: {"num_format": "0"},
    Kind.CHANGE: {"num_format": "[Color10]▲ 0;[Red]▼ 0;0"},
    Kind.NUMBER: {"num_format": "General"},
    Kind.PROBABILITY: {"num_format": "0.0%"},
    Kind.HOURS: {"num_format": "#,##0.0"},
    Kind.MOMENT: {"num_format": "yyyy-mm-dd hh:mm"},
}
_HEADER = {"bold": True, "bg_color": "#1F3A5F", "font_color": "#FFFFFF", "text_wrap": True, "valign": "vcenter"}
# Keeps a text a text even after somebody edits the cell.
_GUARDED = {"quote_prefix": True}
_SCORE_COLOURS = {
    "type": "2_color_scale",
    "min_type": "num",
    "min_value": 0,
    "min_color": "#FFFFFF",
    "max_type": "num",
    "max_value": 100,
    "max_color": "#6FB58B",
}
_WORD_COLOURS = {
    "grade": {"A": "#9FD3B0", "B": "#CFE8D5", "C": "#FFF3C9", "D": "#FBDDBF", "E": "#F5C6C1"},
    "movement": {"new": "#CFE2F7", "up": "#CFE8D5", "down": "#F5C6C1"},
    "churn_band": {"high": "#F5C6C1", "medium": "#FFF3C9"},
}


@dataclass(frozen=True)
class _Frame:
    """A workbook without its leads: its files by name."""

    files: dict[str, bytes]

    def around_rows(self, last_cell: str) -> tuple[bytes, bytes]:
        """The leads' sheet up to its first lead, and from behind its last one."""
        sheet = _DIMENSION.sub(b'<dimension ref="A1:%s"/>' % last_cell.encode(), self.files[_SHEET])
        start = sheet.index(b'<row r="2"')
        return sheet[:start], sheet[sheet.index(b"</sheetData>") :]

    def looks(self, row: int) -> list[str]:
        """The numbers of the looks in a row of the pattern, by column."""
        cells = re.search(rb'<row r="%d".*?</row>' % row, self.files[_SHEET], re.DOTALL)
        return [number.decode() for number in re.findall(rb's="(\d+)"', cells[0] if cells else b"")]


def _frame(leads: Leads, rows: int, changes: Changes | None) -> _Frame:
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True})
    book.set_properties(_properties(leads.book))
    book.set_custom_property("schema_version", SCHEMA_VERSION)
    book.set_custom_property("book_id", leads.book.id)
    _leads_frame(book, leads, rows)
    write_summary_sheet(book, leads, changes)
    book.close()
    with zipfile.ZipFile(file) as made:
        return _Frame({name: made.read(name) for name in made.namelist()})


def _properties(book: Book) -> dict[str, Any]:
    """Nothing of the clock, so that the same leads give the same bytes."""
    created = book.scored_at.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    simulated = "SIMULATED DATA. " if book.simulated else ""
    said = {
        "title": "Lead export",
        "subject": book.list_name,
        "comments": f"{simulated}Lead score model {book.model_version}.",
    }
    return said | {"author": "inbox-scoring", "created": created}


def _leads_frame(book: Any, leads: Leads, rows: int) -> None:
    sheet = book.add_worksheet("Leads")
    header, guarded = book.add_format(_HEADER), book.add_format(_GUARDED)
    looks = {kind: book.add_format({"num_format": "General"} | look) for kind, look in _LOOKS.items()}
    for position, column in enumerate(leads.columns):
        sheet.set_column(position, position, column.width)
        sheet.write_string(0, position, _header_text(column), header)
        sheet.write_blank(1, position, None, looks[column.kind])
        sheet.write_blank(2, position, None, guarded)
    sheet.freeze_panes(1, 1)
    sheet.autofilter(0, 0, rows, len(leads.columns) - 1)
    _colour(book, sheet, leads.columns, rows)
    _quieten(sheet, leads.columns, rows)
    _for_paper(sheet, leads.book)


def _header_text(column: ExportColumn) -> str:
    return within(cell_texts(pa.array([column.name]), Kind.TEXT), EXCEL_TEXT_LIMIT, CUT_MARK)[0][0].as_py()  # type: ignore[no-any-return]


def _colour(book: Any, sheet: Any, columns: Sequence[ExportColumn], rows: int) -> None:
    places = {column.name: place for place, column in enumerate(columns)}
    sheet.conditional_format(1, places["score"], rows, places["score"], _SCORE_COLOURS)
    for name, colours in _WORD_COLOURS.items():
        for word, colour in colours.items():
            rule = {
                "type": "cell",
                "criteria": "==",
                "value": f'"{word}"',
                "format": book.add_format({"bg_color": colour}),
            }
            sheet.conditional_format(1, places[name], rows, places[name], rule)


def _quieten(sheet: Any, columns: Sequence[ExportColumn], rows: int) -> None:
    """No green corner on an identifier of digits alone."""
    places = (xl_col_to_name(place) for place, column in enumerate(columns) if column.kind is Kind.TEXT)
    sheet.ignore_errors({"number_stored_as_text": " ".join(f"{name}2:{name}{rows + 1}" for name in places)})


def _for_paper(sheet: Any, book: Book) -> None:
    sheet.set_landscape()
    sheet.set_paper(9)
    sheet.repeat_rows(0)
    sheet.fit_to_pages(1, 0)
    sheet.set_footer(f"&L{book.list_name[:60].replace('&', '&&')}&CPage &P of &N&R{book.scored_at:%Y-%m-%d}")


# --- the rows


def _write_rows(sheet: IO[bytes], leads: Leads, pattern: _Frame) -> None:
    looks = list(zip(leads.columns, pattern.looks(2), pattern.looks(3), strict=True))
    size = sheet.write(pattern.around_rows(_last_cell(leads))[0])
    for piece in leads.pieces():
        rows = _rows(leads, piece, looks)
        size += len(rows)
        if size > SHEET_BYTE_LIMIT:
            raise _too_large(f"{leads.rows:,} leads with such long texts")
        sheet.write(rows)


def _last_cell(leads: Leads) -> str:
    return str(xl_rowcol_to_cell(leads.rows, len(leads.columns) - 1))


_Look = tuple[ExportColumn, str, str]


def _rows(leads: Leads, piece: pa.RecordBatch, looks: Sequence[_Look]) -> bytes:
    first = _FIRST_ROW + leads.tally.rows - piece.num_rows
    numbers = pc.add(pa.array(range(piece.num_rows), pa.int32()), first).cast(pa.string())
    cells = [
        _cells(leads, values(piece, column), column.kind, _start(place, numbers), plain, guarded)
        for place, (column, plain, guarded) in enumerate(looks)
    ]
    rows = pc.binary_join_element_wise(
        '<row r="', numbers, '">', *cells, "</row>", "", null_handling="replace", null_replacement=""
    )
    whole = pa.LargeListArray.from_arrays(pa.array([0, len(rows)], pa.int64()), rows)
    return bytes(pc.binary_join(whole, "")[0].as_buffer())


def _start(place: int, numbers: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(f'<c r="{xl_col_to_name(place)}', numbers, '" s="', "")


def _cells(leads: Leads, array: pa.Array, kind: Kind, start: pa.Array, plain: str, guarded: str) -> pa.Array:
    """A column's cells; null where there is nothing to say."""
    if kind in (Kind.TEXT, Kind.REASONS, Kind.YES_NO):
        return _text_cells(leads, cell_texts(array, kind), start, plain, guarded)
    if kind is Kind.MOMENT:
        seconds = whole_seconds(array).cast(pa.int64()).cast(pa.float64())
        array = pc.add(pc.divide(seconds, _SECONDS_PER_DAY), _EXCEL_DAY_OF_1970)
    elif kind in (Kind.NUMBER, Kind.PROBABILITY, Kind.HOURS):
        array = finite(array)
    return pc.binary_join_element_wise(start, f'{plain}"><v>', array.cast(pa.string()), "</v></c>", "")


def _text_cells(leads: Leads, texts: pa.Array, start: pa.Array, plain: str, guarded: str) -> pa.Array:
    texts, cut = within(texts, EXCEL_TEXT_LIMIT, CUT_MARK)
    leads.tally.cut += cut
    look = pc.if_else(starts_a_formula(texts), guarded, plain)
    # Without the attribute a reader of XML may drop spaces and line breaks at the ends.
    spaced = pc.fill_null(pc.match_substring_regex(texts, _OUTER_SPACE), False)
    opened = pc.if_else(spaced, '" t="inlineStr"><is><t xml:space="preserve">', '" t="inlineStr"><is><t>')
    return pc.binary_join_element_wise(start, look, opened, _escaped(texts), "</t></is></c>", "")


def _escaped(texts: pa.Array) -> pa.Array:
    if not may_hold(texts, _ESCAPED):
        return texts
    # Excel reads _x000D_ as the character with that number, so a text that looks like it is told apart.
    texts = pc.replace_substring_regex(texts, r"_(x[0-9A-Fa-f]{4}_)", r"_x005F_\1")
    for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "_x000D_")):
        texts = pc.replace_substring(texts, character, escape)
    return texts
