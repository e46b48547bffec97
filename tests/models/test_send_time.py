"""The decision: an allowed moment, an honest gain, an arm with its propensity."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from features.clock import instant
from models.send_time import Curves, Window, allowed, decide, local_slots

NINE = datetime(2026, 11, 24, 9, tzinfo=UTC)
MANY = [f"s{i}" for i in range(6000)]


PEAK = 24 + 20


def decided(ids: list[str], window: Window, error: float = 0.01, zone: str = "UTC") -> dict[str, Any]:
    def curves_at(slots: npt.NDArray[np.int64]) -> Curves:
        return Curves(
            np.where(slots == PEAK, 0.1, 0.05), lambda here, there: error * (here != there), np.zeros(len(ids))
        )

    return decide(curves_at, ids, np.zeros(len(ids), dtype=np.int64), [zone], window)


@pytest.mark.parametrize(("quiet", "forbidden"), [((22, 7), {22, 23, *range(7)}), ((1, 3), {1, 2}), ((5, 5), set())])
def test_quiet_hours_may_wrap_around_midnight(quiet: tuple[int, int], forbidden: set[int]) -> None:
    may = allowed(np.array([[12, *range(24)]]), quiet)[0]
    assert set(np.flatnonzero(~may[1:]).tolist()) == forbidden


def test_a_quiet_default_is_used_only_where_every_moment_is_quiet() -> None:
    assert allowed(np.array([[23, 23, 12], [23, 0, 1]]), (22, 7)).tolist() == [
        [False, False, True],
        [True, False, False],
    ]


def test_nobody_is_sent_in_quiet_hours_whatever_the_arm() -> None:
    ids = [f"s{i}" for i in range(400)]
    at_night = Window(datetime(2026, 6, 1, 1, tzinfo=UTC), 24, (22, 7), "c")
    answer = decided(ids, at_night)
    assert set(answer["arm"].tolist()) == {"exploit", "explore", "holdout"}
    assert all(7 <= hour % 24 < 22 for hour in answer["hour_of_week"])


def test_candidates_are_the_default_and_full_hours_within_the_window() -> None:
    half_past = [instant(m) for m in Window(NINE + timedelta(minutes=30), hours=3).moments()]
    assert [(m.hour, m.minute) for m in half_past] == [(9, 30), (10, 0), (11, 0), (12, 0)]
    assert [instant(m).hour for m in Window(NINE, hours=3).moments()] == [9, 10, 11]


def test_a_night_with_two_three_oclocks_has_every_utc_hour_once() -> None:
    moments = Window(datetime(2026, 10, 24, 23, tzinfo=UTC), hours=5).moments()
    assert len(set(moments.tolist())) == 5
    assert (local_slots(moments, ["Europe/Berlin"])[0] % 24).tolist() == [1, 2, 2, 3, 4]
    spring = Window(datetime(2026, 3, 28, 23, tzinfo=UTC), hours=4).moments()
    assert (local_slots(spring, ["Europe/Berlin"])[0] % 24).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("error", [0.01, 9.0])
@pytest.mark.parametrize("quiet", [None, (22, 7)])
def test_propensities_of_all_moments_sum_to_one(error: float, quiet: tuple[int, int] | None) -> None:
    found = decided(MANY, Window(NINE, 24, quiet, "c"), error)
    by_moment = dict(zip(found["send_at"], found["propensity"], strict=True))
    assert len(by_moment) == (24 if quiet is None else 15)
    assert sum(by_moment.values()) == pytest.approx(1)


def test_arms_are_stable_and_have_their_shares() -> None:
    found = decided(MANY, Window(NINE, campaign_id="c"))
    again = decided(MANY[::-1], Window(NINE, campaign_id="c"))
    assert found["arm"].tolist() == again["arm"].tolist()[::-1]
    shares = {arm: count / len(MANY) for arm, count in Counter(found["arm"].tolist()).items()}
    assert shares == pytest.approx({"exploit": 0.9, "explore": 0.05, "holdout": 0.05}, abs=0.012)
    other = decided(MANY, Window(NINE, campaign_id="d"))
    assert ((found["arm"] == "holdout") == (other["arm"] == "holdout")).all()
    assert ((found["arm"] == "explore") != (other["arm"] == "explore")).any()


def test_what_is_not_surely_better_is_sent_at_the_default_without_gain() -> None:
    found = decided(MANY[:500], Window(NINE), error=9.0)
    exploit = found["arm"] == "exploit"
    assert not found["confident"].any()
    assert {at for at, mine in zip(found["send_at"], exploit, strict=True) if mine} == {NINE}
    for name in ("gain", "gain_low", "gain_high"):
        assert (found[name][exploit] == 0).all()


def test_the_best_hour_is_taken_and_the_interval_holds_the_gain() -> None:
    found = decided(MANY[:500], Window(NINE))
    exploit = found["arm"] == "exploit"
    assert found["confident"][exploit].all()
    assert set(found["hour_of_week"][exploit]) == {44}
    np.testing.assert_allclose(found["gain"][exploit], 1.0)
    assert (found["gain_low"] <= found["gain"]).all()
    assert (found["gain"] <= found["gain_high"]).all()
