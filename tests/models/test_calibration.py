"""Calibration: recovers what was bent, keeps the order, stays finite."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.calibration import Calibration, choose, fit_beta, fit_sigmoid, levelled, log_loss

Floats = npt.NDArray[np.float64]


def drawn(logit: Floats, seed: int) -> Floats:
    chance = np.random.default_rng(seed).random(len(logit))
    return (chance < 1 / (1 + np.exp(-logit))).astype(np.float64)


def scores(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(-1.0, 2.0, count)


slopes = st.floats(0.0, 20.0)
calibrations = st.builds(
    Calibration,
    method=st.just("beta"),
    low_slope=slopes,
    high_slope=slopes,
    intercept=st.floats(-20.0, 20.0),
    base_rate=st.floats(0.01, 0.99),
)
anything = arrays(np.float64, st.integers(1, 80), elements=st.floats(allow_nan=True, allow_infinity=True, width=64))


@given(calibration=calibrations, raw=anything)
def test_any_score_becomes_a_finite_probability_inside_0_and_1(calibration: Calibration, raw: Floats) -> None:
    probability = calibration(raw)
    assert ((probability > 0) & (probability < 1)).all()
    assert (probability[np.isnan(raw)] == calibration.base_rate).all()


@given(calibration=calibrations, raw=anything)
def test_the_order_of_scores_is_kept(calibration: Calibration, raw: Floats) -> None:
    ordered = calibration(np.sort(raw[~np.isnan(raw)]))
    assert (np.diff(ordered) >= -1e-13).all()


@given(calibration=calibrations, raw=anything)
def test_a_score_is_the_same_alone_and_in_company(calibration: Calibration, raw: Floats) -> None:
    together = calibration(raw)
    alone = np.array([calibration(raw[i : i + 1])[0] for i in range(len(raw))])
    strided = calibration(np.repeat(raw, 3)[::3])
    assert together.tobytes() == alone.tobytes() == strided.tobytes()


def test_the_same_score_is_the_same_at_every_place_of_a_long_array() -> None:
    calibration = Calibration("beta", 0.7, 1.3, -0.2, 0.1)
    for value in scores(50):
        assert len(set(calibration(np.full(1003, value)).tolist())) == 1


def test_the_identity_is_the_plain_sigmoid() -> None:
    raw = scores(1000)
    np.testing.assert_allclose(Calibration()(raw), 1 / (1 + np.exp(-raw)), rtol=1e-14)


def test_a_known_sigmoid_is_recovered() -> None:
    raw = scores(40_000)
    fitted = fit_sigmoid(raw, drawn(0.6 * raw - 0.8, 1))
    assert fitted.low_slope == fitted.high_slope == pytest.approx(0.6, abs=0.03)
    assert fitted.intercept == pytest.approx(-0.8, abs=0.05)


def test_a_known_beta_map_is_recovered() -> None:
    raw = scores(60_000)
    truth = Calibration("beta", 0.5, 1.6, 0.3)(raw)
    fitted = fit_beta(raw, drawn(np.log(truth / (1 - truth)), 2))
    assert (fitted.low_slope, fitted.high_slope) == pytest.approx((0.5, 1.6), abs=0.06)
    assert np.abs(fitted(raw) - truth).mean() < 0.005


def test_the_fit_is_the_minimum_of_the_smoothed_loss() -> None:
    raw = scores(500)
    label = drawn(raw, 3)
    positives = label.sum()
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (500 - positives + 2))

    def loss(slope: float, intercept: float) -> float:
        logit = slope * raw + intercept
        return float(np.sum(np.logaddexp(0, logit) - target * logit))

    fitted = fit_sigmoid(raw, label)
    best = loss(fitted.low_slope, fitted.intercept)
    for slope, intercept in [(1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)]:
        assert loss(fitted.low_slope + slope, fitted.intercept + intercept) > best


@pytest.mark.parametrize("fit", [fit_sigmoid, fit_beta])
def test_scores_that_point_the_wrong_way_are_flattened_not_reversed(fit: object) -> None:
    raw = scores(5000)
    fitted = fit_beta(raw, drawn(-raw, 4)) if fit is fit_beta else fit_sigmoid(raw, drawn(-raw, 4))
    assert min(fitted.low_slope, fitted.high_slope) >= 0
    assert (np.diff(fitted(np.sort(raw))) >= 0).all()


@pytest.mark.parametrize("label", [np.zeros(20), np.ones(20), np.arange(20) >= 10])
@pytest.mark.parametrize("raw", [np.zeros(20), np.linspace(-3, 3, 20), np.full(20, 400.0)])
def test_hopeless_slices_still_fit_to_finite_numbers(raw: Floats, label: Floats) -> None:
    for fitted in (fit_sigmoid(raw, label), fit_beta(raw, label), choose(raw, label)):
        probability = fitted(np.array([-1e9, -1.0, 0.0, 1.0, 1e9]))
        assert np.isfinite(probability).all()


def test_a_small_slice_keeps_the_booster_as_it_is() -> None:
    raw = scores(60)
    assert choose(raw, drawn(raw, 5)).method == "identity"
    assert choose(raw[:8], np.array([1.0, 0, 0, 0, 0, 0, 0, 0])).method == "identity"


def test_no_slice_at_all_is_the_identity() -> None:
    assert choose(np.empty(0), np.empty(0)) == Calibration()


def test_scores_that_are_right_already_are_left_alone() -> None:
    raw = scores(20_000)
    kept = choose(raw, drawn(raw, 6))
    assert np.abs(kept(raw) - Calibration()(raw)).max() < 0.02


def test_each_bend_is_mended_by_the_simplest_map_that_can() -> None:
    raw = scores(20_000)
    assert choose(raw, drawn(0.5 * raw - 1, 7)).method == "sigmoid"
    bent = Calibration("beta", 0.3, 2.0, 0.5)(raw)
    assert choose(raw, drawn(np.log(bent / (1 - bent)), 8)).method == "beta"


def test_repeating_every_subscriber_does_not_make_the_evidence_stronger() -> None:
    """400 people seen 50 times each are 400 observations: a slight bend must not look certain."""
    raw, label = scores(400), drawn(scores(400), 9)
    people = np.repeat(np.arange(400), 50)
    alone = choose(raw, label)
    repeated = choose(np.repeat(raw, 50), np.repeat(label, 50), groups=people)
    assert repeated.method == alone.method == "identity"


def test_choosing_twice_gives_the_same_numbers() -> None:
    raw = scores(3000)
    label = drawn(0.5 * raw, 10)
    groups = np.array([f"s{n % 700}" for n in range(3000)])
    assert choose(raw, label, groups) == choose(raw, label, groups)


@settings(max_examples=50)
@given(calibration=calibrations)
def test_json_keeps_every_bit(calibration: Calibration) -> None:
    assert Calibration.from_json(orjson.loads(orjson.dumps(calibration.to_json()))) == calibration


@pytest.mark.parametrize(
    "changed",
    [{"method": "magic"}, {"low_slope": -1.0}, {"intercept": float("nan")}, {"base_rate": "much"}],
)
def test_json_that_is_no_calibration_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Calibration.from_json({**Calibration().to_json(), **changed})


def test_log_loss_is_that_of_what_happened() -> None:
    np.testing.assert_allclose(log_loss(np.array([0.8, 0.8]), np.array([1, 0])), -np.log([0.8, 0.2]))


def test_a_level_follows_the_newest_rows_and_is_drawn_to_where_it_was() -> None:
    raw, label = np.zeros(4000), (np.arange(4000) % 4 == 0).astype(np.float64)
    told = levelled(Calibration(), raw, label, spread=0.2)
    assert told(np.zeros(1))[0] == pytest.approx(0.25, abs=0.01)
    assert 0.3 < levelled(Calibration(), raw[:40], label[:40], spread=0.2)(np.zeros(1))[0] < 0.5
    assert told.method == "sigmoid"
    assert (told.low_slope, told.high_slope) == (1.0, 1.0)
