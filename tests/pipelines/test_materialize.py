"""Materializing in parts: the same rows as in one, whatever stops it on the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue import Catalogue
from features.catchup import LiveUpdater
from features.clock import microseconds
from features.errors import EmptyLog
from features.event import Event
from features.fold import Folder, Spine
from features.home import Home
from features.inbox import Delivery, Inbox
from features.log import EventLog, PartSize
from features.state import anchors
from features.stores import open_store
from pipelines.inbox import drained
from pipelines.materialize import Materialized, materialize
from tests.front_door import inbox

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

START = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = 12
SMALL = PartSize(subscribers=3)
"""Five parts: twelve people of the list and one stranger."""
Row = dict[str, Any]


def events() -> list[Row]:
    """Sends with clicks, some of them a scanner's, and visits of a stranger."""
    found = []
    for day in range(0, 30, 3):
        for person in range(PEOPLE):
            sent = START + timedelta(days=day, hours=person % 24)
            row = {"subscriber_id": f"s{person}", "campaign_id": f"c{day % 2}", "content": None}
            found.append(row | {"event_id": f"{day}-{person}-s", "event_type": "sent", "occurred_at": sent})
            clicked = sent + timedelta(seconds=(day + person) * 7 % 60)
            found.append(row | {"event_id": f"{day}-{person}-c", "event_type": "click", "occurred_at": clicked})
        visit = {"subscriber_id": "stranger", "campaign_id": None, "content": ["boats"], "event_type": "page_view"}
        found.append(visit | {"event_id": f"{day}-v", "occurred_at": START + timedelta(days=day)})
    return found


def people() -> list[Row]:
    """With an attribute that has the name of a thing of ours."""
    zones = ("Europe/Rome", "America/Lima", None)
    return [
        {"subscriber_id": f"s{i}", "created_at": START, "timezone": zones[i % 3], "part": f"p{i % 4}", "age": i}
        for i in range(PEOPLE)
    ]


