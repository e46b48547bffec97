"""An event into a row: what one subscriber's new events change of their state, without looking at the others.

What enters: a row, and the events of its subscriber that are known. What leaves: the row as a fold of all events up to the last
of them would give it, at the same landmark, byte for byte; or the word that this row must be folded anew. The promise: a row
says itself what it knows (``*_as_of``), so an event that is applied twice, by whomever, counts once.

A new event may also change what is thought of an earlier one: a burst's second click, a delivery that was reported late. So the
events of a week are judged twice, without the new ones and with them, and where the two differ the old contribution is
taken away and the new one added. All are whole numbers of some quantum, so that neither leaves a trace of rounding.

A row must be folded anew (``Outcome.REFOLD``)

- when it is not a fold's: never written, its views of different moments, or created later than it is as of;
- when it ends before all that came after it is among the events given;
- when its landmark lies ``LONGEST_STAY`` back: late events would weigh more and more;
- when events that bear on the judgement are not among those given;
- when the latest (or earliest) event of a kind turns out to be a machine's, and the one before it is not among those given;
- when a sum leaves the whole numbers that a float64 can tell apart (two million events, eight billion in money), or a vector
  would have to give back something of what it could not hold. A vector at its ceiling that only grows stays there.

Until then ``guess`` takes the events in as well as they can be judged here, so that the next score need not wait for the fold.
A guessed row says so itself: its profile is as of an earlier moment than the rest, so it is no fold's.

Terms are DuckDB's to the bit: the same operations in the same order, ``math.exp`` for its ``exp`` (numpy's differs for one
number in 20), halves rounded away from zero.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.catalogue import (
    AFFINITY_HALF_LIFE_DAYS,
    CONTENT_UNITS,
    DECAYED_TYPES,
    DECAYED_VIEWS,
    HALF_LIVES_DAYS,
    HOUR_UNITS,
    VIEWS,
    Catalogue,
    as_of_name,
    decayed_at_name,
    decayed_name,
)
from features.clock import HOURS_TO_FIRST_MONDAY, MICROSECONDS_PER_HOUR, utc_offsets
from features.contract import ENGAGEMENT_TYPES, EVENT_TYPES, HOURS_OF_WEEK, RESPONSE_TYPES, VISIT_TYPES
from features.event import Event
from features.judge import (
    CELL_US,
    DELIVERY_TYPES,
    HASTE_REACH_US,
    HUMAN_THRESHOLD,
    REVISED_WITHIN_US,
    HumanTable,
    is_prompt,
    judge,
)
from features.state import (
    CEILINGS,
    LONGEST_LEAD_DAYS,
    MICROSECONDS_PER_DAY,
    MONEY_QUANTUM,
    QUANTUM,
    States,
    week_of,
    words,
)

LONGEST_STAY_US = 14 * MICROSECONDS_PER_DAY
"""How long after its landmark a row takes events: its week and the next, so that there are two that it may have."""
_MOMENT_US = 2 * max(CELL_US.values())
"""Events about one moment lie at most so far apart."""
_LARGEST_WHOLE = 2**53
_PER_QUANTUM, _PER_MONEY_QUANTUM = 1 / QUANTUM, 1 / MONEY_QUANTUM


class Outcome(Enum):
    """What became of a row."""

    AS_IT_WAS = "knows all of these events"
    REVISED = "knows them now"
    REFOLD = "must be folded anew"


@dataclass(frozen=True)
class _Kind:
    """Where an event of one type counts: positions among a row's single values, rates of decay beside them."""

    name: str
    count: int
    last: int
    firsts: tuple[int, ...]
    decayed: tuple[tuple[int, float], ...]
    money: int | None
    money_decayed: tuple[tuple[int, float], ...]
    largest: int | None
    machine: int | None
    by_hour: str | None
    by_content: str | None


@dataclass
class _Change:
    """What is to be added to a row."""

    landmark: int
    zone: str
    sums: dict[int, int] = field(default_factory=dict)
    """By position, in quanta."""
    slots: dict[tuple[str, int], int] = field(default_factory=dict)
    """By vector and slot, in its units."""


