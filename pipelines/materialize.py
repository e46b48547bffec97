"""`inbox materialize`: everybody's state into the online store.

What enters: a home with a log. What leaves: one packed row per subscriber, as of the log's end. The promise: memory does
not grow with the list, a run that was killed is continued by the next one, and a second run changes nothing.

A state needs nobody else's events. So the log is cut by subscriber into parts of about 20,000 people or 2 million
events, and one part after the other is folded and written. DuckDB keeps to ``MEMORY_LIMIT`` and lays what does not fit
under ``var/spill``; beside it there are only the states of one part. The whole process, 350 MB of imports included, took
1.4 GB for 50,000 subscribers with 5 million events and 1.4 GB for 200,000 with 21 million; in one piece it would be 1.4
and 3.7 GB. The cut itself takes about 1 s per million events.

After each part ``var/materialize.json`` says which ones are in the store. A run that finds it there for the same log,
catalogue, instant and store does the rest; any other starts anew, which costs only time: rows are monotone and writing
one again changes nothing.

Why a verb of our own and not ``feast materialize``: it carries a stretch of Feast's offline store online, one view after
the other, at one protobuf object per value. Six views are one row here, so it reads, merges and writes every row six
times: 3.9 s for 5,000 states that are written in 0.06 s here, to the same bytes. It works on the same store, that slowly.

A compute engine of our own (Feast's ``batch_engine``, a ``feast.infra.compute_engines.base.ComputeEngine``) would not be
held to that: with ``supports_batch`` it gets the tasks of all views in one call. But of a task, a view and a stretch of
its source, it could use only the end. Feast's source here is the history at the moments that training asked about, not
everybody's present, so the engine would have to go past it to the log; asked for one view it would have to write all six;
its jobs succeed or fail as a whole; and Feast notes each view's progress in its registry, a file that it writes in place.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import ibis
import numpy as np
import orjson
import pyarrow as pa

from features.clock import microseconds
from features.fold import Folder, Spine
from features.home import Home
from features.log import CUT_BY, EventLog, PartSize
from features.stores import open_store, place
from pipelines.console import Share
from pipelines.train import Prepared, prepare

MEMORY_LIMIT = "1GB"
"""What DuckDB may hold in memory."""
JUST_AFTER = timedelta(microseconds=1)
"""The right edge is open: as of this long after the log's end its last event counts."""


@dataclass(frozen=True)
class Materialized:
    """How many subscribers are in the store, as of when, and how much of that was work of this run."""

    subscribers: int
    as_of: datetime
    folded: int
    """Subscribers whose state this run worked out."""
    parts: int
    taken_over: int
    """Parts that an interrupted run had written."""
    started_over: bool
    """Whether there was an interrupted run that could not be continued."""


@dataclass(frozen=True)
class _Job:
    """What a run works out. Two runs of equal jobs write the same rows, part by part."""

    log: str
    catalogue: str
    as_of: int
    store: str
    parts: int
    cut_by: str


@dataclass(frozen=True)
class _Ledger:
    """How far a run has come: the parts whose rows are in the store, and how many people these are."""

    job: _Job
    done: tuple[int, ...] = ()
    subscribers: int = 0

    def plus(self, part: int, subscribers: int) -> _Ledger:
        return replace(self, done=(*self.done, part), subscribers=self.subscribers + subscribers)

    def save(self, path: Path) -> None:
        beside = path.with_suffix(".tmp")
        beside.write_bytes(orjson.dumps(asdict(self)))
        beside.replace(path)


def materialize(
    home: Home, share: Share, as_of: datetime | None = None, part_size: PartSize | None = None
) -> Materialized:
    """Fold everybody's state and write it to the online store.

    Parameters
    ----------
    share
        Told after each part how many of the subscribers are done.
    as_of
        Default: just after the last event was received, so that the whole log counts and a rerun gives the same rows.
    part_size
        How much is folded at a time.

    Raises
    ------
    EmptyLog, UnreadableFile, FeatureStoreFailed, StoreUnavailable
    """
    prepared = prepare(home, MEMORY_LIMIT)
    moment = as_of or prepared.end + JUST_AFTER
    instant = microseconds(moment)
    total = _count(prepared.folder.con)
    parts = (part_size or PartSize()).parts(prepared.folder.con)
    job = _Job(prepared.fingerprint, prepared.catalogue.fingerprint, instant, place(home), parts, CUT_BY)
    path = home.var / "materialize.json"
    with _alone(home):
        begun = _begun(path, job, home)
        started_over = begun is None and path.exists()
        ledger = taken_over = begun or _Ledger(job)
        with closing(_folders(home, prepared, ledger)) as folders:
            for part, folder in folders:
                subscriber_ids = _everybody(folder.con)
                instants = np.full(len(subscriber_ids), float(instant))
                prepared.store.materialize(subscriber_ids, folder.fold(Spine(subscriber_ids, instants)))
                ledger = ledger.plus(part, len(subscriber_ids))
                ledger.save(path)
                share(ledger.subscribers / total)
        path.unlink(missing_ok=True)
    return Materialized(total, moment, total - taken_over.subscribers, parts, len(taken_over.done), started_over)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Two runs on one home wait for each other; the lock goes with the process that holds it."""
    with (home.var / "materialize.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _begun(path: Path, job: _Job, home: Home) -> _Ledger | None:
    """What an interrupted run has done of the job, if its rows are there still."""
    try:
        raw = orjson.loads(path.read_bytes())
        ledger = _Ledger(_Job(**raw["job"]), tuple(raw["done"]), raw["subscribers"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        # Not there, cut off by a power failure, or of another version.
        return None
    if ledger.job != job:
        return None
    with closing(open_store(home)) as store:
        # It may have been emptied in between.
        return ledger if store.count() >= ledger.subscribers else None


def _folders(home: Home, prepared: Prepared, ledger: _Ledger) -> Generator[tuple[int, Folder], None, None]:
    """The parts that are still to be done, one at a time. What is laid on disk for them goes when this is closed."""
    left = [part for part in range(ledger.job.parts) if part not in ledger.done]
    if ledger.job.parts == 1:
        yield from ((part, prepared.folder) for part in left)
    elif left:
        with EventLog(home).cut(prepared.folder.con, ledger.job.parts, left, MEMORY_LIMIT) as cut:
            for part in left:
                with cut.connect(part) as con:
                    yield part, Folder(con, prepared.catalogue)


def _count(con: ibis.BaseBackend) -> int:
    return int(con.to_pyarrow(con.table("subscribers").count()).as_py())


def _everybody(con: ibis.BaseBackend) -> pa.Array:
    """Ids of all subscribers, in order."""
    asked = con.table("subscribers").select("subscriber_id").order_by("subscriber_id")
    return con.to_pyarrow(asked)["subscriber_id"].combine_chunks()
