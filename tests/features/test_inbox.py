"""The inbox: what was acknowledged is there, once, whatever happens meanwhile."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import inbox as module
from features.errors import InboxUnavailable
from features.event import Event, from_table, to_table
from features.home import Home
from features.inbox import AHEAD, KNOWN_FOR, OUTSIDE, RETAINED, UNWRITABLE, Accepted, Delivery, Inbox
from features.log import EventLog, IntakeReport
from features.merges import FORGOTTEN
from tests.features.processes import NOW, Bad, nursery

# Ibis 12 calls what DuckDB 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

HOUR, DAY = 3_600_000_000, 86_400_000_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def inbox(home: Home) -> Inbox:
    return Inbox(home)


@pytest.fixture
def log(home: Home) -> EventLog:
    return EventLog(home)


def event(event_id: str, subscriber_id: str = "s1", occurred_us: int = NOW - HOUR, **changes: Any) -> Event:
    return Event(event_id, subscriber_id, "click", occurred_us, 0, **changes)


def delivery(*ids: str, **changes: Any) -> Delivery:
    return Delivery("x", [event(each) for each in ids], **changes)


def accept(inbox: Inbox, *ids: str, now_us: int = NOW) -> Accepted:
    (accepted,) = inbox.accept([delivery(*ids)], now_us)
    return accepted


def logged(log: EventLog) -> list[Event]:
    con = log.connect()
    return sorted(from_table(con.to_pyarrow(con.table("events"))), key=lambda each: each.received_us)


def held(inbox: Inbox, *ids: str) -> list[str]:
    return [each.event_id for each in inbox.events_of(ids or ["s1"])[(ids or ["s1"])[0]]]


def aside(home: Home) -> list[tuple[str, str, str]]:
    files = sorted(home.quarantine.glob("*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    return [(row["source"], row["reason"], row["raw"]) for row in rows]


# --- taking in


def test_what_was_accepted_is_read_back_whole_and_in_the_order_received(inbox: Inbox) -> None:
    full = event(
        "a",
        campaign_id="c",
        content=("shoes", "häts"),
        value=1.5,
        agent="person",
        network="public",
        link="0123456789ab",
    )
    bare = event("b", content=(), occurred_us=NOW - 5)
    assert inbox.accept([Delivery("x", [full, bare]), Delivery("y", [event("c", "s2")])], NOW) == [
        Accepted(new=2), Accepted(new=1),
    ]  # fmt: skip
    assert inbox.events_of(["s2", "s1", "nobody"]) == {
        "s1": [replace(full, received_us=NOW), replace(bare, received_us=NOW + 1)],
        "s2": [replace(event("c", "s2"), received_us=NOW + 2)],
        "nobody": [],
    }
    assert inbox.newest() == NOW + 2


def test_an_inbox_nobody_wrote_to_is_empty_and_makes_no_file(inbox: Inbox, home: Home, log: EventLog) -> None:
    assert (inbox.newest(), inbox.horizon(), inbox.changed_since(5, 10)) == (None, 0, ([], 5))
    assert inbox.events_of(["s1"]) == {"s1": []}
    assert (inbox.drain(log).accepted, inbox.purge(NOW), inbox.forget(["s1"])) == (0, 0, (0, 0))
    assert not home.var.exists()


def test_a_repeat_changes_nothing(inbox: Inbox) -> None:
    assert inbox.accept([delivery("a", "a"), delivery("a", "b")], NOW) == [Accepted(1, 1), Accepted(1, 1)]
    before = inbox.events_of(["s1"])
    told_otherwise = Delivery("y", [event("a", occurred_us=NOW), event("b", "s2")])
    assert inbox.accept([told_otherwise], NOW + HOUR) == [Accepted(repeated=2)]
    assert inbox.events_of(["s1", "s2"]) == before | {"s2": []}


def test_time_never_goes_back(inbox: Inbox, home: Home) -> None:
    accept(inbox, "a", "b")
    accept(inbox, "c", now_us=NOW - DAY)
    inbox.push_clock(NOW + HOUR)
    inbox.push_clock(NOW)
    accept(Inbox(home), "d")
    accept(Inbox(home), "e", now_us=NOW + DAY)
    received = [each.received_us - NOW for each in inbox.events_of(["s1"])["s1"]]
    assert received == [0, 1, 2, HOUR + 1, DAY]


def test_a_clock_that_runs_a_little_fast_is_taken_back_and_one_far_ahead_is_not_believed(
    inbox: Inbox, home: Home, log: EventLog
) -> None:
    ahead = [event("a", occurred_us=NOW + DAY), event("b", occurred_us=NOW + DAY + 2)]
    assert inbox.accept([Delivery("x", ahead)], NOW) == [Accepted(new=1, quarantined=1)]
    (kept,) = inbox.events_of(["s1"])["s1"]
    assert kept.occurred_us == kept.received_us == NOW
    inbox.drain(log)
    ((source, reason, raw),) = aside(home)
    assert (source, reason, json.loads(raw)["event_id"]) == ("x", AHEAD, "b")
    assert inbox.accept([Delivery("x", ahead)], NOW + DAY) == [Accepted(new=1, repeated=1)]


def test_an_event_far_ahead_told_twice_is_put_aside_once_and_harms_no_other(
    inbox: Inbox, home: Home, log: EventLog
) -> None:
    ahead = Delivery("x", [event("b", occurred_us=NOW + 2 * DAY)])
    assert inbox.accept([ahead], NOW) == [Accepted(quarantined=1)]
    assert inbox.accept([ahead, delivery("a"), ahead], NOW + 1) == [
        Accepted(quarantined=1), Accepted(new=1), Accepted(quarantined=1),
    ]  # fmt: skip
    inbox.drain(log)
    assert (len(aside(home)), held(inbox)) == (1, ["a"])


def test_every_delivery_is_told_why_what_of_it_was_not_taken(inbox: Inbox) -> None:
    inbox._merges.forget(["gone"], NOW)
    sent = Delivery(
        "x",
        [event("a"), event("b", "gone"), event("c", occurred_us=NOW + 2 * DAY)],
        [Bad("no", "{}"), Bad("new", "[]")],
    )
    for _ in range(2):
        (accepted,) = inbox.accept([sent, delivery("a")], NOW)[:1]
        assert accepted.reasons == {FORGOTTEN: 1, AHEAD: 1, "no": 1, "new": 1}
        assert accepted.quarantined == 4


def test_what_cannot_be_written_is_no_fault_of_the_disk(inbox: Inbox, home: Home) -> None:
    accept(inbox, "a")
    with closing(sqlite3.connect(home.inbox)) as con:
        con.execute(
            "CREATE TRIGGER no BEFORE INSERT ON events WHEN new.event_id = 'b' BEGIN SELECT raise(ABORT, 'no'); END"
        )
    with pytest.raises(sqlite3.IntegrityError):
        accept(inbox, "b")
    assert accept(inbox, "c") == Accepted(new=1)


def test_what_could_not_be_read_is_kept_once_and_drained_into_the_quarantine(
    inbox: Inbox, home: Home, log: EventLog
) -> None:
    bad = Delivery("x", [event("a")], quarantined=[Bad("unknown type", '{"type": "sneeze"}'), Bad("no id", "{}")])
    assert [inbox.accept([bad], NOW), inbox.accept([bad], NOW)] == [
        [Accepted(new=1, quarantined=2)], [Accepted(repeated=1, quarantined=2)],
    ]  # fmt: skip
    report = inbox.drain(log)
    assert (report.accepted, report.quarantined, report.reasons) == (1, 2, {"unknown type": 1, "no id": 1})
    assert aside(home) == [("x", "unknown type", '{"type": "sneeze"}'), ("x", "no id", "{}")]
    inbox.accept([bad], NOW + DAY)
    assert inbox.drain(log) == IntakeReport(0, 0, 0, {}, (), 0, 0)


def test_what_cannot_be_written_harms_only_its_own_event(inbox: Inbox, home: Home, log: EventLog) -> None:
    half = [event("\ud800"), event("b", content=("\udfff",)), event("ok", campaign_id="😀")]
    sent = Delivery("x", half, quarantined=[Bad("\ud800", "\udfff")])
    assert inbox.accept([sent, sent], NOW) == [Accepted(new=1, quarantined=3), Accepted(repeated=1, quarantined=3)]
    impossible = Delivery("x", [event("d", occurred_us=-(2**70)), event("e", occurred_us=2**70), event("f")])
    assert inbox.accept([impossible], NOW) == [Accepted(new=1, quarantined=2)]
    inbox.drain(log)
    assert Counter(reason for _, reason, _ in aside(home)) == {UNWRITABLE: 2, "?": 1, OUTSIDE: 2}
    assert [each.campaign_id for each in logged(log)] == ["😀", None]


def test_a_token_used_again_for_something_else_is_a_replay_and_nothing_of_it_is_taken(inbox: Inbox) -> None:
    def sent(digest: bytes, event_id: str, token: str = "t") -> Delivery:
        return delivery(event_id, token=token, digest=digest, quarantined=[Bad("no", event_id)])

    assert inbox.accept([sent(b"1", "a")], NOW) == [Accepted(new=1, quarantined=1)]
    assert inbox.accept([sent(b"1", "a"), sent(b"2", "b")], NOW) == [
        Accepted(repeated=1, quarantined=1), Accepted(replayed=True),
    ]  # fmt: skip
    assert inbox.accept([replace(sent(b"2", "c"), source="y")], NOW) == [Accepted(new=1, quarantined=1)]
    assert held(inbox) == ["a", "c"]


def test_of_two_deliveries_with_one_token_in_one_batch_the_first_is_taken(inbox: Inbox) -> None:
    both = [delivery("a", token="t", digest=b"1"), delivery("b", token="t", digest=b"2")]
    assert inbox.accept(both, NOW) == [Accepted(new=1), Accepted(replayed=True)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_stream_repeated_46_fold_and_shuffled_is_taken_in_once(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng, inbox = random.Random(seed), Inbox(Home(tmp_path_factory.mktemp("stream")))
    told = [f"e{number}" for number in range(6) for _ in range(46)]
    rng.shuffle(told)
    taken, at = Counter[str](), 0
    while at < len(told):
        size = rng.randint(1, 60)
        accepted = accept(inbox, *told[at : at + size], now_us=NOW + rng.randint(-DAY, DAY))
        taken.update(new=accepted.new, repeated=accepted.repeated)
        at += size
    assert taken == {"new": 6, "repeated": 6 * 45}
    assert held(inbox) == list(dict.fromkeys(told))
    inbox.close()


# --- asking


def test_changes_are_told_in_pages_that_miss_nobody(inbox: Inbox) -> None:
    inbox.accept([Delivery("x", [event(str(number), f"s{number % 3}") for number in range(10)])], NOW)
    pages, through = [], 0
    while (page := inbox.changed_since(through, 4))[0]:
        pages.append(page)
        through = page[1]
    assert pages == [(["s0", "s1", "s2"], NOW + 3), (["s1", "s2", "s0"], NOW + 7), (["s2", "s0"], NOW + 9)]
    assert inbox.changed_since(NOW + 9, 4) == ([], NOW + 9)


def test_the_horizon_is_where_memory_begins(inbox: Inbox, log: EventLog) -> None:
    inbox.push_clock(NOW)
    assert inbox.horizon() == NOW + 1
    accept(inbox, "a", now_us=NOW + DAY)
    accept(inbox, "b", now_us=NOW + 2 * DAY)
    assert inbox.horizon() == NOW + DAY
    inbox.raise_horizon(NOW + DAY + 5)
    assert inbox.horizon() == NOW + DAY + 5
    inbox.drain(log)
    accept(inbox, "c", now_us=NOW + 20 * DAY)
    inbox.drain(log)
    assert inbox.purge(NOW + 10 * DAY) == 2
    assert inbox.horizon() == NOW + 3 * DAY


# --- letting go


def test_what_is_drained_is_in_the_log_as_it_was_and_still_in_the_inbox(inbox: Inbox, log: EventLog) -> None:
    sent = [event("a", content=("shoes",), network="datacentre", link="unsubscribe"), event("b", value=3.0)]
    inbox.accept([Delivery("x", sent)], NOW)
    assert inbox.drain(log) == IntakeReport(2, 0, 0, {}, (), 0, 0)
    assert logged(log) == inbox.events_of(["s1"])["s1"]
    before = log.fingerprint()
    assert inbox.drain(log) == IntakeReport(0, 0, 0, {}, (), 0, 0)
    assert log.fingerprint() == before
    accept(inbox, "c")
    assert inbox.drain(log).accepted == 1
    assert [each.event_id for each in logged(log)] == ["a", "b", "c"]


def test_a_drain_goes_in_steps(inbox: Inbox, home: Home, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAINED_AT_ONCE", 3)
    accept(inbox, *(str(number) for number in range(8)))
    assert inbox.drain(log).accepted == 8
    assert len(list((home.event_log / "events").iterdir())) == 3


def test_a_drain_that_died_before_it_was_marked_is_done_again_and_doubles_nothing(
    inbox: Inbox, home: Home, log: EventLog
) -> None:
    class Dies(EventLog):
        def take(self, events: pa.Table, quarantined: pa.Table | None = None) -> IntakeReport:
            super().take(events, quarantined)
            raise KeyboardInterrupt

    inbox.accept([delivery("a", quarantined=[Bad("no", "{}")])], NOW)
    with pytest.raises(KeyboardInterrupt):
        inbox.drain(Dies(home))
    inbox.accept([delivery("b", quarantined=[Bad("no", "[]")])], NOW)
    assert (inbox.drain(log).accepted, inbox.drain(log).accepted) == (1, 0)
    assert [each.event_id for each in logged(log)] == ["a", "b"]
    assert sorted(raw for _, _, raw in aside(home)) == ["[]", "{}"]


def test_an_event_a_file_brought_before_is_a_repeat(inbox: Inbox, log: EventLog) -> None:
    accept(inbox, "a", "b")
    log.take(to_table([replace(event("a"), received_us=NOW - DAY)]))
    report = inbox.drain(log)
    assert (report.accepted, report.repeated) == (1, 1)
    assert [(each.event_id, each.received_us) for each in logged(log)] == [("a", NOW - DAY), ("b", NOW + 1)]


def test_purging_keeps_what_is_not_drained_and_what_live_features_need(inbox: Inbox, log: EventLog) -> None:
    retained_us = RETAINED // module._US
    for number, day in enumerate((0, 1, 20, 21)):
        accept(inbox, str(number), now_us=NOW + day * DAY)
    assert inbox.purge(NOW + 30 * DAY) == 0
    inbox.drain(log)
    accept(inbox, "4", now_us=NOW + 22 * DAY)
    assert inbox.purge(NOW + retained_us) == 0
    assert inbox.purge(NOW + DAY + retained_us) == 1
    assert held(inbox) == ["1", "2", "3", "4"]
    # However late that is, the newest week stays.
    assert inbox.purge(NOW + 1000 * DAY) == 1
    assert held(inbox) == ["2", "3", "4"]
    assert len(logged(log)) == 4


def test_a_repeat_is_known_long_after_its_event_was_purged(inbox: Inbox, log: EventLog) -> None:
    known_us = KNOWN_FOR // module._US
    accept(inbox, "a")
    inbox.drain(log)
    inbox.push_clock(NOW + 60 * DAY)
    assert inbox.purge(NOW + known_us) == 1
    assert accept(inbox, "a") == Accepted(repeated=1)
    inbox.purge(NOW + known_us + 1)
    assert accept(inbox, "a") == Accepted(new=1)
    # Even then the log has it once.
    assert inbox.drain(log).repeated == 1
    assert len(logged(log)) == 1


def test_the_clock_survives_a_purge_of_everything(inbox: Inbox, home: Home, log: EventLog) -> None:
    accept(inbox, "a")
    inbox.drain(log)
    inbox.push_clock(NOW + 100 * DAY)
    inbox.purge(NOW + 100 * DAY)
    assert inbox.newest() is None
    accept(Inbox(home), "b")
    assert inbox.newest() == NOW + 100 * DAY + 1
    assert inbox.drain(log).accepted == 1


# --- several at once, and disasters


def test_threads_and_their_repeats_make_one_order(inbox: Inbox) -> None:
    taken: list[Accepted] = []

    def write(which: int) -> None:
        for number in range(0, 40, 4):
            taken.extend(inbox.accept([delivery(*(f"e{(number + which + i) % 40}" for i in range(8)))], NOW))

    threads = [threading.Thread(target=write, args=(which,)) for which in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(each.new for each in taken), sum(each.repeated for each in taken)) == (40, 6 * 80 - 40)
    received = [each.received_us for each in inbox.events_of(["s1"])["s1"]]
    assert received == list(range(NOW, NOW + 40))


def test_several_may_be_the_first(tmp_path: Path) -> None:
    for attempt in range(20):
        home, taken = Home(tmp_path / str(attempt)), list[Accepted]()
        gate = threading.Barrier(6)

        def begin(which: int, home: Home = home, gate: threading.Barrier = gate, taken: list[Accepted] = taken) -> None:
            gate.wait()
            taken.append(accept(Inbox(home), str(which)))

        threads = [threading.Thread(target=begin, args=(which,)) for which in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert taken == [Accepted(new=1)] * 6


def test_a_file_that_is_taken_away_is_begun_anew_and_nothing_goes_to_the_old_one(inbox: Inbox, home: Home) -> None:
    accept(inbox, "a")
    for path in home.var.glob("inbox.db*"):
        path.rename(home.root / path.name)
    assert accept(inbox, "b") == Accepted(new=1)
    assert held(Inbox(home)) == ["b"]


def test_a_damaged_or_locked_inbox_says_so_and_quotes_nothing(home: Home) -> None:
    home.var.mkdir(parents=True)
    home.inbox.write_bytes(b"secret" * 1000)
    with pytest.raises(InboxUnavailable, match="SQLITE_NOTADB") as refused:
        accept(Inbox(home), "secret")
    assert "secret" not in str(refused.value)
    home.inbox.unlink()
    inbox = Inbox(home, timeout_s=0.05)
    accept(inbox, "a")
    with closing(sqlite3.connect(home.inbox, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InboxUnavailable, match="SQLITE_BUSY"):
            accept(inbox, "b")
    assert accept(inbox, "b") == Accepted(new=1)


def test_an_inbox_that_has_no_place_says_so(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(InboxUnavailable):
        accept(Inbox(Home(tmp_path)), "a")


def test_processes_killed_at_any_moment_lose_and_double_nothing(home: Home, log: EventLog, tmp_path: Path) -> None:
    rng, files = random.Random(7), [tmp_path / f"acknowledged-{writer}" for writer in range(2)]
    home.root.mkdir()
    for file in files:
        file.touch()
    with nursery() as processes:
        for _ in range(36):
            begun = [processes.begin("send", home.root, *each) for each in enumerate(files)]
            begun.append(processes.begin("drain", home.root))
            time.sleep(rng.uniform(0.01, 0.4))
            for process in rng.sample(begun, len(begun)):
                processes.kill(process)
    inbox = Inbox(home)
    inbox.drain(log)
    numbers = [len(file.read_text().splitlines()) for file in files]
    assert min(numbers) > 30
    found = [each.event_id for each in inbox.events_of(["s1"])["s1"]]
    assert len(found) == len(set(found))
    assert set(_acknowledged(numbers)) <= set(found)
    assert [each.event_id for each in logged(log)] == found
    raws = Counter(raw for _, _, raw in aside(home))
    assert set(raws.values()) == {1}
    assert {f"{writer}-{number}" for writer in range(2) for number in range(numbers[writer])} <= set(raws)


def _acknowledged(numbers: Iterable[int]) -> Iterable[str]:
    for writer, most in enumerate(numbers):
        for number in range(most):
            yield from (f"{writer}-{number}", f"{writer}.{number}", f"both-{number // 2}")
