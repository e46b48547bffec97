"""The shape of a week, on people whose habits are known."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from features.catalogue import HOUR_UNITS
from features.state import States, identity
from models.timing import PREFETCH_LEAK, Timing, learn_timing, personal_attention, shape
from tests.features.logs import CATALOGUE

LEAKED = PREFETCH_LEAK / (1 + PREFETCH_LEAK)
"""Of what machines open."""
WAITING = np.exp(-np.arange(24) / 4.0)


def week(hours: dict[int, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The same local hours of day on all seven days, as they are stored."""
    days = np.zeros((7, 24))
    for hour, count in hours.items():
        days[:, hour] = count * HOUR_UNITS
    return days.ravel()


@pytest.fixture(scope="module")
def people() -> States:
    """Forty who visit in the morning, twenty in the evening, one stranger; mail comes at every hour."""
    states = identity(CATALOGUE, 61)
    states["sent_by_hour"][:60] = 0.5 * HOUR_UNITS
    states["visit_by_hour"][:40] = week({8: 3, 20: 1})
    states["visit_by_hour"][40:60] = week({20: 4})
    return states


@pytest.fixture(scope="module")
def timing(people: States) -> Timing:
    return learn_timing(people)


def answering(policy: list[int], habits: list[int], rng: np.random.Generator, sends: int = 60) -> States:
    """People whose attention peaks at an hour of their own, written to at hours of the sender's own choice."""
    states = identity(CATALOGUE, len(policy))
    for person, (sent_at, awake_at) in enumerate(zip(policy, habits, strict=True)):
        apart = np.abs((np.arange(168) % 24 - awake_at + 12) % 24 - 12)
        attention = 0.05 + np.exp(-0.5 * (apart / 1.5) ** 2)
        at_random = rng.random(sends) < 0.25
        hours = rng.integers(7, size=sends) * 24 + np.where(at_random, rng.integers(24, size=sends), sent_at)
        np.add.at(states["sent_by_hour"][person], hours, HOUR_UNITS)
        for hour in hours:
            looks = 0.15 * attention[(hour + np.arange(24)) % 168] * WAITING
            looked = np.flatnonzero(rng.random(24) < looks)
            if len(looked):
                states["response_by_hour"][person, (hour + looked[0]) % 168] += HOUR_UNITS
    return states


def test_attention_is_a_distribution_without_impossible_hours(people: States) -> None:
    for states in (people, people[60:], people[:0]):
        timing = learn_timing(states)
        assert (np.asarray(timing.attention) > 0).all()
        np.testing.assert_allclose(np.mean(timing.attention, axis=1), 1, atol=1e-5)
        assert sum(timing.wait_hours) + timing.wait_background == pytest.approx(1)
        np.testing.assert_allclose(personal_attention(people, timing).sum(axis=1), 1)


def test_a_stranger_gets_everybodys_week(people: States, timing: Timing) -> None:
    found = shape(people, timing)
    np.testing.assert_array_equal(found.week().person[60], 0)
    assert found.pool_share[60] == pytest.approx(1)
    assert (found.pool_share[:60] < 1).all()


def test_who_is_active_in_the_evening_is_lifted_in_the_evening(people: States, timing: Timing) -> None:
    person = shape(people, timing).week().person
    assert person[50, 20] > 0 > person[50, 7]
    assert person[0, 7] > person[50, 7]


def test_a_person_is_the_same_bits_alone_and_among_others(people: States) -> None:
    people, rng = people.copy(), np.random.default_rng(2)
    for name in ("sent_by_hour", "response_by_hour", "visit_by_hour"):
        people[name][20:40] = rng.integers(0, 65_536, (20, 168))
        people[name][40:60] = rng.integers(0, 200, (20, 168)) * (rng.random((20, 168)) < 0.1)
    timing = learn_timing(people)
    assert timing.exposed
    together, here, there = shape(people, timing), np.full(61, 30), np.full(61, 77)
    errors = together.ratio_error(here, there)
    for i in (0, *range(20, 61)):
        alone = shape(people[i : i + 1], timing)
        assert alone.pool_share.tobytes() == together.pool_share[i : i + 1].tobytes()
        assert alone.ratio_error(here[:1], there[:1])[0].tobytes() == errors[i].tobytes()
        for name in ("pool", "person"):
            assert getattr(alone.week(), name)[0].tobytes() == getattr(together.week(), name)[i].tobytes(), name


def test_some_hours_are_those_of_the_week(people: States, timing: Timing) -> None:
    found = shape(people, timing)
    some = found.at(np.full((61, 2), [3, 167]))
    np.testing.assert_array_equal(some.person, found.week().person[:, [3, 167]])
    np.testing.assert_array_equal(some.pool, found.week().pool[:, [3, 167]])


def test_one_persons_shape_serves_for_many(people: States, timing: Timing) -> None:
    one = shape(people[50:51], timing)
    here, there = np.array([20, 21, 8]), np.array([8, 21, 20])
    np.testing.assert_array_equal(
        one.repeated(3).ratio_error(here, there),
        [one.ratio_error(here[i : i + 1], there[i : i + 1])[0] for i in range(3)],
    )


