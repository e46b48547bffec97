"""One definition of every feature: DuckDB's fold is the naive fold, blind to the future and to order."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.clock import microseconds
from features.derive import derive
from features.fold import Folder, Spine
from features.state import MONEY_QUANTUM, QUANTUM, States, carried, merge
from tests.features.logs import CATALOGUE, START, Event, Log, Subscriber, logs, moments, naive_states

PEOPLE = ("ann", "bob", "eve", "nobody")
# No shrinking: each try folds twice, and a failure would take minutes to become smaller.
slowly = settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def folder_of(log: Log) -> Folder:
    """The evidence on a log's events takes longer than any fold: it is worked out once for all that is asked of it."""
    return Folder(log.connect(), CATALOGUE)


def folded(log: Log | Folder, questions: list[tuple[str, datetime]], landmark: datetime | None = None) -> States:
    spine = Spine(
        pa.array([who for who, _ in questions], pa.string()),
        np.array([microseconds(as_of) for _, as_of in questions], dtype=np.float64),
        None if landmark is None else np.full(len(questions), float(microseconds(landmark))),
    )
    folder = log if isinstance(log, Folder) else folder_of(log)
    return folder.fold(spine)


def assert_close(states: States, expected: States) -> None:
    for name in expected.dtype.names or ():
        # Each event adds at most half a quantum of rounding.
        quantum = MONEY_QUANTUM if "_value_" in name else 1 if name.startswith("content") else QUANTUM
        tolerance = 40 * quantum
        np.testing.assert_allclose(states[name], expected[name], rtol=1e-6, atol=tolerance, err_msg=name)


@slowly
@given(logs(), moments())
def test_the_fold_is_what_a_naive_loop_gives(log: Log, as_of: datetime) -> None:
    questions = [(who, at) for who in PEOPLE for at in (as_of, START + timedelta(days=31))]
    assert_close(folded(log, questions), naive_states(log, questions))


@slowly
@given(logs(), logs(), moments())
def test_nothing_received_from_the_instant_on_changes_a_byte(log: Log, other: Log, as_of: datetime) -> None:
    later = [
        replace(event, event_id=f"later-{event.event_id}", received_at=max(event.received_at, as_of))
        for event in other.events
    ]
    removed = [event for event in log.events if event.received_at < as_of]
    questions = [(who, as_of) for who in PEOPLE]
    before = folded(log, questions).tobytes()
    assert folded(log.where(events=(*log.events, *later)), questions).tobytes() == before
    assert folded(log.where(events=(*removed, *later)), questions).tobytes() == before


@slowly
@given(logs(), st.randoms(use_true_random=False))
def test_order_never_matters(log: Log, chance: random.Random) -> None:
    shuffled = list(log.events)
    chance.shuffle(shuffled)
    questions = [(who, START + timedelta(days=31)) for who in PEOPLE]
    assert folded(log.where(events=tuple(shuffled)), questions).tobytes() == folded(log, questions).tobytes()


@slowly
@given(logs(), st.integers(0, 25))
def test_the_states_of_two_parts_merge_into_the_state_of_the_whole(log: Log, at: int) -> None:
    # Whether a click is a scanner's depends on its send and on other clicks: all must be in one part to compare.
    calm = log.where(events=tuple(replace(event, campaign_id=None, link=None) for event in log.events))
    left, right = calm.where(events=calm.events[:at]), calm.where(events=calm.events[at:])
    questions = [(who, START + timedelta(days=31)) for who in PEOPLE]
    whole, parts = folded(calm, questions), (folded(left, questions), folded(right, questions))
    for merged in (merge(*parts, CATALOGUE), merge(*parts[::-1], CATALOGUE)):
        for name in whole.dtype.names or ():
            np.testing.assert_array_equal(merged[name], whole[name], err_msg=name)


@slowly
@given(logs(), st.floats(0, 60))
def test_a_carried_state_is_the_state_folded_with_a_later_landmark(log: Log, days: float) -> None:
    now = START + timedelta(days=31)
    folder, questions = folder_of(log), [(who, now) for who in PEOPLE]
    later = now + timedelta(days=days)
    moved = carried(folded(folder, questions), CATALOGUE, microseconds(later))
    assert_close(moved, folded(folder, questions, landmark=later))


@slowly
@given(logs(), moments(), st.floats(0, 27), st.floats(0, 60))
def test_what_is_derived_does_not_depend_on_the_landmark(log: Log, as_of: datetime, lead: float, later: float) -> None:
    questions, now = [(who, as_of) for who in PEOPLE], float(microseconds(as_of + timedelta(days=later)))
    folder = folder_of(log)
    usual = derive(folded(folder, questions), now, CATALOGUE)
    other = derive(folded(folder, questions, landmark=as_of - timedelta(days=lead)), now, CATALOGUE)
    for name, left, right in zip(usual.names, usual.matrix.T, other.matrix.T, strict=True):
        if name == "affinity_top":
            continue
        # Terms are rounded, so what is nearly forgotten is known less well.
        tolerance = 1e-3 if "purchase_value" in name else 2e-4 if name.startswith("affinity") else 1e-7
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=tolerance, err_msg=name)


