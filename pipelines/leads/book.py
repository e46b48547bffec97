"""Making a lead book: scored parts in, one ranked file out, which knows the book before it.

What enters: scored tables of a whole list, a part at a time, with reasons. What leaves: one Parquet file under ``Home.leads``
in ``serving.leads.book.BOOK_SCHEMA``, followed by the list's own attributes. The promise: the same scores, log and books
before give the same bytes; a book is there whole or not at all; nobody who withheld consent is in it; and however long the
list, memory stays within ``MEMORY_LIMIT`` and a few row groups.

Parts are spilled to a file beside the books; DuckDB joins them with the book before and the profiles and sorts them, on
disk where they do not fit. A merged person's former id simply stops appearing. Profiles are as they were last told, also
in a book of an earlier moment. Of the log's ``subscribers`` the list's own attributes are taken, not ``created_at``,
``timezone`` and the consents, which are the contract's and say nothing of a lead.

A book takes the place of every other of exactly its moment, also of one by a higher version: what was exported last is what
is shown. It is compared with the latest of an earlier moment.

Exports wait for each other, and whoever forgets a person waits for them: what was scored before must not come back after.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from features.contract import SUBSCRIBER_COLUMNS
from features.errors import BundleMissing, StoreUnavailable, UnusableOption, Unwritable
from features.home import Home
from features.intake import literal, quoted
from features.log import EventLog
from pipelines.about import About, about_home
from pipelines.console import Share
from pipelines.leads.movement import MACROS, MOVED, WHY
from pipelines.score import GROUP_ROWS, gathered, scored_parts
from serving.leads.book import BOOK_SCHEMA, PROFILE, Book, LeftOut, before, book_id, books, open_book, same_moment
from serving.leads.columns import SCHEMA_VERSION

BOOKS_KEPT = 26
"""The newest; half a year of weekly exports."""
MEMORY_LIMIT = "1GB"
MOST_THREADS = 2
"""Each wants memory of its own: with eight, 3,000,000 leads did not fit in it."""
REASON_LIMIT = 3
"""Of each kind."""
AHEAD = timedelta(days=1)
"""So much after now and the log's end a book may be asked for: clocks and zones differ by less."""

_MAKING = ".making"
_SORTED_ROWS = 2_048
"""What DuckDB hands over is cut to so many rows each, so that row groups do not depend on its threads."""


def lead_book(home: Home, share: Share, scored_at: datetime | None = None) -> Book:
    """Score everybody with reasons and write the book of it.

    Parameters
    ----------
    scored_at
        Default: just after the log's end, so that a rerun writes the same book.

    Raises
    ------
    BundleMissing, EmptyLog, StoreUnavailable
        From the scoring.
    UnusableOption
        When ``scored_at`` is further in the future than any list needs, and from ``make_book``.
    Unwritable, BookUnreadable
        From ``make_book``.
    """
    if scored_at is not None:
        _refuse_future(home, scored_at)
    parts = scored_parts(home, lambda done: share(0.95 * done), scored_at, explain=True)
    book = make_book(home, parts, about_home(home))
    share(1.0)
    return book


def _refuse_future(home: Home, scored_at: datetime) -> None:
    """The book of a mistyped year would stay the newest until then; a simulated log may end in the future."""
    latest = max(EventLog(home).end(), datetime.now(UTC)) + AHEAD
    if scored_at > latest:
        raise UnusableOption(
            "--at",
            "that moment is more than a day ahead of both the clock and the log's end, and its leads would be shown as the "
            "newest until then. Give an earlier one, or leave it out. Nothing was written.",
        )