def put(rows: list[Row], path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    campaigns = [{"campaign_id": f"c{i}", "content": [word]} for i, word in enumerate(("shoes", "hats"))]
    EventLog(home).append(
        put(events(), tmp_path / "events.parquet"),
        put(people(), tmp_path / "subscribers.parquet"),
        put(campaigns, tmp_path / "campaigns.parquet"),
    )
    return home


@pytest.fixture
def whole(home: Home) -> dict[str, tuple[float, bytes]]:
    """The rows of a run in one part. The store is empty again."""
    assert materialize(home, lambda share: None).parts == 1
    rows = stored(home)
    empty(home)
    return rows


def stored(home: Home) -> dict[str, tuple[float, bytes]]:
    with closing(sqlite3.connect(home.online)) as connection:
        return {key: (anchor, row) for key, anchor, row in connection.execute("SELECT * FROM states")}


def empty(home: Home) -> None:
    for file in home.online.parent.glob("online.db*"):
        file.unlink()


def in_parts(home: Home, share: Callable[[float], None] = lambda share: None, **options: Any) -> Materialized:
    return materialize(home, share, part_size=SMALL, **options)


class Stopped(Exception):
    """What ends a run in these tests."""


def stopped_after(home: Home, parts: int, **options: Any) -> None:
    """A run that dies when so many parts are in the store."""
    shares: list[float] = []

    def share(done: float) -> None:
        shares.append(done)
        if len(shares) == parts:
            raise Stopped

    with pytest.raises(Stopped):
        in_parts(home, share, **options)


def left_over(home: Home) -> list[str]:
    spilled = (home.var / "spill").rglob("*")
    return [path.name for path in (home.var / "materialize.json", *spilled) if path.exists()]


def test_parts_together_give_the_rows_of_one_run(home: Home, whole: dict[str, tuple[float, bytes]]) -> None:
    shares: list[float] = []
    done = in_parts(home, shares.append)
    assert (done.subscribers, done.folded, done.parts, done.taken_over) == (PEOPLE + 1, PEOPLE + 1, 5, 0)
    assert len(shares) == 5 and shares == sorted(shares) and shares[-1] == 1
    assert len(whole) == PEOPLE + 1
    assert stored(home) == whole
    assert left_over(home) == []


def test_many_events_make_parts_too(home: Home, whole: dict[str, tuple[float, bytes]]) -> None:
    assert materialize(home, lambda share: None, part_size=PartSize(events=len(events()) // 2)).parts == 2
    assert stored(home) == whole


def test_more_parts_than_people_are_none_the_worse(home: Home, whole: dict[str, tuple[float, bytes]]) -> None:
    assert materialize(home, lambda share: None, part_size=PartSize(events=15)).parts > PEOPLE + 1
    assert stored(home) == whole


def test_a_run_that_was_stopped_is_continued(home: Home, whole: dict[str, tuple[float, bytes]]) -> None:
    stopped_after(home, 2)
    assert left_over(home) == ["materialize.json"]
    first = len(stored(home))
    stopped_after(home, 1)
    second = len(stored(home))
    assert 0 < first < second <= PEOPLE
    shares: list[float] = []
    done = in_parts(home, shares.append)
    assert (done.taken_over, done.started_over, len(shares)) == (3, False, 2)
    assert (done.subscribers, done.folded) == (PEOPLE + 1, PEOPLE + 1 - second)
    assert stored(home) == whole
    assert left_over(home) == []


def test_a_run_stopped_after_its_last_part_has_nothing_left_to_do(
    home: Home, whole: dict[str, tuple[float, bytes]]
) -> None:
    stopped_after(home, 5)
    done = in_parts(home)
    assert (done.taken_over, done.folded) == (5, 0)
    assert stored(home) == whole
    assert left_over(home) == []


def test_what_a_killed_process_left_on_disk_is_cleared_away(home: Home, whole: dict[str, tuple[float, bytes]]) -> None:
    spilled = home.var / "spill" / "parts" / "events.parquet"
    spilled.parent.mkdir(parents=True)
    spilled.write_bytes(b"PAR1 half a file")
    in_parts(home)
    assert stored(home) == whole
    assert left_over(home) == []


def test_a_log_that_has_changed_is_done_from_the_start(home: Home, tmp_path: Path) -> None:
    stopped_after(home, 3)
    later = {"event_id": "later", "subscriber_id": "s1", "event_type": "open", "occurred_at": START + timedelta(40)}
    EventLog(home).append(put([later], tmp_path / "later.parquet"), None, None)
    done = in_parts(home)
    assert (done.taken_over, done.started_over, done.folded) == (0, True, PEOPLE + 1)
    rows = stored(home)
    empty(home)
    materialize(home, lambda share: None)
    assert stored(home) == rows


def emptied_store(home: Home) -> None:
    empty(home)


def cut_off_ledger(home: Home) -> None:
    (home.var / "materialize.json").write_bytes(b'{"job": {"log"')


def another_versions_ledger(home: Home) -> None:
    (home.var / "materialize.json").write_bytes(b'{"job": {"instant": 3}, "done": [0], "subscribers": 1}')


@pytest.mark.parametrize("meanwhile", [emptied_store, cut_off_ledger, another_versions_ledger])
def test_a_ledger_that_cannot_be_believed_is_ignored(
    home: Home, whole: dict[str, tuple[float, bytes]], meanwhile: Callable[[Home], None]
) -> None:
    stopped_after(home, 2)
    meanwhile(home)
    done = in_parts(home)
    assert (done.folded, done.started_over) == (PEOPLE + 1, True)
    assert stored(home) == whole


def older_rows(home: Home, others: bytes) -> None:
    """As materialized before somebody told more about the same days."""
    with closing(sqlite3.connect(home.online)) as connection, connection:
        connection.execute("UPDATE states SET row = ?, anchor = anchor - 1 WHERE subscriber_id = 's1'", (others,))


def other_rows(home: Home, others: bytes) -> None:
    """Of the same instant: a log that was corrected ends when it ended before."""
    with closing(sqlite3.connect(home.online)) as connection, connection:
        connection.execute("UPDATE states SET row = ? WHERE subscriber_id = 's1'", (others,))


def lost_rows(home: Home, others: bytes) -> None:
    """And as many of somebody else, so that counting would not tell."""
    with closing(sqlite3.connect(home.online)) as connection, connection:
        connection.execute("UPDATE states SET subscriber_id = 'somebody else' WHERE subscriber_id = 's1'")


@pytest.mark.parametrize("restored", [older_rows, other_rows, lost_rows])
def test_a_part_whose_rows_are_not_what_was_written_is_done_again(
    home: Home, whole: dict[str, tuple[float, bytes]], restored: Callable[[Home, bytes], None]
) -> None:
    stopped_after(home, 5)
    restored(home, whole["s2"][1])
    done = in_parts(home)
    assert (done.taken_over, done.started_over) == (4, False)
    assert 0 < done.folded < PEOPLE
    rows = stored(home)
    assert {one: rows[one] for one in whole} == whole
    assert left_over(home) == []


def test_rows_are_read_back_some_at_a_time(
    home: Home, whole: dict[str, tuple[float, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.materialize.ROWS_PER_READ", 2)
    stopped_after(home, 5)
    assert in_parts(home).folded == 0
    assert stored(home) == whole


def test_another_instant_is_another_job(home: Home) -> None:
    stopped_after(home, 2, as_of=START + timedelta(days=7))
    done = in_parts(home, as_of=START + timedelta(days=8))
    assert (done.taken_over, done.started_over) == (0, True)
    assert {anchor for anchor, _ in stored(home).values()} == {(START + timedelta(days=8)).timestamp() * 1e6}


def test_people_without_events_are_materialized_in_parts(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    EventLog(home).append(None, put(people(), tmp_path / "subscribers.parquet"), None)
    in_parts(home)
    rows = stored(home)
    assert len(rows) == PEOPLE
    empty(home)
    materialize(home, lambda share: None)
    assert stored(home) == rows


def test_without_a_log_there_is_nothing_to_materialize(tmp_path: Path) -> None:
    with pytest.raises(EmptyLog, match="inbox ingest"):
        materialize(Home(tmp_path), lambda share: None)
    assert not (tmp_path / "var" / "materialize.json").exists()


def test_the_verb_says_what_it_took_over(home: Home) -> None:
    with pytest.raises(Stopped):
        materialize(home, stop)
    said = inbox("materialize", "--home", home.root)
    assert said.code == 0
    assert "13 subscribers as of 2026-01-28" in said.out and "0 rows/s" in said.out
    assert "1 of 1 parts were taken over from an interrupted run." in said.out


def test_the_verb_says_when_it_could_not_continue(home: Home) -> None:
    stopped_after(home, 2)
    said = inbox("materialize", "--home", home.root)
    assert said.code == 0
    assert "mind: an interrupted run was for another log" in said.out
    assert "taken over" not in said.out
    assert "interrupted" not in inbox("materialize", "--home", home.root).out


def stop(share: float) -> None:
    raise Stopped


def test_live_events_may_come_meanwhile(home: Home) -> None:
    """Between two parts everybody does something: rows already written take it, and those to come are ahead by then."""
    materialize(home, lambda share: None, part_size=SMALL)
    names, box = [*(f"s{i}" for i in range(PEOPLE)), "stranger"], Inbox(home)
    at = microseconds(START + timedelta(days=40))

    def act(share: float) -> None:
        if not box.newest():
            visits = [Event(f"live-{who}", who, "page_view", at, at) for who in names]
            box.accept([Delivery("test", visits)], at)
            with LiveUpdater(home, box, open_store(home)) as live:
                live.catch_up()

    materialize(home, act, part_size=PartSize(subscribers=2))
    drained(home)
    catalogue = Catalogue.load(home.catalogue)
    with closing(open_store(home)) as store:
        rows, found = store.read(names, catalogue)
        assert found.all()
        assert (rows["last_page_view_at"] == [at] * len(names)).all()
        folder = Folder(EventLog(home).connect(), catalogue)
        spine = Spine(pa.array(names), anchors(rows), rows["spending_decayed_at"].copy())
        assert rows.tobytes() == folder.fold(spine).tobytes()
        materialize(home, lambda share: None)
        after, _ = store.read(names, catalogue)
        store.drop()
        materialize(home, lambda share: None)
        assert store.read(names, catalogue)[0].tobytes() == after.tobytes()
