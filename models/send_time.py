"""Send time: when to write to whom.

Label: one row per send; a person opened or clicked it within the response window. Two parts make an answer: a *level*
(LightGBM on the subscriber, one prediction each) and a *shape* over the 168 local hours (``models.timing``), added on the
log-odds scale. What leaves: for each subscriber the best allowed moment of the asked window, its probability, the expected
gain over the default with an interval, the arm and its propensity, and the default itself where nothing is better for sure.

Weighed: scoring each of 168 slots with trees is 168 times the work and follows the sending policy of the past rather than
the person; the shape is estimated per hour of opportunity instead and trees are kept to what they are good at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from features.clock import MICROSECONDS_PER_HOUR, hour_of_week, instant, microseconds, utc_offset
from models.spec import BOOSTING, ModelSpec

SPEC = ModelSpec(
    name="send_time",
    question="When should we write?",
    positive="opens or clicks the message",
    outcome="responded",
    horizon=timedelta(hours=24),
    as_of_policy="sent",
    baseline="open_rate_ever",
    memory=timedelta(days=120),
    parameters=BOOSTING | {"num_leaves": 8, "min_data_in_leaf": 200},
)

EXPLORE_SHARE = 0.05
HOLDOUT_SHARE = 0.05
"""Of subscribers and campaigns: sent at a uniformly random allowed hour, and always at the default. What remains is sent at
the best hour; only so can the lift be measured from the log."""
MICROSECONDS_PER_QUARTER = 900_000_000
CONFIDENCE_Z = 1.645
"""Gain intervals are central 90 % intervals."""


@dataclass(frozen=True)
class Window:
    """When a message may be sent: from ``default_send_at`` for ``hours``, outside local quiet hours ``[from, to)``."""

    default_send_at: datetime
    hours: int = 24
    quiet_hours: tuple[int, int] | None = None
    campaign_id: str = ""

    def moments(self) -> npt.NDArray[np.int64]:
        """The default itself and every full UTC hour after it within the window, in microseconds since 1970 UTC."""
        first = microseconds(self.default_send_at)
        hour = first // MICROSECONDS_PER_HOUR * MICROSECONDS_PER_HOUR
        # A default on the full hour has one full hour less after it: the window's end is open.
        later = np.arange(1, self.hours + (first > hour)) * MICROSECONDS_PER_HOUR
        return np.concatenate([[first], hour + later])


RatioError = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.float64]]
"""Standard error of the log of the ratio of two probabilities, from two local hours of week for each subscriber."""


@dataclass(frozen=True)
class Curves:
    """What is known of some local hours of each subscriber; ``probability`` is (subscribers, hours).

    Weighed: an error for each hour alone, which cannot know that neighbouring hours err together.
    """

    probability: npt.NDArray[np.float64]
    ratio_error: RatioError
    pool_weight: npt.NDArray[np.float64]
    """0–1 per subscriber: how much of the shape is everybody's rather than theirs."""
    claims_gain: bool = True
    """False where no send was ever seen: hours can be ranked then, but no gain in answers be claimed."""

    def repeated(self, count: int, ratio_error: RatioError) -> Curves:
        """One subscriber's, for so many, with the errors for so many."""
        probability = np.repeat(self.probability, count, axis=0)
        return Curves(probability, ratio_error, np.repeat(self.pool_weight, count), self.claims_gain)


