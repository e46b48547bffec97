"""The one definition of every stored feature, in Ibis: events in, states as of any instants out.

What enters: a backend with the log's views, a catalogue and a spine of (subscriber, as_of) rows. What leaves: one state
per spine row. The promise: an event counts as of ``t`` if and only if it was received (and so occurred) before ``t``; sums
are exact, so neither the order of events nor the number of threads changes a bit. The same expressions run on DuckDB and
Spark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import ibis
import ibis.expr.types as ir
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
from features.contract import ENGAGEMENT_TYPES, EVENT_TYPES, RESPONSE_TYPES, VISIT_TYPES
from features.evidence import HUMAN_THRESHOLD, epoch_us, evidence, known
from features.state import (
    CEILINGS,
    LONGEST_LEAD_DAYS,
    MICROSECONDS_PER_DAY,
    MONEY_QUANTUM,
    QUANTUM,
    States,
    identity,
    week_of,
)

SPINE_CHUNK_ROWS = 50_000
"""Spine rows folded at a time: bounds memory, changes no result."""


@dataclass(frozen=True)
class Spine:
    """The questions: whose state, as of when. The arrays have one element per row, repeats allowed."""

    subscriber_id: pa.Array
    as_of: npt.NDArray[np.float64]
    """Microseconds since 1970 UTC."""
    landmark: npt.NDArray[np.float64] | None = None
    """From where decayed sums are measured, less than ``LONGEST_LEAD_DAYS`` before ``as_of``; else ``week_of`` it."""

    def __post_init__(self) -> None:
        if (self.as_of - self.landmarks >= LONGEST_LEAD_DAYS * MICROSECONDS_PER_DAY).any():
            raise ValueError("a landmark lies too long before its row's instant")

    def __len__(self) -> int:
        return len(self.subscriber_id)

    @property
    def landmarks(self) -> npt.NDArray[np.float64]:
        """Each row's own, or the beginning of its week."""
        return week_of(self.as_of) if self.landmark is None else self.landmark

    def chunks(self, rows: int) -> Iterator[Spine]:
        for start in range(0, len(self), rows):
            yield self.take(np.arange(start, min(start + rows, len(self))))

    def take(self, positions: npt.NDArray[np.int64]) -> Spine:
        landmark = None if self.landmark is None else self.landmark[positions]
        return Spine(self.subscriber_id.take(pa.array(positions)), self.as_of[positions], landmark)

    def to_table(self) -> pa.Table:
        """Columns ``row`` (position), ``subscriber_id``, ``as_of_us``, ``landmark_us``."""
        return pa.table(
            {
                "row": pa.array(np.arange(len(self)), pa.int64()),
                "subscriber_id": self.subscriber_id.cast(pa.string()),
                "as_of_us": pa.array(self.as_of.astype(np.int64), pa.int64()),
                "landmark_us": pa.array(self.landmarks.astype(np.int64), pa.int64()),
            }
        )


class Folder:
    """Folds one log under one catalogue. The evidence on every event is worked out once and reused."""

    def __init__(self, con: ibis.BaseBackend, catalogue: Catalogue) -> None:
        self.con, self.catalogue = con, catalogue

    @cached_property
    def events(self) -> ir.Table:
        """Evidence on every event, computed once."""
        return evidence(self.con, self.catalogue)

    def known(self, until_us: int) -> ir.Table:
        """Events that were received before an instant, once each, as they were judged by then."""
        return self.events.filter(known(self.events, until_us))

    def fold(self, spine: Spine) -> States:
        """State of each spine row, in the spine's order; the identity for somebody without events or profile."""
        if not len(spine):
            return identity(self.catalogue, 0)
        return np.concatenate([self._fold_chunk(chunk) for chunk in spine.chunks(SPINE_CHUNK_ROWS)])

    def _fold_chunk(self, spine: Spine) -> States:
        asked = ibis.memtable(spine.to_table())
        visible = self._visible(asked)
        states = identity(self.catalogue, len(spine))
        _scatter(states, self.con.to_pyarrow(_by_type(visible)))
        for long in (_by_hour(visible), _by_content(visible, self.catalogue)):
            _scatter_slots(states, self.con.to_pyarrow(long))
        _scatter_profile(states, self.con.to_pyarrow(self._profile(asked)), self.catalogue)
        for view in VIEWS:
            states[as_of_name(view)] = spine.as_of
        for view in DECAYED_VIEWS:
            states[decayed_at_name(view)] = spine.landmarks
        return states

    def _visible(self, spine: ir.Table) -> ir.Table:
        """Events by spine row, cut off where the row's instant is; of age 0 at its landmark, less than none after it."""
        theirs = [self.events.subscriber_id == spine.subscriber_id, known(self.events, spine.as_of_us)]
        joined = self.events.join(spine, theirs)
        age = (joined.landmark_us - joined.occurred_us).cast("float64") / MICROSECONDS_PER_DAY
        return joined.mutate(age_days=age)

    def _profile(self, spine: ir.Table) -> ir.Table:
        """Profiles by spine row: of those who were there at the row's instant."""
        subscribers = self.con.table("subscribers")
        subscribers = subscribers.mutate(created_us=epoch_us(subscribers.created_at))
        there = [subscribers.subscriber_id == spine.subscriber_id, subscribers.created_us <= spine.as_of_us]
        names = [attribute.name for attribute in self.catalogue.attributes]
        gone = {name: ibis.null("string") for name in names if name not in subscribers.columns}
        subscribers = subscribers.mutate(**gone)
        joined = subscribers.join(spine, there)
        fixed = ["row", "created_us", "timezone", "consent_profiling", "consent_open_tracking"]
        return joined.select(*fixed, **{f"attribute_{i}": joined[name] for i, name in enumerate(names)})


