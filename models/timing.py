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
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from features.catalogue import HOUR_UNITS
from features.contract import HOURS_OF_WEEK
from features.state import States, events_by_hour

Array = npt.NDArray[np.float64]
Weeks = Array
"""Shape (subscribers, 168)."""
DayKinds = Array
"""Shape (subscribers, 48): the hours of a working day, then those of a day of the weekend."""
Slots = npt.NDArray[np.int64]
"""Local hours of week, shape (subscribers, any number)."""

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
DAY_KINDS = 48
COUNT_UNITS = HOUR_UNITS * (BANDWIDTH_HOURS + 1) ** 2
"""Counts spread over hours are whole multiples of 1 / this."""
MAP_STEPS, RATIO_STEPS, RATIO_CEILING = 2.0**19, 2.0**18, 2.0**10
"""How finely weights and ratios are cut into whole numbers, see ``_Maps``. Sums of 48 products of them stay below 2^53."""


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
class Hours:
    """Some local hours of each person, shape (subscribers, hours): log of how a send fares there against the week's mean,
    for everybody (``pool``), and the person's departure from it with its standard error.
    """

    pool: Array
    person: Array
    person_error: Array

    def log_odds(self, timing: Timing) -> Array:
        return timing.pool_weight * self.pool + timing.person_weight * self.person

    def log_error(self, timing: Timing) -> Array:
        """Error of ``log_odds``: of the person's counts and of the two fitted slopes."""
        parts = (
            timing.person_weight * self.person_error,
            timing.person_weight_error * self.person,
            timing.pool_weight_error * self.pool,
        )
        return np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2)


@dataclass(frozen=True)
class Shape:
    """Where in the week each of some people is. ``pool_share`` (subscribers,) is 1 without any history."""

    pool: Array
    fares: Weeks
    """How a send at each hour fares, against the person's own mean."""
    evidence: Weeks
    """What is known of the hours in which a send would be answered, in events, prior included."""
    pool_share: Array

    def at(self, slots: Slots) -> Hours:
        """The hours asked for; what takes long is worked out only there."""
        pool = self.pool[slots]
        person = np.log(np.take_along_axis(self.fares, slots, axis=1)) - pool
        return Hours(pool, person, 1.0 / np.sqrt(np.take_along_axis(self.evidence, slots, axis=1)))

    def week(self) -> Hours:
        """All 168 hours."""
        return self.at(np.broadcast_to(np.arange(HOURS_OF_WEEK), self.fares.shape))


def learn_timing(states: States) -> Timing:
    """Pooled attention and shrinkage strength of a list, from the states of its people at one instant."""
    sent, prompted, unprompted = (
        events_by_hour(states, name) for name in ("sent_by_hour", "response_by_hour", "visit_by_hour")
    )
    exposed = bool(sent.sum() > 0)
    if not exposed:
        prompted, unprompted = np.zeros_like(prompted), prompted + unprompted
    attention = _attention(sent.sum(axis=0), prompted.sum(axis=0), unprompted.sum(axis=0))
    counted, expected = _evidence(states, exposed, _Maps(attention, bandwidth_hours=0))
    return Timing(tuple(attention), _best_strength(counted, expected), exposed)


def shape(states: States, timing: Timing) -> Shape:
    """Where in the week each of these people is, and how sure that is."""
    maps = _maps(timing.attention)
    counted, expected = _evidence(states, timing.exposed, maps)
    strength = timing.strength
    fares, mean = maps.fares((counted + strength) / (expected + strength))
    # A send is answered over the hours that follow it: their evidence adds up.
    evidence = maps.waited(counted + strength)
    share = strength / (strength + expected.mean(axis=1))
    return Shape(maps.pool, fares / mean[:, None], evidence, share)


def personal_attention(states: States, timing: Timing) -> Weeks:
    """Each person's own attention over the 168 local hours; rows sum to 1."""
    counted, expected = _evidence(states, timing.exposed, _maps(timing.attention))
    relative = _by_hour((counted + timing.strength) / (expected + timing.strength))
    mine = np.asarray(timing.attention)[None, :] * relative
    return np.asarray(mine / mine.sum(axis=1, keepdims=True))


