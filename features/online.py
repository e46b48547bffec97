"""The online store: one packed row per subscriber, read in one round trip.

What enters: subscriber ids and packed states. What leaves: states in the order asked for. The promise: a row never goes
back in time, and a reader is never kept waiting by a writer.

Nothing here imports Feast: serving reads through this module, and Feast takes seconds and some 65 MB to import. Feast's
own way to the same rows is ``store.PackedOnlineStore``.

Weighed, with 50,000 rows of 2.8 kB: ``WITHOUT ROWID`` writes and reads several times slower, because rows this wide
spill out of an index page. ``mmap_size`` about halves the time of a thousand reads, but turns a disk error, here a
fallback to priors, into a killed process.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.catalogue import Catalogue
from features.errors import StoreUnavailable
from features.packing import pack, unpack
from features.state import States, anchors, words

Found = npt.NDArray[np.bool_]

ROWS_PER_TRANSACTION = 10_000
"""Bounds how long other writers wait and how far the write-ahead log grows."""
READ_TIMEOUT_S = 10.0
"""For verbs, which can wait. Serving gives its own, a few milliseconds."""
STEPS_BETWEEN_LOOKS = 2_000
"""SQLite's own instructions between two looks at the clock: about a hundred subscribers."""
WRITER_TIMEOUT_S = 30.0
"""How long a writer waits for its turn behind another one."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS states (subscriber_id TEXT PRIMARY KEY NOT NULL, anchor REAL, row BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS states_by_anchor ON states (anchor)",
)
_READ = "SELECT subscriber_id, CAST(row AS BLOB) FROM states WHERE subscriber_id IN (SELECT value FROM json_each(?))"
"""The cast costs nothing. Without it one flipped bit, which makes a text or a number of a row, fails the whole read."""
_WRITE = """
INSERT INTO states VALUES (?, ?, ?)
ON CONFLICT (subscriber_id) DO UPDATE SET anchor = excluded.anchor, row = excluded.row
WHERE excluded.anchor >= states.anchor OR states.anchor IS NULL
"""


class StateStore(Protocol):
    """What serving and the verbs need of an online store, whatever keeps the rows.

    Any thread may call it. The layout of what is read is the reader's: a store outlives catalogues.
    """

    damaged_rows: int
    """Rows met so far that were not what had been written. They count as not found."""

    def read(
        self, subscriber_ids: Sequence[str], catalogue: Catalogue, timeout_s: float | None = None
    ) -> tuple[States, Found]:
        """States in the order asked for, repeats allowed, and who was found. The unknown get the identity row.

        Parameters
        ----------
        timeout_s
            How long it may take; the store's own time-out unless given.

        Raises
        ------
        StoreUnavailable
            When they cannot be read, or not in the time that a reader may take.
        """

    def write(self, subscriber_ids: Sequence[str], states: States) -> int:
        """Store the rows and say how many were taken.

        A row whose anchor, the latest of its ``*_as_of``, is older than the stored row's is left out. Writing the same
        rows again changes nothing.
        """

    def revise(
        self, subscriber_ids: Sequence[str], change: Callable[[States, Found], States], catalogue: Catalogue
    ) -> int:
        """Read rows, change them and write them back; no other writer comes in between.

        Parameters
        ----------
        subscriber_ids
            Without repeats.
        change
            Gets what ``read`` would answer, as an array it may write to, and returns the rows to store. It may be
            called more than once. Who was not there and is left as nobody stays unknown.
        """

    def delete(self, subscriber_id: str) -> bool:
        """Forget a subscriber; False when there was nothing to forget."""

    def count(self) -> int:
        """How many subscribers are stored."""

    def newest(self) -> float | None:
        """The latest anchor of all rows, in microseconds since 1970 UTC; None when there is none."""

    def create(self) -> None:
        """Make an empty store if there is none, so that reading finds nobody instead of failing."""

    def drop(self) -> None:
        """Forget everybody."""

    def close(self) -> None:
        """Let go of what this thread holds open; the next read opens it again."""


class SqliteStateStore:
    """A ``StateStore`` in one SQLite file with a write-ahead log.

    Reading connections are read-only and kept, one per thread, as long as their file is the one under that name. A
    writing connection lives as long as its call.

    Parameters
    ----------
    path
        The database file. The first write creates it; before that, reading raises ``StoreUnavailable``.
    timeout_s
        How long a read may take: waiting in the rare moments when SQLite locks readers out (recovery after a crash), or
        for a slow disk. Only a disk that does not answer at all can hold a reader longer.
    """

    def __init__(self, path: Path, timeout_s: float = READ_TIMEOUT_S) -> None:
        self.path, self.timeout_s = path, timeout_s
        self.damaged_rows = 0
        self._local = threading.local()

    def read(
        self, subscriber_ids: Sequence[str], catalogue: Catalogue, timeout_s: float | None = None
    ) -> tuple[States, Found]:
        """See ``StateStore.read``. The array may be read-only: it is the bytes that came from disk."""
        with self._reading(timeout_s) as connection:
            rows = _rows(connection, subscriber_ids)
        return self._unpacked(subscriber_ids, rows, catalogue)

    def write(self, subscriber_ids: Sequence[str], states: States) -> int:
        """See ``StateStore.write``. In transactions of 10,000 rows: what was written before a failure stays."""
        taken = 0
        with self._writing() as connection:
            for start in range(0, len(states), ROWS_PER_TRANSACTION):
                part = slice(start, start + ROWS_PER_TRANSACTION)
                with _transaction(connection):
                    taken += _upsert(connection, subscriber_ids[part], states[part])
        return taken

    def revise(
        self, subscriber_ids: Sequence[str], change: Callable[[States, Found], States], catalogue: Catalogue
    ) -> int:
        """See ``StateStore.revise``. One transaction."""
        with self._writing() as connection, _transaction(connection):
            states, found = self._unpacked(subscriber_ids, _rows(connection, subscriber_ids), catalogue)
            changed = change(states.copy(), found)
            places = np.flatnonzero(found | differing(states, changed))
            return _upsert(connection, [subscriber_ids[i] for i in places.tolist()], changed[places])

    def delete(self, subscriber_id: str) -> bool:
        """See ``StateStore.delete``. The freed bytes are overwritten, in the database and in its log."""
        with self._writing() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            deleted = connection.execute("DELETE FROM states WHERE subscriber_id = ?", (subscriber_id,)).rowcount
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return bool(deleted)

    def count(self) -> int:
        """See ``StateStore.count``."""
        return int(self._scalar("SELECT count(*) FROM states"))

    def newest(self) -> float | None:
        """See ``StateStore.newest``."""
        anchor = self._scalar("SELECT max(anchor) FROM states")
        return None if anchor is None else float(anchor)

    def create(self) -> None:
        """See ``StateStore.create``."""
        with self._writing():
            pass

    def drop(self) -> None:
        """Forget everybody and the table itself."""
        with self._writing() as connection:
            connection.execute("DROP TABLE states")

    def close(self) -> None:
        """Close this thread's reading connection; the next read opens another."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def _unpacked(
        self, subscriber_ids: Sequence[str], rows: dict[str, bytes], catalogue: Catalogue
    ) -> tuple[States, Found]:
        unpacked = unpack([*map(rows.get, subscriber_ids)], catalogue)
        self.damaged_rows += unpacked.damaged
        return unpacked.states, unpacked.found

    def _scalar(self, query: str) -> Any:
        with self._reading() as connection:
            return connection.execute(query).fetchone()[0]

    @contextmanager
    def _reading(self, timeout_s: float | None = None) -> Iterator[sqlite3.Connection]:
        allowed_s = self.timeout_s if timeout_s is None else timeout_s
        self._local.until = monotonic() + allowed_s
        try:
            connection = self._kept()
            # SQLite waits for locks by its own clock, which the progress handler does not see. Rounded up: a read that
            # gives up before its time looks like one that failed for another reason.
            connection.execute(f"PRAGMA busy_timeout = {ceil(allowed_s * 1000)}")
            yield connection
        except (sqlite3.Error, OSError) as error:
            # A connection that failed once is not trusted again.
            self.close()
            raise _unavailable(error) from error

    def _kept(self) -> sqlite3.Connection:
        """This thread's connection to the file that is there now. A removed one could be read for ever."""
        now = self.path.stat()
        file = now.st_dev, now.st_ino
        if "connection" not in self._local.__dict__ or self._local.file != file:
            self.close()
            self._local.connection, self._local.file = self._connected(), file
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _connected(self) -> sqlite3.Connection:
        # as_uri() quotes what a URI cannot hold; mode=ro never creates a file.
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
        local = self._local
        connection.set_progress_handler(lambda: monotonic() > local.until, STEPS_BETWEEN_LOOKS)
        return connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=WRITER_TIMEOUT_S, isolation_level=None)) as connection:
                # The page size counts only for a file that is still empty, and must come before the journal mode.
                connection.execute("PRAGMA page_size = 8192")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                for statement in _SCHEMA:
                    connection.execute(statement)
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise _unavailable(error) from error


def differing(states: States, others: States) -> npt.NDArray[np.bool_]:
    """Which rows are not the same bytes."""
    return np.asarray((words(states, np.uint64) != words(others, np.uint64)).any(axis=1))


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    # IMMEDIATE: a transaction that reads first could otherwise find, too late, that another writer was faster.
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield


def _rows(connection: sqlite3.Connection, subscriber_ids: Sequence[str]) -> dict[str, bytes]:
    # One JSON parameter for any number of ids: placeholders would run out at 250,000.
    asked = json.dumps(list(dict.fromkeys(subscriber_ids)))
    return dict(connection.execute(_READ, (asked,)))


def _unavailable(error: sqlite3.Error | OSError) -> StoreUnavailable:
    # Not the error's own text, which may quote what was read.
    return StoreUnavailable(f"the database says {getattr(error, 'sqlite_errorname', type(error).__name__)}")


def _upsert(connection: sqlite3.Connection, subscriber_ids: Sequence[str], states: States) -> int:
    rows = zip(subscriber_ids, anchors(states).tolist(), pack(states), strict=True)
    return connection.executemany(_WRITE, rows).rowcount
