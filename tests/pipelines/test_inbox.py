"""What comes message by message: archives of payloads, and messages in the input contract."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue import Catalogue
from features.clock import microseconds
from features.errors import UnreadableFile
from features.fold import Folder
from features.home import Home
from features.identity import Pseudonyms, rotate
from features.inbox import Delivery, Inbox
from features.intake import read_events
from features.log import EventLog
from features.merges import Merges
from features.providers.canonical import canonical
from pipelines import inbox as module
from pipelines import messages
from pipelines.inbox import Intake, drained, files_taken, ingest_archive, now_us
from serving.prediction_log import LOG_SCHEMA
from tests.front_door import Said, inbox
from training.labels import sends

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def sendgrid(number: int, **other: Any) -> dict[str, Any]:
    told = {"email": f"p{number % 3}@example.com", "event": "open", "timestamp": 1_767_604_364 + number}
    return told | {"sg_event_id": f"x{number}", "sg_message_id": "m1.filter"} | other


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(payloads: list[Any]) -> bytes:
    return b"\n".join(map(orjson.dumps, payloads))


def ingest(home: Home, path: Path, *options: str | Path) -> Said:
    said = inbox("ingest", "--events", path, "--format", "sendgrid", *options, "--home", home.root)
    assert said.code == 0, said.err
    return said


def log(home: Home) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = EventLog(home).connect().table("events").to_pyarrow().to_pylist()
    return sorted(rows, key=lambda row: row["event_id"])


PAYLOADS = [sendgrid(number) for number in range(6)]
INDENTED = orjson.dumps(PAYLOADS, option=orjson.OPT_INDENT_2)
ONE_A_ROW = b"[\n" + b",\n".join(map(orjson.dumps, PAYLOADS)) + b"\n]\n"


@pytest.mark.parametrize(
    "content",
    [
        orjson.dumps(PAYLOADS),
        INDENTED,
        ONE_A_ROW,
        lines(PAYLOADS),
        b"\n\n" + lines([PAYLOADS[:2], PAYLOADS[2:]]) + b"\r\n\n",
        gzip.compress(lines(PAYLOADS)),
        gzip.compress(INDENTED),
        b"\xef\xbb\xbf" + INDENTED,
        b"\xef\xbb\xbf" + ONE_A_ROW,
        b"\xef\xbb\xbf" + lines(PAYLOADS),
    ],
    ids=[
        "array",
        "indented",
        "one a row",
        "lines",
        "arrays in lines",
        "gzipped lines",
        "gzipped array",
        "marked",
        "marked rows",
        "marked lines",
    ],
)
def test_a_payload_is_read_however_it_was_archived(home: Home, tmp_path: Path, content: bytes) -> None:
    said = ingest(home, put(tmp_path / "archive", content))
    assert "6 new events" in said.out and "0 quarantined" in said.out, said.out
    assert len(log(home)) == 6
    assert {row["subscriber_id"] for row in log(home)} == {
        Pseudonyms.load(home).subscriber_id(f"p{number}@example.com") for number in range(3)
    }


def test_a_directory_is_read_file_by_file_and_again_without_change(home: Home, tmp_path: Path) -> None:
    for number, payload in enumerate(PAYLOADS):
        put(tmp_path / "archive" / f"{number}.json", orjson.dumps(payload))
    put(tmp_path / "archive" / "also.json.gz", gzip.compress(orjson.dumps(sendgrid(9))))
    put(tmp_path / "archive" / ".hidden", "x")
    put(tmp_path / "archive" / ".git" / "a.json", "x")
    assert "7 new events from 7 messages" in ingest(home, tmp_path / "archive").out
    before = EventLog(home).fingerprint()
    assert "0 new events from 7 messages; 7 repeated" in ingest(home, tmp_path / "archive").out
    assert EventLog(home).fingerprint() == before


def test_a_directorys_directories_are_read_in_order_of_path(home: Home, tmp_path: Path) -> None:
    for number, place in enumerate(("2026/01/b", "2026/01/a", "2025/z", "2026/_old/a")):
        put(tmp_path / "archive" / place, orjson.dumps(sendgrid(number)))
    assert "3 new events from 3 messages" in ingest(home, tmp_path / "archive").out
    received = sorted(log(home), key=lambda row: row["received_at"])
    wanted = [Pseudonyms.load(home).subscriber_id(f"p{number % 3}@example.com") for number in (2, 1, 0)]
    assert [row["subscriber_id"] for row in received] == wanted


def test_an_empty_list_is_counted(home: Home) -> None:
    assert Intake(home, "events").take([b"[]"]).aside == {"an empty list": 1}


def test_a_long_archive_whose_first_line_is_cut_off_loses_that_line_alone(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lines([sendgrid(number) for number in range(100)])
    monkeypatch.setattr(module, "LONGEST", 1_000)
    taken = ingest_archive(home, put(tmp_path / "a.jsonl", whole[20:]), "sendgrid", lambda share: None)
    assert (taken.new, taken.quarantined, taken.bodies) == (99, 1, 100)


def test_what_is_no_event_is_counted_by_reason_and_by_type(home: Home, tmp_path: Path) -> None:
    payloads = [sendgrid(1), sendgrid(2, event="deferred"), sendgrid(3, event="beamed"), sendgrid(4, email="nobody")]
    ahead = sendgrid(5, timestamp=int((datetime.now(UTC) + timedelta(days=9)).timestamp()))
    said = ingest(home, put(tmp_path / "a.jsonl", lines([*payloads, ahead]) + b"\nnot json\n"))
    assert "1 new events from 6 messages; 0 repeated, 4 quarantined, 1 set aside" in said.out, said.out
    for words in ("event is not one that SendGrid documents", "no e-mail address", "no JSON", "is in the future"):
        assert words in said.out, said.out
    assert "set aside 1: deferred" in said.out
    kept = [row for path in home.quarantine.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(kept) == 4 and not any("example.com" in row["raw"] for row in kept)


def test_events_are_received_now_and_a_lists_history_when_it_occurred(home: Home, tmp_path: Path) -> None:
    file = put(tmp_path / "a.jsonl", lines(PAYLOADS[:3]))
    ingest(home, file)
    assert all(row["received_at"] > NOON for row in log(home))
    other = Home(tmp_path / "other")
    said = ingest(other, file, "--received-at", "occurred")
    assert "3 new events" in said.out
    assert all(row["received_at"] == row["occurred_at"] for row in log(other))
    assert "0 new events from 3 messages; 3 repeated" in ingest(other, file, "--received-at", "occurred").out


def test_a_history_keeps_what_the_inbox_received_and_quarantines_the_rest_once(home: Home, tmp_path: Path) -> None:
    ingest(home, put(tmp_path / "one.jsonl", lines(PAYLOADS[:1])))
    bad = [sendgrid(4, email=""), sendgrid(5, timestamp=int((datetime.now(UTC) + timedelta(days=9)).timestamp()))]
    file = put(tmp_path / "all.jsonl", lines(PAYLOADS[:3] + bad))
    for _ in range(2):
        said = ingest(home, file, "--received-at", "occurred")
        assert "2 quarantined" in said.out, said.out
    assert len(log(home)) == 3
    assert [row["received_at"] > row["occurred_at"] for row in log(home)].count(True) == 1
    kept = [row for path in home.quarantine.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(kept) == 2


def test_what_a_history_brought_is_a_repeat_when_its_webhook_comes_again(home: Home, tmp_path: Path) -> None:
    payload = sendgrid(1, timestamp=int(datetime.now(UTC).timestamp()) - 3_600)
    ingest(home, put(tmp_path / "all.jsonl", lines([payload])), "--received-at", "occurred")
    taken = Intake(home, "sendgrid").take([orjson.dumps(payload)])
    assert (taken.new, taken.repeated) == (0, 1)


def test_after_a_file_the_inbox_goes_on_behind_it_and_knows_it_has_not_all(home: Home, tmp_path: Path) -> None:
    later = datetime.now(UTC) + timedelta(hours=5)
    row = {"event_id": "1", "subscriber_id": "s1", "event_type": "open", "occurred_at": later}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "events.parquet")
    assert inbox("ingest", "--events", tmp_path / "events.parquet", "--home", home.root).code == 0
    assert Intake(home, "sendgrid").take([orjson.dumps(sendgrid(1))]).new == 1
    newest = Inbox(home).newest()
    end_us = microseconds(EventLog(home).end())
    # The clock that wrote the file ran ahead; what is received live is not received by that clock.
    assert newest is not None and end_us < newest <= now_us() < microseconds(later)
    assert Inbox(home).horizon() == end_us + 1


def test_profiles_created_some_day_do_not_set_the_inboxs_clock(home: Home, tmp_path: Path) -> None:
    row = {"subscriber_id": "s1", "created_at": datetime(2090, 1, 1, tzinfo=UTC)}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "people.parquet")
    assert inbox("ingest", "--subscribers", tmp_path / "people.parquet", "--home", home.root).code == 0
    Intake(home, "sendgrid").take([orjson.dumps(sendgrid(1))])
    assert 0 < (Inbox(home).newest() or 0) < microseconds(datetime.now(UTC) + timedelta(days=2))


@pytest.mark.parametrize("received", ["now", "occurred"])
def test_who_was_forgotten_stays_so_under_a_new_key(home: Home, tmp_path: Path, received: str) -> None:
    file = put(tmp_path / "a.jsonl", lines(PAYLOADS[:3]))
    ingest(home, file)
    former = Pseudonyms.load(home).subscriber_id("p1@example.com")
    assert inbox("forget", former, "--yes", "--home", home.root).code == 0
    rotate(home)
    more = put(tmp_path / "b.jsonl", lines([*PAYLOADS, sendgrid(7)]))
    said = ingest(home, more, "--received-at", received)
    # Of the forgotten, two are known by their ids, or refused with the others.
    assert "subscriber asked to be forgotten" in said.out, said.out
    ids = {Pseudonyms.load(home).subscriber_id("p1@example.com"), former}
    assert ids.isdisjoint(row["subscriber_id"] for row in log(home))
    assert ids.isdisjoint(Merges(home).read()) and ids.isdisjoint(Merges(home).read().values())


def test_who_was_forgotten_stays_so_in_a_mapped_file_under_a_new_key(home: Home, tmp_path: Path) -> None:
    file = put(
        tmp_path / "a.csv", "Email,At\njo@example.com,2026-01-05T09:12:44Z\nal@example.com,2026-01-05T09:12:44Z\n"
    )
    asked = ["--column", "subscriber_id=Email:hash", "--column", "occurred_at=At", "--column", "event_id=:digest"]
    ask = ["ingest", "--events", file, *asked, "--set", "event_type=open", "--home", home.root]
    assert inbox(*ask).code == 0
    assert (
        inbox("forget", Pseudonyms.load(home).subscriber_id("jo@example.com"), "--yes", "--home", home.root).code == 0
    )
    rotate(home)
    assert "0 new events" in inbox(*ask).out
    assert {row["subscriber_id"] for row in log(home)} == {Pseudonyms.load(home).subscriber_id("al@example.com")}
    assert len(Merges(home).read()) == 1


def test_what_waits_in_the_inbox_is_in_the_log_before_a_file_says_the_same(home: Home, tmp_path: Path) -> None:
    Intake(home, "events").take([message()])
    put(tmp_path / "e.jsonl", message() + b"\n")
    said = inbox("ingest", "--events", tmp_path / "e.jsonl", "--home", home.root)
    assert "0 new events" in said.out and "1 rows repeated, 0 quarantined" in said.out, said.out
    assert drained(home).accepted == 0


def test_aliases_of_a_file_are_recorded_without_an_event(home: Home, tmp_path: Path) -> None:
    ingest(home, put(tmp_path / "a.jsonl", lines(PAYLOADS[:1])))
    old = Pseudonyms.load(home).subscriber_id("p0@example.com")
    rotate(home)
    new = Pseudonyms.load(home).subscriber_id("p0@example.com")
    files_taken(home, {old: new})
    assert [row["subscriber_id"] for row in log(home)] == [new]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no rows"),
        (b" \n\n", "holds no rows"),
        (gzip.compress(lines(PAYLOADS))[:-9], "not a whole gzip file"),
    ],
    ids=["empty", "blank", "cut off"],
)
def test_a_file_at_fault_is_named(home: Home, tmp_path: Path, content: bytes, words: str) -> None:
    said = inbox("ingest", "--events", put(tmp_path / "a", content), "--format", "sendgrid", "--home", home.root)
    assert said.code == 1 and words in said.err and "Traceback" not in said.err, said.err


def test_no_file_and_an_empty_directory_are_named(home: Home, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        said = inbox("ingest", "--events", path, "--format", "ses", "--home", home.root)
        assert said.code == 1 and path.name in said.err, said.err


def test_a_document_too_long_is_refused_before_it_is_held(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST", 300)
    for content in (INDENTED, orjson.dumps(PAYLOADS)):
        with pytest.raises(UnreadableFile, match="longer than"):
            ingest_archive(home, put(tmp_path / "a.json", content), "sendgrid", lambda share: None)


def test_many_transactions_take_each_event_once(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_PER_TRANSACTION", 2)
    shares: list[float] = []
    file = put(tmp_path / "a.jsonl", lines([sendgrid(number) for number in range(100)] * 2))
    taken = ingest_archive(home, file, "sendgrid", shares.append)
    assert (taken.new, taken.repeated, taken.bodies) == (100, 100, 200)
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) > 10


# --- messages in the input contract -----------------------------------------------------------------------------------


def message(**other: Any) -> bytes:
    row = {"event_id": "1", "subscriber_id": "s1", "event_type": "open", "occurred_at": "2026-01-05T09:12:44.123Z"}
    return orjson.dumps(row | other)


ROWS = [
    {},
    {
        "campaign_id": "c1",
        "content": ["shoes", " hats "],
        "value": 3.5,
        "url": "https://x.example/a?b=c",
        "ip": "8.8.8.8",
    },
    {"content": "shoes|hats", "value": "12.25", "user_agent": "Mozilla/5.0"},
    {"occurred_at": "2026-01-05T10:12:44+01:00"},
    {"content": [], "value": None, "campaign_id": ""},
    {"event_id": None},
    {"event_id": " "},
    {"subscriber_id": "jane@example.com"},
    {"event_id": "jane@example.com"},
    {"subscriber_id": "s" * 257},
    {"campaign_id": "c\u0007"},
    {"event_type": "opened"},
    {"event_type": None},
    {"occurred_at": None},
    {"occurred_at": "2026-01-05T09:12:44"},
    {"occurred_at": "2026-01-05"},
    {"occurred_at": "soon"},
    {"occurred_at": "1889-01-05T09:12:44Z"},
    {"value": "much"},
    {"value": "nan"},
    {"value": "1_000"},
    {"campaign_id": "jane@example.com"},
    {"campaign_id": "to jane%40example.com, again"},
    {"content": ["shoes", "for jane@example.com now", "jane&#64;example.com"]},
    {"content": '"jane lee"@example.com|shoes'},
    {"value": 10**13},
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_message_is_judged_as_the_same_row_of_a_file(home: Home, tmp_path: Path, row: dict[str, Any]) -> None:
    intake = read_events(put(tmp_path / "row.jsonl", message(**row)))
    told = canonical(messages.read(message(**row)), Pseudonyms.load(home))
    assert (len(told.events), len(told.quarantined)) == (intake.table.num_rows, intake.quarantined.num_rows)
    for event, wanted in zip(told.events, intake.table.to_pylist(), strict=True):
        assert event.occurred_us == microseconds(wanted["occurred_at"])
        content = None if event.content is None else list(event.content)
        got = {name: getattr(event, name) for name in wanted if name not in ("occurred_at", "received_at", "content")}
        assert {**got, "content": content} == {name: wanted[name] for name in (*got, "content")}
    for unread, wanted in zip(told.quarantined, intake.quarantined.to_pylist(), strict=True):
        shared = " ".join(wanted["reason"].split()[:3]).rstrip(":,;")
        assert unread.reason.startswith(shared) or unread.reason.split()[0] == wanted["reason"].split()[0]
        assert "jane" not in unread.payload


def test_a_message_may_name_its_subscriber_by_address(home: Home) -> None:
    told = canonical(messages.read(message(subscriber_id=None, email="Ann@Example.com")), Pseudonyms.load(home))
    assert [event.subscriber_id for event in told.events] == [Pseudonyms.load(home).subscriber_id("ann@example.com")]


@pytest.mark.parametrize("body", [b"", b"null", b"3", b'"x"', b"[[]]", b"{", b"\xff\x00", b"[{}, 1]", b"{}" * 9])
def test_a_message_of_any_shape_is_told_and_none_raises(home: Home, body: bytes) -> None:
    told = canonical(messages.read(body), Pseudonyms.load(home))
    assert not told.events and told.quarantined


def test_what_the_inbox_holds_is_drained_once(home: Home) -> None:
    assert drained(home).accepted == 0
    Inbox(home).accept(
        [Delivery("events", canonical(messages.read(message()), Pseudonyms.load(home)).events)], now_us()
    )
    assert drained(home).accepted == 1
    assert drained(home).accepted == 0


def test_doctor_says_what_waits(home: Home) -> None:
    Intake(home, "events").take([message(), message(event_id="2")])
    said = inbox("doctor", "--home", home.root)
    assert "2 wait for the log" in said.out and "addresses become ids under key k" in said.out
    drained(home)
    assert "0 wait for the log" in inbox("doctor", "--home", home.root).out


@pytest.mark.parametrize("verb", ["train", "retrain", "score", "materialize", "monitor"])
def test_verbs_that_read_the_log_take_in_what_waits_first(home: Home, verb: str) -> None:
    Intake(home, "events").take([message()])
    if verb == "monitor":
        home.predictions.mkdir()
        row = {"request_id": "r", "subscriber_id": "s1", "scored_at": NOON, "status": "ok", "model": "churn"}
        row |= {"model_version": "1", "probability": 0.5, "content": [], "window_hours": 24}
        pq.write_table(pa.Table.from_pylist([row], LOG_SCHEMA), home.predictions / "one.parquet")
    inbox(verb, "--home", home.root)
    assert Inbox(home).waiting() == 0


def test_of_postmarks_deliveries_it_can_be_learnt_when_to_send(home: Home, tmp_path: Path) -> None:
    about = {"MessageID": "m1", "Recipient": "ann@example.com", "Tag": "shoes"}
    told = [
        about | {"RecordType": "Delivery", "DeliveredAt": "2026-01-05T09:00:00Z"},
        about | {"RecordType": "Click", "ReceivedAt": "2026-01-05T10:00:00Z", "OriginalLink": "https://x.example/a"},
        about | {"MessageID": "m2", "RecordType": "Delivery", "DeliveredAt": "2026-01-06T09:00:00Z"},
    ]
    file = put(tmp_path / "archive.jsonl", lines(told))
    said = inbox("ingest", "--events", file, "--format", "postmark", "--received-at", "occurred", "--home", home.root)
    assert "5 new events from 3 messages" in said.out, said
    folder = Folder(EventLog(home).connect(), Catalogue())
    found = sends(folder, "any", timedelta(days=1), NOON - timedelta(days=2), NOON + timedelta(days=9))
    assert found.label.tolist() == [1.0, 0.0]
