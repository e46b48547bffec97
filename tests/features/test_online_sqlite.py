"""SQLite's own side of the online store: one file, readers never wait for writers, the forgotten leave no byte."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from features.errors import StoreUnavailable
from features.online import SqliteStateStore
from tests.features.states import CATALOGUE, some_states


@pytest.fixture
def store(tmp_path: Path) -> SqliteStateStore:
    return SqliteStateStore(tmp_path / "deep" / "online.db")


def test_the_forgotten_leave_no_byte_behind(store: SqliteStateStore) -> None:
    store.write(["remembered", "forgotten-one"], some_states(2, as_of=1e15))
    assert store.delete("forgotten-one") is True
    assert all(b"forgotten-one" not in path.read_bytes() for path in store.path.parent.iterdir())


def test_a_reader_sees_the_last_committed_row_while_a_writer_holds_the_lock(store: SqliteStateStore) -> None:
    before = some_states(1, as_of=1e15)
    store.write(["a"], before)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE states SET row = x'00'")
        with ThreadPoolExecutor(1) as other_thread:
            read, _ = other_thread.submit(store.read, ["a"], CATALOGUE).result(timeout=5)
        assert read.tobytes() == before.tobytes()
        writer.execute("ROLLBACK")


@pytest.mark.parametrize(
    "ask",
    [lambda store: store.read(["a"], CATALOGUE), SqliteStateStore.count, SqliteStateStore.newest],
    ids=["read", "count", "newest"],
)
def test_a_store_that_is_not_there_is_unavailable_and_is_not_made_by_asking(
    store: SqliteStateStore, ask: Callable[[SqliteStateStore], object]
) -> None:
    with pytest.raises(StoreUnavailable):
        ask(store)
    assert not store.path.exists()


def test_a_reader_recovers_once_the_store_is_there(store: SqliteStateStore) -> None:
    with pytest.raises(StoreUnavailable):
        store.read(["a"], CATALOGUE)
    store.write(["a"], some_states(1, as_of=1e15))
    assert store.read(["a"], CATALOGUE)[1].all()


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    path.write_bytes(b"not a database" * 1000)
    store = SqliteStateStore(path)
    with pytest.raises(StoreUnavailable):
        store.read(["a"], CATALOGUE)
    with pytest.raises(StoreUnavailable):
        store.write(["a"], some_states(1, as_of=1e15))


def test_a_dropped_store_is_unavailable_until_it_is_written_again(store: SqliteStateStore) -> None:
    store.write(["a"], some_states(1, as_of=1e15))
    store.drop()
    with pytest.raises(StoreUnavailable):
        store.read(["a"], CATALOGUE)
    store.write(["a"], some_states(1, as_of=1e15))
    assert store.count() == 1
