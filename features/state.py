"""A subscriber's state: a fixed-width row, its identity, how it is carried in time and how two rows merge.

What enters and leaves: numpy structured arrays, one element per subscriber, laid out as ``Catalogue.fields`` says. The
promise: ``merge`` is commutative and associative with ``identity`` as its neutral element, and at one anchor it is exact:
sums are multiples of ``QUANTUM`` and add without rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from features.catalogue import HOUR_UNITS, VIEWS, Catalogue, Field, Fold, as_of_name

States = npt.NDArray[Any]
"""Structured array, shape (subscribers,), dtype ``Catalogue.dtype``."""

QUANTUM = 2.0**-32
"""Sums are folded in whole multiples of this, as integers: no order of events changes a bit."""
MONEY_QUANTUM = 2.0**-20
"""The same for money, about a millionth of a unit: amounts are larger, and must fit 64 bits (``intake`` bounds them)."""
HOUR_CEILING = 2**16 - 1
MICROSECONDS_PER_DAY = 86_400_000_000


def identity(catalogue: Catalogue, count: int) -> States:
    """Rows of somebody about whom nothing is known: sums 0, extremes and stamps NaN, codes -1."""
    return np.repeat(catalogue.blank, count)


def carried(states: States, catalogue: Catalogue, to: float | npt.NDArray[np.float64]) -> States:
    """The same rows seen from a later (or earlier) instant: decayed sums shrink, anchors move, all else stays.

    Parameters
    ----------
    to
        Microseconds since 1970 UTC, one for all rows or one per row. Rows whose view was never written keep NaN anchors.
    """
    moved = states.copy()
    target = np.broadcast_to(np.asarray(to, dtype=np.float64), states.shape)
    for field in catalogue.fields:
        if field.fold is Fold.DECAYED:
            factor = decay_factor(states[as_of_name(field.view)], target, field)
            value = states[field.name]
            moved[field.name] = value * (factor if value.ndim == 1 else factor[:, None])
    for view in VIEWS:
        written = ~np.isnan(states[as_of_name(view)])
        moved[as_of_name(view)][written] = target[written]
    return moved


def decay_factor(anchor: npt.NDArray[np.float64], to: npt.NDArray[np.float64], field: Field) -> npt.NDArray[np.float64]:
    """2 to the minus (elapsed / half-life); 1 where the view was never written."""
    assert field.half_life_days is not None
    elapsed_days = np.nan_to_num(to - anchor, nan=0.0) / MICROSECONDS_PER_DAY
    return np.asarray(np.exp2(-elapsed_days / field.half_life_days), dtype=np.float64)


def merge(left: States, right: States, catalogue: Catalogue) -> States:
    """State of the union of two disjoint event sets, row by row.

    Both sides are first carried to the later of their anchors. What cannot be folded (profile attributes) is taken from
    the side whose profile is newer; where they are equally old or one side does not know, the larger known value wins,
    so that the two sides may still be exchanged.
    """
    newer = _profile_age_order(left, right)
    to = np.fmax(anchors(left), anchors(right))
    left, right = carried(left, catalogue, to), carried(right, catalogue, to)
    merged = left.copy()
    for field in catalogue.fields:
        if field.dtype == "<u2":
            # Saturating: at the ceiling, too, any order gives the same.
            total = left[field.name].astype(np.uint32) + right[field.name]
            merged[field.name] = np.minimum(total, HOUR_CEILING)
        elif field.fold in (Fold.SUM, Fold.DECAYED):
            merged[field.name] = left[field.name] + right[field.name]
        elif field.fold is Fold.MAX:
            merged[field.name] = np.fmax(left[field.name], right[field.name])
        elif field.fold is Fold.MIN:
            merged[field.name] = np.fmin(left[field.name], right[field.name])
        elif field.name == as_of_name(field.view):
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