class Reviser:
    """Applies events to rows laid out by one catalogue.

    Parameters
    ----------
    table
        Of ``judge``.
    campaigns
        The content of each, for events without content of their own.
    """

    def __init__(self, catalogue: Catalogue, table: HumanTable, campaigns: Mapping[str, Sequence[str | None]]) -> None:
        self.catalogue, self.table, self.campaigns = catalogue, table, campaigns
        self._slots: dict[str | None, int] = {word: slot for slot, word in enumerate(catalogue.content, start=1)}
        places = _places(catalogue)
        self._width = max(places.values()) + 1
        self._as_of = [places[as_of_name(view)] for view in VIEWS]
        self._profile = places[as_of_name("profile")]
        self._landmarks = [places[decayed_at_name(view)] for view in DECAYED_VIEWS]
        self._created, self._zone = places["created_at"], places["timezone"]
        self._refusal, self._first = places["consent_open_tracking"], places["first_engagement_at"]
        self._kinds = {name: _kind(name, places) for name in EVENT_TYPES}
        money = [place for kind in self._kinds.values() for place in (kind.money, *(p for p, _ in kind.money_decayed))]
        self._of_money = frozenset(place for place in money if place is not None)

    def revise(self, states: States, row: int, events: Sequence[Event], horizon_us: int) -> Outcome:
        """Take in what a row does not know yet. Nothing of it is changed unless the outcome is ``REVISED``.

        Parameters
        ----------
        states
            Contiguous and writable.
        events
            The subscriber's, in the order received.
        horizon_us
            Every event of the subscriber received from then on is given.
        """
        line = self._line(states, row)
        as_of = line[self._as_of[0]]
        # NaN is before nothing and after nothing.
        start = bisect_left(events, as_of, key=_received) if as_of == as_of else 0
        is_guess = as_of == as_of and self._is_no_fold(line, as_of)
        if start == len(events):
            return Outcome.REFOLD if is_guess else Outcome.AS_IT_WAS
        if is_guess or as_of != as_of or as_of < horizon_us:
            return Outcome.REFOLD
        if events[-1].received_us - line[self._landmarks[0]] >= LONGEST_STAY_US:
            return Outcome.REFOLD
        change = _Change(int(line[self._landmarks[0]]), self._zone_of(line))
        if not self._take(change, line, events, start, horizon_us) or not self._add(change, line, states, row):
            return Outcome.REFOLD
        for place in self._as_of:
            line[place] = float(events[-1].received_us + 1)
        self._write(states, row, line, change)
        return Outcome.REVISED

    def guess(self, states: States, row: int, events: Sequence[Event]) -> None:
        """Take new events into a row that must be folded anew, judged by what is known here; earlier ones stay as they are.

        Somebody without a row begins with the first event. A row that could not hold the events stays as it was.
        """
        line = self._line(states, row)
        if not events:
            return
        if any(math.isnan(line[place]) for place in (*self._as_of, *self._landmarks)):
            self._begin(line, events)
        as_of = max(line[place] for place in self._as_of)
        landmark = line[self._landmarks[0]]
        start = bisect_left(events, as_of, key=_received)
        if start == len(events) or not events[-1].received_us - landmark < LONGEST_LEAD_DAYS * MICROSECONDS_PER_DAY:
            return
        change = _Change(int(landmark), self._zone_of(line))
        near = bisect_left(events, events[start].received_us - REVISED_WITHIN_US - _MOMENT_US, key=_received)
        human = judge(events[near:], self.table, line[self._refusal] == 0)[start - near :]
        self._take_new(change, line, events[start:], human)
        if self._add(change, line, states, row):
            for place in self._as_of:
                line[place] = float(events[-1].received_us + 1)
            line[self._profile] = as_of
            self._write(states, row, line, change)

    def _begin(self, line: list[float], events: Sequence[Event]) -> None:
        """Of somebody of whom nothing was folded before these events."""
        for place in self._as_of:
            line[place] = float(events[0].received_us)
        if math.isnan(line[self._created]):
            line[self._created] = float(events[0].received_us)
        landmark = float(week_of(np.array([events[-1].received_us + 1.0]))[0])
        for place in self._landmarks:
            line[place] = landmark

    def _line(self, states: States, row: int) -> list[float]:
        """A row's single values."""
        values: list[float] = words(states, np.float64)[row, : self._width].tolist()
        return values

    def _write(self, states: States, row: int, line: list[float], change: _Change) -> None:
        words(states, np.float64)[row, : self._width] = line
        for (name, slot), units in change.slots.items():
            vector = states[name][row]
            vector[slot] = min(int(vector[slot]) + units, CEILINGS[vector.dtype.str])

    def _is_no_fold(self, line: list[float], as_of: float) -> bool:
        landmark = line[self._landmarks[0]]
        whole = all(line[place] == as_of for place in self._as_of)
        one = all(line[place] == landmark for place in self._landmarks)
        return not (whole and one and line[self._created] <= as_of)

    def _zone_of(self, line: list[float]) -> str:
        code = int(line[self._zone])
        return self.catalogue.timezones[code if 0 <= code < len(self.catalogue.timezones) else 0]

    def _take(self, change: _Change, line: list[float], events: Sequence[Event], start: int, horizon_us: int) -> bool:
        """Weigh what is new, and anew what it changes. False when too little is known for that."""
        known_from = events[start].received_us - REVISED_WITHIN_US - _MOMENT_US
        near = bisect_left(events, known_from, key=_received)
        old, new, known = events[near:start], events[start:], events[near:]
        if not all(_bears_from(event) >= horizon_us for event in new):
            return False
        refuses = line[self._refusal] == 0
        after = judge(known, self.table, refuses)
        self._take_new(change, line, new, after[start - near :])
        if not any(event.event_type in RESPONSE_TYPES for event in old):
            return True
        before = judge(old, self.table, refuses)
        return self._take_back(change, line, known, before, after, max(horizon_us, known_from))

    def _take_new(self, change: _Change, line: list[float], events: Sequence[Event], verdicts: Sequence[float]) -> None:
        for event, human in zip(events, verdicts, strict=True):
            self._weigh(change, event, human, 1)
            if human >= HUMAN_THRESHOLD:
                self._seen(line, event)
            kind = self._kinds[event.event_type]
            if kind.largest is not None and event.value is not None:
                line[kind.largest] = _largest(line[kind.largest], event.value)

    def _take_back(
        self,
        change: _Change,
        line: list[float],
        known: Sequence[Event],
        before: Sequence[float],
        after: Sequence[float],
        known_from: int,
    ) -> bool:
        """Replace the contributions of events that are judged otherwise than before."""
        lost = []
        for event, was, human in zip(known, before, after, strict=False):
            if was == human:
                continue
            if _bears_from(event) < known_from:
                # What speaks for the one or the other may be out of sight.
                return False
            self._weigh(change, event, was, -1)
            self._weigh(change, event, human, 1)
            if human >= HUMAN_THRESHOLD > was:
                self._seen(line, event)
            elif was >= HUMAN_THRESHOLD > human:
                lost.append(event)
        return all(self._unsee(line, event, known, after, known_from) for event in lost)

    def _seen(self, line: list[float], event: Event) -> None:
        """A person did it."""
        kind, at = self._kinds[event.event_type], float(event.occurred_us)
        line[kind.last] = _largest(line[kind.last], at)
        for place in kind.firsts:
            line[place] = -_largest(-line[place], -at)

    def _unsee(
        self, line: list[float], event: Event, known: Sequence[Event], human: Sequence[float], known_from: int
    ) -> bool:
        """No person did it after all. False when it stood for a kind and nobody here knows which event does now."""
        kind, at = self._kinds[event.event_type], event.occurred_us
        if any(line[place] == at for place in kind.firsts):
            return False
        if line[kind.last] != at:
            return True
        others = (
            other.occurred_us
            for other, is_human in zip(known, human, strict=True)
            if other.event_type == event.event_type and is_human >= HUMAN_THRESHOLD
        )
        latest = max(others, default=-1)
        # What is not here was received, and so occurred, before.
        line[kind.last] = float(latest)
        return latest >= known_from

    def _weigh(self, change: _Change, event: Event, human: float, sign: int) -> None:
        """Add an event's terms, or take them away: see ``fold``, which says the same of a whole log."""
        kind, sums = self._kinds[event.event_type], change.sums
        age_days = (change.landmark - event.occurred_us) / MICROSECONDS_PER_DAY
        sums[kind.count] = sums.get(kind.count, 0) + sign * _whole(human * _PER_QUANTUM)
        for place, rate in kind.decayed:
            sums[place] = sums.get(place, 0) + sign * _whole(human * math.exp(age_days * rate) * _PER_QUANTUM)
        if kind.machine is not None:
            sums[kind.machine] = sums.get(kind.machine, 0) + sign * _whole((1.0 - human) * _PER_QUANTUM)
        if kind.money is not None and event.value is not None:
            self._pay(sums, kind, event.value, age_days, sign)
        if kind.by_hour is not None:
            slot = kind.by_hour, hour_of_week(change.zone, event.occurred_us)
            change.slots[slot] = change.slots.get(slot, 0) + sign * _whole(human * HOUR_UNITS)
        if kind.by_content is not None:
            self._concern(change.slots, kind.by_content, event, human, age_days, sign)

    def _pay(self, sums: dict[int, int], kind: _Kind, value: float, age_days: float, sign: int) -> None:
        assert kind.money is not None
        sums[kind.money] = sums.get(kind.money, 0) + sign * _whole(value * _PER_MONEY_QUANTUM)
        for place, rate in kind.money_decayed:
            term = _whole(value * math.exp(age_days * rate) * _PER_MONEY_QUANTUM)
            sums[place] = sums.get(place, 0) + sign * term

    def _concern(
        self, slots: dict[tuple[str, int], int], name: str, event: Event, human: float, age_days: float, sign: int
    ) -> None:
        content: Sequence[str | None] = event.content or ()
        if event.content is None and event.campaign_id is not None:
            content = self.campaigns.get(event.campaign_id, ())
        if not content:
            return
        share = 1.0 / len(content)
        units = sign * _whole(human * share * math.exp(age_days * _AFFINITY_RATE) * CONTENT_UNITS)
        for word in content:
            slot = name, self._slots.get(word, 0)
            slots[slot] = slots.get(slot, 0) + units

    def _add(self, change: _Change, line: list[float], states: States, row: int) -> bool:
        """Add sums up in ``line``. False when a sum or a vector cannot tell what it would be."""
        for place, quanta in change.sums.items():
            scale = _PER_MONEY_QUANTUM if place in self._of_money else _PER_QUANTUM
            before = line[place] * scale
            after = before + quanta
            if not max(abs(before), abs(after), abs(quanta)) < _LARGEST_WHOLE:
                return False
            if after < 0 and place not in self._of_money:
                return False
            line[place] = after / scale
        return all(_may_hold(states[name][row], slot, units) for (name, slot), units in change.slots.items())


