"""One small list, taken through the whole line once and shared by every test that only reads it."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from features.contract import MODELS
from features.home import STORE_URL, Home
from features.log import EventLog
from pipelines.about import about_files
from pipelines.console import Narrator
from pipelines.materialize import materialize
from pipelines.promote import promote
from pipelines.serve import free_port
from pipelines.simulator import simulate, write
from pipelines.train import train_models
from tests.browser import browser as browser
from tests.docs.guides import Followed, beginning, follow, guide

SUBSCRIBERS, DAYS, SEED = 800, 260, 3
"""About the smallest simulated list on which all three models train."""


def pytest_configure() -> None:
    """As `inbox` does: vendors are not told that somebody runs tests."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    # A developer's own server is no place for tests.
    os.environ.pop(STORE_URL, None)


def pytest_collection_finish() -> None:
    """Making queries makes many small objects: looking for cycles among all vendors' modules each time takes a sixth of it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_unconfigure() -> None:
    """What stays frozen is never freed, and DuckDB complains of that when Python ends."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def small_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a SIMULATED list in the input contract. Read only."""
    directory = tmp_path_factory.mktemp("small") / "list"
    write(simulate(SUBSCRIBERS, DAYS, SEED), directory)
    return directory


@pytest.fixture(scope="session")
def small_home(small_list: Path) -> Home:
    """A home with that list ingested, all models trained and in service, the store materialized. Read only."""
    home = Home(small_list.parent / "home")
    EventLog(home).append(*(small_list / f"{name}.parquet" for name in ("events", "subscribers", "campaigns")))
    about_files(small_list).save(home)
    outcomes = train_models(home, MODELS, Narrator(quiet=True))
    assert [outcome.refusal for outcome in outcomes] == [None, None, None]
    for model in MODELS:
        promote(home, model, reason="tests", force=True)
    materialize(home, lambda share: None)
    return home


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """What every guide begins with, typed into a shell: the same list again, and the models trained on it. Read only."""
    place = tmp_path_factory.mktemp("begun") / "trial"
    place.mkdir()
    return follow(beginning(guide("engineers")), place, free_port())
