"""The shape of a week: at which local hours people respond, everybody together and each alone.

What enters: sends, responses and unprompted visits by local hour of week. What leaves: for each person and hour, how much
likelier than their average hour a send is to be answered, with a standard error. The promise: counts are read per hour of
*opportunity* (a mail can only be answered after it was sent, and waits a while), so the past sending policy is not mistaken
for people's habits; whoever has little history gets everybody's shape.

The personal part is a gamma-Poisson posterior mean: counts n against what everybody's shape would have led to expect, e,
give (n + strength) / (e + strength), with the strength chosen by maximum marginal likelihood (negative binomial) over all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from features.state import States

Weeks = npt.NDArray[np.float64]
"""Shape (subscribers, 168)."""

WAIT_HOURS = 24
WAIT_MEAN_HOURS = 4.0
"""How long a mail keeps its chance: hour k after the send counts exp(-k / mean)."""
BANDWIDTH_HOURS = 2
"""A person's counts are spread over this many neighbouring hours to both sides (triangular kernel)."""
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
SMOOTHING_EVENTS = 500.0
"""Weight of the smoothed week against the counted one, in events."""
POOL_FLOOR = 0.02
"""Part of the pooled attention spread evenly: no hour is impossible."""


@dataclass(frozen=True)
class Timing:
    """Everything the shape needs at serving. ``attention`` sums to 1 over the 168 local hours."""

    attention: tuple[float, ...]
    strength: float
    exposed: bool
    """Whether the list knows its sends; without them opens count as unprompted."""
    pool_weight: float = 1.0
    person_weight: float = 1.0
    """Slopes of the log shapes on the log-odds scale, fitted to later sends."""
    pool_weight_error: float = 0.0
    person_weight_error: float = 0.0

    def to_parameters(self) -> dict[str, Any]:
        return asdict(self) | {"attention": list(self.attention)}

    @staticmethod
    def from_parameters(raw: Mapping[str, Any]) -> Timing:
        return Timing(**(dict(raw) | {"attention": tuple(raw["attention"])}))


@dataclass(frozen=True)
class Shape:
    """Log of how a send fares at each local hour against the week's mean: everybody's (168,) and the person's departure
    from it (subscribers, 168) with its standard error; ``pool_share`` (subscribers,) is 1 without any history.
    """

    pool: npt.NDArray[np.float64]
    person: Weeks
    person_error: Weeks
    pool_share: npt.NDArray[np.float64]

    def log_odds(self, timing: Timing) -> Weeks:
        return timing.pool_weight * self.pool + timing.person_weight * self.person

    def log_error(self, timing: Timing) -> Weeks:
        """Error of ``log_odds``: of the person's counts and of the two fitted slopes."""
        parts = [
            timing.person_weight * self.person_error,
            timing.person_weight_error * self.person,
            np.broadcast_to(timing.pool_weight_error * self.pool, self.person.shape),
        ]
        return np.sqrt(sum(part**2 for part in parts))


def learn_timing(states: States) -> Timing:
    """Pooled attention and shrinkage strength of a list, from the states of its people at one instant."""
    sent, prompted, unprompted = _counts(states, exposed=True)
    exposed = bool(sent.sum() > 0)
    if not exposed:
        prompted, unprompted = np.zeros_like(prompted), prompted + unprompted
    attention = _attention(sent.sum(axis=0), prompted.sum(axis=0), unprompted.sum(axis=0))
    counted, expected = _evidence(attention, sent, prompted, unprompted)
    return Timing(tuple(attention), _best_strength(counted, expected), exposed)


def shape(states: States, timing: Timing) -> Shape:
    """Where in the week each of these people is, and how sure that is."""
    attention = np.asarray(timing.attention)
    counted, expected = _evidence(attention, *_counts(states, timing.exposed))
    counted, expected = _spread_hours(counted), _spread_hours(expected)
    strength = timing.strength
    relative = _by_hour((counted + strength) / (expected + strength))
    # A send is answered over the hours that follow it: their evidence adds up.
    error = 1.0 / np.sqrt(_waited(_by_hour(counted + strength), sign=-1))
    mine = _answered(attention[None, :] * relative)
    pool = np.log(_answered(attention[None, :])[0])
    share = strength / (strength + expected.mean(axis=(1, 2)))
    return Shape(pool, np.log(mine) - pool[None, :], error, share)


