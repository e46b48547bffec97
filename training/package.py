"""From a fitted model to the bundle serving loads.

What enters: ``Fitted`` or ``FittedHours``. What leaves: a ``Bundle``. The promise: everything a score needs is in it; nothing
else of training is.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from features.catalogue import Catalogue
from features.derive import feature_names
from models.bundle import Bundle
from models.calibration import Calibration, identity
from training.fit import Fitted
from training.hours import FittedHours

RAW_RANGE = 30.0
"""Log-odds beyond which a probability is 0 or 1 for all purposes."""


def package_fitted(fitted: Fitted, catalogue: Catalogue, version: str, created_at: datetime) -> Bundle:
    """A fitted model as a bundle.

    ``priors`` are what a stranger gets: the probability and the log-odds it comes from, everybody's and by content category.
    """
    timing = {} if fitted.timing is None else {"timing": fitted.timing.to_parameters()}
    return Bundle(
        model=fitted.spec.name,
        version=version,
        features=fitted.features,
        catalogue=catalogue,
        booster=fitted.level.booster,
        calibration=fitted.calibration,
        priors={
            **_prior(fitted.calibration, fitted.prior),
            "content": {word: _prior(fitted.calibration, mean) for word, mean in fitted.prior_by_content.items()},
        },
        parameters={
            "quantiles": fitted.quantiles,
            "horizon_days": fitted.spec.horizon.total_seconds() / 86_400,
            **timing,
        },
        created_at=created_at,
        metrics={} if fitted.judgement is None else fitted.judgement.metrics(),
        habits=fitted.level.habits,
        line=fitted.level.line,
        start=fitted.level.start,
    )


def package_hours(hours: FittedHours, catalogue: Catalogue, version: str, created_at: datetime) -> Bundle:
    """Shapes without trees: a stranger gets everybody's week."""
    nothing = np.zeros(2)
    return Bundle(
        model="send_time",
        version=version,
        features=feature_names(catalogue),
        catalogue=catalogue,
        booster=None,
        calibration=identity(nothing, nothing),
        priors={"probability": 1 / 168, "raw": 0.0, "content": {}},
        parameters={"timing": hours.timing.to_parameters()},
        created_at=created_at,
        metrics=hours.metrics(),
    )


def _prior(calibration: Calibration, probability: float) -> dict[str, float]:
    return {"probability": probability, "raw": raw_of(calibration, probability)}


def raw_of(calibration: Calibration, probability: float) -> float:
    """The log-odds that a rising calibration maps to a probability, by bisection."""
    low, high = -RAW_RANGE, RAW_RANGE
    for _ in range(60):
        middle = (low + high) / 2
        if calibration(np.array([middle]))[0] < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2
