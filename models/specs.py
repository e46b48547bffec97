"""Every model there is, by name.

What enters: nothing. What leaves: specs. The promise: whoever asks only what a model is loads neither Feast nor MLflow for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from models import churn, lead_score, send_time
from models.spec import ModelSpec

SPECS: Mapping[str, ModelSpec] = {spec.name: spec for spec in (churn.SPEC, lead_score.SPEC, send_time.SPEC)}