def hour_of_week(zone: str, at_us: int) -> int:
    """Local hour of week of an instant, 0 = Monday 00:00, by the same table of offsets that a fold joins with."""
    starts, offsets = _offsets(zone, at_us // _PERIOD_US)
    offset = offsets[bisect_right(starts, at_us) - 1]
    return ((at_us + offset) // MICROSECONDS_PER_HOUR + HOURS_TO_FIRST_MONDAY) % HOURS_OF_WEEK


_PERIOD_US = 64 * MICROSECONDS_PER_DAY
_AFFINITY_RATE = -math.log(2) / AFFINITY_HALF_LIFE_DAYS


@lru_cache(maxsize=4096)
def _offsets(zone: str, period: int) -> tuple[list[int], list[int]]:
    """From when on which offset from UTC holds in a period, in microseconds."""
    begin, end = (datetime.fromtimestamp(edge * _PERIOD_US // 1_000_000, UTC) for edge in (period, period + 1))
    table = utc_offsets([zone], begin, end)
    starts: list[int] = table["valid_from"].cast(pa.int64()).to_pylist()
    offsets: list[int] = table["offset_us"].to_pylist()
    return starts, offsets


def _places(catalogue: Catalogue) -> dict[str, int]:
    """Position of every single value in a row read as words."""
    offsets: Mapping[str, Any] = catalogue.dtype.fields or {}
    return {one.name: offsets[one.name][1] // 8 for one in catalogue.fields if one.length == 1}


def _kind(name: str, places: Mapping[str, int]) -> _Kind:
    rates = {days: -math.log(2) / days for days in HALF_LIVES_DAYS}
    bought, engaged = name == "purchase", name in ENGAGEMENT_TYPES
    by_hour = "response_by_hour" if name in RESPONSE_TYPES else "visit_by_hour" if name in VISIT_TYPES else None
    firsts = ["first_engagement_at"] * engaged + ["first_purchase_at"] * bought
    money = f"{name}_value_sum"
    return _Kind(
        name,
        count=places[f"{name}_count"],
        last=places[f"last_{name}_at"],
        firsts=tuple(places[one] for one in firsts),
        decayed=tuple((places[decayed_name(name, days)], rates[days]) for days in HALF_LIVES_DAYS)
        if name in DECAYED_TYPES
        else (),
        money=places.get(money),
        money_decayed=tuple((places[decayed_name("purchase_value", days)], rates[days]) for days in HALF_LIVES_DAYS[2:])
        if bought
        else (),
        largest=places["purchase_value_max"] if bought else None,
        machine=places["machine_open_count"] if name == "open" else None,
        by_hour="sent_by_hour" if name == "sent" else by_hour,
        by_content="content_sent" if name == "sent" else "content_engaged" if engaged else None,
    )


def _bears_from(event: Event) -> int:
    """From when on, at the latest, all is known that bears on an event or that it bears on; nothing is received earlier
    than it occurred.
    """
    if not is_prompt(event) or event.event_type not in (*RESPONSE_TYPES, *DELIVERY_TYPES):
        return event.received_us
    reach = HASTE_REACH_US if event.event_type in RESPONSE_TYPES and event.campaign_id is not None else 0
    return event.occurred_us - reach - 2 * _MOMENT_US


def _received(event: Event) -> int:
    return event.received_us


def _whole(number: float) -> int:
    """Rounded to a whole number, halves away from zero, as C's ``round`` does.

    >>> _whole(2.5), _whole(-2.5), _whole(0.49999999999999994)
    (3, -3, 0)
    """
    whole = int(number)
    rest = number - whole
    if rest >= 0.5:
        return whole + 1
    return whole - 1 if rest <= -0.5 else whole


def _largest(known: float, other: float) -> float:
    """The larger of two; NaN is nothing."""
    return known if known >= other else other


def _may_hold(vector: npt.NDArray[np.unsignedinteger], slot: int, units: int) -> bool:
    held = int(vector[slot])
    if held >= CEILINGS[vector.dtype.str]:
        return units >= 0
    return held + units >= 0
