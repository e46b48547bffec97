"""Leads as one Parquet file, for a program.

What enters: leads in rank order. What leaves: the file. The promise: every column typed, every text as it came.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.leads.tally import Leads
from serving.leads.book import Book
from serving.leads.cells import values
from serving.leads.columns import SCHEMA_VERSION


def write_parquet(leads: Leads, beside: Path) -> None:
    schema = _schema(leads)
    with pq.ParquetWriter(beside, schema, compression="zstd") as file:
        for piece in leads.pieces():
            arrays = [values(piece, column) for column in leads.columns]
            file.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _schema(leads: Leads) -> pa.Schema:
    types = {field.name: field.type for field in leads.book.schema} | {"": pa.string()}
    fields = [pa.field(column.name, types[column.source]) for column in leads.columns]
    return pa.schema(fields, metadata=_facts(leads.book))


def _facts(book: Book) -> dict[str, str]:
    return {
        "inbox.schema_version": SCHEMA_VERSION,
        "inbox.book_id": book.id,
        "inbox.previous_book_id": book.previous_id or "",
        "inbox.model_version": book.model_version,
        "inbox.scored_at": book.scored_at.isoformat(),
        "inbox.simulated": str(book.simulated).lower(),
        "inbox.list_name": book.list_name,
    }
