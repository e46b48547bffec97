"""The shape of a week: at which local hours people respond, everybody together and each alone.

What enters: sends, responses and unprompted visits by local hour of week. What leaves: for each person and hour, how much
likelier than their average hour a send is to be answered, and how sure the ratio of two hours is. The promise: counts are read
per hour of *opportunity* (a mail can only be answered after it was sent, and waits a while), so the past sending policy is not
mistaken for people's habits; whoever has little history gets everybody's shape.

Three layers, from the many to the one: the *kinds* of weeks of the list (``models.rhythms``), mixed by how likely the person is
of each; then the person's own *days* and own *hours* of the clock, both gamma-Poisson posterior means: counts n against what
the mixture would have led to expect, e, give (n + strength) / (e + strength).

Before counting, three things are taken out that mirror the past and not the person: the part of machine opens that still counts
(it lies where mail was sent), visits that come with an answer (the page behind a link), and repetition: pages of one visit are
one look, so a count n of one hour weighs n to a power below 1, learnt from how often events fall together.

Weighed on simulated lists of 20,000 people over 270 days, as the share of the oracle's gain over a uniform hour (over the best
single hour), on ``inbox simulate`` and on another simulator with other rhythms and waiting, few visits and each person's mail
at one hour: a pooled week with personal hours and fixed waiting .53 (.42) and .52 (.14); kinds alone .60 (.51) and .61 (.30);
with days and hours .65 (.57) and .66 (.39); that without taking out visits that come with answers .64 (.56) and .56 (.22).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from features.catalogue import HOUR_UNITS
from features.contract import HOURS_OF_WEEK
from features.state import HOUR_CEILING, States
from models.exact import ExactMatrix
from models.rhythms import History, Rhythms, Waiting, learn_rhythms, spread_hours

Array = npt.NDArray[np.float64]
Weeks = Array
"""Shape (subscribers, 168)."""
Days = Array
"""Shape (subscribers, 7)."""
Clock = Array
"""Shape (subscribers, 24): local hours of day."""
Slots = npt.NDArray[np.int64]
"""Local hours of week, shape (subscribers, any number)."""

EVIDENCE_WEIGHT = 0.7
"""How much of a person's evidence counts in saying which kind they are: nobody is exactly of a kind. Better than 1 by .00 to
.015 of the oracle's gain on every simulated list."""
DAY_STRENGTH, HOUR_STRENGTH = 8.0, 12.0
"""Of the personal layers, in events: a person's day or hour is drawn so hard towards their kinds'. The maximum of the marginal
likelihood says 128, for the kinds have seen the same counts; that costs .03 of the oracle's gain, 4 to 16 less than .01.
"""
CLOCK_WIDTH = 3
"""A person's hours are spread over two neighbours to both sides."""
QUICK_KINDS = 12
"""Enough to say how often events would fall together by chance."""
LEAST_POWER = 0.2
STRADDLING = 1.5
"""Pages of one visit fall into neighbouring hours, too, where they do not show as repetition."""
PREFETCH_LEAK = 0.05 / 0.95
"""Prefetches that pass for people's opens, for each known for one: on simulated lists .06, on real ones nobody knows."""
LARGEST_LEAK = 0.06
"""Of an event per send: what a prefetch counts for."""
RATIO_CEILING = 2.0**10
POSTERIOR_STEPS, RATIO_STEPS = 2.0**20, 2.0**20
"""How finely what is multiplied is cut into whole numbers, see ``models.exact``."""
COUNT_TOTAL = 2.0**24
"""No person has more 64ths of events in a week's hours."""
SMALLEST = 1e-9


