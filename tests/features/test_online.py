"""The contract of online stores, held against each: what is read is what was written, rows never go back in time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from time import monotonic

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import StoreUnavailable
from features.online import ROWS_PER_TRANSACTION, Found, SqliteStateStore, StateStore
from features.online_redis import PREFIX, RedisStateStore
from features.resp import binary_command, connect, encoded
from features.state import States, identity
from tests.features.states import CATALOGUE, GROWN, some_states

Fresh = Callable[[], StateStore]


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """Makes an empty store, another one each time."""
    if request.param == "sqlite":
        return lambda: SqliteStateStore(tmp_path_factory.mktemp("store") / "deep" / "online.db")
    url, numbers = request.getfixturevalue("valkey").url, count()
    # What would be a pattern if nobody took care, and one the beginning of others.
    return lambda: RedisStateStore(url, prefix=f"[a-z]*?\\{next(numbers)}:")


@pytest.fixture
def store(fresh: Fresh) -> StateStore:
    made = fresh()
    made.create()
    return made


def store_bytes(store: StateStore, subscriber_id: str, row: bytes) -> None:
    """Put a row there that no ``write`` would."""
    if isinstance(store, SqliteStateStore):
        with closing(sqlite3.connect(store.path)) as connection, connection:
            connection.execute("UPDATE states SET row = ? WHERE subscriber_id = ?", (row, subscriber_id))
    elif isinstance(store, RedisStateStore):
        until = monotonic() + 5
        key = encoded(store.prefix + subscriber_id)
        with closing(connect(store.address, until)) as wire:
            anchor = wire.ask(binary_command(b"GETRANGE", key, b"0", b"7"), until)
            assert isinstance(anchor, bytes)
            wire.ask(binary_command(b"SET", key, anchor + row), until)


def test_what_is_read_is_what_was_written_in_the_order_asked_for(store: StateStore) -> None:
    states = some_states(3, as_of=1e15)
    assert store.write(["a", "b", "c"], states) == 3
    read, found = store.read(["c", "a", "c", "b"], CATALOGUE)
    assert read.tobytes() == states[[2, 0, 2, 1]].tobytes()
    assert found.tolist() == [True] * 4


def test_the_unknown_get_the_identity_row_and_are_not_found(store: StateStore) -> None:
    states = some_states(1, as_of=1e15)
    store.write(["a"], states)
    asked = ["nobody", "a", "", "a\0b", "\ud800", "nobody"]
    read, found = store.read(asked, CATALOGUE)
    assert found.tolist() == [False, True, False, False, False, False]
    assert read[found].tobytes() == states.tobytes()
    assert read[~found].tobytes() == identity(CATALOGUE, 5).tobytes()


def test_any_script_makes_an_id(store: StateStore) -> None:
    ids = ["", "a", "A", "é", "e\u0301", "日本", "🙂", "a b\r\n$3", "*", "'; DROP", "x" * 256]
    states = some_states(len(ids), as_of=1e15)
    assert store.write(ids, states) == len(ids) == store.count()
    assert store.read(ids, CATALOGUE)[0].tobytes() == states.tobytes()


def test_nobody_asked_for_is_an_empty_answer(store: StateStore) -> None:
    read, found = store.read([], CATALOGUE)
    assert len(read) == len(found) == 0
    assert read.dtype == identity(CATALOGUE, 0).dtype
    assert store.write([], read) == 0


def test_many_thousand_ids_are_one_question(store: StateStore) -> None:
    store.write(["a"], some_states(1, as_of=1e15))
    _, found = store.read([f"s{i}" for i in range(300_000)] + ["a"], CATALOGUE)
    assert found.sum() == 1


def test_a_list_longer_than_one_transaction_is_written_and_read_whole(store: StateStore) -> None:
    number = ROWS_PER_TRANSACTION + 1
    states = identity(CATALOGUE, number)
    states["recency_as_of"] = np.arange(number)
    ids = [f"s{i}" for i in range(number)]
    assert store.write(ids, states) == number == store.count()
    assert store.read(ids, CATALOGUE)[0].tobytes() == states.tobytes()


def test_an_older_row_never_replaces_a_newer_one(store: StateStore) -> None:
    new, old = some_states(1, as_of=2e15, seed=1), some_states(1, as_of=1e15, seed=2)
    assert store.write(["a"], new) == 1
    assert store.write(["a"], old) == 0
    assert store.read(["a"], CATALOGUE)[0].tobytes() == new.tobytes()


def test_a_row_of_the_same_instant_replaces_so_that_a_mended_run_counts(store: StateStore) -> None:
    first, mended = some_states(1, as_of=1e15, seed=1), some_states(1, as_of=1e15, seed=2)
    store.write(["a"], first)
    assert store.write(["a"], mended) == 1
    assert store.write(["a"], mended) == 1
    assert store.read(["a"], CATALOGUE)[0].tobytes() == mended.tobytes()


def test_a_row_without_any_anchor_gives_way_to_everything_and_replaces_nothing(store: StateStore) -> None:
    blank, known = identity(CATALOGUE, 1), some_states(1, as_of=1e15)
    assert store.write(["a"], blank) == 1
    assert store.newest() is None
    assert store.write(["a"], known) == 1
    assert store.write(["a"], blank) == 0
    assert store.read(["a"], CATALOGUE)[0].tobytes() == known.tobytes()
    assert store.newest() == 1e15


def test_the_latest_of_the_anchors_decides(store: StateStore) -> None:
    lately, before = some_states(1, as_of=1e15), some_states(1, as_of=1.5e15)
    lately["profile_as_of"] = 2e15
    store.write(["a"], lately)
    assert store.write(["a"], before) == 0
    assert store.newest() == 2e15


def test_an_anchor_is_compared_to_the_microsecond_and_before_1970_too(store: StateStore) -> None:
    instant = 1.7e15 + 1
    store.write(["a", "b"], some_states(2, as_of=instant))
    assert store.write(["a"], some_states(1, as_of=instant - 1)) == 0
    assert store.write(["b"], some_states(1, as_of=instant + 1)) == 1
    assert store.newest() == instant + 1
    store.write(["c"], some_states(1, as_of=-2e15))
    assert store.write(["c"], some_states(1, as_of=-1e15)) == 1
    assert store.write(["c"], some_states(1, as_of=-2e15)) == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=12), st.data())
def test_the_order_of_writes_does_not_matter(fresh: Fresh, writes: list[tuple[str, int]], data: st.DataObject) -> None:
    ends = []
    for order in (writes, data.draw(st.permutations(writes))):
        store = fresh()
        store.create()
        for subscriber_id, instant in order:
            store.write([subscriber_id], some_states(1, as_of=float(instant), seed=instant))
        read, found = store.read(list("abc"), CATALOGUE)
        ends.append((read.tobytes(), found.tolist(), store.count(), store.newest()))
    assert ends[0] == ends[1]


def test_rows_from_before_the_catalogue_grew_are_read_with_the_rest_unknown(store: StateStore) -> None:
    old = some_states(1, as_of=1e15)
    store.write(["old"], old)
    store.write(["new"], some_states(1, as_of=1e15, catalogue=GROWN))
    read, found = store.read(["old", "new"], GROWN)
    assert found.all()
    assert all(read[:1][field.name].tobytes() == old[field.name].tobytes() for field in CATALOGUE.fields)
    assert np.isnan(read["profile_score"][0])
    assert read["profile_country"][0] == -1


def test_rows_of_a_newer_catalogue_are_read_as_far_as_they_are_understood(store: StateStore) -> None:
    new = some_states(1, as_of=1e15, catalogue=GROWN)
    store.write(["a"], new)
    read, found = store.read(["a"], CATALOGUE)
    assert found.all()
    assert all(read[field.name].tobytes() == new[field.name].tobytes() for field in CATALOGUE.fields)


@pytest.mark.parametrize("row", [b"", b"\0" * 7, b"garbage" * 300], ids=["empty", "short", "long"])
def test_a_row_that_is_not_what_was_written_is_not_found_and_is_counted(store: StateStore, row: bytes) -> None:
    states = some_states(2, as_of=1e15)
    store.write(["damaged", "whole"], states)
    store_bytes(store, "damaged", row)
    read, found = store.read(["damaged", "whole"], CATALOGUE)
    assert found.tolist() == [False, True]
    assert read.tobytes() == identity(CATALOGUE, 1).tobytes() + states[1:].tobytes()
    assert store.damaged_rows == 1
    assert store.write(["damaged"], states[:1]) == 1
    assert store.read(["damaged"], CATALOGUE)[1].all()


def test_the_forgotten_are_unknown_again(store: StateStore) -> None:
    store.write(["remembered", "forgotten"], some_states(2, as_of=1e15))
    assert store.delete("forgotten") is True
    assert store.delete("forgotten") is False
    assert store.read(["forgotten", "remembered"], CATALOGUE)[1].tolist() == [False, True]
    assert store.count() == 1


def test_count_and_newest_of_an_empty_store(store: StateStore) -> None:
    assert store.count() == 0
    assert store.newest() is None


def test_a_dropped_store_can_be_made_again_and_is_empty_then(store: StateStore) -> None:
    store.write(["a"], some_states(1, as_of=2e15))
    store.drop()
    store.create()
    assert store.count() == 0
    assert store.newest() is None
    assert store.write(["a"], some_states(1, as_of=1e15)) == 1


def test_dropping_a_store_leaves_others_alone(fresh: Fresh) -> None:
    one, other = fresh(), fresh()
    for store in (one, other):
        store.write(["a"], some_states(1, as_of=1e15))
    one.drop()
    assert other.count() == 1
    assert other.newest() == 1e15


def test_a_closed_store_opens_itself_again(store: StateStore) -> None:
    store.write(["a"], some_states(1, as_of=1e15))
    for _ in range(2):
        assert store.read(["a"], CATALOGUE)[1].all()
        store.close()
        store.close()


def test_no_time_at_all_is_too_little(store: StateStore) -> None:
    store.write([f"s{i}" for i in range(5000)], some_states(5000, as_of=1e15))
    with pytest.raises(StoreUnavailable):
        store.read([f"s{i}" for i in range(5000)], CATALOGUE, timeout_s=0.0)
    assert store.read(["s1"], CATALOGUE)[1].all()


def test_threads_read_whole_rows_while_rows_are_replaced(store: StateStore) -> None:
    ids = [f"s{i}" for i in range(50)]
    versions = [some_states(50, as_of=float(instant), seed=instant) for instant in range(10)]
    store.write(ids, versions[0])
    known = [{version[i].tobytes() for version in versions} for i in range(50)]
    finished = threading.Event()

    def keep_reading() -> bool:
        whole = True
        while whole and not finished.is_set():
            read, _ = store.read(ids, CATALOGUE)
            whole = all(row.tobytes() in rows for row, rows in zip(read, known, strict=True))
        return whole

    with ThreadPoolExecutor(2) as readers:
        answers = [readers.submit(keep_reading) for _ in range(2)]
        for version in versions:
            store.write(ids, version)
        finished.set()
        assert all(answer.result() for answer in answers)


def test_writers_of_older_and_newer_rows_end_with_the_newest(store: StateStore) -> None:
    ids = [f"s{i}" for i in range(20)]
    versions = [some_states(20, as_of=float(instant), seed=instant) for instant in range(16)]
    with ThreadPoolExecutor(4) as writers:
        # Each writer has old and new ones, none of them in order.
        list(writers.map(lambda i: store.write(ids, versions[i * 7 % 16]), range(16)))
    assert store.read(ids, CATALOGUE)[0].tobytes() == versions[-1].tobytes()
    assert store.newest() == 15


def test_a_change_that_fails_changes_nothing(store: StateStore) -> None:
    states = some_states(1, as_of=1e15)
    store.write(["a"], states)

    def fail(states: States, found: Found) -> States:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.revise(["a"], fail, CATALOGUE)
    assert store.write(["a"], states) == 1
    assert store.read(["a"], CATALOGUE)[0].tobytes() == states.tobytes()


def test_revising_gives_the_rows_as_they_are_and_stores_what_comes_back(store: StateStore) -> None:
    store.write(["a"], some_states(1, as_of=1e15))
    seen = []

    def count_a_click(states: States, found: Found) -> States:
        seen.extend(found.tolist())
        states["click_count"] = [1, 2]
        return states

    assert store.revise(["a", "b"], count_a_click, CATALOGUE) == 2
    assert seen == [True, False]
    assert store.read(["b", "a"], CATALOGUE)[0]["click_count"].tolist() == [2, 1]


def test_revising_more_rows_than_go_in_one_trip_keeps_each_with_its_own(store: StateStore) -> None:
    ids = [f"s{i}" for i in range(2_345)]
    store.write(ids[::2], some_states(len(ids[::2]), as_of=1e15))

    def number(states: States, found: Found) -> States:
        states["click_count"] = np.arange(len(ids))
        return states

    assert store.revise(ids, number, CATALOGUE) == len(ids)
    assert store.read(ids, CATALOGUE)[0]["click_count"].tolist() == list(range(len(ids)))


def test_revising_does_not_turn_back_time_either(store: StateStore) -> None:
    states = some_states(1, as_of=2e15)
    store.write(["a"], states)

    def turn_back(states: States, found: Found) -> States:
        return some_states(1, as_of=1e15)

    assert store.revise(["a"], turn_back, CATALOGUE) == 0
    assert store.read(["a"], CATALOGUE)[0].tobytes() == states.tobytes()


def test_changes_by_several_at_once_are_all_kept(store: StateStore) -> None:
    ids = ["a", "b", "c"]
    store.write(ids[:2], some_states(2, as_of=1e15))
    before = store.read(ids, CATALOGUE)[0]["sent_count"]

    def count_one(states: States, found: Found) -> States:
        states["sent_count"] += 1
        return states

    def keep_counting(who: int) -> int:
        # Everybody shares `b`.
        return sum(store.revise([ids[who % 2 * 2], "b"], count_one, CATALOGUE) for _ in range(200))

    with ThreadPoolExecutor(4) as writers:
        assert sum(writers.map(keep_counting, range(4))) == 1600
    assert (store.read(ids, CATALOGUE)[0]["sent_count"] - before).tolist() == [400, 800, 400]


def test_a_prefix_is_agreed_on() -> None:
    """A deployment may watch these keys, size its memory or set its rights by them."""
    assert PREFIX == "inbox:state:"
