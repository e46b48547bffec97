"""From scored columns to bytes: JSON for renderers, Arrow for bulk callers, a table for exports and logs.

What enters: ``Scores``, columns in the order asked for. What leaves: bytes or a table. The promise: no number that
leaves is missing or infinite. It is checked once, where scores are made, so no way out can forget to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import isnan
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from features.contract import MODELS, UTC_MICROSECONDS
from features.errors import ModelError

ARROW_MEDIA_TYPE = "application/vnd.apache.arrow.stream"
JSON_MEDIA_TYPE = "application/json"

_REASONS = pa.list_(pa.string())

SCORED_SCHEMA = pa.schema(
    [
        pa.field("subscriber_id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("prior", pa.string()),
        pa.field("feature_age_s", pa.float64()),
        pa.field("last_engagement_at", UTC_MICROSECONDS),
        pa.field("churn_probability", pa.float64(), nullable=False),
        pa.field("churn_band", pa.string(), nullable=False),
        pa.field("churn_percentile", pa.int32(), nullable=False),
        pa.field("churn_reasons", _REASONS),
        pa.field("churn_model_version", pa.string(), nullable=False),
        pa.field("lead_score_probability", pa.float64(), nullable=False),
        pa.field("lead_score_score", pa.int32(), nullable=False),
        pa.field("lead_score_grade", pa.string(), nullable=False),
        pa.field("lead_score_percentile", pa.int32(), nullable=False),
        pa.field("lead_score_converted", pa.bool_()),
        pa.field("lead_score_reasons", _REASONS),
        pa.field("lead_score_model_version", pa.string(), nullable=False),
        pa.field("send_time_send_at", UTC_MICROSECONDS, nullable=False),
        pa.field("send_time_hour_of_week", pa.int32(), nullable=False),
        pa.field("send_time_probability", pa.float64(), nullable=False),
        pa.field("send_time_gain", pa.float64(), nullable=False),
        pa.field("send_time_gain_low", pa.float64(), nullable=False),
        pa.field("send_time_gain_high", pa.float64(), nullable=False),
        pa.field("send_time_confident", pa.bool_(), nullable=False),
        pa.field("send_time_pool_weight", pa.float64(), nullable=False),
        pa.field("send_time_arm", pa.string(), nullable=False),
        pa.field("send_time_propensity", pa.float64(), nullable=False),
        pa.field("send_time_timezone_assumed", pa.bool_(), nullable=False),
        pa.field("send_time_model_version", pa.string(), nullable=False),
        pa.field("scored_at", UTC_MICROSECONDS, nullable=False),
    ]
)
"""Every column a scored table may have; a model's are there when it was asked for and is in service."""

ALWAYS_FINITE = tuple(field.name for field in SCORED_SCHEMA if pa.types.is_floating(field.type) and not field.nullable)

_NAMES: dict[str, tuple[str, ...]] = {
    "churn": ("probability", "band", "percentile"),
    "lead_score": ("probability", "score", "grade"),
    "send_time": (
        "send_at",
        "hour_of_week",
        "probability",
        "gain",
        "gain_interval",
        "confident",
        "pool_weight",
        "arm",
        "propensity",
        "timezone_assumed",
    ),
}
"""What JSON says of each model, in this order (serving contract v1)."""


class NonFiniteScore(ModelError):
    """A score is missing or infinite. It must never leave; whoever made it has a defect."""

    code = "non_finite_score"

    def __init__(self, column: str, rows: int) -> None:
        self.column, self.rows = column, rows
        super().__init__(f"{column} is not finite in {rows} row(s). This is a defect of the scorer; nothing was sent.")


class UnevenColumns(ModelError):
    """Columns of one answer differ in length, so rows would be mixed up."""

    code = "uneven_columns"

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.lengths = dict(lengths)
        super().__init__(f"Columns differ in length: {self.lengths}. This is a defect of the scorer; nothing was sent.")


