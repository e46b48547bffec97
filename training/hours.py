"""Send time without sends: what can be learnt from the hours of unprompted activity alone.

What enters: a folded log that knows no sends (a shop's purchases, another system's opens). What leaves: the shapes of people's
weeks, judged by how well they foretell the hours of later activity. The promise: no response probability is claimed, because
no send was seen; only relative hours are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.clock import microseconds
from features.contract import ENGAGEMENT_TYPES
from features.evidence import HUMAN_THRESHOLD
from features.fold import Folder, Spine
from features.state import States, events_by_hour
from models.timing import Timing, learn_timing, personal_attention
from training.evaluation import Interval
from training.splits import Positions

INNER_SHARE = 0.2
"""Of the time to learn from: on its last part it is seen whether another weight of people's own hours is surely better."""
USUAL_WEIGHT, OTHER_WEIGHTS = 0.3, (0.15, 0.5, 0.7)
"""Where opens follow sends that are not known, hours come in bursts and say less than they seem to. Mean log-likelihood of
the last fifth of Outspot and Dito with weights .15, .3, .5 and .7: -2.951, -2.944, -2.944, -2.947 and -2.866, -2.865, -2.870,
-2.878 (everybody's histogram: -3.009 and -2.878). The best on the part before is within noise of that, and was worse by .006.
"""
RESAMPLES = 400


@dataclass(frozen=True)
class FittedHours:
    """Shapes and their judgement: mean log-likelihood of later local hours of day, people resampled for the intervals."""

    timing: Timing
    ours: Interval
    baseline: Interval
    gain: Interval
    later_events: int

    def metrics(self) -> dict[str, float]:
        """Flat names for a run; what is NaN is left out."""
        named = {"hours_log_likelihood": self.ours, "baseline_log_likelihood": self.baseline, "hours_gain": self.gain}
        flat = {"later_events": float(self.later_events)}
        for name, interval in named.items():
            ends = {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
            flat |= {end: value for end, value in ends.items() if np.isfinite(value)}
        return flat


def fit_hours(folder: Folder, start: datetime, cut: datetime, known_until: datetime) -> FittedHours:
    """Learn from what was received before a moment, judge on what happened from then on against everybody's histogram.

    Without any activity to judge on, ``later_events`` is 0 and the figures are NaN.

    Parameters
    ----------
    start
        Of the log.
    """
    people = folder.con.to_pyarrow(folder.con.table("subscribers").select("subscriber_id").order_by("subscriber_id"))
    subscriber_id = people["subscriber_id"].combine_chunks()
    states = _states(folder, subscriber_id, cut)
    weight = _evidence_weight(folder, subscriber_id, start + (cut - start) * (1 - INNER_SHARE), cut)
    timing = learn_timing(states, weight)
    who, hour = _later_activity(folder, subscriber_id, cut, known_until)
    if not len(who):
        nothing = Interval(np.nan, np.nan, np.nan)
        return FittedHours(timing, nothing, nothing, nothing, 0)
    pooled = _histogram(events_by_hour(states, "response_by_hour") + events_by_hour(states, "visit_by_hour"))
    ours, simplest = _log_likelihoods(states, timing, who, hour), np.log(pooled[hour])
    return FittedHours(
        timing, _interval(ours, who), _interval(simplest, who), _interval(ours - simplest, who), len(who)
    )


def _states(folder: Folder, subscriber_id: pa.Array, at: datetime) -> States:
    return folder.fold(Spine(subscriber_id, np.full(len(subscriber_id), float(microseconds(at)))))


def _evidence_weight(folder: Folder, subscriber_id: pa.Array, cut: datetime, until: datetime) -> float:
    """The weight of people's own hours: the usual one, or another that would surely have foretold the last stretch better."""
    who, hour = _later_activity(folder, subscriber_id, cut, until)
    if not len(who):
        return USUAL_WEIGHT
    states = _states(folder, subscriber_id, cut)
    timing = learn_timing(states, USUAL_WEIGHT)
    usual = _log_likelihoods(states, timing, who, hour)
    best, most = USUAL_WEIGHT, 0.0
    for weight in OTHER_WEIGHTS:
        gain = _interval(_log_likelihoods(states, replace(timing, evidence_weight=weight), who, hour) - usual, who)
        if gain.low > 0 and gain.value > most:
            best, most = weight, gain.value
    return best


def _log_likelihoods(states: States, timing: Timing, who: Positions, hour: Positions) -> npt.NDArray[np.float64]:
    """Of each event's local hour of day, given whose it was."""
    by_day = personal_attention(states, timing).reshape(len(states), 7, 24).sum(axis=1)
    return np.asarray(np.log(by_day[who, hour]))


def _later_activity(
    folder: Folder, subscriber_id: pa.Array, after: datetime, until: datetime
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Whose and at which local hour of day each later engagement was; whose as a position in ``subscriber_id``."""
    events = folder.known(microseconds(until))
    later = events.filter(
        events.event_type.isin(ENGAGEMENT_TYPES),
        events.human >= HUMAN_THRESHOLD,
        events.occurred_us >= microseconds(after),
    )
    table = folder.con.to_pyarrow(
        later.select("subscriber_id", "hour_of_week").order_by(["subscriber_id", "hour_of_week"])
    )
    who = pa.compute.index_in(table["subscriber_id"], subscriber_id).to_numpy()
    return who.astype(np.int64), table["hour_of_week"].to_numpy() % 24


def _histogram(by_hour: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    counts = by_hour.sum(axis=0).reshape(7, 24).sum(axis=0) + 1
    return np.asarray(counts / counts.sum())


def _interval(values: npt.NDArray[np.float64], who: npt.NDArray[np.int64]) -> Interval:
    """Mean with a 95 % bootstrap interval over people."""
    people, index = np.unique(who, return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index).astype(np.float64)
    weights = np.random.default_rng(0).poisson(1.0, (RESAMPLES, len(people)))
    means = (weights * sums).sum(axis=1) / np.maximum((weights * counts).sum(axis=1), 1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))
