"""What Feast is told: entity, sources, feature views and one feature service per model, generated from the catalogue.

What enters: a catalogue and the directory of the offline Parquet. What leaves: Feast objects, not yet registered. The
promise: every name, type and description comes from ``Catalogue.fields``; none is typed a second time.

Weighed: a ``ttl``. A state is not a measurement that expires: decayed sums are carried to the moment of use and stamps
stay true, so an old row is old, not wrong. Feast would turn such a row into nulls in training, while its online reads
ignore the ``ttl``: a skew. So it is 0, for ever, and age is judged from the anchors (status ``stale``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import feast
from feast.data_format import ParquetFormat
from feast.feast_object import FeastObject
from feast.types import Array, FeastType, Float64, Int32, Int64, String

from features.asof import EVENT_TIMESTAMP, SUBSCRIBER_ID, WRITTEN_AT
from features.catalogue import VIEWS, Catalogue, Field
from features.contract import MODELS

PROJECT = "inbox"
OWNER = "inbox"

VIEWS_OF_MODEL = dict.fromkeys(MODELS, VIEWS)
"""All six for each: which derived features a model uses is its own decision, and each draws on nearly every view."""

_PURPOSE_OF_VIEW = {
    "engagement_velocity": "How much a subscriber was sent and did lately: one decayed sum per kind and half-life.",
    "recency": "How often each kind of event happened, and when it last did.",
    "spending": "What a subscriber bought and what conversions were worth.",
    "content_affinity": "What a subscriber was sent and engaged with, by the list's own content categories.",
    "send_time_profile": "When a subscriber was sent to, responded and visited, by local hour of week.",
    "profile": "Who a subscriber is: creation, time zone, consent and the list's own attributes.",
}
_PURPOSE_OF_MODEL = {
    "churn": "Who is slipping away.",
    "lead_score": "Who will convert.",
    "send_time": "When to send.",
}


@dataclass(frozen=True)
class Definitions:
    """Everything there is to register."""

    project: feast.Project
    entity: feast.Entity
    views: tuple[feast.FeatureView, ...]
    services: tuple[feast.FeatureService, ...]

    @property
    def objects(self) -> list[FeastObject]:
        """All of it, as Feast's ``apply`` takes it."""
        return [self.project, self.entity, *self.views, *self.services]


def define(catalogue: Catalogue, offline: Path) -> Definitions:
    """Feast's objects for one list.

    Parameters
    ----------
    catalogue
        Of the list; an empty one gives the fields that every list has.
    offline
        Directory of the offline Parquet, one sub-directory per view. Made absolute: Feast's DuckDB store reads a
        relative path from wherever the process happens to run.
    """
    subscriber = feast.Entity(
        name="subscriber",
        join_keys=[SUBSCRIBER_ID],
        value_type=feast.ValueType.STRING,
        description="A person on the list, by the list's own opaque id; never an email address.",
        owner=OWNER,
    )
    views = {name: _view(name, catalogue.fields_of(name), subscriber, offline.resolve()) for name in VIEWS}
    return Definitions(
        project=feast.Project(name=PROJECT, description="Scores for email marketing: churn, lead score, send time."),
        entity=subscriber,
        views=tuple(views.values()),
        services=tuple(_service(model, [views[name] for name in VIEWS_OF_MODEL[model]]) for model in MODELS),
    )


def _view(name: str, fields: tuple[Field, ...], subscriber: feast.Entity, offline: Path) -> feast.FeatureView:
    return feast.FeatureView(
        name=name,
        entities=[subscriber],
        ttl=timedelta(0),
        schema=[feast.Field(name=SUBSCRIBER_ID, dtype=String), *(_feature(field) for field in fields)],
        source=_source(name, offline),
        description=_PURPOSE_OF_VIEW[name],
        owner=OWNER,
        tags={"stored": "anchors, sums and stamps; rates and ages are derived at use"},
    )


def _source(view: str, offline: Path) -> feast.FileSource:
    return feast.FileSource(
        name=view,
        path=str(offline / view),
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=WRITTEN_AT,
        description="A row stamped t holds what was received before t. Of two rows with one stamp, the later written.",
        owner=OWNER,
    )


def _feature(field: Field) -> feast.Field:
    tags = {"fold": field.fold.value}
    if field.half_life_days is not None:
        tags["half_life_days"] = f"{field.half_life_days:g}"
    if field.length > 1:
        tags["length"] = str(field.length)
    return feast.Field(name=field.name, dtype=_feast_type(field), description=field.description, tags=tags)


def _feast_type(field: Field) -> FeastType:
    types: dict[str, FeastType] = {"<f8": Float64, "<u4": Array(Int64), "<u2": Array(Int32)}
    return types[field.dtype]


def _service(model: str, views: list[feast.FeatureView]) -> feast.FeatureService:
    return feast.FeatureService(
        name=model, features=[*views], description=_PURPOSE_OF_MODEL[model], owner=OWNER, tags={"model": model}
    )
