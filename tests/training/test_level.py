"""What is learnt from, by whom, and what becomes of it over a longer horizon."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit

from features.catalogue import Catalogue
from features.derive import Features, categorical_names, feature_names
from features.state import MICROSECONDS_PER_DAY
from models import churn, lead_score, send_time
from models.calibration import Calibration
from models.spec import ModelSpec
from training.level import FOLDS, Course, carried, learn_habits, left_out, recency, unread

NAMES = feature_names(Catalogue())
SPEC = replace(churn.SPEC, rounds=20)
HORIZON = timedelta(days=30)
AS_OF = np.asarray(1.7e15 + np.repeat(np.arange(10), 60) * 7.0 * MICROSECONDS_PER_DAY, dtype=np.float64)
PEOPLE = np.tile(np.arange(60), 10)


def features(sent: bool) -> Features:
    """Sixty people asked about in ten weeks; who engages more is silent for shorter."""
    rng = np.random.default_rng(6)
    count, weeks = len(AS_OF), np.repeat(np.arange(10), 60)
    matrix = np.zeros((count, len(NAMES)))
    engagements = 1.0 + rng.poisson(3, count)
    for name, values in {
        "tenure_days": 100 + 7.0 * weeks,
        "engagement_count": engagements,
        "purchase_count": engagements,
        "days_since_first_engagement": np.full(count, 90.0),
        "hours_since_last_engagement": rng.exponential(60 * 24 / engagements, count).clip(1, 89 * 24),
        "sent_count": np.full(count, 12.0 if sent else 0.0) + weeks * sent,
        "sent_decayed_90d": np.full(count, 3.0 * sent),
        "open_decayed_90d": rng.gamma(1, 1, count) * sent,
    }.items():
        matrix[:, NAMES.index(name)] = values
    return Features(NAMES, categorical_names(Catalogue()), matrix)


def labels(read: Features) -> npt.NDArray[np.float64]:
    chance = expit(read.column("hours_since_last_engagement") / 24 / 15 - 1)
    return np.asarray(np.random.default_rng(7).random(len(chance)) < chance, dtype=np.float64)


def course(spec: ModelSpec, read: Features) -> Course:
    return Course(spec, learn_habits(spec, read, PEOPLE, HORIZON), read.categorical)


@pytest.mark.parametrize(
    ("spec", "sent", "kind"),
    [
        (churn.SPEC, True, "mails"),
        (churn.SPEC, False, "silence"),
        (send_time.SPEC, True, "none"),
        (lead_score.SPEC, True, "none"),
    ],
)
def test_what_is_read_besides_the_features_follows_the_question_and_the_list(
    spec: ModelSpec, sent: bool, kind: str
) -> None:
    assert learn_habits(spec, features(sent), PEOPLE, HORIZON).kind == kind


def test_what_tells_the_calendar_is_not_read() -> None:
    read = features(sent=False)
    left = {NAMES[i] for i in unread(read, AS_OF, np.arange(len(AS_OF)), course(SPEC, read).habits)}
    assert "tenure_days" in left
    assert not left & {"purchase_count", "hours_since_last_engagement"}


def test_counts_are_not_read_beside_habits_by_mail() -> None:
    read = features(sent=True)
    left = {NAMES[i] for i in unread(read, AS_OF, np.arange(len(AS_OF)), course(SPEC, read).habits)}
    assert {"sent_count", "open_decayed_90d", "hours_since_last_engagement"} <= left


def test_a_row_counts_half_as_much_for_every_memory_it_is_older() -> None:
    weight = recency(AS_OF, timedelta(days=14))
    assert weight.mean() == pytest.approx(1)
    assert weight[-1] / weight[-1 - 2 * 60] == pytest.approx(2)
    assert recency(AS_OF, None).tolist() == [1.0] * len(AS_OF)


def test_log_odds_of_a_row_owe_nothing_to_its_own_subscriber() -> None:
    read = features(sent=False)
    fold = PEOPLE % FOLDS
    first, changed = labels(read), labels(read)
    changed[fold == 0] = 1 - changed[fold == 0]
    made = course(SPEC, read)
    raw, other = (
        left_out(made, made.examples(read, label, AS_OF, None, np.arange(len(AS_OF))), 5, fold)
        for label in (first, changed)
    )
    assert raw[fold == 0].tolist() == other[fold == 0].tolist()
    assert raw[fold == 1].tolist() != other[fold == 1].tolist()


def test_over_a_longer_horizon_fewer_stay_silent_and_the_ranking_stays_sensible() -> None:
    read = features(sent=False)
    made = course(SPEC, read)
    examples = made.examples(read, labels(read), AS_OF, None, np.arange(len(AS_OF)))
    level, even = made.level(examples, 10), Calibration()
    before = even(level.raw(read.matrix))
    longer, moved, raw = carried(level, even, read.matrix, timedelta(days=120))
    after = moved(raw)
    assert longer.habits.horizon_days == 120
    assert after.mean() < before.mean()
    assert np.corrcoef(before, after)[0, 1] > 0.9


def test_an_offset_is_learnt_beside_and_not_scored() -> None:
    read = features(sent=False)
    made = course(replace(SPEC, line_share=0.0), read)
    offset = np.where(PEOPLE % 2 == 1, 2.0, 0.0)
    rng = np.random.default_rng(8)
    label = (rng.random(len(AS_OF)) < expit(offset - 4)).astype(np.float64)
    level = made.level(made.examples(read, label, AS_OF, offset, np.arange(len(AS_OF))), 20)
    assert expit(level.raw(read.matrix) + offset).mean() == pytest.approx(label.mean(), abs=0.01)