def make_book(home: Home, parts: Iterable[pa.Table], about: About) -> Book:
    """Rank scored parts and write them as the book of their moment; any other of that moment is replaced.

    Parameters
    ----------
    parts
        Scored tables of one scorer and one moment, each subscriber once. They are asked for when it is this book's turn.

    Raises
    ------
    BundleMissing
        When they hold no lead score.
    UnusableOption
        When nobody is left to export. Nothing is written then.
    StoreUnavailable
        When they are all strangers: everybody's score would be the list's average.
    Unwritable
        When the disk does not take it; the books are as they were.
    BookUnreadable
        When the book before cannot be read.
    """
    with alone(home), _workroom(home) as room:
        spilled = _spilled(home, parts, room / "scored.parquet")
        made = _ranked(home, spilled, about, room / "book.parquet")
        path = home.leads / f"{spilled.book_id}.parquet"
        _publish(made, path, [old for old in same_moment(home, path.stem) if old != path])
        for old in books(home)[:-BOOKS_KEPT]:
            if old != path:
                old.unlink(missing_ok=True)
        return open_book(path)


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Nobody else writes or rewrites a book meanwhile; the lock goes with the process that holds it.

    Raises
    ------
    Unwritable
    """
    try:
        home.var.mkdir(parents=True, exist_ok=True)
        lock = (home.var / "leads.lock").open("w")
    except OSError as error:
        raise Unwritable(home.var, error.strerror or "the disk does not take it") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Left by one that was killed.
        shutil.rmtree(home.leads / _MAKING, ignore_errors=True)
        yield


def scan(path: Path) -> str:
    """SQL of all rows of a Parquet file, wherever it lies: DuckDB would take some paths for patterns."""
    return f"select * from read_parquet({literal(glob.escape(str(path)))}, hive_partitioning = false)"


@contextmanager
def _workroom(home: Home) -> Iterator[Path]:
    """A directory on the books' own disk for what is not whole yet."""
    room = home.leads / _MAKING
    try:
        room.mkdir(parents=True)
        yield room
    except OSError as error:
        raise Unwritable(home.leads, error.strerror or "the disk does not take it") from error
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise Unwritable(home.leads, "there is too little room on the disk, or memory, to sort the leads") from error
    finally:
        shutil.rmtree(room, ignore_errors=True)


@dataclass(frozen=True)
class _Spilled:
    """All parts in one file, in the order they came."""

    path: Path
    columns: frozenset[str]
    scored_at: datetime
    model_version: str

    @property
    def book_id(self) -> str:
        return book_id(self.scored_at, self.model_version)


def _spilled(home: Home, parts: Iterable[pa.Table], path: Path) -> _Spilled:
    groups = gathered(parts)
    first = next(groups, None)
    if first is None or first.num_rows == 0:
        raise _nobody(0, LeftOut())
    if "lead_score_score" not in first.column_names:
        raise BundleMissing(home.bundles / "lead_score")
    with pq.ParquetWriter(path, first.schema, compression="lz4") as writer:
        for group in chain([first], groups):
            writer.write_table(group)
    moment, version = first["scored_at"][0].as_py(), first["lead_score_model_version"][0].as_py()
    return _Spilled(path, frozenset(first.column_names), moment, version)


def _ranked(home: Home, spilled: _Spilled, about: About, out: Path) -> Path:
    con = EventLog(home).connect(MEMORY_LIMIT)
    try:
        con.raw_sql(f"SET threads = {MOST_THREADS}")
        left_out = _lay_leads(con, spilled)
        earlier = before(home, spilled.book_id)
        gone = _lay_earlier(con, earlier)
        attributes = _attributes(con)
        schema = _schema(con, attributes).with_metadata(_facts(spilled, about, earlier, gone, left_out))
        _lay_standings(con, attributes, compared=earlier is not None, room=out.parent)
        rows = con.con.sql(_RANKED).to_arrow_reader(_SORTED_ROWS)
        with pq.ParquetWriter(out, schema, compression="zstd") as writer:
            for group in gathered(_numbered(_evenly(rows), schema)):
                writer.write_table(group.combine_chunks(), row_group_size=GROUP_ROWS)
    finally:
        con.disconnect()
    return out


# --- what is laid out for the ranking


