"""Fitting refuses what cannot be learnt, and learns the same twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from features.errors import LeakingFeature, MissingLabels, SingleClass, TooFewPositives
from features.state import MICROSECONDS_PER_DAY, identity
from models import churn
from tests.features.logs import CATALOGUE
from training.dataset import Dataset, Rows, dataset
from training.evaluation import Comparison, Interval
from training.fit import fit, read_judgement

SPEC = replace(churn.SPEC, horizon=timedelta(days=7), rounds=20)


def made(label: object = None, leak: bool = False) -> Dataset:
    """A hundred people asked about on 20 weekly instants; who clicks more churns less."""
    rng = np.random.default_rng(3)
    as_of = 1.7e15 + np.repeat(np.arange(20), 100) * 7.0 * MICROSECONDS_PER_DAY
    states = identity(CATALOGUE, len(as_of))
    states["click_count"] = rng.poisson(3, len(as_of))
    churned = (rng.random(len(as_of)) < 1 / (1 + states["click_count"])).astype(np.float64)
    labels = churned if label is None else np.broadcast_to(np.asarray(label, dtype=np.float64), as_of.shape).copy()
    if leak:
        states["profile_age"] = np.where(labels == 1, 50.0, np.nan)
    return dataset(Rows(pa.array([f"s{i % 100}" for i in range(len(as_of))]), as_of, as_of, labels), states, CATALOGUE)


def test_missing_labels_are_refused() -> None:
    with pytest.raises(MissingLabels, match=r"2,000 of 2,000 labels are missing"):
        fit(made(np.nan), SPEC)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused(label: int) -> None:
    with pytest.raises(SingleClass, match=f"all 2,000 labels are {label}"):
        fit(made(label), SPEC)


def test_too_few_of_the_rarer_class_are_refused() -> None:
    with pytest.raises(TooFewPositives, match="rarer class has"):
        fit(made(np.arange(2000) % 100 == 0), SPEC)


def test_a_feature_that_knows_the_answer_is_refused_unless_allowed() -> None:
    with pytest.raises(LeakingFeature, match="profile_age alone tells the answer"):
        fit(made(leak=True), SPEC)
    assert fit(made(leak=True), SPEC, allowed=["profile_age"]).judgement is not None


def test_the_same_dataset_gives_the_same_model_bit_for_bit() -> None:
    first, second = fit(made(), SPEC), fit(made(), SPEC)
    assert made().fingerprint == made().fingerprint
    assert first.level.booster.text == second.level.booster.text
    assert first.calibration == second.calibration
    assert first.probability.tobytes() == second.probability.tobytes()
    assert first.judgement is not None
    assert first.judgement.ours.auc.value > 0.6


def test_bands_of_the_score_hold_the_test_rows_and_only_labels_that_tell_of_a_whole_horizon() -> None:
    data = made()
    judged = fit(data, SPEC).judgement
    assert judged is not None
    assert sum(band.rows for band in judged.bands) == judged.ours.rows
    assert sum(band.positives for band in judged.bands) == judged.ours.positives
    assert judged.bands[0].rate.value < judged.ours.base_rate < judged.bands[-1].rate.value
    unfinished = fit(replace(data, rows=replace(data.rows, offset=np.zeros(len(data.rows)))), SPEC).judgement
    assert unfinished is not None and unfinished.bands == ()


def test_a_judgement_is_read_as_it_was_written_and_what_is_none_is_not() -> None:
    judged = fit(made(), SPEC).judgement
    assert judged is not None
    nothing = replace(judged, gain=Comparison(Interval(0.1, np.nan, np.nan), Interval(np.nan, np.nan, np.nan)))
    whole = read_judgement(judged.to_json())
    assert whole is not None and (whole.ours, whole.gain) == (judged.ours, judged.gain)
    assert whole.to_json() == judged.to_json()
    again = read_judgement(nothing.to_json())
    assert again is not None
    assert again.to_json() == nothing.to_json() and np.isnan(again.gain.log_loss_gain.value)
    for other in (b"", b"{}", b'{"rows": 3}', b"[1, 2]", judged.to_json()[:-20]):
        assert read_judgement(other) is None


def test_what_is_learnt_over_a_short_horizon_answers_for_a_longer_one() -> None:
    short, longer = timedelta(days=7), timedelta(days=28)
    data = made()
    data.states["first_engagement_at"] = 1.69e15
    data.states["last_click_at"] = data.rows.as_of - 3.0 * MICROSECONDS_PER_DAY
    data = dataset(data.rows, data.states, CATALOGUE)
    plain = fit(data, SPEC)
    carried = fit(replace(data, rows=replace(data.rows, horizon=short)), replace(SPEC, horizon=longer))
    assert plain.level.habits.horizon_days == 7
    assert carried.level.habits.horizon_days == 28
    assert carried.prior < plain.prior
