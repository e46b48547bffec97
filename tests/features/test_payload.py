"""Texts, instants and custom data from JSON that anybody may have written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.payload import (
    custom,
    digest,
    epoch_us,
    iso_us,
    listed,
    looks_like_an_address,
    loose_epoch_us,
    of_message,
    redact,
    text,
    texts,
    unread,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        (1_700_000_000, 1_700_000_000_000_000),
        (1521243339.873676, 1_521_243_339_873_676),
        ("1521243339.873676", 1_521_243_339_873_676),
        (" 1700000000 ", 1_700_000_000_000_000),
        (-1, -1_000_000),
        (1_700_000_000_000, None),
        (True, None),
        (None, None),
        ("soon", None),
        ("nan", None),
        ("1e400", None),
        ("9" * 5000, None),
        (float("inf"), None),
        (10**30, None),
        ([], None),
    ],
)
def test_seconds_are_an_instant(written: Any, instant: int | None) -> None:
    assert epoch_us(written) == instant


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        (1_700_000_000, 1_700_000_000_000_000),
        (1_700_000_000_123, 1_700_000_000_123_000),
        ("1700000000123", 1_700_000_000_123_000),
        (1_700_000_000_123.5, 1_700_000_000_123_500),
        (10**15, None),
        (None, None),
    ],
)
def test_seconds_and_milliseconds_are_told_apart_by_their_size(written: Any, instant: int | None) -> None:
    assert loose_epoch_us(written) == instant


@given(st.datetimes(timezones=ZONES))
def test_every_instant_with_an_offset_is_read_to_the_microsecond(instant: datetime) -> None:
    assert iso_us(instant.isoformat()) == (instant - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("written", "microseconds"),
    [
        ("2022-09-02T14:29:19.1234567Z", 1_662_128_959_123_456),
        ("2022-09-02T14:29:19Z", 1_662_128_959_000_000),
        ("2022-09-02T16:29:19.120+02:00", 1_662_128_959_120_000),
        ("2022-09-02T14:29:19", None),
        ("2022-09-02", None),
        ("", None),
        ("x" * 10**6, None),
        (1_662_128_959, None),
        (None, None),
    ],
)
def test_only_what_names_its_offset_is_an_instant(written: Any, microseconds: int | None) -> None:
    assert iso_us(written) == microseconds


@pytest.mark.parametrize(
    ("given_value", "word"),
    [(" a ", "a"), ("", None), (7, "7"), (True, None), (1.5, None), ({}, None), (2**70, None), ("a\ud800", "a?")],
)
def test_a_text_is_trimmed_and_whole(given_value: Any, word: str | None) -> None:
    assert text(given_value) == word


def test_texts_are_a_list_or_one() -> None:
    assert texts(["a", " ", None, 2]) == ("a", "2")
    assert texts("a") == ("a",)
    assert texts([]) is texts({}) is texts(None) is None


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({"a": 1}, {"a": 1}),
        ('{"a": 1}', {"a": 1}),
        ("a:1|b:2:3", {"a": "1", "b": "2:3"}),
        ("a=1&b=2=3", {"a": "1", "b": "2=3"}),
        ("a:MQ==", {"a": "MQ=="}),
        ("plain", {}),
        ("{broken", {}),
        ("[1]", {}),
        (7, {}),
        (None, {}),
        ("{" * 100_000, {}),
    ],
)
def test_custom_data_is_read_as_it_may_be_written(written: Any, found: dict[str, Any]) -> None:
    assert custom(written) == found


def test_a_list_may_be_written_as_text() -> None:
    assert listed('["a", "b"]') == ["a", "b"]
    assert listed("[a") == "[a"
    assert listed("a") == "a"


def test_digests_keep_parts_apart() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("a", None), digest("a", "None")}) == 5


def test_a_message_of_two_providers_is_two() -> None:
    assert of_message("a", "1") != of_message("b", "1")
    assert of_message("a", None) is None


@pytest.mark.parametrize(
    "address",
    [
        "ann@shop.example",
        "ann%40shop.example",
        "ann%2540shop.example",
        "ann\uff20shop.example",
        '"ann lee"@shop.example',
        "ann&#64;shop.example",
        "ann&#x40;shop.example",
        "ann&commat;shop.example",
        "ann&amp;#64;shop.example",
        "ann\\u0040shop.example",
        "bounce+ann=shop.example@lists",
    ],
)
def test_an_address_is_redacted_however_it_is_escaped(address: str) -> None:
    left = redact(f"to:{address}, again <{address}>")
    assert "shop.example" not in left and "ann" not in left
    assert looks_like_an_address(address)


def test_what_is_kept_of_an_item_can_always_be_read() -> None:
    strange = {
        "a": 2**70,
        "b": float("nan"),
        "c": "\ud800",
        "d": b"bytes",
        "ann@shop.example": {"User-Agent": "x", "url": None},
    }
    kept = orjson.loads(unread("why", strange).payload)
    assert kept["a"] == kept["b"] == "<unwritable number>"
    assert kept["d"] == kept["<redacted email>"]["User-Agent"] == "<not kept>"
    assert kept["<redacted email>"]["url"] is None
