"""What may be asked: every wrong request is refused by field, and no value comes back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import MODELS
from features.errors import MalformedRequest
from serving.schemas import MAX_IDS, Context, ModelName, ScoreRequest, parse, parse_query

CANARY = "anna@example.org"


def body(**changes: Any) -> bytes:
    return orjson.dumps({"subscriber_ids": ["s1"], **changes})


def in_context(**fields: Any) -> bytes:
    return body(context=fields)


def test_a_request_of_ids_alone_asks_every_model_without_context_or_reasons() -> None:
    request = parse(body())
    assert request.models == MODELS == get_args(ModelName)
    assert request.context is None
    assert not request.explain


def test_order_is_kept_and_repeats_are_allowed() -> None:
    assert parse(body(subscriber_ids=["b", "a", "b"])).subscriber_ids == ("b", "a", "b")


def test_the_contracts_example_is_understood() -> None:
    text = b"""{"subscriber_ids": ["s00017", "s00042"], "models": ["churn", "lead_score", "send_time"],
     "context": {"campaign_id": "c12", "content": ["shoes"], "default_send_at": "2026-11-24T09:00:00Z",
                 "window_hours": 24, "quiet_hours": [22, 7]}, "explain": false}"""
    assert parse(text) == ScoreRequest(
        subscriber_ids=("s00017", "s00042"),
        context=Context(
            campaign_id="c12",
            content=("shoes",),
            default_send_at=datetime(2026, 11, 24, 9, tzinfo=UTC),
            quiet_hours=(22, 7),
        ),
    )


def test_the_most_and_longest_ids_fit_and_one_more_does_not() -> None:
    longest = "\N{GRINNING FACE}" * 256
    assert len(parse(body(subscriber_ids=[longest] * MAX_IDS)).subscriber_ids) == MAX_IDS
    for wrong in (["s"] * (MAX_IDS + 1), [longest + "x"], []):
        with pytest.raises(MalformedRequest, match=r"^subscriber_ids"):
            parse(body(subscriber_ids=wrong))


def test_an_installation_may_allow_fewer_ids() -> None:
    with pytest.raises(MalformedRequest, match="at most 2"):
        parse(body(subscriber_ids=["a", "b", "c"]), max_ids=2)


def test_a_moment_in_any_zone_is_the_same_moment_in_utc() -> None:
    context = parse(in_context(default_send_at="2026-11-24T09:00:00+05:30")).context
    assert context is not None
    assert context.default_send_at == datetime(2026, 11, 24, 3, 30, tzinfo=UTC)
    assert context.default_send_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b"\xff", "body"),
        (b'\xef\xbb\xbf{"subscriber_ids": ["s1"]}', "body"),
        (b"[" * 100_000, "body"),
        (b'{"subscriber_ids": ["\\ud800"]}', "body"),
        (b"{}", "subscriber_ids"),
        (body(subscriber_ids="s1"), "subscriber_ids"),
        (body(subscriber_ids=None), "subscriber_ids"),
        (body(subscriber_ids=["s1", 2]), "subscriber_ids[1]"),
        (body(subscriber_ids=[""]), "subscriber_ids[0]"),
        (body(subscriber_ids=["s\n1"]), "subscriber_ids[0]"),
        (body(subscriber_ids=["s1\n"]), "subscriber_ids[0]"),
        (body(subscriber_ids=["s\x00"]), "subscriber_ids[0]"),
        (body(subscriber_ids=["s\x85"]), "subscriber_ids[0]"),
        (body(models=[]), "models"),
        (body(models="churn"), "models"),
        (body(models=["churn", "churn"]), "models"),
        (body(models=["churn", "weather"]), "models[1]"),
        (body(explain=1), "explain"),
        (body(explain="true"), "explain"),
        (body(colour="red"), "colour"),
        (body(context=[]), "context"),
        (in_context(colour="red"), "context.colour"),
        (in_context(campaign_id=7), "context.campaign_id"),
        (in_context(campaign_id=""), "context.campaign_id"),
        (in_context(content="shoes"), "context.content"),
        (in_context(content=["shoes", 1]), "context.content[1]"),
        (in_context(content=["x"] * 33), "context.content"),
        (in_context(default_send_at=1_700_000_000), "context.default_send_at"),
        (in_context(default_send_at="1700000000"), "context.default_send_at"),
        (in_context(default_send_at="2026-11-24"), "context.default_send_at"),
        (in_context(default_send_at="2026-11-24T09:00:00"), "context.default_send_at"),
        (in_context(default_send_at="2026-02-30T09:00:00Z"), "context.default_send_at"),
        (in_context(default_send_at="0001-01-01T00:00:00+14:00"), "context.default_send_at"),
        (in_context(default_send_at="9999-12-31T23:59:59-14:00"), "context.default_send_at"),
        (in_context(window_hours=0), "context.window_hours"),
        (in_context(window_hours=169), "context.window_hours"),
        (in_context(window_hours=24.0), "context.window_hours"),
        (in_context(window_hours=True), "context.window_hours"),
        (in_context(window_hours="24"), "context.window_hours"),
        (b'{"subscriber_ids": ["s1"], "context": {"window_hours": NaN}}', "context.window_hours"),
        (b'{"subscriber_ids": ["s1"], "context": {"window_hours": Infinity}}', "context.window_hours"),
        (b'{"subscriber_ids": ["s1"], "context": {"window_hours": 1e400}}', "context.window_hours"),
        (b'{"subscriber_ids": ["s1"], "context": {"window_hours": ' + b"9" * 300 + b"}}", "context.window_hours"),
        (in_context(quiet_hours=[22]), "context.quiet_hours[1]"),
        (in_context(quiet_hours=[22, 7, 8]), "context.quiet_hours"),
        (in_context(quiet_hours=[22, 24]), "context.quiet_hours[1]"),
        (in_context(quiet_hours=[-1, 7]), "context.quiet_hours[0]"),
        (in_context(quiet_hours=[7, 7]), "context.quiet_hours"),
    ],
)
def test_what_is_wrong_is_refused_with_the_name_of_its_field(text: bytes, field: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        parse(text)
    assert refused.value.field == field


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(CANARY) | st.text().map(lambda t: CANARY + t),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(CANARY), inner),
    max_leaves=5,
)
fields = st.sampled_from(["subscriber_ids", "models", "context", "explain", CANARY])
context_fields = st.sampled_from([*Context.model_fields, CANARY])


@given(st.dictionaries(fields, values), st.dictionaries(context_fields, values), st.booleans())
def test_nothing_that_was_sent_comes_back(asked: dict[str, Any], context: dict[str, Any], nest: bool) -> None:
    try:
        parse(json.dumps({"subscriber_ids": ["s1"]} | asked | ({"context": context} if nest else {})).encode())
    except MalformedRequest as error:
        assert "anna" not in str(error)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_at_all_are_a_request_or_a_refusal(text: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse(text)


def test_an_unknown_field_is_named_unless_its_name_may_be_a_value() -> None:
    with pytest.raises(MalformedRequest, match="colour"):
        parse(body(colour=1))
    with pytest.raises(MalformedRequest, match="unknown field"):
        parse(body(**{CANARY: 1}))


def test_the_query_form_means_what_the_body_form_means() -> None:
    query = (
        "models=churn,send_time&explain=true&campaign_id=c12&content=shoes&content=hats%2C%20warm"
        "&default_send_at=2026-11-24T10:00:00%2B01:00&window_hours=48&quiet_hours=22,7"
    )
    same = {
        "campaign_id": "c12",
        "content": ["shoes", "hats, warm"],
        "default_send_at": "2026-11-24T09:00:00Z",
        "window_hours": 48,
        "quiet_hours": [22, 7],
    }
    assert parse_query("s1", query) == parse(body(models=["churn", "send_time"], explain=True, context=same))


def test_a_query_may_be_empty() -> None:
    assert parse_query("a/b", "") == parse(body(subscriber_ids=["a/b"], context={}))


@pytest.mark.parametrize(
    ("subscriber_id", "query", "field"),
    [
        ("", "", "subscriber_id"),
        ("s\x00", "", "subscriber_id"),
        ("s", "models=", "models[0]"),
        ("s", "models=churn&models=churn", "models"),
        ("s", "explain=yes", "explain"),
        ("s", "window_hours=24.0", "window_hours"),
        ("s", "window_hours=1_0", "window_hours"),
        ("s", "window_hours=" + "9" * 50, "window_hours"),
        ("s", "quiet_hours=22", "quiet_hours[1]"),
        ("s", "default_send_at=2026-11-24T09:00:00", "default_send_at"),
        ("s", "content=", "content[0]"),
        ("s", "subscriber_ids=s2", "subscriber_ids"),
        ("s", "colour=red", "colour"),
        ("s", f"{CANARY}=1", "(unknown field)"),
        ("s", "campaign_id=%ff", "query"),
        ("s", "&".join(f"a{i}=1" for i in range(200)), "query"),
    ],
)
def test_a_wrong_query_is_refused_with_the_name_of_its_parameter(subscriber_id: str, query: str, field: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        parse_query(subscriber_id, query)
    assert refused.value.field == field


def test_a_plus_sign_that_a_query_turned_into_a_space_is_read_as_one() -> None:
    asked = parse_query("s", "default_send_at=2026-11-24T09:00:00+01:00")
    assert asked.context is not None
    assert asked.context.default_send_at == datetime(2026, 11, 24, 8, tzinfo=UTC)
