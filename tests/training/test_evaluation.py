"""Every number beside its oracle: scikit-learn, a plain loop, or a simulation whose truth is known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as oracle

from training import evaluation
from training.evaluation import METRICS, Evaluation, Interval, clustered_rate, compare, evaluate, score_bands, wilson

Metric = Callable[..., float]
Sample = tuple[evaluation.Floats, evaluation.Floats, evaluation.Floats]
WORSE_LABELS = {"one class": [1, 1, 1, 1], "no positives": [0, 0, 0, 0], "missing": [0, 1, math.nan, 1]}


@pytest.fixture
def sample() -> Sample:
    """Scores with many ties, labels that follow them, weights some of which are 0."""
    rng = np.random.default_rng(7)
    probability = np.round(rng.beta(2, 5, 5_000), 2)
    label = (rng.random(probability.size) < probability).astype(np.float64)
    return probability, label, rng.poisson(1.0, probability.size).astype(np.float64)


def clustered(rng: np.random.Generator, people: int) -> Sample:
    """Four rows a person who share a tilt that the score does not know: (score, label, person)."""
    hidden, known = np.repeat(rng.normal(0, 1, people), 4), np.repeat(rng.normal(0, 1, people), 4)
    truth = 1 / (1 + np.exp(1 - hidden - known))
    score = 1 / (1 + np.exp(0.85 - 0.85 * known))
    return score, (rng.random(truth.size) < truth).astype(np.float64), np.repeat(np.arange(people), 4)


def inside(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (evaluation.auc, oracle.roc_auc_score),
        (evaluation.average_precision, oracle.average_precision_score),
        (evaluation.brier, oracle.brier_score_loss),
        (evaluation.log_loss, oracle.log_loss),
    ],
)
def test_metrics_equal_those_of_scikit_learn_with_and_without_weights(
    ours: Metric, theirs: Metric, sample: Sample
) -> None:
    probability, label, weight = sample
    weighted = theirs(label, probability, sample_weight=weight)
    assert ours(probability, label) == pytest.approx(theirs(label, probability), rel=1e-12)
    assert ours(probability, label, weight) == pytest.approx(weighted, rel=1e-12)


def test_log_loss_of_certain_scores_is_clipped_as_scikit_learn_clips(sample: Sample) -> None:
    label = sample[1]
    certain = np.where(np.arange(label.size) % 2, 1.0, 0.0)
    assert evaluation.log_loss(certain, label) == pytest.approx(oracle.log_loss(label, certain), rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.float64, 30, elements=st.sampled_from([0.0, 0.1, 0.1, 0.5, 1.0])),
    arrays.arrays(np.float64, 30, elements=st.sampled_from([0.0, 1.0])),
    st.permutations(range(30)),
)
def test_no_metric_depends_on_the_order_of_rows(
    probability: evaluation.Floats, label: evaluation.Floats, order: list[int]
) -> None:
    before, after = evaluate(probability, label, resamples=0), evaluate(probability[order], label[order], resamples=0)
    assert before.metrics() == pytest.approx(after.metrics())
    for was, now in zip(before.calibration, after.calibration, strict=True):
        assert vars(was) == pytest.approx(vars(now))


def test_auc_counts_pairs_and_half_of_the_ties() -> None:
    score, label = np.array([0.3, 0.3, 0.1, 0.9, 0.3]), np.array([1, 0, 0, 1, 0])
    pairs = [(p > n) + (p == n) / 2 for p in score[label == 1] for n in score[label == 0]]
    assert evaluation.auc(score, label) == pytest.approx(np.mean(pairs))


def test_capture_at_a_cut_through_ties_is_what_random_drawing_gives_on_average() -> None:
    score, label = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0, 0])
    assert evaluation.capture_at(score, label, [0.2, 0.4, 0.8, 1.0]) == pytest.approx([1 / 2, 2 / 3, 1.0, 1.0])


def test_lift_quality_is_the_area_between_the_capture_curve_and_chance_over_the_ideal_one(sample: Sample) -> None:
    probability, label, _ = sample
    part = np.linspace(0, 1, 200_001)

    def area(score: evaluation.Floats) -> float:
        return float(np.trapezoid(evaluation.capture_at(score, label, part), part)) - 0.5

    quality = evaluation.lift_quality(probability, label)
    assert quality == pytest.approx(area(probability) / area(label), abs=1e-4)
    assert evaluation.lift_quality(label, label) == 1.0
    assert evaluation.lift_quality(np.full(label.size, 0.2), label) == 0.0


def test_calibration_error_of_perfect_probabilities_is_about_zero_and_of_shifted_ones_the_shift() -> None:
    rng = np.random.default_rng(3)
    probability = rng.beta(2, 6, 200_000)
    label = rng.random(probability.size) < probability
    assert evaluation.expected_calibration_error(probability, label) < 0.004
    assert evaluation.expected_calibration_error(probability + 0.1, label) == pytest.approx(0.1, abs=0.004)


def test_calibration_error_equals_a_plain_loop_over_ten_equal_bins() -> None:
    rng = np.random.default_rng(4)
    probability = np.sort(rng.random(1_000))
    label = (rng.random(1_000) < probability**2).astype(np.float64)
    bins = zip(np.split(probability, 10), np.split(label, 10), strict=True)
    plain = sum(abs(part.mean() - truth.mean()) / 10 for part, truth in bins)
    assert evaluation.expected_calibration_error(probability, label) == pytest.approx(plain)


def test_tied_scores_share_one_calibration_bin() -> None:
    table = evaluate(np.full(50, 0.3), np.arange(50) % 5 == 0, resamples=0).calibration
    assert [(row.count, row.observed) for row in table] == [(50, 0.2)]


def test_tables_add_up_to_the_whole(sample: Sample) -> None:
    probability, label, _ = sample
    judged = evaluate(probability, label, resamples=0)
    assert (judged.rows, judged.positives) == (5_000, int(label.sum()))
    assert sum(row.count for row in judged.calibration) == 5_000
    assert sum(row.count * row.observed for row in judged.calibration) == pytest.approx(label.sum())
    assert [row.predicted for row in judged.calibration] == sorted(row.predicted for row in judged.calibration)
    assert all(row.low <= row.observed <= row.high for row in judged.calibration)
    assert sum(row.positives for row in judged.deciles) == pytest.approx(label.sum())
    assert sum(row.predicted for row in judged.deciles) / 10 == pytest.approx(probability.mean())
    assert judged.deciles[-1].capture.value == pytest.approx(1.0)
    assert judged.deciles[0].lift == pytest.approx(judged.lift_top_10.value)


def test_wilson_gives_the_published_interval() -> None:
    # Newcombe 1998, table I: 81 of 263.
    assert evaluation.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_bands_of_a_score_are_a_plain_count_and_hold_a_hundred_in_the_last() -> None:
    draw = np.random.default_rng(5)
    score, label = draw.integers(0, 101, 900), (draw.random(900) < 0.3).astype(np.float64)
    found = score_bands(score, label, np.arange(900))
    assert [(band.low, band.high) for band in found][::9] == [(0, 9), (90, 100)]
    for band in found:
        inside_it = (band.low <= score) & (score <= band.high)
        assert (band.rows, band.positives) == (inside_it.sum(), label[inside_it].sum())
        assert band.rate.value == pytest.approx(label[inside_it].mean())
    assert sum(band.rows for band in found) == 900
    nobody = score_bands(np.array([55]), np.array([1.0]), np.array([0]))[0]
    assert (nobody.rows, np.isnan(nobody.rate.value)) == (0, True)


def test_a_rate_of_rows_that_come_in_people_has_the_interval_of_so_many_people() -> None:
    draw = np.random.default_rng(7)
    alone, ours = 0, 0
    for _ in range(200):
        of_person = (draw.random(60) < 0.25).astype(np.float64)
        rate = clustered_rate(np.repeat(of_person, 6), np.repeat(np.arange(60), 6))
        low, high = wilson(float(of_person.mean()), 360)
        ours += inside(rate, 0.25)
        alone += low <= 0.25 <= high
    assert 0.91 <= ours / 200 <= 0.98
    assert alone / 200 < 0.7
    never = clustered_rate(np.zeros(40), np.arange(40) // 4)
    assert (never.low, never.high) == wilson(0.0, 10)


def test_intervals_cover_the_truth_about_ninety_five_times_in_a_hundred() -> None:
    rng = np.random.default_rng(11)
    score, label, _ = clustered(rng, 100_000)
    truth = evaluate(score, label, resamples=0)
    rounds, names = 150, ("auc", "log_loss", "average_precision", "lift_top_10", "expected_calibration_error")
    covered, covered_as_if_independent = dict.fromkeys(names, 0), 0
    for _ in range(rounds):
        score, label, person = clustered(rng, 100)
        judged = evaluate(score, label, person, resamples=150)
        for name in names:
            covered[name] += inside(getattr(judged, name), getattr(truth, name).value)
        covered_as_if_independent += inside(evaluate(score, label, resamples=150).log_loss, truth.log_loss.value)
    assert all(0.89 <= count / rounds <= 1.0 for count in covered.values()), covered
    assert covered_as_if_independent < covered["log_loss"]


def test_the_interval_of_the_calibration_error_reaches_zero_for_perfect_probabilities() -> None:
    rng = np.random.default_rng(5)
    lows = []
    for _ in range(60):
        probability = rng.beta(2, 6, 1_000)
        lows.append(evaluate(probability, rng.random(1_000) < probability).expected_calibration_error.low)
    assert np.mean(np.array(lows) == 0.0) >= 0.9


def test_the_same_seed_gives_the_same_evaluation_and_names_of_groups_do_not_matter(sample: Sample) -> None:
    probability, label, _ = sample
    people = np.arange(label.size) // 5
    named = np.array([f"s{person:05d}" for person in people], dtype=object)
    assert evaluate(probability, label, people) == evaluate(probability, label, named)
    assert evaluate(probability, label, people, seed=1) != evaluate(probability, label, people)
    assert evaluate(probability, label, people).subscribers == 1_000


def test_input_arrays_are_not_changed(sample: Sample) -> None:
    kept = [array.copy() for array in sample]
    evaluate(*sample[:2], sample[2], resamples=5)
    compare(sample[0], 1 - sample[0], *sample[1:], resamples=5)
    assert all(np.array_equal(was, now) for was, now in zip(kept, sample, strict=True))


def test_a_better_score_has_gains_above_zero_and_the_other_way_round_below() -> None:
    score, label, person = clustered(np.random.default_rng(2), 1_000)
    noise = np.full(score.size, label.mean())
    better, worse = compare(score, noise, label, person), compare(noise, score, label, person)
    assert better.auc_gain.low > 0 and better.log_loss_gain.low > 0
    assert worse.auc_gain.value == pytest.approx(-better.auc_gain.value)
    assert worse.log_loss_gain.high < 0
    assert better.metrics()["test_auc_gain"] == better.auc_gain.value


def test_the_gain_of_a_score_over_itself_is_exactly_zero() -> None:
    score, label, person = clustered(np.random.default_rng(2), 100)
    nothing = Interval(0.0, 0.0, 0.0)
    assert compare(score, score, label, person) == evaluation.Comparison(nothing, nothing)


def test_pairing_makes_the_interval_narrower_than_the_two_apart() -> None:
    score, label, person = clustered(np.random.default_rng(9), 500)
    near = np.clip(score + np.random.default_rng(1).normal(0, 0.02, score.size), 0, 1)
    gain, alone = compare(score, near, label, person).auc_gain, evaluate(score, label, person).auc
    assert gain.high - gain.low < (alone.high - alone.low) / 3


@pytest.mark.parametrize("label", WORSE_LABELS.values(), ids=WORSE_LABELS.keys())
def test_labels_that_tell_nothing_apart_give_nan_and_never_raise(label: list[float]) -> None:
    score = np.array([0.1, 0.2, 0.2, 0.9])
    judged = evaluate(score, label)
    assert math.isnan(judged.auc.value) and math.isnan(judged.auc.low) and math.isnan(judged.lift_quality.value)
    assert math.isnan(compare(score, score, label).auc_gain.value)
    assert "test_auc" not in judged.metrics()


def test_no_rows_give_an_evaluation_without_numbers() -> None:
    judged = evaluate(np.empty(0), np.empty(0), np.empty(0))
    assert (judged.rows, judged.subscribers, judged.calibration, judged.deciles) == (0, 0, (), ())
    assert judged.metrics() == {"test_rows": 0.0, "test_positives": 0.0}
    assert math.isnan(compare(np.empty(0), np.empty(0), np.empty(0)).log_loss_gain.value)


def test_one_row_constant_scores_and_more_bins_than_rows_are_judged() -> None:
    assert evaluate(np.array([0.4]), [1]).brier.value == pytest.approx(0.36)
    assert evaluate(np.full(4, 0.5), [0, 1, 0, 1]).auc.value == 0.5
    assert len(evaluate(np.array([0.1, 0.2, 0.3]), [0, 1, 0]).deciles) == 10


def test_a_score_that_is_nan_makes_every_metric_nan() -> None:
    judged = evaluate(np.array([0.1, np.nan, 0.9, 0.3]), [0, 1, 1, 0])
    assert all(math.isnan(getattr(judged, name).value) for name in METRICS)


def test_one_subscriber_has_values_but_no_intervals() -> None:
    judged = evaluate(np.array([0.1, 0.2, 0.7]), [0, 1, 1], ["s1", "s1", "s1"])
    assert judged.auc.value == 1.0 and math.isnan(judged.auc.low)


def test_json_writes_what_is_missing_as_null_and_metrics_leave_it_out() -> None:
    judged = evaluate(np.array([0.1, 0.2]), [0, 0])
    written = orjson.loads(judged.to_json())
    assert written["auc"] == {"value": None, "low": None, "high": None}
    assert written["deciles"][0]["decile"] == 1
    assert set(written) == {field.name for field in fields(Evaluation)}
    assert all(math.isfinite(value) for value in judged.metrics("later").values())
    assert judged.metrics("later")["later_brier"] == judged.brier.value


def test_a_hundred_thousand_rows_are_judged_in_seconds() -> None:
    rng = np.random.default_rng(0)
    probability = rng.beta(2, 6, 100_000)
    label = rng.random(probability.size) < probability
    started = time.process_time()
    evaluate(probability, label, rng.integers(0, 20_000, probability.size))
    assert time.process_time() - started < 10