@dataclass(frozen=True)
class Timing:
    """Everything the shape needs at serving.

    Attributes
    ----------
    attention, shares
        Kinds of weeks, each 168 numbers of mean 1, and how many people are of each.
    wait_hours, wait_background
        See ``models.rhythms.Waiting``.
    exposed
        Whether the list knows its sends; without them opens count as unprompted, and a send fares as attention does then.
    answer_power, visit_power
        A count n of one hour of the week weighs n to this power.
    day_strength, hour_strength
        Of the personal layers, in events.
    evidence_weight
        See ``EVIDENCE_WEIGHT``; 0 takes everybody for the mixture of all kinds.
    pool_weight, person_weight, pool_weight_error, person_weight_error
        Slopes of the log shapes on the log-odds scale, fitted to later sends, and their standard errors.
    """

    attention: tuple[tuple[float, ...], ...]
    shares: tuple[float, ...]
    wait_hours: tuple[float, ...]
    wait_background: float
    exposed: bool
    answer_power: float = 1.0
    visit_power: float = 1.0
    day_strength: float = DAY_STRENGTH
    hour_strength: float = HOUR_STRENGTH
    evidence_weight: float = EVIDENCE_WEIGHT
    pool_weight: float = 1.0
    person_weight: float = 1.0
    pool_weight_error: float = 0.0
    person_weight_error: float = 0.0

    @property
    def everybody(self) -> Array:
        """Everybody's attention over the 168 local hours, shape (168,), sums to 1."""
        return np.asarray(np.einsum("k,kh->h", np.asarray(self.shares), np.asarray(self.attention)))

    def to_parameters(self) -> dict[str, Any]:
        """As JSON knows it."""
        lists = {"attention": [list(week) for week in self.attention]}
        return asdict(self) | lists | {name: list(getattr(self, name)) for name in ("shares", "wait_hours")}

    @staticmethod
    def from_parameters(raw: Mapping[str, Any]) -> Timing:
        tuples = {"attention": tuple(tuple(week) for week in raw["attention"])}
        return Timing(**(dict(raw) | tuples | {name: tuple(raw[name]) for name in ("shares", "wait_hours")}))

    @cached_property
    def maps(self) -> _Maps:
        """What takes long to prepare, prepared once."""
        return _Maps(self)


@dataclass(frozen=True)
class Hours:
    """Some local hours of each person, shape (subscribers, hours): log of how a send fares there against the week's mean,
    for everybody (``pool``), and the person's departure from it.
    """

    pool: Array
    person: Array

    def log_odds(self, timing: Timing) -> Array:
        return timing.pool_weight * self.pool + timing.person_weight * self.person


