"""What is said of an event: by its agent, by how soon a click came, by what its subscriber allowed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from features.clock import microseconds
from features.contract import EVENT_TYPES
from features.evidence import evidence
from tests.features.logs import CATALOGUE, START, Event, Log, Subscriber, logs, naive_human

SECOND = timedelta(seconds=1)


def told(log: Log) -> dict[str, dict[str, Any]]:
    """What stands once all is received."""
    rows = [row for row in evidence(log.connect(), CATALOGUE).to_pyarrow().to_pylist() if row["superseded_us"] is None]
    assert len(rows) == len(log.events)
    return {row["event_id"]: row for row in rows}


def rows_of(log: Log, event_id: str) -> list[dict[str, Any]]:
    return [row for row in evidence(log.connect(), CATALOGUE).to_pyarrow().to_pylist() if row["event_id"] == event_id]


def human(*events: Event, subscribers: tuple[Subscriber, ...] = ()) -> dict[str, float]:
    return {name: row["human"] for name, row in told(Log(events, subscribers)).items()}


def event(name: str, kind: str, occurred: timedelta = 0 * SECOND, late: timedelta = 0 * SECOND, **more: Any) -> Event:
    at = START + occurred
    return Event(name, more.pop("who", "ann"), kind, at, at + late, more.pop("campaign_id", "c1"), **more)


@settings(max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(logs())
def test_every_event_is_judged_as_the_naive_rule_says(log: Log) -> None:
    expected = {e.event_id: naive_human(log, e) for e in log.events}
    assert {name: row["human"] for name, row in told(log).items()} == pytest.approx(expected)


@pytest.mark.parametrize("agent", ["unknown", "person", "image_proxy", "prefetch", "scanner"])
def test_the_agent_says_who_opened(agent: str) -> None:
    assert (human(event("o", "open", agent=agent))["o"] >= 0.9) == (agent not in ("prefetch", "scanner"))


def test_what_is_no_engagement_is_certain_whatever_the_agent() -> None:
    kinds = [kind for kind in EVENT_TYPES if kind not in ("open", "click", "page_view", "form_submit", "purchase")]
    assert set(human(*(event(kind, kind, agent="scanner") for kind in kinds)).values()) == {1.0}


@pytest.mark.parametrize("kind", ["sent", "delivered"])
def test_a_click_within_ten_seconds_of_its_message_is_a_scanners(kind: str) -> None:
    message = event("m", kind)
    clicks = [event(f"after {n}", "click", n * SECOND) for n in (-1, 0, 9, 10, 60)]
    judged = human(message, *clicks)
    assert {name for name, value in judged.items() if value < 0.5} == {"after 0", "after 9"}


def test_a_click_of_another_campaign_person_or_of_none_is_not_hasty() -> None:
    clicks = [
        event("other campaign", "click", SECOND, campaign_id="c2"),
        event("other person", "click", SECOND, who="bob"),
        event("no campaign", "click", SECOND, campaign_id=None),
    ]
    assert set(human(event("m", "sent"), event("x", "sent", campaign_id=None), *clicks).values()) == {1.0}


def test_a_send_heard_of_after_the_click_changes_the_verdict_from_then_on() -> None:
    click, late = event("k", "click", 5 * SECOND), event("m", "sent", late=60 * SECOND)
    log = Log((click, late))
    rows = sorted(rows_of(log, "k"), key=lambda row: row["judged_us"])
    received = [microseconds(one.received_at) for one in (click, late)]
    assert [(row["judged_us"], row["superseded_us"]) for row in rows] == [
        (received[0], received[1]),
        (received[1], None),
    ]
    assert rows[0]["human"] == 1.0 and rows[1]["human"] < 0.5


def test_many_hasty_matches_leave_one_row_and_the_lower_belief() -> None:
    sends = [event(f"m{n}", "sent", n * SECOND) for n in range(3)]
    assert human(*sends, event("k", "click", 4 * SECOND, agent="scanner"))["k"] < 0.02


def test_opens_of_somebody_who_refused_tracking_count_for_nothing() -> None:
    people = (Subscriber("ann", consent_open_tracking=False), Subscriber("bob", consent_open_tracking=True))
    events = [event(f"{who} {kind}", kind, who=who) for who in ("ann", "bob", "eve") for kind in ("open", "click")]
    judged = human(*events, subscribers=people)
    assert {name for name, value in judged.items() if value == 0} == {"ann open"}


def test_an_event_without_content_concerns_its_campaigns() -> None:
    events = (
        event("theirs", "open"),
        event("own", "open", content=("shoes",)),
        event("own and empty", "open", content=()),
        event("unheard of", "open", campaign_id="c9"),
    )
    contents = {name: row["content"] for name, row in told(Log(events, campaigns={"c1": ("hats",)})).items()}
    assert contents == {"theirs": ["hats"], "own": ["shoes"], "own and empty": [], "unheard of": None}


def test_local_hours_follow_the_persons_zone_and_else_the_lists() -> None:
    noon = datetime(2026, 7, 6, 12, tzinfo=UTC)
    zones = {"a": "Europe/Berlin", "b": "Asia/Kathmandu", "c": "Nowhere/Land", "d": None}
    log = Log(
        tuple(Event(who, who, "click", noon, noon) for who in (*zones, "stranger")),
        tuple(Subscriber(who, timezone=zone) for who, zone in zones.items()),
    )
    assert {name: row["hour_of_week"] for name, row in told(log).items()} == {
        "a": 14,
        "b": 17,
        "c": 12,
        "d": 12,
        "stranger": 12,
    }
