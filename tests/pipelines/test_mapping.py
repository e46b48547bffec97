"""A program's own exports: what they call things is said once, and the ordinary intake judges their rows."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.home import Home
from features.identity import Pseudonyms, rotate
from features.log import EventLog
from tests.front_door import Said, inbox

MAILCHIMP = """Email Address,Member Rating,Action,Timestamp,Campaign,URL
Ann.Lee@Example.com,4,open,2026-01-05 09:12:44,Winter sale,
ann.lee@example.com,4,click,2026-01-05 09:13:01,Winter sale,https://shop.example/boots?u=ann.lee@example.com
bob@example.com,2,open,2026-03-29 02:30:00,Winter sale,
,2,open,2026-01-05 09:12:44,Winter sale,
bob@example.com,2,open,yesterday,Winter sale,
"""
KLAVIYO = """Event ID,Metric,Datetime,Email,Campaign Name,$value,List
4Jn2,Opened Email,2026-01-05 09:12:44+00:00,ann@example.com,c9,,Newsletter
4Jn3,Clicked Email,2026-01-05 09:14:44+00:00,ann@example.com,c9,,Newsletter
4Jn4,Placed Order,2026-01-05 10:00:00+00:00,ann@example.com,,59.90,Newsletter
4Jn5,Received Email,2026-01-05 09:00:00+00:00,ann@example.com,c9,,Newsletter
4Jn6,Checkout Started,2026-01-05 09:50:00+00:00,ann@example.com,,,Newsletter
"""
HUBSPOT = """{"id": "1-a", "type": "OPEN", "created": 1767604364123, "recipient": "ann@example.com", "emailCampaignId": 77}
{"id": "1-b", "type": "CLICK", "created": 1767604370000, "recipient": "ann@example.com", "url": "https://x.example/a"}
{"id": "1-c", "type": "DEFERRED", "created": 1767604370000, "recipient": "ann@example.com"}
"""
SALESFORCE = """SubscriberKey;EventDate;EventType;JobID
0031;1/5/2026 9:12:44 AM;Open;12
0031;1/5/2026 11:00:01 PM;Click;12
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def put(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def ingest(home: Home, events: Path, *options: str | Path) -> Said:
    said = inbox("ingest", "--events", events, *options, "--home", home.root)
    assert said.code == 0, said.err
    return said


def log(home: Home) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = EventLog(home).connect().table("events").to_pyarrow().to_pylist()
    return sorted(rows, key=lambda row: row["occurred_at"])


def quarantine(home: Home) -> list[dict[str, Any]]:
    return [row for path in home.quarantine.glob("*.parquet") for row in pq.read_table(path).to_pylist()]


def test_who_is_no_address_is_said_and_not_quoted(home: Home, tmp_path: Path) -> None:
    said = ingest(
        home, put(tmp_path / "a.csv", MAILCHIMP + "Ann Lee,4,open,2026-01-06 09:12:44,x,\n"), *MAILCHIMP_OPTIONS
    )
    assert "3 new events" in said.out and "3 quarantined" in said.out
    (row,) = [row for row in quarantine(home) if row["row"] == 6]
    assert row["reason"] == "no e-mail address in column Email Address" and "Lee" not in row["raw"]


MAILCHIMP_OPTIONS = (
    *("--column", "subscriber_id=Email Address:hash"),
    *("--column", "event_type=Action"),
    *("--column", "occurred_at=Timestamp"),
    *("--column", "campaign_id=Campaign"),
    *("--column", "event_id=:digest"),
    *("--timezone", "America/New_York"),
)


def test_mailchimps_activity_by_address_and_local_time(home: Home, tmp_path: Path) -> None:
    said = ingest(home, put(tmp_path / "activity.csv", MAILCHIMP), *MAILCHIMP_OPTIONS)
    assert "3 new events" in said.out and "2 quarantined" in said.out
    first, second, third = log(home)
    ann = Pseudonyms.load(home).subscriber_id("ann.lee@example.com")
    assert first["subscriber_id"] == second["subscriber_id"] == ann != third["subscriber_id"]
    assert first["occurred_at"] == datetime(2026, 1, 5, 14, 12, 44, tzinfo=UTC)
    assert first["campaign_id"] == "Winter sale"
    assert second["link"] is not None and first["link"] is None
    assert len({row["event_id"] for row in log(home)}) == 3


def test_a_row_in_quarantine_has_the_number_it_has_in_the_file_and_nobodys_address(home: Home, tmp_path: Path) -> None:
    torn = MAILCHIMP + "bob@example.com,torn\n" + "bob@example.com,2,open,never,Winter sale,\n"
    ingest(home, put(tmp_path / "activity.csv", torn), *MAILCHIMP_OPTIONS)
    reasons = {row["row"]: row["reason"] for row in quarantine(home)}
    assert {row["source"] for row in quarantine(home)} == {"activity.csv"}
    assert reasons.keys() == {4, 5, 6, 7}
    assert reasons[4] == "subscriber_id is missing"
    assert reasons[5].startswith("occurred_at is not a timestamp") and reasons[7].startswith("occurred_at is not")
    assert reasons[6] == "the row has 2 fields, the header 6"
    assert not any("@" in row["raw"] for row in quarantine(home))


def test_the_same_export_again_changes_nothing_even_under_a_new_key(home: Home, tmp_path: Path) -> None:
    file = put(tmp_path / "activity.csv", MAILCHIMP)
    ingest(home, file, *MAILCHIMP_OPTIONS)
    before = EventLog(home).fingerprint()
    assert "0 new events" in ingest(home, file, *MAILCHIMP_OPTIONS).out
    assert EventLog(home).fingerprint() == before
    rotate(home)
    assert "0 new events" in ingest(home, file, *MAILCHIMP_OPTIONS).out
    # Who came under the old key is the one who comes under the new.
    assert {row["subscriber_id"] for row in log(home)} >= {Pseudonyms.load(home).subscriber_id("bob@example.com")}


def test_klaviyos_events_with_its_words_for_them(home: Home, tmp_path: Path) -> None:
    mapping = put(
        tmp_path / "klaviyo.toml",
        """
        [events.columns]
        event_id = "Event ID"
        subscriber_id = "Email:hash"
        event_type = "Metric"
        occurred_at = "Datetime"
        campaign_id = "Campaign Name"
        value = { column = "$value" }
        content = "List"
        [events.event_types]
        "Received Email" = "sent"
        "Opened Email" = "open"
        "Clicked Email" = "click"
        "Placed Order" = "purchase"
        """,
    )
    said = ingest(home, put(tmp_path / "klaviyo.csv", KLAVIYO), "--map", mapping)
    assert "4 new events" in said.out and "quarantined 1: event_type is unknown" in said.out
    assert [row["event_type"] for row in log(home)] == ["sent", "open", "click", "purchase"]
    assert log(home)[-1]["value"] == 59.9 and log(home)[-1]["content"] == ["Newsletter"]


def test_hubspots_events_with_milliseconds(home: Home, tmp_path: Path) -> None:
    said = ingest(
        home,
        put(tmp_path / "hubspot.export", HUBSPOT),
        *("--format", "jsonl"),
        *("--column", "event_id=id", "--column", "event_type=type", "--column", "occurred_at=created:epoch_ms"),
        *("--column", "subscriber_id=recipient:hash", "--column", "campaign_id=emailCampaignId"),
        *("--event-type", "OPEN=open", "--event-type", "CLICK=click"),
    )
    assert "2 new events" in said.out and "1 quarantined" in said.out
    first, _ = log(home)
    assert first["occurred_at"] == datetime(2026, 1, 5, 9, 12, 44, 123_000, tzinfo=UTC)
    assert first["campaign_id"] == "77"


def test_salesforces_tracking_with_its_own_clock(home: Home, tmp_path: Path) -> None:
    text = SALESFORCE.replace(";", ",")
    said = ingest(
        home,
        put(tmp_path / "opens.txt", text),
        *("--format", "csv"),
        *("--column", "subscriber_id=SubscriberKey", "--column", "event_type=EventType"),
        *("--column", "occurred_at=EventDate:%m/%d/%Y %I:%M:%S %p", "--column", "event_id=:digest"),
        *("--column", "campaign_id=JobID", "--timezone", "Etc/GMT+6"),
        *("--event-type", "Open=open", "--event-type", "Click=click"),
    )
    assert "2 new events" in said.out
    assert [row["occurred_at"].hour for row in log(home)] == [15, 5]


@pytest.mark.parametrize(
    ("written", "how", "hour"),
    [
        ("2026-10-25 02:30:00", "", 1),
        ("2026-03-29 02:30:00", "", 1),
        ("2026-01-05T09:00:00+05:00", "", 4),
        ("2026-01-05 09:00", "", 8),
        ("1767603600", ":epoch_s", 9),
        ("1767603600000000", ":epoch_us", 9),
        ("2026-01-05 09:00:00 +0500", ":%Y-%m-%d %H:%M:%S %z", 4),
    ],
    ids=["shown twice", "never shown", "own offset", "no seconds", "seconds", "microseconds", "pattern with offset"],
)
def test_instants_however_written(home: Home, tmp_path: Path, written: str, how: str, hour: int) -> None:
    file = put(tmp_path / "one.csv", f"event_id,subscriber_id,event_type,at\n1,s1,open,{written}\n")
    ingest(home, file, "--column", f"occurred_at=at{how}", "--timezone", "Europe/Berlin")
    assert log(home)[0]["occurred_at"].hour == hour


@pytest.mark.parametrize("written", ["nan", "inf", "1e300", "soon", "-99999999999999999"])
def test_a_number_that_is_no_instant_is_quarantined(home: Home, tmp_path: Path, written: str) -> None:
    file = put(tmp_path / "one.csv", f"event_id,subscriber_id,event_type,at\n1,s1,open,{written}\n")
    said = ingest(home, file, "--column", "occurred_at=at:epoch_ms")
    assert "1 quarantined" in said.out


def test_parquet_without_zones_and_with_numbers(home: Home, tmp_path: Path) -> None:
    table = pa.table(
        {
            "who": ["s1", "s2"],
            "position": ["a", "b"],
            "POSITION": [1, 2],
            "event_type": ["open", "click"],
            "at": [datetime(2026, 7, 1, 9), datetime(2026, 7, 2, 9)],
            "got": [1_782_990_000, 1_782_990_001.5],
        }
    )
    pq.write_table(table, tmp_path / "one.parquet")
    ingest(
        home,
        tmp_path / "one.parquet",
        *("--column", "subscriber_id=who", "--column", "occurred_at=at", "--column", "event_id=position"),
        *("--column", "received_at=got:epoch_s", "--timezone", "Europe/Berlin"),
    )
    assert [row["occurred_at"].hour for row in log(home)] == [7, 7]
    assert log(home)[1]["received_at"].microsecond == 500_000
    assert [row["event_id"] for row in log(home)] == ["a", "b"]


def test_profiles_are_found_by_the_address_that_events_have(home: Home, tmp_path: Path) -> None:
    events = put(tmp_path / "events.csv", MAILCHIMP)
    members = put(tmp_path / "members.csv", "Email Address,Joined,City\nANN.LEE@example.com,2025-01-01,Oslo\n")
    profile = ("subscribers.subscriber_id=Email Address:hash", "subscribers.created_at=Joined")
    columns = [word for one in profile for word in ("--column", one)]
    said = ingest(home, events, *MAILCHIMP_OPTIONS, "--subscribers", members, *columns)
    assert "1 subscribers" in said.out
    people = EventLog(home).connect().table("subscribers").to_pyarrow().to_pylist()
    ann = Pseudonyms.load(home).subscriber_id("ann.lee@example.com")
    (found,) = [row for row in people if row["subscriber_id"] == ann]
    assert found["City"] == "Oslo" and "Email Address" not in found


def test_a_time_zone_given_once_is_for_all_tables(home: Home, tmp_path: Path) -> None:
    mapping = put(tmp_path / "map.json", '{"timezone": "Europe/Berlin", "events": {"set": {"event_type": "open"}}}')
    events = put(tmp_path / "e.csv", "event_id,subscriber_id,occurred_at\n1,s1,2026-01-05 09:00:00\n")
    people = put(tmp_path / "s.csv", "subscriber_id,created_at\ns1,2026-01-01\n")
    said = ingest(home, events, "--map", mapping, "--subscribers", people)
    assert "1 new events, 1 subscribers" in said.out
    assert log(home)[0]["occurred_at"].hour == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--column", "occured_at=Timestamp"], ("events has no column 'occured_at'", "it has event_id")),
        (
            ["--column", "occurred_at=Time"],
            ("activity.csv has no column 'Time' for occurred_at", "it has Email Address"),
        ),
        (["--column", "occurred_at=Timestamp", "--column", "occurred_at=Action"], ("occurred_at is said twice",)),
        (["--column", "event_type=Action", "--set", "event_type=open"], ("event_type is mapped to a column too",)),
        (["--column", "occurred_at"], ("is no pair", "occurred_at=EventDate")),
        (["--column", "event_type=Action"], ("nothing for event_id, subscriber_id, occurred_at", "event_id=:digest")),
        (["--column", "campaign_id=Campaign:hash"], ("campaign_id cannot be hashed",)),
        (["--column", "campaign_id=:digest"], ("campaign_id cannot be a digest",)),
        (["--column", "campaign_id=Timestamp:epoch_s"], ("campaign_id is no instant",)),
        (["--column", "occurred_at=Timestamp:%d.%m.%Y"], ("say which zone occurred_at is in",)),
        (["--column", "occurred_at=Timestamp:%Q"], ("is no strptime pattern",)),
        (["--event-type", "open=opened"], ("there is no type 'opened'",)),
        (["--event-type", "open"], ("is no pair", "Opened=open")),
        (["--timezone", "Berlin"], ("'Berlin' is no IANA time zone",)),
        (["--set", "mood=good"], ("events has no column 'mood'",)),
        (["--map", "nowhere.toml"], ("nowhere.toml cannot be read",)),
        (["--format", "xml"], ("'xml' is not known", "sendgrid")),
        (["--format", "sendgrid", "--column", "event_id=id"], ("leave --column",)),
        (["--column", "campaigns.campaign_id=Campaign"], ("is about campaigns, and --campaigns is not given",)),
        (["--received-at", "occurred"], ("is for providers' payloads",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mapping_that_does_not_fit_is_refused_before_anything_is_taken(
    home: Home, tmp_path: Path, options: list[str], words: tuple[str, ...]
) -> None:
    file = put(tmp_path / "activity.csv", MAILCHIMP)
    said = inbox("ingest", "--events", file, *options, "--home", home.root)
    assert said.code == 1, said
    assert all(word in said.err for word in words), said.err
    assert "Traceback" not in said.err and not home.event_log.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[events", ("is no TOML file",)),
        ("[event.columns]", ("does not know event",)),
        ("[events.column]", ("does not know column", "columns")),
        ("[events]\ncolumns = 'x'", ("is not a table",)),
        ("[events.columns]\nevent_id = 3", ("no text",)),
        ("[events.columns]\nevent_id = {name = 'x'}", ("does not know name",)),
        ("timezone = 3", ("no text",)),
        ("[events.columns]\ncampaign_id = {column = 'Action', how = 'sha1'}", ("cannot be read as 'sha1'",)),
        ("[events.columns]\nevent_id = 'URL'", ("event_id is in the mapping file too",)),
    ],
)
def test_a_mapping_file_that_is_none_is_named(home: Home, tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file, mapping = put(tmp_path / "activity.csv", MAILCHIMP), put(tmp_path / "map.toml", text)
    said = inbox("ingest", "--events", file, "--map", mapping, "--column", "event_id=:digest", "--home", home.root)
    assert said.code == 1 and all(word in said.err for word in words), said


def test_a_column_without_its_table_is_not_lost_in_silence(home: Home, tmp_path: Path) -> None:
    members = put(tmp_path / "members.csv", "Email,Joined\nann@example.com,2025-01-01T00:00:00Z\n")
    said = inbox("ingest", "--subscribers", members, "--column", "subscriber_id=Email:hash", "--home", home.root)
    assert said.code == 1 and "is about events" in said.err and "write subscribers.NAME=" in said.err


def test_a_directory_of_exports_is_mapped_file_by_file(home: Home, tmp_path: Path) -> None:
    directory = tmp_path / "exports"
    directory.mkdir()
    header = MAILCHIMP.splitlines()[0]
    for number in range(3):
        put(directory / f"{number}.txt", f"{header}\np{number}@example.com,1,open,2026-01-05 09:12:44,c,\n")
    said = ingest(home, directory, "--format", "csv", *MAILCHIMP_OPTIONS)
    assert "3 new events" in said.out


def test_gzip_is_refused_in_words_where_it_is_not_read(home: Home, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(gzip.compress(MAILCHIMP.encode()))
    said = inbox("ingest", "--events", tmp_path / "a.csv", *MAILCHIMP_OPTIONS, "--home", home.root)
    assert said.code == 1 and "cannot be read" in said.err and "Traceback" not in said.err
