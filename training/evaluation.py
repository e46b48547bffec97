"""How good are scores? Numbers with intervals, and tables for people.

What enters: a probability, a 0/1 label and a subscriber per row, as arrays of one length and in any order. What
leaves: an ``Evaluation`` of one set of scores or a ``Comparison`` of two on the same rows. The promise: judging never
raises on poor data (a number that does not exist is NaN), ties are settled the same way whatever the order of rows, and
the same input and seed give the same intervals.

Intervals are 95 % percentile intervals of a cluster bootstrap: whole subscribers are drawn with replacement, because
the rows of one person resemble each other and counting them as independent would flatter every interval. Scores are
sorted once and each resample only reweights them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import orjson

Floats = npt.NDArray[np.float64]

CALIBRATION_BINS = 10
BAND_WIDTH = 10
"""Of the bands of a score, the last of which holds 100 too."""
DECILES = np.arange(1, 11) / 10
_WILSON_Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: two-sided 95 %."""
_SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)
"""Log loss clips to this, as scikit-learn does: a certain and wrong score costs 36 nats, not infinity."""


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval; ``low`` and ``high`` are NaN where there is nothing to resample."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of about equal scores: what was promised and what happened.

    ``low`` and ``high`` are Wilson's 95 % interval of ``observed``, rows taken as independent.
    """

    predicted: float
    observed: float
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Decile:
    """A tenth of the rows, ``decile`` 1 being the highest scored.

    Rows tied across a border are shared out in proportion, so ``rows`` and ``positives`` may be fractions. ``capture``
    is cumulative: the part of all positives found in this decile and those above it.
    """

    decile: int
    rows: float
    positives: float
    predicted: float
    observed: float
    lift: float
    capture: Interval


@dataclass(frozen=True)
class Band:
    """Rows whose score lies from ``low`` to ``high``, both included: how many there were, and how often it happened."""

    low: int
    high: int
    rows: int
    positives: int
    rate: Interval
    """NaN where there is no row."""


@dataclass(frozen=True)
class Evaluation:
    """One set of scores judged. Nest it in anything that orjson writes: NaN becomes null."""

    rows: int
    positives: int
    subscribers: int
    base_rate: float
    auc: Interval
    average_precision: Interval
    brier: Interval
    log_loss: Interval
    expected_calibration_error: Interval
    lift_top_5: Interval
    lift_top_10: Interval
    lift_quality: Interval
    calibration: tuple[CalibrationBin, ...]
    deciles: tuple[Decile, ...]

    def to_json(self) -> bytes:
        return orjson.dumps(self)

    def metrics(self, prefix: str = "test") -> dict[str, float]:
        """Flatten to names such as ``test_auc``, ``test_auc_low``, ``test_auc_high``; what is NaN is left out."""
        counts = {"rows": float(self.rows), "positives": float(self.positives), "base_rate": self.base_rate}
        return _flattened(prefix, {name: getattr(self, name) for name in METRICS}, counts)


@dataclass(frozen=True)
class Comparison:
    """How much better one set of scores is than another on the same rows: above zero is better, for every field."""

    auc_gain: Interval
    log_loss_gain: Interval

    def metrics(self, prefix: str = "test") -> dict[str, float]:
        """Flatten to names such as ``test_auc_gain``, ``test_auc_gain_low``; what is NaN is left out."""
        return _flattened(prefix, {"auc_gain": self.auc_gain, "log_loss_gain": self.log_loss_gain}, {})


@dataclass(frozen=True)
class _Ranking:
    """Rows from the highest score to the lowest: all that every resample shares.

    ``order`` leads from rows to ranks; ``ends`` are the ranks at which runs of tied scores end; ``bin_starts`` those at
    which calibration bins begin. A label is NaN where the row cannot be judged, and poisons every metric.
    """

    order: npt.NDArray[np.intp]
    probability: Floats
    label: Floats
    squared_error: Floats
    nats: Floats
    ends: npt.NDArray[np.intp]
    bin_starts: npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Curve:
    """Weight seen, and weight of positives hit, from the top down to each run of ties; both begin at 0."""

    seen: Floats
    hits: Floats


def evaluate(
    probability: Floats, label: npt.ArrayLike, groups: npt.ArrayLike | None = None, seed: int = 0, resamples: int = 200
) -> Evaluation:
    """Judge one set of scores.

    Parameters
    ----------
    probability
        Shape (rows,), 0–1. One NaN makes every metric NaN.
    label
        Shape (rows,), 0 or 1. Anything else makes every metric NaN.
    groups
        Shape (rows,), the subscriber of each row, of any sortable type; None when every row is a different one.
    seed, resamples
        Of the bootstrap. Fewer than two subscribers, or no resamples, leave the intervals NaN.

    Examples
    --------
    >>> evaluate(np.array([0.1, 0.4, 0.35, 0.8]), [0, 0, 1, 1], resamples=0).auc.value
    0.75
    """
    ranking = _ranked(probability, label)
    whole = np.ones(ranking.order.size)
    draws = [_statistics(ranking, weight[ranking.order]) for weight in _resampled(groups, whole.size, seed, resamples)]
    intervals = _intervals(_statistics(ranking, whole), draws)
    return Evaluation(
        rows=whole.size,
        positives=int(np.nansum(ranking.label)),
        subscribers=_codes(groups, whole.size)[1],
        base_rate=_ratio(float(ranking.label.sum()), whole.size),
        calibration=_calibration_table(ranking),
        deciles=_decile_table(ranking, intervals[len(METRICS) :]),
        **dict(zip(METRICS, intervals, strict=False)),
    )


def compare(
    ours: Floats,
    baseline: Floats,
    label: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 200,
) -> Comparison:
    """Judge two sets of scores on the same rows, resample by resample.

    Pairing takes out what both have in common (an easy or a hard sample), so the interval is far narrower than two
    separate ones would suggest. Arrays as for ``evaluate``.
    """
    rankings = _ranked(ours, label), _ranked(baseline, label)
    size = rankings[0].order.size
    draws = [_gains(*rankings, weight) for weight in _resampled(groups, size, seed, resamples)]
    gains = _gains(*rankings, np.ones(size))
    auc_draws, log_loss_draws = np.array(draws).reshape(-1, gains.size).T
    return Comparison(_percentile(gains[0], auc_draws), _percentile(gains[1], log_loss_draws))


def auc(score: Floats, label: npt.ArrayLike, weight: Floats | None = None) -> float:
    """Chance that a positive row scores above a negative one, ties counting half. NaN with a single class.

    The score may be any finite number, not only a probability.
    """
    ranking = _ranked(score, label)
    return _auc(_curve(ranking, _weight(ranking, weight)))


def average_precision(score: Floats, label: npt.ArrayLike, weight: Floats | None = None) -> float:
    """Precision averaged over the positives, as scikit-learn defines it. NaN without positives."""
    ranking = _ranked(score, label)
    return _average_precision(_curve(ranking, _weight(ranking, weight)))


def brier(probability: Floats, label: npt.ArrayLike, weight: Floats | None = None) -> float:
    """Mean squared error of a probability, 0 is perfect. The base rate b alone gets b * (1 - b)."""
    ranking = _ranked(probability, label)
    return _mean(ranking.squared_error, _weight(ranking, weight))


def log_loss(probability: Floats, label: npt.ArrayLike, weight: Floats | None = None) -> float:
    """Mean surprise in nats, less is better."""
    ranking = _ranked(probability, label)
    return _mean(ranking.nats, _weight(ranking, weight))


def expected_calibration_error(probability: Floats, label: npt.ArrayLike, weight: Floats | None = None) -> float:
    """Mean distance (0–1) between promised and observed over ten bins of equal mass; tied scores share a bin.

    Chance alone makes it positive: about 0.8 * sqrt(10 * rate * (1 - rate) / rows) for perfect probabilities.
    """
    ranking = _ranked(probability, label)
    return float(np.abs(_calibration_gaps(ranking, _weight(ranking, weight))).sum())


def capture_at(
    score: Floats, label: npt.ArrayLike, fraction: npt.ArrayLike = DECILES, weight: Floats | None = None
) -> Floats:
    """Part of all positives (0–1) found in the highest scored ``fraction`` (0–1) of the rows.

    Tied rows at the cut count in proportion, which is what drawing among them at random gives on average.
    """
    ranking = _ranked(score, label)
    return _capture(_curve(ranking, _weight(ranking, weight)), np.asarray(fraction, dtype=np.float64))


def lift_quality(score: Floats, label: npt.ArrayLike, weight: Floats | None = None) -> float:
    """Area between the capture curve and the diagonal over the area of a perfect ranking: 0 is chance, 1 is perfect.

    The figure that Braze shows as Prediction Quality (it calls 0.2–0.4 fair, 0.4–0.6 good, above that excellent). With
    positives' share b the area under the capture curve is b / 2 + (1 - b) * AUC, so the quotient is 2 * AUC - 1: Gini.
    """
    return 2 * auc(score, label, weight) - 1


def _ranked(score: npt.ArrayLike, label: npt.ArrayLike) -> _Ranking:
    scores, labels = np.asarray(score, dtype=np.float64), np.asarray(label, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    probability, truth = scores[order], labels[order]
    judged = np.isfinite(probability) & ((truth == 0) | (truth == 1))
    truth = np.where(judged, truth, np.nan)
    clipped = np.clip(probability, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    ends = np.flatnonzero(np.append(probability[1:] != probability[:-1], np.ones(min(1, order.size), dtype=bool)))
    return _Ranking(
        order=order,
        probability=probability,
        label=truth,
        squared_error=(probability - truth) ** 2,
        nats=-np.where(truth == 0, np.log1p(-clipped), np.log(clipped)) + 0 * truth,
        ends=ends,
        bin_starts=_bin_starts(ends),
    )


def _bin_starts(ends: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Cut ranks into bins of equal mass without splitting ties: a run belongs where its middle lies."""
    if not ends.size:
        return ends
    starts = np.append(0, ends[:-1] + 1)
    bins = (starts + ends + 1) * CALIBRATION_BINS // (2 * (ends[-1] + 1))
    return starts[np.flatnonzero(np.append(True, bins[1:] != bins[:-1]))]


