"""What the hour of a send does to its answer, learnt from sends.

What enters: a dataset of sends. What leaves: the list's ``Timing`` and, for each row, what its hour adds to the log-odds. The
promise: shapes come from each subscriber's latest state among the training rows alone; a slope that would send people to
their worst hour is set to nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from features.state import States
from models.timing import Timing, learn_timing, shape
from training.dataset import Dataset
from training.splits import Positions

SLOPE_PRIOR = (1.0, 0.5)
"""Mean and standard deviation of the belief about the shapes' slopes before the sends are seen."""
CHUNK_ROWS = 20_000
MOST_STEPS, SMALLEST_STEP, CONVERGED = 50, 1e-6, 1e-8

Array = npt.NDArray[np.float64]


def learn_shapes(data: Dataset, rows: Positions) -> Timing:
    """Shapes from each training subscriber's latest state, slopes from the training sends."""
    timing = learn_timing(latest_states(data, rows))
    pool, person = _shapes(data, timing)
    rate = np.clip(data.features.column("open_rate_ever"), 0.005, 0.995)
    design = np.column_stack([np.ones(len(rate)), np.log(rate / (1 - rate)), pool, person])[rows]
    means, spreads = np.array([0.0, 1.0, SLOPE_PRIOR[0], SLOPE_PRIOR[0]]), np.array([9.0, 9.0, *[SLOPE_PRIOR[1]] * 2])
    slope, error = logistic_posterior(design, data.rows.label[rows], means, spreads)
    # A negative slope would send people to their worst hour: the shape is then worth nothing.
    return replace(
        timing,
        pool_weight=max(float(slope[2]), 0.0),
        person_weight=max(float(slope[3]), 0.0),
        pool_weight_error=float(error[2]),
        person_weight_error=float(error[3]),
    )


def latest_states(data: Dataset, rows: Positions) -> States:
    """The last state of each subscriber among some rows, which are in order of time."""
    people = data.rows.people[rows]
    _, from_end = np.unique(people[::-1], return_index=True)
    return data.states[rows[len(rows) - 1 - from_end]]


def logistic_posterior(design: Array, label: Array, means: Array, spreads: Array) -> tuple[Array, Array]:
    """Coefficients of a logistic regression with independent normal priors, and their standard errors (Laplace)."""
    slope, precision = means.copy(), 1 / spreads**2
    for _ in range(MOST_STEPS):
        # Sums, not matrix products: BLAS would make the last digits depend on its threads.
        chance = expit((design * slope).sum(axis=1))
        gradient = (design * (label - chance)[:, None]).sum(axis=0) - precision * (slope - means)
        weighted = design * (chance * (1 - chance))[:, None]
        hessian = np.array([(weighted * column[:, None]).sum(axis=0) for column in design.T]) + np.diag(precision)
        step = np.linalg.solve(hessian, gradient)
        # Far from the solution a whole step overshoots, and the next one further.
        size = 1.0
        loss = _loss(design, label, slope, means, precision)
        while size > SMALLEST_STEP and _loss(design, label, slope + size * step, means, precision) > loss:
            size /= 2
        slope += size * step
        if np.abs(step).max() < CONVERGED:
            break
    return slope, np.sqrt(np.diag(np.linalg.inv(hessian)))


def _loss(design: Array, label: Array, slope: Array, means: Array, precision: Array) -> float:
    """Minus the log posterior, but for a constant."""
    raw = (design * slope).sum(axis=1)
    return float((np.logaddexp(0.0, raw) - label * raw).sum() + 0.5 * (precision * (slope - means) ** 2).sum())


def offsets(data: Dataset, timing: Timing) -> Array:
    """What the hour of each send adds on the log-odds scale."""
    pool, person = _shapes(data, timing)
    return timing.pool_weight * pool + timing.person_weight * person


def _shapes(data: Dataset, timing: Timing) -> tuple[Array, Array]:
    """Pooled and personal log shape at each row's hour."""
    slot = data.rows.slot
    if slot is None:
        raise TypeError("send-time rows carry the hour of their send")
    pool, person = np.empty(len(slot)), np.empty(len(slot))
    for start in range(0, len(slot), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        hours = shape(data.states[part], timing).at(slot[part, None])
        pool[part], person[part] = hours.pool[:, 0], hours.person[:, 0]
    return pool, person
