"""What may be asked of the leads: a selection, and of a page also its order and place.

What enters: a query's text. What leaves: a checked, frozen ``LeadQuery`` or ``Selection``. The promise: anything else is
refused with the parameter's name and a reason, and neither ever repeats a value that was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, FailFast, Field, ValidationError
from pydantic_core import PydanticCustomError

from features.errors import MalformedRequest
from serving.schemas import Asked, Word, malformed, query_fields, whole_number

MAX_LIMIT = 200
MAX_OFFSET = 100_000_000
SORTS = (
    "rank",
    "subscriber_id",
    "score",
    "score_change",
    "probability",
    "churn_probability",
    "recommended_send_at",
    "last_engagement_at",
)
"""Columns a page can be sorted by; with a minus before it, downwards."""

_LISTS = ("grade", "churn_band", "movement")
_NUMBERS = ("offset", "limit")


def _known_order(sort: str) -> str:
    if sort.removeprefix("-") not in SORTS:
        raise PydanticCustomError("sort", "should be a column to sort by, with a minus before it for downwards")
    return sort


def _named(segment: str) -> str:
    if not segment.partition("=")[0] or "=" not in segment:
        raise PydanticCustomError("segment", "should be NAME=VALUE")
    return segment


Segment = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_named)]
Order = Annotated[str, Field(max_length=40), AfterValidator(_known_order)]


class Selection(Asked):
    """Which leads. Conditions of different kinds must all hold, of several words in one any."""

    search: Word | None = Field(default=None, description="Part of the subscriber's id, in small or capital letters.")
    grade: tuple[Literal["A", "B", "C", "D", "E"], ...] = Field(default=(), max_length=5)
    churn_band: tuple[Literal["low", "medium", "high"], ...] = Field(default=(), max_length=3)
    movement: tuple[Literal["new", "up", "down", "same"], ...] = Field(
        default=(), max_length=4, description="By grade, against the export before."
    )
    segment: Annotated[tuple[Segment, ...], FailFast()] = Field(
        default=(), max_length=8, description="NAME=VALUE: an attribute is exactly that; of several values of one, any."
    )


class LeadQuery(Selection):
    """A page of them."""

    sort: Order = Field(default="rank", description=f"One of {', '.join(SORTS)}; -score is downwards. Nulls come last.")
    offset: int = Field(default=0, ge=0, le=MAX_OFFSET)
    limit: int = Field(default=50, ge=1, le=MAX_LIMIT)


Query = TypeVar("Query", bound=Selection)


def parse_leads(query: str, wanted: type[Query]) -> Query:
    """Read the query of ``/v1/leads``, or with ``Selection`` that of a download, which has neither order nor place.

    Raises
    ------
    MalformedRequest
        For the first thing wrong, with the parameter's name.

    >>> parse_leads("grade=A,B&sort=-score", LeadQuery).grade
    ('A', 'B')
    """
    try:
        return wanted.model_validate_json(orjson.dumps(_as_body(query_fields(query, {"segment"}))))
    except ValidationError as error:
        found = malformed(error)
        raise MalformedRequest(found.field.partition("[")[0], found.reason) from None


def _as_body(fields: Mapping[str, Any]) -> dict[str, Any]:
    lists = {name: fields[name].split(",") for name in _LISTS if name in fields}
    numbers = {name: whole_number(fields[name]) for name in _NUMBERS if name in fields}
    return {**fields, **lists, **numbers}