@dataclass(frozen=True)
class Scores:
    """Scored subscribers as columns, in the order asked for, one element per subscriber.

    ``columns`` holds ``SCORED_SCHEMA``'s columns, without the versions and ``scored_at``, as arrays or lists. Of a
    model either all columns or none; its ``_reasons`` may be absent. ``feature_age_s`` and ``last_engagement_at``
    (microseconds since 1970 UTC) are NaN where there is nothing; ``send_time_send_at`` are aware datetimes.

    Raises
    ------
    NonFiniteScore
        When a probability, gain, weight or propensity is NaN or infinite.
    UnevenColumns
        When columns differ in length.
    """

    columns: Mapping[str, Any]
    store_failed: bool = False
    """Whether these were made without the online store, because it could not be read."""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise UnevenColumns(lengths)
        for name in ALWAYS_FINITE:
            if name in self.columns:
                finite = np.isfinite(np.asarray(self.columns[name], dtype=np.float64))
                if not finite.all():
                    raise NonFiniteScore(name, int((~finite).sum()))

    def __len__(self) -> int:
        return len(self.columns["subscriber_id"])

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Which models answered."""
        return tuple(model for model in MODELS if f"{model}_probability" in self.columns)

    def part(self, start: int, end: int) -> Scores:
        """Those from one position up to another."""
        if (start, end) == (0, len(self)):
            return self
        return Scores({name: column[start:end] for name, column in self.columns.items()}, self.store_failed)

    def listed(self, column: str) -> list[Any]:
        """A column as plain Python values."""
        values = self.columns[column]
        listed: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
        return listed

    def to_table(self, versions: Mapping[str, str], scored_at: datetime) -> pa.Table:
        """The scored table: ``SCORED_SCHEMA``, as far as its models were scored."""
        constants = {f"{model}_model_version": versions[model] for model in self.models} | {"scored_at": scored_at}
        fields, arrays = [], []
        for field in SCORED_SCHEMA:
            if field.name in constants:
                arrays.append(pa.repeat(pa.scalar(constants[field.name], field.type), len(self)))
            elif field.name in self.columns:
                arrays.append(to_arrow(self.columns[field.name], field.type))
            else:
                continue
            fields.append(field)
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def to_arrow(values: Any, wanted: pa.DataType) -> pa.Array:
    """One column of the given type; NaN becomes null.

    Raises
    ------
    pyarrow.ArrowInvalid
        When values do not fit the type.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        if pa.types.is_timestamp(wanted):
            known = ~np.isnan(values)
            whole = np.where(known, values, 0).astype(np.int64)
            return pa.array(whole, pa.int64(), mask=~known).cast(wanted)
        return pa.array(values, wanted, from_pandas=True)
    return pa.array(values, wanted)


def render_json(
    scores: Scores, request_id: str, scored_at: datetime, versions: Mapping[str, str], explain: bool
) -> bytes:
    """The JSON body of serving contract v1. ``explain`` adds each model's reasons where it has any."""
    return orjson.dumps(
        {
            "request_id": request_id,
            "scored_at": _to_milliseconds(scored_at),
            "models": {model: versions[model] for model in scores.models},
            "scores": _rows(scores, explain),
        },
        option=orjson.OPT_UTC_Z,
    )


def render_arrow(scores: Scores, request_id: str, scored_at: datetime, versions: Mapping[str, str]) -> bytes:
    """The scored table as an Arrow stream, the request's id in its schema's metadata."""
    table = scores.to_table(versions, scored_at).replace_schema_metadata({"request_id": request_id})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _to_milliseconds(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rows(scores: Scores, explain: bool) -> list[dict[str, Any]]:
    ages = [None if isnan(age) else int(age) for age in scores.listed("feature_age_s")]
    names = ("subscriber_id", "status", "feature_age_s")
    rows = list(_named(names, (scores.listed("subscriber_id"), scores.listed("status"), ages)))
    for row, prior in zip(rows, scores.listed("prior"), strict=True):
        if prior is not None:
            row["prior"] = prior
    for model in scores.models:
        for row, answer in zip(rows, _answers(scores, model, explain), strict=True):
            row[model] = answer
    return rows


def _answers(scores: Scores, model: str, explain: bool) -> Iterator[dict[str, Any]]:
    names = _NAMES[model]
    if explain and f"{model}_reasons" in scores.columns:
        names = (*names, "reasons")
    return _named(names, [_VALUES.get(name, _plain)(scores, f"{model}_{name}") for name in names])


def _named(names: tuple[str, ...], columns: Iterable[Iterable[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _plain(scores: Scores, column: str) -> list[Any]:
    return scores.listed(column)


def _interval(scores: Scores, column: str) -> Iterable[Any]:
    low, high = (column.replace("_interval", end) for end in ("_low", "_high"))
    return zip(scores.listed(low), scores.listed(high), strict=True)


_VALUES: dict[str, Callable[[Scores, str], Iterable[Any]]] = {"gain_interval": _interval}
