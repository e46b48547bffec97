"""Each gate beside a case it must let through and one it must not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from features.derive import Features
from features.errors import FeatureMismatch
from features.state import MICROSECONDS_PER_DAY, States, identity
from models import churn
from tests.features.logs import CATALOGUE
from training.dataset import Dataset, Rows, dataset
from training.evaluation import Interval, compare, evaluate
from training.fit import fit
from training.gates import (
    Later,
    bands_of,
    baseline_gate,
    calibration_gate,
    champion_gate,
    drift_gate,
    hours_gate,
    later_rows,
    leak_gate,
    point_in_time_gate,
    sampled,
    scored_by,
    shift_gate,
    slices_gate,
)
from training.package import package_fitted

Array = npt.NDArray[np.float64]
ROWS = 4000
RNG = np.random.default_rng(11)
TRUTH = RNG.beta(1, 4, ROWS)
LABEL = (RNG.random(ROWS) < TRUTH).astype(np.float64)
NOISY = np.clip(TRUTH + RNG.normal(0, 0.15, ROWS), 0.01, 0.99)
PEOPLE = np.arange(ROWS) // 2
HALF = np.arange(ROWS) % 2 == 0
LATER = Later(LABEL, PEOPLE, {"even": HALF, "odd": ~HALF})


def test_a_candidate_that_is_surely_worse_than_the_champion_is_refused_and_the_sentence_says_in_what() -> None:
    gate = champion_gate(NOISY, TRUTH, LATER, "7")
    assert not gate.passed
    assert "surely worse than version 7 in AUC and log loss" in gate.words
    assert gate.numbers["champion_auc_gain"] < 0


def test_a_better_or_an_equal_candidate_is_not_refused() -> None:
    assert champion_gate(TRUTH, NOISY, LATER, "7").passed
    assert champion_gate(TRUTH, TRUTH, LATER, "7").passed


def test_a_difference_within_the_tolerance_is_no_reason_even_when_it_is_sure() -> None:
    nearly = TRUTH + 0.003
    assert compare(nearly, TRUTH, LABEL, PEOPLE).log_loss_gain.value < 0
    assert champion_gate(nearly, TRUTH, LATER, "7").passed


def test_too_few_later_rows_to_compare_on_is_a_refusal_not_a_silent_pass() -> None:
    gate = champion_gate(TRUTH[:50], TRUTH[:50], LATER.take(np.arange(ROWS) < 50), "7")
    assert not gate.passed and "only 50 later rows" in gate.words


def test_a_slice_that_is_lost_is_named_though_the_whole_is_better() -> None:
    ours = np.where(HALF, NOISY, TRUTH)
    theirs = np.where(HALF, TRUTH, np.clip(NOISY + RNG.normal(0, 0.2, ROWS), 0.01, 0.99))
    assert champion_gate(ours, theirs, LATER, "7").passed
    gate = slices_gate(ours, theirs, LATER, "7")
    assert not gate.passed
    assert "even (" in gate.words and "odd (" not in gate.words
    assert slices_gate(TRUTH, TRUTH, LATER, "7").passed


@pytest.mark.parametrize(
    ("ours", "theirs", "passes", "words"),
    [
        (TRUTH, NOISY, True, "better than recency alone in AUC and log loss"),
        (TRUTH, TRUTH, False, "not shown to beat recency alone"),
        (NOISY, TRUTH, False, "surely worse than recency alone"),
        (np.full(ROWS, 0.2), NOISY, False, "cannot be told from chance"),
    ],
    ids=["better", "equal", "worse", "chance"],
)
def test_the_simplest_baseline_must_be_beaten_for_sure(ours: Array, theirs: Array, passes: bool, words: str) -> None:
    gate = baseline_gate(evaluate(ours, LABEL, PEOPLE), compare(ours, theirs, LABEL, PEOPLE), "recency")
    assert (gate.passed, words in gate.words) == (passes, True), gate.words


def test_hours_alone_must_beat_everybodys_histogram_for_sure() -> None:
    assert hours_gate(Interval(0.03, 0.01, 0.05)).passed
    assert not hours_gate(Interval(0.03, -0.01, 0.05)).passed


@pytest.mark.parametrize(
    ("promised", "passes"),
    [(TRUTH, True), (np.clip(TRUTH + 0.12, 0, 1), False), (TRUTH / 3, False)],
    ids=["right", "too high", "too low"],
)
def test_probabilities_must_come_true(promised: Array, passes: bool) -> None:
    assert calibration_gate(evaluate(promised, LABEL, PEOPLE), promised).passed is passes


def test_rare_outcomes_promised_four_times_too_often_are_refused_though_the_error_is_small() -> None:
    rare = (np.arange(ROWS) % 100 == 0).astype(np.float64)
    promised = np.full(ROWS, 0.04)
    gate = calibration_gate(evaluate(promised, rare, PEOPLE), promised)
    assert gate.numbers["expected_calibration_error"] < 0.05
    assert not gate.passed and "factor" in gate.words


def matrix(**columns: Array) -> Features:
    return Features(tuple(columns), (), np.column_stack(list(columns.values())))


def test_a_single_feature_that_knows_the_answer_is_named_unless_it_is_allowed() -> None:
    planted = matrix(noise=RNG.random(ROWS), converted_at=np.where(LABEL == 1, 5.0, np.nan))
    every = np.arange(ROWS)
    gate = leak_gate(planted, LABEL, every)
    assert not gate.passed and "converted_at alone tells the answer (AUC 1.000)" in gate.words
    assert leak_gate(planted, LABEL, every, ["converted_at"]).passed
    assert leak_gate(matrix(score=TRUTH), LABEL, every).passed


def asked(people: int = 150, moments: int = 20) -> Dataset:
    """People asked about every week; who clicks more churns less."""
    rng = np.random.default_rng(3)
    as_of = 1.7e15 + np.repeat(np.arange(moments), people) * 7.0 * MICROSECONDS_PER_DAY
    states = identity(CATALOGUE, len(as_of))
    states["click_count"] = rng.poisson(3, len(as_of))
    states["last_click_at"] = as_of - rng.uniform(1, 80, len(as_of)) * MICROSECONDS_PER_DAY
    states["created_at"] = as_of - rng.uniform(1, 90, len(as_of)) * MICROSECONDS_PER_DAY
    label = (rng.random(len(as_of)) < 1 / (1 + states["click_count"])).astype(np.float64)
    ids = pa.array([f"s{i % people}" for i in range(len(as_of))])
    return dataset(Rows(ids, as_of, as_of, label), states, CATALOGUE)


def with_states(data: Dataset, states: States) -> Dataset:
    return dataset(data.rows, states, data.catalogue)


def test_states_folded_again_from_a_cut_log_must_give_the_same_bits() -> None:
    data = asked()
    rows = sampled(data)
    assert point_in_time_gate(data, rows, data.states[rows]).passed
    other = data.states[rows].copy()
    other["click_count"][3] += 1
    gate = point_in_time_gate(data, rows, other)
    assert not gate.passed and "know more than the log did then" in gate.words and "click_count" in gate.words


def test_an_event_of_the_future_in_a_state_is_refused_wherever_it_is() -> None:
    data = asked()
    planted = data.states.copy()
    planted["last_click_at"][-1] = data.rows.as_of[-1] + 1
    gate = point_in_time_gate(with_states(data, planted), np.arange(5), planted[:5])
    assert not gate.passed and "last_click_at lie after the moment" in gate.words


def test_the_sample_covers_the_whole_time_and_every_row_of_a_short_list() -> None:
    data = asked()
    rows = sampled(data)
    assert len(rows) == 300 and (rows[0], rows[-1]) == (0, len(data.rows) - 1)
    assert set(data.rows.as_of[rows]) == set(data.rows.as_of)
    assert sampled(asked(people=5)).tolist() == list(range(100))


def test_a_shift_is_said_and_refused_only_when_it_is_huge_and_explained_by_nothing() -> None:
    moderate = shift_gate(np.clip(TRUTH * 1.5, 0, 0.99), TRUTH, LATER, None)
    assert moderate.passed and moderate.mind and "mean score" in moderate.words
    inflated = np.clip(TRUTH + 0.5, 0, 0.99)
    for_the_worse, for_the_better = shift_gate(inflated, TRUTH, LATER, None), shift_gate(TRUTH, inflated, LATER, None)
    assert not for_the_worse.passed and "huge" in for_the_worse.words
    assert for_the_better.passed and for_the_better.mind
    assert not shift_gate(TRUTH, TRUTH, LATER, None).mind


def test_how_many_change_their_band_is_counted() -> None:
    theirs, ours = np.array([0.1, 0.5, 0.9, 0.2] * 1000), np.array([0.1, 0.7, 0.9, 0.2] * 1000)
    bands = bands_of("churn", ours, [0, 1]), bands_of("churn", theirs, [0, 1])
    assert bands[0] is not None and bands[1] is not None
    gate = shift_gate(ours, theirs, LATER, (bands[0], bands[1]))
    assert gate.numbers["changed_band"] == 0.25 and "25% of rows change their band" in gate.words
    assert bands_of("send_time", ours, [0, 1]) is None


def test_drift_is_said_and_never_refuses() -> None:
    first, last = np.arange(ROWS // 2), np.arange(ROWS // 2, ROWS)
    moved = matrix(rate=np.where(np.arange(ROWS) < ROWS // 2, 5.0, 1.0) + RNG.random(ROWS), steady=RNG.random(ROWS))
    label = (RNG.random(ROWS) < np.where(np.arange(ROWS) < ROWS // 2, 0.06, 0.2)).astype(np.float64)
    gate = drift_gate(moved, label, first, last)
    assert gate.passed and gate.mind
    assert "times as many: what was learnt may no longer hold" in gate.words
    assert "1 of 2 features have shifted: rate (PSI" in gate.words
    assert not drift_gate(matrix(steady=RNG.random(ROWS)), LABEL, first, last).mind


def test_a_champion_reads_with_its_own_catalogue_what_the_list_has_since_outgrown() -> None:
    data = asked()
    spec = replace(churn.SPEC, horizon=timedelta(days=7), rounds=20)
    fitted = fit(data, spec)
    bundle = package_fitted(fitted, CATALOGUE, "1", datetime.now(UTC))
    grown = CATALOGUE.grown(["hats nobody knew"], [], [])
    wider = identity(grown, len(data.rows))
    for name in data.states.dtype.names or ():
        wider[name] = data.states[name]
    rows = fitted.split.test
    again = scored_by(bundle, dataset(data.rows, wider, grown), rows)
    assert again.tobytes() == scored_by(bundle, data, rows).tobytes()
    with pytest.raises(FeatureMismatch, match="moon_phase"):
        scored_by(replace(bundle, features=("moon_phase", *bundle.features[1:])), data, rows)


def test_later_rows_come_with_the_slices_that_are_large_enough() -> None:
    later = later_rows(asked(), np.arange(1000, 3000))
    assert later.enough and later.slices
    assert all(later.take(mask).enough and not mask.all() for mask in later.slices.values())
