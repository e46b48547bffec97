"""Kinds of weeks: when people look at all, learnt from a whole list.

What enters: everybody's sends, answers and visits by local hour of week. What leaves: a dozen or two kinds of attention over
the 168 hours, how many people are of each, and how long a mail waits for its answer. The promise: answers are read per hour
in which mail lay unanswered, so that a list that always writes at nine is not taken for one that is awake at nine.

A person of kind k answers in hour h at a rate proportional to ``attention[k, h]`` times the mail that waits then. Given how
often somebody answered at all, the hours are multinomial: the person's level does not matter. Kinds are fitted by expectation
maximisation over people, the waiting likewise (a mixture of exponentials and a constant, which is the deconvolution of the
answers by the sends).

Weighed, as the share of the oracle's gain over a uniform hour on simulated lists of 20,000: one kind .17, 12 kinds .597, 24
and 64 kinds .600. Waiting fixed at four hours: .60 where that is true, .05 to .50 instead of .58 to .61 where it is not.
Waiting learnt after attention instead of before it: where every person has an hour of their own at which mail comes, and no
visits are known, everybody's best hour was .19 instead of .46.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.contract import HOURS_OF_WEEK
from models.exact import ExactMatrix

Array = npt.NDArray[np.float64]
Weeks = Array
"""Shape (any, 168)."""

MOST_KINDS = 24
PEOPLE_PER_KIND = 25
LEAST_EVENTS = 2.0
"""Who did less says nothing of kinds."""
MOST_PEOPLE = 20_000
"""Of more people every n-th is read."""
ROUNDS = 30
POOL_ROUNDS = 12
WAIT_EVERY = 8
"""After so many rounds the waiting is learnt anew."""
WAIT_FIRST, WAIT_ROUNDS = 8, 5
WAIT_PEOPLE = 3_000
WAIT_HOURS = 48
WAIT_MEANS_HOURS = (0.35, 1.0, 2.0, 4.0, 8.0, 16.0)
"""What the waiting is mixed from, beside a constant."""
FLOOR = 0.02
"""Part of every kind's attention spread evenly: no hour is impossible."""
HOUR_PRIOR_EVENTS = 30.0
"""Each hour of the week is pulled with so many events towards its day times its hour among workdays or weekends."""
DAY_PRIOR_EVENTS = 10.0
CLOCK_PRIOR_EVENTS = 0.5
"""Each hour of the clock is pulled with so many events towards the kind's mean."""
SEED_PEOPLE = 3
"""A kind begins as so many people's week."""
SEED_EVENTS = 30.0
"""More than so many do not make somebody a likelier seed."""
EVENT_STEPS, POSTERIOR_STEPS, RATIO_STEPS = 64.0, 2.0**16, 2.0**16
"""How finely what is multiplied is cut into whole numbers."""
SMALLEST = 1e-9


@dataclass(frozen=True)
class History:
    """What people were sent and did by local hour of week, all (people, 168): whole 64ths of events."""

    sent: Weeks
    prompted: Weeks
    unprompted: Weeks

    def take(self, people: npt.NDArray[np.int64]) -> History:
        return History(self.sent[people], self.prompted[people], self.unprompted[people])

    @property
    def counted(self) -> Weeks:
        return self.prompted + self.unprompted


@dataclass(frozen=True)
class Waiting:
    """How long a mail waits: of its answers, the share that comes in the k-th hour after the send at even attention, and the
    share (``background``) that comes at any time. Together 1.
    """

    hours: tuple[float, ...]
    background: float

    def spread(self, background: bool = True) -> Weeks:
        """Sends by hour of week (rows) to the mail that waits in each (columns)."""
        return _lagged(np.asarray(self.hours), self.background if background else 0.0)


@dataclass(frozen=True)
class Rhythms:
    """Kinds of weeks. ``attention`` (kinds, 168) has mean 1 per kind; ``shares`` (kinds,) sum to 1."""

    attention: Weeks
    shares: Array
    waiting: Waiting