class _Maps:
    """The linear steps between a person's counts and their week, for one pooled attention, as matrices.

    A matrix product adds in an order that depends on how many rows there are, so that somebody would get other last digits
    alone than among a thousand. Here weights and what they multiply are whole numbers below 2^53 in all their sums: then
    every order gives the same bits, and a thousand people take one or two milliseconds.
    """

    def __init__(self, attention: Array, bandwidth_hours: int = BANDWIDTH_HOURS) -> None:
        self._width = bandwidth_hours + 1
        hours, kinds = np.eye(HOURS_OF_WEEK), np.eye(DAY_KINDS)
        chances = _spread_hours(_by_day_kind(attention * _opportunity(hours)), bandwidth_hours)
        self._chance_step = max(float(chances.max()), 1e-12) / 2**24
        self._chances = np.rint(chances / self._chance_step)
        self.base = _spread_hours(_by_day_kind(attention[None, :]), bandwidth_hours)[0]
        self._spread = np.rint(_spread_hours(kinds, bandwidth_hours) * self._width**2)
        answered = _waited(attention * _by_hour(kinds), sign=-1)
        self._fares = np.rint(answered / answered.max() * MAP_STEPS)
        self._waited = np.rint(_waited(_by_hour(kinds), sign=-1) * MAP_STEPS)
        pool, mean = self.fares(np.ones((1, DAY_KINDS)))
        self.pool = np.log(pool[0] / mean)

    def chances(self, sent: npt.NDArray[np.uint16]) -> DayKinds:
        """Mail lying unanswered, weighted by everybody's attention, from sends by hour in ``HOUR_UNITS``."""
        return np.asarray((sent.astype(np.float64) @ self._chances) * (self._chance_step / HOUR_UNITS))

    def counts(self, units: npt.NDArray[np.uint32]) -> DayKinds:
        """Events by kind of day and hour, each spread over its neighbours, from ``HOUR_UNITS`` by hour of week."""
        days = units.reshape(-1, 7, 24)
        kinds = np.empty((len(units), DAY_KINDS))
        kinds[:, :24], kinds[:, 24:] = np.einsum("ndh->nh", days[:, :5]), np.einsum("ndh->nh", days[:, 5:])
        return np.asarray((kinds @ self._spread) / (HOUR_UNITS * self._width**2))

    def fares(self, relative: DayKinds) -> tuple[Weeks, Array]:
        """How a send fares by hour when attention is so many times everybody's, in steps, and its mean over the week."""
        whole = np.rint(np.minimum(relative, RATIO_CEILING) * RATIO_STEPS) @ self._fares
        return np.maximum(whole, 1.0), np.maximum(whole.mean(axis=1), 1.0)

    def waited(self, counts: DayKinds) -> Weeks:
        """What the hours add up to in which a send would be answered."""
        return np.asarray((np.rint(counts * COUNT_UNITS) @ self._waited) / (COUNT_UNITS * MAP_STEPS))


@lru_cache(maxsize=16)
def _maps(attention: tuple[float, ...]) -> _Maps:
    return _Maps(np.asarray(attention))


def _evidence(states: States, exposed: bool, maps: _Maps) -> tuple[DayKinds, DayKinds]:
    """Counted and expected engagement."""
    prompted = states["response_by_hour"].astype(np.uint32)
    unprompted = states["visit_by_hour"].astype(np.uint32)
    if not exposed:
        prompted, unprompted = np.zeros_like(prompted), prompted + unprompted
    answers, visits = (np.einsum("nh->n", units) / HOUR_UNITS for units in (prompted, unprompted))
    chances = maps.chances(states["sent_by_hour"])
    per_chance = answers / np.maximum(np.einsum("nk->n", chances), 1e-12)
    expected = chances * per_chance[:, None] + maps.base * visits[:, None]
    return maps.counts(prompted + unprompted), expected


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


def _waited(weeks: Weeks, sign: int) -> Weeks:
    total = np.zeros_like(weeks)
    for k in range(WAIT_HOURS):
        total += np.exp(-k / WAIT_MEAN_HOURS) * np.roll(weeks, sign * k, axis=1)
    return total


def _kernel(width: int) -> list[tuple[int, int]]:
    """Hours apart and weights of a triangle that reaches ``width`` hours; the weights sum to the square of it."""
    return [(k, width - abs(k)) for k in range(1 - width, width)]


def _spread_hours(hours: Array, bandwidth_hours: int = BANDWIDTH_HOURS) -> Array:
    """Smooth each day of 24 hours, or a week, around the clock; sums stay."""
    days = hours.reshape(-1, 24) if hours.shape[-1] == DAY_KINDS else hours
    width = bandwidth_hours + 1
    total = np.zeros_like(days)
    for k, weight in _kernel(width):
        total += weight / width**2 * np.roll(days, k, axis=-1)
    return total.reshape(hours.shape)


def _by_day_kind(weeks: Weeks) -> DayKinds:
    """Working days and weekends, each summed to 24 hours: one person's week is too thin for 168."""
    days = weeks.reshape(-1, 7, 24)
    return np.concatenate([days[:, :5].sum(axis=1), days[:, 5:].sum(axis=1)], axis=1)


def _by_hour(day_kinds: DayKinds) -> Weeks:
    """Back from (subscribers, 48) to (subscribers, 168)."""
    return np.asarray(day_kinds.reshape(-1, 2, 24)[:, [0] * 5 + [1] * 2].reshape(-1, HOURS_OF_WEEK))


def _best_strength(counted: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    seen = expected > 0
    likelihoods = [_log_likelihood(counted[seen], expected[seen], strength) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmax(likelihoods))] if seen.any() else STRENGTHS[-1]


def _log_likelihood(counted: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], strength: float) -> float:
    """Negative binomial with mean ``expected`` and size ``strength``; counts may be fractions (smoothed)."""
    chance = strength / (strength + expected)
    terms = gammaln(counted + strength) - gammaln(strength) - gammaln(counted + 1)
    return float((terms + strength * np.log(chance) + counted * np.log1p(-chance)).sum())
