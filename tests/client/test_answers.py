"""Any body at all: one complete object per id, in order; and the contract's names."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, get_args
from uuid import UUID

import httpx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inbox_client import Context, Defaults, answers
from inbox_client.answers import MODELS, ChurnAnswer, LeadScoreAnswer, SendTimeAnswer, SubscriberScores
from inbox_client.asking import Question, as_id, batches
from inbox_client.core import RENDER, Core, Pause, Reply, Send, Settings, Surroundings
from inbox_client.reading import Unreadable, read
from pydantic import BaseModel

from serving import schemas
from tests.client.service import EXAMPLE

URL = httpx.URL("http://127.0.0.1:3000/v1/scores")
NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
STAND_INS = Defaults().at(NOW)
IDS = ["s1", "s2", "s3"]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
json_values = st.recursive(
    scalars | st.sampled_from(["low", "A", "ok", "exploit", "2026-11-24T07:00:00Z"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
near_rows = st.fixed_dictionaries(
    {"subscriber_id": st.sampled_from(IDS) | json_values},
    optional={name: st.just(value) | json_values for name, value in EXAMPLE.items()}
    | {"prior": st.sampled_from(["global", "segment", "mine"]) | json_values},
)
near_answers = st.fixed_dictionaries({"scores": st.lists(near_rows, max_size=5) | json_values})
damaged_answers = st.dictionaries(st.sampled_from(list(EXAMPLE["send_time"])), json_values, max_size=3).map(
    lambda wrong: {
        "scores": [{"subscriber_id": "s1", **EXAMPLE, "send_time": EXAMPLE["send_time"] | wrong}],
    }
)
bodies = (near_answers | json_values | damaged_answers).map(lambda value: json.dumps(value).encode()) | st.binary()


def complete(one: SubscriberScores) -> bool:
    """Everything a template may ask for is there, finite and of its kind."""
    numbers = (one.churn.probability, one.lead_score.probability, one.send_time.probability, one.send_time.propensity)
    shares = all(type(number) is float and 0 <= number <= 1 for number in numbers)
    gains = (one.send_time.gain, *one.send_time.gain_interval)
    return (
        shares
        and all(type(gain) is float and math.isfinite(gain) for gain in gains)
        and one.churn.band in get_args(answers.Band)
        and one.lead_score.grade in get_args(answers.Grade)
        and type(one.lead_score.score) is int
        and one.send_time.send_at.astimezone(UTC).year in range(1999, 2201)
        and one.status in get_args(answers.Status)
    )


def heard(body: bytes) -> list[SubscriberScores]:
    """What a call comes to, when that is what comes back."""
    made_with = Settings(URL, "key", 150, Defaults(), 1000, 5, 1.0)
    call = Core(made_with, Surroundings(lambda: 0.0, lambda: NOW, lambda: 0.0)).begin(IDS, Question(), 150, RENDER)
    for batch in call.batches:
        steps = call.steps(batch)
        step: Send | Pause | None = next(steps, None)
        while step is not None:
            try:
                step = steps.send(Reply(200, "", body) if isinstance(step, Send) else None)
            except StopIteration:
                step = None
    return call.rows()


@settings(deadline=None, max_examples=100)
@given(bodies)
@example(b'{"scores": [{"subscriber_id": "s1", "status": "ok", "churn": {"probability": 1e999}}]}')
@example(b'{"scores": [' + b"[" * 5000 + b"]" * 5000 + b"]}")
@example(b'{"scores": [' + b"9" * 5000 + b"]}")
def test_whatever_comes_back_there_is_one_complete_object_per_id_in_order(body: bytes) -> None:
    rows = heard(body)
    assert [one.subscriber_id for one in rows] == IDS
    assert all(map(complete, rows))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60))
def test_what_is_no_answer_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read(body, MODELS, STAND_INS)


PAIRS = [
    (schemas.SubscriberScores, answers.SubscriberScores),
    (schemas.ChurnAnswer, answers.ChurnAnswer),
    (schemas.LeadScoreAnswer, answers.LeadScoreAnswer),
    (schemas.SendTimeAnswer, answers.SendTimeAnswer),
    (schemas.Context, Context),
]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_every_field_of_the_service_is_here_under_its_name(theirs: type[BaseModel], ours: Any) -> None:
    assert set(theirs.model_fields) <= {one.name for one in fields(ours)}


def test_every_word_of_the_service_is_known_here() -> None:
    theirs = {name: field.annotation for name, field in schemas.SubscriberScores.model_fields.items()}
    assert set(get_args(theirs["status"])) == set(get_args(answers.Status)) - {"fallback"}
    assert set(get_args(schemas.ChurnAnswer.model_fields["band"].annotation)) == set(get_args(answers.Band))
    assert set(get_args(schemas.LeadScoreAnswer.model_fields["grade"].annotation)) == set(get_args(answers.Grade))
    assert set(get_args(schemas.SendTimeAnswer.model_fields["arm"].annotation)) == {*get_args(answers.Arm)} - {
        "fallback"
    }
    assert set(get_args(schemas.ModelName)) == set(MODELS)


contexts = st.builds(
    Context,
    campaign_id=st.none() | st.sampled_from(["c12", "ü" * 256]),
    content=st.lists(st.sampled_from(["shoes", "a,b", "“"]), max_size=32).map(tuple),
    default_send_at=st.none() | st.datetimes(datetime(2001, 1, 1), datetime(2199, 1, 1), timezones=st.timezones()),
    window_hours=st.none() | st.integers(1, 168),
    quiet_hours=st.none()
    | st.tuples(st.integers(0, 23), st.integers(0, 23)).filter(lambda hours: hours[0] != hours[1]),
)
odd_ids = st.none() | st.integers() | st.uuids() | st.text() | st.binary() | st.lists(st.integers())


@settings(deadline=None, max_examples=100)
@given(contexts, st.lists(odd_ids, min_size=1, max_size=20), st.booleans())
def test_what_is_asked_is_taken_by_the_service(context: Context, ids: list[object], explain: bool) -> None:
    names = [name for name in map(as_id, ids) if name is not None]
    for batch in batches(names, 7):
        parsed = schemas.parse(Question(("churn",), context, explain).body(batch))
        assert list(parsed.subscriber_ids) == batch
        assert (parsed.models, parsed.explain) == (("churn",), explain)
        assert parsed.context is not None
        assert parsed.context.quiet_hours == context.quiet_hours
        planned = context.default_send_at
        assert parsed.context.default_send_at == (planned.astimezone(UTC) if planned else None)


def test_a_thousand_of_the_longest_ids_go_in_requests_the_service_takes() -> None:
    names = ["😀" * 255 + chr(0x1F400 + number) for number in range(1000)]
    question = Question(context=Context(campaign_id=names[0], content=tuple(names[:32])))
    asked = [question.body(batch) for batch in batches(names, 1000)]
    assert max(map(len, asked)) < 1_048_576 < len(question.body(names))
    assert sum(len(json.loads(body)["subscriber_ids"]) for body in asked) == 1000


@pytest.mark.parametrize(
    "wrong",
    [
        {"campaign_id": ""},
        {"campaign_id": "two\nlines"},
        {"campaign_id": "x" * 257},
        {"content": "shoes"},
        {"content": ("",)},
        {"content": ("shoes",) * 33},
        {"default_send_at": datetime(2026, 11, 24)},
        {"default_send_at": datetime(1999, 1, 1, tzinfo=UTC)},
        {"default_send_at": "2026-11-24T09:00:00Z"},
        {"window_hours": 0},
        {"window_hours": 2.5},
        {"quiet_hours": (22, 22)},
        {"quiet_hours": (22, 24)},
        {"quiet_hours": (22,)},
    ],
)
def test_a_context_the_service_would_refuse_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"Context.{next(iter(wrong))}"):
        Context(**wrong)


class Shown(str):
    """A text that cannot be shown."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("not for show")


