"""`inbox materialize`: everybody's state into the online store.

What enters: a home with a log. What leaves: one packed row per subscriber, as of the log's end. The promise: states are
folded and written a chunk at a time, and a second run changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import numpy as np
import pyarrow as pa

from features.clock import microseconds
from features.fold import Spine
from features.home import Home
from pipelines.console import Share
from pipelines.train import Prepared, prepare

CHUNK_ROWS = 20_000
JUST_AFTER = timedelta(microseconds=1)
"""The right edge is open: as of this long after the log's end its last event counts."""


@dataclass(frozen=True)
class Materialized:
    """How many rows were written, and as of when."""

    subscribers: int
    as_of: datetime


def materialize(home: Home, share: Share, as_of: datetime | None = None) -> Materialized:
    """Fold everybody's state and write it to the online store.

    Parameters
    ----------
    as_of
        Default: just after the last event was received, so that the whole log counts and a rerun gives the same rows.

    Raises
    ------
    EmptyLog, FeatureStoreFailed, StoreUnavailable
    """
    prepared = prepare(home)
    moment = as_of or prepared.end + JUST_AFTER
    total, done = _count(prepared), 0
    for subscriber_ids in _everybody(prepared.folder.con):
        instants = np.full(len(subscriber_ids), float(microseconds(moment)))
        prepared.store.materialize(subscriber_ids, prepared.folder.fold(Spine(subscriber_ids, instants)))
        done += len(subscriber_ids)
        share(done / total)
    return Materialized(done, moment)


def _count(prepared: Prepared) -> int:
    return int(prepared.folder.con.execute(prepared.folder.con.table("subscribers").count()))


def _everybody(con: ibis.BaseBackend) -> Iterator[pa.Array]:
    """Ids of all subscribers, in order, a chunk at a time."""
    ids = con.to_pyarrow(con.table("subscribers").select("subscriber_id").order_by("subscriber_id"))
    for batch in ids.combine_chunks().to_batches(max_chunksize=CHUNK_ROWS):
        yield batch.column(0)
