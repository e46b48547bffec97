"""Instants and hours beside the standard library's own calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.clock import (
    hour_of_week,
    instant,
    microseconds,
    parse_duration,
    parse_instant,
    utc_offset,
    utc_offsets,
)
from features.errors import UnusableOption

# Lord Howe moves by half an hour, Apia skipped a day in 2011, Kathmandu is at 5:45, Casablanca pauses for Ramadan.
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca")
START, END = datetime(2019, 3, 1, 5, 7, 11, 13, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC)
SPANS = {zone: [row for row in utc_offsets(ZONES, START, END).to_pylist() if row["timezone"] == zone] for zone in ZONES}


def instants(first: datetime = START, last: datetime = END) -> st.SearchStrategy[datetime]:
    naive = (first.replace(tzinfo=None), last.replace(tzinfo=None))
    return st.datetimes(*naive, timezones=st.just(UTC))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2026-13-01",
        "2026-02-30",
        "2026-01-31T25:00:00Z",
        "2026-01-31T09:00:00",
        "0001-01-01T00:00:00+05:00",
    ],
)
def test_what_is_no_instant_is_refused_with_the_option_named(text: str) -> None:
    with pytest.raises(UnusableOption, match=r"^--train-until: ") as caught:
        parse_instant(text, "--train-until")
    assert caught.value.option == "--train-until"


@pytest.mark.parametrize(
    "text", ["", "90", "d", "-3d", "0d", "0.0h", "3 d", "1y", "1e3d", "nand", "99999999999d", "٣x"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UnusableOption, match=r"^--horizon: "):
        parse_duration(text, "--horizon")


def test_instants_of_any_zone_become_utc() -> None:
    nine = datetime(2026, 1, 31, 9, tzinfo=UTC)
    assert parse_instant("2026-01-31T09:00:00Z") == parse_instant("2026-01-31T10:00:00+01:00") == nine
    assert parse_instant("2026-01-31T10:00:00+01:00").tzinfo is UTC


def test_durations_are_hours_days_and_weeks() -> None:
    assert parse_duration("24h") == parse_duration("1d") == timedelta(days=1)
    assert parse_duration("1.5w") == timedelta(days=10.5)


@given(instants(datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)))
def test_microseconds_come_back_as_the_instant(at: datetime) -> None:
    assert instant(float(microseconds(at))) == at


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))
def test_hour_of_week_is_the_calendars(local: datetime) -> None:
    counted = hour_of_week(np.array([float(microseconds(local.replace(tzinfo=UTC)))]))
    assert counted.tolist() == [local.weekday() * 24 + local.hour]


@settings(max_examples=300)
@given(instants(), st.sampled_from(ZONES))
def test_one_span_covers_every_instant_and_has_its_offset(at: datetime, zone: str) -> None:
    covering = [row for row in SPANS[zone] if row["valid_from"] <= at < row["valid_until"]]
    assert [row["offset_us"] for row in covering] == [
        at.astimezone(ZoneInfo(zone)).utcoffset() / timedelta(microseconds=1)
    ]
    assert utc_offset(zone, at) == at.astimezone(ZoneInfo(zone)).utcoffset()


@pytest.mark.parametrize("zone", ZONES)
def test_an_offset_begins_at_the_very_microsecond_clocks_change(zone: str) -> None:
    for before, after in zip(SPANS[zone], SPANS[zone][1:], strict=False):
        change = after["valid_from"]
        assert before["valid_until"] == change
        assert utc_offset(zone, change) / timedelta(microseconds=1) == after["offset_us"]
        assert utc_offset(zone, change - timedelta(microseconds=1)) / timedelta(microseconds=1) == before["offset_us"]


def test_berlin_changes_its_clocks_twice_a_year_at_one_utc() -> None:
    changes = [row["valid_from"] for row in SPANS["Europe/Berlin"][1:]]
    assert datetime(2026, 3, 29, 1, tzinfo=UTC) in changes
    assert datetime(2026, 10, 25, 1, tzinfo=UTC) in changes
    assert len(changes) == 16


def test_one_moment_long_span_still_has_an_offset() -> None:
    spans = utc_offsets(["Europe/Berlin"], START, START).to_pylist()
    assert [(row["valid_from"] < START < row["valid_until"], row["offset_us"]) for row in spans] == [
        (True, 3_600_000_000)
    ]
