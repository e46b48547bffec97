"""The event log of one installation: what was taken in, once, and how to ask about it.

What enters: files in the input contract, and events checked elsewhere. What leaves: a connection with the log's tables.
The promise: an event is in the log once and as it was first told, for ever or until its person is forgotten; taking the
same in twice changes nothing; a crash at any moment leaves a log that opens and that the same again completes.

On disk: ``events/*.parquet``, each written once under the hash of its content, and anew only to forget somebody;
``subscribers.parquet`` and ``campaigns.parquet``, replaced in one step; ``merges.db``, who is whom and who is forgotten;
the quarantine, one file per file that held bad rows and per step of a drain.

A log larger than memory is worked on in parts: whatever is asked about a subscriber needs nobody else's events, so
``EventLog.cut`` lays the log out on disk by subscriber, once, and each part is opened by itself.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from features.contract import EVENT_SCHEMA
from features.errors import EmptyLog, UnreadableFile, Unwritable
from features.home import Home
from features.intake import (
    CAMPAIGNS,
    EVENTS,
    SUBSCRIBERS,
    Contract,
    Progress,
    Reading,
    Staged,
    literal,
    quoted,
    stage,
    workshop,
)
from features.merges import DIGEST_LENGTH, FORGOTTEN, Merges, names_any

ROW_GROUP_ROWS = 122_880
_BESIDE = "incoming.tmp"
"""What is being written; nothing reads it."""
READING_SHARE = 0.9
"""Of the work of an ingest; the rest is sorting and writing."""

_LAYOUT = "(format parquet, compression lz4)"
"""Of files that live as long as one run."""
_CONSENTS = tuple(name for name, kind in SUBSCRIBERS.kinds.items() if kind == "consent")
CUT_BY = f"DuckDB {duckdb.__version__}"
"""Whose hash it is: another version may put people elsewhere. One that lasts, MD5, takes as long as the cut itself."""
MOST_THREADS = 8
"""Of a connection whose memory is bounded: by its own rule of thumb DuckDB needs 125 MB for each."""

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
    ]
)


_ORDER = {"events": "received_at, event_id", "subscribers": "subscriber_id", "campaigns": "campaign_id"}
"""Of a file's rows."""
_NEW = """
create temp table new as
select * from given anti join known using (event_id)
qualify row_number() over (partition by event_id order by received_at) = 1
"""


@dataclass(frozen=True)
class IntakeReport:
    """What became of every row of the files given: the five counts add up to all rows."""

    accepted: int
    """Events new to the log."""
    repeated: int
    """Rows of any table that say what an earlier row of the file, or for events of the log, said already."""
    quarantined: int
    """Rows of any table with a fault; ``reasons`` says how many of which."""
    reasons: dict[str, int]
    notes: tuple[str, ...]
    subscribers: int
    campaigns: int

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"{self.accepted:,} new events, {self.subscribers:,} subscribers and {self.campaigns:,} campaigns "
            f"taken in; {self.repeated:,} rows repeated, {self.quarantined:,} quarantined"
        )


def combined(reports: Sequence[IntakeReport]) -> IntakeReport:
    """What several reports say together."""
    counts = ("accepted", "repeated", "quarantined", "subscribers", "campaigns")
    return IntakeReport(
        reasons=dict(sum((Counter(report.reasons) for report in reports), Counter())),
        notes=tuple(note for report in reports for note in report.notes),
        **{name: sum(getattr(report, name) for report in reports) for name in counts},
    )


@dataclass(frozen=True)
class Removed:
    """Rows removed of people to be forgotten."""

    events: int
    profiles: int
    quarantined: int


