"""A Feast repository as ``feast init`` makes it: one entity, feature views over Parquet, one ``Float64`` per feature.

Copied into a repository's directory, where ``feast apply`` imports it and finds ``views.json`` beside it: each view's
name, its Parquet file and its features.

https://docs.feast.dev/getting-started/quickstart (``feast init``, template ``local``)
"""

import json
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

subscriber = Entity(name="subscriber", join_keys=["subscriber_id"], value_type=ValueType.STRING)

views = [
    FeatureView(
        name=name,
        entities=[subscriber],
        ttl=timedelta(days=1),
        schema=[Field(name=feature, dtype=Float64) for feature in view["features"]],
        online=True,
        source=FileSource(name=f"{name}_source", path=view["path"], timestamp_field="event_timestamp"),
    )
    for name, view in json.loads(Path(__file__).with_name("views.json").read_text()).items()
]
engagement_velocity, recency, spending, content_affinity, send_time_profile, profile = views
