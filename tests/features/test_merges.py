"""Two subscribers who are one person, and people who are forgotten."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.clock import microseconds
from features.contract import EVENT_SCHEMA
from features.errors import MergeRefused
from features.event import Event, to_table
from features.forgetting import Forgotten, forget
from features.home import Home
from features.inbox import Accepted, Delivery, Inbox
from features.log import QUARANTINE_SCHEMA, EventLog
from features.merges import FORGOTTEN, Merges, merge, names_any
from tests.features.processes import Bad, nursery

# Ibis 12 calls what DuckDB 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

Row = dict[str, Any]
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOON_US = microseconds(NOON)
LATER = NOON + timedelta(days=2)


BAD = {"table": "events", "source": "x", "row": 1, "reason": "no"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def event(event_id: str, subscriber_id: str, minute: int = 0, **changes: Any) -> Event:
    at_us = NOON_US + minute * 60_000_000
    return Event(event_id, subscriber_id, "open", at_us, at_us, **changes)


def told(home: Home, *events: Event) -> EventLog:
    log = EventLog(home)
    log.take(to_table(events))
    return log


def with_profiles(home: Home, *people: Mapping[str, Any]) -> EventLog:
    log, path = EventLog(home), home.root / "profiles.parquet"
    home.root.mkdir(parents=True, exist_ok=True)
    rows = [{"created_at": NOON - timedelta(days=1)} | dict(person) for person in people]
    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]), path)
    log.append(None, path, None)
    return log


def rows_of(log: EventLog, table: str, *columns: str, only: Sequence[str] | None = None) -> list[Row]:
    con = log.connect(only=only)
    asked = con.table(table)
    return list(con.to_pyarrow(asked.select(*columns) if columns else asked).to_pylist())


def whose(log: EventLog, only: Sequence[str] | None = None) -> dict[str, str]:
    return {row["event_id"]: row["subscriber_id"] for row in rows_of(log, "events", only=only)}


def everything(home: Home) -> bytes:
    """Each byte under a home, and each value of its Parquet files, which are compressed."""
    files = [path for path in home.root.rglob("*") if path.is_file()]
    tables = "".join(str(pq.read_table(path).to_pylist()) for path in files if path.suffix == ".parquet")
    return b"\0".join(path.read_bytes() for path in files) + tables.encode()


# --- who is whom


def test_a_merge_is_read_back_and_known_when_it_is_told_again(home: Home) -> None:
    assert merge(home, "old", "new").new
    assert not merge(home, "old", "new").new
    assert Merges(home).read() == {"old": "new"}
    assert Merges(home).resolve(["old", "new", "other"]) == {"old": "new", "new": "new", "other": "other"}


def test_of_a_chain_of_merges_everybody_is_the_last_one(home: Home) -> None:
    for former, into in (("a", "b"), ("c", "d"), ("b", "c")):
        merge(home, former, into)
    assert Merges(home).read() == dict.fromkeys("abc", "d")
    assert merge(home, "e", "a").current == "d"
    assert Merges(home).person("b") == ("d", "a", "b", "c", "e")
    assert Merges(home).members(["d", "a"]) == {"d": ("d", "a", "b", "c", "e"), "a": ()}


def test_what_cannot_be_meant_is_refused_without_naming_anybody(home: Home) -> None:
    merge(home, "secret-a", "secret-b")
    for former, into, reason in (
        ("secret-a", "secret-a", "both ids are the same"),
        ("secret-b", "secret-a", "the second was merged into the first"),
        ("secret-a", "secret-c", "merged into another subscriber"),
    ):
        with pytest.raises(MergeRefused, match=reason) as refused:
            merge(home, former, into)
        assert "secret" not in str(refused.value)
    assert Merges(home).read() == {"secret-a": "secret-b"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=12))
def test_aliases_make_the_same_people_in_any_order(
    pairs: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    merges = Merges(Home(tmp_path_factory.mktemp("aliases")))
    groups = {who: {who} for who in "abcdef"}
    for former, into in pairs:
        merges.alias({former: into})
        groups |= dict.fromkeys(groups[former] | groups[into], groups[former] | groups[into])
    now = merges.resolve("abcdef")
    assert {who: {other for other in now if now[other] == now[who]} for who in now} == groups
    assert not set(merges.read()) & set(merges.read().values())
    merges.close()


def test_merges_at_the_same_time_are_all_kept(home: Home) -> None:
    threads = [threading.Thread(target=merge, args=(home, f"s{number}", "person")) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Merges(home).read()) == 12


# --- in the log


def test_the_events_of_the_former_id_are_the_other_ones(home: Home) -> None:
    log = told(home, event("1", "old"), event("2", "new"), event("3", "other"))
    before = log.fingerprint()
    merge(home, "old", "new")
    assert whose(log) == {"1": "new", "2": "new", "3": "other"}
    assert whose(log, only=["new"]) == {"1": "new", "2": "new"}
    assert whose(log, only=["old"]) == {}
    assert [row["subscriber_id"] for row in rows_of(log, "subscribers")] == ["new", "other"]
    assert log.fingerprint() != before
    con = log.connect()
    assert con.to_pyarrow(con.table("events")).schema.names == EVENT_SCHEMA.names


def test_events_told_later_under_the_former_id_follow(home: Home) -> None:
    merge(home, "old", "new")
    assert whose(told(home, event("1", "old"))) == {"1": "new"}


def test_a_merged_profile_says_what_the_id_that_stands_says_and_fills_its_gaps(home: Home) -> None:
    log = with_profiles(
        home,
        {"subscriber_id": "old", "created_at": NOON - timedelta(days=9), "plan": "free", "merged": 1.0, "city": "Rome"},
        {"subscriber_id": "new", "plan": "paid", "merged": 2.0, "consent_profiling": True},
        {"subscriber_id": "older", "plan": "none", "merged": 3.0, "city": "Oslo", "row": "x"},
        {"subscriber_id": "other", "plan": "free", "merged": 4.0},
    )
    merge(home, "old", "new")
    merge(home, "older", "new")
    expected = [
        {"subscriber_id": "new", "created_at": NOON - timedelta(days=9), "plan": "paid", "merged": 2.0, "city": "Rome",
         "consent_profiling": True, "row": "x"},
        {"subscriber_id": "other", "created_at": NOON - timedelta(days=1), "plan": "free", "merged": 4.0, "city": None,
         "consent_profiling": None, "row": None},
    ]  # fmt: skip
    columns = ("subscriber_id", "created_at", "plan", "merged", "city", "consent_profiling", "row")
    assert rows_of(log, "subscribers", *columns) == expected
    assert rows_of(log, "subscribers", *columns, only=["new"]) == expected[:1]


def test_a_refusal_under_one_id_is_the_persons(home: Home) -> None:
    log = with_profiles(
        home,
        {"subscriber_id": "old", "consent_profiling": False, "consent_open_tracking": True},
        {"subscriber_id": "new", "consent_profiling": True, "consent_open_tracking": None},
    )
    merge(home, "old", "new")
    (row,) = rows_of(log, "subscribers", "consent_profiling", "consent_open_tracking")
    assert row == {"consent_profiling": False, "consent_open_tracking": True}


def test_somebody_known_by_events_alone_takes_over_the_profile(home: Home) -> None:
    with_profiles(home, {"subscriber_id": "old", "plan": "free"})
    log = told(home, event("1", "new", minute=-3000))
    merge(home, "old", "new")
    (row,) = rows_of(log, "subscribers", "subscriber_id", "created_at", "plan")
    assert row == {"subscriber_id": "new", "created_at": NOON - timedelta(minutes=3000), "plan": "free"}


def test_the_parts_of_a_cut_log_know_the_merges(home: Home) -> None:
    log = told(home, *(event(str(number), f"s{number}") for number in range(20)))
    for number in range(10, 20):
        merge(home, f"s{number}", f"s{number - 10}")
    found: dict[str, str] = {}
    with log.cut(log.connect("500MB"), 3, range(3), "500MB") as cut:
        for part in range(3):
            with cut.connect(part) as con:
                found |= {
                    row["event_id"]: row["subscriber_id"] for row in con.to_pyarrow(con.table("events")).to_pylist()
                }
    assert found == {str(number): f"s{number % 10}" for number in range(20)}


def test_the_inbox_shows_the_former_ids_events_as_the_other_ones(home: Home) -> None:
    inbox = Inbox(home)
    inbox.accept([Delivery("x", [event("1", "old"), event("2", "other"), event("3", "new")])], NOON_US)
    inbox.accept([Delivery("x", [event("4", "new")], aliases={"old": "new", "new": "new"})], NOON_US)
    found = inbox.events_of(["new", "old"])
    assert [(each.event_id, each.subscriber_id) for each in found["new"]] == [("1", "new"), ("3", "new"), ("4", "new")]
    assert found["old"] == []
    assert inbox.changed_since(0, 10)[0] == ["new", "other"]
    inbox.drain(EventLog(home))
    assert whose(EventLog(home)) == {"1": "new", "2": "other", "3": "new", "4": "new"}


# --- forgetting


def filled(home: Home) -> EventLog:
    """A person under two ids, everywhere where something is kept, and somebody else."""
    log = with_profiles(home, {"subscriber_id": "gone"}, {"subscriber_id": "gone-2"}, {"subscriber_id": "stays"})
    (home.root / "profiles.parquet").unlink()
    bad = {"table": "events", "source": "x", "row": 1, "reason": "no"}
    aside = pa.Table.from_pylist(
        [bad | {"raw": '{"who": "gone"}'}, bad | {"raw": '{"who": "gone-2000"}'}, bad | {"raw": "who,gone-2"}],
        QUARANTINE_SCHEMA,
    )
    log.take(to_table([event("1", "gone"), event("2", "stays")]), aside)
    log.take(to_table([event("3", "former")]))
    merge(home, "former", "gone")
    Inbox(home).accept([Delivery("x", [event("4", "gone"), event("5", "stays")])], NOON_US)
    return log


def test_who_is_forgotten_is_nowhere(home: Home) -> None:
    log = filled(home)
    assert forget(home, "former", LATER) == Forgotten(("gone", "former"), events=3, profiles=1, quarantined=1)
    assert whose(log) == {"2": "stays"}
    assert [row["subscriber_id"] for row in rows_of(log, "subscribers")] == ["gone-2", "stays"]
    assert Inbox(home).events_of(["gone", "former"]) == {"gone": [], "former": []}
    Inbox(home).drain(log)
    assert whose(log) == {"2": "stays", "5": "stays"}
    assert b"gone-2000" in everything(home)
    left = everything(home).replace(b"gone-2", b"")
    assert b"gone" not in left and b"former" not in left.replace(b'"former', b"").replace(b"former TEXT", b"")


def test_the_same_events_told_again_do_not_come_back(home: Home, tmp_path: Path) -> None:
    log, inbox = filled(home), Inbox(home)
    forget(home, "gone", LATER)
    again = [event("1", "gone"), event("3", "former"), event("9", "gone", 5), event("10", "stays")]
    assert inbox.accept([Delivery("x", again)], NOON_US) == [Accepted(new=1, quarantined=3)]
    report = log.take(to_table(again[:3]))
    assert (report.accepted, report.repeated, report.quarantined, report.reasons) == (0, 0, 3, {FORGOTTEN: 3})
    rows = [
        {"event_id": e.event_id, "subscriber_id": e.subscriber_id, "event_type": "open", "occurred_at": NOON}
        for e in again
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    people = [{"subscriber_id": who, "created_at": NOON} for who in ("gone", "late", "stays")]
    pq.write_table(pa.Table.from_pylist(people), tmp_path / "people.parquet")
    report = log.append(tmp_path / "events.parquet", tmp_path / "people.parquet", None)
    assert (report.accepted, report.subscribers, report.quarantined, report.reasons) == (1, 2, 4, {FORGOTTEN: 4})
    inbox.drain(log)
    assert set(whose(log).values()) == {"stays"}
    assert {row["subscriber_id"] for row in rows_of(log, "subscribers")} == {"gone-2", "late", "stays"}
    assert b'"gone"' not in everything(home).replace(b"gone-2", b"")


def test_what_a_forgotten_person_does_later_counts_again(home: Home) -> None:
    log, inbox = filled(home), Inbox(home)
    forget(home, "gone", NOON + timedelta(hours=1))
    assert inbox.accept([Delivery("x", [event("9", "gone", 61)])], NOON_US + 10**10) == [Accepted(new=1)]
    inbox.drain(log)
    assert whose(log)["9"] == "gone"


def test_forgetting_again_changes_nothing_and_an_unknown_person_is_no_fault(home: Home) -> None:
    log = filled(home)
    forget(home, "gone", LATER)
    before = log.fingerprint()
    assert forget(home, "gone", LATER) == Forgotten(("gone",), 0, 0, 0)
    assert log.fingerprint() == before
    assert forget(Home(home.root / "empty"), "nobody", LATER).events == 0


def test_forgetting_killed_at_any_moment_harms_nobody_else_and_is_completed(home: Home) -> None:
    rng, log = random.Random(3), EventLog(home)
    everybody = {f"{file}-{who}": f"s{who}" for file in range(4) for who in range(12)}
    for file in range(4):
        log.take(to_table(event(each, who) for each, who in everybody.items() if each.startswith(f"{file}-")))
    with nursery() as processes:
        for who in range(10):
            process = processes.begin("erase", home.root, f"s{who}")
            time.sleep(rng.uniform(0.0, 0.25))
            processes.kill(process)
            rows = rows_of(log, "events", "event_id", "subscriber_id")
            left = {row["event_id"]: row["subscriber_id"] for row in rows}
            assert len(rows) == len(left)
            assert left.items() >= {each: other for each, other in everybody.items() if other != f"s{who}"}.items()
            forget(home, f"s{who}", LATER)
            everybody = {each: other for each, other in everybody.items() if other != f"s{who}"}
            assert whose(log) == everybody


def test_of_who_is_forgotten_only_a_salted_digest_is_kept(home: Home) -> None:
    Merges(home).forget(["gone"], NOON_US)
    salt, digests = Merges(home).forgotten()
    assert len(salt) == 64 and len(digests) == 1
    other = Merges(Home(home.root / "other"))
    other.forget(["gone"], NOON_US)
    assert other.forgotten()[1].keys() != digests.keys()


def test_who_was_forgotten_under_one_id_is_under_another_of_the_same_key_holder(home: Home) -> None:
    log, inbox = filled(home), Inbox(home)
    forget(home, "gone", LATER)
    back = Delivery("x", [event("1", "now"), event("20", "now")], aliases={"gone": "now", "older": "now"})
    for _ in range(2):
        assert inbox.accept([back], NOON_US) == [Accepted(quarantined=2)]
    assert Merges(home).read() == {}
    assert set(Merges(home).forgotten_among(["gone", "now", "older"]).values()) == {microseconds(LATER)}
    assert b"now" not in home.merges.read_bytes()
    inbox.drain(log)
    assert "now" not in whose(log).values()
    later = Delivery("x", [event("21", "now", minute=3 * 24 * 60)], aliases={"gone": "now"})
    assert inbox.accept([later], microseconds(LATER + timedelta(days=2))) == [Accepted(new=1)]
    assert Merges(home).read() == {}


def test_an_alias_of_the_forgotten_costs_no_write_once_it_is_known(home: Home) -> None:
    merges = Merges(home)
    merges.forget(["gone"], NOON_US)
    merges.alias({"gone": "now", "other": "else"})
    with closing(sqlite3.connect(home.merges, isolation_level=None)) as con:
        con.execute("BEGIN IMMEDIATE")
        assert Merges(home).alias({"gone": "now", "other": "else"}) == 0
    assert merges.read() == {"other": "else"}


def test_a_file_read_with_former_ids_does_not_bring_the_forgotten_back(home: Home, tmp_path: Path) -> None:
    log = filled(home)
    forget(home, "gone", LATER)
    row = {"event_id": "30", "subscriber_id": "now", "event_type": "open", "occurred_at": NOON}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "events.parquet")
    report = log.append(tmp_path / "events.parquet", None, None, aliases={"gone": "now"})
    assert (report.accepted, report.reasons) == (0, {FORGOTTEN: 1})
    assert Merges(home).read() == {}


def test_bad_rows_of_the_forgotten_are_counted_and_not_put_aside_again(home: Home, tmp_path: Path) -> None:
    log = filled(home)
    forget(home, "gone", LATER)
    good = '{"event_id": "1", "subscriber_id": "stays", "event_type": "open", "occurred_at": "2026-01-31T12:00:00Z"}'
    bad = [good.replace("open", "sneeze").replace("stays", who) for who in ("gone", "gone-2", "stays")]
    (tmp_path / "events.jsonl").write_text("\n".join([good, *bad, '{"subscriber_id": "gone", ']))
    csv = "event_id,subscriber_id,event_type,occurred_at\n8,gone,open,2026-01-31T12:00:00Z,more\n9,stays,open,no,no\n"
    (tmp_path / "events.csv").write_text(csv + "7,stays,open,2026-01-31T12:00:00Z\n")
    assert log.append(tmp_path / "events.jsonl", None, None).quarantined == 4
    assert log.append(tmp_path / "events.csv", None, None).quarantined == 2
    Inbox(home).accept([Delivery("x", quarantined=[Bad("no", '{"metadata": {"subscriber_id": "gone"}}')])], NOON_US)
    Inbox(home).drain(log)
    log.take(EVENT_SCHEMA.empty_table(), pa.Table.from_pylist([BAD | {"raw": '{"who": "gone"}'}], QUARANTINE_SCHEMA))
    files = sorted(home.quarantine.glob("*.parquet"))
    raws = [raw for path in files for raw in pq.read_table(path)["raw"].to_pylist()]
    assert not any('"gone"' in raw.replace("\\", "") or ",gone," in raw for raw in raws)
    assert len([raw for raw in raws if "sneeze" in raw]) == 2 and any("9,stays" in raw for raw in raws)


def test_forgetting_a_number_takes_nobody_elses_rows(home: Home) -> None:
    log = EventLog(home)
    raws = [
        '{"event_id": "1", "subscriber_id": "s1", "occurred_at": "2026-01-31 12:17:44"}',
        '{"subscriber_id": "s1", "value": "17"}',
        '{"subscriber_id": null, "value": "17"}',
        '{"at": "2026-01-31T12:17:44Z", "attempt": 17}',
        '{"line": "2026-01-31 12:17:44,s1"}',
        '{"subscriber_id": " 17 ", "value": "1"}',
        '{"custom": {"subscriber_id": 17}}',
        '{"custom": "plan:a|subscriber_id:17"}',
        '{"line": "a,17,b"}',
    ]
    log.take(EVENT_SCHEMA.empty_table(), pa.Table.from_pylist([BAD | {"raw": raw} for raw in raws], QUARANTINE_SCHEMA))
    campaign = BAD | {"table": "campaigns", "raw": '{"campaign_id": "17"}'}
    log.take(EVENT_SCHEMA.empty_table(), pa.Table.from_pylist([campaign], QUARANTINE_SCHEMA))
    inbox = Inbox(home)
    inbox.accept([Delivery("x", quarantined=[Bad("no", raws[0]), Bad("no", raws[5])])], NOON_US)
    assert forget(home, "17", LATER).quarantined == 5
    files = sorted(home.quarantine.glob("*.parquet"))
    assert {raw for path in files for raw in pq.read_table(path)["raw"].to_pylist()} == {*raws[:5], campaign["raw"]}


def test_what_killed_processes_left_half_written_goes_too(home: Home) -> None:
    log = filled(home)
    parts = home.var / "spill" / "parts"
    left = [
        home.event_log / "events" / "incoming.tmp",
        home.event_log / "incoming.tmp",
        home.quarantine / "incoming.tmp",
    ]
    parts.mkdir(parents=True)
    for path in (*left, parts / "events.parquet"):
        path.write_text("gone")
    forget(home, "gone", LATER)
    assert not any(path.exists() for path in (*left, parts))
    with log.cut(log.connect(), 1, [0], "500MB") as cut:
        forget(home, "stays", LATER)
        with cut.connect(0) as con:
            assert con.to_pyarrow(con.table("events")).num_rows == 1


def test_an_id_is_named_only_where_it_stands_by_itself() -> None:
    assert names_any('{"id": "s1"}', ["s1"]) and names_any("a,s1\n", ["s1"]) and names_any('{"id": "a\\"b"}', ['a"b'])
    assert not any(names_any(text, ["s1"]) for text in ('"s12"', '"as1"', '"s1-2"', '"k_s1"', ""))
