"""A subscriber's state: a fixed-width row, its identity, how it is carried in time and how two rows merge.

What enters and leaves: numpy structured arrays, one element per subscriber, laid out as ``Catalogue.fields`` says. The
promise: ``merge`` is commutative and associative with ``identity`` as its neutral element, and at one anchor it is exact:
sums are multiples of ``QUANTUM`` and add without rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from features.catalogue import VIEWS, Catalogue, Field, Fold, as_of_name

States = npt.NDArray[Any]
"""Structured array, shape (subscribers,), dtype ``state_dtype(catalogue)``."""

QUANTUM = 2.0**-32
"""Sums are folded in whole multiples of this, as integers: no order of events changes a bit."""
MICROSECONDS_PER_DAY = 86_400_000_000


def state_dtype(catalogue: Catalogue) -> np.dtype[Any]:
    """The packed layout, little-endian and without padding: the bytes of an element are the stored row."""
    return np.dtype([(f.name, f.dtype) if f.length == 1 else (f.name, f.dtype, (f.length,)) for f in catalogue.fields])


def identity(catalogue: Catalogue, count: int) -> States:
    """Rows of somebody about whom nothing is known: sums 0, extremes and stamps NaN, codes -1."""
    states = np.zeros(count, dtype=state_dtype(catalogue))
    for field in catalogue.fields:
        states[field.name] = _identity_value(field)
    return states


def _identity_value(field: Field) -> float:
    if field.fold in (Fold.SUM, Fold.DECAYED):
        return 0
    return -1 if field.dtype == "<i4" else np.nan


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
    anchors = np.fmax(_anchor(left), _anchor(right))
    left, right = carried(left, catalogue, anchors), carried(right, catalogue, anchors)
    merged = left.copy()
    for field in catalogue.fields:
        if field.fold in (Fold.SUM, Fold.DECAYED):
            merged[field.name] = left[field.name] + right[field.name]
        elif field.fold is Fold.MAX:
            merged[field.name] = np.fmax(left[field.name], right[field.name])
        elif field.fold is Fold.MIN:
            merged[field.name] = np.fmin(left[field.name], right[field.name])
        elif field.name == as_of_name(field.view):
            merged[field.name] = np.fmax(left[field.name], right[field.name])
        else:
            merged[field.name] = _latest(left[field.name], right[field.name], newer)
    return merged


def _profile_age_order(left: States, right: States) -> npt.NDArray[np.float64]:
    """Positive where the left profile is newer, negative where the right one is, 0 where neither."""
    anchor = as_of_name("profile")
    return np.asarray(np.nan_to_num(left[anchor] - right[anchor], nan=0.0), dtype=np.float64)


def _latest(left: npt.NDArray[Any], right: npt.NDArray[Any], newer: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    known_left, known_right = ~_is_missing(left), ~_is_missing(right)
    largest = np.fmax(left, right)
    return np.where(known_left & (newer > 0), left, np.where(known_right & (newer < 0), right, largest))


def _anchor(states: States) -> npt.NDArray[np.float64]:
    return np.asarray(np.fmax.reduce([states[as_of_name(view)] for view in VIEWS]), dtype=np.float64)


def _is_missing(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    missing = values < 0 if values.dtype.kind == "i" else np.isnan(values)
    return np.asarray(missing, dtype=np.bool_)


def from_bytes(rows: list[bytes], catalogue: Catalogue) -> States:
    """Packed rows as an array. A row written under an older (shorter) catalogue is filled up with the identity."""
    dtype = state_dtype(catalogue)
    if all(len(row) == dtype.itemsize for row in rows):
        return np.frombuffer(b"".join(rows), dtype=dtype)
    tail = identity(catalogue, 1).tobytes()
    return np.frombuffer(b"".join(row[: dtype.itemsize] + tail[len(row) :] for row in rows), dtype=dtype)
