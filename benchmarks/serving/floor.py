"""The floor: what no code above the database and the trees could undercut.

What enters: our own store's database, the prepared matrix. What leaves: callables to time. The promise: the very same
packed bytes, asked for in one statement or command, and left as the bytes the client library gives; the very same trees on
rows that are ready.

The empty endpoint is in ``floor_service``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import lightgbm
import redis

from benchmarks.serving.data import Data
from features.online_redis import PREFIX

Read = Callable[[Sequence[str]], object]


def raw_select(database: Path) -> Read:
    """One SELECT of all rows by their ids, one parameter each."""
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)

    def read(subscriber_ids: Sequence[str]) -> object:
        marks = ",".join("?" * len(subscriber_ids))
        query = f"SELECT subscriber_id, row FROM states WHERE subscriber_id IN ({marks})"
        return connection.execute(query, subscriber_ids).fetchall()

    return read


def raw_mget(url: str) -> Read:
    """One MGET of all keys through redis-py, with hiredis when it is installed, on one kept connection."""
    client = redis.Redis.from_url(url)

    def read(subscriber_ids: Sequence[str]) -> object:
        return client.mget([PREFIX + one for one in subscriber_ids])

    return read


def bare_predict(data: Data, rows: int) -> Callable[[], object]:
    """Three models, one thread, on a matrix that is ready."""
    matrix = data.features.matrix[:rows].copy()
    boosters = [lightgbm.Booster(model_str=booster.text) for booster in data.boosters.values()]

    def predict() -> object:
        return [booster.predict(matrix, raw_score=True, num_threads=1) for booster in boosters]

    return predict