def test_an_hour_is_for_sure_as_good_as_itself_and_more_history_makes_surer(people: States, timing: Timing) -> None:
    found = shape(people, timing)
    errors = found.ratio_error(np.full(61, 20), np.full(61, 8))
    np.testing.assert_array_equal(found.ratio_error(np.full(61, 20), np.full(61, 20)), 0)
    assert (errors[:60] < errors[60]).all()


def test_whole_numbers_give_the_same_week_as_plain_arithmetic(people: States, timing: Timing) -> None:
    """The definition itself, without the matrices: kinds by their likelihood, days, hours, what is met after a send."""
    attention, shares = np.asarray(timing.attention), np.asarray(timing.shares)
    visits = np.asarray(people["visit_by_hour"][50] / HOUR_UNITS, dtype=np.float64) ** timing.visit_power
    likelihood = timing.evidence_weight * (np.log(attention) @ visits) + np.log(shares)
    kinds = np.exp(likelihood - likelihood.max())
    mine = kinds / kinds.sum() @ attention
    by_day, by_hour = (visits.reshape(7, 24).sum(axis=axis) for axis in (1, 0))
    expected = visits.sum() * mine / 168
    day = (by_day + timing.day_strength) / (expected.reshape(7, 24).sum(axis=1) + timing.day_strength)
    smooth = [
        sum((3 - abs(k)) / 9 * np.roll(h, k) for k in range(-2, 3))
        for h in (by_hour, expected.reshape(7, 24).sum(axis=0))
    ]
    hour = (smooth[0] + timing.hour_strength) / (smooth[1] + timing.hour_strength)
    wanted = (mine.reshape(7, 24) * day[:, None] * hour).ravel()
    np.testing.assert_allclose(personal_attention(people, timing)[50], wanted / wanted.sum(), rtol=1e-3)


def test_the_hour_mail_was_always_sent_at_is_not_mistaken_for_a_habit() -> None:
    states = identity(CATALOGUE, 200)
    states["sent_by_hour"] = week({9: 100})
    # Attentive at every hour alike: answers come as long as mail waits.
    for k in range(24):
        states["response_by_hour"] += np.rint(20 * WAITING[k] / WAITING.sum() * week({(9 + k) % 24: 1})).astype(
            np.uint16
        )
    found = shape(states, learn_timing(states)).week()
    # The answers of two hours differ by a factor of 400.
    assert np.ptp(found.pool) < 0.4
    assert np.abs(found.person).max() < 0.15


def test_planted_peaks_are_found_whatever_the_sender_did() -> None:
    habits = [8, 13, 20] * 80
    rng = np.random.default_rng(5)
    for policy in ([9] * 240, [10] * 120 + [18] * 120, habits):
        states = answering(policy, habits, rng)
        # A send is best a little before somebody looks; the sender's own hours do not matter.
        best = shape(states, learn_timing(states)).week()
        found = (best.pool + best.person).reshape(-1, 7, 24).mean(axis=1).argmax(axis=1)
        off = np.abs((found - np.array(habits) + 13) % 24 - 12)
        assert np.median(off) <= 1
        assert (off <= 3).mean() > 0.75


def test_how_long_mail_waits_is_read_from_the_answers() -> None:
    rng = np.random.default_rng(6)
    states = answering([9] * 300, [8, 13, 17, 21] * 75, rng)
    waited = np.cumsum(learn_timing(states).wait_hours)
    assert waited[[0, 3, 7]] == pytest.approx(np.cumsum(WAITING)[[0, 3, 7]] / WAITING.sum(), abs=0.12)


def test_the_page_behind_a_link_is_no_visit_of_its_own(people: States, timing: Timing) -> None:
    clicked = people.copy()
    clicked["response_by_hour"][:60] = week({9: 1})
    landed = clicked.copy()
    landed["visit_by_hour"][:60] = np.maximum(clicked["visit_by_hour"][:60], week({9: 1}))
    np.testing.assert_array_equal(shape(clicked, timing).week().person, shape(landed, timing).week().person)


def test_machine_opens_leave_no_trace_where_mail_is_sent(people: States, timing: Timing) -> None:
    fetched = people.copy()
    fetched["sent_by_hour"][:60] = week({9: 10})
    plain = shape(fetched, timing).week().person
    fetched["response_by_hour"][:60] += np.rint(week({9: 10}) * LEAKED).astype(np.uint16)
    fetched["machine_open_count"][:60] = 70 * (1 - LEAKED)
    assert np.abs(shape(fetched, timing).week().person - plain).max() < 0.02


def test_without_sends_opens_count_as_visits_and_a_send_fares_as_attention_does(people: States) -> None:
    states = people.copy()
    states["response_by_hour"], states["visit_by_hour"], states["sent_by_hour"] = people["visit_by_hour"], 0, 0
    timing = learn_timing(states)
    assert not timing.exposed
    week = shape(states, timing).week()
    assert week.person[50, 20] > 0
    fares = np.exp(week.pool + week.person)
    np.testing.assert_allclose(fares / fares.sum(axis=1, keepdims=True), personal_attention(states, timing), rtol=1e-4)


def test_a_timing_survives_its_parameters(timing: Timing) -> None:
    assert Timing.from_parameters(orjson.loads(orjson.dumps(timing.to_parameters()))) == timing
