"""Many people's events at once, with everything that real ones bring: late, tied, of machines, in bursts, explained afterwards.

Generated from a seed, because one fold of two hundred people takes as long as one of three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import numpy as np

from features.clock import microseconds
from features.contract import EVENT_TYPES
from features.event import Event
from tests.features.logs import START, ZONES, Log, Subscriber
from tests.features.logs import Event as Told

CAMPAIGNS = {"c1": ("hats",), "c2": (), "c3": ("shoes", "boats", "gloves")}
CONTENT = [None, None, (), ("shoes",), ("shoes", "hats"), ("boats", "hats", "gloves")]
_DAYS = 10
T = TypeVar("T")


class Crowd:
    """Random people and what they do, in the order received; no two events are received at one moment."""

    def __init__(self, seed: int, people: int = 60, events_each: int = 14) -> None:
        self.rng = np.random.default_rng(seed)
        self.names = [f"p{i}" for i in range(people)]
        self.profiles = tuple(self._profile(name) for name in self.names)
        events = [event for name in self.names for event in self._life(name, events_each)]
        events.sort(key=lambda event: (event.received_us, event.event_id))
        # As an inbox counts: each a microsecond after the one before at least.
        last = 0
        self.events: list[Event] = []
        for event in events:
            last = max(event.received_us, last + 1)
            self.events.append(replace(event, received_us=last))

    def log(self, events: list[Event] | None = None) -> Log:
        return Log(tuple(map(told, self.events if events is None else events)), self.profiles, CAMPAIGNS)

    def _profile(self, name: str) -> Subscriber:
        choose = self.rng.choice
        return Subscriber(
            name,
            created_at=START - timedelta(days=30),
            timezone=choose(np.array([None, "Nowhere/Land", *ZONES], dtype=object)),
            consent_open_tracking=choose(np.array([None, True, False], dtype=object)),
            age=choose(np.array([None, 41.5], dtype=object)),
            job=choose(np.array([None, "cook", "pilot"], dtype=object)),
        )

    def _life(self, name: str, count: int) -> list[Event]:
        events: list[Event] = []
        for number in range(self.rng.integers(1, count + 1)):
            event = self._event(f"{name}-{number}", name)
            events.append(event)
            while self.rng.random() < 0.4:
                event = self._beside(event, f"{name}-{number}-{len(events)}")
                events.append(event)
        return events

    def _event(self, event_id: str, name: str) -> Event:
        occurred = microseconds(START) + int(self.rng.integers(0, _DAYS * 86_400_000_000))
        kinds = [*EVENT_TYPES, "open", "open", "click", "click", "sent"]
        return Event(
            event_id,
            name,
            str(self.rng.choice(kinds)),
            occurred,
            occurred + self._late(),
            campaign_id=self._one_of([None, "c1", "c2", "c3", "unknown"]),
            content=self._one_of(CONTENT),
            value=self._one_of([None, 0.0, 19.99, -3.333, 1e6 / 7]),
            agent=self._one_of(["unknown", "unknown", "person", "image_proxy", "prefetch", "scanner"]),
            network=self._one_of([None, "public", "datacentre"]),
            link=self._one_of([None, "aaa", "bbb", "unsubscribe", "honeypot"]),
        )

    def _beside(self, event: Event, event_id: str) -> Event:
        """About the same moment: a burst's next click, the delivery that was reported after it, the very same moment."""
        seconds = self._one_of([-100_000, -50, -5, -1, 0, 0, 1, 3, 8])
        occurred = event.occurred_us + int(seconds * 1_000_000)
        return replace(
            event,
            event_id=event_id,
            event_type=self._one_of(["sent", "delivered", "open", "click", "click", event.event_type]),
            occurred_us=occurred,
            received_us=occurred + self._late(),
            campaign_id=self._one_of([event.campaign_id, event.campaign_id, "c1"]),
            link=self._one_of(["aaa", "bbb", "ccc", "unsubscribe", "honeypot"]),
        )

    def _late(self) -> int:
        return int(self._one_of([0, 0, 0, 3, 40, 3600 * 9, 86_400 * 2, 86_400 * 6]) * 1_000_000)

    def _one_of(self, choices: Sequence[T]) -> T:
        return choices[self.rng.integers(len(choices))]


def told(event: Event) -> Told:
    fixed = (event.campaign_id, event.content, event.value, event.agent, event.network, event.link)
    return Told(
        event.event_id, event.subscriber_id, event.event_type, at(event.occurred_us), at(event.received_us), *fixed
    )


def at(us: int) -> datetime:
    return START + timedelta(microseconds=us - microseconds(START))
