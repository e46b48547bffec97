"""Baselines: never certain, ranked as their feature ranks, fitted on the rows they were given and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from features.derive import derive
from features.state import MICROSECONDS_PER_DAY, States, identity
from models import churn, lead_score, send_time
from models.silence import fit_silence
from models.spec import ModelSpec
from tests.features.logs import CATALOGUE
from training.baselines import Scored, fit_baseline, fit_baselines, fit_logistic
from training.dataset import Dataset, Rows, dataset
from training.evaluation import auc, expected_calibration_error, log_loss
from training.splits import Positions

PEOPLE, INSTANTS = 150, 8
BEGIN = 1.7e15
REGRESSION, BG_NBD = "logistic regression", "BG/NBD P(no purchase in H)"
Given = Callable[[States, np.random.Generator], npt.NDArray[np.float64]]
"""Fills in states and returns the chance of a positive label for each."""


def made(given: Given, seed: int = 3) -> Dataset:
    """A hundred and fifty people asked about on 8 weekly instants."""
    rng = np.random.default_rng(seed)
    as_of = BEGIN + np.repeat(np.arange(INSTANTS), PEOPLE) * 7.0 * MICROSECONDS_PER_DAY
    states = identity(CATALOGUE, len(as_of))
    states["created_at"] = np.tile(BEGIN - rng.uniform(10, 300, PEOPLE) * MICROSECONDS_PER_DAY, INSTANTS)
    label = (rng.random(len(as_of)) < given(states, rng)).astype(np.float64)
    people = pa.array([f"s{i % PEOPLE}" for i in range(len(as_of))])
    return dataset(Rows(people, as_of, as_of, label), states, CATALOGUE)


def mailed(states: States, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    rate = rng.beta(1, 3, len(states))
    states["sent_count"] = rng.integers(1, 40, len(states))
    states["open_count"] = rng.binomial(states["sent_count"].astype(int), rate)
    states["click_count"] = rng.binomial(states["open_count"].astype(int), 0.3)
    states["last_open_at"] = np.where(states["open_count"] > 0, BEGIN - 1e12 * rng.random(len(states)), np.nan)
    return 1 - rate


def shopping(states: States, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    first = np.tile(rng.uniform(5, 200, PEOPLE), INSTANTS)
    count = rng.poisson(2, len(states)) + 1.0
    states["purchase_count"] = count
    states["first_purchase_at"] = BEGIN - first * MICROSECONDS_PER_DAY
    states["last_purchase_at"] = BEGIN - first * rng.random(len(states)) * (count > 1) * MICROSECONDS_PER_DAY
    states["last_purchase_at"][count == 1] = states["first_purchase_at"][count == 1]
    return 1 / count


def applying(states: States, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    states["profile_job"] = rng.integers(-1, 3, len(states))
    states["timezone"] = rng.integers(0, 3, len(states))
    states["profile_age"] = rng.uniform(20, 60, len(states))
    return np.where(states["profile_job"] == 1, 0.8, 0.2)


def fitted(spec: ModelSpec, data: Dataset, rows: Positions | None = None) -> dict[str, Scored]:
    return fit_baselines(spec, data, np.arange(len(data.rows)) if rows is None else rows)


CASES = [
    (churn.SPEC, mailed, {"recency", "past rate", REGRESSION}),
    (churn.SPEC, shopping, {"recency", "past rate", REGRESSION, BG_NBD}),
    (lead_score.SPEC, applying, {"newest first", "best category", REGRESSION}),
    (send_time.SPEC, mailed, {"recency", "past rate", REGRESSION}),
    (send_time.SPEC, shopping, {"recency", "past rate", REGRESSION}),
]
every_case = pytest.mark.parametrize(("spec", "given", "names"), CASES)


@every_case
def test_each_model_has_the_baselines_its_list_has_data_for(spec: ModelSpec, given: Given, names: set[str]) -> None:
    learnt, later = made(given), made(given, seed=4)
    baselines = fitted(spec, learnt)
    assert set(baselines) == names
    for baseline in baselines.values():
        probability = baseline(later)
        assert probability.shape == later.rows.label.shape
        assert np.all((probability > 0) & (probability < 1))
        assert np.array_equal(probability, baseline(later))


@every_case
def test_nothing_but_the_rows_given_is_read(spec: ModelSpec, given: Given, names: set[str]) -> None:
    data = made(given)
    rows = np.arange(0, len(data.rows) * 2 // 3)
    states, label = data.states.copy(), data.rows.label.copy()
    states[rows[-1] + 1 :] = identity(CATALOGUE, 1)
    label[rows[-1] + 1 :] = np.nan
    blind = replace(data, rows=replace(data.rows, label=label), states=states)
    blind = replace(blind, features=derive(states, data.rows.as_of, CATALOGUE))
    told, untold = fitted(spec, data, rows), fitted(spec, blind, rows)
    assert set(told) == set(untold)
    assert all(np.array_equal(told[name](data), untold[name](data)) for name in told)


def test_a_list_about_which_nothing_is_known_has_a_regression_and_no_more() -> None:
    def nothing(states: States, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        states["created_at"] = np.nan
        return np.full(len(states), 0.3)

    data = made(nothing)
    for spec in (churn.SPEC, lead_score.SPEC, send_time.SPEC):
        baselines = fitted(spec, data)
        assert set(baselines) == {REGRESSION}
        assert np.allclose(baselines[REGRESSION](data), data.rows.label.mean(), atol=0.02)


def test_the_past_rate_does_not_believe_a_single_send() -> None:
    data = made(mailed)
    rate = fitted(send_time.SPEC, data)["past rate"]
    states = identity(CATALOGUE, 3)
    states["sent_count"], states["open_count"] = [1, 40, 40], [1, 36, 2]
    as_of = np.full(3, BEGIN)
    lucky, faithful, idle = rate(dataset(Rows(pa.array(list("abc")), as_of, as_of, as_of), states, CATALOGUE))
    # ``mailed`` makes those who open much the less likely to be positive.
    assert faithful < lucky < idle


def test_only_the_response_asked_about_counts_as_one() -> None:
    def clicking(states: States, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        mailed(states, rng)
        return states["click_count"] / (states["sent_count"] + 1)

    data = made(clicking)
    ranks = {
        response: auc(fitted(replace(send_time.SPEC, response=response), data)["past rate"](data), data.rows.label)
        for response in ("open", "click")
    }
    assert ranks["click"] > ranks["open"] + 0.02


def test_the_best_category_is_the_one_that_tells_and_a_category_never_seen_is_everybody() -> None:
    data = made(applying)
    baseline = fitted(lead_score.SPEC, data)["best category"]
    job, probability = data.states["profile_job"], baseline(data)
    assert {np.unique(probability[job == code]).size for code in (-1, 0, 1, 2)} == {1}
    assert probability[job == 1].mean() == pytest.approx(0.8, abs=0.05)
    assert probability[job == 2].mean() == pytest.approx(0.2, abs=0.05)
    rows = np.flatnonzero(job < 2)
    unseen = fitted(lead_score.SPEC, data, rows)["best category"](data)[job == 2]
    assert unseen == pytest.approx(data.rows.label[rows].mean(), abs=0.01)


def test_a_feature_the_model_may_not_read_is_not_read_here_either() -> None:
    spec = replace(lead_score.SPEC, excluded=("profile_job",))
    data = made(applying)
    baselines = fitted(spec, data)
    assert auc(baselines["best category"](data), data.rows.label) < 0.6
    assert auc(baselines[REGRESSION](data), data.rows.label) < 0.65
    assert auc(fitted(lead_score.SPEC, data)[REGRESSION](data), data.rows.label) > 0.7


def test_bg_nbd_is_fitted_on_each_persons_latest_state_and_asked_about_the_horizon() -> None:
    data = made(shopping)
    spec = replace(churn.SPEC, horizon=timedelta(days=45))
    rows = np.arange(3 * PEOPLE)
    age, until_last = (
        (data.rows.as_of - data.states["first_purchase_at"]) / MICROSECONDS_PER_DAY,
        (data.states["last_purchase_at"] - data.states["first_purchase_at"]) / MICROSECONDS_PER_DAY,
    )
    history = data.states["purchase_count"], until_last, age
    silence = fit_silence(*(part[2 * PEOPLE : 3 * PEOPLE] for part in history))
    assert silence is not None
    assert fitted(spec, data, rows)[BG_NBD](data) == pytest.approx(silence.none_within(*history, 45))


def test_purchases_of_people_whose_joining_date_nobody_knows_make_no_rate() -> None:
    def unknown(states: States, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        chance = shopping(states, rng)
        states["created_at"] = np.nan
        return chance

    assert set(fitted(churn.SPEC, made(unknown))) == {"recency", REGRESSION, BG_NBD}


@pytest.mark.parametrize(
    ("kind", "count", "present"), [("open", 0.1, True), ("open", 3.0, False), ("sent", 1.0, False)]
)
def test_bg_nbd_is_a_rival_only_where_purchases_are_nearly_all_there_is(kind: str, count: float, present: bool) -> None:
    def mixed(states: States, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        chance = shopping(states, rng)
        states[f"{kind}_count"] = count
        return chance

    assert (BG_NBD in fitted(churn.SPEC, made(mixed))) is present


def test_who_never_bought_gets_everybodys_rate_from_bg_nbd() -> None:
    data = made(shopping)
    bought = fitted(churn.SPEC, data)
    strangers = dataset(data.rows, identity(CATALOGUE, len(data.rows)), CATALOGUE)
    assert bought[BG_NBD](strangers) == pytest.approx(data.rows.label.mean())


def test_a_baseline_is_monotone_and_keeps_the_ranking_of_its_feature() -> None:
    rng = np.random.default_rng(1)
    hours = rng.exponential(500, 5_000)
    label = (rng.random(hours.size) < np.clip(hours / 2_000, 0, 1)).astype(np.float64)
    baseline = fit_baseline(hours, label)
    curve = baseline(np.linspace(0, hours.max() * 2, 1_000))
    assert np.all(np.diff(curve) >= 0) and curve.min() > 0 and curve.max() < 1
    assert auc(baseline(hours), label) == auc(hours, label)
    assert np.all(np.diff(baseline(hours.max() + np.arange(1_000.0))) > 0)
    assert expected_calibration_error(baseline(hours), label) < 0.01


def test_a_baseline_finds_or_takes_the_direction_of_its_feature() -> None:
    clicks = np.arange(100.0)
    churned = (clicks < 40).astype(np.float64)
    assert np.all(np.diff(fit_baseline(clicks, churned)(clicks)) <= 0)
    assert np.all(np.diff(fit_baseline(clicks, churned, higher_is_riskier=True)(clicks)) >= 0)


def test_missing_values_have_a_rate_of_their_own() -> None:
    hours = np.concatenate([np.arange(100.0), np.full(98, np.nan), [np.inf, -np.inf]])
    label = np.concatenate([np.arange(100.0) >= 50, np.ones(100)])
    baseline = fit_baseline(hours, label)
    assert baseline([np.nan])[0] == baseline([np.inf])[0] == pytest.approx((100 + 151 / 202) / 101)
    assert fit_baseline(np.full(8, np.nan), np.arange(8) % 2)([3.0, np.nan]) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_baseline_of_one_class_or_of_nothing_is_never_certain(rows: int) -> None:
    probability = fit_baseline(np.arange(float(rows)), np.zeros(rows))([0.0, 2.0, np.nan])
    assert np.all((probability > 0) & (probability <= 0.5))


def test_the_logistic_baseline_learns_from_values_and_from_what_is_missing() -> None:
    rng = np.random.default_rng(6)
    matrix = np.column_stack([rng.lognormal(3, 1, 4_000), rng.normal(size=4_000), np.full(4_000, np.nan)])
    gone = rng.random(4_000) < 0.3
    matrix[gone, 0] = np.nan
    chance = np.where(gone, 0.9, 1 / (1 + np.exp(3 - np.nan_to_num(np.log1p(matrix[:, 0])))))
    label = (rng.random(4_000) < chance).astype(np.float64)
    logistic = fit_logistic(matrix[:3_000], label[:3_000])
    probability = logistic(matrix[3_000:])
    assert probability.shape == (1_000,)
    assert auc(probability, label[3_000:]) > auc(chance[3_000:], label[3_000:]) - 0.02
    assert np.array_equal(probability, fit_logistic(matrix[:3_000], label[:3_000])(matrix[3_000:]))
    assert np.all(np.isfinite(logistic([[np.inf, np.nan, 1e300]])))


def test_the_logistic_baseline_of_one_class_answers_a_constant() -> None:
    assert fit_logistic(np.ones((8, 2)), np.zeros(8))([[1, 2], [3, 4]]) == pytest.approx([0.1, 0.1])


def test_the_logistic_baseline_does_not_run_away_where_times_change() -> None:
    rng = np.random.default_rng(8)
    calendar = np.arange(4_000.0)
    matrix = np.column_stack([rng.normal(size=4_000), calendar, calendar**2, np.where(calendar > 3_000, 1e9, 0.0)])
    label = (rng.random(4_000) < 1 / (1 + np.exp(-matrix[:, 0]))).astype(np.float64)
    probability = fit_logistic(matrix[:3_000], label[:3_000])(matrix[3_000:])
    assert log_loss(probability, label[3_000:]) < 0.63
