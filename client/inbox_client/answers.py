"""What a renderer is given: the service's answer as types, and what stands in for it.

What enters: answers that were read, or the caller's defaults. What leaves: frozen objects with the contract's names. The
promise: every object is complete; no attribute a template may ask for is None where the service always says something.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args

Model = Literal["churn", "lead_score", "send_time"]
MODELS: tuple[Model, ...] = ("churn", "lead_score", "send_time")
Band = Literal["low", "medium", "high"]
Grade = Literal["A", "B", "C", "D", "E"]
Arm = Literal["exploit", "explore", "holdout", "fallback"]
Status = Literal["ok", "stale", "partial", "prior", "no_consent", "fallback"]
Prior = Literal["segment", "global"]
Reason = Literal[
    "bad_id",
    "breaker_open",
    "closed",
    "connection",
    "defect",
    "not_prefetched",
    "overloaded",
    "rejected",
    "server_error",
    "time_out",
    "unanswered",
    "unknown_key",
    "unreadable",
]
"""Why there is a fallback; the README says what each means."""


@dataclass(frozen=True, slots=True)
class ChurnAnswer:
    """How likely they are to leave. As it stands: somebody to whom nothing special is said."""

    probability: float = 0.0
    band: Band = "low"
    percentile: int = 50
    reasons: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class LeadScoreAnswer:
    """How likely they are to buy. As it stands: in the middle."""

    probability: float = 0.0
    score: int = 50
    grade: Grade = "C"
    reasons: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SendTimeAnswer:
    """When to send. As it stands: at that moment, because nothing better is known.

    ``hour_of_week`` is local, 0 = Monday 00:00; ``arm`` is ``fallback`` where the service did not choose, so that nobody
    takes such a send for one of its holdout.
    """

    send_at: datetime
    hour_of_week: int = 0
    probability: float = 0.0
    gain: float = 0.0
    gain_interval: tuple[float, float] = (0.0, 0.0)
    confident: bool = False
    pool_weight: float = 1.0
    arm: Arm = "fallback"
    propensity: float = 1.0
    timezone_assumed: bool = True


@dataclass(frozen=True, slots=True)
class SubscriberScores:
    """Everything said of one subscriber.

    ``defaulted`` names the models whose answer here is the caller's default: those not asked for, not in service or not
    readable; all of them when ``status`` is ``fallback``, and then ``fallback_reason`` says why. ``request_id`` finds the
    answer in the service's log.
    """

    subscriber_id: str
    status: Status
    feature_age_s: int | None
    prior: Prior | None
    churn: ChurnAnswer
    lead_score: LeadScoreAnswer
    send_time: SendTimeAnswer
    defaulted: tuple[Model, ...] = ()
    fallback_reason: Reason | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the caller wants said of somebody of whom nothing could be learnt.

    ``send_time`` None means: at the context's ``default_send_at``, or now.

    Raises
    ------
    TypeError, ValueError
        When an answer, its band, grade or moment is none.

    >>> Defaults(churn=ChurnAnswer(band="medium")).churn.band
    'medium'
    """

    churn: ChurnAnswer = field(default_factory=ChurnAnswer)
    lead_score: LeadScoreAnswer = field(default_factory=LeadScoreAnswer)
    send_time: SendTimeAnswer | None = None

    def __post_init__(self) -> None:
        wanted = (("churn", ChurnAnswer), ("lead_score", LeadScoreAnswer), ("send_time", SendTimeAnswer | None))
        for name, kind in wanted:
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"Defaults.{name} should be of {kind}; import it from inbox_client.")
        _check_word("churn.band", self.churn.band, get_args(Band))
        _check_word("lead_score.grade", self.lead_score.grade, get_args(Grade))
        if self.send_time is not None:
            _check_moment("send_time.send_at", self.send_time.send_at)

    def at(self, moment: datetime) -> StandIns:
        """What stands in for answers to a call whose message would be sent at that moment."""
        usual = SendTimeAnswer(moment, hour_of_week=24 * moment.weekday() + moment.hour)
        return StandIns(self.churn, self.lead_score, self.send_time or usual)


def _check_word(field_name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ValueError(f"Defaults.{field_name} should be one of {', '.join(words)}.")


def _check_moment(field_name: str, value: object) -> None:
    if not isinstance(value, datetime):
        raise TypeError(f"Defaults.{field_name} should be a datetime with its zone.")
    if value.utcoffset() is None:
        raise ValueError(f"Defaults.{field_name} should carry its zone, like datetime(…, tzinfo=UTC).")
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"Defaults.{field_name} should be a moment that UTC has too.") from None


@dataclass(frozen=True, slots=True)
class StandIns:
    """The defaults of one call."""

    churn: ChurnAnswer
    lead_score: LeadScoreAnswer
    send_time: SendTimeAnswer

    def scores(self, subscriber_id: str, reason: Reason) -> SubscriberScores:
        """The whole object, of somebody of whom nothing was learnt."""
        return SubscriberScores(
            subscriber_id, "fallback", None, None, self.churn, self.lead_score, self.send_time, MODELS, reason
        )