def _lay_leads(con: ibis.BaseBackend, spilled: _Spilled) -> LeftOut:
    """Make ``leads``, those who may be exported; count the others, each once.

    Raises
    ------
    UnusableOption
        When there is nobody.
    StoreUnavailable
        When all are strangers to the store.
    """
    for macro in MACROS:
        con.raw_sql(macro)
    # Who refused is asked of the log, too: of somebody who is not in the store yet, the scores do not know it.
    con.raw_sql(f"""create temp view judged as select *, case
        when status = 'no_consent' or subscriber_id in (
            select subscriber_id from subscribers where not consent_profiling
        ) then 'no_consent'
        when {_or_null(spilled, "lead_score_converted", "boolean")} then 'converted'
        when coalesce(isfinite(lead_score_probability), false) and lead_score_score is not null then 'lead'
        else 'unscored' end as standing
    from ({scan(spilled.path)})""")
    con.raw_sql(f"create temp view leads as select {_lead_columns(spilled)} from judged where standing = 'lead'")
    counted = dict(con.raw_sql("select standing, count(*) from judged group by standing").fetchall())
    leads = counted.pop("lead", 0)
    left_out = LeftOut(**counted)
    if not leads:
        raise _nobody(left_out.total, left_out)
    ((known,),) = con.raw_sql("select count(*) from leads where status <> 'prior'").fetchall()
    if not known:
        raise StoreUnavailable("nobody's state is in it; `inbox materialize` fills it")
    return left_out


def _nobody(scored: int, left_out: LeftOut) -> UnusableOption:
    return UnusableOption(
        "export leads",
        f"there is no lead to export: of {scored:,} scored, {left_out.no_consent:,} withheld consent, "
        f"{left_out.converted:,} converted before and {left_out.unscored:,} have no lead score. Nothing was written.",
    )


def _or_null(spilled: _Spilled, column: str, type: str) -> str:
    """A column of the scores; null where its model is not in service."""
    return column if column in spilled.columns else f"null::{type}"


def _lead_columns(spilled: _Spilled) -> str:
    """SQL of a book's own columns but the rank and what compares, and of all reasons as ``words``."""
    reasons = _or_null(spilled, "lead_score_reasons", "varchar[]")
    columns = {
        "subscriber_id": "subscriber_id",
        "score": "lead_score_score",
        "grade": "lead_score_grade",
        "probability": "lead_score_probability",
        "percentile": "lead_score_percentile",
        "reasons_for": _pointing("↑", reasons),
        "reasons_against": _pointing("↓", reasons),
        "words": f"list_transform({reasons}, lambda said: substr(said, 3))",
        "churn_band": _or_null(spilled, "churn_band", "varchar"),
        "churn_probability": _or_null(spilled, "churn_probability", "double"),
        "churn_reasons": _or_null(spilled, "churn_reasons", "varchar[]"),
        "recommended_send_at": _or_null(spilled, "send_time_send_at", "timestamptz"),
        "send_time_confident": _or_null(spilled, "send_time_confident", "boolean"),
        "send_time_gain": _or_null(spilled, "send_time_gain", "double"),
        "last_engagement_at": "last_engagement_at",
        "data_age_hours": "case when isfinite(feature_age_s) then round(feature_age_s / 3600, 2) end",
        "status": "status",
        "model_version": "lead_score_model_version",
        "scored_at": "scored_at",
    }
    return ", ".join(f"{source} as {name}" for name, source in columns.items())


def _pointing(arrow: str, reasons: str) -> str:
    """SQL of the reasons that push one way, without their arrow; see ``models.reasons.Reason``."""
    pointing = f"list_filter({reasons}, lambda said: starts_with(said, '{arrow} '))[1:{REASON_LIMIT}]"
    return f"list_transform({pointing}, lambda said: substr(said, 3))"


def _lay_earlier(con: ibis.BaseBackend, earlier: Path | None) -> int:
    """Make ``earlier``, the book before as far as it is compared; how many of it are no leads any more."""
    if earlier is None:
        return 0
    open_book(earlier)
    con.raw_sql(f"""create temp view earlier as
        select subscriber_id, score, grade, model_version, last_engagement_at,
            list_concat(coalesce(reasons_for, []), coalesce(reasons_against, [])) as words
        from ({scan(earlier)})""")
    ((gone,),) = con.raw_sql("select count(*) from earlier anti join leads using (subscriber_id)").fetchall()
    return int(gone)


