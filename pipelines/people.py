"""`inbox merge` and `inbox forget`: two records of one person become one, and a person leaves.

What enters: a home and subscriber ids. What leaves: the same home, in which that is so everywhere. The promise: a run that was
killed is completed by running it again, and a second run changes nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.errors import EmptyLog, FeatureError, UnreadableFile, Unwritable
from features.forgetting import Forgotten, ids_of
from features.forgetting import forget as forget_events
from features.home import Home
from features.identity import Pseudonyms
from features.log import EventLog
from features.merges import Merged, Merges
from features.merges import merge as record
from features.payload import looks_like_an_address
from features.stores import open_store
from pipelines.files import clear_rooms
from pipelines.inbox import drained
from pipelines.leads.book import alone as books_alone
from pipelines.live import live_updater
from serving.leads.book import books

_BESIDE = ".forgetting"
"""What a file is written under until it is whole."""


class UnknownSubscriber(FeatureError):
    """``which`` names the argument, not the id."""

    code = "unknown_subscriber"

    def __init__(self, which: str) -> None:
        self.which = which
        super().__init__(
            f"{which} is nobody's id here: there is no event and no profile of it. Check it for typing errors."
        )


@dataclass(frozen=True)
class Joined:
    """What a merge did."""

    merged: Merged
    refolded: int
    """Whether the online store has the one person's state now; 0 before anything is materialized."""
    failed: int


@dataclass(frozen=True)
class Gone:
    """What forgetting removed."""

    events: Forgotten
    states: int
    predictions: int
    left: tuple[Path, ...]
    """Directories that may name the person still."""
    again: bool
    """Whether the person was forgotten before."""


def merge_people(home: Home, former: str, into: str) -> Joined:
    """Make the history of two subscribers one person's, also for the past, and fold that person's state anew.

    Raises
    ------
    UnknownSubscriber
        Neither the log nor the inbox has heard of one of them.
    MergeRefused, StoreUnavailable, InboxUnavailable
    """
    drained(home)
    now = Merges(home).resolve([former, into])
    known = _known(home, now.values())
    for which, who in (("FROM", former), ("INTO", into)):
        if now[who] not in known:
            raise UnknownSubscriber(which)
    merged = record(home, former, into)
    with live_updater(home) as updater:
        caught = updater.refold([merged.former])
    return Joined(merged, caught.refolded, caught.failed)


def _known(home: Home, ids: Iterable[str]) -> set[str]:
    try:
        con = EventLog(home).connect(only=list(ids))
    except EmptyLog:
        return set()
    try:
        return set(con.to_pyarrow(con.table("subscribers").select("subscriber_id"))["subscriber_id"].to_pylist())
    finally:
        con.disconnect()


def forget_person(home: Home, subscriber_id: str) -> Gone:
    """Remove a person, under all ids that were merged, from the log, the inbox, the quarantine and the stores.

    Parameters
    ----------
    subscriber_id
        Any id the person has or had, or an address: then the ids that are made of it, under older keys, too.

    Raises
    ------
    UnknownSubscriber
        Nothing here knows the person, and nobody of that id was forgotten.
    UnreadableFile
        At the end: of a damaged file nobody can tell whom it names. The person is gone from everything else; move the
        file away and call again.
    StoreUnavailable, InboxUnavailable, Unwritable
        When a part could not be done; call again. An export that is under way is waited for.
    """
    with _alone(home), books_alone(home):
        drained(home)
        merges, given = Merges(home), _ids_of(home, subscriber_id)
        ids = ids_of(merges, given[0], given[1:])
        again = bool(merges.forgotten_among(ids))
        # First what knows the person by these ids alone: when the events are gone, their merges are, too.
        predictions, damaged = _cut(_tables(home), ids)
        with closing(open_store(home)) as store:
            store.create()
            states = {who for who in ids if store.delete(who)}
            if not (again or predictions or states or len(ids) > len(given) or _heard_of(home, ids)):
                raise UnknownSubscriber("SUBSCRIBER_ID")
            forgotten = forget_events(home, given[0], also=given[1:])
            # Again: whoever folds states may have had the events still.
            states |= {who for who in forgotten.subscriber_ids if store.delete(who)}
    left = (home.exports, home.reports)
    for directory in left:
        clear_rooms(directory)
    if damaged:
        raise damaged[0]
    return Gone(forgotten, len(states), predictions, tuple(path for path in left if path.exists()), again)


def _ids_of(home: Home, given: str) -> tuple[str, ...]:
    """An id as it is; of an address the ids it has and had."""
    if not looks_like_an_address(given):
        return (given,)
    if not home.identity.exists():
        raise UnknownSubscriber("SUBSCRIBER_ID")
    names = Pseudonyms.load(home)
    return (names.subscriber_id(given), *names.former_ids(given))


def _heard_of(home: Home, ids: Collection[str]) -> bool:
    return bool(_known(home, ids)) or EventLog(home).puts_aside(ids)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One at a time, so that what lies about half-written was left by one that was killed."""
    try:
        home.var.mkdir(parents=True, exist_ok=True)
        lock = (home.var / "forget.lock").open("w")
    except OSError as error:
        raise Unwritable(home.var, error.strerror or "the disk does not take it") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for directory in _directories(home):
            for path in directory.rglob(f"*{_BESIDE}"):
                path.unlink(missing_ok=True)
        yield


def _directories(home: Home) -> tuple[Path, ...]:
    """Of other rooms' files with a row per subscriber and moment: predictions, states of trainings, lead books."""
    return home.predictions, home.offline, home.leads


def _tables(home: Home) -> Iterator[Path]:
    """What is finished of those files; among the books may lie what is none."""
    for directory in (home.predictions, home.offline):
        yield from sorted(directory.rglob("*.parquet"))
    yield from books(home)


def _cut(paths: Iterable[Path], ids: Collection[str]) -> tuple[int, list[UnreadableFile]]:
    """Take some people out of all files; how many rows were theirs, and which files could not be read."""
    rows, damaged = 0, []
    for path in paths:
        try:
            rows += _without(path, ids)
        except UnreadableFile as error:
            damaged.append(error)
    return rows, damaged


def _without(path: Path, ids: Collection[str]) -> int:
    """Write a file anew without the rows about some people, in one step; how many they were."""
    gone, beside = pa.array(list(ids), pa.string()), path.with_suffix(_BESIDE)
    try:
        with _whole(path):
            schema = pq.read_schema(path)
            found = sum(_theirs(group, gone)[1] for group in _groups(path, ["subscriber_id"]) if group.num_columns)
        if found:
            with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
                for rows in _groups(path):
                    writer.write_table(rows.filter(pc.invert(_theirs(rows, gone)[0])))
            with beside.open("rb") as written:
                os.fsync(written.fileno())
            beside.replace(path)
    except OSError as error:
        raise Unwritable(path, os.strerror(error.errno) if error.errno else "the disk does not take it") from error
    finally:
        beside.unlink(missing_ok=True)
    return found


def _groups(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A file's row groups, each without the columns it does not have."""
    with _whole(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=columns)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What Arrow says of a damaged file, in our words; of pages it cannot read it says so without a number."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UnreadableFile(
            path,
            "it is damaged, so nobody can tell whether it names the person, who is gone from everything else. Move it "
            "away, or delete it, and run the same again",
        ) from error


def _theirs(rows: pa.Table, ids: pa.Array) -> tuple[pa.ChunkedArray, int]:
    """Which rows are about some people, and how many."""
    theirs = pc.is_in(rows["subscriber_id"], ids)
    return theirs, int(pc.sum(theirs).as_py() or 0)
