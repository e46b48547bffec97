"""Send-time decisions beside what was sent then: which arm, was it followed, what came of it, what is it worth.

What enters: the rows of the prediction log that decided a moment, and the event log. What leaves: an ``Experiment``. The
promise: an outcome is the label training would give the same send, a decision made after a send is never taken for its
cause, and nobody who withheld consent is measured.

The log says one probability per decision, that of its moment. Whether that moment was also the default, or the one that
exploiting would have taken, follows from it: it is a sum of three shares of which no two make up the third, see ``parts``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.clock import MICROSECONDS_PER_HOUR, hour_of_week, instant, microseconds
from features.fold import Folder
from models.send_time import EXPLORE_SHARE, HOLDOUT_SHARE
from models.spec import ModelSpec
from training.evaluation import Interval
from training.labels import Sends, sends
from training.offpolicy import LEAST_ANSWERS, Expected, Lift, Logged, PolicyValue, lift, policy_gain, policy_value

FOLLOWED_WITHIN = timedelta(hours=1)
"""A send this near to a decided moment is that decision carried out."""
PAST = timedelta(days=180)
PAST_STRENGTH = 5.0
"""A person's past sends count against so many of everybody's."""
LEAST_FOLLOWED = 0.5
"""Of the decisions whose moment has come; with fewer the arms say little about the moments."""

ARMS = ("exploit", "explore", "holdout")
OWN_MODEL = "the model's own probabilities"
PAST_RATE = "each person's past response rate"
SLACK = 1e-9

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Followed:
    """Of an arm's decisions whose moment has come: how many there were and how many of them were sent then."""

    arm: str
    decided: int
    sent: int

    @property
    def share(self) -> float:
        return self.sent / self.decided if self.decided else float("nan")


@dataclass(frozen=True)
class Experiment:
    """What deciding moments is worth. ``sends`` were carried out and their response window is over; ``waiting``'s is not."""

    followed: tuple[Followed, ...]
    sends: int
    waiting: int
    exploit: PolicyValue
    default: PolicyValue
    gain: Interval
    """Off-policy: response rate of always exploiting less that of always sending at the default."""
    outcome_model: str
    lift: Lift

    @property
    def surely_worse(self) -> bool:
        """Whether exploiting does worse than the default beyond doubt, on evidence enough to say so."""
        off_policy = self.gain.high < 0 and not (self.exploit.warning or self.default.warning)
        against = self.lift.contrasts[0]
        answers = {arm.arm: arm.answers for arm in self.lift.arms}
        enough = min(answers.get(against.arm, 0), answers.get(against.against, 0)) >= LEAST_ANSWERS
        return off_policy or (enough and against.difference.high < 0 and not self.gain.low > 0)


@dataclass(frozen=True)
class Carried:
    """Decisions that were carried out. One element per send in all arrays; moments in microseconds since 1970 UTC."""

    subscriber_id: pa.Array
    version: npt.NDArray[np.str_]
    personal: Flags
    """Whether somebody's own data answered, rather than a prior."""
    arm: npt.NDArray[np.str_]
    propensity: Array
    probability: Array
    exploit_probability: Array
    default_probability: Array
    """Both NaN where the log does not say them."""
    scored_at: Array
    default_send_at: Array
    sent_at: Array
    outcome: Array
    """NaN while the response window is not over."""
    decision: npt.NDArray[np.int64]
    """Position of the decision among those it was found among."""

    def __len__(self) -> int:
        return len(self.outcome)

    def take(self, chosen: Flags) -> Carried:
        others = [one.name for one in fields(self) if one.name != "subscriber_id"]
        taken = {name: getattr(self, name)[chosen] for name in others}
        return Carried(subscriber_id=self.subscriber_id.filter(pa.array(chosen)), **taken)

    @property
    def people(self) -> npt.NDArray[np.int64]:
        """A number per send, the same for sends to one person."""
        return np.asarray(self.subscriber_id.dictionary_encode().indices.to_numpy(), dtype=np.int64)


def decided(predictions: pa.Table) -> pa.Table:
    """Rows of the prediction log that chose a moment, for somebody who did not object."""
    usable = pc.and_(pc.is_valid(predictions["arm"]), pc.greater(predictions["propensity"], 0.0))
    return predictions.filter(pc.and_(usable, pc.not_equal(predictions["status"], "no_consent")))


