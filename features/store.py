"""The Feast door: registration, the history that training reads, and the way into the online store.

What enters: states and instants. What leaves: states as of instants, exactly as written, and an online store that
serving and Feast read alike. The promise: whatever Feast raises leaves here as ``FeatureStoreFailed``.

Feast holds the names: project, entity, views, services, sources. Its command line and its user interface work on the
same files. Two of its loops are not used, each for a measured reason: the historical join (``asof``) and
``materialize``, which makes one protobuf object per value (see ``FeatureStore.materialize``).
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import feast
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
from feast.errors import FeastError
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int32List, Int64List, Value
from feast.repo_config import FeastConfigBaseModel, load_repo_config
from google.protobuf.message import DecodeError
from pydantic import SecretStr, field_validator

from features import asof
from features.catalogue import Catalogue, Field, as_of_name
from features.clock import instant, microseconds
from features.contract import MODELS
from features.errors import FeatureStoreFailed
from features.home import STORE_URL, Home
from features.online import Found, StateStore
from features.state import States, identity
from features.stores import open_store, store_at
from features.views import VIEWS_OF_MODEL, define

REPOSITORY = Path(__file__).parent / "repo"
"""Feast's own entrance: ``feature_store.yaml`` and ``definitions.py``."""

_URL_FROM_ENVIRONMENT = f"${{{STORE_URL}}}"
"""Feast puts the environment into its YAML; what is not set stays as it is written."""
_KINDS = {"<f8": "double_val", "<u4": "int64_list_val", "<u2": "int32_list_val"}
"""How a stored field travels in Feast's messages."""
_FAILURES = (FeastError, DecodeError, duckdb.Error, pa.ArrowException, sqlite3.Error, OSError, ValueError, TypeError)
"""What Feast, DuckDB and Arrow raise when a store is missing, broken or not what it says."""


class FeatureStore:
    """One list's feature store under one home.

    Parameters
    ----------
    home
        Where the registry, the offline Parquet and the online database are.
    catalogue
        Of the list: the layout of all states that enter and leave.
    """

    def __init__(self, home: Home, catalogue: Catalogue) -> None:
        self.home, self.catalogue = home, catalogue

    @property
    def feast_store(self) -> feast.FeatureStore:
        """Feast's own object for this home, for what this door does not do itself."""
        with _translated("open its registry"):
            return self._feast(self.home.registry)

    def apply(self) -> None:
        """Register entity, sources, views and services, and make the stores ready. Applying again changes nothing.

        Parquet from before the catalogue grew is brought up to it. The registry is replaced in one step: Feast writes
        it in place, and a crash then would leave an empty one that loads without complaint. Beside it goes the
        configuration for Feast's command line: ``feast -c features/repo -f HOME/var/feast/feature_store.yaml ui``.

        Raises
        ------
        FeatureStoreFailed
            When the registry cannot be read or written.
        """
        beside = self.home.registry.with_suffix(".applying")
        with _translated("register the feature views"):
            beside.parent.mkdir(parents=True, exist_ok=True)
            if self.home.registry.exists():
                shutil.copyfile(self.home.registry, beside)
            asof.widen(self.home.offline, self.catalogue)
            self._feast(beside).apply(define(self.catalogue, self.home.offline).objects)
            beside.replace(self.home.registry)
            config = self._config(self.home.registry)
            # A URL may hold a password, which is nothing for a file.
            config["online_store"]["url"] = _URL_FROM_ENVIRONMENT
            self.home.registry.with_name("feature_store.yaml").write_bytes(orjson.dumps(config))

    def write_states(self, subscriber_ids: pa.Array, states: States, as_of: float | npt.NDArray[np.float64]) -> None:
        """Add states to the history that ``historical`` reads. See ``asof.write``."""
        with _translated("write the history"):
            asof.write(self.home.offline, self.catalogue, subscriber_ids, states, as_of)

    def clear(self) -> None:
        """Remove all history. The registry and the online store stay."""
        with _translated("clear the history"):
            asof.clear(self.home.offline)

    def historical(self, model: str, spine: pa.Table) -> tuple[States, Found]:
        """For each row of the spine, what the model's feature service knew at the row's instant.

        Not through Feast's ``get_historical_features``: it took 4 times as long and 7 times the memory, and gives back
        neither the order of rows nor one array. The tests hold both to the same bits. See ``asof``.

        Parameters
        ----------
        spine
            Columns ``subscriber_id`` (string) and ``event_timestamp`` (timestamp, UTC), in any order, repeats allowed.

        Returns
        -------
        States in the spine's order, identity where there is none, and where there is one.

        Raises
        ------
        FeatureStoreFailed
            When there is no such feature service, no history, or the history changes while it is read.
        """
        if model not in VIEWS_OF_MODEL:
            raise FeatureStoreFailed("read the history", f"no feature service {model!r}; there are {', '.join(MODELS)}")
        with _translated("read the history"):
            return asof.latest(self.home.offline, self.catalogue, VIEWS_OF_MODEL[model], spine)

    def materialize(self, subscriber_ids: pa.Array, states: States) -> int:
        """Put states into the online store and say how many were taken: all but those older than what is there.

        Not through Feast's ``materialize``, which makes one protobuf object per value: 21 s, its start included,
        and 1 GB for 20,000 subscribers, against 0.4 s for the same rows as bytes. Feast's own command fills the same
        store, slowly.
        """
        return self.online().write(subscriber_ids.to_pylist(), states)

    def online(self) -> StateStore:
        """The online store of this home, as serving reads it."""
        return open_store(self.home)

    def _feast(self, registry: Path) -> feast.FeatureStore:
        return feast.FeatureStore(config=feast.RepoConfig(**self._config(registry)))

    def _config(self, registry: Path) -> dict[str, Any]:
        """The repository's own configuration with this home's stores in it."""
        written = load_repo_config(REPOSITORY, REPOSITORY / "feature_store.yaml")
        config = written.model_dump(mode="json", by_alias=True, exclude_unset=True)
        config["registry"]["path"] = str(registry.resolve())
        config["online_store"]["path"] = str(self.home.online.resolve())
        config["online_store"]["catalogue"] = str(self.home.catalogue.resolve())
        config["online_store"]["url"] = self.home.store_url
        return config


