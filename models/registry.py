"""The MLflow door: runs, registered versions, aliases, promotion.

What enters: parameters, metrics, plots and a bundle directory. What leaves: ``Version``s, and bundles copied back to
disk. The promise: a version is listed only once its files are complete, the champion changes only from the one the
caller saw, and a tracking server that is gone costs seconds, not minutes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

# MLflow makes a telemetry client, with an id kept in the user's home, while it is imported: before is the only time.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient, MlflowException
from mlflow.artifacts import download_artifacts
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModel, LoggedModelOutput, Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from sqlalchemy.exc import SQLAlchemyError

from features.errors import PromotionConflict, RegistryFailed, UnknownVersion

CHAMPION, CHALLENGER = "champion", "challenger"
PROMOTE, ROLLBACK = "promote", "rollback"
PARENT_TAG = "mlflow.parentRunId"
"""On a run that is a part of another: MLflow's pages nest it there."""

_COMPLETE_TAG = "complete"
"""Set on a version as the very last step of registering it."""
_TOLD = ("promoted_at", "by", "reason", "verdict", "replaced", "action")
"""Of a promotion, in the version's tags."""
_LOG = logging.getLogger(__name__)
_BUNDLE = "bundle"
_BATCH = 100
"""Most parameters MLflow takes at once; it takes 1,000 metrics."""
_DIGEST_LENGTH = 36
_ENVIRONMENT = {
    # A dead server costs half a minute at most, instead of four.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # The terminal is the command line's.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Defaults; what the environment says already stands."""


@dataclass(frozen=True)
class Version:
    """A registered version of a model. ``metrics`` are its run's last values."""

    model: str
    version: str
    run_id: str
    aliases: tuple[str, ...]
    created_at: datetime
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Promotion:
    """One line of the promotion log: who made what the champion, when, instead of what, why and on what evidence.

    ``replaced`` is the champion before, None when there was none; ``action`` is ``promote`` or ``rollback``.
    """

    model: str
    version: str
    replaced: str | None
    promoted_at: str
    by: str
    reason: str
    verdict: Mapping[str, Any]
    action: str = PROMOTE


class Run:
    """One training run being recorded; made by ``Registry.run``."""

    def __init__(self, client: MlflowClient, model: str, experiment_id: str, run_id: str) -> None:
        self.model, self.run_id = model, run_id
        self._client, self._experiment_id = client, experiment_id
        self._reserved: tuple[str, LoggedModel] | None = None
        self._registered = False
        self._metrics: list[Metric] = []

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Record settings as text; MLflow cuts values after 6,000 characters and refuses a changed one."""
        rows = [Param(name, str(value)) for name, value in parameters.items()]
        with _our_errors("log parameters"):
            for start in range(0, len(rows), _BATCH):
                self._client.log_batch(self.run_id, params=rows[start : start + _BATCH])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record numbers; those of step 0 are also shown with the registered model."""
        rows = [Metric(name, float(value), _now_ms(), step) for name, value in metrics.items()]
        self._metrics += rows if step == 0 else []
        self._log_all(rows)

    def log_curves(self, curves: Mapping[str, Sequence[float]]) -> None:
        """Record whole learning curves; position in the sequence is the step."""
        now = _now_ms()
        points = ((name, step, value) for name, curve in curves.items() for step, value in enumerate(curve))
        self._log_all([Metric(name, float(value), now, step) for name, step, value in points])

    def _log_all(self, rows: Sequence[Metric]) -> None:
        with _our_errors("log metrics"):
            for start in range(0, len(rows), 10 * _BATCH):
                self._client.log_batch(self.run_id, metrics=rows[start : start + 10 * _BATCH])

    def log_artifact(self, name: str, content: bytes) -> None:
        """Keep a file with the run; ``name`` is its path there, such as ``plots/calibration.html``."""
        target = Path(name)
        with _our_errors(f"log {name}"), tempfile.TemporaryDirectory() as place:
            file = Path(place) / target.name
            file.write_bytes(content)
            folder = None if target.parent == Path() else target.parent.as_posix()
            self._client.log_artifact(self.run_id, str(file), folder)

    def log_dataset(self, name: str, fingerprint: str, source: str, profile: Mapping[str, object]) -> None:
        """Name the data learnt from: a digest (cut to MLflow's 36 characters), where it came from, and counts."""
        dataset = Dataset(name, fingerprint[:_DIGEST_LENGTH], "local", source, profile=_json({**profile}))
        context = [InputTag("mlflow.data.context", "training"), InputTag("fingerprint", fingerprint)]
        with _our_errors("log the data set"):
            self._client.log_inputs(self.run_id, [DatasetInput(dataset, context)])

    def reserve(self) -> str:
        """The number of the version this run is going to register, so that the bundle can carry it.

        Unless ``register`` follows before the run ends, the number is given up and never used again.
        """
        return self._reservation()[0]

    def _reservation(self) -> tuple[str, LoggedModel]:
        if self._reserved is None:
            with _our_errors("reserve a version"):
                logged = self._client.create_logged_model(self._experiment_id, self.model, self.run_id)
                created = self._client.create_model_version(
                    self.model,
                    # The location, not models:/ID, which MLflow would look up on its global tracking URI.
                    logged.artifact_location,
                    self.run_id,
                    model_id=logged.model_id,
                    await_creation_for=0,
                )
            self._reserved = str(created.version), logged
        return self._reserved

    def register(
        self,
        bundle: Path,
        *,
        features: Sequence[str],
        example: npt.NDArray[np.float64],
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Upload a bundle directory as a model in MLflow's format and complete the reserved version.

        Parameters
        ----------
        features
            Names of the model's inputs, in order: the signature.
        example
            A few rows to show as input example, shape (rows, features), NaN = missing.
        tags
            Of the version, at most 100,000 characters each: whoever sees the version sees them too.

        Returns
        -------
        The version's number.
        """
        version, logged = self._reservation()
        with _our_errors("register the model"), tempfile.TemporaryDirectory() as place:
            shutil.copytree(bundle, Path(place) / _BUNDLE)
            _write_mlmodel(Path(place), logged, self.run_id, features, example)
            self._client.log_model_artifacts(logged.model_id, place)
            self._present(logged.model_id, version)
            for name, value in (dict(tags or {}) | {_COMPLETE_TAG: "true"}).items():
                self._client.set_model_version_tag(self.model, version, name, value)
        self._registered = True
        return version

    def _present(self, model_id: str, version: str) -> None:
        """Make MLflow's pages show the model with its run, its metrics and its registered version."""
        metrics = [Metric(m.key, m.value, m.timestamp, 0, model_id, run_id=self.run_id) for m in self._metrics]
        self._client.log_batch(self.run_id, metrics=metrics)
        self._client.log_outputs(self.run_id, [LoggedModelOutput(model_id, 0)])
        mark = _json([{"name": self.model, "version": int(version)}])
        self._client.set_logged_model_tags(model_id, {"mlflow.modelVersions": mark})
        self._client.finalize_logged_model(model_id, "READY")

    def close(self, status: str) -> None:
        """End the run as ``FINISHED`` or ``FAILED``; a version reserved and not registered is given up."""
        with _our_errors("end the run"):
            if self._reserved is not None and not self._registered:
                self._client.delete_model_version(self.model, self._reserved[0])
            self._client.set_terminated(self.run_id, status)


class Registry:
    """Everything MLflow remembers, under one tracking URI.

    Parameters
    ----------
    tracking_uri
        ``sqlite:///...`` or the address of a tracking server.
    artifacts
        Directory of run artifacts (a server decides that itself). The promotion log and its lock lie beside it.

    Raises
    ------
    RegistryFailed
        When the SQLite file cannot be opened. A new one gets its tables on first use, which takes a second or two.
    """

    def __init__(self, tracking_uri: str, artifacts: Path) -> None:
        for chatty in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._artifacts = artifacts
        self._is_embedded = tracking_uri.startswith("sqlite:")
        self._promotions = artifacts.parent / "promotions.jsonl"
        self._tracking_uri = tracking_uri
        with _our_errors("open the registry"):
            artifacts.mkdir(parents=True, exist_ok=True)
            if self._is_embedded:
                _refuse_unusable_database(Path(tracking_uri.removeprefix("sqlite:///")))
            self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    @contextmanager
    def run(self, model: str, run_name: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """Record a training run: FINISHED when the block ends, FAILED when it raises."""
        with _our_errors("start a run"), self._locked():
            experiment_id = self._experiment(model)
            self._registered_model(model)
            started = self._client.create_run(experiment_id, run_name=run_name, tags=dict(tags))
        run = Run(self._client, model, experiment_id, started.info.run_id)
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        finally:
            run.close(status)

    def versions(self, model: str) -> list[Version]:
        """Complete versions, newest first; empty when the model was never registered."""
        with _our_errors("list versions"):
            aliases = self._aliases(model)
            return [self._described(found, aliases) for found in self._complete(model)]

    def resolve(self, model: str, reference: str) -> Version:
        """The version an alias (``champion``, ``challenger``) or a number means.

        Raises
        ------
        UnknownVersion
            When there is none, or its files were never completed.
        """
        with _our_errors("look up a version"):
            aliases = self._aliases(model)
            wanted = aliases.get(reference, reference)
            for found in self._complete(model):
                if str(found.version) == wanted:
                    return self._described(found, aliases)
        raise UnknownVersion(model, reference)

    def alias(self, model: str, name: str, version: str) -> None:
        """Point an alias at a version, whoever held it. The champion changes through ``promote``.

        Raises
        ------
        UnknownVersion
            When there is no such version.
        """
        self.resolve(model, version)
        with _our_errors(f"set the alias {name}"):
            self._client.set_registered_model_alias(model, name, version)

    def download(self, version: Version, to: Path) -> Path:
        """Copy a version's bundle into the directory ``to``, made when absent; its path is returned.

        Nothing in it is trusted yet: ``bundle.load`` decides.
        """
        with _our_errors("download a bundle"), tempfile.TemporaryDirectory() as place:
            source = self._client.get_model_version_download_uri(version.model, version.version)
            local = download_artifacts(
                artifact_uri=f"{source.rstrip('/')}/{_BUNDLE}", dst_path=place, tracking_uri=self._tracking_uri
            )
            shutil.copytree(local, to, dirs_exist_ok=True)
        return to

    def artifact(self, version: Version, name: str) -> bytes | None:
        """A file kept with a version's run by ``Run.log_artifact``; None where there is none of that name."""
        folder = None if Path(name).parent == Path() else Path(name).parent.as_posix()
        with _our_errors(f"read {name}"), tempfile.TemporaryDirectory() as place:
            kept = {found.path for found in self._client.list_artifacts(version.run_id, folder)}
            return (
                Path(self._client.download_artifacts(version.run_id, name, place)).read_bytes()
                if name in kept
                else None
            )

    def promote(
        self,
        model: str,
        version: str,
        *,
        expected: str | None,
        by: str,
        reason: str,
        verdict: Mapping[str, Any],
        action: str = PROMOTE,
        publish: Callable[[], object] | None = None,
    ) -> Promotion:
        """Make a version the champion if the champion is still ``expected`` (None: if there is none).

        The comparison and the change happen under a lock file beside the artifacts: safe among all processes that share
        this directory. Who, why and on what evidence is kept in the version's tags and in ``promotions.jsonl``.

        Parameters
        ----------
        action
            ``promote`` or ``rollback``: how the record calls it.
        publish
            Called under the same lock once the champion has changed, so that of two changes the later one is also the one
            published last. When it raises, the champion is the one from before, and its error is passed on.

        Raises
        ------
        PromotionConflict
            When somebody promoted in between.
        UnknownVersion
            When there is no such version.
        """
        with self._locked():
            before = self.resolve(model, version)
            aliases = self._aliases_now(model)
            champion = aliases.get(CHAMPION)
            if champion != expected:
                raise PromotionConflict(model, expected or "none", champion or "none")
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            promotion = Promotion(model, version, champion, now, by, reason, verdict, action)
            self._record_unrecorded(model)
            with self._all_or_nothing(before, champion):
                self._make_champion(promotion)
                if publish is not None:
                    publish()
            with _our_errors("record the promotion"):
                if aliases.get(CHALLENGER) == version:
                    self._client.delete_registered_model_alias(model, CHALLENGER)
                self._append(promotion)
        return promotion

    def promotions(self, model: str) -> list[Promotion]:
        """All promotions recorded here, oldest first, and the last one too if it was killed before it was recorded.

        A line that cannot be read, such as one that a full disk cut off, is skipped with a warning in the log.
        """
        recorded = self._recorded(model)
        unrecorded = self._unrecorded(model, recorded)
        return recorded if unrecorded is None else [*recorded, unrecorded]

    def _recorded(self, model: str) -> list[Promotion]:
        with _our_errors("read the promotions"):
            lines = self._promotions.read_bytes().splitlines() if self._promotions.exists() else []
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(Promotion(**orjson.loads(line)))
            except (ValueError, TypeError):
                _LOG.warning("%s: line %d cannot be read and is skipped.", self._promotions, number)
        return [one for one in found if one.model == model]

    def _unrecorded(self, model: str, recorded: Sequence[Promotion]) -> Promotion | None:
        """The champion's promotion as its tags tell it, if the log does not: tags come before the alias, the log after."""
        try:
            champion = self.resolve(model, CHAMPION)
        except UnknownVersion:
            return None
        told = {name: champion.tags.get(f"promotion.{name}", "") for name in _TOLD}
        known = {(one.version, one.promoted_at) for one in recorded}
        if not told["promoted_at"] or (champion.version, told["promoted_at"]) in known:
            return None
        replaced = None if told["replaced"] == _json(None) else told["replaced"]
        action = told["action"] or PROMOTE
        verdict = _read_object(told["verdict"])
        return Promotion(
            model, champion.version, replaced, told["promoted_at"], told["by"], told["reason"], verdict, action
        )

    def _record_unrecorded(self, model: str) -> None:
        unrecorded = self._unrecorded(model, self._recorded(model))
        if unrecorded is not None:
            with _our_errors("record a promotion that was killed"):
                self._append(unrecorded)

    @contextmanager
    def _all_or_nothing(self, before: Version, champion: str | None) -> Iterator[None]:
        """Put the champion and the version's tags back when the block raises."""
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                with _our_errors("take a promotion back"):
                    self._restore(before, champion)

    def _restore(self, before: Version, champion: str | None) -> None:
        if champion is not None:
            self._client.set_registered_model_alias(before.model, CHAMPION, champion)
        elif CHAMPION in self._aliases(before.model):
            self._client.delete_registered_model_alias(before.model, CHAMPION)
        for name in (f"promotion.{told}" for told in _TOLD):
            if name in before.tags:
                self._client.set_model_version_tag(before.model, before.version, name, before.tags[name])
            else:
                self._client.delete_model_version_tag(before.model, before.version, name)

    def _make_champion(self, promotion: Promotion) -> None:
        record = asdict(promotion)
        with _our_errors("promote"):
            for name in _TOLD:
                text = record[name] if isinstance(record[name], str) else _json(record[name])
                self._client.set_model_version_tag(promotion.model, promotion.version, f"promotion.{name}", text)
            self._client.set_registered_model_alias(promotion.model, CHAMPION, promotion.version)

    def _append(self, promotion: Promotion) -> None:
        """On a line of its own, even below one that was cut off."""
        whole = not self._promotions.exists() or self._promotions.read_bytes()[-1:] in (b"", b"\n")
        with self._promotions.open("ab") as log:
            log.write((b"" if whole else b"\n") + _json(asdict(promotion)).encode() + b"\n")
            log.flush()
            os.fsync(log.fileno())

    def _aliases_now(self, model: str) -> dict[str, str]:
        with _our_errors("look up the champion"):
            return self._aliases(model)

    def _experiment(self, model: str) -> str:
        found = self._client.get_experiment_by_name(model)
        if found is not None:
            return str(found.experiment_id)
        location = (self._artifacts.resolve() / model).as_uri() if self._is_embedded else None
        return str(self._client.create_experiment(model, artifact_location=location))

    def _registered_model(self, model: str) -> None:
        if not self._client.search_registered_models(f"name = '{model}'"):
            self._client.create_registered_model(model)

    def _aliases(self, model: str) -> dict[str, str]:
        found = self._client.search_registered_models(f"name = '{model}'")
        return {name: str(version) for name, version in found[0].aliases.items()} if found else {}

    def _complete(self, model: str) -> list[ModelVersion]:
        found: list[ModelVersion] = []
        token: str | None = ""
        while token is not None:
            page = self._client.search_model_versions(f"name = '{model}'", page_token=token or None)
            found += [version for version in page if _COMPLETE_TAG in version.tags]
            token = page.token or None
        return sorted(found, key=lambda version: int(version.version), reverse=True)

    def _described(self, found: ModelVersion, aliases: Mapping[str, str]) -> Version:
        number, run_id = str(found.version), str(found.run_id)
        return Version(
            model=found.name,
            version=number,
            run_id=run_id,
            aliases=tuple(sorted(name for name, target in aliases.items() if target == number)),
            created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            metrics=dict(self._client.get_run(run_id).data.metrics),
            tags=dict(found.tags),
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as held:
            with _our_errors("take the lock"):
                lock = held.enter_context((self._artifacts.parent / "registry.lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _write_mlmodel(
    directory: Path, logged: LoggedModel, run_id: str, features: Sequence[str], example: npt.NDArray[np.float64]
) -> None:
    """MLflow's description of the bundle in ``directory``. It names no code to run; serving never reads it."""
    shown = {"columns": list(features), "data": np.where(np.isfinite(example), example, np.nan).tolist()}
    (directory / "input_example.json").write_text(_json(shown))
    model = Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.double, name, required=False) for name in features]),
            outputs=Schema([ColSpec(DataType.double, "probability")]),
        ),
        saved_input_example_info={
            "artifact_path": "input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
        },
    )
    model.add_flavor("inbox_bundle", data=_BUNDLE)
    text = f"{_BUNDLE}/model.lgb.txt"
    if (directory / text).exists():
        # `mlflow.lightgbm.load_model` then gives an engineer the bare booster: no offset, no calibration.
        version = installed_version("lightgbm")
        model.add_flavor("lightgbm", lgb_version=version, data=text, model_class="lightgbm.basic.Booster", code=None)
    model.save(str(directory / "MLmodel"))


def _refuse_unusable_database(path: Path) -> None:
    """MLflow retries a file it cannot open for more than a minute; SQLite says so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    finally:
        connection.close()


@contextmanager
def _our_errors(action: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RegistryFailed(action, first_line[:300].rstrip(".")) from error


def _read_object(text: str) -> dict[str, Any]:
    """Empty where the text is no JSON object."""
    try:
        found = orjson.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()
