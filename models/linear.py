"""A line through the features' logs: what behaviour adds up to, before trees say where it does not.

What enters: a matrix of features (NaN = missing, negative code = missing) and 0/1 labels. What leaves: a ``Linear`` whose
scores are log-odds. The promise: the same rows give the same bits, fitted twice or scored alone or among a million.

A quantity is read as its signed logarithm, standardised and clipped to four standard deviations; one that is not known counts
as the median plus what being unknown tells. A code counts for itself if it is frequent, else nothing. The slopes are the
likeliest under a normal prior (ridge).

Weighed, all features, mean AUC of later rows: a prior of 30, 300, 1000 and 3000 rows gives .743, .747, .747 and .748 on Online
Retail's churn (three cuts of time), 30 and 1000 give .749 and .769 on Activate Good's (five): more is safer under drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit

Array = npt.NDArray[np.float64]

RIDGE = 500.0
"""Prior precision of a slope per standard deviation, in rows' curvature."""
FURTHEST = 4.0
LEAST_ROWS, LEAST_SHARE = 30, 0.005
"""A code needs so many rows, and so much of all, to have a weight of its own; likewise being unknown."""
MOST_ROWS = 40_000
"""Of more, every so-many-th is read."""
CURVED_STEPS = 4
"""After so many steps the curvature hardly changes and is not worked out again."""
STEPS, CLOSE = 25, 1e-5
"""Newton's steps at most, and the largest change of a slope at which to stop."""
GRAIN, WEIGHT_GRAIN = 2.0**8, 2.0**10
"""See ``_curvature``."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A fitted line over the matrix columns ``quantities`` and ``codes`` (positions).

    ``unknown`` is what a missing quantity adds. A code c of the k-th code column adds ``weights[starts[k] + 1 + c]``, one
    beyond the known codes nothing. ``usual`` is the mean of what each column adds, quantities first. ``share`` (0 to 1) is
    the line's part of a model's log-odds; the trees have the rest.
    """

    share: float
    intercept: float
    quantities: tuple[int, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    slope: tuple[float, ...]
    unknown: tuple[float, ...]
    codes: tuple[int, ...]
    starts: tuple[int, ...]
    weights: tuple[float, ...]
    usual: tuple[float, ...]

    @cached_property
    def _at(self) -> _Arrays:
        """The same as arrays."""
        return _Arrays(
            quantities=np.array(self.quantities, dtype=np.int64),
            codes=np.array(self.codes, dtype=np.int64),
            starts=np.array(self.starts, dtype=np.int64),
            centre=np.array(self.centre),
            scale=np.array(self.scale),
            slope=np.array(self.slope),
            unknown=np.array(self.unknown),
            weights=np.array(self.weights),
            last=np.diff([*self.starts, len(self.weights)]) - 1,
            usual=np.array(self.usual),
        )

    def raw(self, matrix: Array) -> Array:
        """Log-odds, shape (rows,)."""
        # A row's sum over neighbours in memory takes the same steps whatever rows there are beside it.
        return np.asarray(self.parts(matrix).sum(axis=1) + self.intercept)

    def contributions(self, matrix: Array) -> Array:
        """What each column adds against its mean, shape (rows, columns of the matrix + 1); the last is the base."""
        added = np.zeros((len(matrix), matrix.shape[1] + 1))
        added[:, [*self.quantities, *self.codes]] = self.parts(matrix) - self._at.usual
        added[:, -1] = self.intercept + sum(self.usual)
        return added

    def parts(self, matrix: Array) -> Array:
        """What each column adds, quantities first, shape (rows, columns read), C-contiguous."""
        at = self._at
        standing = _inside((_logs(matrix[:, at.quantities]) - at.centre) / at.scale)
        values = np.where(np.isnan(standing), at.unknown, standing * at.slope)
        if self.codes:
            # NaN and negative codes are missing: the first weight. Beyond the last known code lies a weight of 0.
            codes = np.fmax(matrix[:, at.codes], -1.0).astype(np.int64) + 1
            values = np.concatenate([values, at.weights[at.starts + np.minimum(codes, at.last)]], axis=1)
        return np.ascontiguousarray(values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Linear:
        def numbers(name: str) -> tuple[float, ...]:
            return tuple(map(float, raw[name]))

        def places(name: str) -> tuple[int, ...]:
            return tuple(map(int, raw[name]))

        return Linear(
            share=float(raw["share"]),
            intercept=float(raw["intercept"]),
            quantities=places("quantities"),
            centre=numbers("centre"),
            scale=numbers("scale"),
            slope=numbers("slope"),
            unknown=numbers("unknown"),
            codes=places("codes"),
            starts=places("starts"),
            weights=numbers("weights"),
            usual=numbers("usual"),
        )


class _Arrays(NamedTuple):
    quantities: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    centre: Array
    scale: Array
    slope: Array
    unknown: Array
    weights: Array
    last: npt.NDArray[np.int64]
    usual: Array


def fit_linear(
    matrix: Array, label: npt.NDArray[Any], *, codes: Sequence[int], weight: Array, offset: Array, share: float = 1.0
) -> Linear:
    """The likeliest line under the prior.

    Parameters
    ----------
    matrix
        Shape (rows, columns); NaN is missing. Columns that say the same of everybody are left out.
    label
        0 or 1, shape (rows,).
    codes
        Positions of the columns that hold codes.
    weight
        Of each row, shape (rows,), not negative.
    offset
        Log-odds to which the line adds, shape (rows,). They are not part of its scores.
    """
    few = slice(None, None, -(-len(label) // MOST_ROWS))
    matrix, label, weight, offset = matrix[few], np.asarray(label[few], dtype=np.float64), weight[few], offset[few]
    quantities = [place for place in range(matrix.shape[1]) if place not in codes and _varies(matrix[:, place])]
    logs = _logs(matrix[:, quantities])
    unknown = np.isnan(logs)
    middle = np.array([np.median(column[~missing]) for column, missing in zip(logs.T, unknown.T, strict=True)])
    filled = np.where(unknown, middle, logs)
    centre, scale = filled.mean(axis=0), filled.std(axis=0)
    least = max(LEAST_ROWS, LEAST_SHARE * len(label))
    told = np.flatnonzero((unknown.sum(axis=0) >= least) & ((~unknown).sum(axis=0) >= least))
    frequent = [_frequent(matrix[:, place], least) for place in codes]
    ones = [matrix[:, [place]] == values for place, values in zip(codes, frequent, strict=True)]
    columns = [_inside((filled - centre) / scale), unknown[:, told], *ones]
    found = _likeliest(np.concatenate(columns, axis=1, dtype=np.float64), label, weight, offset)
    slope, gaps, of_codes, intercept = np.split(
        found, np.cumsum([len(quantities), len(told), found.size - len(quantities) - len(told) - 1])
    )
    missing = slope * _inside((middle - centre) / scale)
    missing[told] += gaps
    starts, weights = _table(frequent, of_codes)
    line = Linear(
        share=share,
        intercept=float(intercept[0]),
        quantities=tuple(quantities),
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        slope=tuple(slope.tolist()),
        unknown=tuple(missing.tolist()),
        codes=tuple(codes),
        starts=starts,
        weights=weights,
        usual=(),
    )
    return replace(line, usual=tuple(line.parts(matrix).mean(axis=0).tolist()))


def _logs(values: Array) -> Array:
    return np.asarray(np.copysign(np.log1p(np.abs(values)), values))


def _inside(values: Array) -> Array:
    return np.clip(values, -FURTHEST, FURTHEST)


def _varies(column: Array) -> bool:
    known = column[~np.isnan(column)]
    return len(known) >= LEAST_ROWS and bool(np.ptp(_logs(known)) > 1e-9)


def _frequent(codes: Array, least: float) -> Array:
    """Codes that are not missing and not rare."""
    values, counts = np.unique(codes[codes >= 0], return_counts=True)
    return values[counts >= least]


def _table(frequent: Sequence[Array], of_codes: Array) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Weights by code, one table after the other: missing first, then the codes, then what is beyond them."""
    starts: list[int] = []
    weights: list[float] = []
    told = 0
    for values in frequent:
        table = np.zeros(int(values.max(initial=-1)) + 3)
        table[values.astype(np.int64) + 1] = of_codes[told : told + len(values)]
        starts.append(len(weights))
        weights += table.tolist()
        told += len(values)
    return tuple(starts), tuple(weights)


def _likeliest(columns: Array, label: Array, weight: Array, offset: Array) -> Array:
    """Slopes and, last, the intercept that minimise the weighted cross entropy and the ridge, by Newton's steps."""
    design = np.concatenate([columns, np.ones((len(columns), 1))], axis=1)
    ridge = np.full(design.shape[1], RIDGE)
    ridge[-1] = 0.0
    at = np.zeros(design.shape[1])
    curvature = np.empty(0)
    for number in range(STEPS):
        probability = expit(np.einsum("ij,j->i", design, at) + offset)
        gradient = np.einsum("ij,i->j", design, weight * (probability - label)) + ridge * at
        if number < CURVED_STEPS:
            curvature = _curvature(design, weight * probability * (1 - probability)) + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        at = at - step
        if np.abs(step).max() < CLOSE:
            break
    return at


def _curvature(design: Array, weight: Array) -> Array:
    """design' diag(weight) design, about.

    A matrix product is as fast as can be but adds in an order of its own. Rounded to whole numbers whose sums stay below 2^53
    every order gives the same bits, and Newton's steps only need the curvature roughly: where they end, the gradient decides.
    """
    heaviest = max(float(weight.max()), 1e-12)
    whole = np.rint(design * GRAIN)
    weighted = np.rint(weight / heaviest * WEIGHT_GRAIN)[:, None] * whole
    return np.asarray(whole.T @ weighted) * (heaviest / (GRAIN**2 * WEIGHT_GRAIN))
