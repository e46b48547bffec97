"""One accepted event as an object: a row of the event log, for code that meets events one at a time.

What enters: values already checked and reduced. What leaves: the same values, or a table in ``contract.EVENT_SCHEMA``. The
promise: an event and its row of the log say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from features.contract import EVENT_SCHEMA


@dataclass(frozen=True, slots=True)
class Event:
    """See ``contract.EVENT_SCHEMA``; instants in microseconds since 1970 UTC."""

    event_id: str
    subscriber_id: str
    event_type: str
    occurred_us: int
    received_us: int
    campaign_id: str | None = None
    content: tuple[str, ...] | None = None
    value: float | None = None
    agent: str = "unknown"
    network: str | None = None
    link: str | None = None


def to_table(events: Iterable[Event]) -> pa.Table:
    """Rows of the log, in the order given."""
    listed = list(events)
    columns = {
        "occurred_at": [event.occurred_us for event in listed],
        "received_at": [event.received_us for event in listed],
        "content": [None if event.content is None else list(event.content) for event in listed],
    }
    arrays = []
    for field in EVENT_SCHEMA:
        values = columns[field.name] if field.name in columns else [getattr(event, field.name) for event in listed]
        arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)


def from_table(table: pa.Table) -> Iterator[Event]:
    """The rows of a table in ``contract.EVENT_SCHEMA``."""
    columns = {name: table[name] for name in EVENT_SCHEMA.names}
    for name in ("occurred_at", "received_at"):
        columns[name] = columns[name].cast(pa.int64())
    lists = [columns[name].to_pylist() for name in EVENT_SCHEMA.names]
    for row in zip(*lists, strict=True):
        values = list(row)
        values[6] = None if values[6] is None else tuple(values[6])
        yield Event(*values)
