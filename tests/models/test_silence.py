"""BG/NBD: against a simulation of the process it describes, and against its own likelihood written out plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.special import roots_genlaguerre, roots_jacobi

from models.silence import Silence, _surprise, fit_silence

CDNOW = Silence(r=0.243, alpha=4.414 * 7, a=0.793, b=2.426)
"""As published by Fader, Hardie and Lee (2005), in days."""
LIVELY = Silence(r=1.2, alpha=40.0, a=0.8, b=2.0)
SEEN, ASKED = 270.0, 120.0

Array = np.ndarray[tuple[int], np.dtype[np.float64]]


def simulated(truth: Silence, people: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Count, days to the last purchase, age, and whether none followed within ``ASKED``, of people who all bought once."""
    rng = np.random.default_rng(seed)
    rate, leaves = rng.gamma(truth.r, 1 / truth.alpha, people), rng.beta(truth.a, truth.b, people)
    age = rng.uniform(SEEN / 2, SEEN, people)
    count, last, at = np.ones(people), np.zeros(people), np.zeros(people)
    there, silent = np.ones(people, dtype=bool), np.ones(people, dtype=bool)
    while there.any():
        at = at + rng.exponential(1 / rate)
        there &= at < age + ASKED
        before = there & (at < age)
        count, last = count + before, np.where(before, at, last)
        silent &= ~(there & ~before)
        there &= rng.random(people) >= leaves
    return count, last, age, silent.astype(np.float64)


@pytest.mark.parametrize("truth", [CDNOW, LIVELY])
def test_as_many_stay_silent_as_was_said_whatever_their_history(truth: Silence) -> None:
    count, last, age, silent = simulated(truth, 200_000, seed=5)
    said = truth.none_within(count, last, age, ASKED)
    recency = np.digitize((age - last) / age, [0.1, 0.4, 0.8])
    for repeats in (0, 1, 2, 3):
        for bucket in range(4):
            group = (np.minimum(count - 1, 3) == repeats) & (recency == bucket)
            if group.sum() >= 100:
                doubt = math.sqrt(float((said[group] * (1 - said[group])).sum())) / group.sum()
                assert abs(said[group].mean() - silent[group].mean()) < 4 * doubt


@pytest.mark.parametrize(("repeats", "last"), [(0, 0.0), (1, 30.0), (4, 180.0)])
def test_the_closed_form_is_the_integral_over_all_customers(repeats: int, last: float) -> None:
    scaled, of_rate = roots_genlaguerre(120, LIVELY.r - 1)
    turned, of_leaving = roots_jacobi(120, LIVELY.b - 1, LIVELY.a - 1)
    rate, leaves = scaled[:, None] / LIVELY.alpha, (1 + turned) / 2

    def likelihood(until: float) -> float:
        there = (1 - leaves) ** repeats * np.exp(-rate * until)
        gone = leaves * (1 - leaves) ** (repeats - 1) * np.exp(-rate * last) if repeats else 0.0
        return float((of_rate[:, None] * of_leaving * rate**repeats * (there + gone)).sum())

    expected = likelihood(200 + ASKED) / likelihood(200)
    assert LIVELY.none_within(repeats + 1, last, 200, ASKED) == pytest.approx(expected, rel=1e-6)


def test_what_was_simulated_is_found_again() -> None:
    count, last, age, _ = simulated(LIVELY, 40_000, seed=6)
    found = fit_silence(count, last, age)
    assert found is not None
    assert found.r == pytest.approx(LIVELY.r, rel=0.1)
    assert found.alpha == pytest.approx(LIVELY.alpha, rel=0.1)
    assert found.a / (found.a + found.b) == pytest.approx(LIVELY.a / (LIVELY.a + LIVELY.b), rel=0.1)
    assert fit_silence(count, last, age) == found


def test_the_slope_is_that_of_the_likelihood() -> None:
    count, last, age, _ = simulated(LIVELY, 500, seed=7)
    history = np.maximum(count - 1, 0), last / SEEN, age / SEEN
    for logs in (np.zeros(4), np.array([0.5, -1.0, 0.3, 1.2])):
        assert check_grad(lambda at: _surprise(at, *history)[0], lambda at: _surprise(at, *history)[1], logs) < 1e-5


@settings(max_examples=50, deadline=None)
@given(
    count=st.floats(1, 500),
    last=st.floats(0, 3_000),
    since=st.floats(0, 3_000),
    horizon=st.floats(0, 1_000),
    fitted=st.sampled_from([CDNOW, LIVELY, Silence(1e3, 1e4, 1e-3, 1e3)]),
)
def test_silence_is_a_probability_that_falls_with_the_horizon(
    count: float, last: float, since: float, horizon: float, fitted: Silence
) -> None:
    near, far = (float(fitted.none_within(count, last, last + since, days)) for days in (horizon, horizon + 10))
    assert 0 <= far <= near <= 1
    assert float(fitted.none_within(count, last, last + since, 0)) == 1


def test_a_row_alone_is_answered_bit_for_bit_as_among_many() -> None:
    count, last, age, _ = simulated(LIVELY, 1_000, seed=8)
    together = LIVELY.none_within(count, last, age, ASKED)
    alone = [LIVELY.none_within(count[i : i + 1], last[i : i + 1], age[i : i + 1], ASKED)[0] for i in range(1_000)]
    assert np.array_equal(together, alone)


def test_without_a_purchase_there_is_no_answer_and_without_a_second_one_no_model() -> None:
    nothing = [np.nan, 0.0, np.nan], [np.nan, np.nan, 3.0], [np.nan, np.nan, 5.0]
    assert np.isnan(CDNOW.none_within(*nothing, 90)).all()
    assert fit_silence(*nothing) is None
    assert fit_silence([1, 1], [0, 0], [50, 80]) is None


def test_purchases_of_one_moment_count_as_one() -> None:
    assert CDNOW.none_within(3, 0, 90, 30) == CDNOW.none_within(1, 0, 90, 30)
