"""The shape of a week, on people whose habits are known."""

from __future__ import annotations

import numpy as np
import pytest

from features.state import States, identity
from models.timing import Timing, learn_timing, personal_attention, shape
from tests.features.logs import CATALOGUE


def week(hours: dict[int, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The same local hours of day on all seven days."""
    days = np.zeros((7, 24))
    for hour, count in hours.items():
        days[:, hour] = count
    return days.ravel()


@pytest.fixture
def people() -> States:
    """Forty who visit in the morning, twenty in the evening, one stranger; mail comes at every hour."""
    states = identity(CATALOGUE, 61)
    states["sent_by_hour"][:60] = 0.5
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
    np.testing.assert_allclose(found.person[60], 0, atol=1e-12)
    assert found.pool_share[60] == 1
    assert (found.pool_share[:60] < 1).all()


def test_who_is_active_in_the_evening_is_lifted_in_the_evening(people: States) -> None:
    found = shape(people, learn_timing(people))
    assert found.person[50, 19] > 0 > found.person[50, 7]
    assert found.person[0, 7] > found.person[50, 7]


def test_a_person_is_the_same_bits_alone_and_among_others(people: States) -> None:
    timing = learn_timing(people)
    together = shape(people, timing)
    for i in (0, 45, 60):
        alone = shape(people[i : i + 1], timing)
        for name in ("person", "person_error", "pool_share"):
            assert getattr(alone, name)[0].tobytes() == getattr(together, name)[i].tobytes(), name
        assert alone.pool.tobytes() == together.pool.tobytes()


def test_the_hour_mail_was_always_sent_at_is_not_mistaken_for_a_habit() -> None:
    states = identity(CATALOGUE, 200)
    states["sent_by_hour"] = week({9: 10})
    waiting = np.exp(-np.arange(24) / 4.0)
    # Attentive at every hour alike: answers come as long as mail waits.
    for k in range(24):
        states["response_by_hour"] += (2 * waiting[k] / waiting.sum() * week({(9 + k) % 24: 1})).astype(np.float32)
    found = shape(states, learn_timing(states))
    assert np.ptp(found.pool) < 0.15
    assert np.abs(found.person).max() < 0.15


def test_without_sends_opens_count_as_visits(people: States) -> None:
    states = people.copy()
    states["response_by_hour"], states["visit_by_hour"], states["sent_by_hour"] = people["visit_by_hour"], 0, 0
    timing = learn_timing(states)
    assert not timing.exposed
    assert shape(states, timing).person[50, 19] > 0


def test_a_timing_survives_its_parameters(people: States) -> None:
    timing = learn_timing(people)
    assert Timing.from_parameters(timing.to_parameters()) == timing