def exact(values: ir.Value, quantum: float = QUANTUM) -> ir.Value:
    """A term of a sum, in whole quanta: integers add without rounding, in any order."""
    return (values / quantum).round().cast("int64")


def halved(age_days: ir.Value, half_life_days: float) -> ir.Value:
    """1 at age 0, 1/2 after one half-life, 2 one before."""
    return (age_days * (-math.log(2) / half_life_days)).exp()


def _by_type(visible: ir.Table) -> ir.Table:
    """Every single-valued field's material, by spine row and event type.

    Sums come in quanta (of money in its own), moments in microseconds, null where there is none. A narrow aggregate
    per type and the spreading into fields afterwards is several times faster than one wide aggregate with a condition
    per field.
    """
    human, value = visible.human, visible.value.fill_null(0.0)
    terms = visible.select(
        "row",
        "event_type",
        "occurred_us",
        "value",
        person=human >= HUMAN_THRESHOLD,
        count=exact(human),
        machine=exact(1.0 - human),
        money=exact(value, MONEY_QUANTUM),
        **{f"decayed_{days}d": exact(human * halved(visible.age_days, days)) for days in HALF_LIVES_DAYS},
        **{
            f"money_{days}d": exact(value * halved(visible.age_days, days), MONEY_QUANTUM)
            for days in HALF_LIVES_DAYS[2:]
        },
    )
    sums = [name for name in terms.columns if name not in ("row", "event_type", "occurred_us", "value", "person")]
    return terms.group_by("row", "event_type").aggregate(
        last=terms.occurred_us.max(where=terms.person),
        first=terms.occurred_us.min(where=terms.person),
        largest=terms.value.max(),
        # The backend's sum is wider than its terms; made a float there, it may be as large as it likes.
        **{name: terms[name].sum().cast("float64") for name in sums},
    )


def _by_hour(visible: ir.Table) -> ir.Table:
    """The vectors over local hours in long form: ``row``, ``slot`` and one column of ``HOUR_UNITS`` per vector."""
    units = (visible.human * HOUR_UNITS).round().cast("int64")
    terms = visible.select("row", "event_type", slot="hour_of_week", units=units)
    kind = terms.event_type
    return terms.group_by("row", "slot").aggregate(
        sent_by_hour=terms.units.sum(where=kind == "sent").cast("float64"),
        response_by_hour=terms.units.sum(where=kind.isin(RESPONSE_TYPES)).cast("float64"),
        visit_by_hour=terms.units.sum(where=kind.isin(VISIT_TYPES)).cast("float64"),
    )


def _by_content(visible: ir.Table, catalogue: Catalogue) -> ir.Table:
    """The vectors over content categories, likewise, in ``CONTENT_UNITS``."""
    each = _content_slots(visible, catalogue)
    weight = each.human * each.share * halved(each.age_days, AFFINITY_HALF_LIFE_DAYS)
    terms = each.select("row", "event_type", "slot", units=exact(weight, 1 / CONTENT_UNITS))
    kind = terms.event_type
    return terms.group_by("row", "slot").aggregate(
        content_engaged=terms.units.sum(where=kind.isin(ENGAGEMENT_TYPES)).cast("float64"),
        content_sent=terms.units.sum(where=kind == "sent").cast("float64"),
    )


