"""From a booster's log-odds to a probability one may act on.

What enters: raw log-odds, and for fitting the labels of a slice later than the one trained on. What leaves:
probabilities strictly between 0 and 1, in the same order as the raw scores. The promise: one formula for all methods,
element by element, so that a score is the same alone and among a million, and finite whatever came in.

    logit p = high_slope * max(x, 0) + low_slope * min(x, 0)
              + (high_slope - low_slope) * log(1 + exp(-|x|)) + intercept

is beta calibration (Kull, Silva Filho and Flach 2017, "Beta calibration") of the probability whose logit is ``x``.
Equal slopes make it Platt's sigmoid, slopes 1 and intercept 0 the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[Any]
Method = Literal["identity", "sigmoid", "beta"]

LARGEST_RAW = 500.0
"""Raw scores are read within +-500: beyond it no tree ensemble says anything more, and no product overflows."""
LARGEST_LOGIT = 30.0
"""Probabilities stay within +-30 of log-odds, where float64 still tells them from 0 and 1."""

SIGMOID_NEEDS, BETA_NEEDS = 10, 200
"""How many rows of the rarer class each method needs to be tried at all."""
FOLDS = 5
_NEWTON_STEPS = 100
_RIDGE = 1e-9


@dataclass(frozen=True)
class Calibration:
    """A fitted map; call it on raw log-odds. ``base_rate`` answers for a raw score that is NaN.

    >>> import numpy as np
    >>> Calibration()(np.array([0.0, -np.inf, np.nan])).round(3).tolist()
    [0.5, 0.0, 0.5]
    """

    method: Method = "identity"
    low_slope: float = 1.0
    high_slope: float = 1.0
    intercept: float = 0.0
    base_rate: float = 0.5

    def __call__(self, raw: npt.NDArray[Any]) -> Floats:
        """Probabilities, shape of ``raw``, each in the open interval (0, 1), non-decreasing up to rounding."""
        inside = np.clip(np.ascontiguousarray(raw, dtype=np.float64), -LARGEST_RAW, LARGEST_RAW)
        bend = (self.high_slope - self.low_slope) * np.log1p(np.exp(-np.abs(inside)))
        straight = self.high_slope * np.maximum(inside, 0.0) + self.low_slope * np.minimum(inside, 0.0)
        probability = _sigmoid(np.clip(straight + bend + self.intercept, -LARGEST_LOGIT, LARGEST_LOGIT))
        return np.where(np.isnan(inside), self.base_rate, probability)

    def to_json(self) -> dict[str, str | float]:
        return asdict(self)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Calibration:
        """The inverse of ``to_json``; a KeyError or ValueError when it is something else."""
        if raw["method"] not in get_args(Method):
            raise ValueError("an unknown method of calibration")
        numbers = {name: float(raw[name]) for name in ("low_slope", "high_slope", "intercept", "base_rate")}
        if not np.isfinite(list(numbers.values())).all() or min(numbers["low_slope"], numbers["high_slope"]) < 0:
            raise ValueError("a calibration's numbers are finite and its slopes not negative")
        return Calibration(method=raw["method"], **numbers)


def identity(raw: Floats, label: Labels) -> Calibration:
    """Believe the booster: its log-odds are the answer."""
    return Calibration(base_rate=_base_rate(label))


def fit_sigmoid(raw: Floats, label: Labels) -> Calibration:
    """Platt's two parameters, fitted to his smoothed targets, the slope never negative (Platt 1999).

    Parameters
    ----------
    raw, label
        Finite log-odds (offset included) and 0/1, shape (rows,), from a slice later than the one trained on.
    """
    slopes, intercept = _fitted([raw], label)
    return Calibration("sigmoid", slopes[0], slopes[0], intercept, _base_rate(label))


def fit_beta(raw: Floats, label: Labels) -> Calibration:
    """Three parameters: the low and the high end may be stretched differently. Targets as in ``fit_sigmoid``."""
    tail = np.log1p(np.exp(-np.abs(raw)))
    slopes, intercept = _fitted([np.minimum(raw, 0.0) - tail, np.maximum(raw, 0.0) + tail], label)
    return Calibration("beta", slopes[0], slopes[1], intercept, _base_rate(label))


_METHODS: tuple[tuple[Callable[[Floats, Labels], Calibration], int], ...] = (
    (identity, 0),
    (fit_sigmoid, SIGMOID_NEEDS),
    (fit_beta, BETA_NEEDS),
)
"""From simple to flexible, each with the rows of the rarer class it needs."""


def choose(raw: Floats, label: Labels, groups: npt.NDArray[Any] | None = None) -> Calibration:
    """The simplest map that no more flexible one beats beyond doubt.

    A more flexible method is taken when its cross-validated log loss is lower by more than one standard error of the
    difference, so a small slice keeps the simple one.

    Parameters
    ----------
    raw, label
        Finite log-odds (offset included) and 0/1, shape (rows,), from a slice later than the one trained on.
    groups
        What belongs together (a subscriber, say), shape (rows,): never split between folds, and one observation when
        the doubt is reckoned. Default: every row on its own.
    """
    members = np.arange(len(raw)) if groups is None else np.unique(groups, return_inverse=True)[1]
    rarer = min(int(np.sum(label == 1)), int(np.sum(label == 0)))
    chosen, *rivals = [fit for fit, needed in _METHODS if rarer >= needed]
    losses = _held_out_losses(chosen, raw, label, members)
    for rival in rivals:
        rival_losses = _held_out_losses(rival, raw, label, members)
        if _surely_positive(losses - rival_losses, members):
            chosen, losses = rival, rival_losses
    return chosen(raw, label)


def levelled(calibration: Calibration, raw: Floats, label: Labels, spread: float) -> Calibration:
    """Move a calibration's intercept to what a newest slice says, drawn to where it was.

    Parameters
    ----------
    raw, label
        Finite log-odds (offset included) and 0/1, shape (rows,), of a slice that was foretold, not learnt from.
    spread
        Standard deviation of the belief about how far the level moves, in log-odds.
    """
    logit = np.log(calibration(raw)) - np.log1p(-calibration(raw))
    move = 0.0
    for _ in range(_NEWTON_STEPS):
        chance = _sigmoid(logit + move)
        slope = float(np.sum(label - chance)) - move / spread**2
        step = slope / (float(np.sum(chance * (1 - chance))) + 1 / spread**2)
        move += step
        if abs(step) < 1e-10:
            break
    method: Method = "sigmoid" if calibration.method == "identity" else calibration.method
    return replace(calibration, method=method, intercept=calibration.intercept + move)


def log_loss(probability: Floats, label: Labels) -> Floats:
    """Minus the log of the probability given to what happened, per row."""
    return -np.log(np.where(label == 1, probability, 1.0 - probability))


def _held_out_losses(
    fit: Callable[[Floats, Labels], Calibration], raw: Floats, label: Labels, members: npt.NDArray[Any]
) -> Floats:
    """Each row's loss under the map fitted on the other folds."""
    shuffled = np.random.default_rng(0).permutation(int(members.max(initial=0)) + 1)
    fold = shuffled[members] % FOLDS
    losses = np.empty(len(raw), dtype=np.float64)
    for held_out in range(FOLDS):
        aside = fold == held_out
        losses[aside] = log_loss(fit(raw[~aside], label[~aside])(raw[aside]), label[aside])
    return losses


