"""Cuts by time: no label of development reaches into the test."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from features.errors import NoMatureLabels
from features.state import MICROSECONDS_PER_DAY
from training.splits import Split, split


def cut(days: list[int], horizon_days: int, with_test: bool = True) -> tuple[Split, npt.NDArray[np.float64]]:
    as_of = np.sort(np.array(days, dtype=np.float64)) * MICROSECONDS_PER_DAY
    who = pa.array([f"s{i % 7}" for i in range(len(days))])
    return split("churn", as_of, timedelta(days=horizon_days), who, with_test), as_of


@given(st.lists(st.integers(0, 200), min_size=8, max_size=120), st.integers(1, 90), st.booleans())
def test_no_label_of_development_matures_after_the_first_test_instant(days: list[int], h: int, judged: bool) -> None:
    try:
        found, as_of = cut(days, h, judged)
    except NoMatureLabels:
        assume(False)
    parts = [set(part.tolist()) for part in (found.train, found.validation, found.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert bool(len(found.test)) == judged
    span, development = h * MICROSECONDS_PER_DAY, found.development
    assert {*found.train, *found.validation} <= set(development.tolist())
    if judged:
        assert (as_of[development] + span <= as_of[found.test].min()).all()
    if found.by_people:
        assert not {i % 7 for i in found.train} & {i % 7 for i in found.validation}
    elif len(found.validation):
        assert as_of[found.train].max() + span <= as_of[found.validation].min()


def test_a_short_history_is_validated_on_other_people() -> None:
    assert cut(list(range(40)) * 5, 15)[0].by_people
    assert not cut(list(range(400)), 15)[0].by_people


def test_a_history_shorter_than_the_horizon_is_refused() -> None:
    with pytest.raises(NoMatureLabels, match="60 days"):
        cut(list(range(30)), 60)