def _weight(ranking: _Ranking, weight: Floats | None) -> Floats:
    return np.ones(ranking.order.size) if weight is None else np.asarray(weight, dtype=np.float64)[ranking.order]


def _curve(ranking: _Ranking, weight: Floats) -> _Curve:
    seen, hits = np.cumsum(weight), np.cumsum(weight * ranking.label)
    return _Curve(np.append(0.0, seen[ranking.ends]), np.append(0.0, hits[ranking.ends]))


def _auc(curve: _Curve) -> float:
    misses = curve.seen - curve.hits
    return _ratio(float(np.trapezoid(curve.hits, misses)), float(misses[-1] * curve.hits[-1]))


def _average_precision(curve: _Curve) -> float:
    precision = np.divide(curve.hits, curve.seen, out=np.zeros_like(curve.hits), where=curve.seen > 0)
    return _ratio(float((np.diff(curve.hits) * precision[1:]).sum()), float(curve.hits[-1]))


def _capture(curve: _Curve, fraction: Floats) -> Floats:
    found = np.interp(fraction * curve.seen[-1], curve.seen, curve.hits)
    return found / curve.hits[-1] if curve.hits[-1] > 0 else np.full_like(found, np.nan)


def _calibration_gaps(ranking: _Ranking, weight: Floats) -> Floats:
    """Promised less observed in each bin, as a part of all rows: their sizes add up to the calibration error."""
    if not weight.any():
        return np.array([np.nan])
    share = weight * (ranking.probability - ranking.label) / weight.sum()
    gaps: Floats = np.add.reduceat(share, ranking.bin_starts)
    return gaps


