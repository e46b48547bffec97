"""Derived features: by hand for a few, by property for all."""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.catalogue import CONTENT_UNITS, HOUR_UNITS, Attribute, Catalogue
from features.clock import microseconds
from features.derive import categorical_names, derive, feature_names, last_engagement_at
from features.state import MICROSECONDS_PER_DAY, States, identity
from tests.features.logs import CATALOGUE, START, Log, logs, moments, naive_states
from tests.features.test_state import NOW, random_states

HOUR, DAY = MICROSECONDS_PER_DAY / 24, MICROSECONDS_PER_DAY


def one(**fields: object) -> States:
    states = identity(CATALOGUE, 1)
    for name in states.dtype.names or ():
        if name.endswith(("_as_of", "_decayed_at")):
            states[name] = NOW
    for name, value in fields.items():
        states[name] = value
    return states


def value_of(states: States, feature: str, as_of: float = NOW) -> float:
    return float(derive(states, as_of, CATALOGUE).column(feature)[0])


def test_the_columns_are_the_names_in_order() -> None:
    features = derive(random_states(0), NOW, CATALOGUE)
    assert features.names == feature_names(CATALOGUE)
    assert features.matrix.shape == (5, len(features.names))
    assert features.matrix.dtype == np.float64
    assert len(set(features.names)) == len(features.names)
    assert set(features.categorical) == set(categorical_names(CATALOGUE)) <= set(features.names)


def test_ages_are_taken_at_the_moment_of_use() -> None:
    states = one(last_click_at=NOW - 5 * HOUR, created_at=NOW - 3 * DAY)
    assert value_of(states, "hours_since_last_click") == 5
    assert value_of(states, "hours_since_last_click", NOW + 2 * DAY) == 53
    assert value_of(states, "hours_since_last_engagement") == 5
    assert value_of(states, "tenure_days") == 3


def test_what_never_happened_has_no_age_and_what_lies_ahead_has_age_zero() -> None:
    assert math.isnan(value_of(one(), "hours_since_last_click"))
    assert value_of(one(last_click_at=NOW + DAY), "hours_since_last_click") == 0


def test_rates_count_one_send_more() -> None:
    states = one(sent_count=3, click_count=2, open_count=1, machine_open_count=2)
    assert value_of(states, "click_rate_ever") == 0.5
    assert value_of(states, "click_to_open_rate_ever") == 1
    assert value_of(states, "machine_open_rate_ever") == 0.5
    assert value_of(one(), "click_rate_ever") == 0
    weekly = one(sent_decayed_7d=1.0, click_decayed_7d=1.0)
    assert value_of(weekly, "click_rate_7d") == 0.5
    assert value_of(weekly, "click_rate_7d", NOW + 7 * DAY) == pytest.approx(0.5 / 1.5)


def test_a_send_of_the_last_days_is_no_failure_yet() -> None:
    states = one(sent_count=4, open_count=2, last_sent_at=NOW - 9 * DAY)
    assert value_of(states, "open_rate_settled_ever") == pytest.approx(2.2 / 5)
    assert value_of(one(sent_count=4, open_count=2, last_sent_at=NOW - DAY), "open_rate_settled_ever") == pytest.approx(
        2.2 / 4
    )
    assert value_of(one(), "open_rate_settled_ever") == 0.2
    assert value_of(one(), "click_rate_settled_90d") == 0.05


def test_what_a_young_send_adds_to_the_decayed_sends_is_left_out() -> None:
    young = one(sent_decayed_30d=1.5, open_decayed_30d=0.5, last_sent_at=NOW - 3 * DAY)
    assert value_of(young, "open_rate_settled_30d") == pytest.approx(0.7 / (1.5 - 2 ** (-3 / 30) + 1))


def test_a_steady_rate_has_velocity_zero_and_a_spurt_a_positive_one() -> None:
    steady = {f"click_decayed_{days}d": 2 * days / math.log(2) for days in (1, 7, 30, 90)}
    assert value_of(one(**steady), "click_velocity_7d_90d") == pytest.approx(0)
    assert value_of(one(), "click_velocity_7d_90d") == 0
    spurt = steady | {"click_decayed_7d": 2 * steady["click_decayed_7d"]}
    assert value_of(one(**spurt), "click_velocity_7d_90d") == pytest.approx(1, abs=0.01)


def test_silence_is_counted_in_the_persons_own_gaps() -> None:
    habit = one(purchase_count=3, first_purchase_at=NOW - 50 * DAY, last_purchase_at=NOW - 30 * DAY)
    assert value_of(habit, "purchase_silence_ratio") == pytest.approx(3)
    assert math.isnan(value_of(one(purchase_count=1, last_purchase_at=NOW), "purchase_silence_ratio"))


