"""From stored state to what a model reads: ages, rates, velocities, shares, as of the moment of use.

What enters: states and an instant per row. What leaves: a float64 matrix with named columns. The promise: one pure function,
the same in training, batch scoring and serving, row by row independent of which other rows are asked for with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from features.catalogue import HALF_LIVES_DAYS, Catalogue, as_of_name, decayed_name
from features.contract import ENGAGEMENT_TYPES, EVENT_TYPES
from features.state import MICROSECONDS_PER_DAY, States, decay_factor, identity

Column = npt.NDArray[np.float64]
Named = Iterator[tuple[str, Column]]

RATE_HALF_LIVES_DAYS = (7, 30, 90)
VELOCITY_SPANS_DAYS = ((7, 90), (30, 90))
VELOCITY_TYPES = ("open", "click", "page_view", "purchase", "engagement")
VELOCITY_FLOOR_PER_DAY = 1 / 90
"""Added to both rates: somebody silent has velocity 0, and one event does not mean infinite acceleration."""
DAYPARTS = {"night": range(0, 6), "morning": range(6, 12), "afternoon": range(12, 18), "evening": range(18, 24)}


@dataclass(frozen=True)
class Features:
    """A matrix of shape (rows, features), float64, NaN = not known, and its columns' names in order."""

    names: tuple[str, ...]
    categorical: tuple[str, ...]
    matrix: npt.NDArray[np.float64]

    def column(self, name: str) -> Column:
        return self.matrix[:, self.names.index(name)]


def derive(states: States, as_of: float | Column, catalogue: Catalogue) -> Features:
    """Everything the models may read of these subscribers at these instants.

    Parameters
    ----------
    states
        Shape (rows,). Anchors may lie before ``as_of``: decayed sums are carried, ages are taken now.
    as_of
        Microseconds since 1970 UTC, one for all rows or one per row.
    catalogue
        The vocabularies the names come from; codes and slots beyond them read as "other".
    """
    now = np.broadcast_to(np.asarray(as_of, dtype=np.float64), states.shape)
    columns = dict(_columns(states, now, catalogue))
    matrix = np.empty((len(states), len(columns)))
    for i, values in enumerate(columns.values()):
        matrix[:, i] = values
    categorical = categorical_names(catalogue)
    return Features(tuple(columns), categorical, matrix)


def feature_names(catalogue: Catalogue) -> tuple[str, ...]:
    """Names of ``derive``'s columns, in order."""
    return derive(identity(catalogue, 0), 0.0, catalogue).names


def categorical_names(catalogue: Catalogue) -> tuple[str, ...]:
    """Columns that hold codes, not quantities: -1 missing, 0 other."""
    attributes = (a.field_name for a in catalogue.attributes if a.categories is not None)
    return ("affinity_top", "timezone", *attributes)


def _columns(states: States, now: Column, catalogue: Catalogue) -> Named:
    decayed = _decayed(states, now, catalogue)
    yield from decayed.items()
    yield from _rates(states, decayed)
    yield from _velocities(decayed)
    yield from _recency(states, now)
    yield from _spending(states)
    yield from _affinity(states, catalogue)
    yield from _active_hours(states)
    yield from _profile(states, catalogue)


def _decayed(states: States, now: Column, catalogue: Catalogue) -> dict[str, Column]:
    """Decayed sums seen from now, and the sum over everything that counts as engagement."""
    carried: dict[str, Column] = {}
    factors: dict[tuple[str, float], Column] = {}
    for field in catalogue.fields:
        if field.half_life_days is None or field.length != 1:
            continue
        key = (field.view, field.half_life_days)
        if key not in factors:
            factors[key] = decay_factor(states[as_of_name(field.view)], now, field)
        carried[field.name] = states[field.name] * factors[key]
    for days in HALF_LIVES_DAYS:
        kinds = [carried[decayed_name(kind, days)] for kind in ENGAGEMENT_TYPES]
        carried[decayed_name("engagement", days)] = np.sum(kinds, axis=0)
    return carried


def _rates(states: States, decayed: dict[str, Column]) -> Named:
    """Responses per send. One send is added below: nobody reaches 100 % on a single mail."""
    for kind in ("open", "click"):
        for days in RATE_HALF_LIVES_DAYS:
            yield f"{kind}_rate_{days}d", decayed[decayed_name(kind, days)] / (decayed[decayed_name("sent", days)] + 1)
        yield f"{kind}_rate_ever", states[f"{kind}_count"] / (states["sent_count"] + 1)
    yield "click_to_open_rate_ever", states["click_count"] / (states["open_count"] + 1)
    opens = states["open_count"] + states["machine_open_count"]
    yield "machine_open_rate_ever", states["machine_open_count"] / (opens + 1)