def _surely_positive(differences: Floats, members: npt.NDArray[Any]) -> bool:
    """Whether the sum exceeds its standard error, groups being independent of each other."""
    per_group = np.bincount(members, weights=differences)
    if len(per_group) < 2:
        return False
    return bool(per_group.sum() > np.sqrt(len(per_group)) * per_group.std(ddof=1))


def _fitted(columns: list[Floats], label: Labels) -> tuple[list[float], float]:
    """Slopes, none negative, and intercept of the likeliest logistic curve.

    A slope that comes out negative would reverse the ranking: it is set to zero and the others are fitted again.
    """
    target = _smoothed_targets(label)
    free = list(range(len(columns)))
    while True:
        found = _newton([columns[position] for position in free], target)
        against = [position for position, slope in zip(free, found, strict=False) if slope < 0]
        if not against:
            slopes = dict(zip(free, found, strict=False))
            return [float(slopes.get(position, 0.0)) for position in range(len(columns))], float(found[-1])
        free = [position for position in free if position not in against]


def _smoothed_targets(label: Labels) -> Floats:
    """Platt's: (positives + 1) / (positives + 2) instead of 1, and 1 / (negatives + 2) instead of 0.

    With them the optimum is finite even when the classes are apart.
    """
    positives = int(np.sum(label == 1))
    return np.where(label == 1, (positives + 1) / (positives + 2), 1 / (len(label) - positives + 2))


def _newton(columns: list[Floats], target: Floats) -> Floats:
    """Coefficients of ``columns`` and, last, of a constant that minimise the cross entropy with ``target``.

    Sums are numpy's own: a matrix product would leave their order to the BLAS in use.
    """
    design = [*columns, np.ones_like(target)]
    at = np.zeros(len(design))
    loss = _cross_entropy(design, target, at)
    for _ in range(_NEWTON_STEPS):
        probability = _sigmoid(_combined(design, at))
        gradient = np.array([np.sum(column * (probability - target)) for column in design])
        weight = probability * (1.0 - probability)
        curvature = np.array([[np.sum(left * right * weight) for right in design] for left in design])
        step = np.linalg.solve(curvature + _RIDGE * np.eye(len(design)), gradient)
        at, reached = _shortened(design, target, at, step, loss)
        if loss - reached <= 1e-12 * (1.0 + abs(loss)):
            break
        loss = reached
    return at


def _shortened(design: list[Floats], target: Floats, at: Floats, step: Floats, loss: float) -> tuple[Floats, float]:
    """The first of full, half, quarter ... step that lowers the loss, or no step."""
    for halving in range(30):
        tried = at - step * 0.5**halving
        reached = _cross_entropy(design, target, tried)
        if reached < loss:
            return tried, reached
    return at, loss


def _cross_entropy(design: list[Floats], target: Floats, at: Floats) -> float:
    logit = _combined(design, at)
    return float(np.sum(np.logaddexp(0.0, logit) - target * logit))


def _combined(design: list[Floats], at: Floats) -> Floats:
    return np.asarray(sum(coefficient * column for coefficient, column in zip(at, design, strict=True)))


def _sigmoid(logit: Floats) -> Floats:
    """Without overflow: exp is only taken of what is not positive."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


def _base_rate(label: Labels) -> float:
    """Share of positives, drawn to 1/2 by one row of each class: never 0 or 1."""
    return float((np.sum(label == 1) + 1) / (len(label) + 2))