@slowly
@given(logs(), moments(), st.integers(0, 27))
def test_any_landmark_gives_what_a_naive_loop_gives(log: Log, as_of: datetime, lead: int) -> None:
    questions, before = [(who, as_of) for who in PEOPLE], timedelta(days=lead, hours=5)
    expected = naive_states(log, questions, lambda at: at - before)
    assert_close(folded(log, questions, landmark=as_of - before), expected)


def test_a_landmark_too_long_ago_is_refused() -> None:
    with pytest.raises(ValueError, match="too long before"):
        folded(Log(), [("ann", START)], landmark=START - timedelta(days=28))


def test_the_heaviest_event_fits_its_sum() -> None:
    """Almost four weeks after the landmark one event weighs a quarter of a billion in what is halved daily."""
    at = START + timedelta(days=27, hours=23)
    log = Log((Event("e", "ann", "purchase", at, at, value=1e12),), (Subscriber("ann"),))
    row = folded(log, [("ann", at + timedelta(seconds=1))], landmark=START)[0]
    np.testing.assert_allclose(row["purchase_decayed_1d"], 2.0 ** (27 + 23 / 24), rtol=1e-12)
    np.testing.assert_allclose(row["purchase_value_decayed_30d"], 1e12 * 2 ** ((27 + 23 / 24) / 30), rtol=1e-12)


def test_a_question_among_many_is_answered_as_it_is_alone() -> None:
    log = folder_of(
        Log(tuple(Event(f"e{i}", "ann", "click", at := START + timedelta(hours=7 * i), at) for i in range(40)))
    )
    instants = [START + timedelta(days=day) for day in (0, 3, 7, 11)]
    together = folded(log, [(who, at) for at in instants for who in PEOPLE])
    alone = np.concatenate([folded(log, [(who, at)]) for at in instants for who in PEOPLE])
    assert together.tobytes() == alone.tobytes()
    stamps = np.repeat([float(microseconds(at)) for at in instants], len(PEOPLE))
    matrix = derive(together, stamps, CATALOGUE).matrix
    rows = [derive(together[i : i + 1], stamps[i], CATALOGUE).matrix for i in range(len(together))]
    assert np.concatenate(rows).tobytes() == matrix.tobytes()


def test_an_event_at_the_very_instant_is_not_yet_known() -> None:
    log = Log((Event("e", "ann", "click", START, START),), (Subscriber("ann"),))
    now, later = folded(log, [("ann", START), ("ann", START + timedelta(microseconds=1))])
    assert now["click_count"] == 0
    assert later["click_count"] == 1


def test_an_event_that_was_received_late_counts_only_from_then_on() -> None:
    received = START + timedelta(days=3)
    log = Log((Event("e", "ann", "click", START, received),), (Subscriber("ann"),))
    before, after = folded(log, [("ann", received), ("ann", received + timedelta(seconds=1))])
    assert before["click_count"] == 0
    assert after["last_click_at"] == microseconds(START)


def test_local_hours_survive_the_night_clocks_change() -> None:
    # 2026-03-29 in Berlin has no 02:30; 00:30 and 01:30 UTC are 01:30 and 03:30 there.
    nights = [datetime(2026, 3, 29, hour, 30, tzinfo=UTC) for hour in (0, 1)]
    log = Log(
        tuple(Event(f"e{i}", "ann", "page_view", at, at) for i, at in enumerate(nights)),
        (Subscriber("ann", timezone="Europe/Berlin"),),
    )
    visits = folded(log, [("ann", START + timedelta(days=31))])[0]["visit_by_hour"]
    assert np.flatnonzero(visits).tolist() == [6 * 24 + 1, 6 * 24 + 3]


def test_somebody_without_events_or_profile_has_the_identity_and_an_anchor() -> None:
    row = folded(Log((Event("e", "ann", "click", START, START),)), [("stranger", START)])[0]
    assert row["click_count"] == 0
    assert np.isnan(row["created_at"])
    assert row["recency_as_of"] == microseconds(START)


def test_large_amounts_add_up() -> None:
    """Twelve times the most that one event may be worth: beyond 64 bits of quanta."""
    events = tuple(
        Event(f"e{i}", "ann", "purchase", START + timedelta(hours=i), START + timedelta(hours=i), value=1e12)
        for i in range(12)
    )
    row = folded(Log(events, (Subscriber("ann"),)), [("ann", START + timedelta(days=2))])[0]
    assert row["purchase_value_sum"] == 12e12
    assert row["purchase_value_max"] == 1e12
