"""How often a list answers at each hour of the week, and how sure that is.

What enters: sends and answers by hour of week and campaign, see ``labels.sends_by_hour``. What leaves: a rate with its interval
for each of the 168 hours, and which hours really differ from the average. The promise: mail of one campaign is not counted as
so many independent tries, and of 168 hours looked at none is named only because there were so many to look at.

Mail of one campaign shares its subject, its offer and its day. How alike its answers are is the intraclass correlation of
campaigns within hours, estimated by analysis of variance over all hours together: single hours hold too few campaigns for an
estimate of their own. An hour then tells as much as n / (1 + (m - 1) * correlation) independent sends (Kish's design effect, m
the size of its campaigns weighted by size), and its interval is Wilson's for so many. Over 60 simulated weeks whose campaigns
differ, 92 to 98 % of these intervals held the truth, fewer than 75 % of those that take sends as independent. Where no hour has
two campaigns nothing tells an hour from its campaign, and each campaign counts as one send. Weighed: a bootstrap over
campaigns, which gives an hour with one campaign no interval, and one with two a far too narrow one.

An hour differs when a test against the average of all sends says so with the effective sizes, false discoveries held to 5 %
(Benjamini and Hochberg). What was sent at an hour, and to whom, may still be the reason: nobody dealt the hours out by lot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import erfc

from features.contract import HOURS_OF_WEEK
from training.evaluation import Floats, wilson

LEAST_SENDS = 30
"""Of fewer an hour has no rate."""
FALSE_DISCOVERIES = 0.05

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Week:
    """Answers by local hour of week. Every array has shape (168,), 0 = Monday 00:00; rates are NaN below ``LEAST_SENDS``."""

    sends: Counts
    answers: Counts
    campaigns: Counts
    rate: Floats
    low: Floats
    high: Floats
    """95 % interval of ``rate``."""
    differs: npt.NDArray[np.int64]
    """1 where more is answered than on average, -1 where less, 0 where chance may explain it."""
    average: float
    alike: float
    """Intraclass correlation of campaigns, 0–1."""

    @property
    def looked_at(self) -> int:
        """Hours with a rate."""
        return int(np.isfinite(self.rate).sum())


def week(counted: pa.Table) -> Week | None:
    """Rates by hour; None where no hour has enough sends.

    Parameters
    ----------
    counted
        Columns ``hour_of_week``, ``campaign``, ``sends``, ``answers``; one row per hour and campaign.
    """
    hour, sends, answers = (counted[name].to_numpy().astype(np.int64) for name in ("hour_of_week", "sends", "answers"))
    by_hour = _sums(hour, sends), _sums(hour, answers)
    known = by_hour[0] >= LEAST_SENDS
    if not known.any():
        return None
    alike = correlation(hour, sends, answers)
    worth = _worth(hour, sends, alike)
    rate = np.where(known, by_hour[1] / np.maximum(by_hour[0], 1), np.nan)
    ends = np.array(
        [wilson(*one) if np.isfinite(one[0]) else (np.nan, np.nan) for one in zip(rate, worth, strict=True)]
    )
    average = float(answers.sum() / sends.sum())
    return Week(
        sends=by_hour[0].astype(np.int64),
        answers=by_hour[1].astype(np.int64),
        campaigns=_sums(hour, np.ones(len(hour))).astype(np.int64),
        rate=rate,
        low=ends[:, 0],
        high=ends[:, 1],
        differs=_differs(rate, worth, average),
        average=average,
        alike=alike,
    )


def correlation(hour: Counts, sends: Counts, answers: Counts) -> float:
    """How alike the answers of one campaign are within an hour, 0–1; 1 where nothing tells."""
    count, campaigns = _sums(hour, sends), _sums(hour, np.ones(len(hour)))
    between_degrees, within_degrees = float((campaigns - 1).clip(0).sum()), float((sends - 1).sum())
    if not between_degrees or not within_degrees:
        return 1.0
    rate, of_hour = answers / sends, (_sums(hour, answers) / np.maximum(count, 1))[hour]
    between = float((sends * (rate - of_hour) ** 2).sum()) / between_degrees
    within = float((sends * rate * (1 - rate)).sum()) / within_degrees
    size = float((count - _sums(hour, sends**2) / np.maximum(count, 1)).sum()) / between_degrees
    whole = between + (size - 1) * within
    return float(np.clip((between - within) / whole, 0.0, 1.0)) if whole > 0 else 0.0


def _worth(hour: Counts, sends: Counts, alike: float) -> Floats:
    """So many independent sends tell as much as an hour's."""
    count = _sums(hour, sends)
    size = _sums(hour, sends**2) / np.maximum(count, 1)
    return np.asarray(count / (1 + (np.maximum(size, 1) - 1) * alike), dtype=np.float64)


def _differs(rate: Floats, worth: Floats, average: float) -> npt.NDArray[np.int64]:
    known = np.flatnonzero(np.isfinite(rate))
    found = np.zeros(HOURS_OF_WEEK, dtype=np.int64)
    if not 0 < average < 1:
        return found
    distance = (rate[known] - average) / np.sqrt(average * (1 - average) / worth[known])
    chance = np.asarray(erfc(np.abs(distance) / np.sqrt(2)), dtype=np.float64)
    order = np.argsort(chance, kind="stable")
    passed = np.flatnonzero(chance[order] <= FALSE_DISCOVERIES * np.arange(1, len(known) + 1) / len(known))
    named = order[: passed[-1] + 1] if len(passed) else order[:0]
    found[known[named]] = np.sign(distance[named]).astype(np.int64)
    return found


def _sums(hour: Counts, values: npt.NDArray[np.int64] | Floats) -> Floats:
    return np.asarray(np.bincount(hour, values, HOURS_OF_WEEK), dtype=np.float64)
