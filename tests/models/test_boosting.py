"""The LightGBM door: same rows, same bits; and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.errors import TrainerFailed
from models import boosting
from models.boosting import Booster, Trained, train

FEATURES = ("hours since, last [click]", 'quote"colon:', "plan", "größe")
ROWS = 1500


def rows(seed: int, count: int = ROWS) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, len(FEATURES)))
    matrix[:, 2] = rng.integers(-1, 6, count)
    label = (rng.random(count) < 1 / (1 + np.exp(-2 * matrix[:, 0] - (matrix[:, 2] == 3)))).astype(np.float64)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    return matrix, label


def trained(**changed: Any) -> Trained:
    matrix, label = rows(1)
    asked: dict[str, Any] = {
        "features": FEATURES,
        "categorical": ["plan"],
        "validation": (*rows(2, 600), None),
        "parameters": {"learning_rate": 0.2, "num_leaves": 7, "feature_fraction": 0.7, "min_data_per_group": 5},
        "rounds": 40,
        "patience": 8,
    }
    return train(matrix, changed.pop("label", label), **{**asked, **changed})


@pytest.fixture(scope="module")
def booster() -> Booster:
    return trained().booster


def test_training_again_gives_the_same_text_to_the_byte(booster: Booster) -> None:
    assert trained().booster.text == booster.text


def test_a_second_thread_changes_no_tree(booster: Booster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting, "TWO_THREADS_FROM", 0)
    again = trained().booster.text
    assert "[num_threads: 2]" in again
    assert again == trained().booster.text
    assert again.replace("[num_threads: 2]", "[num_threads: 1]") == booster.text


def test_feature_names_that_lightgbm_refuses_survive_the_journey_through_text(booster: Booster) -> None:
    assert booster.features == FEATURES
    assert Booster.from_text(booster.text).features == FEATURES


wide = st.one_of(
    st.floats(allow_infinity=True, allow_nan=True, width=64),
    st.sampled_from([np.nan, 1e300, -1e300, 5e-324, -0.0, 2.0**31, -1.0, 3.0]),
)


@settings(deadline=None, max_examples=60)
@given(matrix=arrays(np.float64, st.tuples(st.integers(1, 40), st.just(len(FEATURES))), elements=wide))
def test_any_row_scores_the_same_alone_in_company_and_after_parsing(
    booster: Booster, matrix: npt.NDArray[np.float64]
) -> None:
    scores = booster.raw(matrix)
    again = Booster.from_text(booster.text)
    assert np.isfinite(scores).all()
    assert scores.tobytes() == again.raw(np.asfortranarray(matrix)).tobytes()
    assert scores.tobytes() == np.concatenate([booster.raw(matrix[i : i + 1]) for i in range(len(matrix))]).tobytes()


def test_a_negative_category_is_a_missing_one(booster: Booster) -> None:
    matrix = rows(3)[0]
    missing = matrix.copy()
    missing[matrix[:, 2] < 0, 2] = np.nan
    assert booster.raw(matrix).tobytes() == booster.raw(missing).tobytes()


def test_contributions_add_up_to_the_raw_score(booster: Booster) -> None:
    matrix = rows(3, 50)[0]
    parts = booster.contributions(matrix)
    assert parts.shape == (50, len(FEATURES) + 1)
    np.testing.assert_allclose(parts.sum(axis=1), booster.raw(matrix), atol=1e-9)


def test_importance_names_the_feature_that_decides(booster: Booster) -> None:
    shares = booster.gain_importance()
    assert next(iter(shares)) == FEATURES[0]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_no_rows_have_no_scores(booster: Booster) -> None:
    assert booster.raw(np.empty((0, len(FEATURES)))).shape == (0,)
    assert booster.contributions(np.empty((0, len(FEATURES)))).shape == (0, len(FEATURES) + 1)


def test_the_offset_is_learnt_around_and_is_not_part_of_the_raw_score() -> None:
    matrix = rows(1)[0]
    later, later_label = rows(2, 600)
    known = 2 * np.nan_to_num(matrix[:, 0])
    fitted = trained(offset=known, validation=(later, later_label, 2 * np.nan_to_num(later[:, 0])))
    plain = trained()
    assert np.std(fitted.booster.raw(matrix)) < 0.6 * np.std(plain.booster.raw(matrix))
    with_offset = fitted.booster.raw(later) + 2 * np.nan_to_num(later[:, 0])
    assert np.corrcoef(with_offset, plain.booster.raw(later))[0, 1] > 0.9


def test_beside_an_offset_rare_positives_are_still_told_apart() -> None:
    matrix = rows(1)[0]
    rare = (np.nan_to_num(matrix[:, 0]) > 2).astype(np.float64)
    fitted = trained(offset=np.full(len(rare), -1.0), validation=None, label=rare, parameters={"lambda_l2": 50.0})
    raw = fitted.booster.raw(matrix) + fitted.start - 1.0
    assert raw[rare == 1].mean() > raw[rare == 0].mean() + 0.5
    assert trained().start == 0.0


def test_without_later_rows_it_boosts_to_the_end() -> None:
    fitted = trained(validation=None, rounds=5)
    assert fitted.best_iteration == 5
    assert {name.split("_")[0] for name in fitted.history} == {"train"}


def test_a_row_of_no_weight_is_not_learnt_from() -> None:
    matrix, label = rows(1)
    weight = np.ones(len(label))
    weight[::2] = 0.0
    turned = np.where(weight == 0, 1 - label, label)
    straight = trained(weight=weight, validation=None).booster.raw(matrix)
    assert trained(weight=weight, validation=None, label=turned).booster.raw(matrix).tolist() == straight.tolist()


def test_the_history_covers_every_round_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    fitted = trained(progress=lambda done, most: told.append((done, most)))
    curve = fitted.history["validation_binary_logloss"]
    assert told == [(done, 40) for done in range(1, len(curve) + 1)]
    assert fitted.best_iteration == int(np.argmin(curve)) + 1
    assert set(fitted.history) == {f"{s}_{m}" for s in ("train", "validation") for m in ("binary_logloss", "auc")}


def test_rows_without_any_signal_train_to_a_constant() -> None:
    label = rows(1)[1]
    nothing = np.full((ROWS, len(FEATURES)), np.nan)
    fitted = train(
        nothing,
        label,
        features=FEATURES,
        categorical=[],
        validation=(nothing, label, None),
        parameters={},
        rounds=5,
        patience=2,
    )
    np.testing.assert_allclose(fitted.booster.raw(nothing), np.log(label.mean() / (1 - label.mean())))
    assert set(fitted.booster.gain_importance().values()) == {0.0}


@pytest.mark.parametrize(
    ("value", "position", "said"),
    [(np.inf, 0, "infinite values in hours"), (-np.inf, 3, "infinite values in größe"), (2.0**31, 2, "codes above")],
)
def test_a_value_lightgbm_would_misread_is_refused_by_name(value: float, position: int, said: str) -> None:
    matrix, label = rows(2, 600)
    matrix[5, position] = value
    with pytest.raises(TrainerFailed, match=said):
        trained(validation=(matrix, label, None))


def test_labels_and_shapes_that_make_no_sense_are_refused() -> None:
    matrix, label = rows(2, 600)
    with pytest.raises(TrainerFailed, match="0 or 1"):
        trained(validation=(matrix, np.where(label == 1, np.nan, 0), None))
    with pytest.raises(TrainerFailed, match="600 labels x 4 features"):
        trained(validation=(matrix[:, :3], label, None))
    with pytest.raises(TrainerFailed, match="offset"):
        trained(validation=(matrix, label, np.full(600, np.inf)))


def test_another_number_of_columns_is_refused(booster: Booster) -> None:
    with pytest.raises(TrainerFailed, match="4 features"):
        booster.raw(np.zeros((2, 5)))
    with pytest.raises(TrainerFailed, match="4 features"):
        booster.contributions(np.zeros(4))


def test_lightgbms_own_refusal_becomes_ours() -> None:
    with pytest.raises(TrainerFailed, match="num_leaves"):
        trained(parameters={"num_leaves": -4})
    with pytest.raises(TrainerFailed):
        Booster.from_text("not a model")


def test_lightgbm_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    fitted = trained(rounds=3, parameters={"min_data_in_leaf": 2000})
    Booster.from_text(fitted.booster.text).raw(rows(2, 10)[0])
    assert capfd.readouterr() == ("", "")