def carried_out(decisions: pa.Table, folder: Folder, spec: ModelSpec, known_until: datetime) -> Carried:
    """Each send with the last decision before it that it is within an hour of, same subscriber and campaign.

    Parameters
    ----------
    decisions
        Of ``decided``, at least one.
    known_until
        Nothing received at or after it is read.
    """
    after = pc.min(decisions["send_at"]).as_py() - FOLLOWED_WITHIN
    found = sends(folder, spec.response, spec.horizon, after, known_until)
    pairs = _pairs(decisions, found)
    chosen = decisions.take(pairs["decision"])
    send = pairs["send"].to_numpy()
    return Carried(
        subscriber_id=chosen["subscriber_id"].combine_chunks(),
        version=np.array(chosen["model_version"].to_pylist(), dtype=np.str_),
        personal=np.array([status != "prior" for status in chosen["status"].to_pylist()], dtype=np.bool_),
        arm=np.array(chosen["arm"].to_pylist(), dtype=np.str_),
        propensity=numbers(chosen, "propensity"),
        probability=numbers(chosen, "probability"),
        exploit_probability=numbers(chosen, "exploit_probability"),
        default_probability=numbers(chosen, "default_probability"),
        scored_at=numbers(chosen, "scored_at"),
        default_send_at=numbers(chosen, "default_send_at"),
        sent_at=found.sent_at[send],
        outcome=found.label[send],
        decision=pairs["decision"].to_numpy(),
    )


def _pairs(decisions: pa.Table, found: Sends) -> pa.Table:
    """Positions ``decision`` and ``send`` that belong together, in order of sends."""
    # By the hour too: mail without a campaign would meet all else a person ever got without one.
    each = np.repeat(np.arange(decisions.num_rows), 3)
    hour = _hour(numbers(decisions, "send_at"))
    theirs = pa.table(
        {
            "subscriber_id": decisions["subscriber_id"].combine_chunks().take(pa.array(each)),
            "campaign_id": decisions["campaign_id"].combine_chunks().fill_null("").take(pa.array(each)),
            "hour": (hour[:, None] + np.array([-1, 0, 1])).ravel(),
            "decision": each,
        }
    )
    ours = pa.table(
        {
            "subscriber_id": found.subscriber_id,
            "campaign_id": found.campaign_id.fill_null(""),
            "hour": _hour(found.sent_at),
            "send": np.arange(len(found.sent_at)),
        }
    )
    both = ours.join(theirs, ["subscriber_id", "campaign_id", "hour"], join_type="inner")
    return _last_before(both, found.sent_at, numbers(decisions, "scored_at"), numbers(decisions, "send_at"))


def _hour(at: Array) -> npt.NDArray[np.int64]:
    return np.floor(at / MICROSECONDS_PER_HOUR).astype(np.int64)


def _last_before(both: pa.Table, sent_at: Array, scored_at: Array, send_at: Array) -> pa.Table:
    """Of the decisions that may have led to a send, the last one made before it."""
    send, decision = both["send"].to_numpy(), both["decision"].to_numpy()
    near = np.abs(sent_at[send] - send_at[decision]) <= FOLLOWED_WITHIN / timedelta(microseconds=1)
    possible = near & (scored_at[decision] <= sent_at[send])
    send, decision = send[possible], decision[possible]
    order = np.lexsort((-decision, -scored_at[decision], send))
    send, decision = send[order], decision[order]
    last = np.append(True, send[1:] != send[:-1])[: len(send)]
    return pa.table({"send": send[last], "decision": decision[last]})


def parts(propensity: Array) -> tuple[Flags, Flags]:
    """Whether a moment of this propensity is the one that exploiting takes, and whether it is the default.

    The share of exploring that falls on one of two or more moments is at most half of it, less than either other share.
    """
    exploits = propensity >= 1 - HOLDOUT_SHARE - EXPLORE_SHARE - SLACK
    rest = propensity - (1 - HOLDOUT_SHARE - EXPLORE_SHARE) * exploits
    return exploits, rest >= HOLDOUT_SHARE - SLACK