class PackedOnlineStoreConfig(FeastConfigBaseModel):
    """What ``feature_store.yaml`` says about the online store. Feast finds this class by its name."""

    type: str = "features.store.PackedOnlineStore"
    path: str
    """The database file; a relative path starts at the feature repository."""
    catalogue: str
    """The list's ``catalogue.json``, which says how a row is packed; likewise."""
    url: SecretStr | None = None
    """Of the Redis or Valkey server that keeps the rows instead of the file."""

    @field_validator("url", mode="before")
    @classmethod
    def _given(cls, url: str | None) -> str | None:
        return None if url in ("", _URL_FROM_ENVIRONMENT) else url


class PackedOnlineStore(OnlineStore):
    """Feast's way to the packed rows: ``get_online_features`` and ``feast materialize`` work on them unchanged.

    Feast reads and writes one view at a time, a row holds all six: writing a view changes its fields and leaves the
    others. A view's fields never go back in time, whatever order batches come in. A subscriber whose row lacks the view
    is not found in it. As in Feast's own stores, NaN comes out as null.
    """

    def online_write_batch(
        self,
        config: feast.RepoConfig,
        table: feast.FeatureView,
        data: Sequence[tuple[EntityKey, Mapping[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Merge one view's fields into the rows. A row without an anchor is anchored at its event timestamp."""
        with _packed(config) as (store, catalogue):
            fields, anchor = _fields_of(table, catalogue), as_of_name(table.name)
            latest = _latest_of_each(data, anchor)
            rows = [row for row, _ in latest.values()]
            anchors = np.array([as_of for _, as_of in latest.values()])
            blank = identity(catalogue, 1)

            def change(states: States, found: Found) -> States:
                newer = ~(states[anchor] > anchors)
                for field in fields:
                    states[field.name][newer] = _from_protobuf(rows, field, blank)[newer]
                states[anchor][newer] = anchors[newer]
                return states

            store.revise(list(latest), change, catalogue)
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: feast.RepoConfig,
        table: feast.FeatureView,
        entity_keys: Sequence[EntityKey],
        requested_features: Sequence[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """One view's fields, in the order of the keys, each with the instant its view was folded up to."""
        with _packed(config) as (store, catalogue):
            states, _ = store.read([_subscriber_id(key) for key in entity_keys], catalogue)
            fields = _fields_of(table, catalogue)
        columns = {
            field.name: _to_protobuf(states[field.name], field)
            for field in fields
            if requested_features is None or field.name in requested_features
        }
        return [
            (None, None) if np.isnan(as_of) else (instant(as_of), {name: c[i] for name, c in columns.items()})
            for i, as_of in enumerate(states[as_of_name(table.name)].tolist())
        ]

    def update(
        self,
        config: feast.RepoConfig,
        tables_to_delete: Sequence[feast.FeatureView],
        tables_to_keep: Sequence[feast.FeatureView],
        entities_to_delete: Sequence[feast.Entity],
        entities_to_keep: Sequence[feast.Entity],
        partial: bool,
    ) -> None:
        """Make the one table. A view that is gone leaves its fields in the rows, where nobody asks for them."""
        with _packed(config) as (store, _):
            store.create()

    def teardown(
        self, config: feast.RepoConfig, tables: Sequence[feast.FeatureView], entities: Sequence[feast.Entity]
    ) -> None:
        """Forget everybody."""
        with _packed(config) as (store, _):
            store.drop()


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        # The first line only: what follows may quote the data.
        reason = (str(error).splitlines() or [""])[0]
        raise FeatureStoreFailed(action, f"{type(error).__name__}: {reason}") from error


@contextmanager
def _packed(config: feast.RepoConfig) -> Iterator[tuple[StateStore, Catalogue]]:
    repository = config.repo_path or REPOSITORY
    # Joining an absolute path to the repository's gives the absolute path.
    catalogue = Catalogue.known(repository / config.online_store.catalogue)
    url = config.online_store.url
    store = store_at(repository / config.online_store.path, url.get_secret_value() if url else None)
    with closing(store):
        yield store, catalogue


def _fields_of(view: feast.FeatureView, catalogue: Catalogue) -> list[Field]:
    """The catalogue's fields that the registered view has."""
    known = {field.name: field for field in catalogue.fields_of(view.name)}
    strange = [feature.name for feature in view.features if feature.name not in known]
    if strange:
        reason = f"the catalogue does not know its field(s) {', '.join(strange)}; register the views again"
        raise FeatureStoreFailed(f"use the view {view.name}", reason)
    return [known[feature.name] for feature in view.features]


def _subscriber_id(key: EntityKey) -> str:
    return str(key.entity_values[0].string_val)


def _latest_of_each(
    data: Sequence[tuple[EntityKey, Mapping[str, Value], datetime, datetime | None]], anchor: str
) -> dict[str, tuple[Mapping[str, Value], float]]:
    """By subscriber, the batch's newest row and the instant it is anchored at."""
    latest: dict[str, tuple[Mapping[str, Value], float]] = {}
    for key, row, stamp, _ in data:
        as_of = _anchored_at(row.get(anchor, Value()), stamp)
        known = latest.get(_subscriber_id(key))
        if known is None or as_of >= known[1]:
            latest[_subscriber_id(key)] = row, as_of
    return latest


def _anchored_at(own: Value, stamp: datetime) -> float:
    if own.WhichOneof("val") == "double_val":
        return float(own.double_val)
    # Feast hands on naive timestamps and means UTC.
    return float(microseconds(stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)))


def _from_protobuf(rows: Sequence[Mapping[str, Value]], field: Field, blank: States) -> npt.NDArray[Any]:
    """One field of many rows. Null is what Feast makes of NaN."""
    column: npt.NDArray[Any] = np.repeat(blank[field.name], len(rows), axis=0)
    kind = _KINDS[field.dtype]
    if field.length == 1:
        column[:] = field.missing
    for i, row in enumerate(rows):
        if field.name in row and row[field.name].WhichOneof("val") == kind:
            value = getattr(row[field.name], kind)
            column[i] = value.val if field.length > 1 else value
    return column


def _to_protobuf(column: npt.NDArray[Any], field: Field) -> list[Value]:
    if field.dtype == "<u4":
        return [Value(int64_list_val=Int64List(val=vector)) for vector in column.tolist()]
    if field.dtype == "<u2":
        return [Value(int32_list_val=Int32List(val=vector)) for vector in column.tolist()]
    return [Value() if np.isnan(number) else Value(double_val=number) for number in column.tolist()]
