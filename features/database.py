"""A SQLite file that several threads and processes write to at once.

What enters: a path and the statements that make its tables. What leaves: connections inside a transaction. The promise:
what a transaction wrote is on disk when it ends, whole; a failure left nothing behind, and is ``InboxUnavailable`` unless
what was to be written is at fault.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from features.errors import InboxUnavailable

TURN_TIMEOUT_S = 20.0
"""How long a writer waits for its turn behind the others."""


class Database:
    """Connections are kept, one per thread, for as long as their file is the one under that name.

    Parameters
    ----------
    path
        The file. The first write creates it.
    schema
        Statements that make what is not there yet.
    """

    def __init__(self, path: Path, schema: Sequence[str], timeout_s: float = TURN_TIMEOUT_S) -> None:
        self.path, self.schema, self.timeout_s = path, tuple(schema), timeout_s
        self._local = threading.local()

    def exists(self) -> bool:
        return self.path.exists()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, the only one of all writers; what was written is durable when the block ends.

        Raises
        ------
        InboxUnavailable
            When it cannot begin in time or cannot be written; then nothing was.
        """
        with self._ours():
            connection = self._kept()
            # IMMEDIATE: a transaction that reads first could otherwise find, too late, that another writer was faster.
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                yield connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One view of the data, whatever is written meanwhile."""
        with self._ours():
            connection = self._kept()
            connection.execute("BEGIN")
            with connection:
                yield connection

    def scrub(self) -> None:
        """Leave nothing of removed rows in the write-ahead log. They are overwritten in the file when removed."""
        with self._ours():
            self._kept().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go of what this thread holds open; the next use opens it again."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    @contextmanager
    def _ours(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError):
            # What was to be written is at fault, and would be again: not the disk.
            self.close()
            raise
        except (sqlite3.Error, OSError) as error:
            # A connection that failed once is not trusted again.
            self.close()
            # Not the error's own text, which may quote what was read.
            raise InboxUnavailable(self.path, getattr(error, "sqlite_errorname", type(error).__name__)) from error

    def _kept(self) -> sqlite3.Connection:
        """This thread's connection to the file that is there now: what is written to a removed one is lost."""
        if "connection" not in self._local.__dict__ or self._local.file != self._identity():
            self.close()
            self._local.connection = self._connected()
            self._local.file = self._identity()
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _identity(self) -> tuple[int, ...] | None:
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return None
        # A connection must not be carried over a fork.
        return os.getpid(), now.st_dev, now.st_ino

    def _connected(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=self.timeout_s, isolation_level=None)
        try:
            with self._alone():
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA secure_delete = ON")
                for statement in self.schema:
                    connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """SQLite does not wait for whoever begins the same write-ahead log; it fails. The lock goes with its process."""
        with self.path.with_name(f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
