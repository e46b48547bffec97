"""Percentiles against a reference population, and the bands and grades cut from them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models import churn, lead_score
from models.ranking import percentile, reference

chances = st.lists(st.floats(0, 1), min_size=1, max_size=50)


@given(chances, chances)
def test_percentiles_lie_between_the_ends_rise_and_ignore_company(population: list[float], asked: list[float]) -> None:
    quantiles, values = reference(np.array(population)), np.sort(asked)
    found = percentile(values, quantiles)
    assert ((found >= 0) & (found <= 100)).all()
    assert (np.diff(found) >= 0).all()
    assert found.tolist() == [int(percentile(values[i : i + 1], quantiles)[0]) for i in range(len(values))]


def test_the_middle_of_a_population_is_fifty_and_ties_count_half() -> None:
    assert percentile(np.array([0.0, 0.5, 1.0]), reference(np.linspace(0, 1, 999))).tolist() == [0, 50, 100]
    assert percentile(np.array([0.3]), reference(np.full(9, 0.3))).tolist() == [50]


def test_bands_and_grades_begin_at_their_cuts() -> None:
    assert churn.answer(np.array([0.29, 0.3, 0.6]), [0.5])["band"].tolist() == ["low", "medium", "high"]
    assert lead_score.grade(np.array([0, 19, 20, 40, 70, 89, 90, 100])).tolist() == list("EEDCBBAA")
