"""The log on disk: once, whole, and the same again."""

from __future__ import annotations

import resource
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.contract import EVENT_SCHEMA
from features.errors import EmptyInput, EmptyLog, UnreadableFile, Unwritable, WrongColumnType
from features.home import Home
from features.log import QUARANTINE_SCHEMA, EventLog, IntakeReport, PartSize

# Ibis 12 calls what DuckDB 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

Row = dict[str, Any]
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def log(home: Home) -> EventLog:
    return EventLog(home)


def event(event_id: str, minute: int = 0, **changes: Any) -> Row:
    moment = NOON + timedelta(minutes=minute)
    row = {"event_id": event_id, "subscriber_id": "s1", "event_type": "open", "occurred_at": moment}
    return row | {"received_at": moment, "value": None} | changes


def person(subscriber_id: str, **attributes: Any) -> Row:
    return {"subscriber_id": subscriber_id, "created_at": NOON - timedelta(days=1)} | attributes


def saved(rows: Sequence[Row], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.Table.from_pylist(list(rows)).schema
    if "value" in schema.names:
        schema = schema.set(schema.get_field_index("value"), pa.field("value", pa.float64()))
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path)
    return path


def content(home: Home) -> dict[str, tuple[int, bytes]]:
    """Every Parquet file of the installation: when it was written, and what is in it."""
    files = sorted(home.var.rglob("*.parquet"))
    return {str(file.relative_to(home.var)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def rows_of(log: EventLog, table: str, *columns: str) -> list[Row]:
    con = log.connect()
    asked = con.table(table)
    return list(con.to_pyarrow(asked.select(*columns) if columns else asked).to_pylist())


def add_up(report: IntakeReport) -> int:
    return report.accepted + report.repeated + report.quarantined + report.subscribers + report.campaigns


def test_what_is_appended_can_be_asked_about(log: EventLog, tmp_path: Path) -> None:
    events = saved([event("b", 2), event("a", 1, value=2.5)], tmp_path / "events.parquet")
    subscribers = saved([person("s1", plan="free", age=31)], tmp_path / "subscribers.parquet")
    campaigns = saved([{"campaign_id": "c1", "sent_at": NOON, "links": 3}], tmp_path / "campaigns.parquet")
    report = log.append(events, subscribers, campaigns)
    assert report == IntakeReport(2, 0, 0, {}, (), 1, 1)
    assert report.summary() == "2 new events, 1 subscribers and 1 campaigns taken in; 0 rows repeated, 0 quarantined"
    assert [row["event_id"] for row in rows_of(log, "events")] == ["a", "b"]
    assert rows_of(log, "subscribers", "subscriber_id", "plan", "age") == [
        {"subscriber_id": "s1", "plan": "free", "age": 31.0}
    ]
    assert rows_of(log, "campaigns", "campaign_id", "links") == [{"campaign_id": "c1", "links": 3.0}]


def test_taking_the_same_files_twice_changes_nothing(log: EventLog, home: Home, tmp_path: Path) -> None:
    rows = [event("a"), event("a"), event("a", 1, event_type="click"), event("b", event_type="sneeze"), event("c")]
    events = saved(rows, tmp_path / "events.parquet")
    subscribers = saved([person("s1", age=1), person("jane@example.com", age=2)], tmp_path / "subscribers.parquet")
    first = log.append(events, subscribers, None)
    before, fingerprint = content(home), log.fingerprint()
    second = log.append(events, subscribers, None)
    assert (first.accepted, first.repeated, first.quarantined) == (2, 1, 3)
    assert (second.accepted, second.repeated, second.quarantined) == (0, 3, 3)
    assert first.reasons == second.reasons
    assert add_up(first) == add_up(second) == 7
    assert content(home) == before
    assert log.fingerprint() == fingerprint


def test_the_quarantine_says_where_each_bad_row_came_from(log: EventLog, home: Home, tmp_path: Path) -> None:
    log.append(saved([event("a"), event("b", event_type="sneeze")], tmp_path / "monday.parquet"), None, None)
    log.append(saved([event("c", event_type="cough"), event("d")], tmp_path / "tuesday.parquet"), None, None)
    tables = [pq.read_table(file).to_pylist() for file in home.quarantine.glob("*.parquet")]
    found = sorted(
        (row["table"], row["source"], row["row"], row["reason"].split(";")[0]) for rows in tables for row in rows
    )
    reason = "event_type is unknown"
    assert found == [("events", "monday.parquet", 2, reason), ("events", "tuesday.parquet", 1, reason)]


def test_a_known_event_told_otherwise_is_quarantined_and_the_log_stands(log: EventLog, tmp_path: Path) -> None:
    log.append(saved([event("a"), event("b")], tmp_path / "first.parquet"), None, None)
    again = [event("a", event_type="click"), event("b", received_at=NOON + timedelta(days=1)), event("c")]
    report = log.append(saved(again, tmp_path / "second.parquet"), None, None)
    assert (report.accepted, report.repeated, report.quarantined) == (1, 1, 1)
    assert report.reasons == {"event_id was seen before with other content: the first one is kept": 1}
    kept = {row["event_id"]: (row["event_type"], row["received_at"]) for row in rows_of(log, "events")}
    assert kept == dict.fromkeys("abc", ("open", NOON))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_log_does_not_depend_on_the_order_of_a_files_rows(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    drawn = st.builds(event, st.sampled_from("abcd"), st.integers(0, 2), event_type=st.sampled_from(["open", "click"]))
    rows = data.draw(st.lists(drawn, min_size=1, max_size=10))
    names = []
    for order in (rows, data.draw(st.permutations(rows))):
        place = tmp_path_factory.mktemp("order")
        log = EventLog(Home(place))
        assert add_up(log.append(saved(order, place / "events.parquet"), None, None)) == len(rows)
        names.append((log.fingerprint(), [file.name for file in (place / "var" / "log" / "events").iterdir()]))
    assert names[0] == names[1]


def test_many_rows_in_any_order_make_the_same_file(tmp_path: Path) -> None:
    rows = [event(f"e{number:06}", number % 977) for number in range(150_000)]
    prints = []
    for name, order in (("one", rows), ("other", rows[::-1])):
        log = EventLog(Home(tmp_path / name))
        log.append(saved(order, tmp_path / f"{name}.parquet"), None, None)
        prints.append(log.fingerprint())
    assert prints[0] == prints[1]


def test_a_leftover_of_a_crash_is_ignored_and_the_next_ingest_completes(
    log: EventLog, home: Home, tmp_path: Path
) -> None:
    path = saved([event("a")], tmp_path / "events.parquet")
    directory = home.event_log / "events"
    directory.mkdir(parents=True)
    (directory / "incoming.tmp").write_bytes(b"PAR1 half a file")
    with pytest.raises(EmptyLog):
        log.connect()
    assert log.append(path, None, None).accepted == 1
    assert [file.suffix for file in directory.iterdir()] == [".parquet"]
    assert len(rows_of(log, "events")) == 1


def test_a_fault_in_one_file_leaves_all_as_it_was(log: EventLog, home: Home, tmp_path: Path) -> None:
    events = saved([event("a")], tmp_path / "events.parquet")
    (tmp_path / "subscribers.csv").write_text("subscriber_id,created_at\n")
    with pytest.raises(EmptyInput):
        log.append(events, tmp_path / "subscribers.csv", None)
    assert content(home) == {}
    assert not home.event_log.exists()


def test_ingests_at_the_same_time_wait_for_each_other(home: Home, tmp_path: Path) -> None:
    path = saved([event(f"e{number}") for number in range(1000)], tmp_path / "events.parquet")
    reports: list[IntakeReport] = []
    threads = [
        threading.Thread(target=lambda: reports.append(EventLog(home).append(path, None, None))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.accepted for report in reports) == [0, 0, 0, 1000]
    assert len(list((home.event_log / "events").iterdir())) == 1


def test_a_directory_is_taken_in_file_by_file(log: EventLog, home: Home, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    saved([event("a"), event("x", event_type="sneeze")], drop / "monday.parquet")
    log.append(drop, None, None)
    saved([event("b"), event("y", event_type="sneeze")], drop / "tuesday.parquet")
    report = log.append(drop, None, None)
    assert (report.accepted, report.repeated, report.quarantined) == (1, 1, 2)
    assert len(list(home.quarantine.iterdir())) == 2


def test_a_subscribers_new_row_replaces_the_old_and_keeps_what_the_file_does_not_say(
    log: EventLog, tmp_path: Path
) -> None:
    old = [
        person("s1", consent_profiling=False, plan="free", Age=1),
        person("s2", consent_profiling=True, plan="free", Age=2),
    ]
    log.append(None, saved(old, tmp_path / "old.parquet"), None)
    new = [person("s1", plan="paid", age=9, city="Rome"), person("s3", plan=None, age=3, city="Oslo")]
    assert log.append(None, saved(new, tmp_path / "new.parquet"), None).subscribers == 2
    assert rows_of(log, "subscribers", "subscriber_id", "consent_profiling", "plan", "Age", "city") == [
        {"subscriber_id": "s1", "consent_profiling": False, "plan": "paid", "Age": 9.0, "city": "Rome"},
        {"subscriber_id": "s2", "consent_profiling": True, "plan": "free", "Age": 2.0, "city": None},
        {"subscriber_id": "s3", "consent_profiling": None, "plan": None, "Age": 3.0, "city": "Oslo"},
    ]


def test_an_attribute_that_changes_its_type_is_refused(log: EventLog, home: Home, tmp_path: Path) -> None:
    log.append(None, saved([person("s1", age=1)], tmp_path / "old.parquet"), None)
    before = content(home)
    with pytest.raises(WrongColumnType, match=r"subscribers\.age is string, but a number, as in the files before"):
        log.append(None, saved([person("s1", age="old")], tmp_path / "new.parquet"), None)
    assert content(home) == before


def test_whoever_has_events_is_a_subscriber(log: EventLog, tmp_path: Path) -> None:
    events = saved(
        [event("a", 5, subscriber_id="stranger"), event("b", 3, subscriber_id="stranger")], tmp_path / "e.parquet"
    )
    log.append(events, saved([person("s1", plan="free")], tmp_path / "s.parquet"), None)
    _, stranger = rows_of(log, "subscribers")
    unknown = dict.fromkeys(["timezone", "consent_profiling", "consent_open_tracking", "plan"])
    assert stranger == {"subscriber_id": "stranger", "created_at": NOON + timedelta(minutes=3)} | unknown


def test_tables_never_given_are_empty_and_typed(log: EventLog, tmp_path: Path) -> None:
    log.append(saved([event("a")], tmp_path / "e.parquet"), None, None)
    con = log.connect()
    assert con.table("campaigns").count().execute() == 0
    assert str(con.table("campaigns").schema()["content"]) == "array<string>"
    assert con.table("subscribers").columns == (
        "subscriber_id", "created_at", "timezone", "consent_profiling", "consent_open_tracking",
    )  # fmt: skip


def test_a_home_may_have_any_name(tmp_path: Path) -> None:
    log = EventLog(Home(tmp_path / "list=x [1]*'"))
    log.append(saved([event("a")], tmp_path / "e.parquet"), saved([person("s1")], tmp_path / "s.parquet"), None)
    assert log.connect().table("events").columns == tuple(EVENT_SCHEMA.names)
    assert log.end() == NOON


def test_a_column_of_nothing_says_nothing(log: EventLog, tmp_path: Path) -> None:
    log.append(None, saved([person("s1", consent_profiling=False)], tmp_path / "old.parquet"), None)
    log.append(None, saved([person("s1", consent_profiling=None)], tmp_path / "new.parquet"), None)
    assert rows_of(log, "subscribers", "consent_profiling") == [{"consent_profiling": False}]


def test_a_log_of_subscribers_alone_opens(log: EventLog, tmp_path: Path) -> None:
    log.append(None, saved([person("s1")], tmp_path / "s.parquet"), None)
    con = log.connect()
    assert con.to_pyarrow(con.table("events")).schema.names == EVENT_SCHEMA.names
    assert log.start() == log.end() == NOON - timedelta(days=1)


def test_the_log_begins_and_ends_with_what_was_received(log: EventLog, tmp_path: Path) -> None:
    late = event("b", 5, received_at=NOON + timedelta(hours=3))
    log.append(saved([event("a", 1), late], tmp_path / "e.parquet"), None, None)
    assert log.start() == NOON + timedelta(minutes=1)
    assert log.end() == NOON + timedelta(hours=3)
    assert log.end().tzinfo is UTC


def test_an_empty_log_says_how_to_fill_it(log: EventLog) -> None:
    for ask in (log.connect, log.start, log.end, log.fingerprint):
        with pytest.raises(EmptyLog, match="inbox ingest"):
            ask()


def test_the_fingerprint_changes_with_the_log(log: EventLog, tmp_path: Path) -> None:
    log.append(saved([event("a")], tmp_path / "1.parquet"), None, None)
    prints = [log.fingerprint()]
    log.append(None, saved([person("s1")], tmp_path / "2.parquet"), None)
    prints.append(log.fingerprint())
    log.append(saved([event("b")], tmp_path / "3.parquet"), None, None)
    prints.append(log.fingerprint())
    assert len(set(prints)) == 3


def test_a_connection_keeps_the_log_as_it_was(log: EventLog, tmp_path: Path) -> None:
    log.append(saved([event("a")], tmp_path / "1.parquet"), saved([person("s1", age=1)], tmp_path / "s.parquet"), None)
    con = log.connect()
    log.append(saved([event("b")], tmp_path / "2.parquet"), saved([person("s1", age=2)], tmp_path / "t.parquet"), None)
    assert con.table("events").count().execute() == 1
    assert con.to_pyarrow(con.table("subscribers"))["age"].to_pylist() == [1.0]


def test_a_damaged_file_of_the_log_is_named_as_such(log: EventLog, home: Home, tmp_path: Path) -> None:
    path = saved([event("a")], tmp_path / "e.parquet")
    log.append(path, None, None)
    (file,) = (home.event_log / "events").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    for ask in (log.connect, log.end, lambda: log.append(path, None, None)):
        with pytest.raises(UnreadableFile, match="a file of the log itself is damaged"):
            ask()


def test_an_event_from_the_future_is_quarantined_and_moves_nothing(log: EventLog, tmp_path: Path) -> None:
    far = datetime(2099, 1, 1, tzinfo=UTC)
    report = log.append(
        saved([event("a"), event("b", occurred_at=far, received_at=far)], tmp_path / "e.parquet"), None, None
    )
    assert (report.accepted, report.quarantined) == (1, 1)
    assert "occurred_at is in the future: check the clock that wrote it" in report.reasons
    assert log.end() < datetime.now(UTC)


def test_a_file_whose_clock_runs_a_little_fast_is_taken_back_and_told_again_is_a_repeat(
    log: EventLog, tmp_path: Path
) -> None:
    soon = datetime.now(UTC) + timedelta(hours=20)
    rows = [event("a"), event("b", occurred_at=soon, received_at=soon), event("c", received_at=soon)]
    path = saved(rows, tmp_path / "e.parquet")
    assert log.append(path, None, None).accepted == 3
    assert log.end() <= datetime.now(UTC)
    before = rows_of(log, "events")
    report = log.append(path, None, None)
    assert (report.accepted, report.repeated, report.quarantined) == (0, 3, 0)
    twice = saved([rows[1], rows[1]], tmp_path / "twice.parquet")
    assert log.append(twice, None, None).repeated == 2
    assert rows_of(log, "events") == before
    (late,) = (row for row in before if row["event_id"] == "b")
    assert late["occurred_at"] == late["received_at"]
    otherwise = saved([rows[1] | {"event_type": "click"}, event("a", 5)], tmp_path / "other.parquet")
    assert log.append(otherwise, None, None).quarantined == 2


def test_a_full_disk_is_said_and_leaves_nothing_half_written(log: EventLog, home: Home, tmp_path: Path) -> None:
    rows = [event(f"{number:032x}", subscriber_id=f"{hash(number)}-{number}") for number in range(20_000)]
    path = saved(rows, tmp_path / "e.parquet")
    log.append(saved([event("a")], tmp_path / "first.parquet"), None, None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(Unwritable, match="make room on its disk"):
            log.append(path, None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.suffix for file in (home.event_log / "events").iterdir()] == [".parquet"]
    assert [row["event_id"] for row in rows_of(log, "events", "event_id")] == ["a"]
    assert log.append(path, None, None).accepted == 20_000


def test_progress_goes_from_nothing_to_all(log: EventLog, tmp_path: Path) -> None:
    shares: list[float] = []
    events = saved([event(f"e{number}") for number in range(10)], tmp_path / "e.parquet")
    log.append(events, saved([person("s1")], tmp_path / "s.parquet"), None, shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1.0


def cut_list(log: EventLog, tmp_path: Path, count: int = 30) -> None:
    """A list with strangers, campaigns and an attribute that has the name of a thing of ours."""
    events = [
        event(f"{number}-{who}", number, subscriber_id=f"s{who}", content=["shoes"])
        for who in range(count)
        for number in range(who % 4)
    ]
    subscribers = [person(f"s{who}", part=f"p{who}", row=who) for who in range(0, count, 2)]
    campaigns = saved([{"campaign_id": "c1", "links": 3}], tmp_path / "c.parquet")
    log.append(saved(events, tmp_path / "e.parquet"), saved(subscribers, tmp_path / "s.parquet"), campaigns)


def test_every_row_of_the_log_is_in_one_part_as_it_was(log: EventLog, tmp_path: Path) -> None:
    cut_list(log, tmp_path)
    found: dict[str, list[Row]] = {"events": [], "subscribers": []}
    people: list[set[str]] = []
    with log.cut(log.connect("500MB"), 4, range(4), "500MB") as cut:
        for part in range(4):
            with cut.connect(part) as con:
                rows = {table: con.to_pyarrow(con.table(table)) for table in (*found, "campaigns")}
            assert rows["campaigns"].to_pylist() == rows_of(log, "campaigns")
            people.append(set(rows["subscribers"]["subscriber_id"].to_pylist()))
            assert set(rows["events"]["subscriber_id"].to_pylist()) <= people[-1]
            for table in found:
                found[table] += rows[table].to_pylist()
    for table, key in (("events", "event_id"), ("subscribers", "subscriber_id")):
        assert sorted(found[table], key=lambda row: str(row[key])) == sorted(
            rows_of(log, table), key=lambda row: str(row[key])
        )
    assert all(people) and sum(map(len, people)) == 30


def test_the_parts_of_a_connection_are_of_the_log_as_it_was(log: EventLog, tmp_path: Path) -> None:
    cut_list(log, tmp_path)
    con = log.connect("500MB")
    log.append(
        saved([event("late")], tmp_path / "l.parquet"), saved([person("s0", row=99)], tmp_path / "t.parquet"), None
    )
    with log.cut(con, 1, [0], "500MB") as cut, cut.connect(0) as part:
        assert "late" not in part.to_pyarrow(part.table("events"))["event_id"].to_pylist()
        assert 99 not in part.to_pyarrow(part.table("subscribers"))["row"].to_pylist()


def test_only_the_parts_asked_for_are_laid_out_and_none_stays(log: EventLog, home: Home, tmp_path: Path) -> None:
    cut_list(log, tmp_path)
    with pytest.raises(ZeroDivisionError), log.cut(log.connect("500MB"), 4, [2], "500MB") as cut:
        assert set(pq.read_table(cut.directory / "events.parquet", columns=["part"])["part"].to_pylist()) == {2}
        raise ZeroDivisionError
    assert [*(home.var / "spill").rglob("*")] == []


def test_who_is_in_which_part_does_not_depend_on_the_rest_of_the_log(log: EventLog, tmp_path: Path) -> None:
    """What one run has done of a list, another must find in the same parts."""
    cut_list(log, tmp_path)
    other = EventLog(Home(tmp_path / "other"))
    other.append(None, saved([person(f"s{who}") for who in range(3, 9)], tmp_path / "o.parquet"), None)
    found = []
    for one in (log, other):
        with one.cut(one.connect(), 3, [1], "500MB") as cut, cut.connect(1) as con:
            found.append(set(con.to_pyarrow(con.table("subscribers"))["subscriber_id"].to_pylist()))
    assert found[1] == {who for who in found[0] if 3 <= int(who[1:]) < 9} != set()


def test_the_larger_need_decides_how_many_parts_there_are(log: EventLog, tmp_path: Path) -> None:
    cut_list(log, tmp_path)
    con = log.connect()
    subscribers, events = (con.table(table).count().execute() for table in ("subscribers", "events"))
    assert PartSize().parts(con) == 1
    assert PartSize(subscribers=subscribers).parts(con) == 1
    assert PartSize(subscribers=subscribers - 1).parts(con) == 2
    assert PartSize(subscribers=subscribers - 1, events=10).parts(con) == -(-events // 10) > 2


def test_a_damaged_file_is_named_when_the_log_is_cut(log: EventLog, home: Home, tmp_path: Path) -> None:
    log.append(saved([event(f"e{number}", number) for number in range(2000)], tmp_path / "e.parquet"), None, None)
    con = log.connect()
    (file,) = (home.event_log / "events").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + b"\xff" * (len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(UnreadableFile, match="a file of the log itself is damaged"), log.cut(con, 2, [0, 1], "500MB"):
        pass
    assert not (home.var / "spill" / "parts").exists()


# --- events that were checked elsewhere


def taken(*ids: str, **changes: Any) -> pa.Table:
    rows = [event(each, number, agent="unknown") | changes for number, each in enumerate(ids)]
    return pa.Table.from_pylist(rows, EVENT_SCHEMA)


def test_checked_events_are_taken_in_once_whoever_tells_them(log: EventLog, tmp_path: Path) -> None:
    log.append(saved([event("a")], tmp_path / "e.parquet"), None, None)
    assert log.take(taken("a", "b", "b")) == IntakeReport(1, 2, 0, {}, (), 0, 0)
    before = log.fingerprint()
    assert log.take(taken("b", "a")) == IntakeReport(0, 2, 0, {}, (), 0, 0)
    assert log.append(saved([event("b", 1)], tmp_path / "f.parquet"), None, None).repeated == 1
    assert log.fingerprint() == before
    assert sorted(row["event_id"] for row in rows_of(log, "events")) == ["a", "b"]


def test_taking_nothing_writes_nothing(log: EventLog, home: Home) -> None:
    assert log.take(EVENT_SCHEMA.empty_table()) == IntakeReport(0, 0, 0, {}, (), 0, 0)
    assert content(home) == {}


def test_what_was_put_aside_is_written_once(log: EventLog, home: Home) -> None:
    rows = [{"table": "events", "source": "x", "row": number, "reason": "no", "raw": "{}"} for number in (1, 2)]
    bad = pa.Table.from_pylist(rows, QUARANTINE_SCHEMA)
    assert log.take(taken("a"), bad) == IntakeReport(1, 0, 2, {"no": 2}, (), 0, 0)
    before = content(home)
    log.take(taken("a"), bad)
    assert content(home) == before
    assert [row for path in home.quarantine.iterdir() for row in pq.read_table(path).to_pylist()] == rows


def aged(home: Home) -> None:
    """A log as it was written before the network and the link were kept."""
    (file,) = (home.event_log / "events").iterdir()
    pq.write_table(pq.read_table(file).drop_columns(["network", "link"]), file)


def test_a_log_written_before_a_column_was_kept_is_read_and_goes_on(log: EventLog, home: Home, tmp_path: Path) -> None:
    first = saved([event("a"), event("b", 1)], tmp_path / "e.parquet")
    log.append(first, None, None)
    aged(home)
    assert rows_of(log, "events", "event_id", "network", "link") == [
        {"event_id": each, "network": None, "link": None} for each in "ab"
    ]
    assert log.end() == NOON + timedelta(minutes=1)
    assert log.append(first, None, None).repeated == 2
    assert log.take(taken("b", "c", network="public", link="unsubscribe")).accepted == 1
    networks = {row["event_id"]: row["network"] for row in rows_of(log, "events", "event_id", "network")}
    assert networks == {"a": None, "b": None, "c": "public"}
    con = log.connect("500MB")
    assert con.table("events").columns == tuple(EVENT_SCHEMA.names)
    with log.cut(con, 1, [0], "500MB") as cut, cut.connect(0) as part:
        assert sorted(part.to_pyarrow(part.table("events"))["event_id"].to_pylist()) == ["a", "b", "c"]


def test_a_connection_for_some_people_has_nobody_else(log: EventLog, tmp_path: Path) -> None:
    rows = [event(str(number), number, subscriber_id=f"s{number % 5}") for number in range(20)]
    log.append(
        saved(rows, tmp_path / "e.parquet"), saved([person("s1", plan="x"), person("s2")], tmp_path / "s.parquet"), None
    )
    con = log.connect(only=["s1", "s4", "nobody"])
    assert set(con.to_pyarrow(con.table("events"))["event_id"].to_pylist()) == {
        "1",
        "4",
        "6",
        "9",
        "11",
        "14",
        "16",
        "19",
    }
    assert con.table("events").columns == tuple(EVENT_SCHEMA.names)
    assert con.to_pyarrow(con.table("subscribers").select("subscriber_id", "plan")).to_pylist() == [
        {"subscriber_id": "s1", "plan": "x"}, {"subscriber_id": "s4", "plan": None},
    ]  # fmt: skip
    none = log.connect(only=[])
    assert none.to_pyarrow(none.table("events")).num_rows == none.to_pyarrow(none.table("subscribers")).num_rows == 0
