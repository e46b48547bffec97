"""A subscriber's state: a fixed-width row, its identity, how it is carried in time and how two rows merge.

What enters and leaves: numpy structured arrays, one element per subscriber, laid out as ``Catalogue.fields`` says. The
promise: ``merge`` is commutative and associative with ``identity`` as its neutral element, and at one landmark it is exact:
sums are multiples of ``QUANTUM`` and add without rounding.

Two instants go with a row. ``*_as_of`` says what it knows: everything received before. ``*_decayed_at``, the landmark, says
from where decayed sums are measured: an event there weighs 1, one before it less, one after it more. Knowing more leaves the
landmark where it is, so an event is added to a row by adding its term.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from features.catalogue import DECAYED_VIEWS, HOUR_UNITS, VIEWS, Catalogue, Field, Fold, as_of_name, decayed_at_name

States = npt.NDArray[Any]
"""Structured array, shape (subscribers,), dtype ``Catalogue.dtype``."""

QUANTUM = 2.0**-32
"""Sums are folded in whole multiples of this, as integers: no order of events changes a bit."""
MONEY_QUANTUM = 2.0**-20
"""The same for money, about a millionth of a unit: amounts are larger, and must fit 64 bits (``intake`` bounds them)."""
HOUR_CEILING = 2**16 - 1
CEILINGS = {"<u2": HOUR_CEILING, "<u4": 2**32 - 1}
"""Vectors saturate: at the most that they can hold they stay, whatever is added in whatever order."""
MICROSECONDS_PER_DAY = 86_400_000_000
LONGEST_LEAD_DAYS = 28
"""A row knows of nothing that happened so long after its landmark: in 64 bits of quanta, what is halved daily fits 31 days."""
_WEEK = 7 * MICROSECONDS_PER_DAY
_FIRST_MONDAY = 4 * MICROSECONDS_PER_DAY


def identity(catalogue: Catalogue, count: int) -> States:
    """Rows of somebody about whom nothing is known: sums 0, extremes and stamps NaN, codes -1."""
    return np.repeat(catalogue.blank, count)


def week_of(as_of: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The landmark of a row as of each instant, unless it has one already: Monday 00:00 UTC, at or before it."""
    return np.asarray(np.floor((as_of - _FIRST_MONDAY) / _WEEK) * _WEEK + _FIRST_MONDAY, dtype=np.float64)


def carried(states: States, catalogue: Catalogue, to: float | npt.NDArray[np.float64]) -> States:
    """The same rows seen from a later (or earlier) landmark: decayed sums shrink, all else stays, what is known too.

    Parameters
    ----------
    to
        Microseconds since 1970 UTC, one for all rows or one per row. Views that were never written keep NaN.
    """
    moved = states.copy()
    target = np.broadcast_to(np.asarray(to, dtype=np.float64), states.shape)
    for view in DECAYED_VIEWS:
        _carry(moved, catalogue, view, target)
    return moved


def _carry(states: States, catalogue: Catalogue, view: str, to: npt.NDArray[np.float64]) -> None:
    """Move one view's landmark, in place."""
    landmark = states[decayed_at_name(view)]
    for field in catalogue.fields_of(view):
        if field.fold is Fold.DECAYED:
            factor = decay_factor(landmark, to, field)
            value = states[field.name] * (factor if field.length == 1 else factor[:, None])
            whole = field.dtype in CEILINGS
            states[field.name] = np.minimum(np.rint(value), CEILINGS[field.dtype]) if whole else value
    landmark[:] = np.where(np.isnan(landmark), np.nan, to)


def decay_factor(
    landmark: npt.NDArray[np.float64], to: npt.NDArray[np.float64], field: Field
) -> npt.NDArray[np.float64]:
    """2 to the minus (elapsed / half-life); 1 where the view was never written."""
    assert field.half_life_days is not None
    elapsed_days = np.nan_to_num(to - landmark, nan=0.0) / MICROSECONDS_PER_DAY
    return np.asarray(np.exp2(-elapsed_days / field.half_life_days), dtype=np.float64)


def merge(left: States, right: States, catalogue: Catalogue) -> States:
    """State of the union of two disjoint event sets, row by row.

    Both sides are first carried to the later of their landmarks. What cannot be folded (profile attributes) is taken from
    the side whose profile is newer; where they are equally old or one side does not know, the larger known value wins,
    so that the two sides may still be exchanged.
    """
    newer = _profile_age_order(left, right)
    left, right = left.copy(), right.copy()
    for view in DECAYED_VIEWS:
        to = np.fmax(left[decayed_at_name(view)], right[decayed_at_name(view)])
        _carry(left, catalogue, view, to)
        _carry(right, catalogue, view, to)
    merged = left.copy()
    for field in catalogue.fields:
        if field.dtype in CEILINGS:
            # Saturating: at the ceiling, too, any order gives the same.
            total = left[field.name].astype(np.uint64) + right[field.name]
            merged[field.name] = np.minimum(total, CEILINGS[field.dtype])
        elif field.fold in (Fold.SUM, Fold.DECAYED):
            merged[field.name] = left[field.name] + right[field.name]
        elif field.fold is Fold.MAX:
            merged[field.name] = np.fmax(left[field.name], right[field.name])
        elif field.fold is Fold.MIN:
            merged[field.name] = np.fmin(left[field.name], right[field.name])
        elif field.name in (as_of_name(field.view), decayed_at_name(field.view)):
            merged[field.name] = np.fmax(left[field.name], right[field.name])
        else:
            merged[field.name] = _latest(left[field.name], right[field.name], field, newer)
    return merged


def _profile_age_order(left: States, right: States) -> npt.NDArray[np.float64]:
    """Positive where the left profile is newer, negative where the right one is, 0 where neither."""
    anchor = as_of_name("profile")
    return np.asarray(np.nan_to_num(left[anchor] - right[anchor], nan=0.0), dtype=np.float64)


def _latest(
    left: npt.NDArray[Any], right: npt.NDArray[Any], field: Field, newer: npt.NDArray[np.float64]
) -> npt.NDArray[Any]:
    known_left, known_right = ~_is_missing(left, field), ~_is_missing(right, field)
    largest = np.fmax(left, right)
    return np.where(known_left & (newer > 0), left, np.where(known_right & (newer < 0), right, largest))


def anchors(states: States) -> npt.NDArray[np.float64]:
    """Of each row the latest instant up to which any of its views was folded; NaN where none ever was."""
    return np.asarray(np.fmax.reduce([states[as_of_name(view)] for view in VIEWS]), dtype=np.float64)


def words(states: States, kind: type[np.float64] | type[np.uint64]) -> npt.NDArray[Any]:
    """Rows as lines of 8-byte words, shape (rows, words), without a copy however far apart the rows lie.

    Single values are float64 there; what lies where a vector is makes no sense as one.
    """
    size = states.dtype.itemsize
    if states.flags.c_contiguous:
        return states.view(kind).reshape(len(states), size // 8)
    lines = np.lib.stride_tricks.as_strided(states, (len(states), 1), (states.strides[0], size), writeable=False)
    return lines.view(kind).reshape(len(states), size // 8)


def events_by_hour(states: States, name: str) -> npt.NDArray[np.float64]:
    """A vector over the local hours of the week in events, shape (rows, 168)."""
    return np.asarray(states[name] / HOUR_UNITS)


def _is_missing(values: npt.NDArray[Any], field: Field) -> npt.NDArray[np.bool_]:
    missing = np.isnan(values) if math.isnan(field.missing) else values < 0
    return np.asarray(missing, dtype=np.bool_)
