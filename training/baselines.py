"""What an engineer would compare a model with: the simple things, fitted on the model's own training rows.

What enters: a spec, a dataset and the positions of the rows the model may learn from. What leaves: by name, functions from
a dataset to a probability per row. The promise: a baseline reads nothing but those rows, is never certain, and one that
the list has no data for is absent rather than a constant.

One feature becomes a probability by isotonic regression, so that it is compared by log loss and calibration and not by
rank alone. Past rates are smoothed first: who opened one mail of one is not a better customer than who opened nine of
ten. BG/NBD is taken as it is, since its answer is a probability already: that no purchase follows, which is churn where
purchases are (nearly) all that counts as engagement; elsewhere it is absent (on an email list it ranked at .47). It is
fitted on each subscriber's latest state among the training rows: several states of one person would count the same
purchases again. Those rows hold active people only, so it sees few who left; on Online Retail it ranks at .708 (AUC),
fitted on everybody's state at the cutoff it would at .713.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features.contract import ENGAGEMENT_TYPES
from features.derive import Features
from features.state import MICROSECONDS_PER_DAY
from models.silence import Silence, fit_silence
from models.spec import ModelSpec
from training.dataset import Dataset
from training.evaluation import auc, log_loss
from training.splits import Positions

Floats = npt.NDArray[np.float64]
Scored = Callable[[Dataset], Floats]
"""A fitted baseline: from a dataset to a probability for each of its rows."""

PRIOR_SENDS = 5.0
"""Everybody's rate counts as much as so many sends of one's own."""
PRIOR_MONTHS = 3.0
SHOPPING_SHARE = 0.9
"""Of all engagement, purchases are at least this part where silence of purchases is churn."""
PRIOR_ROWS = 20.0
"""Everybody's rate counts as much as so many rows of one category."""
FREQUENT_SHARE = 0.01
"""A category with at least this part of the training rows has a coefficient of its own."""
LOOSENESS = (1.0, 0.1, 0.01, 0.001)
"""Inverse penalties of the logistic regression that are tried, scikit-learn's ``C``."""
NEARLY = 1.02
"""Times the best log loss: within that, the tighter regression is taken, for times to come differ more than it can know."""
MOST_ROWS = 30_000
"""Beyond so many rows the logistic regression reads every second, third ... one."""
TILT = 1e-4
"""On the log-odds, per unit of log1p: keeps the ranking along the steps of an isotonic line and changes nothing else."""
FOLDS = 5
DAYS_PER_MONTH = 30.0


@dataclass(frozen=True)
class Baseline:
    """One feature turned into a probability by a monotone line through knots; a missing value has its own rate.

    ``tilt`` is a slight slope on the log-odds in the line's direction. An isotonic line is made of steps, and ends where the
    training rows end: without it, values that the feature tells apart would tie (half of Activate Good's recency later
    on, its AUC .68 instead of .73).
    """

    knots: Floats
    heights: Floats
    missing: float
    tilt: float

    def __call__(self, values: npt.ArrayLike) -> Floats:
        """Shape (rows,) to probabilities of the same shape, within (0, 1)."""
        column = np.asarray(values, dtype=np.float64)
        known = np.isfinite(column)
        if not self.knots.size:
            return np.full(column.shape, self.missing)
        value = np.where(known, column, 0.0)
        line = logit(np.interp(value, self.knots, self.heights))
        return np.where(known, expit(line + self.tilt * _signed_log(value)), self.missing)


def fit_baselines(spec: ModelSpec, data: Dataset, rows: Positions) -> dict[str, Scored]:
    """Fit every baseline that the list has data for.

    Parameters
    ----------
    rows
        The rows of ``data`` to learn from: the model's training rows, all labelled.

    Returns
    -------
    By name: ``recency``, ``past rate`` (churn, send time: responses per send, or where nothing was sent purchases per
    month), ``best category`` (lead score: the one attribute that tells most), ``logistic regression``, ``BG/NBD P(no
    purchase in H)`` (churn).
    """
    label = data.rows.label[rows]
    columns = {name: read for name, read in _columns(spec, data, rows).items() if _tells_apart(read(data)[rows])}
    found: dict[str, Scored] = {
        name: _of_column(read, fit_baseline(read(data)[rows], label)) for name, read in columns.items()
    }
    category = _fit_best_category(data, rows, spec.excluded) if spec.name == "lead_score" else None
    if category is not None:
        found["best category"] = category
    found["logistic regression"] = _fit_regression(data, rows, spec.excluded)
    silence = _fit_purchases(data, rows) if spec.name == "churn" else None
    if silence is not None:
        found["BG/NBD P(no purchase in H)"] = partial(_no_purchase, silence, spec.horizon, float(label.mean()))
    return found