@dataclass(frozen=True)
class PartSize:
    """How much of a log makes a part, about. Whichever of the two gives more parts counts."""

    subscribers: int = 20_000
    events: int = 2_000_000

    def parts(self, con: ibis.BaseBackend) -> int:
        """How many parts the log behind a connection makes; at least one."""
        subscribers, events = (_count(con, table) for table in ("subscribers", "events"))
        return max(1, -(-subscribers // self.subscribers), -(-events // self.events))


@dataclass(frozen=True)
class Cut:
    """A log laid out on disk by part. Who is in which part depends on the id, the number of parts and ``CUT_BY``."""

    directory: Path
    memory_limit: str

    @contextmanager
    def connect(self, part: int) -> Iterator[ibis.BaseBackend]:
        """A part as ``EventLog.connect`` gives the whole; closed afterwards."""
        con = _connection(self.directory, self.memory_limit)
        try:
            con.raw_sql(f"create view events as {self._rows('events', part)}")
            con.raw_sql(f"create table subscribers as {self._rows('subscribers', part)}")
            con.raw_sql(f"create view campaigns as {_scan([self.directory / 'campaigns.parquet'])}")
            yield con
        finally:
            con.disconnect()

    def _rows(self, table: str, part: int) -> str:
        return f"select row.* from ({_scan([self.directory / f'{table}.parquet'])}) where part = {part}"


class EventLog:
    """The log under one home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._merges = Merges(home)

    def append(
        self,
        events: Path | None,
        subscribers: Path | None,
        campaigns: Path | None,
        progress: Progress | None = None,
        readings: Mapping[str, Reading] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> IntakeReport:
        """Take files (or directories of them) in. All are checked before anything is changed.

        An event known already is repeated, or quarantined where it now says something else. A row of a subscriber or
        campaign replaces that one's earlier row; columns the new file does not have keep what they held.

        Parameters
        ----------
        readings
            By table, how to read its files where they do not speak for themselves.
        aliases
            Former ids of people in the files, and their ids now; looked at when all is read, so that reading may fill it.

        Raises
        ------
        UnreadableFile, MissingColumns, WrongColumnType, EmptyInput
            When a whole file is at fault; then nothing was changed.
        Unwritable
            When the disk does not take it; ingesting again completes it.
        """
        given = [(EVENTS, events), (SUBSCRIBERS, subscribers), (CAMPAIGNS, campaigns)]
        asked = [(contract, path) for contract, path in given if path is not None]
        shares = _shares([path for _, path in asked], progress)
        with self._locked(), workshop() as con:
            staged = [
                self._stage(con, contract, path, share, (readings or {}).get(contract.table))
                for (contract, path), share in zip(asked, shares, strict=True)
            ]
            # Before anybody is looked for among the forgotten: under an older key's id they may be.
            self._merges.alias(aliases or {})
            staged = [self._sifted(con, one) for one in staged]
            for one in staged:
                self._keep(con, one)
                self._quarantine(con, one)
        if progress:
            progress(1.0)
        return self._report(staged)

    def take(self, events: pa.Table, quarantined: pa.Table | None = None) -> IntakeReport:
        """Take checked events in, in ``contract.EVENT_SCHEMA``; one that is known by its id is a repeat.

        Parameters
        ----------
        quarantined
            What could not be read, in ``QUARANTINE_SCHEMA``; the same rows again are written once.
        """
        unread = QUARANTINE_SCHEMA.empty_table() if quarantined is None else quarantined
        with self._locked(), workshop() as con:
            con.register("given", events)
            with self._reading():
                con.execute(f"create temp view known as {_scan_events(self._event_files())}")
                con.execute(_NEW)
            gone = self._sift(con, EVENTS, "new")
            taken = _rows_in(con, "events_kept")
            if taken:
                self._add(con)
            self._put_aside(con, unread)
        reasons = Counter(unread["reason"].to_pylist()) + Counter({FORGOTTEN: gone})
        return IntakeReport(taken, len(events) - taken - gone, len(unread) + gone, dict(reasons), (), 0, 0)

    def forget(self, subscriber_ids: Collection[str]) -> Removed:
        """Remove all rows about some people. Each file is written anew under its name, in one step.

        Killed at any moment, every file is as it was or without them, and forgetting again does the rest.
        """
        asked = sorted(subscriber_ids)
        with self._locked(), self._reading(), workshop() as con:
            self._sweep()
            con.register("asked", pa.table({"subscriber_id": pa.array(asked, pa.string())}))
            profiles = self._file(SUBSCRIBERS)
            events = sum(_rewritten(con, path, _ORDER["events"]) for path in self._event_files())
            told = _rewritten(con, profiles, _ORDER["subscribers"]) if profiles.exists() else 0
            aside = sum(_without(path, asked) for path in sorted(self.home.quarantine.glob("*.parquet")))
        return Removed(events, told, aside)

    def puts_aside(self, subscriber_ids: Collection[str]) -> bool:
        """Whether the quarantine has rows that may be about some people."""
        files = sorted(self.home.quarantine.glob("*.parquet"))
        with self._reading():
            return any(any(_naming(pq.read_table(path), subscriber_ids)) for path in files)

    def _sweep(self) -> None:
        """Remove what killed processes left half-written."""
        for directory in (self.home.event_log / "events", self.home.event_log, self.home.quarantine):
            (directory / _BESIDE).unlink(missing_ok=True)
        # Whoever works with the parts of a cut removes them.
        with (self.home.var / "parts.lock").open("w") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.home.var / "spill" / "parts", ignore_errors=True)

    def connect(self, memory_limit: str | None = None, only: Collection[str] | None = None) -> ibis.BaseBackend:
        """An in-memory DuckDB behind Ibis with ``events``, ``subscribers`` and ``campaigns``, all typed.

        The three are the log as it is now, whatever is appended later. Whoever has events but no row in
        ``subscribers.parquet`` is in ``subscribers`` too, created when first heard of and otherwise unknown. Events
        stay in their files, which change only to forget somebody.

        Parameters
        ----------
        memory_limit
            Such as ``2GB``: what does not fit goes to ``var/spill``. Most of the machine's memory unless given.
        only
            Subscribers: nobody else is there, and their events are held in memory.

        Raises
        ------
        EmptyLog
            When there is neither an event nor a subscriber.
        """
        self._refuse_empty()
        con = _connection(self.home.var / "spill", memory_limit)
        with self._reading():
            self._lay_tables(con, only)
        return con

    @contextmanager
    def cut(self, con: ibis.BaseBackend, parts: int, wanted: Collection[int], memory_limit: str) -> Iterator[Cut]:
        """What is behind a connection of ``connect``, laid out by part under ``var/spill`` and removed afterwards.

        The connection is closed as soon as all is laid out: what it holds in memory is needed no more.

        Weighed: one pass that sorts, against DuckDB's ``PARTITION_BY``. Both stay in their memory and take as long, with 1
        GB and 5 million events 4.9 and 4.4 s into 3 parts, 3.2 and 3.1 s into 500; but partitioning keeps a file open
        for each part. Reading the log once per part takes a time that grows with the square of the list.

        Parameters
        ----------
        wanted
            The parts that will be asked for, at least one.
        memory_limit
            Of each part's connection.
        """
        directory = self.home.var / "spill" / "parts"
        with (self.home.var / "parts.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            # Left by a process that was killed.
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            try:
                with self._reading():
                    _lay_out(con, directory, parts, wanted)
                con.disconnect()
                yield Cut(directory, memory_limit)
            finally:
                shutil.rmtree(directory)

    def start(self) -> datetime:
        """When the log first heard of anything: its earliest ``received_at``; without events, ``created_at``."""
        return self._bound("min")

    def end(self) -> datetime:
        """When the log last heard of anything: its latest ``received_at``; without events, ``created_at``."""
        return self._bound("max")

    def last_before(self, before_us: int) -> int | None:
        """When the last event was received that was received before an instant, in microseconds since 1970 UTC."""
        files = self._event_files()
        if not files:
            return None
        asked = f"select epoch_us(max(received_at)) from ({_scan(files)}) where received_at < make_timestamptz($1)"
        with self._reading(), duckdb.connect() as con:
            (row,) = con.execute(asked, [before_us]).fetchall()
        return None if row[0] is None else int(row[0])

    def fingerprint(self) -> str:
        """Sha256 (hex) over name, size and content of every file of the log and the merges; not over the quarantine."""
        self._refuse_empty()
        whole = hashlib.sha256()
        for path in (*self._event_files(), *filter(Path.exists, (self._file(SUBSCRIBERS), self._file(CAMPAIGNS)))):
            whole.update(f"{path.name}\0{path.stat().st_size}\0{_digest(path)}\n".encode())
        for former, current in self._merges.read().items():
            whole.update(f"{former}\0{current}\n".encode())
        return whole.hexdigest()

    # --- where things are

    def _event_files(self) -> list[Path]:
        return sorted((self.home.event_log / "events").glob("*.parquet"))

    def _file(self, contract: Contract) -> Path:
        return self.home.event_log / f"{contract.table}.parquet"

    def _refuse_empty(self) -> None:
        if not self._event_files() and not self._file(SUBSCRIBERS).exists():
            raise EmptyLog(self.home.event_log)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two ingests wait for each other; the lock goes with the process that holds it."""
        with _writing(self.home.var):
            self.home.var.mkdir(parents=True, exist_ok=True)
            lock = (self.home.var / "log.lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise UnreadableFile(self.home.event_log, "there is too little memory, or disk under var/spill") from error
        except (duckdb.Error, pa.ArrowException) as error:
            raise UnreadableFile(self.home.event_log, "a file of the log itself is damaged") from error

    # --- taking in

    def _stage(
        self,
        con: duckdb.DuckDBPyConnection,
        contract: Contract,
        path: Path,
        progress: Progress | None,
        reading: Reading | None,
    ) -> Staged:
        files = self._event_files()
        if contract is EVENTS and files:
            with self._reading():
                con.execute(f"create temp view known as {_scan_events(files)}")
            return stage(con, contract, path, known="known", progress=progress, reading=reading)
        expected = {
            field.name: field.type for field in self._kept_schema(contract) if field.name not in contract.columns
        }
        return stage(con, contract, path, expected=expected, progress=progress, reading=reading)

    def _kept_schema(self, contract: Contract) -> pa.Schema:
        """Of the subscribers or campaigns taken in so far."""
        path = self._file(contract)
        with self._reading():
            return pq.read_schema(path) if path.exists() else pa.schema([])

    def _keep(self, con: duckdb.DuckDBPyConnection, staged: Staged) -> None:
        """Write what was accepted: events beside those before, the other tables anew."""
        if not staged.accepted:
            return
        if staged.contract is EVENTS:
            self._add(con)
            return
        target = self._file(staged.contract)
        schema = _united(staged, self._kept_schema(staged.contract))
        with self._reading():
            beside = _written(con, _upsert(staged, target), schema, target.parent)
        _publish(beside, target)

    def _add(self, con: duckdb.DuckDBPyConnection) -> None:
        directory = self.home.event_log / "events"
        beside = _written(con, "select * from events_kept", EVENT_SCHEMA, directory)
        _publish(beside, directory / f"{_digest(beside)}.parquet")

    def _sifted(self, con: duckdb.DuckDBPyConnection, staged: Staged) -> Staged:
        """What is left without the forgotten."""
        gone = self._sift(con, staged.contract, f"{staged.contract.table}_accepted")
        if not gone:
            return staged
        return replace(staged, accepted=staged.accepted - gone, reasons={**staged.reasons, FORGOTTEN: gone})

    def _sift(self, con: duckdb.DuckDBPyConnection, contract: Contract, relation: str) -> int:
        """Make the view ``{table}_kept`` of a relation's rows but those of the forgotten; give how many these are."""
        salt, digests = self._merges.forgotten()
        instant = {EVENTS.table: "occurred_at", SUBSCRIBERS.table: "created_at"}.get(contract.table)
        if not digests or instant is None:
            con.execute(
                f"create temp view {contract.table}_kept as select * from {relation} order by {_ORDER[contract.table]}"
            )
            return 0
        con.register("forgotten", pa.table({"digest": list(digests), "until_us": list(digests.values())}))
        con.execute(f"""
            create temp table {contract.table}_gone as
            select {contract.key} from (
                select *, left(sha256({literal(salt)} || subscriber_id), {DIGEST_LENGTH}) as digest from {relation}
            ) join forgotten using (digest) where epoch_us({instant}) <= until_us
        """)
        gone = f"{contract.table}_gone"
        con.execute(
            f"create temp view {contract.table}_kept as select * from {relation} "
            f"anti join {gone} using ({contract.key}) order by {_ORDER[contract.table]}"
        )
        return _rows_in(con, gone)

    def _put_aside(self, con: duckdb.DuckDBPyConnection, unread: pa.Table) -> None:
        """One file per drained step, named by what is in it."""
        unread = unread.filter(pa.array(self._may_stay(unread["raw"].to_pylist()), pa.bool_()))
        if not len(unread):
            return
        con.register("unread", unread)
        beside = _written(con, "select * from unread order by row", QUARANTINE_SCHEMA, self.home.quarantine)
        _publish(beside, self.home.quarantine / f"events-{_digest(beside)[:32]}.parquet")

    def _quarantine(self, con: duckdb.DuckDBPyConnection, staged: Staged) -> None:
        """One file per source that had bad rows, named by the source's content: ingesting it again writes it again."""
        table = staged.contract.table
        kept = self._kept_aside(con, staged)
        found = con.execute(f"select distinct source from {kept}").fetchall()
        sources = {path.name: path for path in staged.sources}
        for (name,) in found:
            rows = f"select '{table}' as table, * from {kept} where source = {literal(name)} order by row"
            beside = _written(con, rows, QUARANTINE_SCHEMA, self.home.quarantine)
            _publish(beside, self.home.quarantine / f"{table}-{_digest(sources[name])[:32]}.parquet")

    def _kept_aside(self, con: duckdb.DuckDBPyConnection, staged: Staged) -> str:
        """The relation of the bad rows but those about somebody who is forgotten."""
        relation = f"{staged.contract.table}_quarantined"
        if staged.contract is CAMPAIGNS or not staged.quarantined or not self._merges.forgotten()[1]:
            return relation
        con.execute(f"create temp table {relation}_gone (source varchar, row bigint)")
        for batch in con.sql(f"select source, row, raw from {relation}").to_arrow_table().to_batches():
            gone = batch.filter(pa.array([not stays for stays in self._may_stay(batch["raw"].to_pylist())], pa.bool_()))
            con.register("gone", pa.Table.from_batches([gone]).select(["source", "row"]))
            con.execute(f"insert into {relation}_gone select source, row from gone")
        con.execute(
            f"create temp view {relation}_kept as from {relation} anti join {relation}_gone using (source, row)"
        )
        return f"{relation}_kept"

    def _may_stay(self, raws: Sequence[str]) -> list[bool]:
        return [not named for named in self._merges.names_forgotten(raws)]

    def _report(self, staged: Sequence[Staged]) -> IntakeReport:
        reasons: Counter[str] = Counter()
        for one in staged:
            reasons.update(one.reasons)
        accepted = Counter({one.contract.table: one.accepted for one in staged})
        return IntakeReport(
            accepted=accepted["events"],
            repeated=sum(one.repeated for one in staged),
            quarantined=sum(one.quarantined for one in staged),
            reasons=dict(reasons),
            notes=tuple(note for one in staged for note in one.notes),
            subscribers=accepted["subscribers"],
            campaigns=accepted["campaigns"],
        )

    # --- asking

    def _bound(self, extreme: str) -> datetime:
        self._refuse_empty()
        files = self._event_files()
        column, source = ("received_at", files) if files else ("created_at", [self._file(SUBSCRIBERS)])
        with self._reading(), duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            # As microseconds: what kind of zone object comes with a timestamp is DuckDB's affair.
            rows = con.execute(f"select epoch_us({extreme}({column})) from ({_scan(source)})").fetchall()
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=rows[0][0])

    def _lay_tables(self, con: ibis.BaseBackend, only: Collection[str] | None) -> None:
        """Make the three tables; people who were merged are one in each."""
        merges, among = self._merges.read(), ""
        told, profiles = f"({_scan_events(self._event_files())})", self._file(SUBSCRIBERS)
        if only is not None:
            members = [member for group in self._merges.members(only).values() for member in group]
            _hold(con, "asked", {"subscriber_id": members})
            among = "semi join asked using (subscriber_id)"
            con.raw_sql(f"create table told as select * from {told} {among}")
            told = "told"
        if merges:
            _hold(con, "merges", {"subscriber_id": list(merges), "current": list(merges.values())})
        con.raw_sql(f"create view events as {_merged_events(told) if merges else f'select * from {told}'}")
        kept = f"select * from ({_scan([profiles] if profiles.exists() else [], SUBSCRIBERS)}) {among}"
        con.raw_sql(f"""
            create table subscribers as
            with kept as ({kept}),
            heard as (select subscriber_id, min(received_at) as created_at from {told} group by subscriber_id),
            known as (from kept union all by name (select * from heard anti join kept using (subscriber_id)))
            select * from ({self._merged_profiles() if merges else "select * from known"}) order by subscriber_id
        """)
        campaigns = self._file(CAMPAIGNS)
        con.raw_sql(f"create table campaigns as {_scan([campaigns] if campaigns.exists() else [], CAMPAIGNS)}")

    def _merged_profiles(self) -> str:
        """SQL of ``known`` with one row per person: what the id that stands says, gaps filled from the others.

        Whoever refused under one id has refused: consent is not won by a merge.
        """
        names = self._kept_schema(SUBSCRIBERS).names or SUBSCRIBERS.columns
        first = "first(told.{0} order by merged, told.subscriber_id) filter (where told.{0} is not null) as {0}"
        filled = [
            ("bool_and(told.{0}) as {0}" if name in _CONSENTS else first).format(quoted(name))
            for name in names
            if name not in ("subscriber_id", "created_at")
        ]
        # The row as one value: an attribute of the list may have any name.
        return f"""
            with people as (
                select coalesce(merges.current, "the row".subscriber_id) as person, "the row" as told,
                    merges.current is not null as merged
                from known as "the row" left join merges using (subscriber_id)
            ),
            together as (select distinct current as person from merges)
            from (select told.* from people anti join together using (person))
            union all by name
            from (
                select person as subscriber_id, {", ".join(["min(told.created_at) as created_at", *filled])}
                from people semi join together using (person) group by person
            )
        """


def _connection(spill: Path, memory_limit: str | None) -> ibis.BaseBackend:
    """An empty DuckDB in memory that spills to a directory and downloads nothing."""
    con = ibis.duckdb.connect(
        temp_directory=str(spill), autoinstall_known_extensions="false", autoload_known_extensions="false"
    )
    con.raw_sql("SET enable_progress_bar = false")
    if memory_limit is not None:
        con.raw_sql(f"SET memory_limit = {literal(memory_limit)}")
        (threads,) = con.raw_sql("select current_setting('threads')").fetchone()
        con.raw_sql(f"SET threads = {min(threads, MOST_THREADS)}")
        # Nobody asks for the order of the log's rows, and keeping it costs memory.
        con.raw_sql("SET preserve_insertion_order = false")
    return con


def _hold(con: ibis.BaseBackend, name: str, columns: Mapping[str, list[str]]) -> None:
    """Make a table of texts. Ibis would do it in SQL that DuckDB 2 does not read."""
    con.con.register("held", pa.table({column: pa.array(texts, pa.string()) for column, texts in columns.items()}))
    con.raw_sql(f"create table {name} as select * from held")
    con.con.unregister("held")


def _count(con: ibis.BaseBackend, table: str) -> int:
    return int(con.to_pyarrow(con.table(table).count()).as_py())


def _rows_in(con: duckdb.DuckDBPyConnection, relation: str) -> int:
    ((rows,),) = con.execute(f"select count(*) from {relation}").fetchall()
    return int(rows)


def _lay_out(con: ibis.BaseBackend, directory: Path, parts: int, wanted: Collection[int]) -> None:
    """Write the log's tables, sorted by part: who asks for one part reads little else."""
    part = f"(hash(subscriber_id) % {parts})::integer"
    listed = ", ".join(map(str, wanted))
    for table in ("events", "subscribers"):
        # The row as one value: an attribute of the list may be called "part", too.
        rows = f"select {part} as part, {table} as row from {table} where {part} in ({listed}) order by part"
        con.raw_sql(f"copy ({rows}) to {literal(str(directory / f'{table}.parquet'))} {_LAYOUT}")
    con.raw_sql(f"copy campaigns to {literal(str(directory / 'campaigns.parquet'))} {_LAYOUT}")


_SQL_OF_TYPE = {
    pa.string(): "varchar",
    pa.timestamp("us", tz="UTC"): "timestamptz",
    pa.float64(): "double",
    pa.bool_(): "boolean",
    pa.list_(pa.string()): "varchar[]",
}


def _scan(files: list[Path], contract: Contract = EVENTS) -> str:
    """SQL of all rows of Parquet files; without a file, no row of the contract's columns."""
    if files:
        # A home may lie under a name that DuckDB would take for a pattern or a partition.
        listed = ", ".join(literal(glob.escape(str(path))) for path in files)
        return f"select * from read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"
    columns = (f"null::{_SQL_OF_TYPE[field.type]} as {field.name}" for field in contract.schema)
    return f"select {', '.join(columns)} where false"


def _scan_events(files: list[Path]) -> str:
    """SQL of all events; files written before a column was kept lack it."""
    none = _scan([])
    if not files:
        return none
    return f"select {', '.join(EVENT_SCHEMA.names)} from ({none} union all by name {_scan(files)})"


def _merged_events(told: str) -> str:
    """SQL of events as those of the people who stand."""
    columns = ", ".join(name for name in EVENT_SCHEMA.names if name not in ("event_id", "subscriber_id"))
    return f"""
        select event_id, coalesce(merges.current, told.subscriber_id) as subscriber_id, {columns}
        from {told} as told left join merges on merges.subscriber_id = told.subscriber_id
    """


def _rewritten(con: duckdb.DuckDBPyConnection, path: Path, order: str) -> int:
    """Write a file anew with the rows that stay, unless all do; give how many went. A file left empty is removed."""
    stays = f"select * from ({_scan([path])}) anti join asked using (subscriber_id)"
    total = pq.read_metadata(path).num_rows
    left = _rows_in(con, f"({stays})")
    if left == total:
        return 0
    if left:
        beside = _written(con, f"{stays} order by {order}", pq.read_schema(path), path.parent)
        _publish(beside, path)
    else:
        path.unlink()
    return int(total - left)


def _without(path: Path, subscriber_ids: Sequence[str]) -> int:
    """Write a file of the quarantine anew without the rows that name somebody; give how many did."""
    rows = pq.read_table(path)
    naming = _naming(rows, subscriber_ids)
    if any(naming):
        beside = path.with_name(_BESIDE)
        with _writing(beside):
            pq.write_table(rows.filter(pa.array([not one for one in naming])), beside, compression="zstd")
        _publish(beside, path)
    return naming.count(True)


def _naming(rows: pa.Table, subscriber_ids: Collection[str]) -> list[bool]:
    """Which rows of the quarantine may be about some people. A campaign is nobody."""
    told = zip(rows["table"].to_pylist(), rows["raw"].to_pylist(), strict=True)
    return [table != CAMPAIGNS.table and names_any(raw, subscriber_ids) for table, raw in told]


def _united(staged: Staged, kept: pa.Schema) -> pa.Schema:
    """The new file's columns and the attributes only earlier files had, these first."""
    contract = staged.contract
    fixed = [field for field in staged.schema if field.name in contract.columns]
    earlier = [field for field in kept if field.name not in contract.columns]
    new = [field for field in staged.schema if field.name not in {known.name for known in (*fixed, *earlier)}]
    return pa.schema([*fixed, *earlier, *new])


def _upsert(staged: Staged, target: Path) -> str:
    """SQL of the table as it will be. ``stage`` gave every attribute the spelling it had before."""
    contract = staged.contract
    new = f"{contract.table}_kept"
    if not target.exists():
        return f"select * from {new}"
    before = pq.read_schema(target).names
    told = [name for name in staged.present if name != contract.key]
    untold = [name for name in before if name not in staged.present]
    columns = [contract.key, *(f"new.{quoted(name)}" for name in told), *(f"old.{quoted(name)}" for name in untold)]
    return f"""
        with old as ({_scan([target])})
        select * from (
            select {", ".join(columns)} from {new} as new left join old using ({contract.key})
            union all by name (select * from old anti join {new} using ({contract.key}))
        ) order by {contract.key}
    """


def _shares(paths: list[Path], progress: Progress | None) -> list[Progress | None]:
    """One progress per path, each moving the whole on by the path's share of all bytes."""
    if progress is None:
        return [None] * len(paths)
    sizes = [_bytes(path) for path in paths]
    total, shares = max(sum(sizes), 1), []
    for number, size in enumerate(sizes):
        begin = sum(sizes[:number])

        def share(done: float, begin: int = begin, size: int = size) -> None:
            progress(READING_SHARE * (begin + done * size) / total)

        shares.append(share)
    return [*shares]


def _bytes(path: Path) -> int:
    """Of a file or a directory's files; a path that is not there is the intake's to complain about."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _written(con: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema, directory: Path) -> Path:
    """Write a query's rows, safely on disk, under a name in the directory that nothing reads."""
    beside = directory / _BESIDE
    with _writing(beside):
        directory.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
            for batch in con.sql(query).to_arrow_reader(ROW_GROUP_ROWS):
                writer.write_table(pa.Table.from_batches([batch]).select(schema.names).cast(schema))
        with beside.open("rb") as file:
            os.fsync(file.fileno())
    return beside


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the disk refuses is said, and what was begun under the name removed."""
    try:
        yield
    except OSError as error:
        if path.is_file():
            path.unlink()
        raise Unwritable(
            path.parent, os.strerror(error.errno) if error.errno else "the disk does not take it"
        ) from error


def _publish(beside: Path, target: Path) -> None:
    """Give a written file its name in one step; one that is there with the same content stays untouched."""
    if target.exists() and _digest(target) == _digest(beside):
        beside.unlink()
        return
    with _writing(beside):
        beside.replace(target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
