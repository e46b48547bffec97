"""Training = serving: what a model learnt from as of `t` is, byte for byte, what the service would have read at `t`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.clock import instant, microseconds
from features.contract import MODELS
from features.derive import derive, feature_names
from features.fold import Folder, Spine
from features.home import Home
from features.log import EventLog
from features.online import SqliteStateStore
from features.packing import checksums_of
from models.bundle import Bundle, bundle_key, current, load
from models.specs import SPECS
from pipelines.train import Prepared, prepare, read_dataset, write_history
from serving.prediction_log import Served, to_rows
from serving.schemas import ScoreRequest
from serving.scorer import Scorer
from training.dataset import Dataset, labelled_rows

STALE_AFTER_S = 36 * 3600.0


@pytest.fixture(scope="module")
def home(small_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The small list's log, catalogue and bundles under a home whose Feast stores this module may rewrite."""
    copy = Home(tmp_path_factory.mktemp("same") / "home")
    for part in (small_home.event_log, small_home.bundles):
        shutil.copytree(part, copy.var / part.name)
    for file in (small_home.catalogue, small_home.var / "bundle.key"):
        shutil.copy(file, copy.var / file.name)
    return copy


@pytest.fixture(scope="module")
def prepared(home: Home) -> Prepared:
    return prepare(home)


