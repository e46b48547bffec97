"""The shape of a week, on people whose habits are known."""

from __future__ import annotations

import numpy as np
import pytest

from features.catalogue import HOUR_UNITS
from features.state import States, identity
from models.timing import Timing, learn_timing, personal_attention, shape
from tests.features.logs import CATALOGUE


def week(hours: dict[int, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The same local hours of day on all seven days, as they are stored."""
    days = np.zeros((7, 24))
    for hour, count in hours.items():
        days[:, hour] = count * HOUR_UNITS
    return days.ravel()


@pytest.fixture
def people() -> States:
    """Forty who visit in the morning, twenty in the evening, one stranger; mail comes at every hour."""
    states = identity(CATALOGUE, 61)
    states["sent_by_hour"][:60] = 0.5 * HOUR_UNITS
    states["visit_by_hour"][:40] = week({8: 3, 20: 1})
    states["visit_by_hour"][40:60] = week({20: 4})
    return states


def test_attention_is_a_distribution_without_impossible_hours(people: States) -> None:
    for states in (people, people[60:], people[:0]):
        attention = np.asarray(learn_timing(states).attention)
        assert attention.sum() == pytest.approx(1)
        assert (attention > 0).all()
    np.testing.assert_allclose(personal_attention(people, learn_timing(people)).sum(axis=1), 1)


def test_a_stranger_gets_everybodys_week(people: States) -> None:
    found = shape(people, learn_timing(people))
    np.testing.assert_array_equal(found.week().person[60], 0)
    assert found.pool_share[60] == 1
    assert (found.pool_share[:60] < 1).all()


def test_who_is_active_in_the_evening_is_lifted_in_the_evening(people: States) -> None:
    person = shape(people, learn_timing(people)).week().person
    assert person[50, 19] > 0 > person[50, 7]
    assert person[0, 7] > person[50, 7]


def test_a_person_is_the_same_bits_alone_and_among_others(people: States) -> None:
    rng = np.random.default_rng(2)
    for name in ("sent_by_hour", "response_by_hour", "visit_by_hour"):
        people[name][20:40] = rng.integers(0, 65_536, (20, 168))
        people[name][40:60] = rng.integers(0, 200, (20, 168)) * (rng.random((20, 168)) < 0.1)
    timing = learn_timing(people)
    assert timing.exposed
    together = shape(people, timing)
    for i in (0, *range(20, 61)):
        alone = shape(people[i : i + 1], timing)
        assert alone.pool_share.tobytes() == together.pool_share[i : i + 1].tobytes()
        for name in ("pool", "person", "person_error"):
            assert getattr(alone.week(), name)[0].tobytes() == getattr(together.week(), name)[i].tobytes(), name


def test_some_hours_are_those_of_the_week(people: States) -> None:
    found = shape(people, learn_timing(people))
    some = found.at(np.full((61, 2), [3, 167]))
    np.testing.assert_array_equal(some.person, found.week().person[:, [3, 167]])
    np.testing.assert_array_equal(some.pool, found.week().pool[:, [3, 167]])


def test_whole_numbers_give_the_same_week_as_plain_arithmetic(people: States) -> None:
    """The definition itself, without the matrices: sums of what is answered over the hours after a send."""
    timing = learn_timing(people)
    attention, waiting = np.asarray(timing.attention), np.exp(-np.arange(24) / 4.0)
    person = people[50]
    visits = person["visit_by_hour"] / HOUR_UNITS
    # No send was answered: nothing is expected of the chances there were.
    expected = attention * visits.sum()
    kinds = np.arange(168) // 24 >= 5
    relative = np.empty(168)
    for weekend in (False, True):
        binned = [v[kinds == weekend].reshape(-1, 24).sum(axis=0) for v in (visits, expected)]
        smooth = [sum((3 - abs(k)) / 9 * np.roll(b, k) for k in range(-2, 3)) for b in binned]
        ratio = (smooth[0] + timing.strength) / (smooth[1] + timing.strength)
        relative[kinds == weekend] = np.tile(ratio, (kinds == weekend).sum() // 24)
    fares = np.array([sum(waiting[k] * (attention * relative)[(h + k) % 168] for k in range(24)) for h in range(168)])
    pool = np.array([sum(waiting[k] * attention[(h + k) % 168] for k in range(24)) for h in range(168)])
    found = shape(people, timing).week()
    np.testing.assert_allclose(found.pool[50], np.log(pool / pool.mean()), atol=3e-4)
    np.testing.assert_allclose(found.person[50] + found.pool[50], np.log(fares / fares.mean()), atol=3e-4)


def test_the_hour_mail_was_always_sent_at_is_not_mistaken_for_a_habit() -> None:
    states = identity(CATALOGUE, 200)
    states["sent_by_hour"] = week({9: 100})
    waiting = np.exp(-np.arange(24) / 4.0)
    # Attentive at every hour alike: answers come as long as mail waits.
    for k in range(24):
        states["response_by_hour"] += np.rint(20 * waiting[k] / waiting.sum() * week({(9 + k) % 24: 1})).astype(
            np.uint16
        )
    found = shape(states, learn_timing(states)).week()
    assert np.ptp(found.pool) < 0.15
    assert np.abs(found.person).max() < 0.15


def test_without_sends_opens_count_as_visits(people: States) -> None:
    states = people.copy()
    states["response_by_hour"], states["visit_by_hour"], states["sent_by_hour"] = people["visit_by_hour"], 0, 0
    timing = learn_timing(states)
    assert not timing.exposed
    assert shape(states, timing).week().person[50, 19] > 0


def test_a_timing_survives_its_parameters(people: States) -> None:
    timing = learn_timing(people)
    assert Timing.from_parameters(timing.to_parameters()) == timing
