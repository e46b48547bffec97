"""Instants, durations and local hours.

What enters: texts, instants, IANA zone names. What leaves: UTC instants, microseconds, hours of week. The promise: local
time is only ever reached *from* UTC, so a daylight-saving gap or fold can neither lose nor double an hour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.contract import UTC_MICROSECONDS
from features.errors import UnusableOption

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECONDS_PER_HOUR = 3_600_000_000
HOURS_TO_FIRST_MONDAY = 72
"""1970-01-01 was a Thursday: 72 hours after a Monday 00:00."""

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_instant(text: str, option: str = "time") -> datetime:
    """An RFC 3339 instant; a bare date means its first moment in UTC.

    Raises
    ------
    UnusableOption
        When the text is no instant, or names an hour without saying in which zone.

    >>> parse_instant("2026-01-31").isoformat()
    '2026-01-31T00:00:00+00:00'
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UnusableOption(option, f"{text!r} is no instant; write it like 2026-01-31T09:00:00Z") from None
    if parsed.tzinfo is None:
        if len(text) > len("2026-01-31"):
            raise UnusableOption(option, f"{text!r} names no time zone; write it in UTC, like 2026-01-31T09:00:00Z")
        return parsed.replace(tzinfo=UTC)
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise UnusableOption(option, f"{text!r} lies outside the years 1 to 9999") from None


def parse_duration(text: str, option: str = "duration") -> timedelta:
    """A positive number with h, d or w behind it.

    >>> parse_duration("90d").days
    90
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    if match is None:
        raise UnusableOption(option, f"{text!r} is no duration; write it like 24h, 90d or 8w")
    try:
        duration = float(match[1]) * _UNITS[match[2]]
    except OverflowError:
        raise UnusableOption(option, f"{text!r} is longer than any calendar") from None
    if not duration:
        raise UnusableOption(option, f"{text!r} is no time at all; write it like 24h, 90d or 8w")
    return duration


def microseconds(instant: datetime) -> int:
    """Whole microseconds since 1970 UTC."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def instant(microseconds_since_1970: float) -> datetime:
    return EPOCH + timedelta(microseconds=int(microseconds_since_1970))


def hour_of_week(local_microseconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """0 = Monday 00:00 … 167 = Sunday 23:00, of local microseconds since 1970."""
    hours = np.floor_divide(local_microseconds, MICROSECONDS_PER_HOUR).astype(np.int64)
    return (hours + HOURS_TO_FIRST_MONDAY) % 168


def utc_offset(zone: str, at: datetime) -> timedelta:
    """Local minus UTC in a known IANA zone at an instant."""
    offset = at.astimezone(ZoneInfo(zone)).utcoffset()
    return offset or timedelta(0)


def utc_offsets(zones: Sequence[str], start: datetime, end: datetime) -> pa.Table:
    """When each zone's offset from UTC holds, over ``[start, end)``.

    Returns
    -------
    Columns ``timezone``, ``valid_from`` (inclusive), ``valid_until`` (exclusive), ``offset_us`` (local minus UTC). The
    first span of a zone begins before ``start`` and the last ends after ``end``, so every instant between has one.
    """
    rows = [(zone, *span) for zone in zones for span in _spans(zone, start, end)]
    names, begins, ends, offsets = zip(*rows, strict=True)
    return pa.table(
        {
            "timezone": pa.array(names, pa.string()),
            "valid_from": pa.array(begins, UTC_MICROSECONDS),
            "valid_until": pa.array(ends, UTC_MICROSECONDS),
            "offset_us": pa.array([offset // timedelta(microseconds=1) for offset in offsets], pa.int64()),
        }
    )


def _spans(zone: str, start: datetime, end: datetime) -> list[tuple[datetime, datetime, timedelta]]:
    day = timedelta(days=1)
    begin, at = start - day, start - day
    offset, spans = utc_offset(zone, at), []
    while at < end + day:
        following = utc_offset(zone, at + day)
        if following != offset:
            change = _transition(zone, at, at + day)
            spans.append((begin, change, offset))
            begin, offset = change, following
        at += day
    return [*spans, (begin, at + day, offset)]


def _transition(zone: str, before: datetime, after: datetime) -> datetime:
    """The first whole second of the new offset, by bisection; zones change on whole seconds."""
    old = utc_offset(zone, before)
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if utc_offset(zone, before + timedelta(seconds=middle)) == old:
            low = middle
        else:
            high = middle
    return (before + timedelta(seconds=high)).replace(microsecond=0)
