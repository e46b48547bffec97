"""What may be asked and what is answered: serving contract v1 as types.

What enters: the bytes of a body, or a path and its query. What leaves: a checked, frozen ``ScoreRequest``. The
promise: anything else is refused with the field's name and a reason, and neither ever repeats a value that was sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args
from urllib.parse import parse_qs

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    Strict,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from features.contract import HOURS_OF_WEEK
from features.errors import MalformedRequest

MAX_IDS = 1000
MAX_WORD = 256
MAX_CONTENT = 32
MAX_QUERY_FIELDS = 100
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_FIELD_NAME = re.compile(r"[A-Za-z_]{1,40}", re.ASCII)
_WHOLE_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)
_TRUTH = {"true": True, "false": False}

# Pydantic's own words are kept but for a pattern: a regular expression is no reason.
_REASONS = {"string_pattern_mismatch": "may not contain control characters"}


def _rfc3339(value: Any) -> Any:
    """Pydantic alone would take 1700000000 for an instant, as a number or as a text."""
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise PydanticCustomError("moment", "should be an instant with its zone, like 2026-11-24T09:00:00Z")


def _near(value: datetime) -> datetime:
    if not EARLIEST <= value < LATEST:
        raise PydanticCustomError("moment_range", "should lie between the years 2000 and 2199")
    return value.astimezone(UTC)


def _distinct(models: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(models)) < len(models):
        raise PydanticCustomError("repeated", "names a model twice")
    return models


def _span(hours: tuple[int, int]) -> tuple[int, int]:
    if hours[0] == hours[1]:
        raise PydanticCustomError("empty_span", "should begin and end at different hours; leave it out for none")
    return hours


Word = Annotated[str, Field(min_length=1, max_length=MAX_WORD, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
ModelName = Literal["churn", "lead_score", "send_time"]
Moment = Annotated[AwareDatetime, Strict(False), BeforeValidator(_rfc3339), AfterValidator(_near)]
Hour = Annotated[int, Field(ge=0, le=23)]
Status = Literal["ok", "stale", "partial", "prior", "no_consent"]


class Asked(BaseModel):
    """Read strictly; nothing unknown is let in and nothing that was sent gets into a message."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Context(Asked):
    """What is known of the message the scores are for."""

    campaign_id: Word | None = Field(default=None, description="The send these scores are for.")
    content: Annotated[tuple[Word, ...], FailFast()] = Field(
        default=(), max_length=MAX_CONTENT, description="Its categories."
    )
    default_send_at: Moment | None = Field(
        default=None, description="When it would be sent without us; now unless given."
    )
    window_hours: int = Field(
        default=24, ge=1, le=HOURS_OF_WEEK, description="How long after that it may still be sent."
    )
    quiet_hours: Annotated[tuple[Hour, Hour], AfterValidator(_span)] | None = Field(
        default=None, description="Local hours [from, to) in which nothing is sent; may pass midnight."
    )


class ScoreRequest(Asked):
    """Whom to score, with which models. Order is kept, repeats are allowed."""

    subscriber_ids: Annotated[tuple[Word, ...], FailFast()] = Field(min_length=1, max_length=MAX_IDS)
    models: Annotated[tuple[ModelName, ...], AfterValidator(_distinct)] = Field(
        default=get_args(ModelName), min_length=1
    )
    context: Context | None = None
    explain: bool = Field(default=False, description="Add reasons in words. They cost far more than the scores.")


def parse(body: bytes, max_ids: int = MAX_IDS) -> ScoreRequest:
    """Read the body of ``POST /v1/scores``.

    Raises
    ------
    MalformedRequest
        For the first thing wrong, with the path of its field, such as ``context.window_hours``.

    >>> parse(b'{"subscriber_ids": ["s1"]}').models
    ('churn', 'lead_score', 'send_time')
    """
    try:
        request = ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        raise malformed(error) from None
    if len(request.subscriber_ids) > max_ids:
        raise MalformedRequest("subscriber_ids", f"should have at most {max_ids} items")
    return request


def parse_query(subscriber_id: str, query: str) -> ScoreRequest:
    """Read the path and query of ``GET /v1/scores/{subscriber_id}``.

    The query is rewritten as the body of a POST and read as such, so the two forms cannot differ. ``models`` and
    ``quiet_hours`` are separated by commas, ``content`` is repeated, because a category may contain a comma.

    Raises
    ------
    MalformedRequest
        As ``parse`` does, with the parameter's name.

    >>> parse_query("s1", "models=churn&quiet_hours=22,7").context.quiet_hours
    (22, 7)
    """
    try:
        return parse(orjson.dumps(_as_body(subscriber_id, query_fields(query, {"content"}))))
    except MalformedRequest as error:
        field = error.field.removeprefix("context.").replace("subscriber_ids[0]", "subscriber_id")
        raise MalformedRequest(field, error.reason) from None


