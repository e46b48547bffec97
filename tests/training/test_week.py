"""Hours of the week: mail of one campaign is alike, and only hours that really differ are named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from training.evaluation import wilson
from training.week import LEAST_SENDS, correlation, week

HOURS = np.arange(24)


def campaigns(
    draw: np.random.Generator, spread: float, rate: float = 0.2, each: int = 5, sends: int = 200, special: float = 0.0
) -> pa.Table:
    """``each`` campaigns at every hour of Monday, whose rates vary by ``spread``; hour 9 lies ``special`` higher."""
    hour = np.repeat(HOURS, each)
    truth = np.clip(rate + special * (hour == 9) + spread * draw.normal(size=len(hour)), 0.001, 0.999)
    return pa.table(
        {
            "hour_of_week": hour,
            "campaign": [f"c{i}" for i in range(len(hour))],
            "sends": np.full(len(hour), sends),
            "answers": draw.binomial(sends, truth),
        }
    )


def covered(spread: float) -> tuple[float, float]:
    """How often the intervals hold the truth, and how often those would that take sends as independent."""
    ours, simple = [], []
    for seed in range(60):
        found = week(campaigns(np.random.default_rng(seed), spread))
        assert found is not None
        plain = [wilson(rate, sends) for rate, sends in zip(found.rate[:24], found.sends[:24], strict=True)]
        ours += [low <= 0.2 <= high for low, high in zip(found.low[:24], found.high[:24], strict=True)]
        simple += [low <= 0.2 <= high for low, high in plain]
    return float(np.mean(ours)), float(np.mean(simple))


def test_intervals_hold_the_truth_where_campaigns_differ_and_where_they_do_not() -> None:
    differ, simple = covered(0.06)
    assert 0.92 <= differ <= 0.98
    assert simple < 0.75
    assert 0.93 <= covered(0.0)[0] <= 0.985


def test_the_correlation_is_the_share_of_the_variance_that_lies_between_campaigns() -> None:
    table = campaigns(np.random.default_rng(0), 0.06, each=60)
    found = correlation(*(table[name].to_numpy() for name in ("hour_of_week", "sends", "answers")))
    assert found == pytest.approx(0.06**2 / (0.2 * 0.8), rel=0.15)


def test_one_campaign_an_hour_cannot_be_told_from_its_hour() -> None:
    found = week(campaigns(np.random.default_rng(0), 0.06, each=1, sends=5_000, special=0.3))
    assert found is not None
    assert found.alike == 1.0
    assert (found.high - found.low)[:24].min() > 0.5
    assert not found.differs.any()


def test_by_chance_alone_hardly_ever_an_hour_is_named() -> None:
    named = [week(campaigns(np.random.default_rng(seed), 0.03)) for seed in range(60)]
    assert sum(bool(one is not None and one.differs.any()) for one in named) <= 9


def test_an_hour_that_differs_is_named_with_its_direction() -> None:
    found = week(campaigns(np.random.default_rng(1), 0.03, special=0.15))
    assert found is not None
    assert found.differs[9] == 1
    assert np.abs(found.differs).sum() <= 2


def test_hours_with_hardly_any_mail_have_no_rate() -> None:
    few = pa.table(
        {"hour_of_week": [3, 4], "campaign": ["a", "b"], "sends": [LEAST_SENDS - 1, LEAST_SENDS], "answers": [9, 0]}
    )
    found = week(few)
    assert found is not None
    assert np.isnan(found.rate[3]) and found.rate[4] == 0.0
    assert found.looked_at == 1
    assert week(few.slice(0, 1)) is None and week(few.slice(0, 0)) is None
