"""The online store: what is read is what was written, rows never go back in time, readers never wait for writers."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.catalogue import VIEWS, Attribute, Catalogue, as_of_name
from features.errors import StoreUnavailable
from features.online import ROWS_PER_TRANSACTION, SqliteStateStore, StateStore
from features.state import States, identity

CATALOGUE = Catalogue(attributes=(Attribute("age"), Attribute("plan", ("free", "paid"))))
GROWN = replace(CATALOGUE, attributes=(*CATALOGUE.attributes, Attribute("score"), Attribute("country", ("FR",))))


def some_states(count: int, as_of: float, seed: int = 0, catalogue: Catalogue = CATALOGUE) -> States:
    """Random bytes' worth of states, all views anchored at one instant."""
    rng = np.random.default_rng(seed)
    states = identity(catalogue, count)
    for field in catalogue.fields:
        shape = states[field.name].shape
        random = rng.integers(-1, 3, shape) if field.dtype == "<i4" else rng.random(shape)
        states[field.name] = random
    for view in VIEWS:
        states[as_of_name(view)] = as_of
    return states


def store_at(path: Path, catalogue: Catalogue = CATALOGUE) -> SqliteStateStore:
    return SqliteStateStore(path / "deep" / "online.db", catalogue)


def test_what_is_read_is_what_was_written_in_the_order_asked_for(tmp_path: Path) -> None:
    store: StateStore = store_at(tmp_path)
    states = some_states(3, as_of=1e15)
    assert store.write(["a", "b", "c"], states) == 3
    read, found = store.read(["c", "a", "c", "b"])
    assert read.tobytes() == states[[2, 0, 2, 1]].tobytes()
    assert found.tolist() == [True] * 4