def fit_baseline(values: npt.ArrayLike, label: npt.ArrayLike, higher_is_riskier: bool | None = None) -> Baseline:
    """Fit the simplest model there is, one feature, so that it can be compared by log loss and not by rank alone.

    Isotonic regression on the rows given, which must be training rows. ``higher_is_riskier`` None lets them say which
    way the feature points. NaN and infinities are a bucket of their own. Each end of the line and the bucket hold one
    made-up row at the base rate, so no baseline is ever certain and ruined by a single surprise.
    """
    column, truth = np.asarray(values, dtype=np.float64), np.asarray(label, dtype=np.float64)
    known = np.isfinite(column)
    base_rate = (float(truth.sum()) + 1) / (truth.size + 2)
    missing = (float(truth[~known].sum()) + base_rate) / (np.count_nonzero(~known) + 1)
    if not known.any():
        return Baseline(np.empty(0), np.empty(0), missing, 0.0)
    column, truth = column[known], truth[known]
    if higher_is_riskier is None:
        higher_is_riskier = not auc(column, truth) < 0.5
    line = IsotonicRegression(increasing=higher_is_riskier).fit(
        np.append(column, [column.min(), column.max()]), np.append(truth, [base_rate, base_rate])
    )
    return Baseline(line.X_thresholds_, line.y_thresholds_, missing, TILT if higher_is_riskier else -TILT)


