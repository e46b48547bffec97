"""Kinds of weeks and the waiting of mail, on lists whose habits are known."""

from __future__ import annotations

import numpy as np
import pytest

from models.rhythms import PEOPLE_PER_KIND, History, Waiting, learn_rhythms, spread_hours

HOURS = np.arange(168)


def awake_at(hour: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    apart = np.abs((HOURS % 24 - hour + 12) % 24 - 12)
    bell = 0.05 + np.exp(-0.5 * (apart / 1.5) ** 2)
    return np.asarray(bell / bell.mean())


def visiting(people: int, rng: np.random.Generator) -> History:
    """Half are there in the morning, half in the evening, each with a dozen visits."""
    weeks = np.stack([awake_at((8, 20)[i % 2]) for i in range(people)])
    visits = np.stack([rng.multinomial(12, week / week.sum()) for week in weeks]) * 64.0
    return History(np.zeros(visits.shape), np.zeros(visits.shape), visits)


def test_two_kinds_of_people_are_told_apart() -> None:
    found = learn_rhythms(visiting(2 * PEOPLE_PER_KIND, np.random.default_rng(1)))
    peaks = found.attention.reshape(2, 7, 24).sum(axis=1).argmax(axis=1)
    assert np.abs(np.sort(peaks) - [8, 20]).max() <= 1
    np.testing.assert_allclose(found.shares, 0.5, atol=0.12)


def test_a_small_list_has_one_kind_and_an_empty_one_an_even_week() -> None:
    rng = np.random.default_rng(1)
    assert len(learn_rhythms(visiting(PEOPLE_PER_KIND, rng)).shares) == 1
    nobody = learn_rhythms(visiting(2, rng).take(np.empty(0, dtype=np.int64)))
    np.testing.assert_allclose(nobody.attention, 1)


def test_the_same_people_give_the_same_kinds_bit_for_bit() -> None:
    first, second = (learn_rhythms(visiting(120, np.random.default_rng(1))) for _ in range(2))
    assert first.attention.tobytes() == second.attention.tobytes()
    assert first.waiting == second.waiting


@pytest.mark.parametrize("mean_hours", [1.0, 8.0])
def test_waiting_is_told_apart_from_attention(mean_hours: float) -> None:
    """Mail comes at nine, some of it at any hour; whoever is there in the evening answers then."""
    lags = np.exp(-np.arange(24) / mean_hours)
    waits = Waiting(tuple(lags / lags.sum()), 0.0).spread()
    sent = np.full((200, 168), 0.05)
    sent[:, 9::24] += 4.0
    attention = np.stack([awake_at((9, 20)[i % 2]) for i in range(200)])
    met = sent @ waits * attention
    answers = np.random.default_rng(4).poisson(met / met.sum(axis=1, keepdims=True) * 15)
    found = learn_rhythms(History(np.rint(sent * 64), answers * 64.0, np.zeros(sent.shape))).waiting
    assert sum(found.hours) + found.background == pytest.approx(1)
    assert found.hours[0] == pytest.approx(lags[0] / lags.sum(), abs=0.15)


def test_waiting_carries_a_send_to_the_hours_after_it() -> None:
    spread = Waiting((0.5, 0.3), 0.2).spread()
    np.testing.assert_allclose(spread.sum(axis=1), 1)
    assert spread[167, [167, 0, 1]] == pytest.approx([0.5 + 0.2 / 168, 0.3 + 0.2 / 168, 0.2 / 168])


def test_spreading_keeps_sums_and_goes_around_midnight() -> None:
    hours = np.zeros((2, 48))
    hours[0, 0] = hours[1, 30] = 9.0
    smooth = spread_hours(hours, 3)
    assert smooth[0, [22, 23, 0, 1, 2]].tolist() == [1, 2, 3, 2, 1]
    np.testing.assert_allclose(smooth.sum(axis=1), 9)
    assert smooth[1, :24].sum() == 0
