"""Whatever anybody sends: no exception, nothing lost, nobody's address kept."""

from __future__ import annotations

import copy
import json
import re
import time
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.home import Home
from features.identity import Pseudonyms
from features.intake import EMAIL
from features.payload import custom, looks_like_an_address, redact, text, unread
from features.providers import PROVIDERS, Aside, Told, read
from features.providers.canonical import Canonical, canonical
from tests.features.providers import documented as d

EVERYBODY = st.sampled_from(sorted(PROVIDERS))
HARD_WORDS = (
    *(d.ADDRESS, f"{d.ADDRESS}\x00", "@", "%40", "<>", "\ud800", "\x00", "x" * 300),
    *("nan", "1e400", "9" * 40, "2023-11-14", d.ISO, "9999-12-31T23:59:59-23:59", "0001-01-01T00:00+14"),
    *("{", "[", '{"a":', "=", ":", "a=b&c", "a:b|c"),
)
WORDS = st.one_of(st.text(max_size=12), st.sampled_from(HARD_WORDS))
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([2**63, 10**30, -(10**20), 0, 1, 1e308]),
    st.floats(allow_nan=True, allow_infinity=True),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)
ASIDE_NAMES = {
    record.event_type
    for provider, _, item, _ in d.ROWS
    for record in PROVIDERS[provider](item)
    if isinstance(record, Aside)
} | {"email_validation", "sent", "coupon_sent", "unique_coupon_sent", "opened", "clicked", "unsubscribed", "complained"}
SLOW = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@pytest.fixture(scope="module")
def pseudonyms(tmp_path_factory: pytest.TempPathFactory) -> Pseudonyms:
    return Pseudonyms.load(Home(tmp_path_factory.mktemp("home")))


def taken_in(provider: str, body: bytes, pseudonyms: Pseudonyms, items: int) -> Canonical:
    """Read and made canonical, with all that is promised of anything whatever."""
    found = read(provider, body)
    assert len(found) >= items
    made = canonical(found, pseudonyms)
    assert len(made.events) + len(made.quarantined) + made.aside.total() == len(found)
    for refused in made.quarantined:
        orjson.loads(refused.payload)
        refused.payload.encode()
    repr(made).encode()
    assert re.search(EMAIL, repr(made)) is None
    assert set(made.aside) <= ASIDE_NAMES
    assert read(provider, body) == found
    return made


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every part of a record is."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, part in inner for path in paths(part, (*here, key)))]


def changed(record: Any, path: tuple[Any, ...], part: Any) -> Any:
    if not path:
        return part
    record = copy.deepcopy(record)
    at = record
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = part
    return record


@SLOW
@given(provider=EVERYBODY, items=st.lists(ANYTHING, max_size=4))
def test_any_json_is_accounted_for(provider: str, items: list[Any], pseudonyms: Pseudonyms) -> None:
    taken_in(provider, json.dumps(items).encode(), pseudonyms, len(items))


@settings(SLOW, max_examples=600)
@given(row=st.sampled_from(d.ROWS), data=st.data())
def test_a_record_with_any_part_changed_is_accounted_for(row: Any, data: st.DataObject, pseudonyms: Pseudonyms) -> None:
    provider, _, item, _ = row
    for _ in range(data.draw(st.integers(1, 3))):
        item = changed(item, data.draw(st.sampled_from(paths(item))), data.draw(ANYTHING))
    body = json.dumps([item, d.DOCUMENTED[provider][0][1]]).encode()
    made = taken_in(provider, body, pseudonyms, 2)
    # The whole record beside it is told all the same.
    assert len(made.events) >= 1


@SLOW
@given(row=st.sampled_from(d.ROWS), data=st.data())
def test_a_body_with_any_byte_changed_is_accounted_for(row: Any, data: st.DataObject, pseudonyms: Pseudonyms) -> None:
    provider, _, item, _ = row
    body = bytearray(json.dumps([item]).encode())
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    for some in (bytes(body), bytes(body[: data.draw(st.integers(0, len(body)))])):
        found = read(provider, some)
        assert found or some in (b"", b"[]")
        made = canonical(found, pseudonyms)
        assert len(made.events) + len(made.quarantined) + made.aside.total() == len(found)


