"""Live rows are the rows of one fold, whoever brings which events when, and whoever is killed meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue import Catalogue
from features.catchup import LiveUpdater
from features.event import Event, to_table
from features.fold import Folder, Spine
from features.forgetting import forget
from features.home import Home
from features.inbox import Delivery, Inbox
from features.judge import DEFAULT_WEIGHTS, KIND_WEIGHTS, KINDS
from features.log import EventLog
from features.merges import merge
from features.state import States, anchors
from features.stores import open_store
from tests.features.crowds import CAMPAIGNS, Crowd
from tests.features.logs import CATALOGUE, SUBSCRIBER_SCHEMA
from tests.serving import faults

# Ibis 12 calls what DuckDB 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
PROCESSES = multiprocessing.get_context("forkserver")


@pytest.fixture(params=["sqlite", "valkey"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """A home whose online store is of either kind, and empty."""
    if request.param == "sqlite":
        yield Home(tmp_path / "home")
        return
    valkey: faults.Valkey = request.getfixturevalue("valkey")
    home = Home(tmp_path / "home", store_url=valkey.url.removesuffix("/0") + "/11")
    yield home
    with closing(open_store(home)) as store:
        store.drop()


def begun(home: Home, crowd: Crowd, share: float = 0.4) -> list[Event]:
    """Profiles, campaigns and the first of a crowd's events in the log, and all of that in the store; give the other events."""
    files = home.root / "files"
    files.mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist([vars(p) for p in crowd.profiles], SUBSCRIBER_SCHEMA), files / "subscribers.parquet"
    )
    campaigns = [{"campaign_id": name, "content": list(words)} for name, words in CAMPAIGNS.items()]
    pq.write_table(pa.Table.from_pylist(campaigns), files / "campaigns.parquet")
    EventLog(home).append(None, files / "subscribers.parquet", files / "campaigns.parquet")
    CATALOGUE.save(home.catalogue)
    first = crowd.events[: int(len(crowd.events) * share)]
    if first:
        EventLog(home).take(to_table(first))
        Inbox(home).push_clock(first[-1].received_us)
        materialized(home, first[-1].received_us + 1)
    return crowd.events[len(first) :]


def materialized(home: Home, as_of: int) -> None:
    con = EventLog(home).connect()
    ids = con.to_pyarrow(con.table("subscribers").select("subscriber_id"))["subscriber_id"].combine_chunks()
    states = Folder(con, CATALOGUE).fold(Spine(ids, np.full(len(ids), float(as_of))))
    with closing(open_store(home)) as store:
        store.write(ids.to_pylist(), states)


def accept(home: Home, events: Sequence[Event]) -> None:
    """As a provider sends them: some again and again."""
    repeated = [event for event in events for _ in range(1 + 45 * (hash(event.event_id) % 20 == 0))]
    Inbox(home).accept([Delivery("test", repeated)], now_us=events[-1].received_us)


def updater(home: Home) -> LiveUpdater:
    return LiveUpdater(home, Inbox(home), open_store(home))


def portions(
    events: Sequence[Event], chance: random.Random, sizes: Sequence[int] = (1, 30, 200)
) -> Iterator[list[Event]]:
    left = list(events)
    while left:
        size = chance.choice(sizes)
        yield left[:size]
        left = left[size:]


def assert_folded(home: Home, names: Sequence[str]) -> States:
    """Every row is what a fold of the whole log gives, as of what the row knows and at its landmark."""
    Inbox(home).drain(EventLog(home))
    with closing(open_store(home)) as store:
        rows, found = store.read(names, CATALOGUE)
    assert found.all()
    spine = Spine(pa.array(list(names)), anchors(rows), rows["spending_decayed_at"].copy())
    expected = Folder(EventLog(home).connect(), CATALOGUE).fold(spine)
    for name in rows.dtype.names or ():
        np.testing.assert_array_equal(rows[name], expected[name], err_msg=name)
    assert rows.tobytes() == expected.tobytes()
    return rows