def query_fields(query: str, repeated: Collection[str] = ()) -> dict[str, Any]:
    """Every parameter's text, of those that may be ``repeated`` a list of texts.

    Raises
    ------
    MalformedRequest
        When it is no UTF-8, has too many parameters, or one of them twice.
    """
    try:
        found = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise MalformedRequest("query", "should be UTF-8 and have few parameters") from None
    fields: dict[str, Any] = {name: found.pop(name) for name in repeated if name in found}
    for name, texts in found.items():
        if len(texts) > 1:
            raise MalformedRequest(shown(name), "is given twice")
        fields[name] = texts[0]
    return fields


def _as_body(subscriber_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"subscriber_ids": [subscriber_id]}
    context: dict[str, Any] = {}
    for name, text in fields.items():
        match name:
            case "models":
                body[name] = text.split(",")
            case "explain":
                body[name] = _TRUTH.get(text, text)
            case "content" | "campaign_id":
                context[name] = text
            case "default_send_at":
                # In a query a plus sign arrives as a space unless it was encoded.
                context[name] = text.replace(" ", "+")
            case "window_hours":
                context[name] = whole_number(text)
            case "quiet_hours":
                context[name] = [whole_number(part) for part in text.split(",")]
            case _:
                raise MalformedRequest(shown(name), "is not known")
    return body | {"context": context}


def whole_number(text: str) -> int | str:
    """The number a text spells. What is no whole number stays a text, for the schema to refuse by name."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else text


def malformed(error: ValidationError) -> MalformedRequest:
    """The first thing wrong, without the value that was sent."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "extra_forbidden":
        return MalformedRequest(_path((*first["loc"][:-1], shown(str(first["loc"][-1])))), "is not known")
    return MalformedRequest(_path(first["loc"]), _REASONS.get(first["type"], first["msg"]))


def _path(location: tuple[int | str, ...]) -> str:
    """
    >>> _path(("context", "content", 3))
    'context.content[3]'
    """
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return parts.removeprefix(".") or "body"


def shown(name: str) -> str:
    """An unknown field's name as far as it looks like one: it was sent in, and might be somebody's address."""
    return name if _FIELD_NAME.fullmatch(name) else "(unknown field)"


class _Answered(BaseModel):
    model_config = ConfigDict(extra="forbid")


Probability = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class ChurnAnswer(_Answered):
    probability: Probability
    band: Literal["low", "medium", "high"]
    percentile: int = Field(ge=0, le=100)
    reasons: list[str] | None = Field(default=None, description="Only when asked to explain.")


class LeadScoreAnswer(_Answered):
    probability: Probability
    score: int = Field(ge=0, le=100)
    grade: Literal["A", "B", "C", "D", "E"]
    reasons: list[str] | None = Field(default=None, description="Only when asked to explain.")


class SendTimeAnswer(_Answered):
    send_at: AwareDatetime
    hour_of_week: int = Field(ge=0, lt=HOURS_OF_WEEK, description="Local, 0 = Monday 00:00.")
    probability: Probability
    gain: Finite = Field(description="Over the default moment: 0.12 is 12 % more responses.")
    gain_interval: tuple[Finite, Finite]
    confident: bool = Field(description="False: no moment is surely better than the default.")
    pool_weight: Probability = Field(description="How much of the answer is everybody's habit rather than theirs.")
    arm: Literal["exploit", "explore", "holdout"]
    propensity: Probability = Field(description="With what probability this moment was chosen.")
    timezone_assumed: bool = Field(
        default=False, description="True: their zone is unknown, the list's default was used."
    )


class SubscriberScores(_Answered):
    subscriber_id: str
    status: Status
    feature_age_s: int | None = Field(description="Age of the oldest features used; null when there are none.")
    prior: Literal["segment", "global"] | None = Field(
        default=None,
        description="Only with status prior or no_consent: whose mean was given, that of people who care most for the "
        "context's content, or everybody's.",
    )
    churn: ChurnAnswer | None = None
    lead_score: LeadScoreAnswer | None = None
    send_time: SendTimeAnswer | None = None


class ScoreResponse(_Answered):
    request_id: str
    scored_at: AwareDatetime
    models: dict[ModelName, str] = Field(description="The version that answered. A model not in service is absent.")
    scores: list[SubscriberScores]


class Problem(BaseModel):
    """An error as RFC 9457 wants it. ``code`` is stable; match on it, not on the words."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    field: str | None = Field(default=None, description="Which field is wrong, for 400.")
