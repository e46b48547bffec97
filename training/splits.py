"""Cutting labelled rows into train, validation and test, by time.

What enters: each row's instant, its label's horizon, its subscriber. What leaves: three disjoint sets of positions. The
promise: every label used to fit, stop or calibrate was mature before the first test instant; validation lies later than
training, with the horizon between them, or, where the history is too short for that, on other people.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import NoMatureLabels
from features.state import MICROSECONDS_PER_DAY

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.25
LEAST_SHARE = 0.3
"""Of all rows, at least this part must remain for development before the test, or the test starts later."""
FOLDS = 4

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Positions of rows. ``validation`` says when to stop, ``test`` judges. ``development`` is all that may be learnt from
    in the end: train, validation and the gap between them; rows in the gap before the test are in none.
    """

    train: Positions
    validation: Positions
    test: Positions
    by_people: bool
    """Whether validation rows are other people at overlapping times rather than purely later rows."""
    development: Positions


def split(
    model: str, as_of: npt.NDArray[np.float64], horizon: timedelta, subscriber_id: pa.Array, with_test: bool = True
) -> Split:
    """Cut rows by time.

    Parameters
    ----------
    as_of
        Microseconds since 1970 UTC of each row; its label reads ``[as_of, as_of + horizon)``.
    with_test
        False when the rows are judged elsewhere (a backtest): everything is development.

    Raises
    ------
    NoMatureLabels
        When the history is too short for a horizon between development and test.
    """
    span = float(horizon / timedelta(microseconds=1))
    everything = np.arange(len(as_of))
    if with_test:
        start = _test_start(model, as_of, span)
        test, development = everything[as_of >= start], everything[as_of + span <= start]
    else:
        test, development = everything[:0], everything
    train, validation, by_people = _development(as_of, span, subscriber_id, development)
    return Split(train, validation, test, by_people, development)


def _test_start(model: str, as_of: npt.NDArray[np.float64], span: float) -> float:
    """The 80 % point in time, or as much later as development needs."""
    instants, counts = np.unique(as_of, return_counts=True)
    share_before = np.cumsum(counts) / len(as_of)
    mature = np.searchsorted(instants, instants - span, side="right")
    developed = np.where(mature > 0, share_before[np.maximum(mature - 1, 0)], 0.0)
    late_enough = np.concatenate([[0.0], share_before[:-1]]) >= 1 - TEST_SHARE
    for fits in (late_enough & (developed >= LEAST_SHARE), developed >= LEAST_SHARE, developed > 0):
        if fits.any():
            return float(instants[np.argmax(fits)])
    history = (instants[-1] - instants[0] + span) / MICROSECONDS_PER_DAY
    raise NoMatureLabels(model, span / MICROSECONDS_PER_DAY, history)


def _development(
    as_of: npt.NDArray[np.float64], span: float, subscriber_id: pa.Array, rows: Positions
) -> tuple[Positions, Positions, bool]:
    start = _quantile_instant(as_of[rows], 1 - VALIDATION_SHARE)
    later, earlier = rows[as_of[rows] >= start], rows[as_of[rows] + span <= start]
    if len(earlier) >= len(rows) / 2:
        return earlier, later, False
    held_out = fold_of(subscriber_id.take(pa.array(rows)), FOLDS) == 0
    return rows[~held_out], rows[held_out & (as_of[rows] >= np.median(as_of[rows]))], True


def _quantile_instant(as_of: npt.NDArray[np.float64], share: float) -> float:
    return float(np.sort(as_of)[min(int(share * len(as_of)), len(as_of) - 1)])


def fold_of(subscriber_id: pa.Array, count: int) -> npt.NDArray[np.int64]:
    """A stable fold per subscriber, from 0 to below ``count``."""
    words = subscriber_id.dictionary_encode()
    folds = np.array([zlib.crc32(str(word).encode()) % count for word in words.dictionary.to_pylist()])
    return np.asarray(folds[words.indices.to_numpy()], dtype=np.int64)
