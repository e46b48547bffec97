"""One event at a time gives the bytes that a fold of all gives, or says that it cannot."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from features.catalogue import CONTENT_UNITS, HALF_LIVES_DAYS
from features.clock import instant, microseconds, utc_offset
from features.event import Event
from features.fold import Folder, Spine
from features.judge import REVISED_WITHIN_US, judge, table_of
from features.live import LONGEST_STAY_US, Outcome, Reviser, hour_of_week
from features.state import CEILINGS, MICROSECONDS_PER_DAY, States, identity, week_of
from tests.features.crowds import CAMPAIGNS, Crowd
from tests.features.logs import CATALOGUE, START, ZONES

TABLE = table_of(None)
NOW = microseconds(START) + 3 * MICROSECONDS_PER_DAY
"""A Monday, midnight."""
SECOND, DAY = 1_000_000, MICROSECONDS_PER_DAY


def folded(crowd: Crowd, questions: list[tuple[str, float, float]]) -> States:
    """As of an instant, at a landmark, for each."""
    names, as_of, landmarks = zip(*questions, strict=True)
    con = crowd.log().connect()
    return Folder(con, CATALOGUE).fold(Spine(pa.array(names), np.array(as_of), np.array(landmarks)))


def reviser() -> Reviser:
    return Reviser(CATALOGUE, TABLE, CAMPAIGNS)


@pytest.mark.parametrize("seed", range(6))
def test_events_brought_in_any_portions_give_the_bytes_of_one_fold(seed: int) -> None:
    crowd, apply = Crowd(seed), reviser()
    began = crowd.events[len(crowd.events) // 3].received_us
    known: defaultdict[str, list[Event]] = defaultdict(list)
    for event in crowd.events:
        if event.received_us < began:
            known[event.subscriber_id].append(event)
    landmark = float(week_of(np.array([float(began)]))[0])
    states = folded(crowd, [(name, float(began), landmark) for name in crowd.names])
    questions, found, outcomes = [], [], Counter[Outcome]()
    there = dict(enumerate(crowd.names))
    new = [event for event in crowd.events if event.received_us >= began]
    while new:
        portion = new[: (size := int(crowd.rng.choice([1, 3, 20, 200])))]
        new = new[size:]
        for event in portion:
            known[event.subscriber_id].append(event)
        for row, name in there.items():
            outcome = apply.revise(states, row, known[name], horizon_us=0)
            outcomes[outcome] += 1
            if outcome is Outcome.REVISED:
                questions.append((name, states["recency_as_of"][row], states["spending_decayed_at"][row]))
                found.append(states[row : row + 1].copy())
        there = {
            row: name for row, name in there.items() if apply.revise(states, row, known[name], 0) is Outcome.AS_IT_WAS
        }
    assert outcomes[Outcome.REVISED] > 10 * outcomes[Outcome.REFOLD]
    expected = folded(crowd, questions)
    live = np.concatenate(found)
    for name in live.dtype.names or ():
        np.testing.assert_array_equal(live[name], expected[name], err_msg=name)
    assert live.tobytes() == expected.tobytes()


# --- the terms ---------------------------------------------------------------------------------------------------------


def test_pythons_exponential_is_duckdbs() -> None:
    rng = np.random.default_rng(0)
    powers = np.concatenate([rng.uniform(-60, 12, 60_000), rng.normal(0, 1, 20_000), rng.uniform(-745, 50, 20_000)])
    with duckdb.connect() as con:
        theirs = con.execute("select exp(unnest($1))", [powers.tolist()]).fetchnumpy()
    assert [math.exp(power) for power in powers.tolist()] == next(iter(theirs.values())).tolist()


def test_rates_of_decay_are_the_same_numbers_in_sql() -> None:
    """Written as decimals, and taken for decimals, they could come back as their neighbours."""
    with duckdb.connect() as con:
        for days in HALF_LIVES_DAYS:
            rate = -math.log(2) / days
            assert con.execute(f"select 1::double * {rate!r}").fetchone() == (rate,)


@pytest.mark.parametrize("zone", [*ZONES, "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca"])
def test_local_hours_are_the_calendars(zone: str) -> None:
    rng = np.random.default_rng(1)
    begin, end = (microseconds(datetime(year, 1, 1, tzinfo=UTC)) for year in (2015, 2028))
    moments = rng.integers(begin, end, 400).tolist()
    # And about every change of clocks of a year.
    hours = [begin + hour * 3_600_000_000 for hour in range(24 * 366)]
    offsets = [utc_offset(zone, instant(at)) for at in hours]
    changes = [at for at, one, other in zip(hours, offsets, offsets[1:], strict=False) if one != other]
    for at in [*moments, *(change + minutes * 60_000_000 for change in changes for minutes in range(-5, 70, 5))]:
        local = instant(at) + utc_offset(zone, instant(at))
        assert hour_of_week(zone, at) == local.weekday() * 24 + local.hour


# --- when a row is not touched -----------------------------------------------------------------------------------------


def row(**fields: object) -> States:
    states = identity(CATALOGUE, 1)
    for name in states.dtype.names or ():
        if name.endswith(("_as_of", "_decayed_at")):
            states[name] = NOW
    states["created_at"] = NOW - DAY
    for name, value in fields.items():
        states[name] = value
    return states


def event(kind: str = "page_view", after_s: float = 1, **fields: object) -> Event:
    at = NOW + int(after_s * SECOND)
    return replace(Event(f"{kind}{after_s}", "ann", kind, at, at), **fields)  # type: ignore[arg-type]


def outcome(states: States, *events: Event, horizon_us: int = 0) -> Outcome:
    before = states.tobytes()
    found = reviser().revise(states, 0, sorted(events, key=lambda e: e.received_us), horizon_us)
    assert (found is Outcome.REVISED) == (states.tobytes() != before)
    return found


def test_an_event_counts_once() -> None:
    states = row()
    assert outcome(states, event()) is Outcome.REVISED
    assert states["page_view_count"][0] == 1
    assert states["recency_as_of"][0] == NOW + SECOND + 1
    assert outcome(states, event()) is Outcome.AS_IT_WAS
    assert outcome(states, event(), event(after_s=2)) is Outcome.REVISED
    assert states["page_view_count"][0] == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"recency_as_of": np.nan},
        {"spending_as_of": NOW - 1},
        {"content_affinity_decayed_at": NOW - DAY},
        {"spending_decayed_at": np.nan},
        {"created_at": np.nan},
        {"created_at": NOW + 1},
        dict.fromkeys(("spending_decayed_at", "engagement_velocity_decayed_at"), NOW - LONGEST_STAY_US)
        | {"content_affinity_decayed_at": NOW - LONGEST_STAY_US},
        {"page_view_decayed_1d": 2.0**21},
    ],
)
def test_a_row_that_is_not_what_a_fold_leaves_is_folded_anew(fields: dict[str, float]) -> None:
    assert outcome(row(**fields), event()) is Outcome.REFOLD


def test_a_row_that_ends_before_the_inbox_begins_is_folded_anew() -> None:
    assert outcome(row(), event(), horizon_us=NOW) is Outcome.REVISED
    assert outcome(row(), event(), horizon_us=NOW + 1) is Outcome.REFOLD


def test_an_open_needs_the_deliveries_of_two_days_in_sight() -> None:
    opened = event("open", campaign_id="c1")
    assert outcome(row(), opened, horizon_us=NOW - 3 * DAY) is Outcome.REVISED
    assert outcome(row(), opened, horizon_us=NOW - DAY) is Outcome.REFOLD
    # What a program does itself needs nobody's word.
    assert outcome(
        row(), event("sent", campaign_id="c1", occurred_us=NOW + 60 * SECOND, after_s=60), horizon_us=NOW
    ) is (Outcome.REVISED)


def test_what_a_full_vector_could_not_hold_it_cannot_give_back() -> None:
    full = np.zeros((1, 168), dtype=np.uint16)
    full[0, hour_of_week("UTC", NOW)] = CEILINGS["<u2"]
    states = row(visit_by_hour=full)
    assert outcome(states, event()) is Outcome.REVISED
    assert states["visit_by_hour"].max() == CEILINGS["<u2"]
    clicks = [
        event("click", after_s=s, campaign_id="c1", link=link, network="public", agent="person")
        for s, link in ((1, "aaa"), (2, "honeypot"))
    ]
    assert judge(clicks[:1], TABLE, False) != judge(clicks, TABLE, False)[:1]
    seen = row()
    assert outcome(seen, clicks[0]) is Outcome.REVISED
    seen["response_by_hour"] = full
    assert outcome(seen, *clicks) is Outcome.REFOLD


def test_the_last_of_its_kind_is_replaced_only_by_one_that_is_known() -> None:
    first = event("click", after_s=-3600, campaign_id="c2", agent="person", network="public")
    clicks = [
        event("click", after_s=s, campaign_id="c1", link=link, agent="person", network="public")
        for s, link in ((1, "aaa"), (2, "honeypot"))
    ]
    states = row(first_engagement_at=NOW - 9 * DAY)
    assert outcome(states, first, clicks[0]) is Outcome.REVISED
    assert states["last_click_at"][0] == clicks[0].occurred_us
    unknown = states.copy()
    assert outcome(states, first, *clicks) is Outcome.REVISED
    assert states["last_click_at"][0] == first.occurred_us
    assert outcome(unknown, *clicks) is Outcome.REFOLD


def test_a_large_amount_is_not_guessed() -> None:
    states = row()
    assert outcome(states, event("purchase", value=1e12)) is Outcome.REFOLD
    assert outcome(states, event("purchase", value=1e9)) is Outcome.REVISED


def test_reach_and_stay_fit_each_other() -> None:
    """A row may have the landmark of its week or of the one before: whoever folds it again has two to try."""
    assert LONGEST_STAY_US == 14 * DAY
    assert timedelta(microseconds=REVISED_WITHIN_US) == timedelta(days=7)
    assert CEILINGS["<u4"] + 1 == CONTENT_UNITS * 2**14