def assert_all_in(home: Home, rows: States, names: Sequence[str]) -> None:
    known = Inbox(home).events_of(names)
    for name, as_of in zip(names, anchors(rows), strict=True):
        assert not known[name] or known[name][-1].received_us < as_of


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_portions_come_the_rows_are_those_of_one_fold(home: Home, seed: int) -> None:
    crowd = Crowd(seed)
    chance = random.Random(seed)
    events = begun(home, crowd)
    with updater(home) as live:
        for number, portion in enumerate(portions(events, chance)):
            accept(home, portion)
            live.catch_up()
            if number == 2:
                assert_all_in(home, assert_folded(home, crowd.names), crowd.names)
        assert_all_in(home, assert_folded(home, crowd.names), crowd.names)
        assert live.catch_up().events == 0


def test_without_any_past_everybody_begins_with_the_first_event(home: Home) -> None:
    crowd = Crowd(3, people=20)
    events = begun(home, crowd, share=0)
    strangers = [
        replace(event, subscriber_id=f"new-{event.subscriber_id}", event_id=f"n{event.event_id}") for event in events
    ]
    with updater(home) as live:
        for portion in portions(sorted([*events, *strangers], key=lambda e: e.received_us), random.Random(3), (300,)):
            accept(home, portion)
            live.catch_up()
    names = sorted({event.subscriber_id for event in (*events, *strangers)})
    assert_all_in(home, assert_folded(home, names), names)


def test_materializing_afterwards_gives_the_rows_of_a_store_made_from_nothing(home: Home, tmp_path: Path) -> None:
    crowd = Crowd(4)
    events = begun(home, crowd)
    with updater(home) as live:
        for portion in portions(events, random.Random(4), (200,)):
            accept(home, portion)
            live.catch_up()
    Inbox(home).drain(EventLog(home))
    as_of = Inbox(home).newest() or 0
    materialized(home, as_of + 1)
    with closing(open_store(home)) as store:
        rows, _ = store.read(crowd.names, CATALOGUE)
        store.drop()
    materialized(home, as_of + 1)
    with closing(open_store(home)) as store:
        assert store.read(crowd.names, CATALOGUE)[0].tobytes() == rows.tobytes()


