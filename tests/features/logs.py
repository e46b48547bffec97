"""Random little logs, a backend over them, and a naive oracle that folds them in plain Python, one event at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from features import event as told
from features.catalogue import (
    AFFINITY_HALF_LIFE_DAYS,
    CONTENT_UNITS,
    DECAYED_TYPES,
    HALF_LIVES_DAYS,
    HOUR_UNITS,
    Attribute,
    Catalogue,
    decayed_name,
)
from features.clock import microseconds
from features.contract import ENGAGEMENT_TYPES, EVENT_SCHEMA, EVENT_TYPES, UTC_MICROSECONDS
from features.judge import judge, table_of
from features.state import States, identity

START = datetime(2026, 3, 20, tzinfo=UTC)
"""Nine days before clocks change in Europe, so that random logs cross the gap."""
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu")
CATALOGUE = Catalogue(
    content=("shoes", "hats"), attributes=(Attribute("age"), Attribute("job", ("cook", "smith"))), timezones=ZONES
)


@dataclass(frozen=True)
class Event:
    event_id: str
    subscriber_id: str
    event_type: str
    occurred_at: datetime
    received_at: datetime
    campaign_id: str | None = None
    content: tuple[str, ...] | None = None
    value: float | None = None
    agent: str = "unknown"
    network: str | None = None
    link: str | None = None

    @property
    def told(self) -> told.Event:
        """The same as the log's own object."""
        fixed = (self.campaign_id, self.content, self.value, self.agent, self.network, self.link)
        occurred, received = microseconds(self.occurred_at), microseconds(self.received_at)
        return told.Event(self.event_id, self.subscriber_id, self.event_type, occurred, received, *fixed)


@dataclass(frozen=True)
class Subscriber:
    subscriber_id: str
    created_at: datetime = START
    timezone: str | None = None
    consent_profiling: bool | None = None
    consent_open_tracking: bool | None = None
    age: float | None = None
    job: str | None = None


@dataclass(frozen=True)
class Log:
    events: tuple[Event, ...] = ()
    subscribers: tuple[Subscriber, ...] = ()
    campaigns: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def connect(self) -> ibis.BaseBackend:
        """A backend with the three views, as the event log gives."""
        con = ibis.duckdb.connect()
        con.raw_sql("SET TimeZone = 'UTC'")
        campaigns = [{"campaign_id": name, "content": list(words)} for name, words in self.campaigns.items()]
        tables = {
            "events": pa.Table.from_pylist([vars(event) for event in self.events], schema=NULLABLE),
            "subscribers": pa.Table.from_pylist([vars(who) for who in self.subscribers], schema=SUBSCRIBER_SCHEMA),
            "campaigns": pa.Table.from_pylist(campaigns, schema=CAMPAIGN_SCHEMA),
        }
        for name, table in tables.items():
            con.create_table(name, ibis.memtable(table))
        return con

    def where(self, **changes: Any) -> Log:
        return replace(self, **changes)


SUBSCRIBER_SCHEMA = pa.schema(
    [
        ("subscriber_id", pa.string()),
        ("created_at", UTC_MICROSECONDS),
        ("timezone", pa.string()),
        ("consent_profiling", pa.bool_()),
        ("consent_open_tracking", pa.bool_()),
        ("age", pa.float64()),
        ("job", pa.string()),
    ]
)
NULLABLE = pa.schema([field.with_nullable(True) for field in EVENT_SCHEMA])
"""As DuckDB sees a Parquet file of events."""
CAMPAIGN_SCHEMA = pa.schema([("campaign_id", pa.string()), ("content", pa.list_(pa.string()))])


def moments() -> st.SearchStrategy[datetime]:
    return st.integers(0, 30 * 86_400_000_000).map(lambda us: START + timedelta(microseconds=us))


@st.composite
def events(draw: st.DrawFn, number: int) -> Event:
    occurred = draw(moments())
    late = draw(st.sampled_from([timedelta(0), timedelta(seconds=3), timedelta(days=2)]))
    return Event(
        event_id=f"e{number}",
        subscriber_id=draw(st.sampled_from(["ann", "bob", "eve"])),
        event_type=draw(st.sampled_from(EVENT_TYPES)),
        occurred_at=occurred,
        received_at=occurred + late,
        campaign_id=draw(st.sampled_from([None, "c1", "c2"])),
        content=draw(st.sampled_from([None, (), ("shoes",), ("shoes", "hats"), ("boats", "hats", "gloves")])),
        value=draw(st.sampled_from([None, 0.0, 19.99, 1e6])),
        agent=draw(st.sampled_from(["unknown", "person", "image_proxy", "prefetch", "scanner"])),
        network=draw(st.sampled_from([None, "public", "datacentre"])),
        link=draw(st.sampled_from([None, "aaa", "unsubscribe", "honeypot"])),
    )


@st.composite
def company(draw: st.DrawFn, event: Event, number: int) -> Event:
    """An event about the same moment: what makes a burst, or the delivery that it follows too fast."""
    occurred = event.occurred_at + timedelta(seconds=draw(st.sampled_from([-400_000, -5, -1, 0, 3, 8])))
    late = draw(st.sampled_from([timedelta(0), timedelta(hours=9), timedelta(days=6)]))
    return replace(
        event,
        event_id=f"beside{number}",
        event_type=draw(st.sampled_from(["sent", "delivered", "open", "click", "click"])),
        occurred_at=occurred,
        received_at=occurred + late,
        campaign_id=draw(st.sampled_from([event.campaign_id, "c1", "c3"])),
        link=draw(st.sampled_from([None, "aaa", "bbb", "unsubscribe", "honeypot"])),
    )