def local_slots(moments: npt.NDArray[np.int64], zones: Sequence[str]) -> npt.NDArray[np.int64]:
    """Local hour of week of each moment (microseconds since 1970 UTC) in each zone, shape (zones, moments)."""
    quarters = (moments // MICROSECONDS_PER_QUARTER).tolist()
    offsets = [[_offset(zone, quarter) for quarter in quarters] for zone in zones]
    return hour_of_week(moments + np.array(offsets, dtype=np.float64).reshape(len(zones), len(moments)))


@lru_cache(maxsize=100_000)
def _offset(zone: str, quarter: int) -> float:
    """Microseconds local time is ahead of UTC in a quarter of an hour since 1970. Clocks change on the quarter."""
    return utc_offset(zone, instant(quarter * MICROSECONDS_PER_QUARTER)) / timedelta(microseconds=1)


def allowed(slots: npt.NDArray[np.int64], quiet_hours: tuple[int, int] | None) -> npt.NDArray[np.bool_]:
    """Which moments lie outside the quiet hours. Where none does, the default (column 0) is all there is."""
    may = np.ones(slots.shape, dtype=np.bool_)
    if quiet_hours is not None:
        begin, end = quiet_hours
        hour = slots % 24
        inside = (hour >= begin) & (hour < end) if begin <= end else (hour >= begin) | (hour < end)
        may = ~inside
    may[~may.any(axis=1), 0] = True
    return may


def decide(
    curves_at: Callable[[npt.NDArray[np.int64]], Curves],
    subscriber_ids: Sequence[str],
    zone_of: npt.NDArray[np.int64],
    zones: Sequence[str],
    window: Window,
) -> dict[str, npt.NDArray[Any] | list[Any]]:
    """Choose a moment for each subscriber.

    Parameters
    ----------
    curves_at
        Gives the curves at some local hours of week, shape (subscribers, moments): only at those are they needed.
    zone_of
        Per subscriber, a position in ``zones``.

    Returns
    -------
    Columns ``send_at`` (UTC datetimes), ``hour_of_week`` (local), ``probability``, ``gain`` (relative to the default: 0.12
    is 12 % more), ``gain_low``, ``gain_high``, ``confident``, ``pool_weight``, ``arm``, ``propensity``; for the prediction
    log what would be expected of the moment without exploring and of the default, ``exploit_probability`` and
    ``default_probability``.
    """
    moments = window.moments()
    used, nth = np.unique(zone_of, return_inverse=True)
    slots = local_slots(moments, [zones[zone] for zone in used])[nth]
    curves = curves_at(slots)
    may = allowed(slots, window.quiet_hours)
    # What would be done without us: the default, or the first moment after it that is not quiet.
    default = may.argmax(axis=1)
    best = np.where(may, curves.probability, -1.0).argmax(axis=1)
    _, low, _ = _gains(curves, slots, best, default)
    # Not surely better than the default: say so, and send at the default.
    confident = low > 0
    exploit = np.where(confident, best, default)
    choice, arm, propensity = _arms(subscriber_ids, window.campaign_id, exploit, default, may)
    gain, low, high = (curves.claims_gain * end for end in _gains(curves, slots, choice, default))
    rows = np.arange(len(subscriber_ids))
    return {
        "send_at": _datetimes(moments, choice),
        "hour_of_week": slots[rows, choice],
        "probability": curves.probability[rows, choice],
        "gain": gain,
        "gain_low": low,
        "gain_high": high,
        "confident": confident & (choice == best) & curves.claims_gain,
        "pool_weight": curves.pool_weight,
        "arm": arm,
        "propensity": propensity,
        "exploit_probability": curves.probability[rows, exploit],
        "default_probability": curves.probability[rows, default],
    }


def _datetimes(moments: npt.NDArray[np.int64], choice: npt.NDArray[np.int64]) -> list[datetime]:
    chosen = choice.tolist()
    known = {place: instant(int(moments[place])) for place in set(chosen)}
    return [known[place] for place in chosen]


def _gains(
    curves: Curves, slots: npt.NDArray[np.int64], choice: npt.NDArray[np.int64], default: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Relative gain of the chosen moment over the default, and its interval; all 0 where the choice is the default."""
    rows = np.arange(len(choice))
    log_ratio = np.log(curves.probability[rows, choice]) - np.log(curves.probability[rows, default])
    spread = CONFIDENCE_Z * curves.ratio_error(slots[rows, choice], slots[rows, default])
    return np.expm1(log_ratio), np.expm1(log_ratio - spread), np.expm1(log_ratio + spread)


def _arms(
    subscriber_ids: Sequence[str],
    campaign_id: str,
    exploit: npt.NDArray[np.int64],
    default: npt.NDArray[np.int64],
    may: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Deal subscribers to arms by a stable hash. Returns the moment's position, the arm, and the probability with which
    this policy sends at that moment, whichever arm led there.
    """
    draws = _draws(subscriber_ids, campaign_id)
    holdout = draws[:, 0] < HOLDOUT_SHARE
    explore = ~holdout & (draws[:, 1] < EXPLORE_SHARE / (1 - HOLDOUT_SHARE))
    count = may.sum(axis=1)
    nth = np.minimum((draws[:, 2] * count).astype(np.int64), count - 1)
    random_choice = (may.cumsum(axis=1) > nth[:, None]).argmax(axis=1)
    choice = np.where(holdout, default, np.where(explore, random_choice, exploit))
    arm = np.where(holdout, "holdout", np.where(explore, "explore", "exploit"))
    propensity = (
        HOLDOUT_SHARE * (choice == default)
        + EXPLORE_SHARE / count
        + (1 - HOLDOUT_SHARE - EXPLORE_SHARE) * (choice == exploit)
    )
    return choice, arm, propensity


def _draws(subscriber_ids: Sequence[str], campaign_id: str) -> npt.NDArray[np.float64]:
    """Three uniforms each: the first stable per subscriber, the others per subscriber and campaign."""
    hashed = b"".join([blake2b(one.encode(), digest_size=24, person=b"arms").digest() for one in subscriber_ids])
    bits = np.frombuffer(hashed, dtype="<u8").reshape(-1, 3).copy()
    # One hash per subscriber is what takes time; the campaign's is mixed in.
    bits[:, 1:] ^= np.frombuffer(blake2b(campaign_id.encode(), digest_size=16, person=b"campaign").digest(), "<u8")
    return np.asarray((_mixed(bits) >> np.uint64(11)) * 2.0**-53)


def _mixed(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finalizer of SplitMix64: every bit of the input changes about half of the output's."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