def _attributes(con: ibis.BaseBackend) -> list[str]:
    return [name for name in con.table("subscribers").columns if name not in SUBSCRIBER_COLUMNS]


# --- the book itself


def _lay_standings(con: ibis.BaseBackend, attributes: Sequence[str], compared: bool, room: Path) -> None:
    """Make ``standings``, all rows in the book's columns but the rank.

    One join at a time, each into a file: two of them and the sorting together want more memory than they are given.
    """
    compares = {"score_before": "was.score", "grade_before": "was.grade", "score_change": "lead.score - was.score"}
    compares |= {"movement": MOVED, "change_reason": WHY}
    own = (name for name in BOOK_SCHEMA.names if name != "rank")
    columns = [_compared(compares[name], compared, name) if name in compares else f"lead.{name}" for name in own]
    earlier = "left join earlier as was using (subscriber_id)" if compared else ""
    _lay(con, "compared", f"select {', '.join(columns)} from leads as lead {earlier}", room)
    profiles = (f"{quoted(name)} as {quoted(PROFILE + name)}" for name in attributes)
    people = f"select {', '.join(['subscriber_id', *profiles])} from subscribers"
    _lay(con, "standings", f"select * from compared left join ({people}) using (subscriber_id)", room)
    # What it takes is the sorting's now.
    con.raw_sql("drop table subscribers")


_RANKED = "select * from standings order by score desc, probability desc, subscriber_id"


def _lay(con: ibis.BaseBackend, name: str, rows: str, room: Path) -> None:
    path = room / f"{name}.parquet"
    con.raw_sql(f"copy ({rows}) to {literal(str(path))} (format parquet, compression lz4)")
    con.raw_sql(f"create temp view {name} as {scan(path)}")


def _compared(expression: str, compared: bool, name: str) -> str:
    return f"{expression if compared else 'null'} as {name}"


def _schema(con: ibis.BaseBackend, attributes: Sequence[str]) -> pa.Schema:
    told = con.con.sql("select * from subscribers limit 0").to_arrow_table().schema
    return pa.schema([*BOOK_SCHEMA, *(pa.field(PROFILE + name, told.field(name).type) for name in attributes)])


def _facts(spilled: _Spilled, about: About, earlier: Path | None, gone: int, left_out: LeftOut) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "inbox.book_id": spilled.book_id,
        "inbox.schema_version": SCHEMA_VERSION,
        "inbox.scored_at": spilled.scored_at.isoformat(),
        "inbox.model_version": spilled.model_version,
        "inbox.list_name": about.name,
        "inbox.simulated": str(about.simulated).lower(),
        "inbox.previous_book_id": earlier.stem if earlier else "",
        "inbox.gone": str(gone),
        "inbox.left_out_no_consent": str(left_out.no_consent),
        "inbox.left_out_converted": str(left_out.converted),
        "inbox.left_out_unscored": str(left_out.unscored),
    }


def _evenly(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows, the same number in each table but the last."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.num_rows for one in held) >= _SORTED_ROWS:
            whole = pa.Table.from_batches(held)
            yield whole.slice(0, _SORTED_ROWS)
            held = whole.slice(_SORTED_ROWS).to_batches()
    if held:
        yield pa.Table.from_batches(held)


def _numbered(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """With each row's rank, in the book's schema."""
    done = 0
    for table in tables:
        ranks = pa.array(range(done + 1, done + 1 + table.num_rows), pa.int32())
        done += table.num_rows
        yield table.add_column(0, "rank", ranks).cast(schema)


def _publish(made: Path, path: Path, replaced: Iterable[Path]) -> None:
    """Give a written book its name in one step; it reaches the disk before its name does, and only then others go."""
    for each in (made, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if each == made:
            made.replace(path)
            for other in replaced:
                other.unlink(missing_ok=True)
