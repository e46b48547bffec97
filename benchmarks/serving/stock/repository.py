"""The stock feature store: a Feast repository, its Parquet, and how it is filled and read.

What enters: the derived features of everybody. What leaves: repositories on SQLite and Redis that
``get_online_features`` reads. The promise: the configuration is what the documentation shows, and what is timed is
Feast's own work alone: the process's start and Feast's import are left out.

- https://docs.feast.dev/getting-started/quickstart
- https://docs.feast.dev/how-to-guides/feast-snowflake-gcp-aws/load-data-into-the-online-store
- https://docs.feast.dev/how-to-guides/feast-snowflake-gcp-aws/read-features-from-the-online-store
- https://docs.feast.dev/reference/online-stores/sqlite
- https://docs.feast.dev/reference/online-stores/redis
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import feast
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.serving.data import Data
from features.catalogue import VIEWS
from features.contract import UTC_MICROSECONDS

_YAML = """\
project: stock
registry: data/registry.db
provider: local
online_store:
{online}
entity_key_serialization_version: 3
"""
_SQLITE = "    type: sqlite\n    path: data/online_store.db"
_REDIS = '    type: redis\n    connection_string: "localhost:{port}"'

_VIEW_OF = (
    ("affinity_", "content_affinity"),
    ("active_", "send_time_profile"),
    ("purchase_value", "spending"),
    ("conversion_value", "spending"),
    ("hours_since", "recency"),
    ("days_since", "recency"),
    ("tenure", "recency"),
)
"""Which view a derived feature goes to, by how its name begins; the rest by how it ends."""


@dataclass(frozen=True)
class StockStore:
    """A Feast repository and the references of all its features, in the order of the models' columns."""

    directory: Path
    references: list[str]

    @property
    def database(self) -> Path:
        """The SQLite file of a repository on SQLite."""
        return self.directory / "data" / "online_store.db"

    def open(self) -> feast.FeatureStore:
        return feast.FeatureStore(repo_path=str(self.directory))


def feature_names(derived: Sequence[str]) -> list[str]:
    """The derived features' names as Feast and MLflow take them: ``affinity_[shoes]`` is no name there."""
    names = [re.sub(r"\W+", "_", name).strip("_") for name in derived]
    if len(set(names)) < len(names):
        raise RuntimeError("two derived features share a name")
    return names


def write_source(data: Data, directory: Path) -> dict[str, Any]:
    """Model-ready features of everybody as Parquet, one file per view, and what ``definitions.py`` reads about them."""
    directory.mkdir(parents=True, exist_ok=True)
    names = feature_names(data.features.names)
    members = _members(names)
    stamps = pa.array(np.full(len(data.subscriber_ids), int(data.as_of))).cast(UTC_MICROSECONDS)
    views = {}
    for view in VIEWS:
        path = directory / f"{view}.parquet"
        columns = {name: data.features.matrix[:, names.index(name)] for name in members[view]}
        pq.write_table(
            pa.table({"subscriber_id": list(data.subscriber_ids), "event_timestamp": stamps, **columns}), path
        )
        views[view] = {"path": str(path.resolve()), "features": members[view]}
    return views


def make_repository(directory: Path, views: Mapping[str, Any], order: Sequence[str], port: int | None) -> StockStore:
    """A repository on SQLite, or on the Redis at this port; applied, empty."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "data").mkdir(parents=True)
    (directory / "views.json").write_text(json.dumps(views))
    shutil.copyfile(Path(__file__).with_name("definitions.py"), directory / "definitions.py")
    return open_repository(directory, views, order, port)


def open_repository(directory: Path, views: Mapping[str, Any], order: Sequence[str], port: int | None) -> StockStore:
    """One that was made before; the Redis may have another port by now."""
    online = _SQLITE if port is None else _REDIS.format(port=port)
    (directory / "feature_store.yaml").write_text(_YAML.format(online=online))
    view_of = {name: view for view, made in views.items() for name in made["features"]}
    return StockStore(directory, [f"{view_of[name]}:{name}" for name in feature_names(order)])


def span(moment: datetime) -> tuple[datetime, datetime]:
    """What ``materialize`` is asked for: a day that ends just after everybody's stamp."""
    return moment - timedelta(days=1), moment + timedelta(seconds=1)


def _members(names: Sequence[str]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {view: [] for view in VIEWS}
    for name in names:
        members[_view_of(name)].append(name)
    return members


def _view_of(name: str) -> str:
    for beginning, view in _VIEW_OF:
        if name.startswith(beginning):
            return view
    if name.startswith("profile_") or name == "timezone":
        return "profile"
    return "recency" if name.endswith(("_count", "_silence_ratio")) else "engagement_velocity"