def personal_attention(states: States, timing: Timing) -> Weeks:
    """Each person's own attention over the 168 local hours; rows sum to 1."""
    attention = np.asarray(timing.attention)
    counted, expected = _evidence(attention, *_counts(states, timing.exposed))
    counted, expected = _spread_hours(counted), _spread_hours(expected)
    mine = attention[None, :] * _by_hour((counted + timing.strength) / (expected + timing.strength))
    return np.asarray(mine / mine.sum(axis=1, keepdims=True))


def _counts(states: States, exposed: bool) -> tuple[Weeks, Weeks, Weeks]:
    sent, prompted, unprompted = (
        states[name].astype(np.float64) for name in ("sent_by_hour", "response_by_hour", "visit_by_hour")
    )
    return (sent, prompted, unprompted) if exposed else (sent, np.zeros_like(prompted), prompted + unprompted)


def _attention(
    sent: npt.NDArray[np.float64], prompted: npt.NDArray[np.float64], unprompted: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Everybody's attention by hour: responses per opportunity and unprompted visits, weighted by how many there are."""
    opportunity = _opportunity(sent[None, :])[0]
    parts = np.zeros(168)
    if prompted.sum() > 0 and opportunity.sum() > 0:
        # An hour with hardly any opportunity says little: it is pulled towards the overall rate.
        prior = 0.25 * opportunity.mean()
        rate = (prompted + prior * prompted.sum() / opportunity.sum()) / (opportunity + prior)
        parts += prompted.sum() * rate / rate.sum()
    parts += unprompted
    total = parts.sum()
    even = np.full(168, 1 / 168)
    # The more there is, the less it needs smoothing.
    smooth = (parts + SMOOTHING_EVENTS * _spread_hours(parts) / max(total, 1)) / (total + SMOOTHING_EVENTS)
    return (1 - POOL_FLOOR) * (smooth if total > 0 else even) + POOL_FLOOR * even


def _opportunity(sent: Weeks) -> Weeks:
    """How much unanswered mail lies in the inbox at each hour."""
    return _waited(sent, sign=1)


def _answered(attention: Weeks) -> Weeks:
    """How a send at each hour fares, given attention by hour; mean 1 over the week."""
    fares = _waited(attention, sign=-1)
    return np.asarray(fares / fares.mean(axis=1, keepdims=True))


def _waited(weeks: Weeks, sign: int) -> Weeks:
    # Shifted sums, not a matrix product: the same bits for one subscriber as for a thousand.
    total = np.zeros_like(weeks)
    for k in range(WAIT_HOURS):
        total += np.exp(-k / WAIT_MEAN_HOURS) * np.roll(weeks, sign * k, axis=1)
    return total


def _spread_hours(hours: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Smooth along the last axis, around the clock; sums stay."""
    total = np.zeros_like(hours)
    width = BANDWIDTH_HOURS + 1
    for k in range(-BANDWIDTH_HOURS, width):
        total += (width - abs(k)) / width**2 * np.roll(hours, k, axis=-1)
    return total


def _evidence(
    attention: npt.NDArray[np.float64], sent: Weeks, prompted: Weeks, unprompted: Weeks
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Counted and expected engagement by kind of day and hour, shape (subscribers, 2, 24)."""
    chances = attention[None, :] * _opportunity(sent)
    per_chance = prompted.sum(axis=1) / np.maximum(chances.sum(axis=1), 1e-12)
    expected = chances * per_chance[:, None] + attention[None, :] * unprompted.sum(axis=1)[:, None]
    return _by_day_kind(prompted + unprompted), _by_day_kind(expected)


def _by_day_kind(weeks: Weeks) -> npt.NDArray[np.float64]:
    """Working days and weekends, each summed to 24 hours: one person's week is too thin for 168."""
    days = weeks.reshape(-1, 7, 24)
    return np.stack([days[:, :5].sum(axis=1), days[:, 5:].sum(axis=1)], axis=1)


def _by_hour(day_kinds: npt.NDArray[np.float64]) -> Weeks:
    """Back from (subscribers, 2, 24) to (subscribers, 168)."""
    return np.asarray(day_kinds[:, [0] * 5 + [1] * 2].reshape(-1, 168))


def _best_strength(counted: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    seen = expected > 0
    likelihoods = [_log_likelihood(counted[seen], expected[seen], strength) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmax(likelihoods))] if seen.any() else STRENGTHS[-1]


def _log_likelihood(counted: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], strength: float) -> float:
    """Negative binomial with mean ``expected`` and size ``strength``; counts may be fractions (smoothed)."""
    chance = strength / (strength + expected)
    terms = gammaln(counted + strength) - gammaln(strength) - gammaln(counted + 1)
    return float((terms + strength * np.log(chance) + counted * np.log1p(-chance)).sum())
