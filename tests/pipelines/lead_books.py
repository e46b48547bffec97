"""Lead books made by hand, for tests of what is written from them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from serving.leads.book import BOOK_SCHEMA, Book, open_book
from serving.leads.columns import SCHEMA_VERSION

NOW = datetime(2026, 11, 23, 8, 15, 2, 120_000, tzinfo=UTC)
NAME = "20261123T081502120000Z-000004"
BEFORE = "20261116T081502120000Z-000003"


def lead(subscriber_id: str, score: int = 50, **changes: Any) -> dict[str, Any]:
    """A row of a book, but for its rank."""
    row = {
        "subscriber_id": subscriber_id,
        "score": score,
        "grade": "A" if score >= 90 else "C",
        "probability": score / 200,
        "percentile": score,
        "score_before": score - 3,
        "grade_before": "C",
        "score_change": 3,
        "movement": "up" if score >= 90 else "same",
        "change_reason": "engaged again, last on 20 Nov 2026",
        "reasons_for": ["last click 3 days ago", "opened about 8 in 10 emails of late"],
        "reasons_against": ["no purchase so far"],
        "churn_band": "low",
        "churn_probability": 0.125,
        "churn_reasons": ["active lately"],
        "recommended_send_at": NOW + timedelta(hours=9),
        "send_time_confident": True,
        "send_time_gain": 0.02,
        "last_engagement_at": NOW - timedelta(days=3),
        "data_age_hours": 1.5,
        "status": "ok",
        "model_version": "4",
        "scored_at": NOW,
    }
    return row | changes


def book_of(
    directory: Path, *rows: dict[str, Any], attributes: Mapping[str, pa.DataType] | None = None, **facts: str
) -> Book:
    """A book of these rows, in this order; ``attributes`` names the list's own and their types."""
    own = [pa.field(f"profile_{name}", type) for name, type in (attributes or {}).items()]
    said = {
        "book_id": NAME,
        "schema_version": SCHEMA_VERSION,
        "scored_at": NOW.isoformat(),
        "model_version": "4",
        "list_name": "Spring list",
        "simulated": "true",
        "previous_book_id": BEFORE,
        "gone": "7",
        "left_out_no_consent": "12",
        "left_out_converted": "40",
        "left_out_unscored": "3",
    }
    metadata = {f"inbox.{name}": text for name, text in (said | facts).items()}
    ranked = [{"rank": rank} | row for rank, row in enumerate(rows, start=1)]
    table = pa.Table.from_pylist(ranked, schema=pa.schema([*BOOK_SCHEMA, *own], metadata=metadata))
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, directory / f"{NAME}.parquet")
    return open_book(directory / f"{NAME}.parquet")
