"""The MLflow door on a real SQLite registry under tmp_path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import mlflow.lightgbm
import numpy as np
import pytest
from mlflow import MlflowClient

from features.errors import PromotionConflict, RegistryFailed, UnknownVersion
from features.home import Home
from models.boosting import Booster, train
from models.registry import Registry, Version

# MLflow's own mappings use what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

FEATURES = ("click_decayed_30d", "hours_since_last_open")
VERDICT = {"auc_gain": 0.02, "checks": ["calibrated"]}


@pytest.fixture(scope="module")
def booster() -> Booster:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(400, 2))
    label = (matrix[:, 0] > 0).astype(np.float64)
    split = (matrix[300:], label[300:], None)
    return train(
        matrix[:300],
        label[:300],
        features=FEATURES,
        categorical=[],
        validation=split,
        parameters={},
        rounds=3,
        patience=3,
    ).booster


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One database for the module: making its tables takes a second or two. Each test has its own model name."""
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def registry(home: Home) -> Registry:
    return Registry(home.tracking_uri, home.mlruns / "artifacts")


@pytest.fixture
def bundle(tmp_path: Path, booster: Booster) -> Path:
    place = tmp_path / "bundle"
    place.mkdir()
    (place / "model.lgb.txt").write_text(booster.text)
    (place / "bundle.json").write_bytes(b"{}")
    return place


def registered(registry: Registry, model: str, bundle: Path, auc: float = 0.7) -> Version:
    with registry.run(model, "nightly", {"mlflow.source.git.commit": "abc123"}) as run:
        run.log_metrics({"auc": auc})
        run.register(bundle, features=FEATURES, example=np.array([[1.0, np.nan]]))
    return registry.versions(model)[0]


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.node.name[:200]


def test_a_run_keeps_everything_it_was_told(registry: Registry, home: Home, model: str) -> None:
    with registry.run(model, "nightly", {"mlflow.source.git.commit": "abc123"}) as run:
        run.log_parameters({f"p{n}": n for n in range(250)})
        run.log_metrics({"auc": 0.71})
        run.log_curves({"train_auc": np.linspace(0, 1, 1500).tolist(), "validation_auc": [0.1, 0.2]})
        run.log_artifact("plots/calibration.html", b"<html></html>")
        run.log_artifact("account.txt", "größe".encode())
        run.log_dataset("events", "f" * 64, "var/log", {"rows": 12})
    client = MlflowClient(tracking_uri=home.tracking_uri)
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert len(found.data.params) == 250
    assert found.data.metrics["auc"] == 0.71
    assert [point.value for point in client.get_metric_history(run.run_id, "validation_auc")] == [0.1, 0.2]
    assert len(client.get_metric_history(run.run_id, "train_auc")) == 1500
    assert {file.path for file in client.list_artifacts(run.run_id)} == {"plots", "account.txt"}
    assert found.inputs is not None
    [dataset] = found.inputs.dataset_inputs
    assert dataset.dataset.digest == "f" * 36
    assert {tag.key: tag.value for tag in dataset.tags}["fingerprint"] == "f" * 64


def test_what_was_kept_with_a_run_is_read_through_its_version(registry: Registry, bundle: Path, model: str) -> None:
    with registry.run(model, "nightly", {}) as run:
        run.log_artifact("judgement.json", b"{}")
        run.log_artifact("plots/lift.txt", "größe".encode())
        run.reserve()
        run.register(bundle, features=FEATURES, example=np.array([[1.0, np.nan]]))
    version = registry.resolve(model, "1")
    assert registry.artifact(version, "judgement.json") == b"{}"
    assert registry.artifact(version, "plots/lift.txt") == "größe".encode()
    assert registry.artifact(version, "evaluation.json") is None
    assert registry.artifact(version, "plots/none.txt") is None


def test_a_run_that_raises_is_recorded_as_failed_and_gives_its_number_up(
    registry: Registry, home: Home, bundle: Path, model: str
) -> None:
    with pytest.raises(ZeroDivisionError), registry.run(model, "nightly", {}) as run:
        assert run.reserve() == run.reserve() == "1"
        raise ZeroDivisionError
    assert MlflowClient(tracking_uri=home.tracking_uri).get_run(run.run_id).info.status == "FAILED"
    assert registry.versions(model) == []
    with pytest.raises(UnknownVersion):
        registry.resolve(model, "1")
    assert registered(registry, model, bundle).version in {"1", "2"}