def _mean(values: Floats, weight: Floats) -> float:
    # Not values @ weight: BLAS splits that by the number of threads, which changes the last digits and, on a busy
    # machine, takes ten times as long.
    return _ratio(float((values * weight).sum()), float(weight.sum()))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole != 0 else float("nan")


METRICS = (
    "auc",
    "average_precision",
    "brier",
    "log_loss",
    "expected_calibration_error",
    "lift_top_5",
    "lift_top_10",
    "lift_quality",
)


def _statistics(ranking: _Ranking, weight: Floats) -> Floats:
    """Every metric in the order of ``METRICS``, then the capture at each decile, then each bin's calibration gap."""
    gaps = _calibration_gaps(ranking, weight)
    curve = _curve(ranking, weight)
    area = _auc(curve)
    top_5, *captures = _capture(curve, np.append(0.05, DECILES))
    return np.array(
        [
            area,
            _average_precision(curve),
            _mean(ranking.squared_error, weight),
            _mean(ranking.nats, weight),
            np.abs(gaps).sum(),
            top_5 / 0.05,
            captures[0] / 0.1,
            2 * area - 1,
            *captures,
            *gaps,
        ]
    )


def _gains(ours: _Ranking, baseline: _Ranking, weight: Floats) -> Floats:
    ours_auc, ours_nats = _rank_and_surprise(ours, weight[ours.order])
    baseline_auc, baseline_nats = _rank_and_surprise(baseline, weight[baseline.order])
    return np.array([ours_auc - baseline_auc, baseline_nats - ours_nats])


