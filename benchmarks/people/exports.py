"""A long list's lead book and every format made from it, beside what pandas takes for the same rows.

What enters: a ``Bench``. What leaves: rows a second and peak memory of each. The promise: every contender is a process of
its own on the same book, one after the other, and both leave a file with every row in it; what pandas needs to read the
book is not counted, its frame is, because it cannot write without one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

from benchmarks.people.aside import Account, Took, aside
from benchmarks.people.bench import Bench
from benchmarks.people.lists import long_home, parts, scored
from benchmarks.report import Measured
from features.home import Home
from pipelines.about import about_home
from pipelines.leads.book import make_book
from pipelines.leads.files import NAMES, ExportFormat, write_leads
from pipelines.leads.selection import Selection
from serving.leads.book import newest, open_book

LEADS, FEW_LEADS = 1_000_000, 50_000
BESIDE = {"csv": "to_csv", "parquet": "to_parquet", "xlsx": "to_excel"}
"""What pandas calls the same."""
ROUNDS = {"csv": 3, "parquet": 3, "xlsx": 1, "hubspot": 1, "salesforce": 1}
"""Of a million leads; a workbook takes minutes."""


def exports(bench: Bench) -> Measured:
    """Rows a second and memory, of the book and of each format."""
    leads = FEW_LEADS if bench.quick else LEADS
    measured = Measured("exports", f"Exports of {leads:,} leads")
    home = long_home(bench.home, bench.work / "exports", leads, bench.narrator)
    source = bench.work / "scored.parquet"
    scored(bench.home, bench.work, bench.narrator)
    _books(bench, measured, home, source, leads)
    book = newest(home)
    if book is None:
        raise RuntimeError("no book was made")
    measured.facts |= {"leads": book.rows, "book_mb": book.path.stat().st_size / 2**20, "columns": len(book.schema)}
    for format in NAMES:
        _format(bench, measured, cast(ExportFormat, format), book.path, book.rows)
        # Of a million leads all files together are larger than a gigabyte.
        shutil.rmtree(bench.work / "out")
    return measured


def _books(bench: Bench, measured: Measured, home: Home, source: Path, leads: int) -> None:
    """The first book, and one that is compared with it."""
    for day, words in enumerate(("book, the first", "book, compared with the one before")):
        with bench.narrator.step(words):
            took = aside(f"{__name__}:book", home=str(home.root), scored=str(source), leads=leads, day=day)
        _note(measured, words, leads, [took])


def book(account: Account, home: str, scored: str, leads: int, day: int) -> None:
    """Run aside: scored parts to a book. Making the parts, which is not ours, is part of it: under a second."""
    place = Home(Path(home))
    table = pq.read_table(scored)
    with account.measured():
        made = make_book(place, parts(table, leads, day), about_home(place))
    account.facts["rows"] = made.rows


def _format(bench: Bench, measured: Measured, format: ExportFormat, book: Path, rows: int) -> None:
    out = bench.work / "out"
    out.mkdir(exist_ok=True)
    ours, theirs = list[Took](), list[Took]()
    with bench.narrator.step(f"{format}, {rows:,} leads") as share:
        rounds = bench.rounds if bench.quick else ROUNDS[format]
        for number in range(rounds):
            ours.append(aside(f"{__name__}:ours", book=str(book), out=str(out / NAMES[format]), format=format))
            if format in BESIDE:
                work = f"benchmarks.people.frames:{BESIDE[format]}"
                theirs.append(aside(work, book=str(book), out=str(out / f"pandas.{format}")))
            share((number + 1) / rounds)
    _note(measured, format, rows, ours)
    if theirs:
        _beside(measured, format, rows, ours, theirs)


def ours(account: Account, book: str, out: str, format: ExportFormat) -> None:
    """Run aside: one format of everybody."""
    opened, target = open_book(Path(book)), Path(out)
    with account.measured():
        summary = write_leads(opened, Selection(), target, format)
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    account.facts |= {"rows": summary.rows, "file_mb": size / 2**20, "files": len(files)}


def _note(measured: Measured, words: str, rows: int, took: Sequence[Took]) -> None:
    for one in took:
        if one.facts["rows"] > rows or one.facts["rows"] < 0.5 * rows:
            raise RuntimeError(f"{words}: {one.facts['rows']:,} of {rows:,} rows were written")
    measured.add(f"{words}", [rows / one.seconds for one in took], "rows/s")
    measured.add(f"{words}, peak memory", [one.peak_mb for one in took], "MB")
    measured.add(f"{words}, of that there before it began", [one.before_mb for one in took], "MB")
    measured.facts[words] = [_facts(one) for one in took]


def _beside(measured: Measured, format: str, rows: int, ours: Sequence[Took], theirs: Sequence[Took]) -> None:
    words = f"pandas {BESIDE[format]}"
    _note(measured, words, rows, theirs)
    measured.add(f"{words}, of that the frame", [one.facts["frame_mb"] for one in theirs], "MB")
    measured.ratio(f"{format}, times as fast as pandas", *_seconds(theirs, ours))
    measured.ratio(f"{format}, peak memory over pandas'", [o.peak_mb for o in ours], [t.peak_mb for t in theirs])


def _seconds(over: Sequence[Took], under: Sequence[Took]) -> tuple[list[float], list[float]]:
    return [one.seconds for one in over], [one.seconds for one in under]


def _facts(took: Took) -> dict[str, Any]:
    return {"seconds": took.seconds, "before_mb": took.before_mb, "peak_mb": took.peak_mb} | took.facts
