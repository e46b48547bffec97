"""`inbox train`: from the log to registered challengers.

What enters: a home with a log. What leaves: for each asked model a registered version with its run, plots, bundle and the
verdict of the gates, or the named reason why it was refused. The promise: a model that cannot be learnt from this list stops
no other, a retrain from the same log gives the same model bit for bit, and a version is listed only once its verdict is.
"""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from features.catalogue import Catalogue
from features.clock import microseconds
from features.contract import UTC_MICROSECONDS
from features.errors import DatasetError, NothingEligible, ScoringError, UnknownModel, UnusableOption
from features.fold import Folder, Spine
from features.home import Home
from features.log import EventLog
from features.store import FeatureStore
from features.vocabulary import learn
from models.bundle import Bundle, bundle_key, write
from models.registry import CHALLENGER, PARENT_TAG, Registry, Run, Version
from models.spec import ModelSpec
from models.specs import SPECS
from pipelines.about import about_home
from pipelines.console import Narrator, Share
from pipelines.inbox import drained
from pipelines.judge import LEARNT_UNTIL_TAG, champion, judge, judge_hours, learnt_until
from pipelines.promote import VERDICT_TAG, champion_of, open_registry, verdict_of
from training.dataset import Dataset, Rows, dataset, labelled_rows
from training.fit import JUDGEMENT, Fitted, fit
from training.hours import FittedHours, fit_hours
from training.package import package_fitted, package_hours
from training.plots import Chart, calibration_chart, importance_chart, learning_curve, lift_chart, to_png
from training.splits import TEST_SHARE
from training.verdict import Verdict

if TYPE_CHECKING:
    # Optuna takes a second to import, and only who tunes needs it.
    from training.tuning import Tuned

HISTORY_CHUNK_ROWS = 50_000
LONGEST_HORIZON = timedelta(days=36_500)
"""Dates can be counted back this far; a century is no horizon for a mailing list."""
KEY_TAG, LOG_TAG, CODE_TAG = "training.key", "training.log", "training.code"
"""On a version: everything it was made from, the log's fingerprint, the code's."""
ROOMS = ("features", "models", "training")
"""Whose code decides what a model becomes."""
LIBRARIES = ("lightgbm", "numpy", "duckdb", "scikit-learn", "scipy")

Tuner = Callable[[Dataset, ModelSpec], "Tuned"]


class TrainingRunning(ScoringError):
    """Two trainings would write over each other's offline store."""

    code = "training_running"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"Another training holds {path}. Nothing was done; wait for it, or run again later.")


@dataclass(frozen=True)
class Outcome:
    """What became of one model: a registered version with its verdict, or why there is none."""

    spec: ModelSpec
    version: str | None = None
    refusal: str | None = None
    fitted: Fitted | None = None
    hours: FittedHours | None = None
    verdict: Verdict | None = None
    tuned: Tuned | None = None

    @property
    def passed(self) -> bool:
        """Whether every gate was passed."""
        return self.verdict is not None and self.verdict.passed


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


@dataclass(frozen=True)
class Recipe:
    """What a training is asked for. Equal recipes on equal logs by equal code make equal models."""

    horizons: Mapping[str, timedelta] = field(default_factory=dict)
    """Label horizons that replace the list's own and the specs'."""
    allowed: tuple[str, ...] = ()
    """Features that may know the answer on their own."""
    tuner: Tuner | None = None
    tuning: str = ""
    """The tuner's budget in words; empty without one."""

    def spec(self, home: Home, model: str) -> ModelSpec:
        """A model's spec on one list.

        Raises
        ------
        UnknownModel, UnusableOption
        """
        return _spec(home, model, self.horizons)

    def refuse_unusable(self, home: Home, models: Sequence[str]) -> None:
        """Raise before anything is done, and before the home is made. What waits in the inbox is in the log afterwards.

        Raises
        ------
        UnknownModel, UnusableOption, EmptyLog
        """
        for model in models:
            self.spec(home, model)
        drained(home)
        EventLog(home).end()

    def key(self, home: Home, model: str, log_fingerprint: str) -> str:
        """Sha256 (hex) over everything that decides what the model becomes."""
        spec = self.spec(home, model).described()
        parts = [log_fingerprint, code_fingerprint(), about_home(home).default_timezone, *self.allowed, self.tuning]
        return sha256(orjson.dumps([spec, parts], option=orjson.OPT_SORT_KEYS)).hexdigest()


