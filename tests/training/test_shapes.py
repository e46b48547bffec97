"""What the hour of a send is worth, from sends to people whose habits are known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from features.catalogue import HOUR_UNITS
from features.state import identity
from models.timing import shape
from tests.features.logs import CATALOGUE
from training.dataset import Dataset, Rows, dataset
from training.shapes import latest_states, learn_shapes, logistic_posterior, offsets, stamped_with_sends

PEOPLE, SENDS = 200, 12


def made(turned: bool = False) -> Dataset:
    """Morning and evening people, known from their visits, who answer mail that comes in their hours (or just not then)."""
    rng = np.random.default_rng(9)
    who = np.tile(np.arange(PEOPLE), SENDS)
    peak = np.where(who % 2 == 0, 8, 20)
    states = identity(CATALOGUE, len(who))
    for hour in (7, 8, 9, 19, 20, 21):
        near = np.abs(hour - peak) <= 1
        states["visit_by_hour"][near, hour::24] = HOUR_UNITS
    states["sent_by_hour"] = HOUR_UNITS // 8
    slot = rng.integers(168, size=len(who))
    near = np.abs((slot % 24 - peak + 12) % 24 - 12) <= 3
    label = (rng.random(len(who)) < np.where(near != turned, 0.6, 0.2)).astype(np.float64)
    as_of = 1.7e15 + np.arange(len(who)) * 3.6e9
    ids, events = (pa.array([f"{kind}{i}" for i in numbers]) for kind, numbers in (("s", who), ("e", range(len(who)))))
    rows = Rows(ids, as_of, as_of, label, events, slot, np.arange(len(who)) // PEOPLE)
    return dataset(rows, states, CATALOGUE)


def test_sends_in_a_persons_hours_are_worth_more() -> None:
    data = made()
    timing = learn_shapes(data, np.arange(len(data.rows)))
    assert timing.person_weight > 0
    assert timing.person_weight_error > 0
    worth = offsets(data, timing)
    assert worth[data.rows.label == 1].mean() > worth[data.rows.label == 0].mean() + 0.2
    alone = shape(data.states[:1], timing).at(data.rows.slot[:1, None]) if data.rows.slot is not None else None
    assert alone is not None
    assert worth[0] == alone.log_odds(timing)[0, 0]


def test_nobody_is_sent_to_their_worst_hour() -> None:
    data = made(turned=True)
    assert learn_shapes(data, np.arange(len(data.rows))).person_weight == 0


def test_that_one_campaign_was_answered_more_says_nothing_of_its_hour() -> None:
    data = made()
    slot, campaign = data.rows.slot, data.rows.campaign
    assert slot is not None and campaign is not None
    # Each goes to everybody at once, by turns in the morning and in the night; those of the morning are simply better.
    slot[:] = np.where(campaign % 2 == 0, 8, 3)
    data.rows.label[:] = np.random.default_rng(4).random(len(slot)) < np.where(campaign % 2 == 0, 0.7, 0.1)
    assert learn_shapes(data, np.arange(len(slot))).pool_weight == pytest.approx(1.0, abs=0.1)


def test_answers_stamped_with_the_hour_of_the_send_tell_of_no_hour() -> None:
    data = made()
    data.states["visit_by_hour"] = 0
    data.states["sent_by_hour"] = 0
    data.states["sent_by_hour"][:, 9:60:24] = 4 * HOUR_UNITS
    data.states["response_by_hour"][:, 9:60:24] = HOUR_UNITS
    assert stamped_with_sends(data.states)
    timing = learn_shapes(data, np.arange(len(data.rows)))
    assert (timing.pool_weight, timing.person_weight) == (0, 0)
    data.states["response_by_hour"][:, 11:60:24] = HOUR_UNITS
    assert not stamped_with_sends(data.states)


def test_shapes_read_the_last_state_of_each_person_among_the_rows() -> None:
    data = made()
    data.states["click_count"] = np.arange(len(data.rows))
    latest = latest_states(data, np.arange(2 * PEOPLE))
    assert sorted(latest["click_count"].tolist()) == list(range(PEOPLE, 2 * PEOPLE))


def test_a_prior_holds_where_nothing_was_seen_and_data_overrule_it() -> None:
    rng = np.random.default_rng(3)
    design = np.column_stack([np.ones(4000), rng.normal(size=4000), np.zeros(4000)])
    label = (rng.random(4000) < 1 / (1 + np.exp(1 - 2 * design[:, 1]))).astype(np.float64)
    slope, error = logistic_posterior(design, label, np.array([0.0, 0.0, 1.0]), np.array([9.0, 9.0, 0.5]))
    assert slope == pytest.approx([-1, 2, 1], abs=0.2)
    assert error[2] == pytest.approx(0.5)
