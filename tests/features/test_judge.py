"""The verdicts of Python and of SQL are the same bits, whatever was received when."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import ibis
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.clock import microseconds
from features.contract import AGENTS, EVENT_TYPES, NETWORKS
from features.event import Event, to_table
from features.evidence import evidence, known
from features.judge import (
    DEFAULT_WEIGHTS,
    HASTES,
    PATTERNS,
    PROGRAM,
    REFUSED,
    REVISED_WITHIN_US,
    WEIGHTS,
    Pattern,
    codes,
    judge,
    table_of,
)
from tests.features.logs import CATALOGUE, NULLABLE, Log, Subscriber

SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
START_US = microseconds(datetime(2026, 3, 1, tzinfo=UTC))
TABLE = table_of(None)

quickly = settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


PEOPLE = [f"p{number}" for number in range(30)]
REFUSING = set(PEOPLE[::5])


def crowd(chance: random.Random) -> list[Event]:
    """Few moments, many events: sends, opens and clicks seconds apart, heard of in any order and up to weeks late."""
    listed = [happened(chance, who, number) for who in PEOPLE for number in range(chance.randrange(1, 25))]
    chance.shuffle(listed)
    return listed


def happened(chance: random.Random, who: str, number: int) -> Event:
    begun = chance.choice([0, 59 * MINUTE, HOUR, DAY, 2 * DAY])
    occurred = START_US + begun + chance.choice([0, 1, SECOND, 3 * SECOND, 9_999_999, 10 * SECOND, 60 * SECOND])
    late = chance.choice([0, 0, 1, 5 * SECOND, HOUR, DAY, 5 * DAY, 5 * DAY + 1, 9 * DAY])
    return Event(
        event_id=f"{who} {number}",
        subscriber_id=who,
        event_type=chance.choice(["sent", "delivered", "open", "open", "click", "click", "click", "purchase"]),
        occurred_us=occurred,
        received_us=occurred + late,
        campaign_id=chance.choice([None, "c1", "c1", "c2", "c3"]),
        agent=chance.choice(AGENTS),
        network=chance.choice([None, *NETWORKS]),
        link=chance.choice([None, "a", "b", "c", "d", "unsubscribe", "honeypot"]),
    )


def told(listed: list[Event]) -> ibis.Table:
    people = tuple(Subscriber(who, consent_open_tracking=who not in REFUSING) for who in PEOPLE)
    con = Log((), people).connect()
    con.raw_sql("drop table events")
    con.create_table("events", ibis.memtable(to_table(listed).cast(NULLABLE)))
    return evidence(con, CATALOGUE)


def of_everybody(listed: list[Event], as_of_us: int) -> dict[str, float]:
    """What Python says of each event that was received before an instant."""
    people: dict[str, list[Event]] = defaultdict(list)
    for event in listed:
        if event.received_us < as_of_us:
            people[event.subscriber_id].append(event)
    return {
        event.event_id: human
        for who, theirs in people.items()
        for event, human in zip(theirs, judge(theirs, TABLE, who in REFUSING), strict=True)
    }


@quickly
@given(st.integers(0, 2**32).map(random.Random))
def test_as_of_any_instant_sql_says_of_every_event_what_python_says(chance: random.Random) -> None:
    listed = crowd(chance)
    table = told(listed).to_pandas()
    received = [event.received_us for event in listed]
    for as_of in (min(received), *(at + 1 for at in chance.sample(received, 40)), max(received) + 400 * DAY):
        superseded = table.superseded_us.notna() & (table.superseded_us < as_of)
        counted = table[(table.judged_us < as_of) & ~superseded]
        assert counted.event_id.is_unique
        assert dict(zip(counted.event_id, counted.human, strict=True)) == of_everybody(listed, as_of)


@quickly
@given(st.integers(0, 2**32).map(random.Random))
def test_a_verdict_is_final_a_week_after_the_event_was_received(chance: random.Random) -> None:
    listed = crowd(chance)
    table = told(listed).to_pandas()
    received = {event.event_id: event.received_us for event in listed}
    assert (table.judged_us - table.event_id.map(received) <= REVISED_WITHIN_US).all()
    assert (table.judged_us >= table.event_id.map(received)).all()
    for event in listed:
        whole = [other for other in listed if other.subscriber_id == event.subscriber_id]
        near = [other for other in whole if abs(other.received_us - event.received_us) <= REVISED_WITHIN_US]
        assert codes(near, False)[near.index(event)] == codes(whole, False)[whole.index(event)]


@quickly
@given(st.integers(0, 2**32).map(random.Random))
def test_once_all_is_received_order_and_lateness_of_up_to_days_change_nothing(chance: random.Random) -> None:
    clean = [replace(event, received_us=event.occurred_us) for event in crowd(chance)]
    messy = [replace(event, received_us=event.occurred_us + chance.randrange(2 * DAY)) for event in clean]
    chance.shuffle(messy)
    end = START_US + 30 * DAY
    assert of_everybody(clean, end) == of_everybody(messy, end)
    table = told(messy)
    standing = table.filter(known(table, end)).to_pandas()
    assert dict(zip(standing.event_id, standing.human, strict=True)) == of_everybody(clean, end)


def event(kind: str, at: int, **more: Any) -> Event:
    received = at + more.pop("late", 0)
    fixed = {"campaign_id": "c1"} | more
    return Event(f"{kind} {at}", "ann", kind, START_US + at, START_US + received, **fixed)


def pattern(listed: list[Event]) -> Pattern:
    """Of the last one."""
    return Pattern.of_code(codes(listed, False)[-1])


@pytest.mark.parametrize(
    ("after", "haste"),
    [
        (-1, "no send known"),
        (0, "under 3 s"),
        (3 * SECOND - 1, "under 3 s"),
        (3 * SECOND, "under 10 s"),
        (10 * SECOND, "under 60 s"),
        (MINUTE, "under 10 min"),
        (10 * MINUTE, "under 1 h"),
        (HOUR, "1 h or later"),
        (2 * DAY - 1, "1 h or later"),
        (2 * DAY, "no send known"),
    ],
)
def test_haste_is_the_time_since_the_latest_delivery(after: int, haste: str) -> None:
    listed = [event("sent", -DAY), event("delivered", 0), event("sent", 90 * DAY), event("open", after)]
    if after < 0:
        listed = listed[1:]
    assert HASTES[pattern(listed).haste] == haste


def test_clicks_on_several_links_about_one_moment_are_a_burst_and_one_link_twice_is_not() -> None:
    clicks = [event("click", 0, link="a"), event("click", SECOND, link="a"), event("click", 2 * SECOND, link="b")]
    assert [Pattern.of_code(code).burst for code in codes(clicks[:2], False)] == [1, 1]
    assert [Pattern.of_code(code).burst for code in codes(clicks, False)] == [2, 2, 2]
    apart = [*clicks, event("click", MINUTE, link="c"), event("click", 1, link="d", campaign_id="c2")]
    assert [Pattern.of_code(code).burst for code in codes(apart, False)] == [2, 2, 2, 1, 1]


def test_a_trap_marks_every_click_about_its_moment() -> None:
    clicks = [event("click", 0, link="a"), event("click", SECOND, link="honeypot")]
    assert [judged < 0.1 for judged in judge(clicks, TABLE, False)] == [True, True]
    assert judge([event("click", 0, link="unsubscribe")], TABLE, False) == [1.0]


def test_a_person_behind_gmails_proxy_stays_a_person() -> None:
    opened = event("open", 20 * SECOND, agent="image_proxy", network="image_proxy")
    assert judge([event("sent", 0), opened], TABLE, False)[1] >= 0.9
    assert judge([event("sent", 0), replace(opened, agent="prefetch", network="prefetch")], TABLE, False)[1] < 0.05


def test_what_a_program_does_is_certain_and_refused_opens_count_for_nothing() -> None:
    assert (TABLE.human[PROGRAM], TABLE.human[REFUSED]) == (1.0, 0.0)
    assert judge([event("open", 0), event("click", 0)], TABLE, True) == [0.0, 1.0]


def test_nothing_known_means_a_person() -> None:
    kinds = {kind: judge([event(kind, 0)], TABLE, False)[0] for kind in EVENT_TYPES}
    assert set(kinds.values()) == {1.0}


def test_every_pattern_has_a_probability_of_its_weights() -> None:
    assert len(TABLE.human) == PATTERNS + 2
    assert np.isfinite(TABLE.human).all() and (TABLE.human >= 0).all() and (TABLE.human <= 1).all()
    assert len(DEFAULT_WEIGHTS) == WEIGHTS
    with pytest.raises(ValueError, match="train again"):
        table_of((0.0,))


def test_a_burst_of_ten_thousand_clicks_takes_no_longer_than_ten_thousand_clicks() -> None:
    burst = [event("click", n, link=f"l{n}", late=n % 977 * SECOND, campaign_id="c1") for n in range(10_000)]
    sends = [event("sent", n - 5_000, late=n % 89 * MINUTE) for n in range(5_000)]
    began = time.perf_counter()
    table = told([*burst, *sends]).to_pandas()
    codes([*burst, *sends], False)
    assert time.perf_counter() - began < 20
    standing = table[table.superseded_us.isna() & (table.event_type == "click")]
    assert len(standing) == 10_000
    assert {Pattern.of_code(code).burst for code in standing.code} == {3}
