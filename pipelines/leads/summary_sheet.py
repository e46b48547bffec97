"""The second sheet of the workbook: what the leads in it are, what changed, and what each column means.

What enters: leads that were counted, and what changed since the book before. What leaves: a sheet that XlsxWriter writes.
The promise: every number on it is of this file, or says of what else it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Any

import pyarrow as pa

from pipelines.leads.changes import Changes
from pipelines.leads.tally import Leads
from serving.leads.cells import cell_texts
from serving.leads.columns import GRADES, SCHEMA_VERSION, Kind

_REASONS_SHOWN = 10
_LOOKS: dict[str, dict[str, Any]] = {
    "title": {"bold": True, "font_size": 16},
    "warning": {"bold": True, "font_color": "#9C0006", "bg_color": "#FFC7CE"},
    "heading": {"bold": True, "font_size": 12, "bottom": 1},
    "header": {"bold": True, "bg_color": "#1F3A5F", "font_color": "#FFFFFF"},
    "bold": {"bold": True},
    "plain": {},
    "whole": {"num_format": "#,##0", "align": "left"},
    "share": {"num_format": "0.0%", "align": "left"},
    "amount": {"num_format": "#,##0.0", "align": "left"},
}
_Cells = tuple[tuple[str | float, str], ...]


def write_summary_sheet(book: Any, leads: Leads, changes: Changes | None) -> None:
    """Add the sheet to a workbook of XlsxWriter; ``changes`` is None when there was no export before."""
    sheet, looks = book.add_worksheet("Summary"), {name: book.add_format(look) for name, look in _LOOKS.items()}
    sheet.set_column(0, 0, 28)
    sheet.set_column(1, len(GRADES) + 1, 20)
    sheet.hide_gridlines(2)
    sheet.set_landscape()
    sheet.set_paper(9)
    sheet.fit_to_pages(1, 0)
    for row, cells in enumerate(_rows(leads, changes)):
        for position, (value, look) in enumerate(cells):
            _write(sheet, row, position, value, looks[look])


def _write(sheet: Any, row: int, position: int, value: str | float, look: Any) -> None:
    if isinstance(value, str):
        sheet.write_string(row, position, cell_texts(pa.array([value]), Kind.TEXT)[0].as_py(), look)
    else:
        sheet.write_number(row, position, value, look)


def _rows(leads: Leads, changes: Changes | None) -> Iterator[_Cells]:
    yield from _facts(leads)
    yield ()
    yield from _grade_rows(leads)
    yield ()
    yield from _change_rows(changes)
    yield ()
    yield from _left_out_rows(leads)
    yield ()
    yield from _reason_rows(leads)
    yield ()
    yield from _column_rows(leads)


def _heading(words: str) -> _Cells:
    return ((words, "heading"),)


def _header(*words: str) -> _Cells:
    return tuple((word, "header") for word in words)


def _facts(leads: Leads) -> Iterator[_Cells]:
    book = leads.book
    yield (("Lead export", "title"),)
    if book.simulated:
        words = "SIMULATED DATA: made by a program to show how this works. These people do not exist."
        yield ((words, "warning"),)
    yield ("What this is", "bold"), (f"The leads of the list, best first: {leads.chosen}.", "plain")
    yield ("List", "bold"), (book.list_name, "plain")
    yield ("Leads in this file", "bold"), (leads.tally.rows, "whole")
    yield ("Leads in the whole list", "bold"), (book.rows, "whole")
    yield ("Model version", "bold"), (book.model_version, "plain")
    yield ("Scored at (UTC)", "bold"), (f"{book.scored_at.astimezone(UTC):%Y-%m-%d %H:%M}", "plain")
    yield ("Version of the columns", "bold"), (SCHEMA_VERSION, "plain")
    yield ("Texts cut for Excel", "bold"), (leads.tally.cut, "whole")


def _grade_rows(leads: Leads) -> Iterator[_Cells]:
    tally = leads.tally
    yield _heading("Grades of the leads in this file")
    yield _header("Grade", "Leads", "Share of the leads", "Expected conversions")
    for grade, count in tally.grades.items():
        share = (count / max(tally.rows, 1), "share")
        yield (grade, "bold"), (count, "whole"), share, (tally.expected[grade], "amount")
    yield ("All", "bold"), (tally.rows, "whole"), (1.0, "share"), (sum(tally.expected.values()), "amount")
    yield (("Expected conversions are the sum of the leads' probabilities.", "plain"),)


def _change_rows(changes: Changes | None) -> Iterator[_Cells]:
    yield _heading("What changed since the export before, in the whole list")
    if changes is None:
        yield (("There is no export before this one to compare with.", "plain"),)
        return
    yield ((changes.in_words(), "plain"),)
    yield _header("Grade before", *(f"now {grade}" for grade in GRADES))
    for before in GRADES:
        yield ((before, "bold"), *((changes.moved[before, now], "whole") for now in GRADES))
    if changes.reasons:
        yield _header("Why scores moved", "Leads")
        yield from (((reason, "plain"), (count, "whole")) for reason, count in changes.reasons)


def _left_out_rows(leads: Leads) -> Iterator[_Cells]:
    out = leads.book.left_out
    yield _heading("Who was left out")
    yield ("No consent", "bold"), (out.no_consent, "whole"), ("They withheld consent to be scored.", "plain")
    yield ("Converted before", "bold"), (out.converted, "whole"), ("Customers already, no leads.", "plain")
    yield ("No score", "bold"), (out.unscored, "whole"), ("The model could not score them.", "plain")
    yield (
        ("Not chosen", "bold"),
        (leads.book.rows - leads.tally.rows, "whole"),
        ("Outside what was asked for.", "plain"),
    )


def _reason_rows(leads: Leads) -> Iterator[_Cells]:
    yield _heading("Commonest reasons for a lead in this file")
    yield _header("Reason", "Leads")
    yield from (((words, "bold"), (count, "whole")) for words, count in leads.tally.top_reasons(_REASONS_SHOWN))


def _column_rows(leads: Leads) -> Iterator[_Cells]:
    yield _heading("What the columns mean")
    yield _header("Column", "What it means")
    yield from (((column.name, "bold"), (column.meaning, "plain")) for column in leads.columns)
