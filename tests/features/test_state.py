"""The algebra of states: what merge and carrying promise, on random rows."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.catalogue import DECAYED_VIEWS, VIEWS, Catalogue, Fold, as_of_name, decayed_at_name
from features.state import CEILINGS, HOUR_CEILING, MICROSECONDS_PER_DAY, QUANTUM, States, carried, identity, merge
from tests.features.logs import CATALOGUE

NOW = 1.7e15
ROWS = 5
seeds = st.integers(0, 2**32 - 1)
often = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def random_states(seed: int, landmark: float = NOW, catalogue: Catalogue = CATALOGUE) -> States:
    """Rows as a fold could have left them: sums in whole quanta, about a third of the rest unknown."""
    rng = np.random.default_rng(seed)
    states = identity(catalogue, ROWS)
    for field in catalogue.fields:
        shape = states[field.name].shape
        unknown = rng.random(shape) < 0.3
        if field.dtype in CEILINGS:
            # By hour, two together are now and then more than fits.
            most = HOUR_CEILING + 1 if field.dtype == "<u2" else 2**30
            states[field.name] = np.where(unknown, 0, rng.integers(0, most, shape))
        elif field.fold in (Fold.SUM, Fold.DECAYED):
            states[field.name] = np.where(unknown, 0, rng.integers(0, 2**40, shape) * QUANTUM)
        elif field.missing == -1:
            states[field.name] = np.where(unknown, -1, rng.integers(0, 4, shape))
        else:
            states[field.name] = np.where(unknown, np.nan, rng.integers(0, 10**15, shape))
    for view in VIEWS:
        states[as_of_name(view)] = landmark + 1e9
    for view in DECAYED_VIEWS:
        states[decayed_at_name(view)] = landmark
    return states


def assert_same(left: States, right: States) -> None:
    for name in left.dtype.names or ():
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def assert_close(left: States, right: States) -> None:
    for name in left.dtype.names or ():
        # Carrying rounds to whole units of content.
        units = 2 if name.startswith("content") else 0
        np.testing.assert_allclose(left[name], right[name], rtol=1e-12, atol=units, err_msg=name)


@often
@given(seeds, seeds)
def test_either_side_may_come_first(one: int, other: int) -> None:
    left, right = random_states(one), random_states(other)
    assert_same(merge(left, right, CATALOGUE), merge(right, left, CATALOGUE))


@often
@given(seeds, seeds)
def test_either_side_may_come_first_at_different_landmarks_too(one: int, other: int) -> None:
    left, right = random_states(one), random_states(other, NOW + 3.5 * MICROSECONDS_PER_DAY)
    assert_same(merge(left, right, CATALOGUE), merge(right, left, CATALOGUE))


@often
@given(seeds, seeds, seeds)
def test_three_may_be_merged_in_any_grouping(one: int, two: int, three: int) -> None:
    a, b, c = random_states(one), random_states(two), random_states(three)
    assert_same(merge(merge(a, b, CATALOGUE), c, CATALOGUE), merge(a, merge(b, c, CATALOGUE), CATALOGUE))


def test_vectors_stay_at_the_most_they_can_hold() -> None:
    full = identity(CATALOGUE, 1)
    for field in CATALOGUE.fields:
        if field.dtype in CEILINGS:
            full[field.name] = CEILINGS[field.dtype] - 1
    merged = merge(full, full, CATALOGUE)
    for field in CATALOGUE.fields:
        if field.dtype in CEILINGS:
            assert (merged[field.name] == CEILINGS[field.dtype]).all()
            assert merged[field.name].dtype == np.dtype(field.dtype)


@often
@given(seeds)
def test_merging_with_nobody_changes_nothing(seed: int) -> None:
    states, nobody = random_states(seed), identity(CATALOGUE, ROWS)
    assert merge(states, nobody, CATALOGUE).tobytes() == states.tobytes()
    assert merge(nobody, states, CATALOGUE).tobytes() == states.tobytes()
    assert merge(nobody, nobody, CATALOGUE).tobytes() == nobody.tobytes()


@often
@given(seeds, st.floats(0, 400), st.floats(0, 400))
def test_carrying_twice_is_carrying_once(seed: int, first: float, second: float) -> None:
    states = random_states(seed)
    halfway, end = NOW + first * MICROSECONDS_PER_DAY, NOW + (first + second) * MICROSECONDS_PER_DAY
    assert_close(carried(carried(states, CATALOGUE, halfway), CATALOGUE, end), carried(states, CATALOGUE, end))


@often
@given(seeds, seeds, st.floats(0, 400))
def test_carrying_and_merging_may_change_places(one: int, other: int, days: float) -> None:
    left, right, later = random_states(one), random_states(other), NOW + days * MICROSECONDS_PER_DAY
    after = carried(merge(left, right, CATALOGUE), CATALOGUE, later)
    assert_close(after, merge(carried(left, CATALOGUE, later), carried(right, CATALOGUE, later), CATALOGUE))


@often
@given(seeds)
def test_carrying_to_where_it_is_changes_no_bit_and_never_the_row_given(seed: int) -> None:
    states = random_states(seed)
    before = states.tobytes()
    assert carried(states, CATALOGUE, NOW).tobytes() == before
    carried(states, CATALOGUE, NOW + MICROSECONDS_PER_DAY)
    merge(states, random_states(seed + 1, NOW + MICROSECONDS_PER_DAY), CATALOGUE)
    assert states.tobytes() == before


def test_one_half_life_halves_and_counts_stay() -> None:
    states = random_states(1)
    later = carried(states, CATALOGUE, NOW + 7 * MICROSECONDS_PER_DAY)
    np.testing.assert_array_equal(later["click_decayed_7d"], states["click_decayed_7d"] / 2)
    np.testing.assert_array_equal(later["click_count"], states["click_count"])
    np.testing.assert_array_equal(later["recency_as_of"], states["recency_as_of"])
    np.testing.assert_array_equal(later["spending_decayed_at"], np.full(ROWS, NOW + 7 * MICROSECONDS_PER_DAY))


def test_every_row_may_be_carried_to_its_own_instant() -> None:
    states, instants = random_states(2), NOW + np.arange(ROWS) * MICROSECONDS_PER_DAY
    together = carried(states, CATALOGUE, instants)
    alone = np.concatenate([carried(states[i : i + 1], CATALOGUE, instants[i]) for i in range(ROWS)])
    assert together.tobytes() == alone.tobytes()


def test_the_profile_of_the_newer_side_wins_unless_it_does_not_know() -> None:
    old, new = random_states(3), random_states(4, NOW + MICROSECONDS_PER_DAY)
    old["profile_age"], new["profile_age"] = 90, [20, 20, np.nan, np.nan, 20]
    for merged in (merge(old, new, CATALOGUE), merge(new, old, CATALOGUE)):
        np.testing.assert_array_equal(merged["profile_age"], [20, 20, 90, 90, 20])