@dataclass(frozen=True)
class Shape:
    """Where in the week each of some people is. ``pool_share`` (subscribers,) is 1 without any history: how much of what can
    differ between people is not known of this one.
    """

    timing: Timing
    fares: Weeks
    """How a send at each hour fares, against the person's own mean."""
    kinds: Array
    """How likely each is of each kind, rows sum to 1."""
    days: Days
    clock: Clock
    """What is known of the days and of the hours after a send, in events, prior included."""
    pool_share: Array

    def at(self, slots: Slots) -> Hours:
        """The hours asked for; what takes long is worked out only there."""
        pool = self.timing.maps.pool[slots]
        return Hours(pool, np.log(np.take_along_axis(self.fares, slots, axis=1)) - pool)

    def week(self) -> Hours:
        """All 168 hours."""
        return self.at(np.broadcast_to(np.arange(HOURS_OF_WEEK), self.fares.shape))

    def repeated(self, count: int) -> Shape:
        """One person's, for so many."""
        arrays = (self.fares, self.kinds, self.days, self.clock, self.pool_share)
        return Shape(self.timing, *(np.broadcast_to(array[:1], (count, *array.shape[1:])) for array in arrays))

    def ratio_error(self, here: npt.NDArray[np.int64], there: npt.NDArray[np.int64]) -> Array:
        """Standard error of how much better one hour is than another, as ``Hours.log_odds`` says it.

        Parameters
        ----------
        here, there
            A local hour of week for each person, shape (subscribers,).
        """
        timing, both = self.timing, self.at(np.stack([here, there], axis=1))
        pool, person = both.pool[:, 0] - both.pool[:, 1], both.person[:, 0] - both.person[:, 1]
        parts = (timing.pool_weight_error * pool) ** 2 + (timing.person_weight_error * person) ** 2
        return np.sqrt(parts + timing.person_weight**2 * self._variance(here, there))

    def _variance(self, here: npt.NDArray[np.int64], there: npt.NDArray[np.int64]) -> Array:
        """Of the log of the ratio: which kind it is, and the person's own days and hours."""
        logs = self.timing.maps.log_fares
        ratio = logs[here] - logs[there]
        mean = np.einsum("nk,nk->n", self.kinds, ratio)
        kinds = np.einsum("nk,nk->n", self.kinds, (ratio - mean[:, None]) ** 2)
        rows = np.arange(len(here))
        days = _apart(self.days, rows, here // 24, there // 24)
        return np.asarray(kinds + days + _apart(self.clock, rows, here % 24, there % 24))


def learn_timing(states: States, evidence_weight: float = EVIDENCE_WEIGHT) -> Timing:
    """Kinds of weeks, waiting and shrinkage of a list, from the states of its people at one instant."""
    exposed = bool((states["sent_by_hour"] > 0).any())
    plain = _history(states, exposed)
    quick = _timing(learn_rhythms(plain, QUICK_KINDS), exposed, evidence_weight)
    powers = _powers(plain, quick)
    rhythms = learn_rhythms(_history(states, exposed, *powers))
    return replace(_timing(rhythms, exposed, evidence_weight), answer_power=powers[0], visit_power=powers[1])


def shape(states: States, timing: Timing) -> Shape:
    """Where in the week each of these people is, and how sure that is."""
    maps = timing.maps
    read = _Read(_counts(states, timing), maps)
    fares = _fares(read, timing, maps)
    fares /= np.einsum("nh->n", fares)[:, None] / HOURS_OF_WEEK
    known = maps.after(read.spread_clock + timing.hour_strength) * maps.hours_after
    return Shape(timing, fares, read.kinds, read.counted_days + timing.day_strength, known, _pool_share(read, timing))


def personal_attention(states: States, timing: Timing) -> Weeks:
    """Each person's own attention over the 168 local hours; rows sum to 1."""
    maps = timing.maps
    read = _Read(_counts(states, timing), maps)
    days, clock = _ratios(read, timing)
    mine = _in_days(maps.mixed_attention.of(read.whole_kinds)) * days[:, :, None] * clock[:, None, :]
    return np.asarray((mine / mine.sum(axis=(1, 2), keepdims=True)).reshape(-1, HOURS_OF_WEEK))


class _Maps:
    """The linear steps between a person's counts and their week, for one list, as matrices."""

    def __init__(self, timing: Timing) -> None:
        attention, self.shares = np.asarray(timing.attention), np.asarray(timing.shares)
        hours, self.background = (timing.wait_hours, timing.wait_background) if timing.exposed else ((1.0,), 0.0)
        spread = Waiting(hours, self.background).spread(background=False)
        hour = np.arange(HOURS_OF_WEEK)
        same_day = hour[:, None] % 24 + (hour[None, :] - hour[:, None]) % HOURS_OF_WEEK < 24
        # Not matrix products: what they add first depends on how many threads the BLAS of a process has.
        today, later = (np.einsum("kh,sh->ks", attention, spread * when) for when in (same_day, ~same_day))
        fares = today + later + self.background
        self.evidence_weight = timing.evidence_weight
        self.log_shares = np.log(self.shares)
        self.log_attention = _of_counts(np.log(attention).T)
        self.mixed_attention, self.today, self.later = _of_kinds(attention), _of_kinds(today), _of_kinds(later)
        by_day = attention.reshape(-1, 7, 24) / HOURS_OF_WEEK
        self.days_and_clock = _of_kinds(np.concatenate([by_day.sum(axis=2), by_day.sum(axis=1)], axis=1))
        pool = timing.everybody
        self.pool_clock = pool.reshape(7, 24).sum(axis=0) / HOURS_OF_WEEK
        self.clock_and_chances = _of_counts(
            np.concatenate([(spread * pool).reshape(-1, 7, 24).sum(axis=1), fares.T], axis=1)
        )
        after = _hours_after(np.asarray(hours), self.pool_clock)
        self.hours_after = 1.0 / (after**2).sum(axis=1)
        self._after = ExactMatrix(after.T, 24 * RATIO_CEILING * RATIO_STEPS, RATIO_STEPS)
        self.log_fares = np.log(fares).T
        centred = np.log(fares) - np.log(fares).mean(axis=1, keepdims=True)
        self._gram = np.einsum("kh,lh->kl", centred, centred) / HOURS_OF_WEEK
        self._gram_exact = _of_kinds(self._gram)
        self.spread_left_before = float(self.spread_left(_whole(self.shares[None, :]))[0])
        nothing = np.zeros((1, HOURS_OF_WEEK))
        stranger = _Read(_Counts(nothing, nothing, np.zeros(1)), self)
        fares = _fares(stranger, timing, self)
        self.pool = np.log(fares[0] / (np.einsum("nh->n", fares)[0] / HOURS_OF_WEEK))

    def after(self, clock: Clock) -> Clock:
        """Means over the hours in which a send of each hour of the clock would be answered."""
        return self._after.of(np.rint(np.minimum(clock, RATIO_CEILING) * RATIO_STEPS))

    def spread_left(self, whole_kinds: Array) -> Array:
        """Variance of the log fares over the kinds somebody may be of, mean over the week."""
        kinds = whole_kinds / POSTERIOR_STEPS
        around = np.einsum("nk,nk->n", self._gram_exact.of(whole_kinds), kinds)
        left: Array = np.maximum(np.einsum("nk,k->n", kinds, np.diag(self._gram)) - around, 0.0)
        return left


@dataclass(frozen=True)
class _Counts:
    """Sends and looks by hour of week, and how many of the looks are answers: whole 64ths."""

    sent: Weeks
    counted: Weeks
    answers: Array


class _Read:
    """What some people's counts say: their kinds, and what the kinds would have led to expect by day and by hour."""

    def __init__(self, counts: _Counts, maps: _Maps) -> None:
        sent, counted = counts.sent, counts.counted
        answers = counts.answers[:, None] / HOUR_UNITS
        visits = np.einsum("nh->n", counted)[:, None] / HOUR_UNITS - answers
        met = maps.clock_and_chances.of(sent)
        chances = np.maximum(met[:, 24:], SMALLEST)
        evidence = maps.log_attention.of(counted) - answers * np.log(chances)
        evidence = maps.log_shares + maps.evidence_weight * evidence
        self.whole_kinds = _whole(np.exp(evidence - evidence.max(axis=1, keepdims=True)))
        self.kinds = self.whole_kinds / POSTERIOR_STEPS
        self.today, self.later = maps.today.of(self.whole_kinds), maps.later.of(self.whole_kinds)
        self.counted_days = np.einsum("ndh->nd", _in_days(counted)) / HOUR_UNITS
        self.counted_clock = np.einsum("ndh->nh", _in_days(counted)) / HOUR_UNITS
        self.spread_clock = spread_hours(self.counted_clock, CLOCK_WIDTH)
        usual = maps.days_and_clock.of(self.whole_kinds)
        days, clock = usual[:, :7], usual[:, 7:]
        reached = np.einsum("ndh,ndh->nd", _in_days(sent), _in_days(self.today))
        reached += np.roll(np.einsum("ndh,ndh->nd", _in_days(sent), _in_days(self.later)), 1, axis=1)
        self.expected_days = _due(reached, answers, days) + visits * days
        waited = met[:, :24] * (clock / maps.pool_clock)
        self.expected_clock = _due(waited, answers, clock) + visits * clock


def _of_counts(weights: Array) -> ExactMatrix:
    return ExactMatrix(weights, COUNT_TOTAL, HOUR_UNITS)


def _of_kinds(weights: Array) -> ExactMatrix:
    return ExactMatrix(weights, 2 * POSTERIOR_STEPS, POSTERIOR_STEPS)


def _in_days(weeks: Weeks) -> Array:
    return weeks.reshape(len(weeks), 7, 24)


def _whole(chances: Array) -> Array:
    """Rows in proportion, summing to about ``POSTERIOR_STEPS``, as whole numbers: their sums have no order."""
    whole: Array = np.rint(chances * POSTERIOR_STEPS)
    whole *= POSTERIOR_STEPS / whole.sum(axis=1, keepdims=True)
    return np.rint(whole, out=whole)


def _due(reached: Array, answers: Array, otherwise: Array) -> Array:
    """So many answers by where mail reached somebody; who got none is taken to look as they always do."""
    due: Array = reached + SMALLEST * otherwise
    due *= answers / np.einsum("nd->n", due)[:, None]
    return due


def _fares(read: _Read, timing: Timing, maps: _Maps) -> Weeks:
    """What a send at each hour is worth: attention over the hours after it, today's and tomorrow's. Uses up what was read:
    new arrays of a thousand people's weeks take longer to get than to fill.
    """
    days, clock = _ratios(read, timing)
    hours, later = _in_days(read.today), _in_days(read.later)
    hours *= days[:, :, None]
    later *= np.roll(days, -1, axis=1)[:, :, None]
    hours += later
    hours *= maps.after(clock)[:, None, :]
    hours += maps.background
    return np.maximum(hours, SMALLEST, out=hours).reshape(-1, HOURS_OF_WEEK)


def _ratios(read: _Read, timing: Timing) -> tuple[Days, Clock]:
    """How much more somebody is there, by day and by hour of the clock, than people of their kinds."""
    day, hour = timing.day_strength, timing.hour_strength
    expected = spread_hours(read.expected_clock, CLOCK_WIDTH)
    return (read.counted_days + day) / (read.expected_days + day), (read.spread_clock + hour) / (expected + hour)


def _pool_share(read: _Read, timing: Timing) -> Array:
    """Spread that is left over the spread there is among people."""
    left, before = timing.maps.spread_left(read.whole_kinds), timing.maps.spread_left_before
    for strength, expected in ((timing.day_strength, read.expected_days), (timing.hour_strength, read.expected_clock)):
        left = left + 1.0 / (strength + np.einsum("nd->n", expected) / expected.shape[1])
        before += 1.0 / strength
    return np.minimum(left / before, 1.0)


def _apart(known: Array, rows: npt.NDArray[np.int64], here: Slots, there: Slots) -> Array:
    """Variance of the log of the ratio of two independent rates; none where they are the same."""
    return np.where(here == there, 0.0, 1.0 / known[rows, here] + 1.0 / known[rows, there])


def _hours_after(hours: Array, pool_clock: Array) -> Array:
    """Of the answers to a send at each hour of the clock (rows), the share that comes in each hour (columns)."""
    by_lag = np.zeros(24)
    np.add.at(by_lag, np.arange(len(hours)) % 24, hours)
    shares = np.stack([np.roll(by_lag, hour) for hour in range(24)]) * pool_clock
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _timing(rhythms: Rhythms, exposed: bool, evidence_weight: float) -> Timing:
    return Timing(
        attention=tuple(tuple(week) for week in rhythms.attention.tolist()),
        shares=tuple(rhythms.shares.tolist()),
        wait_hours=rhythms.waiting.hours,
        wait_background=rhythms.waiting.background,
        exposed=exposed,
        evidence_weight=evidence_weight,
    )


def _looks(states: States, exposed: bool) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Answers and visits by hour of week in 64ths, without what mirrors the sending."""
    responses, visits = states["response_by_hour"], states["visit_by_hour"]
    if not exposed:
        return np.zeros_like(visits), visits + np.minimum(responses, HOUR_CEILING - visits)
    sent = states["sent_by_hour"]
    machine = states["machine_open_count"] * (PREFETCH_LEAK * HOUR_UNITS)
    leak = np.minimum(machine / np.maximum(sent.sum(axis=1, dtype=np.int64), 1), LARGEST_LEAK).astype(np.float32)
    leaked = (sent * leak[:, None] + np.float32(0.5)).astype(np.uint16)
    # The page behind a link is no look of its own.
    return responses - np.minimum(leaked, responses), visits - np.minimum(visits, responses)


def _counts(states: States, timing: Timing) -> _Counts:
    """Looks behind a person's events. Most hours have none: only the others are looked up."""
    answers, visits = _looks(states, timing.exposed)
    counted = _powered(visits, timing.visit_power)
    some = np.flatnonzero(answers)
    weights = _power_table(timing.answer_power)[answers.reshape(-1)[some]]
    counted.reshape(-1)[some] += weights
    total = np.bincount(some // HOURS_OF_WEEK, weights, minlength=len(states)).astype(np.float64)
    return _Counts(states["sent_by_hour"].astype(np.float64), counted, total)


def _history(states: States, exposed: bool, answer_power: float = 1.0, visit_power: float = 1.0) -> History:
    answers, visits = _looks(states, exposed)
    sent = states["sent_by_hour"].astype(np.float64)
    return History(sent, _powered(answers, answer_power), _powered(visits, visit_power))


def _powered(units: npt.NDArray[np.uint16], power: float) -> Weeks:
    """Counts of an hour to a power."""
    weights = np.zeros(units.shape)
    some = np.flatnonzero(units)
    weights.reshape(-1)[some] = _power_table(power)[units.reshape(-1)[some]]
    return weights


@lru_cache(maxsize=64)
def _power_table(power: float) -> Array:
    """Each count of an hour to a power, from one event on, in whole 64ths."""
    every = np.arange(HOUR_CEILING + 1) / HOUR_UNITS
    return np.asarray(np.rint(np.where(every > 1, every**power, every) * HOUR_UNITS))


def _powers(history: History, timing: Timing) -> tuple[float, float]:
    """To which powers counts of answers and of visits weigh as the looks behind them: 1 where no more events share an hour than
    would by chance.
    """
    read = _Read(_Counts(history.sent, history.counted, history.prompted.sum(axis=1)), timing.maps)
    mine = timing.maps.mixed_attention.of(read.whole_kinds)
    waits = Waiting(timing.wait_hours, timing.wait_background).spread()
    reached = mine * _of_counts(waits).of(history.sent)
    return _power(history.prompted, reached), round(_power(history.unprompted, mine) ** STRADDLING, 4)


def _power(counted: Weeks, chances: Weeks) -> float:
    """The share of events that are looks of their own, from how many hours have any."""
    totals, sums = counted.sum(axis=1, keepdims=True) / HOUR_UNITS, chances.sum(axis=1, keepdims=True)
    expected = chances * (totals / np.maximum(sums, SMALLEST))
    occupied = float((counted >= HOUR_UNITS / 2).sum())
    low, high = LEAST_POWER, 1.0
    if occupied == 0 or -np.expm1(-expected).sum() <= occupied:
        return 1.0
    for _ in range(20):
        middle = (low + high) / 2
        below = -np.expm1(-middle * expected).sum() < occupied
        low, high = (middle, high) if below else (low, middle)
    return round(low, 4)
