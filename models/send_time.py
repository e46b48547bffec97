"""Send time: when to write to whom.

Label: one row per send; a person opened or clicked it within the response window. Two parts make an answer: a *level*
(LightGBM on the subscriber, one prediction each) and a *shape* over the 168 local hours (``models.timing``), added on the
log-odds scale. What leaves: for each subscriber the best allowed moment of the asked window, its probability, the expected
gain over the default with an interval, the arm and its propensity, and the default itself where nothing is better for sure.

Weighed: scoring each of 168 slots with trees is 168 times the work and follows the sending policy of the past rather than
the person; the shape is estimated per hour of opportunity instead and trees are kept to what they are good at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from features.clock import hour_of_week, microseconds, utc_offset
from models.spec import BOOSTING, ModelSpec

SPEC = ModelSpec(
    name="send_time",
    question="When should we write?",
    positive="opens or clicks the message",
    outcome="responded",
    horizon=timedelta(hours=24),
    as_of_policy="sent",
    baseline="open_rate_ever",
    parameters=BOOSTING | {"num_leaves": 31, "min_data_in_leaf": 200},
)

EXPLORE_SHARE = 0.05
HOLDOUT_SHARE = 0.05
"""Of subscribers and campaigns: sent at a uniformly random allowed hour, and always at the default. What remains is sent at
the best hour; only so can the lift be measured from the log."""
CONFIDENCE_Z = 1.645
"""Gain intervals are central 90 % intervals."""


@dataclass(frozen=True)
class Window:
    """When a message may be sent: from ``default_send_at`` for ``hours``, outside local quiet hours ``[from, to)``."""

    default_send_at: datetime
    hours: int = 24
    quiet_hours: tuple[int, int] | None = None
    campaign_id: str = ""

    def moments(self) -> list[datetime]:
        """The default itself and every full UTC hour after it within the window."""
        first = self.default_send_at.astimezone(UTC)
        hour = first.replace(minute=0, second=0, microsecond=0)
        later = [hour + timedelta(hours=k) for k in range(1, self.hours + 1)]
        return [first, *(moment for moment in later if moment < first + timedelta(hours=self.hours))]


@dataclass(frozen=True)
class Curves:
    """What is known about each subscriber's hours. All arrays are (subscribers, 168) but ``pool_weight``."""

    probability: npt.NDArray[np.float64]
    log_error: npt.NDArray[np.float64]
    """Standard error of the log of the hour's probability relative to the person's mean."""
    pool_weight: npt.NDArray[np.float64]
    """0–1 per subscriber: how much of the shape is everybody's rather than theirs."""
    claims_gain: bool = True
    """False where no send was ever seen: hours can be ranked then, but no gain in answers be claimed."""


def local_slots(moments: Sequence[datetime], zones: Sequence[str]) -> npt.NDArray[np.int64]:
    """Local hour of week of each moment in each zone, shape (zones, moments)."""
    utc = np.array([microseconds(moment) for moment in moments], dtype=np.float64)
    offsets = np.array([[utc_offset(zone, moment) / timedelta(microseconds=1) for moment in moments] for zone in zones])
    return hour_of_week(utc[None, :] + offsets)


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
    curves: Curves, subscriber_ids: Sequence[str], zone_of: npt.NDArray[np.int64], zones: Sequence[str], window: Window
) -> dict[str, npt.NDArray[Any] | list[Any]]:
    """Choose a moment for each subscriber.

    Parameters
    ----------
    zone_of
        Per subscriber, a position in ``zones``.

    Returns
    -------
    Columns ``send_at`` (UTC datetimes), ``hour_of_week`` (local), ``probability``, ``gain`` (relative to the default: 0.12
    is 12 % more), ``gain_low``, ``gain_high``, ``confident``, ``pool_weight``, ``arm``, ``propensity``.
    """
    moments = window.moments()
    slots = local_slots(moments, zones)[zone_of]
    may = allowed(slots, window.quiet_hours)
    # What would be done without us: the default, or the first moment after it that is not quiet.
    default = may.argmax(axis=1)
    rows = np.arange(len(subscriber_ids))
    probability = np.take_along_axis(curves.probability, slots, axis=1)
    best = np.where(may, probability, -1.0).argmax(axis=1)
    _, low, _ = _gains(curves, slots, probability, best, default)
    # Not surely better than the default: say so, and send at the default.
    confident = low > 0
    exploit = np.where(confident, best, default)
    choice, arm, propensity = _arms(subscriber_ids, window.campaign_id, exploit, default, may)
    gain, low, high = (curves.claims_gain * end for end in _gains(curves, slots, probability, choice, default))
    return {
        "send_at": [moments[i] for i in choice],
        "hour_of_week": slots[rows, choice],
        "probability": probability[rows, choice],
        "gain": gain,
        "gain_low": low,
        "gain_high": high,
        "confident": confident & (choice == best) & curves.claims_gain,
        "pool_weight": curves.pool_weight,
        "arm": arm,
        "propensity": propensity,
    }


def _gains(
    curves: Curves,
    slots: npt.NDArray[np.int64],
    probability: npt.NDArray[np.float64],
    choice: npt.NDArray[np.int64],
    default: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Relative gain of the chosen moment over the default, and its interval; all 0 where the choice is the default."""
    rows = np.arange(len(choice))
    chosen, usual = slots[rows, choice], slots[rows, default]
    log_ratio = np.log(probability[rows, choice]) - np.log(probability[rows, default])
    error = np.hypot(curves.log_error[rows, chosen], curves.log_error[rows, usual])
    error = np.where(chosen == usual, 0.0, error)
    spread = CONFIDENCE_Z * error
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
    draws = np.array([_draws(subscriber_id, campaign_id) for subscriber_id in subscriber_ids]).reshape(-1, 3)
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


def _draws(subscriber_id: str, campaign_id: str) -> tuple[float, float, float]:
    """Three uniforms: the first stable per subscriber, the others per subscriber and campaign."""
    lasting = hashlib.blake2b(subscriber_id.encode(), digest_size=8, person=b"holdout").digest()
    passing = hashlib.blake2b(f"{campaign_id}\x00{subscriber_id}".encode(), digest_size=16, person=b"explore").digest()
    parts = (lasting, passing[:8], passing[8:])
    first, second, third = (int.from_bytes(part, "big") / 2**64 for part in parts)
    return first, second, third