def _content_slots(visible: ir.Table, catalogue: Catalogue) -> ir.Table:
    """One row per event and category; ``share`` splits an event's weight evenly among its categories."""
    relevant = visible.event_type.isin((*ENGAGEMENT_TYPES, "sent"))
    concerned = visible.filter(relevant & (visible.content.length() > 0)).select(
        "row", "event_type", "human", "age_days", "content", share=1.0 / visible.content.length()
    )
    each = concerned.mutate(category=concerned.content.unnest()).drop("content")
    # Not a join with a table of the words: DuckDB 2.0.0 fails on some logs with an internal error of its own
    # ("dict-surviving cache: global dictionary column 0 changed identity").
    words = [(word, slot) for slot, word in enumerate(catalogue.content, start=1)]
    slot = each.category.cases(*words, else_=0) if words else ibis.literal(0)
    return each.mutate(slot=slot.cast("int64"))


def _scatter(states: States, found: pa.Table) -> None:
    """Spread what was found by event type into the fields of each row."""
    types = found["event_type"].to_numpy(zero_copy_only=False)
    for kind in EVENT_TYPES:
        chosen = found.filter(pa.array(types == kind))
        rows = chosen["row"].to_numpy()
        for field, column in _fields_of_type(kind).items():
            states[field][rows] = chosen[column].cast(pa.float64()).to_numpy() * _unit(column)
        if kind in ENGAGEMENT_TYPES:
            first = chosen["first"].cast(pa.float64()).to_numpy()
            states["first_engagement_at"][rows] = np.fmin(states["first_engagement_at"][rows], first)


def _unit(column: str) -> float:
    """What one of a column of ``_by_type`` stands for."""
    if column in ("last", "first", "largest"):
        return 1.0
    return MONEY_QUANTUM if column.startswith("money") else QUANTUM


def _fields_of_type(kind: str) -> dict[str, str]:
    """Which field of a state is which column of ``_by_type``, for one event type."""
    fields = {f"{kind}_count": "count", f"last_{kind}_at": "last"}
    if kind in DECAYED_TYPES:
        fields |= {decayed_name(kind, days): f"decayed_{days}d" for days in HALF_LIVES_DAYS}
    if kind == "open":
        fields |= {"machine_open_count": "machine"}
    if kind == "conversion":
        fields |= {"conversion_value_sum": "money"}
    if kind == "purchase":
        fields |= {"purchase_value_sum": "money", "purchase_value_max": "largest", "first_purchase_at": "first"}
        fields |= {decayed_name("purchase_value", days): f"money_{days}d" for days in HALF_LIVES_DAYS[2:]}
    return fields


def _scatter_slots(states: States, long: pa.Table) -> None:
    rows, slots = long["row"].to_numpy(), long["slot"].to_numpy()
    for name in long.column_names[2:]:
        sums = np.nan_to_num(long[name].cast(pa.float64()).to_numpy())
        states[name][rows, slots] = np.minimum(sums, CEILINGS[states[name].dtype.str])


def _scatter_profile(states: States, profiles: pa.Table, catalogue: Catalogue) -> None:
    rows = profiles["row"].to_numpy()
    states["created_at"][rows] = profiles["created_us"].to_numpy()
    states["timezone"][rows] = _codes(profiles["timezone"], catalogue.timezones)
    for consent in ("consent_profiling", "consent_open_tracking"):
        states[consent][rows] = profiles[consent].cast(pa.int32()).fill_null(-1).to_numpy()
    for i, attribute in enumerate(catalogue.attributes):
        column = profiles[f"attribute_{i}"]
        if attribute.categories is None:
            states[attribute.field_name][rows] = column.cast(pa.float64()).to_numpy()
        else:
            states[attribute.field_name][rows] = category_codes(column, attribute.categories)


def _codes(column: pa.ChunkedArray, words: Sequence[str]) -> npt.NDArray[np.int32]:
    """Position of each word, -1 where it is missing or unknown."""
    positions = pa.compute.index_in(column.cast(pa.string()), pa.array(words, pa.string()))
    return np.asarray(positions.fill_null(-1).to_numpy(), dtype=np.int32)


def category_codes(column: pa.ChunkedArray, categories: Sequence[str]) -> npt.NDArray[np.int32]:
    """Codes of an attribute: position + 1, 0 for a category the catalogue does not know, -1 for a missing value."""
    missing = np.asarray(column.is_null().to_numpy(), dtype=np.bool_)
    return np.where(missing, -1, _codes(column, categories) + 1).astype(np.int32)
