"""Our side: homes furnished with bundles and packed rows, and the service as it is shipped.

What enters: the prepared list. What leaves: a home that ``inbox serve`` could serve, on SQLite or on Redis, and answers
read as the stock stack's. The promise: everything goes through our own doors (``bundle.write``, ``bundle.publish``,
``FeatureStore.materialize``, ``pipelines.serve.running``); the benchmark builds nothing that a user would not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.serving.data import Data
from features.contract import MODELS
from features.home import STORE_URL, Home
from features.store import FeatureStore
from models.boosting import Booster
from models.bundle import Bundle, bundle_key, publish, write
from models.calibration import Calibration
from models.ranking import reference

VERSIONS = {"1": Calibration(), "2": Calibration("sigmoid", 1.0, 1.0, 1.0)}
"""Two versions of each model: the same trees, log-odds apart by 1, so that an answer shows which one made it."""


def furnish(data: Data, directory: Path, url: str | None = None) -> Home:
    """A home with version 1 of all models published, version 2 at hand, and everybody's row in its online store."""
    home = Home(directory, url)
    home.var.mkdir(parents=True, exist_ok=True)
    data.catalogue.save(home.catalogue)
    for model in MODELS:
        for version in reversed(VERSIONS):
            promote(data, home, model, version)
    materialize(data, home)
    return home


def promote(data: Data, home: Home, model: str, version: str) -> None:
    """Publish a version, writing it first when it is not there."""
    target = home.bundles / model / version
    if target.exists():
        publish(home, model, version, target)
        return
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "bundle"
        write(_bundle(data, model, version), data.features.matrix[:32], directory, bundle_key(home))
        publish(home, model, version, directory)


def materialize(data: Data, home: Home) -> int:
    """Everybody's row into the home's online store."""
    ids = data.spine()["subscriber_id"].combine_chunks()
    return FeatureStore(home, data.catalogue).materialize(ids, data.states)


@contextmanager
def store_url(url: str | None) -> Iterator[None]:
    """``INBOX_STORE_URL`` for processes started in the block; absent without a URL."""
    before = os.environ.pop(STORE_URL, None)
    if url is not None:
        os.environ[STORE_URL] = url
    try:
        yield
    finally:
        os.environ.pop(STORE_URL, None)
        if before is not None:
            os.environ[STORE_URL] = before


def _bundle(data: Data, model: str, version: str) -> Bundle:
    booster, calibration = data.boosters[model], VERSIONS[version]
    probability = calibration(booster.raw(data.features.matrix))
    bundle = Bundle(
        model=model,
        version=version,
        features=booster.features,
        catalogue=data.catalogue,
        booster=booster,
        calibration=calibration,
        priors=_priors(booster, calibration, probability),
        parameters={"quantiles": reference(probability), "horizon_days": 30.0},
        created_at=datetime.now(UTC),
        metrics={},
    )
    if model != "send_time":
        return bundle
    return replace(bundle, parameters={**bundle.parameters, "timing": data.timing.to_parameters()})


def _priors(booster: Booster, calibration: Calibration, probability: np.ndarray) -> dict[str, float]:
    mean = float(probability.mean())
    # The log-odds that this calibration maps to the mean: both versions only shift.
    return {"probability": mean, "raw": float(np.log(mean / (1 - mean))) - calibration.intercept}