@SLOW
@given(provider=EVERYBODY, body=st.binary(max_size=60))
def test_bytes_that_are_no_json_are_kept(provider: str, body: bytes, pseudonyms: Pseudonyms) -> None:
    made = canonical(read(provider, body), pseudonyms)
    assert made.quarantined or b"[" in body


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("opening", ["[", '{"a":', '{"event":', '{"event-data":', '{"mail":', '[{"a":['])
def test_deep_nesting_is_refused_or_read(provider: str, opening: str, pseudonyms: Pseudonyms) -> None:
    closing = {"[": "]", "{": "}"}
    for depth in (50, 300, 900, 1100, 100_000):
        body = opening * depth + "1" + "".join(closing[sign] for sign in reversed(opening * depth) if sign in closing)
        taken_in(provider, body.encode(), pseudonyms, 1)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_one_strange_item_does_not_stop_the_others(provider: str, pseudonyms: Pseudonyms) -> None:
    whole = json.dumps(d.DOCUMENTED[provider][0][1])
    for strange in ('"\\ud800"', "NaN", "1e999", "9" * 6000, '{"a": "\\udfff@x.example"}', "-Infinity"):
        made = taken_in(provider, f"[{whole}, {strange}, {whole}]".encode(), pseudonyms, 3)
        assert len(made.events) == 2 * len(read(provider, whole.encode()))
        assert len(made.quarantined) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_byte_that_is_no_text_does_not_stop_the_others(provider: str, pseudonyms: Pseudonyms) -> None:
    whole = json.dumps(d.DOCUMENTED[provider][0][1]).encode()
    made = taken_in(provider, b'[{"x": "\xff"}, ' + whole + b"]", pseudonyms, 2)
    assert len(made.events) == len(read(provider, whole))


@pytest.mark.parametrize("body", [b"", b"null", b"0", b'"text"', b"true", b"{}", b"[[]]", b"\xef\xbb\xbf[1]", b"{" * 9])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_body_of_another_shape_is_quarantined_whole(provider: str, body: bytes, pseudonyms: Pseudonyms) -> None:
    made = taken_in(provider, body, pseudonyms, 1)
    assert len(made.quarantined) == 1


def test_no_item_is_nothing() -> None:
    assert all(read(provider, b"[]") == [] for provider in PROVIDERS)


HARD = ('"a' * 300_000, '"a"@' * 250_000, "&amp;" * 200_000, "&#" * 500_000, "&a" * 500_000, "a=" * 500_000 + "@")


def test_a_long_text_is_redacted_in_a_time_that_grows_with_its_length() -> None:
    begin = time.process_time()
    for hard in (
        "a" * 10**6 + "@",
        "%40a" * 250_000,
        "a@" * 500_000,
        "a.b@c." * 150_000,
        "@" * 10**6,
        "%25" * 300_000,
        *HARD,
    ):
        redact(hard)
        looks_like_an_address(hard)
        unread("x", {"x": hard})
        custom(hard)
        text(hard)
    assert time.process_time() - begin < 20


@given(st.text(max_size=200), st.sampled_from(["@", "%40", "%2540", "&#64;", "&commat;"]))
def test_no_address_is_left_in_a_redacted_text(around: str, sign: str) -> None:
    assert re.search(EMAIL, redact(f"{around}ann{sign}shop.example{around}")) is None


def test_every_adapter_is_a_function_of_the_item_alone() -> None:
    for provider, _, item, _ in d.ROWS:
        before = copy.deepcopy(item)
        assert PROVIDERS[provider](item) == PROVIDERS[provider](item)
        assert item == before


def test_an_adapter_never_answers_nothing() -> None:
    for adapter in PROVIDERS.values():
        for item in (None, {}, [], "", 0, {"event": 1}, {"Type": {}}, {"mail": []}, {"event-data": None}):
            assert len(adapter(item)) == 1


def test_no_event_is_told_where_there_is_no_time() -> None:
    strange = [{"event": "open", "email": [1], "timestamp": True}, {"event": "click", "timestamp": {}}]
    assert not any(isinstance(found, Told) for found in read("sendgrid", json.dumps(strange).encode()))