def _rank_and_surprise(ranking: _Ranking, weight: Floats) -> tuple[float, float]:
    return _auc(_curve(ranking, weight)), _mean(ranking.nats, weight)


def _codes(groups: npt.ArrayLike | None, rows: int) -> tuple[npt.NDArray[np.intp], int]:
    if groups is None:
        return np.arange(rows), rows
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    return codes, names.size


def _resampled(groups: npt.ArrayLike | None, rows: int, seed: int, resamples: int) -> Iterator[Floats]:
    """How often each row is drawn when whole groups are drawn with replacement, once per resample."""
    codes, count = _codes(groups, rows)
    if count < 2:
        return
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)[codes]


def _intervals(values: Floats, draws: list[Floats]) -> list[Interval]:
    """One per metric, then one per decile's capture."""
    table = np.array(draws).reshape(-1, values.size)
    gaps = len(METRICS) + DECILES.size
    intervals = [_percentile(value, column) for value, column in zip(values[:gaps], table.T[:gaps], strict=True)]
    place = METRICS.index("expected_calibration_error")
    intervals[place] = _calibration_interval(values[gaps:], table[:, gaps:])
    return intervals


def _percentile(value: float, draws: Floats) -> Interval:
    low, high = _tails(draws)
    return Interval(float(value), low, high)


def _calibration_interval(gaps: Floats, draws: Floats) -> Interval:
    """Bound an error that chance can only raise, where a percentile interval would lie above the truth.

    Low: the error can exceed the truth by no more than its noise, the sizes of the gaps' own deviations added up
    (triangle inequality), so perfect probabilities reach 0. High: the resamples reflected at the value.
    """
    value = float(np.abs(gaps).sum())
    noise = _tails(np.abs(draws - gaps).sum(axis=1))[1]
    lowest = _tails(np.abs(draws).sum(axis=1))[0]
    return Interval(value, float(np.maximum(0.0, value - noise)), float(np.maximum(value, 2 * value - lowest)))


