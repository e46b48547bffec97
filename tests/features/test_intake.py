"""Files in, checked tables out: every fault has its own message, and no row is lost."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import intake as intake_module
from features.contract import EVENT_SCHEMA, EVENT_TYPES, UTC_MICROSECONDS
from features.errors import EmptyInput, MissingColumns, UnreadableFile, WrongColumnType
from features.intake import (
    REDACTED,
    SUBSCRIBERS,
    Intake,
    read_campaigns,
    read_events,
    read_subscribers,
    stage,
    workshop,
)
from features.links import link_of
from features.networks import network_of

Row = dict[str, Any]
NINE = datetime(2026, 1, 31, 9, tzinfo=UTC)
GOOD: Row = {
    "event_id": "good",
    "subscriber_id": "s1",
    "event_type": "open",
    "occurred_at": NINE,
    "received_at": NINE + timedelta(minutes=1),
    "campaign_id": "c1",
    "content": ["shoes", "hats"],
    "value": 2.5,
    "user_agent": "Mozilla/5.0",
    "ip": "203.0.113.7",
    "url": "https://example.com/a?b=c",
}
PERSON: Row = {"subscriber_id": "s1", "created_at": NINE}


def event(event_id: str, /, **changes: Any) -> Row:
    return GOOD | {"event_id": event_id} | changes


def written(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def to_parquet(rows: Sequence[Row], path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def to_csv(rows: Sequence[Row], path: Path) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        for row in rows:
            listed = {
                name: "|".join(value) if isinstance(value, list) else written(value) for name, value in row.items()
            }
            table.writerow(listed)
    return path


def to_jsonl(rows: Sequence[Row], path: Path) -> Path:
    path.write_text("".join(json.dumps({name: written(value) for name, value in row.items()}) + "\n" for row in rows))
    return path


FORMATS: Mapping[str, Callable[[Sequence[Row], Path], Path]] = {"parquet": to_parquet, "csv": to_csv, "jsonl": to_jsonl}
in_every_format = pytest.mark.parametrize("suffix", FORMATS)


def save(rows: Sequence[Row], directory: Path, suffix: str, name: str = "rows") -> Path:
    return FORMATS[suffix](rows, directory / f"{name}.{suffix}")


def accounted(intake: Intake, rows: int) -> Intake:
    assert intake.table.num_rows + intake.repeated + intake.quarantined.num_rows == rows
    return intake


def reasons(intake: Intake) -> list[str]:
    return [str(reason) for reason in intake.quarantined["reason"].to_pylist()]


def raw(intake: Intake) -> list[Row]:
    return [json.loads(text) for text in intake.quarantined["raw"].to_pylist()]


# --- the three formats


@in_every_format
def test_every_format_gives_the_same_canonical_events(suffix: str, tmp_path: Path) -> None:
    rows = [event("b", value=None, content=None, campaign_id=None), event("a", user_agent=None)]
    table = accounted(read_events(save(rows, tmp_path, suffix)), 2).table
    assert table.schema.equals(EVENT_SCHEMA)
    kept = {name: value for name, value in GOOD.items() if name in EVENT_SCHEMA.names}
    kept |= {"network": network_of(GOOD["ip"]), "link": link_of(GOOD["url"])}
    assert table.to_pylist() == [
        kept | {"event_id": "a", "agent": "unknown"},
        kept | {"event_id": "b", "agent": "prefetch", "value": None, "content": None, "campaign_id": None},
    ]


@in_every_format
def test_address_and_url_are_reduced_to_network_and_link(suffix: str, tmp_path: Path) -> None:
    rows = [
        event("a", ip="66.249.84.1", url="https://example.com/unsubscribe?to=ann"),
        event("b", ip="17.1.2.3", url="https://example.com/trap"),
        event("c", ip="nowhere", url="nothing"),
        event("d", ip=None, url=None),
    ]
    table = accounted(read_events(save(rows, tmp_path, suffix)), 4).table
    assert table["network"].to_pylist() == ["image_proxy", "prefetch", "unknown", "unknown"]
    assert table["link"].to_pylist() == ["unsubscribe", "honeypot", link_of("nothing"), None]


def test_evidence_that_is_no_text_is_left_out_and_said_so(tmp_path: Path) -> None:
    intake = read_events(save([event("a", ip=7, url=3.5)], tmp_path, "parquet"))
    assert intake.table["network"].to_pylist() == ["unknown"]
    assert intake.notes == ("left out of events, not being text: ip, url",)


@in_every_format
def test_optional_columns_may_be_absent(suffix: str, tmp_path: Path) -> None:
    required = {name: GOOD[name] for name in ("event_id", "subscriber_id", "event_type", "occurred_at")}
    (row,) = read_events(save([required], tmp_path, suffix)).table.to_pylist()
    assert row["received_at"] == row["occurred_at"] == NINE
    assert (row["campaign_id"], row["content"], row["value"], row["agent"]) == (None, None, None, "unknown")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+05:30"])
def test_parquet_timestamps_of_any_unit_and_zone_become_utc(unit: str, zone: str, tmp_path: Path) -> None:
    table = pa.Table.from_pylist([GOOD])
    column = table["occurred_at"].cast(pa.timestamp(unit, tz=zone), safe=False)
    pq.write_table(table.set_column(3, "occurred_at", column), tmp_path / "a.parquet")
    assert read_events(tmp_path / "a.parquet").table["occurred_at"].to_pylist() == [NINE]


@pytest.mark.parametrize(
    "text",
    ["2026-01-31T09:00:00Z", "2026-01-31 09:00:00+00:00", "2026-01-31T10:00:00.000+0100", "2026-01-31 09:00 UTC"],
)
def test_texts_that_name_their_offset_become_utc(text: str, tmp_path: Path) -> None:
    path = save([event("a", occurred_at=text)], tmp_path, "csv")
    assert read_events(path).table["occurred_at"].to_pylist() == [NINE]


def test_dictionaries_and_decimals_are_read_as_what_they_hold(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([GOOD])
    table = table.set_column(2, "event_type", table["event_type"].dictionary_encode())
    table = table.set_column(7, "value", table["value"].cast(pa.decimal128(12, 2)))
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = read_events(tmp_path / "a.parquet").table.to_pylist()
    assert (row["event_type"], row["value"]) == ("open", 2.5)


def test_contract_columns_are_known_in_any_case_and_others_are_named(tmp_path: Path) -> None:
    row = {
        " Event_ID ": "a",
        **{name: GOOD[name] for name in ("subscriber_id", "event_type", "occurred_at")},
        "mood": "x",
    }
    intake = read_events(save([row], tmp_path, "csv"))
    assert intake.table["event_id"].to_pylist() == ["a"]
    assert intake.notes == ("left out of events, not being in the input contract: mood",)


def test_a_directory_is_read_as_one_table_and_what_is_not_read_is_named(tmp_path: Path) -> None:
    save([event("a"), event("b")], tmp_path, "csv", "first")
    save([event("b"), event("c"), event("d", event_type="sneeze")], tmp_path, "parquet", "second")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "_SUCCESS").touch()
    intake = accounted(read_events(tmp_path), 5)
    assert intake.table["event_id"].to_pylist() == ["a", "b", "c"]
    assert intake.notes == ("notes.txt was not read as events",)
    assert intake.quarantined.select(["source", "row"]).to_pylist() == [{"source": "second.parquet", "row": 3}]


# --- faults of a whole file


@in_every_format
def test_missing_columns_are_named_beside_those_found(suffix: str, tmp_path: Path) -> None:
    path = save([{"event_id": "a", "subscriber_id": "s", "kind": "open"}], tmp_path, suffix)
    with pytest.raises(MissingColumns, match=r"event_type, occurred_at; it has event_id, subscriber_id") as caught:
        read_events(path)
    assert caught.value.missing == ("event_type", "occurred_at")
    assert "kind" in caught.value.found


def test_a_file_without_a_header_does_not_spill_addresses_into_the_message(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("e1,jane@example.com,open,2026-01-31T09:00:00Z\n" * 2)
    with pytest.raises(MissingColumns) as caught:
        read_events(tmp_path / "a.csv")
    assert "jane" not in str(caught.value)
    assert REDACTED in str(caught.value)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("occurred_at", pa.array([1_767_225_600]), "int64"),
        ("occurred_at", pa.array([datetime(2026, 1, 31)]), r"timestamp\[us\] without a time zone"),
        ("occurred_at", pa.array([date(2026, 1, 31)]), "date32.* without a time zone"),
        ("received_at", pa.array([datetime(2026, 1, 31)]), "timestamp.* without a time zone"),
        ("subscriber_id", pa.array([17]), "int64"),
        ("content", pa.array([[1, 2]]), "list<.*int64>"),
        ("content", pa.array([3.0]), "double"),
        ("value", pa.array([True]), "bool"),
    ],
)
def test_a_column_of_the_wrong_type_is_named_with_what_is_needed(
    column: str, values: pa.Array, found: str, tmp_path: Path
) -> None:
    table = pa.Table.from_pylist([GOOD])
    pq.write_table(table.set_column(table.schema.names.index(column), column, values), tmp_path / "a.parquet")
    with pytest.raises(WrongColumnType, match=rf"events\.{column} is {found}, but .* is needed"):
        read_events(tmp_path / "a.parquet")


@pytest.mark.parametrize(("name", "content"), [("a.csv", ""), ("a.jsonl", ""), ("a.jsonl", "\n \n")])
def test_an_empty_text_file_is_empty_input(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(EmptyInput, match="holds no rows"):
        read_events(tmp_path / name)


def test_columns_without_rows_are_empty_input(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",".join(GOOD) + "\n")
    pq.write_table(pa.Table.from_pylist([GOOD]).slice(0, 0), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(EmptyInput):
            read_events(tmp_path / name)


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -9])
def test_a_truncated_parquet_file_is_unreadable(keep: int, tmp_path: Path) -> None:
    path = save([GOOD], tmp_path, "parquet")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UnreadableFile, match="may be truncated"):
        read_events(path)


def test_a_parquet_file_with_damaged_pages_is_unreadable(tmp_path: Path) -> None:
    path = save([event(f"e{number}") for number in range(5000)], tmp_path, "parquet")
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996
    path.write_bytes(content)
    with pytest.raises(UnreadableFile):
        read_events(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.xlsx", b"PK", "not in one of .parquet, .csv"),
        ("a", b"", "ends in nothing"),
        ("a.csv", b"event_id,subscriber_id,event_type,occurred_at\n\xff\xfe,s,open,x\n", "not UTF-8"),
        ("a.csv", b"event_id,event_id\n1,2\n", "event_id more than once"),
        ("a.json", b'[{"event_id": "a"}]', "one JSON array"),
        ("a.jsonl", b"hello\nworld\n", "no line of it is a JSON object"),
        (
            "a.csv",
            b'event_id,subscriber_id,event_type,occurred_at\na,s,open,2026-01-31T09:00Z\nb,s,"open\nc,s\nd,e\n',
            "quote",
        ),
    ],
)
def test_a_file_that_is_not_what_it_should_be_says_why(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFile, match=reason):
        read_events(tmp_path / name)


def test_a_path_that_leads_nowhere_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no such file"):
        read_events(tmp_path / "none.parquet")
    with pytest.raises(UnreadableFile, match="directory holds no file"):
        read_events(tmp_path)


# --- faults of single rows

ROW_FAULTS: list[tuple[Row, str]] = [
    ({"event_id": None}, "event_id is missing"),
    ({"subscriber_id": " "}, "subscriber_id is missing"),
    ({"event_type": None}, "event_type is missing"),
    ({"occurred_at": None}, "occurred_at is missing"),
    ({"subscriber_id": "jane@example.com"}, "subscriber_id is an e-mail address"),
    ({"event_id": "open-jane%40example.com"}, "event_id is an e-mail address"),
    ({"subscriber_id": "s" * 257}, "subscriber_id is longer than 256 characters"),
    ({"event_id": "a\tb"}, "event_id contains control characters"),
    ({"campaign_id": "a\x00b"}, "campaign_id contains control characters"),
    ({"event_type": "sneeze"}, f"event_type is unknown; known are {', '.join(EVENT_TYPES)}"),
    ({"received_at": NINE - timedelta(microseconds=1)}, "received_at is before occurred_at"),
    ({"occurred_at": datetime(1989, 12, 31, tzinfo=UTC)}, "occurred_at is outside the years 1990 to 2100"),
    ({"received_at": datetime(2101, 1, 1, tzinfo=UTC)}, "received_at is outside the years 1990 to 2100"),
    ({"value": float("nan")}, "value is not a finite number"),
    ({"value": float("-inf")}, "value is not a finite number"),
    ({"value": 1.1e12}, "value is beyond 1,000,000,000,000: write it in larger units"),
]


@in_every_format
@pytest.mark.parametrize(("fault", "reason"), ROW_FAULTS, ids=[reason[:40] for _, reason in ROW_FAULTS])
def test_a_bad_row_is_quarantined_with_its_reason_and_the_good_ones_survive(
    fault: Row, reason: str, suffix: str, tmp_path: Path
) -> None:
    rows = [event("first"), event("bad", **fault), event("last")]
    intake = accounted(read_events(save(rows, tmp_path, suffix)), 3)
    assert intake.table["event_id"].to_pylist() == ["first", "last"]
    (quarantined,) = intake.quarantined.to_pylist()
    assert quarantined["row"] == 2
    assert quarantined["reason"].startswith(reason)
    assert (raw(intake)[0]["event_type"] or None) == rows[1]["event_type"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            {"occurred_at": "2026-01-31T09:00:00"},
            "occurred_at has no time zone: write it in UTC, e.g. 2026-01-31T09:00:00Z",
        ),
        ({"received_at": "2026-01-31"}, "received_at has no time zone"),
        ({"occurred_at": "31/01/2026 09:00"}, "occurred_at is not a timestamp"),
        ({"occurred_at": "2026-02-30T09:00:00Z"}, "occurred_at is not a timestamp"),
        ({"occurred_at": "2026-01-31T09:00:00+99:99"}, "occurred_at is not a timestamp"),
        ({"value": "a lot"}, "value is not a number"),
    ],
)
def test_a_text_that_says_no_instant_or_number_is_quarantined(
    fault: Row, reason: str, suffix: str, tmp_path: Path
) -> None:
    intake = accounted(read_events(save([GOOD, event("bad", **fault)], tmp_path, suffix)), 2)
    assert reasons(intake)[0].startswith(reason)
    assert intake.table["event_id"].to_pylist() == ["good"]


@in_every_format
def test_neither_addresses_nor_raw_evidence_are_kept_in_quarantine(suffix: str, tmp_path: Path) -> None:
    row = event("a", subscriber_id="Jane.Doe+x@Mail.Example.co.uk", campaign_id="for jane@example.com", event_type="?")
    intake = read_events(save([row], tmp_path, suffix))
    text = intake.quarantined["raw"].to_pylist()[0]
    assert "ane" not in text
    assert raw(intake)[0]["subscriber_id"] == REDACTED
    assert not {"user_agent", "ip", "url"} & raw(intake)[0].keys()


def test_a_csv_row_with_too_few_or_many_fields_is_quarantined_under_its_number(tmp_path: Path) -> None:
    lines = ["event_id,subscriber_id,event_type,occurred_at"]
    lines += [f"e{number},s,open,2026-01-31T09:00:00Z" for number in range(1, 8)]
    lines[2], lines[5] = "e2,jane@example.com", lines[5] + ",more"
    lines[4] = "e4,s,sneeze,2026-01-31T09:00:00Z"
    (tmp_path / "a.csv").write_text("\n".join(lines))
    intake = accounted(read_events(tmp_path / "a.csv"), 7)
    assert intake.quarantined["row"].to_pylist() == [2, 4, 5]
    assert reasons(intake)[0] == "the row has 2 fields, the header 4"
    assert raw(intake)[0] == {"line": f"e2,{REDACTED}"}


def test_a_file_of_nothing_but_torn_rows_is_all_quarantined(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("event_id,subscriber_id,event_type,occurred_at\n" + "a,b\n" * 3)
    assert accounted(read_events(tmp_path / "a.csv"), 3).quarantined["row"].to_pylist() == [1, 2, 3]


def test_rows_keep_their_numbers_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(intake_module, "GATHERED_BYTES", 1 << 13)
    lines = [f"e{number},s,open,2026-01-31T09:00:00Z" for number in range(1, 2001)]
    for number in range(99, 2000, 100):
        lines[number] = "torn"
    (tmp_path / "a.csv").write_text(
        "event_id,subscriber_id,event_type,occurred_at\n" + "\n".join(lines) + "\nx,s,?,y\n"
    )
    intake = accounted(read_events(tmp_path / "a.csv"), 2001)
    assert intake.quarantined["row"].to_pylist() == [*range(100, 2001, 100), 2001]


def test_a_json_line_cut_short_is_quarantined(tmp_path: Path) -> None:
    path = save([event("a"), event("b")], tmp_path, "jsonl")
    path.write_text(path.read_text() + "\n" + '{"event_id": "c", "subscriber_id": "jane@example.com", "ev')
    intake = accounted(read_events(path), 3)
    assert reasons(intake) == ["the line is not a JSON object"]
    assert intake.quarantined["row"].to_pylist() == [4]
    assert REDACTED in raw(intake)[0]["line"]


# --- one event, told more than once


@in_every_format
def test_an_identical_repeat_is_counted_even_when_received_later(suffix: str, tmp_path: Path) -> None:
    later = event("a", received_at=NINE + timedelta(hours=5))
    intake = accounted(read_events(save([later, event("a"), event("a"), event("b")], tmp_path, suffix)), 4)
    assert intake.repeated == 2
    assert intake.table["received_at"].to_pylist() == [GOOD["received_at"]] * 2


@in_every_format
def test_the_same_id_with_other_content_is_quarantined_and_the_first_received_kept(suffix: str, tmp_path: Path) -> None:
    late = event("a", event_type="click", received_at=NINE + timedelta(hours=1))
    intake = accounted(read_events(save([late, event("a"), event("b")], tmp_path, suffix)), 3)
    assert intake.table["event_type"].to_pylist() == ["open", "open"]
    assert reasons(intake) == ["event_id was seen before with other content: the first one is kept"]
    assert raw(intake)[0]["event_type"] == "click"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_which_rows_are_accepted_does_not_depend_on_their_order(data: st.DataObject, tmp_path: Path) -> None:
    rows = data.draw(
        st.lists(
            st.builds(
                event,
                st.sampled_from(["a", "b", "c"]),
                event_type=st.sampled_from(["open", "click", "sneeze"]),
                content=st.sampled_from([None, ["x"], ["x", "y"]]),
                value=st.sampled_from([None, 1.0]),
                received_at=st.integers(-1, 2).map(lambda minutes: NINE + timedelta(minutes=minutes)),
            ),
            min_size=1,
            max_size=12,
        )
    )
    shuffled = data.draw(st.permutations(rows))
    one = accounted(read_events(to_jsonl(rows, tmp_path / "one.jsonl")), len(rows))
    other = accounted(read_events(to_jsonl(shuffled, tmp_path / "other.jsonl")), len(rows))
    assert one.table.equals(other.table)
    assert one.repeated == other.repeated
    assert Counter(reasons(one)) == Counter(reasons(other))
    sound = [row for row in rows if row["event_type"] != "sneeze" and row["received_at"] >= NINE]
    earliest = {
        row["event_id"]: min(s["received_at"] for s in sound if s["event_id"] == row["event_id"]) for row in sound
    }
    assert dict(zip(one.table["event_id"].to_pylist(), one.table["received_at"].to_pylist(), strict=True)) == earliest


# --- subscribers and campaigns


def people(**columns: Sequence[Any]) -> list[Row]:
    count = len(next(iter(columns.values())))
    return [
        {"subscriber_id": f"s{number}", "created_at": NINE} | {name: values[number] for name, values in columns.items()}
        for number in range(count)
    ]


@in_every_format
def test_every_format_gives_the_same_subscribers(suffix: str, tmp_path: Path) -> None:
    rows = people(
        timezone=["Europe/Berlin", None],
        consent_profiling=[True, False],
        age=[31, 2.5],
        plan=["free", "paid, yearly"],
        member=[True, False],
        since=[NINE, None],
        zip=["01234", "99999"],
    )
    table = accounted(read_subscribers(save(rows, tmp_path, suffix)), 2).table
    assert table.to_pylist() == [
        PERSON
        | {"subscriber_id": "s0", "timezone": "Europe/Berlin", "consent_profiling": True, "consent_open_tracking": None}
        | {"age": 31.0, "plan": "free", "member": 1.0, "since": NINE.timestamp() / 86400, "zip": "01234"},
        PERSON
        | {"subscriber_id": "s1", "timezone": None, "consent_profiling": False, "consent_open_tracking": None}
        | {"age": 2.5, "plan": "paid, yearly", "member": 0.0, "since": None, "zip": "99999"},
    ]
    assert table.schema.field("created_at").type == UTC_MICROSECONDS


@in_every_format
def test_an_unknown_time_zone_is_reported_and_the_row_kept(suffix: str, tmp_path: Path) -> None:
    rows = people(timezone=["Mars/Olympus", "Moon", "Asia/Tokyo"])
    intake = accounted(read_subscribers(save(rows, tmp_path, suffix)), 3)
    assert intake.table["timezone"].to_pylist() == [None, None, "Asia/Tokyo"]
    assert intake.notes == ("2 subscribers have an unknown time zone; the list's default is used",)


def test_consent_is_read_from_words_and_what_is_neither_yes_nor_no_is_no(tmp_path: Path) -> None:
    words = ["yes", "TRUE", "1", "no", "false", "0", "", "withdrawn"]
    intake = read_subscribers(save(people(consent_open_tracking=words), tmp_path, "csv"))
    answers = [True, True, True, False, False, False, None, False]
    assert intake.table["consent_open_tracking"].to_pylist() == answers
    assert "1 subscribers have a consent_open_tracking that is neither yes nor no; it counts as no" in intake.notes


@in_every_format
def test_bad_subscribers_are_quarantined_and_the_others_survive(suffix: str, tmp_path: Path) -> None:
    rows = [
        PERSON,
        {"subscriber_id": "jane@example.com", "created_at": NINE},
        {"subscriber_id": None, "created_at": NINE},
        {"subscriber_id": "s4", "created_at": None},
    ]
    intake = accounted(read_subscribers(save(rows, tmp_path, suffix)), 4)
    assert intake.table["subscriber_id"].to_pylist() == ["s1"]
    assert [reason.split(":")[0] for reason in reasons(intake)] == [
        "subscriber_id is an e-mail address",
        "subscriber_id is missing",
        "created_at is missing",
    ]


def test_the_same_subscriber_with_other_content_is_quarantined(tmp_path: Path) -> None:
    rows = [PERSON | {"plan": "b"}, PERSON | {"plan": "a"}, PERSON | {"plan": "a"}]
    for order in (rows, rows[::-1]):
        intake = accounted(read_subscribers(save(order, tmp_path, "csv")), 3)
        assert intake.table["plan"].to_pylist() == ["a"]
        assert intake.repeated == 1
        assert reasons(intake) == ["subscriber_id was seen before with other content: the first one is kept"]


def test_columns_that_cannot_be_attributes_are_left_out_by_name(tmp_path: Path) -> None:
    row = PERSON | {
        "tags": ["a"],
        "address": {"city": "x"},
        "gone": None,
        "jane@example.com": 1,
        "": 2,
        "Age": 3,
        "age": 4,
    }
    intake = read_subscribers(save([row], tmp_path, "parquet"))
    assert intake.table.schema.names[5:] == ["Age"]
    notes = "\n".join(intake.notes)
    assert "being lists or structures: tags, address" in notes
    assert "being empty: gone" in notes
    assert f"an e-mail address or unprintable: {REDACTED}" in notes
    assert "differs from it only in case or outer spaces: age" in notes


def test_an_infinite_attribute_counts_as_missing_and_is_reported(tmp_path: Path) -> None:
    rows = people(score=[1.0, float("inf"), float("nan")])
    for suffix in FORMATS:
        intake = read_subscribers(save(rows, tmp_path, suffix))
        assert intake.table["score"].to_pylist() == [1.0, None, None]
        assert intake.notes == ("1 subscribers have an infinite score; it counts as missing",)


def test_a_text_column_without_any_value_is_left_out(tmp_path: Path) -> None:
    intake = read_subscribers(save(people(plan=["", " "]), tmp_path, "csv"))
    assert "plan" not in intake.table.schema.names
    assert intake.notes == ("left out of subscribers, being empty: plan",)


def test_a_text_column_stays_what_it_was_before_or_is_refused(tmp_path: Path) -> None:
    digits = save(people(zip=["1", "2"]), tmp_path, "csv", "digits")
    words = save(people(zip=["1", "A2"]), tmp_path, "csv", "words")
    with workshop() as con:
        assert stage(con, SUBSCRIBERS, digits, expected={"ZIP": pa.string()}).schema.field("ZIP").type == pa.string()
    with (
        workshop() as con,
        pytest.raises(WrongColumnType, match=r"subscribers\.zip is text, but a number, as in the files"),
    ):
        stage(con, SUBSCRIBERS, words, expected={"zip": pa.float64()})


def test_files_of_one_directory_must_agree_on_a_column(tmp_path: Path) -> None:
    save(people(age=[1]), tmp_path, "parquet", "a")
    save([PERSON | {"age": "old"}], tmp_path, "parquet", "b")
    with pytest.raises(WrongColumnType, match="int64 in one file and string in another"):
        read_subscribers(tmp_path)


@in_every_format
def test_campaigns_are_read_with_their_content_and_attributes(suffix: str, tmp_path: Path) -> None:
    row = {"campaign_id": "c1", "sent_at": NINE, "subject": 'Say "hi", now', "content": ["a", "b"], "links": 3}
    (campaign,) = read_campaigns(save([row], tmp_path, suffix)).table.to_pylist()
    assert campaign == row


def test_attribute_names_may_be_anything_sql_dislikes(tmp_path: Path) -> None:
    name = "select \"x\"; drop table 'y' -- ~/"
    for suffix in FORMATS:
        table = read_subscribers(save([PERSON | {name: 1, "order": 2}], tmp_path, suffix)).table
        assert table.select([name, "order"]).to_pylist() == [{name: 1.0, "order": 2.0}]


def test_no_address_enters_the_log_by_a_campaign_or_a_word_of_content(tmp_path: Path) -> None:
    rows = [
        event("a", campaign_id="ann4@example.com"),
        event("b", content=["ann5@example.com", "for ann&#64;example.com", "shoes"]),
        event("c", content=['"ann lee"@example.com'], campaign_id="50% off & more"),
    ]
    path = tmp_path / "events.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    taken = read_events(path)
    assert [row["reason"] for row in taken.quarantined.to_pylist()] == [
        "campaign_id contains an e-mail address: give an opaque id instead"
    ]
    assert sorted(row["content"] for row in taken.table.to_pylist()) == [
        [REDACTED],
        [REDACTED, f"for {REDACTED}", "shoes"],
    ]
    assert "ann" not in str(taken.quarantined.to_pylist()) + str(taken.table.to_pylist())


def test_an_attribute_of_addresses_is_kept_and_said(tmp_path: Path) -> None:
    rows = [PERSON | {"contact": "ann@example.com", "plan": "gold"}, PERSON | {"subscriber_id": "s2", "contact": "-"}]
    path = tmp_path / "subscribers.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    (note,) = read_subscribers(path).notes
    assert note.startswith("1 subscribers have an e-mail address in contact, which is kept as an attribute")
    assert "@" not in note


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_line_that_is_too_long_is_said_with_the_limit(tmp_path: Path, name: str) -> None:
    long = "x" * (2 * intake_module.BLOCK_BYTES)
    good = {name: written(value) for name, value in event("1").items() if name in ("event_id", "subscriber_id")}
    body = json.dumps(good) + "\n" + json.dumps(good | {"campaign_id": long}) + "\n"
    if name.endswith(".csv"):
        body = f"event_id,subscriber_id,event_type,occurred_at\n1,2,open,{long}\n3,4,open,\n"
    (tmp_path / name).write_text(body)
    with pytest.raises(UnreadableFile, match="a line of it is longer than 8 MiB"):
        read_events(tmp_path / name)