@cache
def code_fingerprint() -> str:
    """Sha256 (hex) over the code that makes models and the versions of the libraries it stands on."""
    whole = sha256()
    root = Path(__file__).parent.parent
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        whole.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    for name in LIBRARIES:
        whole.update(f"{name} {installed_version(name)}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class _Bench:
    """What training one model needs besides its rows."""

    home: Home
    prepared: Prepared
    registry: Registry
    recipe: Recipe


def train_models(
    home: Home,
    models: Sequence[str],
    narrator: Narrator,
    horizons: Mapping[str, timedelta] | None = None,
    allowed: Sequence[str] = (),
    repeat: bool = True,
) -> list[Outcome]:
    """Train, judge and register each asked model as the challenger. See ``train_recipe``.

    Parameters
    ----------
    repeat
        Train even what an equal version is there for; else that version is the outcome, without its fit.

    Raises
    ------
    TrainingRunning
        When another training is at work on this home.
    """
    recipe = Recipe(horizons or {}, tuple(allowed))
    recipe.refuse_unusable(home, models)
    with alone(home):
        known = {} if repeat else _known(home, models, recipe)
        asked = [model for model in models if model not in known]
        trained = train_recipe(home, asked, narrator, recipe, lambda outcome: None) if asked else []
    outcomes = known | {outcome.spec.name: outcome for outcome in trained}
    return [outcomes[model] for model in models]


def _known(home: Home, models: Sequence[str], recipe: Recipe) -> dict[str, Outcome]:
    registry, fingerprint = open_registry(home), EventLog(home).fingerprint()
    found = {model: made(registry, model, recipe.key(home, model, fingerprint)) for model in models}
    return {
        model: Outcome(recipe.spec(home, model), version=version.version, verdict=verdict_of(version))
        for model, version in found.items()
        if version is not None
    }


def made(registry: Registry, model: str, key: str) -> Version | None:
    """The newest version made from exactly this, unless it must be judged anew: it never served, and another champion does."""
    version = next((one for one in registry.versions(model) if one.tags.get(KEY_TAG) == key), None)
    if version is None or version.version in {change.version for change in registry.promotions(model)}:
        return version
    serving = champion_of(registry, model)
    return version if verdict_of(version).champion == (None if serving is None else serving.version) else None


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Hold the lock of trainings on this home; it is let go when the process ends, however it ends.

    Raises
    ------
    TrainingRunning
    """
    home.var.mkdir(parents=True, exist_ok=True)
    path = home.var / "train.lock"
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingRunning(path) from None
        yield


def train_recipe(
    home: Home, models: Sequence[str], narrator: Narrator, recipe: Recipe, done: Callable[[Outcome], None]
) -> list[Outcome]:
    """Train, judge and register each asked model as the challenger.

    Parameters
    ----------
    done
        Called with each outcome as soon as it is there, before the next model is begun.

    Raises
    ------
    UnknownModel, UnusableOption, EmptyLog, FeatureStoreFailed, RegistryFailed
    """
    specs = [recipe.spec(home, model) for model in models]
    with narrator.step("open the log and learn its vocabulary"):
        bench = _Bench(home, prepare(home), open_registry(home), recipe)
    asked, refused = _ask(specs, bench.prepared)
    with narrator.step("fold events into Feast's offline store") as share:
        write_history(bench.prepared, list(asked.values()), share)
    outcomes = []
    for spec in specs:
        with narrator.step(f"train {spec.name}") as share:
            if spec.name in refused:
                outcomes.append(_register_hours(bench, refused[spec.name]))
            else:
                outcomes.append(_train(bench, spec, asked[spec.name], share))
        done(outcomes[-1])
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
    cut = prepared.start + (prepared.end - prepared.start) * (1 - TEST_SHARE)
    hours = fit_hours(prepared.folder, prepared.start, cut, prepared.end)
    return Outcome(spec, hours=hours) if hours.later_events else Outcome(spec, refusal=str(refusal))


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


def _train(bench: _Bench, spec: ModelSpec, rows: Rows, share: Share) -> Outcome:
    home, prepared, recipe = bench.home, bench.prepared, bench.recipe
    try:
        data = read_dataset(spec, rows, prepared)
        tuned = None if recipe.tuner is None else recipe.tuner(data, spec)
        chosen = spec if tuned is None else tuned.spec
        fitted = fit(data, chosen, allowed=recipe.allowed, progress=lambda done, rounds: share(0.9 * done / rounds))
    except DatasetError as error:
        return Outcome(spec, refusal=str(error))
    serving = champion(home, bench.registry, spec.name)
    verdict = judge(data, fitted, prepared.folder, serving, recipe.allowed)
    with bench.registry.run(spec.name, f"{spec.name} on {about_home(home).name}", _tags(home)) as run:
        _record_fit(run, home, data, fitted, prepared)
        _record_tuning(bench, run, spec, tuned)
        bundle = package_fitted(fitted, prepared.catalogue, run.reserve(), datetime.now(UTC))
        _register(bench, run, bundle, fitted.golden, verdict, learnt_until(data, fitted))
    bench.registry.alias(spec.name, CHALLENGER, bundle.version)
    return Outcome(spec, version=bundle.version, fitted=fitted, verdict=verdict, tuned=tuned)


def _register_hours(bench: _Bench, outcome: Outcome) -> Outcome:
    """Register a send-time model without trees; a refusal stays one."""
    hours, home, prepared = outcome.hours, bench.home, bench.prepared
    if hours is None:
        return outcome
    model = outcome.spec.name
    verdict = judge_hours(hours, champion(home, bench.registry, model))
    with bench.registry.run(model, f"hours of activity on {about_home(home).name}", _tags(home)) as run:
        run.log_parameters(outcome.spec.described() | {"basis": "hours of activity, no sends"})
        run.log_metrics(hours.metrics())
        run.log_dataset("event log", prepared.fingerprint, "var/log", {"later_events": hours.later_events})
        bundle = package_hours(hours, prepared.catalogue, run.reserve(), datetime.now(UTC))
        golden = np.zeros((1, len(bundle.features)))
        _register(bench, run, bundle, golden, verdict, float(microseconds(prepared.end)))
    bench.registry.alias(model, CHALLENGER, bundle.version)
    return replace(outcome, version=bundle.version, verdict=verdict)


def _register(
    bench: _Bench, run: Run, bundle: Bundle, golden: npt.NDArray[np.float64], verdict: Verdict, learnt: float
) -> None:
    """Complete the version. Its verdict is there first, so that nobody ever sees a version that was not judged."""
    run.log_artifact("verdict.json", verdict.to_json())
    run.log_artifact("verdict.txt", verdict.in_full().encode())
    run.log_metrics({"gates_passed": float(verdict.passed)})
    tags = {
        VERDICT_TAG: verdict.to_json().decode(),
        KEY_TAG: bench.recipe.key(bench.home, bundle.model, bench.prepared.fingerprint),
        LOG_TAG: bench.prepared.fingerprint,
        CODE_TAG: code_fingerprint(),
        LEARNT_UNTIL_TAG: f"{learnt:.0f}",
    }
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "bundle"
        write(bundle, golden, directory, bundle_key(bench.home))
        run.register(directory, features=bundle.features, example=golden[:5], tags=tags)


def _record_tuning(bench: _Bench, run: Run, spec: ModelSpec, tuned: Tuned | None) -> None:
    """Each trial as a run below the training's own."""
    if tuned is None:
        return
    run.log_parameters({"tuning": tuned.words})
    run.log_metrics(tuned.metrics())
    tags = _tags(bench.home) | {PARENT_TAG: run.run_id}
    for trial in tuned.trials:
        with bench.registry.run(spec.name, f"trial {trial.number}", tags) as child:
            child.log_parameters(trial.parameters)
            child.log_metrics({"inner_log_loss": trial.log_loss})


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
        run.log_artifact(JUDGEMENT, fitted.judgement.to_json())


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
