"""Every score that was given, written down: what monitoring, lift and disputes are answered from.

What enters: answered requests, handed over by the event loop. What leaves: Parquet files under ``var/predictions``,
one row per subscriber and model. The promise: handing over never waits and never fails; what does not fit is counted.
A file is whole or absent. A killed process loses what was not written yet, at most ``roll_seconds`` of it.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, repeat
from pathlib import Path
from threading import Condition, Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.contract import UTC_MICROSECONDS
from serving.answers import Scores, to_arrow
from serving.schemas import Context

log = logging.getLogger("inbox.predictions")

LOG_SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("campaign_id", pa.string()),
        pa.field("content", pa.list_(pa.string()), nullable=False),
        pa.field("default_send_at", UTC_MICROSECONDS),
        pa.field("window_hours", pa.int32(), nullable=False),
        pa.field("quiet_from", pa.int32()),
        pa.field("quiet_to", pa.int32()),
        pa.field("subscriber_id", pa.string(), nullable=False),
        pa.field("scored_at", UTC_MICROSECONDS, nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("prior", pa.string()),
        pa.field("feature_age_s", pa.float64()),
        pa.field("state_as_of", UTC_MICROSECONDS),
        pa.field("state_checksum", pa.uint64()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
        pa.field("send_at", UTC_MICROSECONDS),
        pa.field("hour_of_week", pa.int32()),
        pa.field("arm", pa.string()),
        pa.field("propensity", pa.float64()),
        pa.field("exploit_probability", pa.float64()),
        pa.field("default_probability", pa.float64()),
    ]
)
"""``send_at`` to ``default_probability`` are null but for send_time; ``feature_age_s`` and ``state_as_of`` where no features
were used.