def _tails(draws: Floats) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the resamples that have a value (one that drew a single class has no AUC)."""
    known = draws[np.isfinite(draws)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _calibration_table(ranking: _Ranking) -> tuple[CalibrationBin, ...]:
    """Bins from the lowest scores to the highest."""
    edges = np.append(ranking.bin_starts, ranking.order.size)
    spans = [slice(*edge) for edge in pairwise(edges)]
    return tuple(_calibration_bin(ranking.probability[span], ranking.label[span]) for span in reversed(spans))


def _calibration_bin(probability: Floats, label: Floats) -> CalibrationBin:
    observed, count = float(label.mean()), label.size
    low, high = wilson(observed, count)
    return CalibrationBin(float(probability.mean()), observed, count, low, high)


def score_bands(score: npt.NDArray[np.int64], label: Floats, groups: npt.ArrayLike) -> tuple[Band, ...]:
    """Rows by their score in ten bands, 0–9 to 90–100.

    Parameters
    ----------
    score
        Shape (rows,), 0–100.
    label
        Shape (rows,), 0 or 1.
    groups
        Shape (rows,), the subscriber of each row: asked about week after week, a person who converts counts several times.
    """
    place, people = np.minimum(score // BAND_WIDTH, CALIBRATION_BINS - 1), np.asarray(groups)
    inside = (place == number for number in range(CALIBRATION_BINS))
    return tuple(_band(number, label[rows], people[rows]) for number, rows in enumerate(inside))


def _band(number: int, label: Floats, people: npt.NDArray[np.int64]) -> Band:
    low, last = BAND_WIDTH * number, number == CALIBRATION_BINS - 1
    high = 100 if last else low + BAND_WIDTH - 1
    return Band(low, high, label.size, int(label.sum()), clustered_rate(label, people))


def clustered_rate(outcome: Floats, groups: npt.ArrayLike) -> Interval:
    """How often something happened, with a 95 % interval that allows for rows of one group being alike.

    Wilson's interval with as many independent rows as have this standard error; where nothing varies, with as many as there
    are groups.

    Examples
    --------
    >>> clustered_rate(np.zeros(40), np.arange(40) // 4).high == wilson(0.0, 10)[1]
    True
    """
    codes, count = _codes(groups, outcome.size)
    rate = _ratio(float(outcome.sum()), outcome.size)
    if count < 2:
        return Interval(rate, *(wilson(rate, count) if count else (float("nan"), float("nan"))))
    sums = np.bincount(codes, weights=outcome - rate)
    error = float(np.sqrt((sums * sums).sum() * count / (count - 1)) / outcome.size)
    alike = rate * (1 - rate) / error**2 if error > 0 else float(count)
    return Interval(rate, *wilson(rate, min(alike, float(outcome.size))))


def wilson(rate: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate (0–1) seen in ``count`` independent rows.

    Examples
    --------
    >>> [round(bound, 3) for bound in wilson(0.0, 10)]
    [0.0, 0.278]
    """
    square = _WILSON_Z**2
    centre = (rate + square / (2 * count)) / (1 + square / count)
    half = _WILSON_Z * (rate * (1 - rate) / count + square / (4 * count**2)) ** 0.5 / (1 + square / count)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _decile_table(ranking: _Ranking, captures: list[Interval]) -> tuple[Decile, ...]:
    rows = ranking.order.size
    if not rows:
        return ()
    each = rows / DECILES.size
    positives = np.diff([0.0, *(capture.value for capture in captures)]) * ranking.label.sum()
    promised = np.append(0.0, np.cumsum(ranking.probability))
    predicted = np.diff(np.interp(np.append(0.0, DECILES) * rows, np.arange(rows + 1), promised)) / each
    base_rate = float(ranking.label.mean())
    return tuple(
        Decile(
            decile=number + 1,
            rows=each,
            positives=float(positives[number]),
            predicted=float(predicted[number]),
            observed=float(positives[number]) / each,
            lift=_ratio(float(positives[number]) / each, base_rate),
            capture=captures[number],
        )
        for number in range(DECILES.size)
    )


def _flattened(prefix: str, intervals: dict[str, Interval], numbers: dict[str, float]) -> dict[str, float]:
    flat = dict(numbers)
    for name, interval in intervals.items():
        flat |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {f"{prefix}_{name}": float(value) for name, value in flat.items() if np.isfinite(value)}
