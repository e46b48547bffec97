"""Leads as files: one door for every format.

What enters: a lead book and which of its leads are wanted. What leaves: a file, or a directory ready to be imported, and a
summary of what is in it. The promise: the same book and selection give the same bytes, memory does not grow with the
list, nobody who withheld consent is in it, and the file is either whole or not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from features.errors import UnusableOption
from pipelines.files import replacing, replacing_directory
from pipelines.leads import hubspot, salesforce
from pipelines.leads.csv_file import write_csv
from pipelines.leads.parquet import write_parquet
from pipelines.leads.selection import Selection, batches, refuse_nothing
from pipelines.leads.tally import Leads, Tally
from pipelines.leads.xlsx import write_xlsx
from serving.leads.book import Book

ExportFormat = Literal["csv", "xlsx", "parquet", "hubspot", "salesforce"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
NAMES: dict[str, str] = {
    "csv": "leads.csv",
    "xlsx": "leads.xlsx",
    "parquet": "leads.parquet",
    "hubspot": "hubspot",
    "salesforce": "salesforce",
}
"""What each format's file or directory is called."""

_FILES: dict[str, Callable[[Leads, Path], None]] = {"csv": write_csv, "xlsx": write_xlsx, "parquet": write_parquet}
_DIRECTORIES: dict[str, tuple[Callable[[Leads, Path], None], str]] = {
    "hubspot": (hubspot.write_hubspot, hubspot.FILES),
    "salesforce": (salesforce.write_salesforce, salesforce.FILES),
}


@dataclass(frozen=True)
class ExportSummary:
    """What an export holds. ``grades`` always names all five, best first.

    ``cut_texts`` counts the texts cut, and the numbers left empty, because the format holds no more; ``unkeyed`` the leads
    left out because their identifier is longer than the format's. CSV and Parquet cut nothing.
    """

    path: Path
    format: ExportFormat
    rows: int
    grades: dict[str, int]
    expected_conversions: float
    cut_texts: int
    unkeyed: int


def write_leads(book: Book, selection: Selection, out: Path, format: ExportFormat) -> ExportSummary:
    """Write leads of a book, best first, and say what was written.

    Parameters
    ----------
    out
        The file, or for ``hubspot`` and ``salesforce`` the directory, to write or replace; where it is to be is made.

    Raises
    ------
    UnusableOption
        When the format is unknown, there is no lead to export, the leads are more than the format holds, or the files
        cannot be written. In each case what was at ``out`` before is still there.
    """
    if format not in FORMATS:
        raise UnusableOption("--format", f"{format!r} is not one of {', '.join(FORMATS)}.")
    rows = refuse_nothing(book, selection)
    leads = Leads(book, batches(book, selection), str(selection), rows)
    _write(leads, out, format)
    return _summary(leads.tally, out, format)


def _write(leads: Leads, out: Path, format: ExportFormat) -> None:
    if format in _FILES:
        with replacing(out) as beside:
            _FILES[format](leads, beside)
        return
    write, ours = _DIRECTORIES[format]
    with replacing_directory(out, ours) as beside:
        write(leads, beside)


def _summary(tally: Tally, out: Path, format: ExportFormat) -> ExportSummary:
    return ExportSummary(
        path=out,
        format=format,
        rows=tally.rows,
        grades=tally.grades,
        expected_conversions=sum(tally.expected.values()),
        cut_texts=tally.cut,
        unkeyed=tally.unkeyed,
    )
