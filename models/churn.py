"""Churn: who is slipping away.

Label: of those who engaged in the last ``activity_window`` and did not opt out, who will not engage at all within the
horizon, or will opt out. Engagement is by people: a machine's opens keep nobody alive. What leaves: a calibrated
probability, a band with fixed cut-offs and a percentile.

Weighed on later rows of Activate Good (five cuts of time) and Online Retail (three), mean AUC: memory of 150, 90, 60 and 40
days .777/.747, .778/.748, .779/.749 and .780/.750, the last at the price of forgetting half a year's seasons; a line's share
of .35, .5 and .7 .777/.748, .778/.748 and .778/.746; trees of 8 and 4 leaves alike; .3 of the features for each tree +.001.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from models.ranking import percentile
from models.spec import BOOSTING, ModelSpec

SPEC = ModelSpec(
    name="churn",
    question="Who is slipping away?",
    positive="stops engaging or opts out",
    outcome="churned",
    horizon=timedelta(days=60),
    activity_window=timedelta(days=90),
    as_of_policy="grid",
    baseline="hours_since_last_engagement",
    habits=True,
    memory=timedelta(days=60),
    line_share=0.5,
    rounds=100,
    parameters=BOOSTING | {"num_leaves": 8, "feature_fraction": 0.3},
)

BANDS = ("low", "medium", "high")
BAND_CUTS = (0.30, 0.60)
"""Probabilities from which a subscriber is in the medium and the high band."""


def answer(
    probability: npt.NDArray[np.float64], quantiles: npt.ArrayLike, known: npt.NDArray[np.bool_] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Columns ``probability``, ``band``, ``percentile`` (0–100; 100 = the most endangered; 50 for a stranger)."""
    band = np.asarray(BANDS)[np.searchsorted(BAND_CUTS, probability, side="right")]
    return {"probability": probability, "band": band, "percentile": percentile(probability, quantiles, known)}