The features themselves are not written but can be had again: fold the subscriber's events up to ``state_as_of``, compare
``state_checksum`` (``features.packing.checksums_of``), derive at ``scored_at``. With the version of the model and the
context, that gives the score to the bit. Decayed sums are measured from the beginning of the week of ``state_as_of``; of a row
that live events kept alive, perhaps of the week before (``features.live.LONGEST_STAY_US``): the checksum tells which.
"""

_SHARED = ("subscriber_id", "status", "prior", "feature_age_s", "state_as_of", "state_checksum")
NO_CONTEXT, NO_HOURS = Context(), (None, None)
PART_ROWS = 300
"""Converted at a time: less than a millisecond for answers of one subscriber each, in which nobody else is answered."""


@dataclass(frozen=True)
class Served:
    """One answered request."""

    request_id: str
    context: Context | None
    scored_at: datetime
    versions: Mapping[str, str]
    scores: Scores

    @property
    def rows(self) -> int:
        return len(self.scores) * len(self.scores.models)

    @property
    def asked(self) -> Context:
        """What was said of the message; the defaults where nothing was."""
        return self.context or NO_CONTEXT


_OF_REQUEST: dict[str, Callable[[Served], object]] = {
    "request_id": lambda served: served.request_id,
    "campaign_id": lambda served: served.asked.campaign_id,
    "content": lambda served: served.asked.content,
    "default_send_at": lambda served: served.asked.default_send_at,
    "window_hours": lambda served: served.asked.window_hours,
    "quiet_from": lambda served: (served.asked.quiet_hours or NO_HOURS)[0],
    "quiet_to": lambda served: (served.asked.quiet_hours or NO_HOURS)[1],
    "scored_at": lambda served: served.scored_at,
}


class PredictionLog:
    """A bounded queue and the one thread that empties it into files.

    The thread turns answers into Arrow as soon as there are ``PART_ROWS`` rows of them: while they are Python objects,
    every garbage collection walks through them and stops the service meanwhile.

    Parameters
    ----------
    queue_rows
        More than this waiting, and further requests are not logged.
    roll_rows, roll_seconds
        A file is written when it would hold this many rows or so long after the last one, whichever comes first.
    """

    def __init__(
        self, directory: Path, queue_rows: int = 100_000, roll_rows: int = 100_000, roll_seconds: float = 30.0
    ) -> None:
        self.directory, self.queue_rows = directory, queue_rows
        self.roll_rows, self.roll_seconds = roll_rows, roll_seconds
        self.part_rows = min(PART_ROWS, roll_rows)
        self.written_rows = self.dropped_rows = self.lost_rows = self.waiting_rows = 0
        self._waiting: deque[Served] = deque()
        self._closed = False
        self._changed = Condition()
        self._writer = Thread(target=self._run, name="prediction-log", daemon=True)
        self._writer.start()

    def offer(self, served: Served) -> bool:
        """Hand over one answered request; False when the queue is full or closed, and it is dropped."""
        rows = served.rows
        if not rows:
            return True
        with self._changed:
            if self._closed or self.waiting_rows + rows > self.queue_rows:
                self.dropped_rows += rows
                return False
            self._waiting.append(served)
            self.waiting_rows += rows
            if self.waiting_rows >= self.part_rows:
                self._changed.notify()
        return True

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits and stop. Rows still unwritten after ``timeout_s`` are lost."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._writer.join(timeout_s)

    def _run(self) -> None:
        held: list[pa.Table] = []
        roll_at, closed = time.monotonic() + self.roll_seconds, False
        while not closed:
            part, closed = self._next_part(roll_at)
            held += self._converted(part)
            if closed or time.monotonic() >= roll_at or sum(table.num_rows for table in held) >= self.roll_rows:
                self._write(held)
                held, roll_at = [], time.monotonic() + self.roll_seconds

    def _next_part(self, roll_at: float) -> tuple[list[Served], bool]:
        """The oldest answers waiting, and whether there will be no more."""
        part: list[Served] = []
        rows = 0
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self.waiting_rows >= self.part_rows, max(0.0, roll_at - time.monotonic())
            )
            while self._waiting and rows < self.part_rows:
                part.append(self._waiting.popleft())
                rows += part[-1].rows
            self.waiting_rows -= rows
            return part, self._closed and not self._waiting

    def _converted(self, part: Sequence[Served]) -> list[pa.Table]:
        try:
            return to_rows(part)
        except (ValueError, TypeError, pa.ArrowException) as error:
            self._lose(sum(served.rows for served in part), error)
            return []

    def _write(self, held: Sequence[pa.Table]) -> None:
        """A disk that is full or gone costs these rows, not the service."""
        if not held:
            return
        table = pa.concat_tables(held)
        try:
            write_whole(table, self.directory)
        except (OSError, pa.ArrowException) as error:
            self._lose(table.num_rows, error)
        else:
            self.written_rows += table.num_rows

    def _lose(self, rows: int, error: Exception) -> None:
        self.lost_rows += rows
        log.error("%d rows of the prediction log are lost: %s", rows, type(error).__name__)


def to_rows(part: Sequence[Served]) -> list[pa.Table]:
    """One row per request, subscriber and model, as ``LOG_SCHEMA`` says: one table per model and set of models asked."""
    alike: dict[tuple[str, ...], list[Served]] = {}
    for served in part:
        alike.setdefault(served.scores.models, []).append(served)
    return [table for models, answers in alike.items() for table in _tables(models, answers)]


def _tables(models: Sequence[str], answers: Sequence[Served]) -> Iterator[pa.Table]:
    """Answers of the same models. What they say of the request and the subscriber is made once for all models."""
    counts = [len(served.scores) for served in answers]
    shared = {name: _joined(answers, name, LOG_SCHEMA.field(name)) for name in _SHARED}
    for name, value in _OF_REQUEST.items():
        shared[name] = pa.array(_repeated([value(served) for served in answers], counts), LOG_SCHEMA.field(name).type)
    for model in models:
        known = shared | {
            "model": pa.array([model] * sum(counts)),
            "model_version": pa.array(_repeated([served.versions[model] for served in answers], counts)),
        }
        arrays = [
            known[field.name] if field.name in known else _joined(answers, f"{model}_{field.name}", field)
            for field in LOG_SCHEMA
        ]
        yield pa.Table.from_arrays(arrays, schema=LOG_SCHEMA)


# Here and below lists rather than Arrow's own functions: those let go of the interpreter, and beside a busy event loop
# each of them then waits for its turn to go on.
def _repeated(values: list[object], counts: Sequence[int]) -> list[object]:
    if len(values) == sum(counts):
        return values
    return list(chain.from_iterable(map(repeat, values, counts)))


def _joined(answers: Sequence[Served], column: str, field: pa.Field) -> pa.Array:
    """One column of many answers."""
    if column not in answers[0].scores.columns:
        return pa.array([None] * sum(len(served.scores) for served in answers), field.type)
    columns = [served.scores.columns[column] for served in answers]
    if isinstance(columns[0], np.ndarray):
        return to_arrow(np.concatenate(columns), field.type)
    return to_arrow(list(chain.from_iterable(columns)), field.type)


def write_whole(table: pa.Table, directory: Path) -> Path:
    """Write a Parquet file under a name no reader looks for, then rename it.

    Raises
    ------
    OSError
        When the disk refuses. Nothing is left behind then.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{table['scored_at'][0].as_py():%Y%m%dT%H%M%S}-{uuid.uuid4().hex}.parquet"
    beside = path.with_suffix(".tmp")
    try:
        with beside.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
