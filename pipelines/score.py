"""`inbox score`: everybody's scores, in parts.

What enters: a home with promoted bundles and a materialized store. What leaves: scored tables of some subscribers each, or
all of it in one. The promise: the same scorer as over HTTP, so the same bits at the same moment; and however long the
list, no more of it is in memory than one part.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import IO, get_args

import numpy as np
import pyarrow as pa

from features.clock import microseconds
from features.contract import MODELS
from features.errors import BundleMissing, EmptyLog, StoreUnavailable, UnusableOption
from features.home import Home
from features.log import EventLog
from features.stores import open_store
from pipelines.console import Share
from pipelines.inbox import drained
from serving.answers import Scores
from serving.schemas import MAX_IDS, ModelName, ScoreRequest
from serving.scorer import Scorer
from serving.settings import ServingSettings
from serving.swap import Shelf

MEMORY_LIMIT = "1GB"
"""Of the question who is in the log."""
GROUP_ROWS = 65_536
"""Of a row group that parts are gathered into."""
GROUP_BYTES = 64 << 20
"""A row group is no larger, however long the texts in it; one part may be."""


def score_list(
    home: Home,
    share: Share,
    scored_at: datetime | None = None,
    models: Sequence[str] = MODELS,
    ids: Sequence[str] | None = None,
    explain: bool = False,
) -> pa.Table:
    """What ``scored_parts`` gives, in one table: for lists that fit in memory."""
    return pa.concat_tables(scored_parts(home, share, scored_at, models, ids, explain))


def scored_parts(
    home: Home,
    share: Share,
    scored_at: datetime | None = None,
    models: Sequence[str] = MODELS,
    ids: Sequence[str] | None = None,
    explain: bool = False,
) -> Iterator[pa.Table]:
    """Score subscribers with every asked model that is promoted, up to ``MAX_IDS`` at a time.

    Parameters
    ----------
    scored_at
        Default: just after the log's end, so that a rerun gives the same tables.
    ids
        Default: everybody in the log, in order; as of a given moment, who had joined by then.
    explain
        Add the reasons; takes some 75 times as long.

    Raises
    ------
    BundleMissing
        When none of the asked models is promoted.
    EmptyLog
        When there is nobody to score: there is at least one part, of at least one row.
    UnusableOption
        When ``scored_at`` is given and the store knows more than was known then.
    StoreUnavailable
        When nobody's state can be read. The service falls back to priors then; tables of them would help nobody.
    """
    drained(home)
    log = EventLog(home)
    moment = scored_at or log.end() + timedelta(microseconds=1)
    scorer = scorer_of(home, models)
    if not scorer.bundles:
        raise BundleMissing(home.bundles)
    with _everybody(log, scored_at) if ids is None else nullcontext((ids, len(ids))) as (asked, total):
        if not total:
            raise EmptyLog(home.event_log)
        done = 0
        for some in _requests(asked):
            request = ScoreRequest(subscriber_ids=some, models=_named(models), explain=explain)
            scores = scorer.score(request, moment)
            if scores.store_failed:
                raise StoreUnavailable("it is not there or does not answer; `inbox materialize` fills it")
            if scored_at is not None:
                _refuse_foresight(scores, scored_at)
            yield scores.to_table(scorer.versions, moment)
            done += len(some)
            share(done / total)


def _refuse_foresight(scores: Scores, scored_at: datetime) -> None:
    """A score as of a past moment must not rest on what was learnt since."""
    newest = np.asarray(scores.columns["state_as_of"])
    if (newest > microseconds(scored_at)).any():
        raise UnusableOption(
            "--at",
            "the online store knows what was received after that moment. Give a later one, or lay out a home as of it: "
            "one without var/feast/online.db, filled by `inbox materialize --as-of` that moment.",
        )


def gathered(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables fit to be row groups: small parts together, none cut."""
    held: list[pa.Table] = []
    rows = size = 0
    for part in parts:
        if held and (rows + part.num_rows > GROUP_ROWS or size + part.nbytes > GROUP_BYTES):
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
        held.append(part)
        rows, size = rows + part.num_rows, size + part.nbytes
    if held:
        yield pa.concat_tables(held)


def scorer_of(home: Home, models: Sequence[str] = MODELS) -> Scorer:
    """The promoted models over the home's online store, as the service has them."""
    store, stale_after = open_store(home), ServingSettings(home=home.root).stale_after
    shelf = Shelf(home, lambda bundles: Scorer(bundles, store, stale_after / timedelta(seconds=1)), models)
    return shelf.scorer


def _named(models: Sequence[str]) -> tuple[ModelName, ...]:
    return tuple(name for name in get_args(ModelName) if name in models)


@contextmanager
def _everybody(log: EventLog, joined_before: datetime | None) -> Iterator[tuple[Iterable[str], int]]:
    """The ids of all subscribers in order, and how many there are.

    They wait in a file without a name, which is gone with the process: the tables that tell who is there are closed
    before the first of them is scored.
    """
    with tempfile.TemporaryFile(dir=log.home.var) as waiting:
        total = _laid_down(log, joined_before, waiting)
        waiting.seek(0)
        with pa.ipc.open_stream(waiting) as stream:
            yield chain.from_iterable(batch.column(0).to_pylist() for batch in stream), total


def _laid_down(log: EventLog, joined_before: datetime | None, file: IO[bytes]) -> int:
    """Write the ids of all subscribers in order; how many they are."""
    con, total = log.connect(MEMORY_LIMIT), 0
    try:
        by_then = "true" if joined_before is None else "created_at is null or created_at < $1"
        query = f"select subscriber_id from subscribers where {by_then} order by subscriber_id"
        ids = con.con.sql(query, params=[joined_before] if joined_before else []).to_arrow_reader(MAX_IDS)
        with pa.ipc.new_stream(file, ids.schema) as stream:
            for batch in ids:
                total += batch.num_rows
                stream.write_batch(batch)
    finally:
        con.disconnect()
    return total


def _requests(ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """A request's worth at a time."""
    left = iter(ids)
    while some := tuple(islice(left, MAX_IDS)):
        yield some