@st.composite
def logs(draw: st.DrawFn, most: int = 25) -> Log:
    count = draw(st.integers(0, most))
    found = [draw(events(number)) for number in range(count)]
    if found and draw(st.booleans()):
        # Ties: two events of one moment.
        found.append(replace(found[0], event_id="tie"))
    beside = draw(st.lists(st.sampled_from(range(count)), max_size=most // 2)) if count else []
    found += [draw(company(found[place], number)) for number, place in enumerate(beside)]
    zones = [None, "Nowhere/Land", *ZONES]
    people = [
        Subscriber(
            name,
            timezone=draw(st.sampled_from(zones)),
            consent_open_tracking=draw(st.sampled_from([None, True, False])),
            age=draw(st.sampled_from([None, 41.5])),
            job=draw(st.sampled_from([None, "cook", "pilot"])),
        )
        for name in ("ann", "bob", "nobody")
    ]
    return Log(tuple(found), tuple(people), {"c1": ("hats",)})


def monday_of(at: datetime) -> datetime:
    """The landmark of a row, unless it is given another."""
    return datetime(at.year, at.month, at.day, tzinfo=UTC) - timedelta(days=at.weekday())


def naive_states(
    log: Log, questions: Sequence[tuple[str, datetime]], landmark: Callable[[datetime], datetime] = monday_of
) -> States:
    """What ``Folder.fold`` must give, worked out the slow and obvious way."""
    states = identity(CATALOGUE, len(questions))
    for row, (who, as_of) in zip(states, questions, strict=True):
        known = [e for e in log.events if e.subscriber_id == who and e.received_at < as_of and e.occurred_at < as_of]
        person = next((s for s in log.subscribers if s.subscriber_id == who), None)
        for event in known:
            _add(row, event, landmark(as_of), naive_human(log, event, as_of), log, person)
        _add_profile(row, person, as_of)
        for name in row.dtype.names:
            if name.endswith("_as_of"):
                row[name] = microseconds(as_of)
            if name.endswith("_decayed_at"):
                row[name] = microseconds(landmark(as_of))
    return states


def naive_human(log: Log, event: Event, as_of: datetime | None = None) -> float:
    """The verdict on one event, of everything about its subscriber that was received before an instant."""
    known = [e for e in log.events if e.subscriber_id == event.subscriber_id and (not as_of or e.received_at < as_of)]
    person = next((s for s in log.subscribers if s.subscriber_id == event.subscriber_id), None)
    refuses = person is not None and person.consent_open_tracking is False
    human = judge([e.told for e in known], table_of(None), refuses)
    return next(h for e, h in zip(known, human, strict=True) if e is event)


def _add(row: Any, event: Event, landmark: datetime, human: float, log: Log, person: Subscriber | None) -> None:
    age = (landmark - event.occurred_at) / timedelta(days=1)
    at = microseconds(event.occurred_at)
    kind, value = event.event_type, event.value or 0.0
    row[f"{kind}_count"] += human
    if human >= 0.5:
        row[f"last_{kind}_at"] = np.fmax(row[f"last_{kind}_at"], at)
        if kind in ENGAGEMENT_TYPES:
            row["first_engagement_at"] = np.fmin(row["first_engagement_at"], at)
    for days in HALF_LIVES_DAYS:
        if kind in DECAYED_TYPES:
            row[decayed_name(kind, days)] += human * 0.5 ** (age / days)
    if kind == "open":
        row["machine_open_count"] += 1 - human
    if kind == "conversion":
        row["conversion_value_sum"] += value
    if kind == "purchase":
        row["purchase_value_sum"] += value
        if human >= 0.5:
            row["first_purchase_at"] = np.fmin(row["first_purchase_at"], at)
        if event.value is not None:
            row["purchase_value_max"] = np.fmax(row["purchase_value_max"], value)
        for days in (30, 90):
            row[decayed_name("purchase_value", days)] += value * 0.5 ** (age / days)
    _add_slots(row, event, human, age, log, person)


def _add_slots(row: Any, event: Event, human: float, age: float, log: Log, person: Subscriber | None) -> None:
    content = event.content if event.content is not None else log.campaigns.get(event.campaign_id or "", ())
    for word in content:
        slot = CATALOGUE.content.index(word) + 1 if word in CATALOGUE.content else 0
        weight = round(human / len(content) * 0.5 ** (age / AFFINITY_HALF_LIFE_DAYS) * CONTENT_UNITS)
        if event.event_type in ENGAGEMENT_TYPES:
            row["content_engaged"][slot] += weight
        if event.event_type == "sent":
            row["content_sent"][slot] += weight
    zone = person.timezone if person is not None and person.timezone in ZONES else "UTC"
    local = event.occurred_at.astimezone(ZoneInfo(zone or "UTC"))
    hour = local.weekday() * 24 + local.hour
    if event.event_type == "sent":
        row["sent_by_hour"][hour] += round(human * HOUR_UNITS)
    if event.event_type in ("open", "click"):
        row["response_by_hour"][hour] += round(human * HOUR_UNITS)
    if event.event_type in ("page_view", "form_submit", "purchase"):
        row["visit_by_hour"][hour] += round(human * HOUR_UNITS)


def _add_profile(row: Any, person: Subscriber | None, as_of: datetime) -> None:
    if person is None or person.created_at > as_of:
        return
    row["created_at"] = microseconds(person.created_at)
    row["timezone"] = ZONES.index(person.timezone) if person.timezone in ZONES else -1
    for consent in ("consent_profiling", "consent_open_tracking"):
        answer = getattr(person, consent)
        row[consent] = -1 if answer is None else int(answer)
    row["profile_age"] = math.nan if person.age is None else person.age
    jobs = {None: -1, "cook": 1, "smith": 2}
    row["profile_job"] = jobs.get(person.job, 0)
