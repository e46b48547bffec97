"""Send time against the truth: on a simulated list every hour's true chance of a click is known.

What enters: a simulated list and everybody's week as the backtest wrote it. What leaves: for each way to choose an hour, the
share of the oracle's gain that it takes, over a uniform hour and over the single best local hour. The promise: the ways chosen
for comparison read the same log and, like ours, not the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.contract import HOURS_OF_WEEK
from features.fold import Folder, Spine
from features.state import States, events_by_hour

Array = npt.NDArray[np.float64]
SHRINKAGE_EVENTS = 20.0
"""Events of everybody's histogram added to each person's, where a histogram is shrunk."""


@dataclass(frozen=True)
class Shares:
    """Of the oracle's gain over a uniform hour and over the single best local hour: the oracle has 1."""

    over_uniform: float
    over_best_hour: float


def shares(weeks: pa.Table, states: States, zones: npt.NDArray[np.int64], truth: Array) -> dict[str, Shares]:
    """Every way to choose an hour.

    Parameters
    ----------
    weeks
        ``send_time.parquet``, rows as in ``truth``, which has shape (subscribers, 168).
    zones
        A code per subscriber.
    """
    return {name: shared(choice, truth) for name, choice in _choices(weeks, states, zones).items()}


def shared(choice: npt.NDArray[np.int64], truth: Array) -> Shares:
    """Shares of one choice of an hour per subscriber."""
    taken = truth[np.arange(len(truth)), choice].mean()
    oracle, uniform, best_hour = truth.max(axis=1).mean(), truth.mean(), truth.mean(axis=0).max()
    return Shares(float((taken - uniform) / (oracle - uniform)), float((taken - best_hour) / (oracle - best_hour)))


def _choices(weeks: pa.Table, states: States, zones: npt.NDArray[np.int64]) -> Mapping[str, npt.NDArray[np.int64]]:
    responses = events_by_hour(states, "response_by_hour")
    everybody = responses.sum(axis=0)
    per_zone = np.stack([responses[zones == zone].sum(axis=0) for zone in range(zones.max() + 1)])
    shrunk = responses + SHRINKAGE_EVENTS * everybody / everybody.sum()
    return {
        "ours": weeks["hour_of_week_local"].to_numpy().astype(np.int64),
        "everybody's best hour": np.full(len(states), everybody.argmax()),
        "best hour of the time zone": per_zone.argmax(axis=1)[zones],
        "own histogram": responses.argmax(axis=1),
        "own histogram, shrunk": shrunk.argmax(axis=1),
    }


def truth_of(directory: Path, subscriber_id: pa.Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """True chance of a click by local hour, shape (subscribers, 168), and time-zone codes, in the order of some ids."""
    table = pq.read_table(directory / "truth_subscribers.parquet")
    place = pa.compute.index_in(subscriber_id, table["subscriber_id"])
    table = table.take(place)
    click = table["click_probability"].combine_chunks().flatten().to_numpy().reshape(-1, HOURS_OF_WEEK)
    zones = table["timezone"].combine_chunks().dictionary_encode().indices.to_numpy()
    return np.asarray(click, dtype=np.float64), zones.astype(np.int64)


def states_of(folder: Folder, subscriber_id: pa.Array, at_us: float) -> States:
    """Everybody's state as of a moment, in the order of some ids."""
    return folder.fold(Spine(subscriber_id, np.full(len(subscriber_id), at_us)))
