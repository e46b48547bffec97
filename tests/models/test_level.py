"""One way from features to log-odds, and to what each feature adds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from features.catalogue import Catalogue
from features.derive import feature_names
from models.boosting import Booster, train
from models.habits import Habits
from models.level import Level
from models.linear import fit_linear

NAMES = feature_names(Catalogue())
HABITS = Habits(NAMES, "mails", 60.0)


def people(count: int = 600) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(4)
    matrix = np.zeros((count, len(NAMES)))
    for name, values in {
        "sent_count": rng.integers(5, 30, count),
        "sent_decayed_30d": rng.gamma(4, 1, count),
        "sent_decayed_90d": 6 + rng.gamma(4, 1, count),
        "open_count": rng.integers(0, 5, count),
        "open_decayed_90d": rng.gamma(1, 1, count),
        "tenure_days": rng.uniform(100, 400, count),
        "hours_since_last_sent": rng.uniform(1, 4000, count),
        "hours_since_last_engagement": rng.uniform(1, 4000, count),
        "purchase_count": rng.poisson(1, count),
    }.items():
        matrix[:, NAMES.index(name)] = values
    return matrix


@pytest.fixture(scope="module")
def level() -> Level:
    matrix = people()
    inputs = Level(HABITS, _untrained(), None).inputs(matrix)
    rng = np.random.default_rng(5)
    label = (rng.random(len(matrix)) < 1 / (1 + np.exp(inputs[:, len(NAMES)] + 1))).astype(np.float64)
    reads = (*NAMES, *HABITS.speaks_for)
    booster = train(inputs, label, features=reads, categorical=[], parameters={"num_leaves": 4}, rounds=10).booster
    even, nothing = np.ones(len(label)), np.zeros(len(label))
    return Level(HABITS, booster, fit_linear(inputs, label, codes=[], weight=even, offset=nothing, share=0.25))


def _untrained() -> Booster:
    return train(np.zeros((2, 1)), np.array([0, 1]), features=["a"], categorical=[], parameters={}, rounds=1).booster


def test_line_and_trees_are_averaged_by_their_shares(level: Level) -> None:
    matrix, line = people(), level.line
    assert line is not None
    inputs = level.inputs(matrix)
    np.testing.assert_allclose(
        level.raw(matrix), 0.75 * level.booster.raw(inputs) + 0.25 * line.raw(inputs), rtol=1e-15
    )
    assert level.booster.features == level.reads


def test_without_a_line_the_trees_are_all(level: Level) -> None:
    matrix = people()
    assert Level(HABITS, level.booster).raw(matrix).tolist() == level.booster.raw(level.inputs(matrix)).tolist()


def test_contributions_add_up_and_belong_to_features(level: Level) -> None:
    matrix = people(50)
    parts = level.contributions(matrix)
    assert parts.shape == (50, len(NAMES) + 1)
    np.testing.assert_allclose(parts.sum(axis=1), level.raw(matrix), atol=1e-9)
    # What the open odds add is said of the open rate, which nobody fitted anything to.
    assert np.abs(parts[:, NAMES.index("open_rate_90d")]).max() > 0


def test_a_row_is_the_same_alone_and_among_others(level: Level) -> None:
    matrix = people(100)
    alone = np.concatenate([level.raw(matrix[i : i + 1]) for i in range(100)])
    assert alone.tobytes() == level.raw(matrix).tobytes()
