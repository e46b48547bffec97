"""What a model is, before any data: its question, its label, its time policy, its parameters.

What enters: nothing. What leaves: frozen ``ModelSpec``s. The promise: everything that decides what a model learns, apart
from the data, is in its spec and is logged with every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Literal

AsOfPolicy = Literal["grid", "creation", "both", "sent"]
Response = Literal["any", "open", "click"]


@dataclass(frozen=True)
class ModelSpec:
    """One model's definition.

    ``horizon`` is the label's H, ``activity_window`` churn's A. ``as_of_policy``: ``grid`` asks about everybody at regular
    instants, ``creation`` once about each subscriber when created, ``both`` does both, ``sent`` once per send.
    """

    name: str
    question: str
    positive: str
    """What label 1 means, in words that can follow "how likely it is that a subscriber"."""
    outcome: str
    """The same in the past tense: "19 % churned"."""
    horizon: timedelta
    as_of_policy: AsOfPolicy
    baseline: str
    """The simplest thing that could work: one derived feature, ranked."""
    activity_window: timedelta = timedelta(days=90)
    response: Response = "any"
    excluded: tuple[str, ...] = ()
    """Derived features this model must not read."""
    memory: timedelta | None = None
    """A row learnt from counts half as much for every so long that it is older than the newest; None: all count alike."""
    habits: bool = False
    """Whether what tells who comes back is read besides the features, see ``models.habits``."""
    walks: bool = False
    """Whether memory and the level of the probabilities are chosen by walking forward over the newest rows."""
    line_share: float = 0.0
    """The part (0 to 1) of a straight line in the log-odds; trees have the rest."""
    rounds: int = 600
    patience: int = 40
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def described(self) -> dict[str, str]:
        """Flat words for a run's parameters."""
        return {name: str(value) for name, value in asdict(self).items()}


BOOSTING = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 60,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 127,
    "min_data_per_group": 50,
    "cat_smooth": 20.0,
    "seed": 20250106,
}
"""Shared defaults: shallow and well regularised, because lists are small and histories short."""
