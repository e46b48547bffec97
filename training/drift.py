"""Has the world moved since? Two samples of a feature or a score, or of an outcome, held side by side.

What enters: values of then and of now, as arrays in any order. What leaves: a population stability index with a word for
it, and the change of a rate with an interval. The promise: a missing value is evidence like any other, ties never depend on
the order of rows, and nothing is called moved that chance alone would explain.

PSI is the sum over bins of (now - then) * ln(now / then), shares of each sample: below 0.1 is steady and 0.25 shifted by the
convention of credit scoring, where it comes from. The convention knows no sample size: without any drift PSI times the
harmonic size of the samples is about chi-square distributed with one degree less than bins, so of two samples of 100
half have a PSI above 0.16. ``Shift.by_chance`` is the 95 % point of that, and a PSI below it is steady whatever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri

from training.evaluation import Floats, Interval, wilson

MOVED, SHIFTED = 0.1, 0.25
MOST_CATEGORIES = 30
"""Rarer categories than these count as one."""
_PRIOR = 0.5
"""Rows added to every bin, so that an empty one is unlikely instead of impossible."""

Word = Literal["steady", "moved", "shifted"]
Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """How far a sample is from another.

    ``by_chance`` is what PSI stays below 19 times of 20 when both come from one population, rows taken as independent.
    """

    psi: float
    by_chance: float

    @property
    def word(self) -> Word:
        """``steady``, ``moved`` (from 0.1 on) or ``shifted`` (from 0.25 on)."""
        if not self.psi >= max(MOVED, self.by_chance):
            return "steady"
        return "moved" if self.psi < SHIFTED else "shifted"


@dataclass(frozen=True)
class RateChange:
    """A rate (0–1) then and now, and the difference, now less then."""

    then: float
    now: float
    difference: Interval


def psi(reference: npt.ArrayLike, current: npt.ArrayLike, bins: int = 10) -> float:
    """Population stability index of two samples of numbers; see ``shift``.

    >>> psi(range(1000), range(1000))
    0.0
    """
    return shift(reference, current, bins).psi


def shift(reference: npt.ArrayLike, current: npt.ArrayLike, bins: int = 10, reference_rows: int | None = None) -> Shift:
    """Hold two samples of numbers side by side.

    Parameters
    ----------
    reference, current
        Any lengths, any finite or infinite numbers; NaN is a bin of its own.
    bins
        Of about equal mass in the reference. A value that would fill several is one bin alone; what is left and right of
        it keeps its own.
    reference_rows
        How many rows the reference stands for, when it is not the rows but their quantiles.

    Returns
    -------
    PSI NaN when either is empty.
    """
    then, now = (np.asarray(sample, dtype=np.float64) for sample in (reference, current))
    edges = _edges(then[~np.isnan(then)], bins)
    counts = _counts(then, edges), _counts(now, edges)
    return _shift(*counts, reference_rows or then.size, now.size)


def category_shift(reference: npt.ArrayLike, current: npt.ArrayLike) -> Shift:
    """The same for values that have no order: codes or words, the missing one (NaN, None) a category like any other."""
    then, now = (_named(sample) for sample in (reference, current))
    names, codes = np.unique(np.concatenate([then, now]), return_inverse=True)
    parts = codes[: then.size], codes[then.size :]
    counts = [np.bincount(part, minlength=names.size).astype(np.float64) for part in parts]
    return _shift(*_folded(*counts), then.size, now.size)


def rate_change(then: npt.ArrayLike, now: npt.ArrayLike) -> RateChange:
    """How a 0/1 outcome changed, with the 95 % interval of two independent rates by Newcombe (1998, method 10)."""
    before, after = (np.asarray(sample, dtype=np.float64) for sample in (then, now))
    if not (before.size and after.size):
        nothing = float("nan")
        return RateChange(_mean(before), _mean(after), Interval(nothing, nothing, nothing))
    old, new = _mean(before), _mean(after)
    (old_low, old_high), (new_low, new_high) = wilson(old, before.size), wilson(new, after.size)
    down, up = np.hypot(new - new_low, old_high - old), np.hypot(new_high - new, old - old_low)
    return RateChange(old, new, Interval(new - old, new - old - float(down), new - old + float(up)))


def _edges(known: Floats, bins: int) -> Floats:
    """Upper edges of all bins but the last, ascending. A value that several edges fall on gets one just below it too."""
    if not known.size:
        return known
    cuts = np.quantile(known, np.arange(1, bins) / bins, method="inverted_cdf")
    values, times = np.unique(cuts, return_counts=True)
    # With -inf there is nothing below; its twin changes nothing.
    return np.unique(np.concatenate([values, np.nextafter(values[times > 1], -np.inf)]))


def _counts(sample: Floats, edges: Floats) -> Counts:
    """Rows per bin, the missing ones last."""
    missing = np.isnan(sample)
    bins = np.bincount(np.searchsorted(edges, sample[~missing], side="left"), minlength=edges.size + 1)
    return np.append(bins, np.count_nonzero(missing)).astype(np.float64)


def _named(sample: npt.ArrayLike) -> npt.NDArray[np.str_]:
    return np.array([str(value) for value in np.asarray(sample, dtype=object).tolist()], dtype=np.str_)


def _folded(then: Counts, now: Counts) -> tuple[Counts, Counts]:
    """The most frequent categories of both samples together, and one of all others."""
    order = np.argsort(-(then + now), kind="stable")
    kept, others = order[:MOST_CATEGORIES], order[MOST_CATEGORIES:]
    first, second = (np.append(counts[kept], counts[others].sum()) for counts in (then, now))
    return first, second


def _shift(then: Counts, now: Counts, then_rows: int, now_rows: int) -> Shift:
    if not (then_rows and now_rows):
        return Shift(float("nan"), float("nan"))
    used = (then + now) > 0
    old, new = (_shares(counts[used]) for counts in (then, now))
    value = float(((new - old) * np.log(new / old)).sum())
    degrees = int(used.sum()) - 1
    chance = float(chdtri(degrees, 0.05)) * (1 / then_rows + 1 / now_rows) if degrees else 0.0
    return Shift(value, chance)


def _shares(counts: Counts) -> Floats:
    shares: Floats = (counts + _PRIOR) / (counts + _PRIOR).sum()
    return shares


def _mean(sample: Floats) -> float:
    return float(sample.mean()) if sample.size else float("nan")
