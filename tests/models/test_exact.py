"""Products of whole numbers do not depend on who else is asked about."""

from __future__ import annotations

import numpy as np
import pytest

from models.exact import ExactMatrix


@pytest.mark.parametrize("largest", [1.0, 60_000.0])
def test_a_row_gives_the_same_bits_alone_and_among_others(largest: float) -> None:
    rng = np.random.default_rng(1)
    weights, rows = rng.normal(size=(168, 24)), np.rint(rng.random((500, 168)) * largest)
    exact = ExactMatrix(weights, row_total=168 * largest)
    together = exact.of(rows)
    for n in (1, 2, 7, 63):
        assert exact.of(rows[:n]).tobytes() == together[:n].tobytes()
    assert exact.of(rows[::-1]).tobytes() == together[::-1].tobytes()


def test_weights_are_cut_finely_and_units_divided_out() -> None:
    rng = np.random.default_rng(2)
    weights, rows = rng.normal(size=(24, 7)), np.rint(rng.random((50, 24)) * 2**20)
    exact = ExactMatrix(weights, row_total=24 * 2.0**20, units=2.0**20)
    np.testing.assert_allclose(exact.of(rows), rows / 2**20 @ weights, atol=1e-6)


def test_no_weights_give_nothing() -> None:
    assert not ExactMatrix(np.zeros((3, 2)), row_total=10.0).of(np.ones((4, 3))).any()