def test_a_registered_bundle_comes_back_byte_for_byte(
    registry: Registry, bundle: Path, model: str, tmp_path: Path
) -> None:
    version = registered(registry, model, bundle)
    assert (version.model, version.version, version.aliases) == (model, "1", ())
    assert version.metrics["auc"] == 0.7
    back = registry.download(version, tmp_path / "back")
    assert {file.name: file.read_bytes() for file in back.iterdir()} == {
        file.name: file.read_bytes() for file in bundle.iterdir()
    }


def test_mlflow_sees_a_model_with_signature_example_metrics_and_no_pickle(
    registry: Registry, home: Home, bundle: Path, model: str, booster: Booster
) -> None:
    version = registered(registry, model, bundle)
    client = MlflowClient(tracking_uri=home.tracking_uri, registry_uri=home.tracking_uri)
    place = Path(client.get_model_version_download_uri(model, version.version).removeprefix("file://"))
    described = mlflow.models.Model.load(str(place))
    assert described.signature is not None
    assert described.signature.inputs.input_names() == list(FEATURES)
    assert set(described.flavors) == {"inbox_bundle", "lightgbm"}
    assert json.loads((place / "input_example.json").read_text()) == {"columns": list(FEATURES), "data": [[1.0, None]]}
    assert not [file for file in place.rglob("*") if file.suffix in {".pkl", ".py"}]
    run = client.get_run(version.run_id)
    [logged] = client.search_logged_models([run.info.experiment_id])
    assert logged.status == "READY"
    assert {metric.key: metric.value for metric in logged.metrics or ()} == {"auc": 0.7}
    assert run.outputs is not None
    assert run.outputs.model_outputs[0].model_id == logged.model_id
    loaded = mlflow.lightgbm.load_model(str(place))
    matrix = np.random.default_rng(1).normal(size=(20, 2))
    assert (loaded.predict(matrix, raw_score=True) == booster.raw(matrix)).all()


def test_versions_are_newest_first_and_found_by_number_or_alias(registry: Registry, bundle: Path, model: str) -> None:
    assert registry.versions(model) == []
    for auc in (0.6, 0.7):
        registered(registry, model, bundle, auc)
    registry.alias(model, "challenger", "2")
    assert [(v.version, v.aliases, v.metrics["auc"]) for v in registry.versions(model)] == [
        ("2", ("challenger",), 0.7),
        ("1", (), 0.6),
    ]
    assert registry.resolve(model, "challenger").version == registry.resolve(model, "2").version == "2"


@pytest.mark.parametrize("reference", ["champion", "9", "latest", ""])
def test_an_unknown_version_is_said_to_be_unknown(registry: Registry, model: str, reference: str) -> None:
    with pytest.raises(UnknownVersion):
        registry.resolve("nobody", reference)
    with pytest.raises(UnknownVersion):
        registry.alias("nobody", "challenger", reference)


def test_a_promotion_is_recorded_and_ends_the_candidacy(registry: Registry, bundle: Path, model: str) -> None:
    for _ in range(2):
        registered(registry, model, bundle)
    first = registry.promote(model, "1", expected=None, by="ada", reason="first", verdict=VERDICT)
    registry.alias(model, "challenger", "2")
    second = registry.promote(model, "2", expected="1", by="ada", reason="better", verdict=VERDICT)
    champion = registry.resolve(model, "champion")
    assert (champion.version, champion.aliases) == ("2", ("champion",))
    assert champion.tags["promotion.by"] == "ada"
    assert json.loads(champion.tags["promotion.verdict"]) == VERDICT
    assert registry.promotions(model) == [first, second]
    assert (first.replaced, second.replaced) == (None, "1")


