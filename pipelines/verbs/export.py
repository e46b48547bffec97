"""`inbox export`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from features.clock import parse_instant
from features.errors import UnusableOption
from features.home import Home
from pipelines.console import Narrator
from pipelines.leads.book import lead_book
from pipelines.leads.changes import changes_of
from pipelines.leads.files import FORMATS, NAMES, ExportFormat, ExportSummary, write_leads
from pipelines.leads.selection import Selection, chosen, refuse_nothing
from pipelines.leads.xlsx import EXCEL_ROW_LIMIT
from pipelines.report.gather import make_report
from pipelines.verbs.options import HERE, HomeOption, home_at
from serving.leads.book import Book

DEFAULT_FORMATS: tuple[ExportFormat, ...] = ("csv", "xlsx", "parquet")


@dataclass(frozen=True)
class Asked:
    """What was asked of an export. ``formats`` are the given ones, none unless given."""

    home: Home
    narrator: Narrator
    formats: tuple[ExportFormat, ...]
    selection: Selection
    out: Path | None
    at: datetime | None


def command(
    what: Annotated[
        str, typer.Argument(help="`leads`: the files of lead scores; `report`: the page about them.")
    ] = "leads",
    format: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(FORMATS)}; {', '.join(DEFAULT_FORMATS)} unless given. Repeatable."),
    ] = None,
    grade: Annotated[list[str] | None, typer.Option(help="Only leads of these grades, like A,B.")] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE: only leads with this value of an attribute of the list, or of churn_band or movement. "
            "Repeatable: any value of one name, all of several names."
        ),
    ] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only leads whose score or grade changed since the export before, or new.")
    ] = False,
    top: Annotated[int | None, typer.Option(min=1, help="Only the best so many.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory, var/exports unless given; of the report the file.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Score as of this instant; just after the log's end unless given.")
    ] = None,
    home: HomeOption = HERE,
) -> None:
    """Score everybody and write the leads, best first, with grades, reasons and what changed since the export before.

    The whole list is scored and kept under var/leads, whatever part of it is written; the service's page /leads shows it. The
    same list gives the same files.

    Example: [bold]inbox export leads --format xlsx --out exports[/]

    Example: [bold]inbox export leads --format hubspot --grade A,B --segment country=DE --changed[/]

    The report is one page about the newest of these lead books; it scores nothing anew.

    Example: [bold]inbox export report --out report.html[/]
    """
    if what not in EXPORTS:
        raise UnusableOption(
            "export", f"{what!r} is not known; {' and '.join(f'`inbox export {one}`' for one in EXPORTS)} are"
        )
    selection = chosen(grade or (), segment or (), changed, top)
    moment = parse_instant(at, "--at") if at else None
    EXPORTS[what](Asked(home_at(home), Narrator(), _formats(format), selection, out, moment))


def _formats(asked: Sequence[str] | None) -> tuple[ExportFormat, ...]:
    unknown = sorted(set(asked or ()) - set(FORMATS))
    if unknown:
        raise UnusableOption("--format", f"{unknown[0]!r} is not known; there are {', '.join(FORMATS)}")
    return tuple(format for format in FORMATS if format in (asked or ()))


def _leads(asked: Asked) -> None:
    narrator, directory = asked.narrator, asked.out or asked.home.exports
    with narrator.step("score with reasons, rank and compare") as share:
        book = lead_book(asked.home, share, asked.at)
    rows = refuse_nothing(book, asked.selection)
    for format in asked.formats or _that_hold(rows, narrator):
        with narrator.step(f"write {format}"):
            summary = write_leads(book, asked.selection, directory / NAMES[format], format)
        narrator.say(f"  {summary.path}: {_said(summary)}")
    narrator.say(_conclusion(book, asked.selection, summary))


def _that_hold(rows: int, narrator: Narrator) -> tuple[ExportFormat, ...]:
    """The usual formats, as far as so many leads fit in them."""
    if rows < EXCEL_ROW_LIMIT:
        return DEFAULT_FORMATS
    narrator.say(f"  [yellow]mind[/]: no xlsx, for a sheet of Excel does not hold {rows:,} leads; --top cuts them")
    return tuple(format for format in DEFAULT_FORMATS if format != "xlsx")


def _said(summary: ExportSummary) -> str:
    said = f"{summary.rows:,} leads"
    if summary.cut_texts:
        said += f", {summary.cut_texts:,} values cut or left empty, because {summary.format} holds no more"
    if summary.unkeyed:
        said += f"; {summary.unkeyed:,} left out, whose identifier is longer than {summary.format} takes"
    return said


def _conclusion(book: Book, selection: Selection, summary: ExportSummary) -> str:
    """How many, which, what changed and who is not there, in one line."""
    rows = sum(summary.grades.values())
    some = "" if selection == Selection() else f" of {book.rows:,}: {selection}"
    grades = ", ".join(f"{grade} {count:,}" for grade, count in summary.grades.items())
    changes, out = changes_of(book), book.left_out
    moved = changes.in_words() if changes else "no export before to compare with"
    return (
        f"Exported {rows:,} leads{some} ({grades}); {moved}; left out: {out.no_consent:,} without consent, "
        f"{out.converted:,} converted before, {out.unscored:,} without a score."
    )


def _report(asked: Asked) -> None:
    if asked.formats or asked.selection != Selection() or asked.at is not None:
        raise UnusableOption(
            "export report", "knows only --out FILE and --home: it tells of everybody in the newest lead book"
        )
    path = make_report(asked.home, asked.narrator, asked.out)
    asked.narrator.say(
        f"Wrote {path}, {path.stat().st_size:,} bytes: open it in any browser, nothing is loaded from anywhere."
    )


EXPORTS: Mapping[str, Callable[[Asked], None]] = {"leads": _leads, "report": _report}
"""What can be exported, and what does it."""