class Closed:
    """An object that answers nothing, not even what it is."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("the database is gone")


class Person(str, Enum):  # noqa: UP042 - as many a program still declares them
    ADA = "s1"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (17, "17"),
        (np.int64(17), "17"),
        (np.uint8(17), "17"),
        (np.str_("s1"), "s1"),
        (UUID(int=17), "00000000-0000-0000-0000-000000000011"),
        (Person.ADA, "s1"),
        (Shown("s1"), "s1"),
    ],
)
def test_a_text_a_whole_number_of_any_type_and_a_uuid_are_ids(given: object, name: str) -> None:
    assert as_id(given) == name
    assert type(as_id(given)) is str


def test_what_is_no_id_is_none_and_never_an_error() -> None:
    # In a list, because pytest would ask a parameter for its name.
    odd: list[object] = [True, np.True_, 17.0, Decimal(17), b"s1", 10**5000, Closed(), Closed, Shown("")]
    assert list(map(as_id, odd)) == [None] * len(odd)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"churn": ChurnAnswer(band="mid")}, r"churn\.band.*low, medium, high"),  # type: ignore[arg-type]
        ({"churn": ChurnAnswer(band=None)}, r"churn\.band"),  # type: ignore[arg-type]
        ({"lead_score": LeadScoreAnswer(grade="F")}, r"lead_score\.grade.*A, B, C, D, E"),  # type: ignore[arg-type]
        ({"lead_score": LeadScoreAnswer(grade=["A"])}, r"lead_score\.grade"),  # type: ignore[arg-type]
        ({"send_time": SendTimeAnswer("2026-11-24")}, r"send_time\.send_at"),  # type: ignore[arg-type]
        ({"send_time": SendTimeAnswer(datetime(2026, 11, 24))}, r"send_time\.send_at"),
        ({"send_time": SendTimeAnswer(datetime.max.replace(tzinfo=timezone(-timedelta(hours=5))))}, "UTC"),
        ({"churn": {"band": "low"}}, r"Defaults\.churn"),
    ],
)
def test_defaults_that_cannot_be_are_refused_by_name(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        Defaults(**wrong)
