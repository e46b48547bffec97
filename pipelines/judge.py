"""Taking a fitted model through the gates: the champion's scores of the same rows, and a log cut where each row looked.

What enters: a fitted model, the data it was fitted on and the log. What leaves: its ``Verdict``. The promise: the champion is
judged on rows it has not learnt from either, by its own bundle and its own catalogue, exactly as it would have been served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import BundleCorrupt, BundleMissing, FeatureMismatch, RegistryFailed
from features.evidence import epoch_us
from features.fold import Folder, Spine
from features.home import Home
from features.state import States
from models.bundle import Bundle, bundle_key, load
from models.registry import Registry, Version
from pipelines.promote import champion_of, verified
from training.dataset import Dataset
from training.fit import Fitted
from training.gates import (
    CHAMPION,
    Later,
    bands_of,
    baseline_gate,
    calibration_gate,
    champion_gate,
    drift_gate,
    hours_gate,
    later_rows,
    leak_gate,
    point_in_time_gate,
    sampled,
    scored_by,
    shift_gate,
    slices_gate,
)
from training.hours import FittedHours
from training.verdict import Gate, Verdict

LEARNT_UNTIL_TAG = "training.learnt_until"
"""On a version: microseconds since 1970 UTC from which on a row is news to it."""

Array = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Champion:
    """What serves now. ``bundle`` is None when it can no longer be read; ``why`` says so then."""

    version: Version
    bundle: Bundle | None
    why: str = ""

    @property
    def learnt_until(self) -> float:
        """Where the tag is missing, the version is older than the tag: nothing is left out."""
        return float(self.version.tags.get(LEARNT_UNTIL_TAG, "-inf"))


def champion(home: Home, registry: Registry, model: str) -> Champion | None:
    """The version that serves with its bundle, None when none does."""
    version = champion_of(registry, model)
    if version is None:
        return None
    try:
        with verified(home, registry, version) as directory:
            return Champion(version, load(directory, bundle_key(home)))
    except (BundleCorrupt, BundleMissing, RegistryFailed) as error:
        return Champion(version, None, str(error))


def judge(data: Dataset, fitted: Fitted, folder: Folder, serving: Champion | None, allowed: Sequence[str]) -> Verdict:
    """Take a fitted model through every gate.

    Parameters
    ----------
    folder
        Over the log that ``data`` came from.
    serving
        The champion, None when there is none.
    allowed
        Features that may know the answer on their own.
    """
    test, judgement = fitted.split.test, fitted.judgement
    against = None if serving is None else serving.version.version
    if judgement is None:
        return Verdict(fitted.spec.name, against, ())
    gates = [
        *_beside(serving, data, fitted),
        baseline_gate(judgement.ours, judgement.gain, judgement.baseline_name),
        calibration_gate(judgement.ours, fitted.probability[test]),
        leak_gate(data.features, data.rows.label, test, (*allowed, *fitted.spec.excluded)),
        _point_in_time(data, folder),
        drift_gate(data.features, data.rows.label, fitted.split.development, test),
    ]
    return Verdict(fitted.spec.name, against, tuple(gates))


def judge_hours(hours: FittedHours, serving: Champion | None) -> Verdict:
    """Take a model of hours alone through the gates that make sense for it: it promises no probability."""
    if serving is not None and serving.bundle is not None and _promises(serving.bundle):
        words = f"version {serving.version.version} knows what sends do; a model of hours alone would be less"
        return Verdict("send_time", serving.version.version, (Gate(CHAMPION, False, words),))
    return Verdict("send_time", None if serving is None else serving.version.version, (hours_gate(hours.gain),))


def learnt_until(data: Dataset, fitted: Fitted) -> float:
    """From when on rows are news to a fit: every label it used was mature before its first test row."""
    test = fitted.split.test
    if len(test):
        return float(data.rows.as_of[test].min())
    return float(data.rows.as_of.max() + fitted.spec.horizon.total_seconds() * 1e6)


def _beside(serving: Champion | None, data: Dataset, fitted: Fitted) -> list[Gate]:
    """The gates that need a champion."""
    if serving is None:
        return [Gate(CHAMPION, True, "nothing serves yet: there is no champion to compare with")]
    number = serving.version.version
    if serving.bundle is None:
        return [Gate(CHAMPION, True, f"version {number} can no longer be read: {serving.why}", mind=True)]
    if not _promises(serving.bundle):
        return [Gate(CHAMPION, True, f"version {number} knows hours alone and promises no probability", mind=True)]
    rows = fitted.split.test[data.rows.as_of[fitted.split.test] >= serving.learnt_until]
    try:
        theirs = scored_by(serving.bundle, data, rows)
    except FeatureMismatch as error:
        return [Gate(CHAMPION, True, f"version {number} reads what is no longer derived: {error}", mind=True)]
    ours, later = fitted.probability[rows], later_rows(data, rows)
    first = champion_gate(ours, theirs, later, number)
    if not later.enough:
        return [first]
    return [first, slices_gate(ours, theirs, later, number), _shift(ours, theirs, later, fitted, serving.bundle)]


def _promises(bundle: Bundle) -> bool:
    """Whether it gives probabilities. One of hours alone has no scores to rank among."""
    return "quantiles" in bundle.parameters


def _shift(ours: Array, theirs: Array, later: Later, fitted: Fitted, bundle: Bundle) -> Gate:
    new = bands_of(fitted.spec.name, ours, fitted.quantiles)
    old = bands_of(fitted.spec.name, theirs, bundle.parameters.get("quantiles", ()))
    return shift_gate(ours, theirs, later, None if new is None or old is None else (new, old))


def _point_in_time(data: Dataset, folder: Folder) -> Gate:
    rows = sampled(data)
    return point_in_time_gate(data, rows, refolded(data, rows, folder))


def refolded(data: Dataset, rows: Positions, folder: Folder) -> States:
    """Some rows, each folded from a copy of the log that holds nothing from the row's moment on.

    A state needs nobody else's events (see ``features.log``), so one small log does for all rows: each row is a subscriber of
    its own, whose events end at its moment. A log per moment, of eight, took five times as long.
    """
    as_of = data.rows.stored_as_of[rows]
    names = pa.array([str(row) for row in range(len(rows))])
    cut_at = pa.array(as_of.astype(np.int64), pa.int64())
    whose = data.rows.subscriber_id.take(pa.array(rows))
    asked = ibis.memtable(pa.table({"asked": names, "whose": whose, "cut_at": cut_at}))
    events, subscribers = folder.con.table("events"), folder.con.table("subscribers")
    known = events.join(asked, [events.subscriber_id == asked.whose, epoch_us(events.received_at) < asked.cut_at])
    there = subscribers.join(
        asked, [subscribers.subscriber_id == asked.whose, epoch_us(subscribers.created_at) <= asked.cut_at]
    )
    con = ibis.duckdb.connect()
    try:
        for name, table in (
            ("events", known.mutate(subscriber_id=known.asked, event_id=known.asked + ":" + known.event_id)),
            ("subscribers", there.mutate(subscriber_id=there.asked)),
            ("campaigns", folder.con.table("campaigns")),
        ):
            con.con.register(
                name, folder.con.to_pyarrow(table.drop(*({"asked", "whose", "cut_at"} & set(table.columns))))
            )
        return Folder(con, data.catalogue).fold(Spine(names, as_of))
    finally:
        con.disconnect()
