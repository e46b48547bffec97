"""SQLite's own side of the online store: one file, readers never wait for writers, the forgotten leave no byte."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from features.errors import StoreUnavailable
from features.online import SqliteStateStore
from tests.features.states import CATALOGUE, some_states
from tests.serving.faults import locked


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


def alter(store: SqliteStateStore, change: str) -> None:
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(f"UPDATE states SET {change} WHERE subscriber_id = 'a'")


def test_a_row_that_sqlite_takes_for_text_is_read_as_the_bytes_it_has(store: SqliteStateStore) -> None:
    states = some_states(2, as_of=1e15)
    store.write(["a", "b"], states)
    alter(store, "row = CAST(row AS TEXT)")
    read, found = store.read(["a", "b"], CATALOGUE)
    assert found.all()
    assert read.tobytes() == states.tobytes()
    assert store.revise(["a"], lambda states, found: states, CATALOGUE) == 1


@pytest.mark.parametrize("row", ["'some text'", "CAST(x'fffe' AS TEXT)", "7", "0.5", "''"])
def test_a_row_of_another_type_is_damaged_and_keeps_nobody_else_from_being_read(
    store: SqliteStateStore, row: str
) -> None:
    store.write(["a", "b"], some_states(2, as_of=1e15))
    alter(store, f"row = {row}")
    assert store.read(["a", "b"], CATALOGUE)[1].tolist() == [False, True]
    assert store.damaged_rows == 1


def test_what_was_read_is_in_no_error(store: SqliteStateStore) -> None:
    store.write(["a"], some_states(1, as_of=1e15))
    alter(store, "anchor = CAST(x'ff736563726574' AS TEXT)")
    with pytest.raises(StoreUnavailable) as caught:
        store.newest()
    assert caught.value.reason == "the database says OperationalError"


def remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def test_a_file_that_was_removed_is_unavailable_and_one_made_anew_is_read(store: SqliteStateStore) -> None:
    store.write(["a"], some_states(1, as_of=1e15))
    assert store.read(["a"], CATALOGUE)[1].all()
    remove(store.path)
    with pytest.raises(StoreUnavailable):
        store.read(["a"], CATALOGUE)
    SqliteStateStore(store.path).write(["b"], some_states(1, as_of=1e15))
    assert store.read(["a", "b"], CATALOGUE)[1].tolist() == [False, True]


def test_a_file_that_was_replaced_between_two_reads_is_read(store: SqliteStateStore, tmp_path: Path) -> None:
    other = SqliteStateStore(tmp_path / "other.db")
    store.write(["a"], some_states(1, as_of=1e15))
    other.write(["b"], some_states(1, as_of=1e15))
    assert store.read(["a", "b"], CATALOGUE)[1].tolist() == [True, False]
    remove(store.path)
    shutil.copy(other.path, store.path)
    assert store.read(["a", "b"], CATALOGUE)[1].tolist() == [False, True]


def test_a_name_that_leads_round_in_circles_is_unavailable(tmp_path: Path) -> None:
    circle = tmp_path / "online.db"
    circle.symlink_to(circle)
    store = SqliteStateStore(circle)
    with pytest.raises(StoreUnavailable):
        store.read(["a"], CATALOGUE)
    with pytest.raises(StoreUnavailable):
        store.write(["a"], some_states(1, as_of=1e15))


def test_a_relative_name_in_a_directory_that_is_gone_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    store = SqliteStateStore(Path("online.db"))
    store.write(["a"], some_states(1, as_of=1e15))
    shutil.rmtree(gone)
    with pytest.raises(StoreUnavailable):
        store.read(["a"], CATALOGUE)


def test_a_link_that_is_set_to_another_file_is_followed(tmp_path: Path) -> None:
    for name in "ab":
        SqliteStateStore(tmp_path / name).write([name], some_states(1, as_of=1e15))
    link = tmp_path / "online.db"
    link.symlink_to("a")
    store = SqliteStateStore(link)
    assert store.read(["a", "b"], CATALOGUE)[1].tolist() == [True, False]
    (tmp_path / "next").symlink_to("b")
    (tmp_path / "next").replace(link)
    assert store.read(["a", "b"], CATALOGUE)[1].tolist() == [False, True]


def test_a_lock_is_waited_for_as_long_as_was_allowed_and_not_to_the_last_whole_millisecond(
    store: SqliteStateStore,
) -> None:
    store.write(["a"], some_states(1, as_of=1e15))
    with locked(store.path):
        began = monotonic()
        with pytest.raises(StoreUnavailable):
            store.read(["a"], CATALOGUE, timeout_s=0.0009)
        assert monotonic() - began >= 0.0009