def test_the_unknown_get_the_identity_row_and_are_not_found(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    states = some_states(1, as_of=1e15)
    store.write(["a"], states)
    asked = ["nobody", "a", "", "a\0b", "\ud800", "nobody"]
    read, found = store.read(asked)
    assert found.tolist() == [False, True, False, False, False, False]
    assert read[found].tobytes() == states.tobytes()
    assert read[~found].tobytes() == identity(CATALOGUE, 5).tobytes()


def test_nobody_asked_for_is_an_empty_answer(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.create()
    read, found = store.read([])
    assert len(read) == len(found) == 0
    assert read.dtype == identity(CATALOGUE, 0).dtype


def test_many_thousand_ids_are_one_question(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.write(["a"], some_states(1, as_of=1e15))
    _, found = store.read([f"s{i}" for i in range(300_000)] + ["a"])
    assert found.sum() == 1


def test_a_list_longer_than_one_transaction_is_written_whole(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    count = ROWS_PER_TRANSACTION + 1
    states = identity(CATALOGUE, count)
    states["recency_as_of"] = np.arange(count)
    ids = [f"s{i}" for i in range(count)]
    assert store.write(ids, states) == count == store.count()
    assert store.read(ids[-1:])[0]["recency_as_of"] == count - 1


def test_an_older_row_never_replaces_a_newer_one(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    new, old = some_states(1, as_of=2e15, seed=1), some_states(1, as_of=1e15, seed=2)
    assert store.write(["a"], new) == 1
    assert store.write(["a"], old) == 0
    assert store.read(["a"])[0].tobytes() == new.tobytes()


def test_a_row_of_the_same_instant_replaces_so_that_a_mended_run_counts(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    first, mended = some_states(1, as_of=1e15, seed=1), some_states(1, as_of=1e15, seed=2)
    store.write(["a"], first)
    assert store.write(["a"], mended) == 1
    assert store.write(["a"], mended) == 1
    assert store.read(["a"])[0].tobytes() == mended.tobytes()


def test_a_row_without_any_anchor_gives_way_to_everything_and_replaces_nothing(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    blank, known = identity(CATALOGUE, 1), some_states(1, as_of=1e15)
    assert store.write(["a"], blank) == 1
    assert store.write(["a"], known) == 1
    assert store.write(["a"], blank) == 0
    assert store.read(["a"])[0].tobytes() == known.tobytes()


def test_the_latest_of_the_anchors_decides(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    lately, before = some_states(1, as_of=1e15), some_states(1, as_of=1.5e15)
    lately["profile_as_of"] = 2e15
    store.write(["a"], lately)
    assert store.write(["a"], before) == 0
    assert store.newest() == 2e15


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=12), st.data())
def test_the_order_of_writes_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[str, int]], data: st.DataObject
) -> None:
    ends = []
    for order in (writes, data.draw(st.permutations(writes))):
        store = store_at(tmp_path_factory.mktemp("order"))
        store.create()
        for subscriber_id, instant in order:
            store.write([subscriber_id], some_states(1, as_of=float(instant), seed=instant))
        read, found = store.read(list("abc"))
        ends.append((read.tobytes(), found.tolist()))
    assert ends[0] == ends[1]


def test_rows_from_before_the_catalogue_grew_are_read_with_the_rest_unknown(tmp_path: Path) -> None:
    old = some_states(1, as_of=1e15)
    store_at(tmp_path).write(["old"], old)
    grown = store_at(tmp_path, GROWN)
    grown.write(["new"], some_states(1, as_of=1e15, catalogue=GROWN))
    read, found = grown.read(["old", "new"])
    assert found.all()
    assert all(read[:1][field.name].tobytes() == old[field.name].tobytes() for field in CATALOGUE.fields)
    assert np.isnan(read["profile_score"][0])
    assert read["profile_country"][0] == -1


def test_rows_of_a_newer_catalogue_are_read_as_far_as_they_are_understood(tmp_path: Path) -> None:
    new = some_states(1, as_of=1e15, catalogue=GROWN)
    store_at(tmp_path, GROWN).write(["a"], new)
    read, _ = store_at(tmp_path).read(["a"])
    assert read.tobytes() == new.tobytes()[: read.dtype.itemsize]


def test_the_forgotten_leave_no_byte_behind(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.write(["remembered", "forgotten-one"], some_states(2, as_of=1e15))
    assert store.delete("forgotten-one") is True
    assert store.delete("forgotten-one") is False
    assert store.read(["forgotten-one", "remembered"])[1].tolist() == [False, True]
    assert all(b"forgotten-one" not in path.read_bytes() for path in store.path.parent.iterdir())


def test_count_and_newest_of_an_empty_store(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.create()
    assert store.count() == 0
    assert store.newest() is None


def test_a_reader_sees_the_last_committed_row_while_a_writer_holds_the_lock(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    before = some_states(1, as_of=1e15)
    store.write(["a"], before)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE states SET row = x'00'")
        with ThreadPoolExecutor(1) as other_thread:
            read, _ = other_thread.submit(store.read, ["a"]).result(timeout=5)
        assert read.tobytes() == before.tobytes()
        writer.execute("ROLLBACK")


def test_threads_read_whole_rows_while_rows_are_replaced(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    ids = [f"s{i}" for i in range(50)]
    versions = [some_states(50, as_of=float(instant), seed=instant) for instant in range(10)]
    store.write(ids, versions[0])
    known = {version.tobytes() for version in versions}
    finished = threading.Event()

    def keep_reading() -> bool:
        whole = True
        while whole and not finished.is_set():
            whole = store.read(ids)[0].tobytes() in known
        return whole

    with ThreadPoolExecutor(2) as readers:
        answers = [readers.submit(keep_reading) for _ in range(2)]
        for version in versions:
            store.write(ids, version)
        finished.set()
        assert all(answer.result() for answer in answers)


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    states = some_states(1, as_of=1e15)
    store.write(["a"], states)

    def fail(states: States, found: np.ndarray) -> States:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.revise(["a"], fail)
    assert store.write(["a"], states) == 1
    assert store.read(["a"])[0].tobytes() == states.tobytes()


def test_revising_gives_the_rows_as_they_are_and_stores_what_comes_back(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.write(["a"], some_states(1, as_of=1e15))
    seen = []

    def count_a_click(states: States, found: np.ndarray) -> States:
        seen.extend(found.tolist())
        states["click_count"] = [1, 2]
        return states

    assert store.revise(["a", "b"], count_a_click) == 2
    assert seen == [True, False]
    assert store.read(["b", "a"])[0]["click_count"].tolist() == [2, 1]


def test_a_store_that_is_not_there_is_unavailable_and_is_not_made_by_reading(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    for ask in (lambda: store.read(["a"]), store.count, store.newest):
        with pytest.raises(StoreUnavailable):
            ask()
    assert not store.path.exists()


def test_a_reader_recovers_once_the_store_is_there(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    with pytest.raises(StoreUnavailable):
        store.read(["a"])
    store.write(["a"], some_states(1, as_of=1e15))
    assert store.read(["a"])[1].all()
    store.close()
    assert store.read(["a"])[1].all()


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    path.write_bytes(b"not a database" * 1000)
    store = SqliteStateStore(path, CATALOGUE)
    with pytest.raises(StoreUnavailable):
        store.read(["a"])
    with pytest.raises(StoreUnavailable):
        store.write(["a"], some_states(1, as_of=1e15))


def test_a_dropped_store_is_unavailable_until_it_is_written_again(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.write(["a"], some_states(1, as_of=1e15))
    store.drop()
    with pytest.raises(StoreUnavailable):
        store.read(["a"])
    store.create()
    assert store.count() == 0
