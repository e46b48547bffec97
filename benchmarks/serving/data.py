"""What all contenders serve: one simulated list, everybody's state, three fitted models of 300 trees.

What enters: a work directory and a number of subscribers. What leaves: a ``Data`` with a home whose log is ingested and
whose offline Parquet is written. The promise: what takes long (the list, its fold, the fits) is kept and used again as
long as it was made by the same source code; the models are real fits of real labels on all derived features.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import lightgbm
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

import features
from features.catalogue import Catalogue
from features.clock import instant, microseconds
from features.contract import MODELS, UTC_MICROSECONDS
from features.derive import Features, derive, feature_names, last_engagement_at
from features.fold import Spine
from features.home import Home
from features.log import EventLog
from features.state import States
from features.store import FeatureStore
from models.boosting import Booster
from models.timing import Timing, learn_timing
from pipelines.console import Narrator
from pipelines.materialize import JUST_AFTER
from pipelines.simulator import simulate, write
from pipelines.train import prepare

DAYS, SEED = 120, 7
TABLES = ("events", "subscribers", "campaigns")
HORIZON = timedelta(days=30)
"""The models look this far back from the log's end for their features, and at what came since for their labels."""
TREES, LEAVES = 300, 31
FOLDED_BY = ("agents", "asof", "catalogue", "clock", "contract", "evidence", "fold", "state")
_FIT = {
    "objective": "binary",
    "num_leaves": LEAVES,
    "learning_rate": 0.05,
    "seed": SEED,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Data:
    """A list ready to be served by anybody."""

    home: Home
    """Its log, catalogue and offline Parquet. Services run on homes furnished from it, never on this one."""
    catalogue: Catalogue
    subscriber_ids: tuple[str, ...]
    as_of: float
    """Just after the last event, microseconds since 1970 UTC: when everybody's state was folded."""
    states: States
    boosters: dict[str, Booster]
    timing: Timing

    @property
    def moment(self) -> datetime:
        return instant(self.as_of)

    @cached_property
    def features(self) -> Features:
        """What the models read, as of ``as_of``: the model-ready features that the stock stack stores."""
        return derive(self.states, self.as_of, self.catalogue)

    @cached_property
    def fingerprint(self) -> str:
        """Of everybody's derived features."""
        return hashlib.sha256(repr(self.features.names).encode() + self.features.matrix.tobytes()).hexdigest()[:16]

    def spine(self) -> pa.Table:
        """Everybody, as of now: what materializing asks the offline Parquet for."""
        stamps = pa.array(np.full(len(self.subscriber_ids), int(self.as_of))).cast(UTC_MICROSECONDS)
        return pa.table({"subscriber_id": pa.array(self.subscriber_ids), "event_timestamp": stamps})


def prepare_data(work: Path, subscribers: int, narrator: Narrator) -> Data:
    """The list of this size under ``work``, made now or found there."""
    home = Home(work / "home")
    if not home.event_log.exists():
        _simulate(work / "list", home, subscribers, narrator)
    store, folded = _fold(home, narrator)
    ids, as_of = folded
    spine = pa.table({"subscriber_id": pa.array(ids), "event_timestamp": _stamps(as_of, len(ids))})
    with narrator.step("read everybody's state from the offline Parquet"):
        states, _ = store.historical("churn", spine)
    boosters = _boosters(work / "models", home, store.catalogue, ids, narrator)
    return Data(home, store.catalogue, ids, as_of, states, boosters, learn_timing(states))


def _simulate(directory: Path, home: Home, count: int, narrator: Narrator) -> None:
    if not directory.exists():
        with narrator.step(f"simulate {count:,} subscribers over {DAYS} days") as share:
            write(simulate(count, DAYS, SEED, share), directory)
    with narrator.step("ingest") as share:
        events, subscribers, campaigns = (directory / f"{name}.parquet" for name in TABLES)
        EventLog(home).append(events, subscribers, campaigns, share)


def _fold(home: Home, narrator: Narrator) -> tuple[FeatureStore, tuple[tuple[str, ...], float]]:
    """Everybody's state as of the log's end in the offline Parquet, unless this code has put it there before."""
    made = home.var / "benchmark-fold.json"
    key = _folding_code()
    if made.exists() and (found := orjson.loads(made.read_bytes()))["key"] == key:
        ids = _everybody(home)
        return FeatureStore(home, Catalogue.load(home.catalogue)), (ids, found["as_of"])
    with narrator.step("open the log"):
        prepared = prepare(home)
        as_of = float(microseconds(prepared.end + JUST_AFTER))
    ids = _everybody(home)
    with narrator.step("fold everybody's state into the offline Parquet"):
        prepared.store.clear()
        states = prepared.folder.fold(Spine(pa.array(ids), np.full(len(ids), as_of)))
        prepared.store.write_states(pa.array(ids), states, as_of)
    made.write_bytes(orjson.dumps({"key": key, "as_of": as_of}))
    return prepared.store, (ids, as_of)


def _everybody(home: Home) -> tuple[str, ...]:
    con = EventLog(home).connect()
    ids = con.to_pyarrow(con.table("subscribers").select("subscriber_id").order_by("subscriber_id"))
    return tuple(ids["subscriber_id"].to_pylist()) if isinstance(ids, pa.Table) else tuple(ids.to_pylist())


def _stamps(as_of: float, count: int) -> pa.Array:
    return pa.array(np.full(count, int(as_of))).cast(UTC_MICROSECONDS)


def _boosters(
    directory: Path, home: Home, catalogue: Catalogue, ids: tuple[str, ...], narrator: Narrator
) -> dict[str, Booster]:
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / "key"
    key = f"{catalogue.fingerprint} {feature_names(catalogue)} {_FIT} {TREES} {HORIZON}"
    texts = {model: directory / f"{model}.lgb.txt" for model in MODELS}
    if not (made.exists() and made.read_text() == key):
        with narrator.step("fold the training rows"):
            derived, labels = _training_rows(home, ids)
        for model, path in texts.items():
            with narrator.step(f"fit {model}: {TREES} trees on {len(derived.names)} features"):
                path.write_text(_fitted(derived, labels[model]), newline="\n")
        made.write_text(key)
    return {model: Booster.from_text(path.read_text()) for model, path in texts.items()}


def _training_rows(home: Home, ids: tuple[str, ...]) -> tuple[Features, dict[str, npt.NDArray[np.int64]]]:
    """Features a horizon before the log's end, and what everybody did since: left, converted, opened."""
    prepared = prepare(home)
    end = float(microseconds(prepared.end + JUST_AFTER))
    begin = float(microseconds(prepared.end + JUST_AFTER - HORIZON))
    before, after = (prepared.folder.fold(Spine(pa.array(ids), np.full(len(ids), moment))) for moment in (begin, end))
    labels = {
        "churn": ~(last_engagement_at(after) >= begin),
        "lead_score": after["conversion_count"] > before["conversion_count"],
        "send_time": after["open_count"] > before["open_count"] + 0.5,
    }
    return derive(before, begin, prepared.catalogue), {name: label.astype(int) for name, label in labels.items()}


def _fitted(derived: Features, label: npt.NDArray[np.int64]) -> str:
    """LightGBM's text of exactly ``TREES`` trees. Not by ``models.boosting.train``, which stops early."""
    matrix = derived.matrix.copy()
    positions = [derived.names.index(name) for name in derived.categorical]
    matrix[:, positions] = np.where(matrix[:, positions] < 0, np.nan, matrix[:, positions])
    names = [quote(name, safe="") for name in derived.names]
    rows = lightgbm.Dataset(matrix, label, feature_name=names, categorical_feature=positions, params=_FIT)
    booster = lightgbm.train(_FIT, rows, num_boost_round=TREES)
    if booster.num_trees() != TREES:
        raise RuntimeError(f"{booster.num_trees()} trees instead of {TREES}: these labels hold too little")
    return str(booster.model_to_string(num_iteration=TREES))


def _folding_code() -> str:
    """Hash of the source code that a folded state depends on."""
    files = [Path(features.__file__).with_name(f"{name}.py") for name in FOLDED_BY]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def sample(data: Data, count: int, seed: int) -> list[str]:
    """So many different ids, the same for every contender that asks with this seed."""
    chosen = np.random.default_rng(seed).choice(len(data.subscriber_ids), count, replace=False)
    return [data.subscriber_ids[i] for i in chosen]