def learn_rhythms(history: History, most_kinds: int = MOST_KINDS) -> Rhythms:
    """Kinds and waiting from everybody's history.

    Parameters
    ----------
    most_kinds
        A list too small for so many has fewer, down to one.
    """
    total = history.counted.sum(axis=1) / EVENT_STEPS
    active = np.flatnonzero(total >= LEAST_EVENTS)
    known = history.take(_thinned(active, MOST_PEOPLE))
    learner = _Learner(known)
    learner.learn_pool()
    kinds = int(np.clip(len(active) // PEOPLE_PER_KIND, 1, most_kinds))
    if kinds > 1:
        learner.learn_kinds(kinds)
    return Rhythms(np.round(learner.attention, 6), learner.shares, learner.waiting())


class _Learner:
    """Expectation maximisation over one list's people."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._counted = history.counted
        self._answers, self._visits = (
            weeks.sum(axis=1) / EVENT_STEPS for weeks in (history.prompted, history.unprompted)
        )
        self._wait = np.full(len(WAIT_MEANS_HOURS) + 1, 1.0 / (len(WAIT_MEANS_HOURS) + 1))
        self.attention: Weeks = np.ones((1, HOURS_OF_WEEK))
        self.shares: Array = np.ones(1)

    def waiting(self) -> Waiting:
        hours = self._wait[:-1] @ _DECAYS
        return Waiting(tuple(float(share) for share in hours), float(self._wait[-1]))

    def learn_pool(self) -> None:
        """One kind: everybody. What waiting alone can explain is left to it: a list that always wrote at nine cannot know."""
        everybody = np.ones((len(self._counted), 1))
        for _ in range(WAIT_FIRST):
            self._learn_waiting(everybody)
        for nth in range(POOL_ROUNDS):
            self._maximise(everybody, self._chances())
            if nth % 2:
                self._learn_waiting(everybody)

    def learn_kinds(self, kinds: int) -> None:
        self.attention, self.shares = self._seeds(kinds), np.full(kinds, 1.0 / kinds)
        for nth in range(ROUNDS):
            chances = self._chances()
            posterior = self._posterior(chances)
            self._maximise(posterior, chances)
            self.shares = (posterior.sum(axis=0) + 1.0) / (len(posterior) + kinds)
            if nth % WAIT_EVERY == WAIT_EVERY - 1:
                self._learn_waiting(posterior)

    def _chances(self) -> Array:
        """What each person's sends were worth if they were of each kind, shape (people, kinds)."""
        values = self.attention @ self.waiting().spread().T
        chances: Array = np.maximum(_times(self._history.sent, values.T) / EVENT_STEPS, SMALLEST)
        return chances

    def _posterior(self, chances: Array) -> Array:
        """How likely each person is of each kind, cut to whole 2^-16ths."""
        evidence = _times(self._counted, np.log(self.attention).T) / EVENT_STEPS
        evidence += np.log(self.shares) - self._answers[:, None] * np.log(chances)
        chance = np.exp(evidence - evidence.max(axis=1, keepdims=True))
        return np.asarray(np.rint(chance / chance.sum(axis=1, keepdims=True) * POSTERIOR_STEPS) / POSTERIOR_STEPS)

    def _maximise(self, posterior: Array, chances: Array) -> None:
        """Attention as events per hour of opportunity."""
        counted = _times(posterior.T * POSTERIOR_STEPS, self._counted) / (POSTERIOR_STEPS * EVENT_STEPS)
        rates = posterior * self._answers[:, None] / chances
        step = max(float(rates.max(initial=0.0)), SMALLEST) / RATIO_STEPS
        waited = _times(np.rint(rates.T / step), self._history.sent) * (step / EVENT_STEPS)
        visits = (posterior * self._visits[:, None]).sum(axis=0)
        expected = waited @ self.waiting().spread() + visits[:, None] / HOURS_OF_WEEK
        self.attention = _smoothed(counted, expected)

    def _seeds(self, kinds: int) -> Weeks:
        """Weeks of a few people each, drawn by how active they are."""
        total = np.minimum(self._counted.sum(axis=1) / EVENT_STEPS, SEED_EVENTS)
        count = min(kinds * SEED_PEOPLE, len(total))
        drawn = np.random.default_rng(0).choice(len(total), count, replace=False, p=total / total.sum())
        pool = self.attention[0]
        rates = self._answers / self._chances()[:, 0]
        waits = self.waiting().spread()
        weeks = []
        for nth in range(kinds):
            some = drawn[nth::kinds]
            mail = (self._history.sent[some] * rates[some, None]).sum(axis=0) / EVENT_STEPS
            expected = pool * (mail @ waits + self._visits[some].sum() / HOURS_OF_WEEK)
            counted = self._counted[some].sum(axis=0) / EVENT_STEPS
            weeks.append(pool * ((spread_hours(counted, 4) + 0.1) / (spread_hours(expected, 4) + 0.1)) ** 0.7)
        found = np.array(weeks)
        return np.asarray(found / found.mean(axis=1, keepdims=True))

    def _learn_waiting(self, posterior: Array) -> None:
        """Which of the ways of waiting the answers follow, given who is of which kind."""
        able = (self._answers > 0) & (self._history.sent.sum(axis=1) > 0)
        people = _thinned(np.flatnonzero(able), WAIT_PEOPLE)
        if not len(people):
            return
        mine = _times(posterior[people] * POSTERIOR_STEPS, self.attention) / POSTERIOR_STEPS
        sent, answered = self._history.sent[people], self._history.prompted[people] / EVENT_STEPS
        ways = [mine * _times(sent, way) / EVENT_STEPS for way in _WAYS]
        totals = [way.sum(axis=1) for way in ways]
        for _ in range(WAIT_ROUNDS):
            rate = self._answers[people] / np.maximum(_mixed(self._wait, totals), SMALLEST)
            share = answered / np.maximum(_mixed(self._wait, ways), SMALLEST)
            came = np.array([(share * way).sum() for way in ways])
            due = np.array([(rate * total).sum() for total in totals])
            wait = self._wait * came / np.maximum(due, SMALLEST)
            self._wait = wait / wait.sum()


def spread_hours(hours: Array, width: int) -> Array:
    """Smooth the clock's 24 hours, the last axis or parts of it, with a triangle of so many hours to both sides; sums stay."""
    days = hours.reshape(*hours.shape[:-1], hours.shape[-1] // 24, 24)
    reach = width - 1
    around = np.concatenate([days[..., 24 - reach :], days, days[..., :reach]], axis=-1)
    total = np.zeros(days.shape)
    for k in range(2 * width - 1):
        total += (width - abs(k - reach)) / width**2 * around[..., k : k + 24]
    return total.reshape(hours.shape)


def _thinned(people: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Every n-th, so that there are no more than ``most``."""
    return people[:: max(1, -(-len(people) // most))]


def _mixed(weights: Array, parts: list[Array]) -> Array:
    return np.asarray(sum(weight * part for weight, part in zip(weights, parts, strict=True)))


def _times(whole: Array, weights: Array) -> Array:
    """A product that is the same on every machine; ``whole`` holds whole numbers."""
    return ExactMatrix(weights, float(np.abs(whole).sum(axis=1).max(initial=1.0))).of(whole)


def _smoothed(counted: Weeks, expected: Weeks) -> Weeks:
    """Events per opportunity by hour of week, thin hours drawn towards their day times their hour of the clock."""
    kinds = len(counted)
    counts, due = counted.reshape(kinds, 7, 24), np.maximum(expected, SMALLEST).reshape(kinds, 7, 24)
    clock = np.empty((kinds, 7, 24))
    # Even of nobody something is known: an event in an hour with one chance.
    mean = ((counted.sum(axis=1) + 1.0) / (expected.sum(axis=1) + 1.0))[:, None]
    for days in (slice(0, 5), slice(5, 7)):
        seen, chance = (spread_hours(part[:, days].sum(axis=1), 2) for part in (counts, due))
        clock[:, days] = ((seen + CLOCK_PRIOR_EVENTS * mean) / (chance + CLOCK_PRIOR_EVENTS))[:, None]
    by_day = (counts.sum(axis=2) + DAY_PRIOR_EVENTS) / ((due * clock).sum(axis=2) + DAY_PRIOR_EVENTS)
    prior = clock * by_day[:, :, None]
    rate = ((counts + HOUR_PRIOR_EVENTS * prior) / (due + HOUR_PRIOR_EVENTS)).reshape(kinds, HOURS_OF_WEEK)
    return np.asarray((1 - FLOOR) * rate / rate.mean(axis=1, keepdims=True) + FLOOR)


def _lagged(by_hour: Array, background: float) -> Weeks:
    lags = np.full(HOURS_OF_WEEK, background / HOURS_OF_WEEK)
    lags[: len(by_hour)] += by_hour
    return np.asarray(lags[_LAG])


_LAG = (np.arange(HOURS_OF_WEEK)[None, :] - np.arange(HOURS_OF_WEEK)[:, None]) % HOURS_OF_WEEK
_DECAYS = np.exp(-np.arange(WAIT_HOURS) / np.array(WAIT_MEANS_HOURS)[:, None])
_DECAYS /= _DECAYS.sum(axis=1, keepdims=True)
_WAYS = [*(_lagged(decay, 0.0) for decay in _DECAYS), _lagged(np.zeros(0), 1.0)]
