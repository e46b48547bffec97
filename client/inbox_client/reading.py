"""From the bytes of an answer to scores, believing nothing.

What enters: a body that may be anything. What leaves: scores of those who were asked for. The promise: what does not
keep to the contract is replaced by the caller's defaults, a model at a time where only one is wrong, and never shown; a
row belongs to whom it names, whatever its place; what a newer service adds is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from math import isfinite
from typing import Any, TypeVar, get_args

from inbox_client.answers import (
    MODELS,
    Arm,
    Band,
    ChurnAnswer,
    Grade,
    LeadScoreAnswer,
    Model,
    Prior,
    SendTimeAnswer,
    StandIns,
    Status,
    SubscriberScores,
)

_WRONG = (AttributeError, KeyError, TypeError, ValueError, OverflowError)
"""What reading raises where the contract is not kept."""
_FIRST_YEAR, _YEAR_AFTER = 2000, 2200
_WEEK_HOURS = 168
_REQUEST_ID = re.compile(r"[!-~]{1,128}")

T = TypeVar("T")


class Unreadable(Exception):
    """The body as a whole is not an answer."""


def read(body: bytes, asked: tuple[Model, ...], stand_ins: StandIns) -> dict[str, SubscriberScores]:
    """Whoever the answer speaks of in a way that can be understood.

    Raises
    ------
    Unreadable
        When it is no answer at all.
    """
    try:
        answer = json.loads(body)
        rows = answer["scores"]
        request_id = _request_id(answer.get("request_id"))
    except (*_WRONG, RecursionError):
        raise Unreadable from None
    if not isinstance(rows, list):
        raise Unreadable
    found: dict[str, SubscriberScores] = {}
    for row in rows:
        try:
            one = _row(row, asked, stand_ins, request_id)
        except _WRONG:
            continue
        found[one.subscriber_id] = one
    return found


def _row(row: Any, asked: tuple[Model, ...], stand_ins: StandIns, request_id: str | None) -> SubscriberScores:
    churn = _part(row, "churn", asked, _churn)
    lead_score = _part(row, "lead_score", asked, _lead_score)
    send_time = _part(row, "send_time", asked, _send_time)
    whole = churn is not None and lead_score is not None and send_time is not None
    return SubscriberScores(
        _word(row["subscriber_id"]),
        _STATUSES[row["status"]],
        _age(row.get("feature_age_s")),
        _PRIORS[row.get("prior")],
        churn or stand_ins.churn,
        lead_score or stand_ins.lead_score,
        send_time or stand_ins.send_time,
        () if whole else _missing((churn, lead_score, send_time)),
        None,
        request_id,
    )


def _part(row: Any, model: Model, asked: tuple[Model, ...], reader: Callable[[Any], T]) -> T | None:
    """One model's answer; None where there is none that can be believed."""
    said = row.get(model) if model in asked else None
    if said is None:
        return None
    try:
        return reader(said)
    except _WRONG:
        return None


def _missing(parts: tuple[object, ...]) -> tuple[Model, ...]:
    return tuple(model for model, part in zip(MODELS, parts, strict=True) if part is None)


def _churn(said: Any) -> ChurnAnswer:
    return ChurnAnswer(
        _share(said["probability"]),
        _BANDS[said["band"]],
        _whole(said["percentile"], 100),
        _reasons(said.get("reasons")),
    )


def _lead_score(said: Any) -> LeadScoreAnswer:
    return LeadScoreAnswer(
        _share(said["probability"]),
        _whole(said["score"], 100),
        _GRADES[said["grade"]],
        _reasons(said.get("reasons")),
    )


def _send_time(said: Any) -> SendTimeAnswer:
    low, high = said["gain_interval"]
    return SendTimeAnswer(
        _moment(said["send_at"]),
        _whole(said["hour_of_week"], _WEEK_HOURS - 1),
        _share(said["probability"]),
        _finite(said["gain"]),
        (_finite(low), _finite(high)),
        _truth(said["confident"]),
        _share(said["pool_weight"]),
        _ARMS[said["arm"]],
        _share(said["propensity"]),
        _truth(said.get("timezone_assumed", False)),
    )


def _named(literal: Any) -> dict[Any, Any]:
    """Each word of a closed set by itself: to look one up is to check it."""
    return {word: word for word in get_args(literal)}


_BANDS: Mapping[str, Band] = _named(Band)
_GRADES: Mapping[str, Grade] = _named(Grade)
_ARMS: Mapping[str, Arm] = {word: word for word in get_args(Arm) if word != "fallback"}
_STATUSES: Mapping[str, Status] = {word: word for word in get_args(Status) if word != "fallback"}
_PRIORS: Mapping[str | None, Prior | None] = {**_named(Prior), None: None}


def _share(value: Any) -> float:
    # Also refuses NaN, which is nowhere between.
    if type(value) is float and 0 <= value <= 1:
        return value
    return float(_whole(value, 1))


def _finite(value: Any) -> float:
    if type(value) not in (float, int) or not isfinite(value):
        raise ValueError
    return float(value)


def _whole(value: Any, highest: int) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise ValueError
    return value


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _age(value: Any) -> int | None:
    if value is not None and type(value) is not int:
        raise TypeError
    return value


def _word(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _text(value: Any) -> str:
    """A text that can also be written: half a character would fail the message it is rendered into."""
    text = _word(value)
    text.encode()
    return text


def _reasons(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if type(value) is not list:
        raise TypeError
    return tuple([_text(one) for one in value])


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None or not _FIRST_YEAR <= moment.year < _YEAR_AFTER:
        raise ValueError
    return moment


def _request_id(value: Any) -> str | None:
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else None