def test_money_has_a_mean_only_when_something_was_bought() -> None:
    assert value_of(one(purchase_value_sum=30, purchase_count=2), "purchase_value_mean") == 15
    assert math.isnan(value_of(one(), "purchase_value_mean"))


def test_affinity_is_a_share_and_what_nobody_listed_is_unlisted() -> None:
    engaged = np.zeros((1, 32))
    engaged[0, [0, 1, 2, 9]] = 1, 5, 2, 1
    states = one(content_engaged=engaged * CONTENT_UNITS)
    assert value_of(states, "affinity_[shoes]") == 0.5
    assert value_of(states, "affinity_unlisted") == pytest.approx(0.2)
    assert value_of(states, "affinity_top") == 1
    assert value_of(one(), "affinity_top") == -1
    assert value_of(states, "affinity_[shoes]", NOW + 90 * DAY) == 2.5 / 5.5


def test_hours_of_the_day_are_shares_of_activity() -> None:
    hours = np.zeros((1, 168))
    hours[0, [19, 5 * 24 + 20]] = 2 * HOUR_UNITS, HOUR_UNITS
    states = one(response_by_hour=hours)
    assert value_of(states, "active_evening_rate") == 0.75
    assert value_of(states, "active_weekend_rate") == 0.25
    assert value_of(states, "active_morning_rate") == 0


def test_a_category_the_catalogue_does_not_know_is_other() -> None:
    assert value_of(one(profile_job=2), "profile_job") == 2
    assert value_of(one(profile_job=3), "profile_job") == 0
    assert value_of(one(profile_job=-1), "profile_job") == -1
    assert value_of(one(timezone=3), "timezone") == 3
    assert value_of(one(timezone=4), "timezone") == -1


def test_rows_of_a_grown_catalogue_can_be_read_under_the_older_one() -> None:
    words, zones = ["coats", "bags"], ["Asia/Tokyo"]
    grown = CATALOGUE.grown(words, [Attribute("job", ("baker",)), Attribute("height")], zones)
    states = random_states(8, catalogue=grown)
    states["profile_job"], states["timezone"] = 3, 4
    engaged = np.zeros((5, 32))
    engaged[:, 3] = CONTENT_UNITS
    states["content_engaged"] = engaged
    features = derive(states, NOW, CATALOGUE)
    assert features.names == feature_names(CATALOGUE)
    assert set(features.column("profile_job")) == {0}
    assert set(features.column("timezone")) == {-1}
    assert set(features.column("affinity_unlisted")) == {0.5}
    assert set(features.column("affinity_top")) == {0}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1), st.floats(-400, 4000))
def test_everything_is_finite_or_unknown_and_no_row_depends_on_another(seed: int, days: float) -> None:
    states, at = random_states(seed), NOW + days * DAY
    before = states.tobytes()
    matrix = derive(states, at, CATALOGUE).matrix
    assert not np.isinf(matrix).any()
    alone = [derive(states[i : i + 1], at, CATALOGUE).matrix for i in range(len(states))]
    assert np.concatenate(alone).tobytes() == matrix.tobytes()
    backwards = derive(states[::-1], at, CATALOGUE).matrix[::-1]
    assert backwards.tobytes() == matrix.tobytes()
    assert states.tobytes() == before


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logs(), moments())
def test_rates_and_shares_of_a_real_log_lie_between_their_ends(log: Log, as_of: datetime) -> None:
    states = naive_states(log, [(who, as_of) for who in ("ann", "bob", "nobody")])
    features = derive(states, float(microseconds(as_of)), CATALOGUE)
    for name, column in zip(features.names, features.matrix.T, strict=True):
        if name.startswith(("affinity_[", "affinity_u", "affinity_c", "active_", "machine_open_rate")):
            assert ((column >= 0) & (column <= 1 + 1e-9)).all(), name
        if name.startswith(("hours_since", "days_since", "tenure")):
            assert not (column < 0).any(), name
    latest = [
        max((e.occurred_at for e in log.events if e.subscriber_id == "ann"), default=START).timestamp() * 1e6,
    ]
    assert not (last_engagement_at(states)[:1] > latest).any()


def test_nobody_at_all_gives_a_matrix_without_rows() -> None:
    assert derive(identity(Catalogue(), 0), 0.0, Catalogue()).matrix.shape == (0, len(feature_names(Catalogue())))


def test_a_stranger_is_unknown_not_zero_days_old() -> None:
    row = derive(identity(CATALOGUE, 1), NOW, CATALOGUE)
    assert math.isnan(row.column("tenure_days")[0])
    assert row.column("engagement_count")[0] == 0