def test_a_promotion_over_another_champion_than_expected_changes_nothing(
    registry: Registry, bundle: Path, model: str
) -> None:
    for _ in range(2):
        registered(registry, model, bundle)
    registry.promote(model, "1", expected=None, by="ada", reason="first", verdict={})
    for expected in (None, "2"):
        with pytest.raises(PromotionConflict, match="the champion is 1"):
            registry.promote(model, "2", expected=expected, by="bob", reason="mine", verdict={})
    with pytest.raises(UnknownVersion):
        registry.promote(model, "3", expected="1", by="bob", reason="mine", verdict={})
    assert registry.resolve(model, "champion").version == "1"
    assert len(registry.promotions(model)) == 1


def test_a_version_carries_the_tags_it_was_registered_with(registry: Registry, bundle: Path, model: str) -> None:
    with registry.run(model, "nightly", {}) as run:
        run.register(bundle, features=FEATURES, example=np.zeros((1, 2)), tags={"verdict": "{" + "x" * 20_000})
    assert len(registry.resolve(model, "1").tags["verdict"]) == 20_001


def test_a_rollback_is_recorded_as_one_and_published_after_the_champion_changed(
    registry: Registry, bundle: Path, model: str
) -> None:
    for _ in range(2):
        registered(registry, model, bundle)
    seen = []
    for version, expected, action in (("1", None, "promote"), ("2", "1", "promote"), ("1", "2", "rollback")):
        registry.promote(
            model,
            version,
            expected=expected,
            by="ada",
            reason="",
            verdict={},
            action=action,
            publish=lambda: seen.append(registry.resolve(model, "champion").version),
        )
    assert seen == ["1", "2", "1"]
    assert [change.action for change in registry.promotions(model)] == ["promote", "promote", "rollback"]
    assert registry.resolve(model, "champion").tags["promotion.action"] == "rollback"


def test_a_promotion_recorded_before_there_were_rollbacks_is_read_as_one(home: Home, registry: Registry) -> None:
    line = {"model": "old", "version": "1", "replaced": None, "promoted_at": "", "by": "", "reason": "", "verdict": {}}
    with (home.mlruns / "promotions.jsonl").open("ab") as log:
        log.write(json.dumps(line).encode() + b"\n")
    assert [change.action for change in registry.promotions("old")] == ["promote"]


def test_of_two_promotions_at_once_one_wins_and_one_is_told(
    registry: Registry, home: Home, bundle: Path, model: str
) -> None:
    for _ in range(3):
        registered(registry, model, bundle)
    registry.promote(model, "1", expected=None, by="ada", reason="first", verdict={})

    def attempt(version: str) -> str | None:
        own = Registry(home.tracking_uri, home.mlruns / "artifacts")
        try:
            return own.promote(model, version, expected="1", by=version, reason="race", verdict={}).version
        except PromotionConflict:
            return None

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, ["2", "3"]))
    assert outcomes.count(None) == 1
    assert registry.resolve(model, "champion").version in outcomes


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"nothing like it" * 500)
    began = time.monotonic()
    with pytest.raises(RegistryFailed, match="not a database"):
        Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(RegistryFailed):
        Registry(f"sqlite:///{tmp_path / 'folder.db'}", tmp_path / "artifacts")
    assert time.monotonic() - began < 5


def test_a_dead_tracking_server_costs_seconds(tmp_path: Path) -> None:
    dead = Registry("http://127.0.0.1:9", tmp_path / "artifacts")
    began = time.monotonic()
    with pytest.raises(RegistryFailed, match="list versions"):
        dead.versions("churn")
    assert time.monotonic() - began < 20


def test_files_that_vanished_are_a_registry_failure(
    registry: Registry, home: Home, bundle: Path, model: str, tmp_path: Path
) -> None:
    version = registered(registry, model, bundle)
    (home.mlruns / "artifacts" / model).rename(home.mlruns / "artifacts" / "gone")
    with pytest.raises(RegistryFailed, match="download"):
        registry.download(version, tmp_path / "back")


def test_mlflow_is_quiet_and_makes_no_telemetry_id(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from models.registry import Registry; from mlflow import telemetry\n"
        "Registry(f'sqlite:///{sys.argv[1]}/mlflow.db', Path(sys.argv[1]) / 'artifacts').versions('churn')\n"
        "assert telemetry.get_telemetry_client() is None"
    )
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**kept, "HOME": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / ".config").exists()
