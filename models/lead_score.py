"""Lead score: who will convert.

Label: of those who have not converted, who will within the horizon. What leaves: a calibrated probability, a score 0–100
(where the lead stands among those the model was judged on) and a grade A–E with fixed cut-offs on the score.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from models.ranking import percentile
from models.spec import BOOSTING, ModelSpec

SPEC = ModelSpec(
    name="lead_score",
    question="Who will convert?",
    positive="converts",
    outcome="converted",
    horizon=timedelta(days=30),
    as_of_policy="both",
    baseline="hours_since_last_engagement",
    memory=timedelta(days=120),
    walks=True,
    # Few rows, many categories: small trees that tell one category from the rest. X Education, three cuts: .867 -> .873.
    parameters=BOOSTING | {"num_leaves": 8, "min_data_in_leaf": 20, "max_cat_to_onehot": 100},
)

GRADES = ("E", "D", "C", "B", "A")
GRADE_CUTS = (20, 40, 70, 90)
"""Scores from which a lead has grade D, C, B and A: the best tenth gets an A."""


def answer(
    probability: npt.NDArray[np.float64], quantiles: npt.ArrayLike, known: npt.NDArray[np.bool_] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Columns ``probability``, ``score`` (0–100), ``grade`` (A best) and ``percentile``, the score again; strangers: 50, C."""
    score = percentile(probability, quantiles, known)
    return {"probability": probability, "score": score, "grade": grade(score), "percentile": score}


def grade(score: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """
    >>> import numpy as np
    >>> grade(np.array([5, 81, 90])).tolist()
    ['E', 'B', 'A']
    """
    return np.asarray(GRADES)[np.searchsorted(GRADE_CUTS, score, side="right")]
