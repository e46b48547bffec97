"""`inbox train`: from the log to registered challengers.

What enters: a home with a log. What leaves: for each asked model a registered version with its run, plots and bundle, or the
named reason why it was refused. The promise: a model that cannot be learnt from this list stops no other, and a retrain
from the same log gives the same model bit for bit.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from features.catalogue import Catalogue
from features.contract import UTC_MICROSECONDS
from features.errors import DatasetError, NothingEligible, UnknownModel, UnusableOption
from features.fold import Folder, Spine
from features.home import Home
from features.log import EventLog
from features.store import FeatureStore
from features.vocabulary import learn
from models import churn, lead_score, send_time
from models.bundle import Bundle, bundle_key, write
from models.registry import CHALLENGER, Registry, Run
from models.spec import ModelSpec
from pipelines.about import about_home
from pipelines.console import Narrator, Share
from training.dataset import Dataset, Rows, dataset, labelled_rows
from training.fit import Fitted, fit
from training.hours import FittedHours, fit_hours
from training.package import package_fitted, package_hours
from training.plots import Chart, calibration_chart, importance_chart, learning_curve, lift_chart, to_png

SPECS: Mapping[str, ModelSpec] = {spec.name: spec for spec in (churn.SPEC, lead_score.SPEC, send_time.SPEC)}

HISTORY_CHUNK_ROWS = 50_000
LONGEST_HORIZON = timedelta(days=36_500)
"""Dates can be counted back this far; a century is no horizon for a mailing list."""


@dataclass(frozen=True)
class Outcome:
    """What became of one model: a registered version, or why there is none."""

    spec: ModelSpec
    version: str | None = None
    refusal: str | None = None
    fitted: Fitted | None = None
    hours: FittedHours | None = None

    @property
    def passed(self) -> bool:
        """Whether it was shown to beat its simplest baseline on rows it never saw."""
        if self.hours is not None:
            return self.hours.gain.value > 0
        judgement = self.fitted.judgement if self.fitted else None
        return judgement is not None and judgement.gain.auc_gain.value > 0


@dataclass(frozen=True)
class Prepared:
    """A log opened for training: its folder, its bounds and its feature store."""

    folder: Folder
    store: FeatureStore
    start: datetime
    end: datetime
    fingerprint: str

    @property
    def catalogue(self) -> Catalogue:
        return self.folder.catalogue


def train_models(
    home: Home,
    models: Sequence[str],
    narrator: Narrator,
    horizons: Mapping[str, timedelta] | None = None,
    allowed: Sequence[str] = (),
) -> list[Outcome]:
    """Train and register each asked model as the challenger.

    Parameters
    ----------
    horizons
        Label horizons that replace the list's own and the specs'.
    allowed
        Features that may know the answer on their own.

    Raises
    ------
    UnknownModel, UnusableOption, EmptyLog, FeatureStoreFailed, RegistryFailed
    """
    specs = [_spec(home, model, horizons or {}) for model in models]
    with narrator.step("open the log and learn its vocabulary"):
        prepared = prepare(home)
    asked, refused = _ask(specs, prepared)
    with narrator.step("fold events into Feast's offline store") as share:
        write_history(prepared, list(asked.values()), share)
    registry = Registry(home.tracking_uri, home.mlruns / "artifacts")
    outcomes = []
    for spec in specs:
        with narrator.step(f"train {spec.name}") as share:
            if spec.name in refused:
                outcomes.append(_register_hours(home, refused[spec.name], prepared, registry))
            else:
                outcomes.append(_train(home, spec, asked[spec.name], prepared, registry, allowed, share))
    return outcomes


def prepare(home: Home, memory_limit: str | None = None) -> Prepared:
    """Open the log, grow and keep the list's catalogue, register the feature views. See ``EventLog.connect``."""
    log = EventLog(home)
    # Before the log is opened: what is appended meanwhile must not pass for part of what was read.
    fingerprint = log.fingerprint()
    con = log.connect(memory_limit)
    known = Catalogue.load(home.catalogue) if home.catalogue.exists() else _fresh(home)
    catalogue = learn(con, log.end() + timedelta(microseconds=1), known)
    catalogue.save(home.catalogue)
    store = FeatureStore(home, catalogue)
    store.apply()
    return Prepared(Folder(con, catalogue), store, log.start(), log.end(), fingerprint)