def _velocities(decayed: dict[str, Column]) -> Named:
    """Log2 of the recent daily rate over the longer one: 0 steady, 1 twice as lively, -1 half."""
    for kind in VELOCITY_TYPES:
        for short, long in VELOCITY_SPANS_DAYS:
            recent = _per_day(decayed, kind, short) + VELOCITY_FLOOR_PER_DAY
            usual = _per_day(decayed, kind, long) + VELOCITY_FLOOR_PER_DAY
            yield f"{kind}_velocity_{short}d_{long}d", np.log2(recent / usual)


def _per_day(decayed: dict[str, Column], kind: str, half_life_days: int) -> Column:
    """A decayed sum of a steady rate r is r * half-life / ln 2."""
    return decayed[decayed_name(kind, half_life_days)] * (math.log(2) / half_life_days)


def _recency(states: States, now: Column) -> Named:
    for kind in EVENT_TYPES:
        yield f"hours_since_last_{kind}", _age(states[f"last_{kind}_at"], now) * 24
    last = last_engagement_at(states)
    yield "hours_since_last_engagement", _age(last, now) * 24
    yield "days_since_first_engagement", _age(states["first_engagement_at"], now)
    yield "tenure_days", _age(states["created_at"], now)
    engaged = np.sum([states[f"{kind}_count"] for kind in ENGAGEMENT_TYPES], axis=0)
    yield "engagement_silence_ratio", _silence(states["first_engagement_at"], last, engaged, now)
    purchases = states["purchase_count"]
    yield "purchase_silence_ratio", _silence(states["first_purchase_at"], states["last_purchase_at"], purchases, now)
    for kind in EVENT_TYPES:
        yield f"{kind}_count", states[f"{kind}_count"]
    yield "engagement_count", engaged


def last_engagement_at(states: States) -> Column:
    """Latest engagement by a person, microseconds since 1970 UTC; NaN = never."""
    return cast(Column, np.fmax.reduce([states[f"last_{kind}_at"] for kind in ENGAGEMENT_TYPES]))


def _age(stamp: Column, now: Column) -> Column:
    """Days since; 0 for what lies ahead (a clock that runs fast), NaN for never."""
    return np.maximum((now - stamp) / MICROSECONDS_PER_DAY, 0.0)


def _silence(first: Column, last: Column, count: Column, now: Column) -> Column:
    """Time since the last event over the person's own usual gap between two; NaN with fewer than two events."""
    usual = (last - first) / MICROSECONDS_PER_DAY / np.maximum(count - 1, 1)
    ratio = _age(last, now) / np.maximum(usual, 1 / 24)
    return np.where(count >= 2, ratio, np.nan)


def _spending(states: States) -> Named:
    spent, count = states["purchase_value_sum"], states["purchase_count"]
    yield "purchase_value_sum", spent
    yield "purchase_value_max", states["purchase_value_max"]
    yield "purchase_value_mean", np.where(count > 0, spent / np.maximum(count, 1), np.nan)
    yield "conversion_value_sum", states["conversion_value_sum"]


def _affinity(states: States, catalogue: Catalogue) -> Named:
    """Shares of engagement by category, shrunk by one event; and how concentrated they are (Herfindahl, 0–1)."""
    known = len(catalogue.content) + 1
    engaged = states["content_engaged"].astype(np.float64)
    total = engaged.sum(axis=1)
    engaged[:, 0] += engaged[:, known:].sum(axis=1)
    shares = engaged[:, :known] / (total + 1)[:, None]
    for slot, category in enumerate(("unlisted", *(f"[{word}]" for word in catalogue.content))):
        yield f"affinity_{category}", shares[:, slot]
    yield "affinity_concentration", (shares**2).sum(axis=1)
    yield "affinity_top", np.where(shares.sum(axis=1) > 0, shares.argmax(axis=1), -1.0)


def campaign_affinity(states: States, slots: Sequence[int]) -> Column:
    """Share of a person's engagement that went to a campaign's content slots, shrunk by one event; 0–1."""
    engaged = states["content_engaged"].astype(np.float64)
    return cast(Column, engaged[:, list(slots)].sum(axis=1) / (engaged.sum(axis=1) + 1))


def _active_hours(states: States) -> Named:
    by_hour = states["response_by_hour"].astype(np.float64) + states["visit_by_hour"]
    week = by_hour.reshape(-1, 7, 24)
    total = week.sum(axis=(1, 2))
    for part, hours in DAYPARTS.items():
        yield f"active_{part}_rate", week[:, :, list(hours)].sum(axis=(1, 2)) / (total + 1)
    yield "active_weekend_rate", week[:, 5:].sum(axis=(1, 2)) / (total + 1)


def _profile(states: States, catalogue: Catalogue) -> Named:
    zones = states["timezone"].astype(np.float64)
    yield "timezone", np.where(zones < len(catalogue.timezones), zones, -1.0)
    for attribute in catalogue.attributes:
        values = states[attribute.field_name].astype(np.float64)
        if attribute.categories is not None:
            values = np.where(values > len(attribute.categories), 0.0, values)
        yield attribute.field_name, values