@pytest.fixture(scope="module")
def datasets(prepared: Prepared) -> dict[str, Dataset]:
    """Per model the training rows of a few moments, as training reads them: through Feast's offline store."""
    asked = {}
    for model in MODELS:
        rows = labelled_rows(SPECS[model], prepared.folder, prepared.start, prepared.end)
        instants, counts = np.unique(rows.stored_as_of, return_counts=True)
        # The emptiest (somebody's creation, where a model asks then), one between, and the most crowded.
        chosen = instants[np.argsort(counts, kind="stable")[[0, len(instants) // 2, -1]]]
        asked[model] = rows.take(np.flatnonzero(np.isin(rows.stored_as_of, chosen)))
    write_history(prepared, list(asked.values()), lambda share: None)
    return {model: read_dataset(SPECS[model], rows, prepared) for model, rows in asked.items()}


def store_as_of(prepared: Prepared, folder: Folder, at: float, path: Path) -> SqliteStateStore:
    """Everybody's state folded as of an instant, in a fresh online store."""
    subscribers = prepared.folder.con.table("subscribers").select("subscriber_id").order_by("subscriber_id")
    ids = prepared.folder.con.to_pyarrow(subscribers)["subscriber_id"].combine_chunks()
    store = SqliteStateStore(path)
    assert store.write(ids.to_pylist(), folder.fold(Spine(ids, np.full(len(ids), at)))) == len(ids)
    return store


def moments(data: Dataset) -> list[tuple[float, npt.NDArray[np.int64]]]:
    """Each instant at which a store would have been written, and the rows that would have read it."""
    stored = data.rows.stored_as_of
    return [(at, np.flatnonzero(stored == at)) for at in np.unique(stored).tolist()]


def crowded(data: Dataset) -> tuple[float, npt.NDArray[np.int64]]:
    return max(moments(data), key=lambda one: len(one[1]))


def ids_of(data: Dataset, rows: npt.NDArray[np.int64]) -> list[str]:
    return [str(one) for one in data.rows.subscriber_id.take(pa.array(rows)).to_pylist()]


@pytest.mark.parametrize("model", MODELS)
def test_the_row_trained_on_is_the_row_served(
    model: str, datasets: dict[str, Dataset], prepared: Prepared, tmp_path: Path
) -> None:
    data = datasets[model]
    assert len(moments(data)) == 3
    for number, (at, rows) in enumerate(moments(data)):
        store = store_as_of(prepared, prepared.folder, at, tmp_path / f"{number}.db")
        states, found = store.read(ids_of(data, rows), prepared.catalogue)
        assert found.all()
        served = derive(states, data.rows.as_of[rows], prepared.catalogue)
        assert served.names == data.features.names
        assert served.matrix.tobytes() == np.ascontiguousarray(data.features.matrix[rows]).tobytes()


def test_the_rows_compared_are_not_empty_ones(datasets: dict[str, Dataset]) -> None:
    for data in datasets.values():
        last = data.features.matrix[crowded(data)[1]]
        assert len(np.unique(last, axis=0)) > 1
        assert np.isfinite(last).mean() > 0.3


@pytest.mark.parametrize("model", ["churn", "lead_score"])
def test_the_service_at_that_moment_gives_the_trained_rows_own_score(
    model: str, datasets: dict[str, Dataset], prepared: Prepared, home: Home, tmp_path: Path
) -> None:
    data, bundle = datasets[model], the_bundle(home, model)
    at, rows = crowded(data)
    store = store_as_of(prepared, prepared.folder, at, tmp_path / "online.db")
    scorer = Scorer({model: bundle}, store, STALE_AFTER_S)
    ids = ids_of(data, rows)
    answer = scorer.score(ScoreRequest(subscriber_ids=tuple(ids), models=(model,)), instant(at))  # type: ignore[arg-type]
    columns = [data.features.names.index(name) for name in bundle.features]
    assert bundle.booster is not None
    trained = bundle.calibration(bundle.raw(np.ascontiguousarray(data.features.matrix[rows][:, columns])))
    personal = np.array(answer.listed("status")) == "ok"
    assert personal.any()
    assert np.asarray(answer.columns[f"{model}_probability"])[personal].tobytes() == trained[personal].tobytes()


def test_a_logged_score_can_be_worked_out_again_from_the_events(
    datasets: dict[str, Dataset], prepared: Prepared, home: Home, tmp_path: Path
) -> None:
    """The prediction log's reference: fold up to where it says, compare the checksum, derive when it was scored."""
    data, bundle = datasets["churn"], the_bundle(home, "churn")
    at, rows = crowded(data)
    store = store_as_of(prepared, prepared.folder, at, tmp_path / "online.db")
    request = ScoreRequest(subscriber_ids=tuple(ids_of(data, rows[:50])), models=("churn",))
    scored_at = instant(at + 5 * 3600e6)
    scores = Scorer({"churn": bundle}, store, STALE_AFTER_S).score(request, scored_at)
    [logged] = to_rows([Served("r", None, scored_at, {"churn": bundle.version}, scores)])
    # Whoever objected to profiling was not looked at.
    logged = logged.filter(pc.is_valid(logged["state_as_of"]))
    assert logged.num_rows > 30
    stamps = logged["state_as_of"].cast(pa.int64()).to_numpy().astype(np.float64)
    again = prepared.folder.fold(Spine(logged["subscriber_id"].combine_chunks(), stamps))
    assert bundle.catalogue == prepared.catalogue
    assert checksums_of(again).tolist() == logged["state_checksum"].to_pylist()
    matrix = derive(again, float(microseconds(scored_at)), bundle.catalogue).matrix
    chosen = [feature_names(bundle.catalogue).index(name) for name in bundle.features]
    assert bundle.booster is not None
    worked_out = bundle.calibration(bundle.raw(np.ascontiguousarray(matrix[:, chosen])))
    assert worked_out.tolist() == logged["probability"].to_pylist()


def the_bundle(home: Home, model: str) -> Bundle:
    directory = current(home, model)
    assert directory is not None
    return load(directory, bundle_key(home))


def test_a_log_that_ends_at_that_moment_gives_the_same_row(
    datasets: dict[str, Dataset], prepared: Prepared, small_list: Path, tmp_path: Path
) -> None:
    """What serving had then was not the whole log: only what had been received before."""
    data = datasets["churn"]
    at, rows = crowded(data)
    then = Home(tmp_path / "then")
    others = (small_list / f"{name}.parquet" for name in ("subscribers", "campaigns"))
    EventLog(then).append(events_before(small_list, at, tmp_path), *others)
    assert microseconds(EventLog(then).end()) < at < microseconds(prepared.end)
    folder = Folder(EventLog(then).connect(), prepared.catalogue)
    states, _ = store_as_of(prepared, folder, at, tmp_path / "online.db").read(ids_of(data, rows), prepared.catalogue)
    served = derive(states, data.rows.as_of[rows], prepared.catalogue)
    assert served.matrix.tobytes() == np.ascontiguousarray(data.features.matrix[rows]).tobytes()


def events_before(small_list: Path, at: float, directory: Path) -> Path:
    """The list's own events received before an instant."""
    events = pq.read_table(small_list / "events.parquet")
    kept = events.filter(pc.less(events["received_at"], pa.scalar(instant(at), events["received_at"].type)))
    assert 0 < len(kept) < len(events)
    pq.write_table(kept, directory / "events.parquet")
    return directory / "events.parquet"