def experiment(decisions: pa.Table, carried: Carried, folder: Folder, spec: ModelSpec, end: datetime) -> Experiment:
    """Judge the policies and compare the arms on every send whose outcome is known.

    Parameters
    ----------
    decisions
        What ``carried`` was found among.
    end
        Of the log: decisions whose moment comes later were not missed.
    """
    known = carried.take(np.isfinite(carried.outcome))
    logged = Logged(known.propensity, known.outcome, known.people)
    exploits, defaults = (flags.astype(np.float64) for flags in parts(known.propensity))
    model, of_exploit, of_default = _expected(known, folder, spec)
    return Experiment(
        followed=_followed(decisions, carried, end),
        sends=len(known),
        waiting=len(carried) - len(known),
        exploit=policy_value(logged, exploits, of_exploit),
        default=policy_value(logged, defaults, of_default),
        gain=policy_gain(logged, exploits, defaults, (of_exploit, of_default)),
        outcome_model=model,
        lift=lift(known.arm, known.outcome, known.people, _weekday(known), _weeks(known.sent_at)),
    )


def _expected(known: Carried, folder: Folder, spec: ModelSpec) -> tuple[str, Expected, Expected]:
    """What the outcome model says under exploiting and under the default, and which model that is."""
    if len(known) and np.isfinite(known.exploit_probability + known.default_probability).all():
        taken = known.probability
        return OWN_MODEL, Expected(taken, known.exploit_probability), Expected(taken, known.default_probability)
    # A rate that knows nothing of the moment still takes out what makes people differ from each other.
    rate = _past_rate(known, folder, spec)
    return PAST_RATE, Expected(rate, rate), Expected(rate, rate)


def _past_rate(known: Carried, folder: Folder, spec: ModelSpec) -> Array:
    """Response rate of each send's subscriber before the first decision, pulled towards everybody's."""
    if not len(known):
        return np.empty(0)
    first = instant(float(known.scored_at.min()))
    before = sends(folder, spec.response, spec.horizon, first - PAST, first)
    mature = np.isfinite(before.label)
    everybody = float(before.label[mature].mean()) if mature.any() else 0.0
    ids = pa.concat_arrays([known.subscriber_id, before.subscriber_id.filter(pa.array(mature))]).dictionary_encode()
    codes = ids.indices.to_numpy()
    asked, theirs = codes[: len(known)], codes[len(known) :]
    seen, hits = (np.bincount(theirs, weights, len(ids.dictionary)) for weights in (None, before.label[mature]))
    return np.asarray(((hits + PAST_STRENGTH * everybody) / (seen + PAST_STRENGTH))[asked], dtype=np.float64)


def _followed(decisions: pa.Table, carried: Carried, end: datetime) -> tuple[Followed, ...]:
    """A renderer may ask several times about one message, and gets the same arm each time: it counts once."""
    message = _messages(decisions)
    due = np.flatnonzero(numbers(decisions, "send_at") <= microseconds(end - FOLLOWED_WITHIN))
    once = due[np.unique(message[due], return_index=True)[1]]
    arms = np.array(decisions["arm"].to_pylist(), dtype=np.str_)[once]
    sent = np.isin(message[once], message[carried.decision])
    return tuple(Followed(arm, int((arms == arm).sum()), int(sent[arms == arm].sum())) for arm in ARMS)


def _messages(decisions: pa.Table) -> npt.NDArray[np.int64]:
    """A number per decision, the same for decisions about one message: without a campaign, for one moment."""
    nameless = pc.is_null(decisions["campaign_id"])
    moment = pc.if_else(nameless, decisions["send_at"], pa.scalar(None, decisions["send_at"].type))
    columns = (decisions["subscriber_id"], decisions["campaign_id"], moment)
    codes = [one.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy() for one in columns]
    whole = np.stack(codes, axis=1).astype(np.int64)
    return np.asarray(np.unique(whole, axis=0, return_inverse=True)[1], dtype=np.int64).ravel()


def _weekday(known: Carried) -> npt.NDArray[np.int64]:
    """Of the moment the caller would have sent at, UTC: decided before any arm was dealt. Without one, when it asked."""
    default = np.where(np.isfinite(known.default_send_at), known.default_send_at, known.scored_at)
    return hour_of_week(default) // 24


def _weeks(sent_at: Array) -> float:
    """How long the sends took, a day at least."""
    span = float(sent_at.max() - sent_at.min()) if len(sent_at) else 0.0
    return max(span / (timedelta(weeks=1) / timedelta(microseconds=1)), 1 / 7)


def numbers(table: pa.Table, column: str) -> Array:
    """A column as float64, moments in microseconds since 1970 UTC, NaN where there is nothing."""
    values = table[column].combine_chunks()
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    return np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def unfollowed(followed: Sequence[Followed]) -> list[str]:
    """Arms whose decisions were mostly not carried out."""
    return [one.arm for one in followed if one.decided and one.share < LEAST_FOLLOWED]