def _fresh(home: Home) -> Catalogue:
    return Catalogue(timezones=(about_home(home).default_timezone,))


def _spec(home: Home, model: str, horizons: Mapping[str, timedelta]) -> ModelSpec:
    if model not in SPECS:
        raise UnknownModel(model, list(SPECS))
    spec = SPECS[model]
    horizon = horizons.get(model) or about_home(home).horizon(model) or spec.horizon
    if horizon > LONGEST_HORIZON:
        raise UnusableOption(f"--horizon {model}", f"is longer than {LONGEST_HORIZON.days:,} days; no log is")
    return replace(spec, horizon=horizon)


def _ask(specs: Sequence[ModelSpec], prepared: Prepared) -> tuple[dict[str, Rows], dict[str, Outcome]]:
    """Labelled rows of each model, or its refusal."""
    asked: dict[str, Rows] = {}
    refused: dict[str, Outcome] = {}
    for spec in specs:
        try:
            asked[spec.name] = labelled_rows(spec, prepared.folder, prepared.start, prepared.end)
        except DatasetError as error:
            refused[spec.name] = _without_sends(spec, prepared, error)
    return asked, refused


def _without_sends(spec: ModelSpec, prepared: Prepared, refusal: DatasetError) -> Outcome:
    """A list that knows no sends can still say at which hours its people are active."""
    if spec.as_of_policy != "sent" or not isinstance(refusal, NothingEligible):
        return Outcome(spec, refusal=str(refusal))
    try:
        return Outcome(spec, hours=fit_hours(prepared.folder, prepared.start, prepared.end))
    except DatasetError:
        return Outcome(spec, refusal=str(refusal))


def write_history(prepared: Prepared, asked: Sequence[Rows], share: Share) -> None:
    """Fold every state the rows need, once each, and write them to Feast's offline store in place of what was there."""
    spine = _needed([rows.stored for rows in asked])
    prepared.store.clear()
    done = 0
    for chunk in spine.chunks(HISTORY_CHUNK_ROWS):
        prepared.store.write_states(chunk.subscriber_id, prepared.folder.fold(chunk), chunk.as_of)
        done += len(chunk)
        share(done / len(spine))


def _needed(spines: Sequence[Spine]) -> Spine:
    """Distinct (subscriber, instant) pairs, in order."""
    if not spines:
        return Spine(pa.array([], pa.string()), np.empty(0))
    pairs = pa.table(
        {
            "subscriber_id": pa.concat_arrays([spine.subscriber_id for spine in spines]),
            "as_of": np.concatenate([spine.as_of for spine in spines]),
        }
    )
    distinct = (
        pairs.group_by(["subscriber_id", "as_of"])
        .aggregate([])
        .sort_by([("as_of", "ascending"), ("subscriber_id", "ascending")])
    )
    return Spine(distinct["subscriber_id"].combine_chunks(), distinct["as_of"].to_numpy())


def read_dataset(spec: ModelSpec, rows: Rows, prepared: Prepared) -> Dataset:
    """The rows' states as Feast finds them at each row's moment, and the features derived from those."""
    moments = pa.array(rows.as_of.astype(np.int64), pa.int64()).cast(UTC_MICROSECONDS)
    spine = pa.table({"subscriber_id": rows.subscriber_id, "event_timestamp": moments})
    states, _ = prepared.store.historical(spec.name, spine)
    return dataset(rows, states, prepared.catalogue)


