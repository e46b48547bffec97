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
STAMPED_SHARE = 0.9
CHUNK_ROWS = 20_000
MOST_STEPS, SMALLEST_STEP, CONVERGED = 50, 1e-6, 1e-8

Array = npt.NDArray[np.float64]


def learn_shapes(data: Dataset, rows: Positions) -> Timing:
    """Shapes from each training subscriber's latest state, slopes from the training sends.

    Slopes are fitted within campaigns: that one campaign was sent at another hour and answered more says nothing of hours.
    Weighed on Activate Good, where each goes to everybody at once: a slope fitted between campaigns is 1.9 and takes the AUC
    of later opens from .886 to .854.
    """
    states = latest_states(data, rows)
    timing = learn_timing(states)
    if stamped_with_sends(states):
        return replace(timing, pool_weight=0.0, person_weight=0.0, pool_weight_error=0.0, person_weight_error=0.0)
    label, campaign = data.rows.label[rows], _campaigns(data)[rows]
    pool, person = (_within(hours[rows], campaign) for hours in _shapes(data, timing))
    rate = data.features.column("open_rate_ever")[rows]
    answered = (np.bincount(campaign, label) + 1) / (np.bincount(campaign) + 2)
    design = np.column_stack([np.ones(len(rows)), _logit(rate), _logit(answered[campaign]), pool, person])
    means = np.array([0.0, 1.0, 1.0, SLOPE_PRIOR[0], SLOPE_PRIOR[0]])
    slope, error = logistic_posterior(design, label, means, np.array([9.0, 9.0, 9.0, *[SLOPE_PRIOR[1]] * 2]))
    # A negative slope would send people to their worst hour: the shape is then worth nothing.
    return replace(
        timing,
        pool_weight=max(float(slope[3]), 0.0),
        person_weight=max(float(slope[4]), 0.0),
        pool_weight_error=float(error[3]),
        person_weight_error=float(error[4]),
    )


def stamped_with_sends(states: States) -> bool:
    """Whether answers bear the hours of the sends: then they tell when mail went out, and nothing of when people look.

    So it is where an export knows that a mail was opened but not when. Real answers come hours later, too: on a simulated list
    four in ten come in an hour of the week in which the person was ever sent something.
    """
    sent, answered = (states[name].astype(np.float64) for name in ("sent_by_hour", "response_by_hour"))
    at_sends = float((answered * (sent > 0)).sum()) / max(float(answered.sum()), 1.0)
    covered = float((answered.sum(axis=1) * (sent > 0).mean(axis=1)).sum()) / max(float(answered.sum()), 1.0)
    return at_sends > STAMPED_SHARE and covered < 1 - STAMPED_SHARE


def _campaigns(data: Dataset) -> Positions:
    campaign = data.rows.campaign
    if campaign is None:
        raise TypeError("send-time rows carry their campaign")
    return campaign


def _within(values: Array, campaign: Positions) -> Array:
    """Departures from each campaign's mean."""
    means = np.bincount(campaign, values) / np.maximum(np.bincount(campaign), 1)
    return np.asarray(values - means[campaign])


def _logit(rate: Array) -> Array:
    held = np.clip(rate, 0.005, 0.995)
    return np.asarray(np.log(held / (1 - held)))


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
