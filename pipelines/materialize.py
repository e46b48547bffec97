"""`inbox materialize`: everybody's state into the online store.

What enters: a home with a log. What leaves: one packed row per subscriber, as of the log's end. The promise: memory does
not grow with the list, a run that was killed is continued by the next one, and a second run changes nothing.

Live events may go on meanwhile (see ``features.catchup``). First the inbox is drained, and its clock pushed beyond the log's
end, so that the rows know all that was received before their instant. Whose row is ahead of it by then is folded anew.

A state needs nobody else's events. So the log is cut by subscriber into parts of about 20,000 people or 2 million
events, and one part after the other is folded and written. DuckDB keeps to ``MEMORY_LIMIT`` and lays what does not fit
under ``var/spill``; beside it there are only the states of one part. The whole process, 350 MB of imports included, took
1.4 GB for 50,000 subscribers with 5 million events and 1.4 GB for 200,000 with 21 million; in one piece it would be 1.4
and 3.7 GB. The cut itself takes about 1 s per million events.

After each part ``var/materialize.json`` says that it is in the store, and what its rows were. A run that finds it there
for the same log, catalogue, instant and store reads these rows back and does the rest: the parts that are not there, and
those that are not what was written, because the store came back from an earlier snapshot or lost its last seconds in a
power failure. Any other run starts anew, which costs only time: rows are monotone and writing one again changes nothing.

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
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import ibis
import numpy as np
import orjson
import pyarrow as pa

from features.catalogue import Catalogue
from features.catchup import LiveUpdater
from features.clock import microseconds
from features.fold import Folder, Spine
from features.home import Home
from features.inbox import Inbox
from features.log import CUT_BY, EventLog, PartSize
from features.online import StateStore
from features.packing import checksums_of
from features.state import States, anchors
from features.stores import place
from pipelines.console import Share
from pipelines.inbox import drained, now_us
from pipelines.train import Prepared, prepare

MEMORY_LIMIT = "1GB"
"""What DuckDB may hold in memory."""
ROWS_PER_READ = 5_000
"""Read back at a time: about 10 MB."""
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
    """Parts that an interrupted run had written and that are in the store still."""
    started_over: bool
    """Whether there was an interrupted run of which nothing could be used."""


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
    """How far a run has come: the parts it has written, and the digest of each one's rows."""

    job: _Job
    done: dict[int, str]

    def plus(self, part: int, digest: str) -> _Ledger:
        return replace(self, done={**self.done, part: digest})

    def save(self, path: Path) -> None:
        beside = path.with_suffix(".tmp")
        beside.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_NON_STR_KEYS))
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
    _close_off(home, as_of)
    prepared = prepare(home, MEMORY_LIMIT)
    moment = as_of or prepared.end + JUST_AFTER
    instant = microseconds(moment)
    total, folded, taken_over, ahead = _count(prepared.folder.con), 0, [], list[str]()
    parts = (part_size or PartSize()).parts(prepared.folder.con)
    job = _Job(prepared.fingerprint, prepared.catalogue.fingerprint, instant, place(home), parts, CUT_BY)
    path = home.var / "materialize.json"
    with _alone(home), closing(prepared.store.online()) as store:
        interrupted, ledger = path.exists(), _begun(path, job)
        # Before any row: live events are brought into rows by the catalogue that rows are made by.
        prepared.catalogue.save(home.materialized)
        with closing(_folders(home, prepared, parts)) as folders:
            for part, folder in folders:
                ids = _everybody(folder.con)
                if part in ledger.done and _digest(_stored(store, ids, prepared.catalogue)) == ledger.done[part]:
                    taken_over.append(len(ids))
                    continue
                states = folder.fold(Spine(ids, np.full(len(ids), float(instant))))
                if prepared.store.materialize(ids, states) < len(ids) and as_of is None:
                    ahead += _ahead(store, ids, instant, prepared.catalogue)
                ledger = ledger.plus(part, _digest([states]))
                ledger.save(path)
                folded += len(ids)
                share((sum(taken_over) + folded) / total)
        path.unlink(missing_ok=True)
        _settle(home, store, ahead, instant)
    return Materialized(total, moment, folded, parts, len(taken_over), interrupted and folded == total)


def _close_off(home: Home, as_of: datetime | None) -> None:
    """Bring the inbox into the log, and have what it accepts from now on count as received after that."""
    drained(home)
    inbox, end = Inbox(home), microseconds(EventLog(home).end())
    inbox.push_clock(end if as_of is None else max(end, min(microseconds(as_of), now_us())))
    # What came between the two: some of it may have been received before.
    drained(home)


def _ahead(store: StateStore, ids: pa.Array, instant: int, catalogue: Catalogue) -> list[str]:
    """Who has a row that knows more already: live events came meanwhile."""
    found: list[str] = []
    for start in range(0, len(ids), ROWS_PER_READ):
        some = ids.slice(start, ROWS_PER_READ).to_pylist()
        states, _ = store.read(some, catalogue)
        found += [some[place] for place in np.flatnonzero(anchors(states) > instant)]
    return found


def _settle(home: Home, store: StateStore, ahead: list[str], instant: int) -> None:
    """Fold those anew who were ahead, so that they too have the catalogue and the profiles of now; let old events go."""
    inbox = Inbox(home)
    if ahead:
        LiveUpdater(home, inbox, store).refold(ahead)
    # A little more than a row of this instant may need.
    inbox.purge(instant - int(timedelta(hours=1) / JUST_AFTER))
    inbox.close()


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Two runs on one home wait for each other; the lock goes with the process that holds it."""
    with (home.var / "materialize.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _begun(path: Path, job: _Job) -> _Ledger:
    """What an interrupted run has done of the job, by its own account."""
    try:
        raw = orjson.loads(path.read_bytes())
        ledger = _Ledger(_Job(**raw["job"]), {int(part): digest for part, digest in raw["done"].items()})
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        # Not there, cut off by a power failure, or of another version.
        return _Ledger(job, {})
    return ledger if ledger.job == job else _Ledger(job, {})


def _stored(store: StateStore, subscriber_ids: pa.Array, catalogue: Catalogue) -> Iterator[States]:
    """What is in the store of a part, some at a time."""
    for start in range(0, len(subscriber_ids), ROWS_PER_READ):
        states, _ = store.read(subscriber_ids.slice(start, ROWS_PER_READ).to_pylist(), catalogue)
        yield states


def _digest(slices: Iterable[States]) -> str:
    """Of states, in however many slices. Anchors would not do: a corrected log ends when it ended before."""
    whole = sha256()
    for states in slices:
        whole.update(checksums_of(states).tobytes())
    return whole.hexdigest()


def _folders(home: Home, prepared: Prepared, parts: int) -> Generator[tuple[int, Folder], None, None]:
    """The parts, one at a time. What is laid on disk for them goes when this is closed."""
    if parts == 1:
        yield 0, prepared.folder
        return
    with EventLog(home).cut(prepared.folder.con, parts, range(parts), MEMORY_LIMIT) as cut:
        for part in range(parts):
            with cut.connect(part) as con:
                yield part, Folder(con, prepared.catalogue)


def _count(con: ibis.BaseBackend) -> int:
    return int(con.to_pyarrow(con.table("subscribers").count()).as_py())


def _everybody(con: ibis.BaseBackend) -> pa.Array:
    """Ids of all subscribers, in order."""
    asked = con.table("subscribers").select("subscriber_id").order_by("subscriber_id")
    return con.to_pyarrow(asked)["subscriber_id"].combine_chunks()
