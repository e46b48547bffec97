"""What is said of leads: rows of the book, as far as they may be shown now, and scores of this moment.

What enters: a checked query. What leaves: bytes, JSON or CSV. The promise: whoever has withdrawn consent since the export is
not in them; where nobody can tell, nothing is shown. Nothing said here gets into the prediction log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from time import sleep
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from features.errors import LeadsUnavailable, StoreUnavailable, UnknownLead
from serving.answers import Scores, render_json
from serving.leads.book import PROFILE, Book
from serving.leads.cells import csv_block, csv_header
from serving.leads.columns import columns_of
from serving.leads.query import LeadQuery, Selection
from serving.leads.reader import BookReader, Row
from serving.schemas import ScoreRequest

NO_CONSENT = "no_consent"
ATTEMPTS, PAUSE_S = 3, 0.1
"""Of asking the online store: what it may take is cut for renderers, and a busy machine can exceed it for a moment."""


class LiveScorer(Protocol):
    """What is asked of ``serving.scorer``."""

    @property
    def versions(self) -> Mapping[str, str]:
        """The version in service of each model."""

    def score(self, request: ScoreRequest, scored_at: datetime) -> Scores:
        """Score every asked subscriber."""

    def statuses(self, subscriber_ids: Sequence[str], now: datetime) -> npt.NDArray[np.str_]:
        """How they stand."""


class InService(Protocol):
    """Where the scorer in service stands; another may take its place between two questions."""

    @property
    def clock(self) -> Callable[[], datetime]:
        """Tells the time."""

    @property
    def scorer(self) -> LiveScorer:
        """The one that answers now."""


@dataclass(frozen=True)
class Download:
    """A selection as a file, in blocks; the first one has the names of the columns."""

    book_id: str
    blocks: Iterator[bytes]


class Answers:
    """Answers of one thread: its own reader, everybody's scorer."""

    def __init__(self, reader: BookReader, engine: InService) -> None:
        self.reader, self.engine = reader, engine

    def page(self, query: LeadQuery, request_id: str) -> bytes:
        """Some leads of a selection; who of them is counted, ``BookReader.page`` says."""
        page = self.reader.page(query, self._may_be_shown)
        said = {
            "request_id": request_id,
            "book": _about(page.book),
            "total": page.total,
            "offset": query.offset,
            "limit": query.limit,
            "withheld": page.withheld,
            "leads": page.rows,
        }
        return orjson.dumps(said, option=orjson.OPT_UTC_Z)

    def one(self, subscriber_id: str, request_id: str) -> bytes:
        """One lead in the newest book, in those before, and now."""
        book, row, standings = self.reader.one(subscriber_id)
        if row is None:
            raise UnknownLead
        now = self._now(subscriber_id, request_id)
        if now["status"] == NO_CONSENT:
            row, standings, now = None, [], {"status": NO_CONSENT}
        said = {
            "request_id": request_id,
            "subscriber_id": subscriber_id,
            "status": now["status"],
            "book": _about(book),
            "lead": row and _with_attributes(row),
            "history": [asdict(standing) for standing in standings],
            "now": now,
        }
        return orjson.dumps(said, option=orjson.OPT_UTC_Z)

    def download(self, selection: Selection) -> Download:
        """A whole selection, read as it is asked for."""
        book, batches = self.reader.begin(selection)
        return Download(book.id, self._blocks(book, batches))

    def _blocks(self, book: Book, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
        columns = columns_of(book.schema)
        yield csv_header(columns)
        for batch in batches:
            shown = self._may_be_shown(batch.column("subscriber_id").to_pylist())
            yield csv_block(batch if shown.all() else batch.filter(pa.array(shown)), columns)

    def _may_be_shown(self, subscriber_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Who has not objected, by what the store says now."""
        if not subscriber_ids:
            return np.ones(0, dtype=np.bool_)
        for _ in range(ATTEMPTS):
            try:
                statuses = self.engine.scorer.statuses(subscriber_ids, self.engine.clock())
                return np.asarray(statuses != NO_CONSENT)
            except StoreUnavailable:
                sleep(PAUSE_S)
        raise _nobody_can_tell()

    def _now(self, subscriber_id: str, request_id: str) -> dict[str, Any]:
        """The answer of ``/v1/scores`` at this moment, with reasons."""
        # Another scorer may be put in service meanwhile.
        scorer, now = self.engine.scorer, self.engine.clock()
        scores = scorer.score(ScoreRequest(subscriber_ids=(subscriber_id,), explain=True), now)
        if scores.store_failed:
            raise _nobody_can_tell()
        said = orjson.loads(render_json(scores, request_id, now, scorer.versions, explain=True))
        return {"scored_at": said["scored_at"], "models": said["models"], **said["scores"][0]}


def _nobody_can_tell() -> LeadsUnavailable:
    return LeadsUnavailable("the online store does not say who has withdrawn consent")


def _about(book: Book) -> dict[str, Any]:
    return {
        "id": book.id,
        "scored_at": book.scored_at,
        "previous_id": book.previous_id,
        "model_version": book.model_version,
        "list_name": book.list_name,
        "simulated": book.simulated,
        "leads": book.rows,
        "left_out": asdict(book.left_out),
        "attributes": book.attributes,
    }


def _with_attributes(row: Row) -> Row:
    """The list's own attributes by themselves, without their prefix."""
    own = {name: value for name, value in row.items() if not name.startswith(PROFILE)}
    attributes = {name.removeprefix(PROFILE): value for name, value in row.items() if name.startswith(PROFILE)}
    return {**own, "attributes": attributes}