def test_many_threads_bring_events_to_the_same_people_at_once(home: Home) -> None:
    crowd = Crowd(5, people=30)
    events = begun(home, crowd)

    def work(mine: list[Event]) -> None:
        with updater(home) as live:
            for portion in portions(mine, random.Random(1), (25,)):
                accept(home, portion)
                live.catch_up()

    threads = [threading.Thread(target=work, args=(events[part::3],)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_all_in(home, assert_folded(home, crowd.names), crowd.names)


def follow(root: Path, store_url: str | None) -> None:
    with updater(Home(root, store_url)) as live:
        while True:
            live.catch_up()
            time.sleep(0.01)


def test_processes_may_be_killed_at_any_moment(home: Home) -> None:
    crowd = Crowd(6, people=30)
    events = begun(home, crowd)
    followers = [PROCESSES.Process(target=follow, args=(home.root, home.store_url)) for _ in range(2)]
    for process in followers:
        process.start()
    try:
        for number, portion in enumerate(portions(events, random.Random(6), (40,))):
            accept(home, portion)
            time.sleep(0.3)
            if number % 3 == 2:
                process = followers.pop(0)
                os.kill(process.pid or 0, signal.SIGKILL)
                process.join()
                followers.append(PROCESSES.Process(target=follow, args=(home.root, home.store_url)))
                followers[-1].start()
    finally:
        for process in followers:
            process.kill()
            process.join()
    with updater(home) as live:
        live.catch_up()
    assert_all_in(home, assert_folded(home, crowd.names), crowd.names)


def test_a_store_that_came_back_from_an_earlier_snapshot_gets_all_of_it_again(tmp_path: Path) -> None:
    home, crowd = Home(tmp_path / "home"), Crowd(7, people=20)
    events = begun(home, crowd)
    shutil.copy(home.online, tmp_path / "snapshot.db")
    with updater(home) as running:
        accept(home, events[:200])
        running.catch_up()
        for path in home.online.parent.glob("online.db*"):
            path.unlink()
        shutil.copy(tmp_path / "snapshot.db", home.online)
        with updater(home) as restarted:
            restarted.catch_up()
        assert_all_in(home, assert_folded(home, crowd.names), crowd.names)
        for path in home.online.parent.glob("online.db*"):
            path.unlink()
        shutil.copy(tmp_path / "snapshot.db", home.online)
        running.catch_up()
        assert_all_in(home, assert_folded(home, crowd.names), crowd.names)


def test_what_was_brought_is_not_looked_at_again_after_a_restart(home: Home) -> None:
    crowd = Crowd(8, people=10)
    events = begun(home, crowd)
    accept(home, events)
    with updater(home) as live:
        assert live.catch_up().events == len(events)
    with updater(home) as live:
        assert live.catch_up().subscribers == 0


def test_two_who_are_one_have_one_row_with_both_histories(home: Home) -> None:
    crowd = Crowd(9, people=12)
    events = begun(home, crowd)
    accept(home, events[:60])
    with updater(home) as live:
        live.catch_up()
        merge(home, crowd.names[0], crowd.names[1])
        assert live.refold([crowd.names[0]]).refolded == 1
        merge(home, crowd.names[2], crowd.names[3])
        # Nobody said so here: the next event of either finds the row under the former id.
        late = [replace(events[60], event_id=f"x{i}", subscriber_id=crowd.names[i]) for i in (2, 4)]
        accept(home, [*late, *events[60:]])
        live.catch_up()
        assert not live.store.read([crowd.names[0], crowd.names[2]], CATALOGUE)[1].any()
    names = [crowd.names[1], *crowd.names[3:]]
    assert_all_in(home, assert_folded(home, names), names)


def test_nobody_waits_for_those_whom_a_damaged_log_cannot_tell_about(tmp_path: Path) -> None:
    home, crowd = Home(tmp_path / "home"), Crowd(10, people=10)
    events = begun(home, crowd)
    (damaged,) = (home.event_log / "events").glob("*.parquet")
    whole = damaged.read_bytes()
    sends = [replace(e, event_type="sent", occurred_us=e.received_us) for e in events[:40]]
    stranger = replace(sends[0], event_id="s", subscriber_id="stranger")
    with updater(home) as live:
        accept(home, sends[:1])
        live.catch_up()
        damaged.write_bytes(whole[: len(whole) // 2])
        accept(home, [stranger, *sends])
        caught = live.catch_up()
        assert (caught.failed, caught.events) == (1, len(sends))
        damaged.write_bytes(whole)
        assert live.catch_up().failed == 0
    names = sorted({"stranger", *(e.subscriber_id for e in sends)})
    assert_all_in(home, assert_folded(home, names), names)


def test_a_catalogue_that_grew_is_taken_up(home: Home) -> None:
    crowd = Crowd(11, people=10)
    events = begun(home, crowd)
    with updater(home) as live:
        accept(home, events[:50])
        live.catch_up()
        grown = CATALOGUE.grown(["gloves"], [], [])
        grown.save(home.catalogue)
        at = events[-1].received_us
        accept(home, [Event("g", crowd.names[0], "page_view", at, at, content=("gloves",))])
        live.catch_up()
        states, _ = live.store.read(crowd.names[:1], grown)
        assert states["content_engaged"][0, grown.content.index("gloves") + 1] > 0


def test_without_a_catalogue_there_is_nothing_to_do_yet(home: Home) -> None:
    crowd = Crowd(12, people=3)
    accept(home, crowd.events)
    with updater(home) as live:
        assert live.catch_up().subscribers == 0
        Catalogue().save(home.catalogue)
        assert live.catch_up().events == len(crowd.events)


# --- guesses: in the next score at once, exact a little later ------------------------------------------------------------


def test_a_strangers_click_is_in_the_store_before_anybody_is_folded(home: Home) -> None:
    crowd = Crowd(13, people=5)
    at = begun(home, crowd)[-1].received_us
    with updater(home) as live:
        accept(home, [Event("c", "stranger", "click", at - 1, at)])
        caught = live.catch_up(settle=False)
        assert (caught.events, caught.refolded, live.owed) == (1, 0, 1)
        states, found = live.store.read(["stranger"], CATALOGUE)
        assert found[0]
        assert states["click_count"][0] == 1
        assert anchors(states)[0] == at + 1
        assert (live.settle().refolded, live.owed) == (1, 0)
    assert_folded(home, ["stranger"])


def test_guessed_rows_become_those_of_one_fold(home: Home) -> None:
    crowd = Crowd(14, people=30)
    events = begun(home, crowd)
    # A file told the log of the last week: nearly everybody's events lack what bears on them.
    Inbox(home).raise_horizon(events[0].received_us + 3 * 86_400_000_000)
    done = threading.Event()
    with updater(home) as live:

        def settle_now_and_then() -> None:
            while not done.wait(0.2):
                live.settle()

        settler = threading.Thread(target=settle_now_and_then)
        settler.start()
        try:
            for portion in portions(events, random.Random(14), (25,)):
                accept(home, portion)
                live.catch_up(settle=False)
        finally:
            done.set()
            settler.join()
        live.catch_up()
        assert live.owed == 0
    assert_all_in(home, assert_folded(home, crowd.names), crowd.names)


def test_what_was_guessed_before_a_kill_is_folded_after_it(home: Home) -> None:
    crowd = Crowd(15, people=10)
    events = begun(home, crowd)
    strangers = [replace(event, event_id=f"n{event.event_id}", subscriber_id="stranger") for event in events[:30]]
    accept(home, strangers)
    with updater(home) as killed:
        killed.catch_up(settle=False)
        assert killed.owed == 1
    with updater(home) as live:
        assert live.catch_up().refolded == 1
    assert_folded(home, ["stranger"])


def test_rows_are_revised_by_the_weights_they_were_made_with(tmp_path: Path) -> None:
    home, crowd = Home(tmp_path / "home"), Crowd(16, people=12)
    events = begun(home, crowd)
    CATALOGUE.save(home.materialized)
    # A training learnt that clicks are machines', and nothing was materialized since.
    weights = list(DEFAULT_WEIGHTS)
    weights[KINDS.index("click") * KIND_WEIGHTS] = -50.0
    replace(CATALOGUE, machines=tuple(weights)).save(home.catalogue)
    with updater(home) as live:
        for portion in portions(events, random.Random(16), (60,)):
            accept(home, portion)
            live.catch_up()
    assert_all_in(home, assert_folded(home, crowd.names), crowd.names)


class Interrupted(LiveUpdater):
    """Something happens between reading what a row is made from and writing it, once."""

    happens: Callable[[], object] = staticmethod(lambda: None)

    def _happen(self) -> None:
        happens, self.happens = self.happens, lambda: None
        happens()

    def _put(self, *given: Any) -> list[str]:
        self._happen()
        return super()._put(*given)

    def _revise(self, *given: Any) -> list[str]:
        self._happen()
        return super()._revise(*given)


def interrupted(home: Home) -> Interrupted:
    return Interrupted(home, Inbox(home), open_store(home))


@pytest.mark.parametrize("settle", [True, False])
def test_who_is_forgotten_while_a_row_is_made_has_none(home: Home, settle: bool) -> None:
    crowd = Crowd(17, people=4)
    at = begun(home, crowd)[-1].received_us

    def leave() -> None:
        forget(home, "stranger")
        live.store.delete("stranger")

    with interrupted(home) as live:
        accept(home, [Event("c", "stranger", "click", at - 1, at)])
        if settle:
            live.catch_up(settle=False)
        live.happens = leave
        live.catch_up()
        assert live.owed == 0
        assert not live.store.read(["stranger"], CATALOGUE)[1].any()


def test_a_fold_by_an_older_catalogue_does_not_replace_a_materialized_row(tmp_path: Path) -> None:
    home, crowd = Home(tmp_path / "home"), Crowd(18, people=4)
    at = begun(home, crowd)[-1].received_us
    grown = CATALOGUE.grown(["gloves"], [], [])
    with interrupted(home) as live:
        accept(home, [Event("c", "stranger", "page_view", at - 1, at, content=("gloves",))])
        live.catch_up(settle=False)
        live.happens = lambda: grown.save(home.materialized)
        live.catch_up()
        assert live.owed == 0
        states, _ = live.store.read(["stranger"], grown)
        assert states["content_engaged"][0, grown.content.index("gloves") + 1] > 0


def test_without_its_newest_row_a_store_is_looked_through_once(tmp_path: Path) -> None:
    home, crowd = Home(tmp_path / "home"), Crowd(19, people=6)
    events = begun(home, crowd)
    accept(home, events)
    with updater(home) as live:
        live.catch_up()
        newest = max(events, key=lambda event: event.received_us).subscriber_id
        live.store.delete(newest)
        assert live.catch_up().subscribers > 0
        assert live.catch_up().subscribers == 0