def fit_logistic(matrix: npt.ArrayLike, label: npt.ArrayLike) -> Callable[[npt.ArrayLike], Floats]:
    """Fit a logistic regression: what a careful analyst would have without trees.

    ``matrix`` is (rows, features), rows in order of time, NaN (or infinity) for missing. Features are put on a signed
    log1p scale, held within their training range, median-imputed with an indicator each, and standardised; the penalty
    is chosen on the latest quarter. The function returned takes a matrix with the same columns and answers
    probabilities of shape (rows,). Given one class, it answers the base rate, one row of each class added.
    """
    truth = np.asarray(label, dtype=np.float64)
    if np.unique(truth).size < 2:
        return partial(_constant, (float(truth.sum()) + 1) / (truth.size + 2))
    thin = slice(None, None, -(-truth.size // MOST_ROWS))
    scaled, truth = _signed_log(np.asarray(matrix, dtype=np.float64)[thin]), truth[thin]
    fitted = _fitted_regression(scaled, truth, _chosen_looseness(scaled, truth))
    return lambda matrix: fitted(_signed_log(np.asarray(matrix, dtype=np.float64)))


def _chosen_looseness(scaled: Floats, truth: Floats) -> float:
    """The tightest that is nearly as good as the best on the latest quarter, fitted on the rows before it."""
    cut = truth.size * 3 // 4
    if np.unique(truth[:cut]).size < 2 or cut == truth.size:
        return min(LOOSENESS)
    losses = {
        looseness: log_loss(_fitted_regression(scaled[:cut], truth[:cut], looseness)(scaled[cut:]), truth[cut:])
        for looseness in LOOSENESS
    }
    return min(looseness for looseness, loss in losses.items() if loss <= NEARLY * min(losses.values()))


def _fitted_regression(scaled: Floats, truth: Floats, looseness: float) -> Callable[[Floats], Floats]:
    low, high = np.fmin.reduce(scaled), np.fmax.reduce(scaled)
    model = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(solver="newton-cholesky", C=looseness),
    )
    model.fit(scaled, truth)
    return lambda matrix: np.asarray(model.predict_proba(np.clip(matrix, low, high))[:, 1])


def _columns(spec: ModelSpec, data: Dataset, rows: Positions) -> dict[str, Scored]:
    """The single columns that could be ranked by, by baseline."""
    found: dict[str, Scored] = {"recency": partial(_derived, "hours_since_last_engagement")}
    if spec.name == "lead_score":
        return found | {"newest first": partial(_derived, "tenure_days")}
    sent = float(data.states["sent_count"][rows].sum())
    bought = float(data.states["purchase_count"][rows].sum())
    if sent > 0:
        responses = float(_responses(spec, data)[rows].sum())
        found["past rate"] = partial(_responses_per_send, spec, responses / sent)
    elif bought > 0 and (months := float(np.nansum(_months(data)[rows]))) > 0:
        found["past rate"] = partial(_purchases_per_month, bought / months)
    return found


def _tells_apart(values: Floats) -> bool:
    return np.unique(np.nan_to_num(values, nan=-1.0)).size > 1


def _of_column(read: Scored, baseline: Baseline) -> Scored:
    return lambda data: baseline(read(data))


def _derived(name: str, data: Dataset) -> Floats:
    return data.features.column(name)


def _responses(spec: ModelSpec, data: Dataset) -> Floats:
    """Past events of the kind asked about."""
    opens, clicks = (np.asarray(data.states[f"{kind}_count"], dtype=np.float64) for kind in ("open", "click"))
    if spec.name == "churn":
        return opens + clicks
    return {"open": opens, "click": clicks, "any": np.maximum(opens, clicks)}[spec.response]


def _responses_per_send(spec: ModelSpec, everybody: float, data: Dataset) -> Floats:
    sent = np.asarray(data.states["sent_count"], dtype=np.float64)
    return (_responses(spec, data) + everybody * PRIOR_SENDS) / (sent + PRIOR_SENDS)


def _months(data: Dataset) -> Floats:
    return data.features.column("tenure_days") / DAYS_PER_MONTH


def _purchases_per_month(everybody: float, data: Dataset) -> Floats:
    bought = np.asarray(data.states["purchase_count"], dtype=np.float64)
    return (bought + everybody * PRIOR_MONTHS) / (_months(data) + PRIOR_MONTHS)


def _fit_regression(data: Dataset, rows: Positions, excluded: Sequence[str]) -> Scored:
    features = data.features
    readable = [name for name in features.names if name not in excluded]
    numeric = [name for name in readable if name not in features.categorical]
    frequent = {name: _frequent(features.column(name)[rows]) for name in features.categorical if name in readable}
    model = fit_logistic(_design(features, numeric, frequent)[rows], data.rows.label[rows])
    return lambda asked: model(_design(asked.features, numeric, frequent))


def _frequent(codes: Floats) -> list[float]:
    values, counts = np.unique(codes, return_counts=True)
    return [float(value) for value in values[counts >= FREQUENT_SHARE * len(codes)]]


def _design(features: Features, numeric: Sequence[str], frequent: Mapping[str, Sequence[float]]) -> Floats:
    """Numbers as they are, then a column of 0 and 1 for each frequent value of each category."""
    numbers = [features.column(name) for name in numeric]
    marks = [features.column(name) == value for name, values in frequent.items() for value in values]
    return np.stack([*numbers, *marks], axis=1).astype(np.float64)


def _signed_log(matrix: Floats) -> Floats:
    finite = np.where(np.isfinite(matrix), matrix, np.nan)
    return np.asarray(np.sign(finite) * np.log1p(np.abs(finite)))


def _constant(probability: float, matrix: npt.ArrayLike) -> Floats:
    return np.full(len(np.asarray(matrix)), probability)


def _fit_best_category(data: Dataset, rows: Positions, excluded: Sequence[str]) -> Scored | None:
    """The attribute whose smoothed rates surprise least on people they were not taken from."""
    label, fold = data.rows.label[rows], data.rows.people[rows] % FOLDS
    candidates = {name: data.features.column(name)[rows] for name in data.features.categorical if name not in excluded}
    losses = {name: _held_out_loss(codes, label, fold) for name, codes in candidates.items() if _tells_apart(codes)}
    if not losses:
        return None
    best = min(losses, key=lambda name: losses[name])
    rates = _category_rates(candidates[best], label)
    return lambda asked: _rate_of(rates, asked.features.column(best))


def _held_out_loss(codes: Floats, label: Floats, fold: Positions) -> float:
    held_out = np.empty(len(label))
    for aside in range(FOLDS):
        out = fold == aside
        held_out[out] = _rate_of(_category_rates(codes[~out], label[~out]), codes[out])
    return log_loss(held_out, label)


def _category_rates(codes: Floats, label: Floats) -> Floats:
    """The smoothed rate of each code, from -1 up; last, everybody's, for codes not seen."""
    everybody = (float(label.sum()) + 1) / (label.size + 2)
    places = (codes + 1).astype(np.int64)
    rows, positives = np.bincount(places), np.bincount(places, weights=label)
    return np.append((positives + everybody * PRIOR_ROWS) / (rows + PRIOR_ROWS), everybody)


def _rate_of(rates: Floats, codes: Floats) -> Floats:
    return rates[np.minimum((codes + 1).astype(np.int64), len(rates) - 1)]


def _fit_purchases(data: Dataset, rows: Positions) -> Silence | None:
    if not _only_buys(data, rows):
        return None
    people = data.rows.people[rows]
    # Rows are in order of time: the first of each person from behind is the latest.
    latest = len(rows) - 1 - np.unique(people[::-1], return_index=True)[1]
    return fit_silence(*(part[rows[latest]] for part in _purchases(data)))


def _only_buys(data: Dataset, rows: Positions) -> bool:
    """Whether nothing was ever sent and purchases are nearly all the engagement there is."""
    counts = {kind: float(data.states[f"{kind}_count"][rows].sum()) for kind in ("sent", *ENGAGEMENT_TYPES)}
    engaged = sum(counts[kind] for kind in ENGAGEMENT_TYPES)
    return counts["sent"] == 0 and 0 < SHOPPING_SHARE * engaged <= counts["purchase"]


def _purchases(data: Dataset) -> tuple[Floats, Floats, Floats]:
    """How many, days from the first to the last, days since the first; NaN without any."""
    first, last = (np.asarray(data.states[f"{which}_purchase_at"], dtype=np.float64) for which in ("first", "last"))
    count = np.asarray(data.states["purchase_count"], dtype=np.float64)
    return count, (last - first) / MICROSECONDS_PER_DAY, (data.rows.as_of - first) / MICROSECONDS_PER_DAY


def _no_purchase(silence: Silence, horizon: timedelta, without_any: float, data: Dataset) -> Floats:
    probability = silence.none_within(*_purchases(data), horizon / timedelta(days=1))
    return np.where(np.isnan(probability), without_any, probability)
