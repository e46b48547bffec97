"""Reasons: grouped, in the direction they pushed, in words."""

from __future__ import annotations

import numpy as np

from features.derive import derive, feature_names
from features.state import identity
from models.reasons import ReasonCatalogue
from tests.features.logs import CATALOGUE

NAMES = feature_names(CATALOGUE)
REASONS = ReasonCatalogue(NAMES, CATALOGUE)
STRANGER = derive(identity(CATALOGUE, 1), 1.7e15, CATALOGUE).matrix


def pushed(**effects: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([[*(effects.get(name, 0.0) for name in NAMES), -2.0]])


def test_what_says_the_same_is_added_before_it_is_ranked() -> None:
    effects = pushed(click_decayed_7d=0.3, click_decayed_30d=0.3, tenure_days=-0.5)
    first, second = REASONS.explain(effects, STRANGER)[0]
    assert (first.code, first.effect) == ("click_activity", 0.6)
    assert (second.code, second.effect) == ("tenure", -0.5)
    assert str(first).startswith("↑ ")
    assert str(second) == "↓ joining date not known"


def test_nothing_pushed_is_no_reason_and_no_more_than_asked_are_given() -> None:
    assert REASONS.explain(pushed(), STRANGER) == [[]]
    assert len(REASONS.explain(np.ones((1, len(NAMES))), STRANGER, most=2)[0]) == 2


def test_every_reason_has_words_even_where_nothing_is_known() -> None:
    given = REASONS.explain(np.ones((1, len(NAMES))), STRANGER, most=len(NAMES))[0]
    assert {reason.code for reason in given} == set(REASONS.order)
    assert all(reason.words and "nan" not in reason.words.lower() for reason in given)
    words = {reason.code: reason.words for reason in given}
    assert words["profile_age"] == "age: not known"
    assert words["profile_job"] == "job: not known"