def _train(
    home: Home,
    spec: ModelSpec,
    rows: Rows,
    prepared: Prepared,
    registry: Registry,
    allowed: Sequence[str],
    share: Share,
) -> Outcome:
    try:
        data = read_dataset(spec, rows, prepared)
        fitted = fit(data, spec, allowed=allowed, progress=lambda done, rounds: share(0.9 * done / rounds))
    except DatasetError as error:
        return Outcome(spec, refusal=str(error))
    with registry.run(spec.name, f"{spec.name} on {about_home(home).name}", _tags(home)) as run:
        _record_fit(run, home, data, fitted, prepared)
        bundle = package_fitted(fitted, prepared.catalogue, run.reserve(), datetime.now(UTC))
        _register(home, run, bundle, fitted.golden)
    registry.alias(spec.name, CHALLENGER, bundle.version)
    return Outcome(spec, version=bundle.version, fitted=fitted)


def _register_hours(home: Home, outcome: Outcome, prepared: Prepared, registry: Registry) -> Outcome:
    """Register a send-time model without trees; a refusal stays one."""
    hours = outcome.hours
    if hours is None:
        return outcome
    with registry.run(outcome.spec.name, f"hours of activity on {about_home(home).name}", _tags(home)) as run:
        run.log_parameters(outcome.spec.described() | {"basis": "hours of activity, no sends"})
        run.log_metrics(hours.metrics())
        run.log_dataset("event log", prepared.fingerprint, "var/log", {"later_events": hours.later_events})
        bundle = package_hours(hours, prepared.catalogue, run.reserve(), datetime.now(UTC))
        _register(home, run, bundle, np.zeros((1, len(bundle.features))))
    registry.alias(outcome.spec.name, CHALLENGER, bundle.version)
    return replace(outcome, version=bundle.version)


def _register(home: Home, run: Run, bundle: Bundle, golden: npt.NDArray[np.float64]) -> None:
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "bundle"
        write(bundle, golden, directory, bundle_key(home))
        run.register(directory, features=bundle.features, example=golden[:5])


def _record_fit(run: Run, home: Home, data: Dataset, fitted: Fitted, prepared: Prepared) -> None:
    """Everything an engineer needs to believe, compare or repeat the fit."""
    cut = fitted.split
    run.log_parameters(
        fitted.spec.described()
        | {"calibration": fitted.calibration.method, "best_iteration": fitted.best_iteration}
        | {"validation": "other people, overlapping times" if cut.by_people else "later times"}
        | {"catalogue": prepared.catalogue.fingerprint}
    )
    slices = {"train": cut.train, "validation": cut.validation, "test": cut.test}
    run.log_metrics({f"{name}_slice_rows": float(len(rows)) for name, rows in slices.items()})
    run.log_curves(fitted.history)
    profile = {"rows": len(data.rows), "features": len(data.features.names), "log": prepared.fingerprint}
    run.log_dataset(f"{about_home(home).name}: {fitted.spec.name}", data.fingerprint, "var/feast/offline", profile)
    run.log_artifact("importance.json", orjson.dumps(dict(fitted.importance), option=orjson.OPT_INDENT_2))
    for name, chart in _charts(data, fitted).items():
        run.log_artifact(f"plots/{name}.png", to_png(chart))
    if fitted.judgement is not None:
        run.log_metrics(fitted.judgement.metrics())
        run.log_artifact("evaluation.json", fitted.judgement.ours.to_json())


def _charts(data: Dataset, fitted: Fitted) -> dict[str, Chart]:
    train, validation = (fitted.history[f"{part}_binary_logloss"] for part in ("train", "validation"))
    charts: dict[str, Chart] = {
        "learning": learning_curve(train, validation, fitted.best_iteration),
        "importance": importance_chart(fitted.importance),
    }
    if fitted.judgement is not None:
        outcome, scores = fitted.spec.outcome, fitted.probability[fitted.split.test]
        charts["calibration"] = calibration_chart(fitted.judgement.ours.calibration, scores, outcome)
        charts["lift"] = lift_chart(fitted.judgement.ours.deciles, outcome)
    return charts


def _tags(home: Home) -> dict[str, str]:
    about = about_home(home)
    return {"list": about.name, "simulated": str(about.simulated).lower(), "mlflow.source.git.commit": _git_commit()}


def _git_commit() -> str:
    """The commit of the code that trains; empty outside a repository."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
