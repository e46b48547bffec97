"""Where a probability stands among those the model was judged on.

What enters: probabilities. What leaves: percentiles 0–100 against a reference kept in the bundle. The promise: the same
probability always gets the same percentile from the same model version, whoever else is scored with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

REFERENCE_POINTS = 1001


def reference(probability: npt.NDArray[np.float64]) -> list[float]:
    """Quantiles of the probabilities of a population, ascending."""
    return [float(q) for q in np.quantile(probability, np.linspace(0, 1, REFERENCE_POINTS))]


UNKNOWN = 50
"""Percentile of somebody about whom nothing is known: in the middle, above and below as many as not."""


def percentile(
    probability: npt.NDArray[np.float64], quantiles: npt.ArrayLike, known: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Share of the reference population that lies below, in percent, 0–100; ties count half.

    Parameters
    ----------
    known
        False for strangers. Their probability is a mean, which in a skewed population lies far above the middle: they
        get ``UNKNOWN`` instead of a place among people they may not belong to. None: everybody is known.
    """
    points = np.asarray(quantiles)
    below = np.searchsorted(points, probability, side="left")
    upto = np.searchsorted(points, probability, side="right")
    places = np.rint(100 * (below + upto) / (2 * len(points))).astype(np.int64)
    return places if known is None else np.where(known, places, UNKNOWN)
