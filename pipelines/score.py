"""`inbox score`: everybody's scores in one table.

What enters: a home with promoted bundles and a materialized store. What leaves: the scored table. The promise: the same
scorer as over HTTP, so the same bits at the same moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import get_args

import pyarrow as pa

from features.contract import MODELS
from features.errors import BundleMissing, EmptyLog, StoreUnavailable
from features.home import Home
from features.log import EventLog
from features.stores import open_store
from pipelines.console import Share
from pipelines.inbox import drained
from serving.schemas import MAX_IDS, ModelName, ScoreRequest
from serving.scorer import Scorer
from serving.settings import ServingSettings
from serving.swap import Shelf


def score_list(
    home: Home,
    share: Share,
    scored_at: datetime | None = None,
    models: Sequence[str] = MODELS,
    ids: Sequence[str] | None = None,
    explain: bool = False,
) -> pa.Table:
    """Score subscribers with every asked model that is promoted.

    Parameters
    ----------
    scored_at
        Default: just after the log's end, so that a rerun gives the same table.
    ids
        Default: everybody in the log, in order.
    explain
        Add the reasons; takes some 75 times as long.

    Raises
    ------
    BundleMissing
        When none of the asked models is promoted.
    EmptyLog
        When there is nobody to score: the table has at least one row.
    StoreUnavailable
        When nobody's state can be read. The service falls back to priors then; a table of them would help nobody.
    """
    drained(home)
    log = EventLog(home)
    moment = scored_at or log.end() + timedelta(microseconds=1)
    scorer = scorer_of(home, models)
    if not scorer.bundles:
        raise BundleMissing(home.bundles)
    wanted = list(ids) if ids is not None else _everybody(log)
    if not wanted:
        raise EmptyLog(home.event_log)
    tables = []
    for start in range(0, len(wanted), MAX_IDS):
        request = ScoreRequest(
            subscriber_ids=tuple(wanted[start : start + MAX_IDS]), models=_named(models), explain=explain
        )
        scores = scorer.score(request, moment)
        if scores.store_failed:
            raise StoreUnavailable("it is not there or does not answer; `inbox materialize` fills it")
        tables.append(scores.to_table(scorer.versions, moment))
        share((start + len(request.subscriber_ids)) / len(wanted))
    return pa.concat_tables(tables)


def scorer_of(home: Home, models: Sequence[str] = MODELS) -> Scorer:
    """The promoted models over the home's online store, as the service has them."""
    store, stale_after = open_store(home), ServingSettings(home=home.root).stale_after
    shelf = Shelf(home, lambda bundles: Scorer(bundles, store, stale_after / timedelta(seconds=1)), models)
    return shelf.scorer


def _named(models: Sequence[str]) -> tuple[ModelName, ...]:
    return tuple(name for name in get_args(ModelName) if name in models)


def _everybody(log: EventLog) -> list[str]:
    con = log.connect()
    ids = con.table("subscribers").select("subscriber_id").order_by("subscriber_id")
    return [str(subscriber_id) for subscriber_id in con.to_pyarrow(ids)["subscriber_id"].to_pylist()]
