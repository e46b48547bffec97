"""A line is the likeliest one, and a row's score its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from sklearn.linear_model import LogisticRegression

from models.linear import RIDGE, Linear, _curvature, fit_linear

Array = npt.NDArray[np.float64]
CODES = [3, 5]


def rows(count: int = 3000) -> tuple[Array, Array]:
    """Two quantities that count, one missing often where it matters, a code that counts, a constant and a rare code."""
    rng = np.random.default_rng(2)
    matrix = np.column_stack(
        [
            rng.lognormal(2, 1, count),
            rng.normal(0, 5, count),
            np.where(rng.random(count) < 0.3, np.nan, rng.exponential(4, count)),
            rng.integers(-1, 4, count).astype(np.float64),
            np.ones(count),
            np.where(rng.random(count) < 0.001, 7.0, 1.0),
        ]
    )
    logit = np.log1p(matrix[:, 0]) - 2 + 1.2 * np.isnan(matrix[:, 2]) - 1.5 * (matrix[:, 3] == 2)
    return matrix, (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(np.float64)


def fitted(matrix: Array, label: Array, weight: Array | None = None) -> Linear:
    even, nothing = np.ones(len(label)), np.zeros(len(label))
    return fit_linear(matrix, label, codes=CODES, weight=even if weight is None else weight, offset=nothing)


@pytest.fixture(scope="module")
def line() -> Linear:
    return fitted(*rows())


def test_it_is_the_line_that_scikit_learn_finds(line: Linear) -> None:
    matrix, label = rows()
    logs = np.sign(matrix[:, :3]) * np.log1p(np.abs(matrix[:, :3]))
    unknown = np.isnan(logs[:, 2])
    logs[unknown, 2] = np.nanmedian(logs[:, 2])
    logs = np.clip((logs - logs.mean(axis=0)) / logs.std(axis=0), -4, 4)
    design = np.column_stack([logs, unknown, *(matrix[:, 3] == code for code in range(4)), matrix[:, 5] == 1])
    other = LogisticRegression(C=1 / RIDGE, tol=1e-10, max_iter=1000).fit(design, label)
    np.testing.assert_allclose(line.raw(matrix), other.decision_function(design), atol=1e-5)


def test_a_row_is_the_same_alone_and_among_others_and_after_a_journey(line: Linear) -> None:
    matrix, _ = rows(500)
    again = Linear.from_json(orjson.loads(orjson.dumps(line.to_json())))
    assert again == line
    alone = np.concatenate([again.raw(matrix[i : i + 1]) for i in range(500)])
    assert alone.tobytes() == line.raw(matrix).tobytes()


def test_the_same_rows_give_the_same_line(line: Linear) -> None:
    assert fitted(*rows()) == line


def test_contributions_add_up_and_are_nothing_on_average(line: Linear) -> None:
    matrix, _ = rows()
    parts = line.contributions(matrix)
    assert parts.shape == (3000, 7)
    np.testing.assert_allclose(parts.sum(axis=1), line.raw(matrix), atol=1e-12)
    np.testing.assert_allclose(parts[:, :-1].mean(axis=0), 0, atol=1e-12)
    assert not parts[:, 4].any(), "a constant explains nothing"


def test_being_unknown_tells_and_unseen_codes_tell_nothing(line: Linear) -> None:
    usual = np.array([[7.0, 0.0, 4.0, -1.0, 1.0, -1.0]])
    unknown, unseen = usual.copy(), usual.copy()
    unknown[0, 2] = np.nan
    assert line.raw(unknown) > line.raw(usual)
    for code in (-1.0, np.nan, 9.0, 1e6):
        unseen[0, 3] = code
        assert line.raw(unseen) == line.raw(usual)


def test_endless_values_leave_a_finite_score(line: Linear) -> None:
    assert np.isfinite(line.raw(np.array([[np.inf, -np.inf, np.inf, 2.0, np.inf, 1.0]]))).all()


def test_a_weight_of_two_is_a_row_twice() -> None:
    matrix, label = rows(2000)
    twice = np.r_[np.arange(1000), np.arange(2000)]
    weight = np.where(np.arange(2000) < 1000, 2.0, 1.0)
    # Centres and codes are counted by rows, the line itself by weight: close, not the same.
    first, second = fitted(matrix, label, weight).raw(matrix), fitted(matrix[twice], label[twice]).raw(matrix)
    assert np.corrcoef(first, second)[0, 1] > 0.999


def test_an_offset_is_not_part_of_the_line() -> None:
    matrix, label = rows()
    given = fit_linear(matrix, label, codes=CODES, weight=np.ones(len(label)), offset=np.log1p(matrix[:, 0]) - 2)
    without = fitted(matrix, label)
    assert abs(given.slope[0]) < 0.3 * without.slope[0]


def test_the_curvature_is_the_same_bits_in_every_order() -> None:
    rng = np.random.default_rng(5)
    design, weight = rng.normal(0, 1, (5000, 9)), rng.random(5000)
    order = rng.permutation(5000)
    assert _curvature(design[order], weight[order]).tobytes() == _curvature(design, weight).tobytes()
    np.testing.assert_allclose(_curvature(design, weight), design.T @ (weight[:, None] * design), atol=25)
