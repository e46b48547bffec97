"""`inbox monitor`: how the models do out there, from the log of what they said and the log of what happened.

What enters: a home whose service has answered. What leaves: for each model what was said, how it drifted, how it came true and,
of send time, what deciding moments is worth; and what a person has to look at. The promise: outcomes are the labels that
training uses, taken at the moments of the scores; nothing is changed; the same two logs give the same findings.

Drift of features is told, not alarmed about: tenure, counts and recency of a growing list move by themselves. What is alarmed
about is that scores shifted, that probabilities no longer come true, and that the decisions made do harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from features.catalogue import Catalogue
from features.clock import HOURS_TO_FIRST_MONDAY, MICROSECONDS_PER_HOUR, instant
from features.contract import HOURS_OF_WEEK
from features.derive import Features, derive
from features.errors import BundleCorrupt, DatasetError, ScoringError, UnreadableFile
from features.fold import Folder, Spine
from features.home import Home
from features.log import EventLog
from features.state import MICROSECONDS_PER_DAY
from models.bundle import Bundle, bundle_key, load
from models.spec import ModelSpec
from models.specs import SPECS
from pipelines.about import about_home
from pipelines.decisions import Carried, Experiment, carried_out, decided, experiment, numbers, unfollowed
from pipelines.inbox import drained
from serving.prediction_log import LOG_SCHEMA
from training.dataset import JUST_AFTER, LABELLERS, Rows, labelled_rows
from training.drift import RateChange, Shift, category_shift, rate_change, shift
from training.evaluation import Evaluation, evaluate
from training.labels import if_mature

MOST_ROWS = 100_000
"""Judged of a model; of more, whole subscribers are sampled by a stable hash."""
DRIFT_ROWS = 2_000
"""Of each side whose features are derived again."""
LEAST_ROWS = 50
"""Fewer outcomes are not judged."""
WEEK_RESAMPLES = 100
RECENT = timedelta(days=7)
NAMED = 10
CALIBRATION_LIMIT = 0.05
CALIBRATION_SHARE = 0.25
"""Probabilities no longer hold when their error is surely above 0.05, or a quarter of the rarer outcome's rate where that
is less."""
LEAST_CASES = 20.0
"""Of the rarer outcome, foretold or observed."""
PERSONAL = ("ok", "stale", "partial")
LEAST_FRESH = 0.5
"""Of the last week's answers to people who consent, as many rest on fresh data of their own."""

WISHED = pa.schema([pa.field("exploit_probability", pa.float64()), pa.field("default_probability", pa.float64())])
"""Read where the log has them: what the model said of the moments it did not choose."""
READ_SCHEMA = pa.schema([*LOG_SCHEMA, *(column for column in WISHED if column.name not in LOG_SCHEMA.names)])
COLUMNS = (
    *("subscriber_id", "campaign_id", "scored_at", "status", "state_as_of", "model_version", "probability"),
    *("default_send_at", "send_at", "arm", "propensity", "exploit_probability", "default_probability"),
)

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class NoPredictions(ScoringError):
    """Nobody was ever answered, so there is nothing to watch."""

    code = "no_predictions"

    def __init__(self, model: str = "") -> None:
        self.model = model
        of = f" of {model}" if model else ""
        super().__init__(
            f"There is no prediction{of} in the log yet. The service writes one row per subscriber and model it answers: "
            "start it with `inbox serve`, ask it for scores, and it is there within a minute."
        )


@dataclass(frozen=True)
class MovedFeature:
    """A feature and how far it is from where it was."""

    name: str
    shift: Shift


@dataclass(frozen=True)
class Drift:
    """Then and now. ``now`` is the last week of the version in service; a side that cannot be had is None.

    ``learnt``: scores against those the version was judged on when trained, people it was made for only. ``first_week``:
    against what was served in the log's first week. ``features`` moved most, of ``compared``, against the rows that could be
    learnt from when the version was first used; ``base_rate`` likewise.
    """

    learnt: Shift | None = None
    first_week: Shift | None = None
    features: tuple[MovedFeature, ...] = ()
    compared: int = 0
    base_rate: RateChange | None = None


@dataclass(frozen=True)
class Week:
    """Predictions of one week (from Monday 00:00 UTC) whose outcome is known."""

    begins: datetime
    versions: tuple[str, ...]
    predicted: float
    ours: Evaluation


@dataclass(frozen=True)
class Outcomes:
    """Predictions held against what happened. ``probability`` and ``label`` are of the judged rows."""

    judged: int
    waiting: int
    """Whose horizon is not over."""
    ineligible: int
    """Asked about somebody the model's question is not about."""
    predicted: float = float("nan")
    ours: Evaluation | None = None
    weeks: tuple[Week, ...] = ()
    probability: Array = field(default_factory=lambda: np.empty(0), repr=False)
    label: Array = field(default_factory=lambda: np.empty(0), repr=False)


@dataclass(frozen=True)
class Watched:
    """All there is to say of one model."""

    model: str
    version: str
    """That answered last."""
    versions: Mapping[str, int]
    predictions: int
    subscribers: int
    first: datetime
    last: datetime
    statuses: Mapping[str, float]
    recent_statuses: Mapping[str, float]
    promised: Mapping[str, float]
    """What its test said when it was trained."""
    drift: Drift
    outcomes: Outcomes
    experiment: Experiment | None = None
    alarms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Monitored:
    """Findings of one run, as of the event log's end. ``silent`` models have never answered."""

    as_of: datetime
    title: str
    simulated: bool
    watched: tuple[Watched, ...]
    silent: tuple[str, ...]

    @property
    def alarms(self) -> list[str]:
        """What a person has to look at."""
        return [f"{one.model}: {words}" for one in self.watched for words in one.alarms]


@dataclass(frozen=True)
class _Said:
    """What a model said, once per question. One element per row in all arrays; moments in microseconds since 1970 UTC."""

    subscriber_id: pa.Array
    as_of: Array
    stored_as_of: Array
    probability: Array
    version: npt.NDArray[np.str_]
    label: Array
    """NaN while it is not known."""

    def __len__(self) -> int:
        return len(self.as_of)

    def take(self, positions: npt.NDArray[np.int64]) -> _Said:
        return _Said(
            self.subscriber_id.take(pa.array(positions)),
            *(getattr(self, name)[positions] for name in ("as_of", "stored_as_of", "probability", "version", "label")),
        )

    @property
    def people(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.subscriber_id.dictionary_encode().indices.to_numpy(), dtype=np.int64)


@dataclass(frozen=True)
class _Watch:
    """One run's view of the event log."""

    home: Home
    folder: Folder
    start: datetime
    end: datetime

    @property
    def known_until(self) -> datetime:
        return self.end + JUST_AFTER


def monitor(home: Home, models: Sequence[str]) -> Monitored:
    """Watch each asked model.

    Raises
    ------
    NoPredictions
        When none of them was ever asked.
    EmptyLog, UnreadableFile
    """
    logged = {model: read_predictions(home, model) for model in models}
    if not any(table.num_rows for table in logged.values()):
        raise NoPredictions(models[0] if len(models) == 1 else "")
    drained(home)
    log = EventLog(home)
    watch = _Watch(home, Folder(log.connect(), Catalogue.known(home.catalogue)), log.start(), log.end())
    about = about_home(home)
    return Monitored(
        as_of=watch.end,
        title=about.title,
        simulated=about.simulated,
        watched=tuple(_watched(watch, SPECS[model], table) for model, table in logged.items() if table.num_rows),
        silent=tuple(model for model, table in logged.items() if not table.num_rows),
    )


def current_experiment(home: Home, folder: Folder, end: datetime) -> Experiment | None:
    """Of all that is watched only what deciding moments is worth; None where none was ever chosen.

    Parameters
    ----------
    end
        Of the log.

    Raises
    ------
    UnreadableFile
    """
    decisions = decided(read_predictions(home, "send_time"))
    if not decisions.num_rows:
        return None
    bundle, _ = _bundle(home, "send_time", str(decisions["model_version"][-1].as_py()))
    spec = replace(SPECS["send_time"], horizon=_horizon(home, SPECS["send_time"], bundle))
    carried = carried_out(decisions, folder, spec, end + JUST_AFTER)
    return experiment(decisions, carried, folder, spec, end)


def read_predictions(home: Home, model: str) -> pa.Table:
    """What was logged of one model, in order of time. Files being written are not looked at.

    Raises
    ------
    UnreadableFile
    """
    files = [str(path) for path in sorted(home.predictions.glob("*.parquet"))]
    if not files:
        return READ_SCHEMA.empty_table().select(COLUMNS)
    try:
        whole = ds.dataset(files, schema=READ_SCHEMA, format="parquet")
        table = whole.to_table(columns=list(COLUMNS), filter=ds.field("model") == model)
    except (OSError, pa.ArrowException) as error:
        raise UnreadableFile(home.predictions, f"a file of the prediction log is damaged ({error})") from error
    return table.sort_by([("scored_at", "ascending"), ("subscriber_id", "ascending")])


def _watched(watch: _Watch, spec: ModelSpec, table: pa.Table) -> Watched:
    version = str(table["model_version"][-1].as_py())
    bundle, notes = _bundle(watch.home, spec.name, version)
    spec = replace(spec, horizon=_horizon(watch.home, spec, bundle))
    recent = table.filter(pc.greater(table["scored_at"], pc.subtract(pc.max(table["scored_at"]), RECENT)))
    bare = Watched(
        model=spec.name,
        version=version,
        versions=_counts(table["model_version"]),
        predictions=table.num_rows,
        subscribers=pc.count_distinct(table["subscriber_id"]).as_py(),
        first=table["scored_at"][0].as_py(),
        last=table["scored_at"][-1].as_py(),
        statuses=_shares(table["status"]),
        recent_statuses=_shares(recent["status"]),
        promised=_promised(bundle),
        drift=Drift(),
        outcomes=Outcomes(0, 0, 0),
        notes=tuple(notes),
    )
    personal = table.filter(pc.is_in(table["status"], pa.array(PERSONAL)))
    found = _send_time(watch, spec, table, personal) if spec.name == "send_time" else _asked(watch, spec, personal)
    drift = _drift(watch, spec, bundle, found, version)
    seen = replace(bare, drift=drift, outcomes=found.outcomes, experiment=found.experiment)
    return replace(seen, alarms=tuple(_alarms(seen)), notes=(*seen.notes, *_notes(seen)))


@dataclass(frozen=True)
class _Found:
    """``said``: all questions a person's own data answered; ``meant``: of them those the model was made and judged for."""

    said: _Said
    meant: _Said
    outcomes: Outcomes
    experiment: Experiment | None = None


def _asked(watch: _Watch, spec: ModelSpec, personal: pa.Table) -> _Found:
    """Churn and leads: everybody's first score of each day, held against the label of that moment."""
    said = _sampled(_once_a_day(personal))
    if not len(said):
        return _Found(said, said, Outcomes(0, 0, 0))
    labels = LABELLERS[spec.name](watch.folder, Spine(said.subscriber_id, said.as_of), spec, watch.known_until)
    meant = said.take(labels.row)
    meant = replace(meant, label=if_mature(labels.label, meant.as_of, spec.horizon, watch.known_until))
    return _Found(said, meant, _outcomes(meant, ineligible=len(said) - len(meant)))


def _send_time(watch: _Watch, spec: ModelSpec, table: pa.Table, personal: pa.Table) -> _Found:
    """Sends that follow a decision; a model is judged at the default of those held out, as it was when trained."""
    decisions = decided(table)
    own = decided(personal)
    said, held = _of_decisions(own), _of_decisions(own.filter(pc.equal(own["arm"], "holdout")))
    if not decisions.num_rows:
        return _Found(said, held, Outcomes(0, 0, 0))
    carried = carried_out(decisions, watch.folder, spec, watch.known_until)
    told = _of_sends(carried.take(carried.personal))
    return _Found(said, held, _outcomes(told, 0), experiment(decisions, carried, watch.folder, spec, watch.end))


def _once_a_day(personal: pa.Table) -> _Said:
    """A renderer may ask about somebody many times a day: the first answer counts."""
    said = _said(personal)
    day = np.floor(said.as_of / MICROSECONDS_PER_DAY)
    order = np.lexsort((said.as_of, day, said.people))
    who, when = said.people[order], day[order]
    first = np.append(True, (who[1:] != who[:-1]) | (when[1:] != when[:-1]))[: len(said)]
    return said.take(np.sort(order[first]))


def _said(table: pa.Table) -> _Said:
    scored_at, state_as_of = numbers(table, "scored_at"), numbers(table, "state_as_of")
    return _Said(
        subscriber_id=table["subscriber_id"].combine_chunks(),
        as_of=scored_at,
        stored_as_of=np.where(np.isfinite(state_as_of), state_as_of, scored_at),
        probability=numbers(table, "probability"),
        version=np.array(table["model_version"].to_pylist(), dtype=np.str_),
        label=np.full(table.num_rows, np.nan),
    )


def _of_decisions(decisions: pa.Table) -> _Said:
    return _sampled(_said(decisions))


def _of_sends(carried: Carried) -> _Said:
    return _sampled(
        _Said(
            carried.subscriber_id,
            carried.sent_at,
            carried.scored_at,
            carried.probability,
            carried.version,
            carried.outcome,
        )
    )


def _sampled(said: _Said) -> _Said:
    """Whole subscribers are kept or left."""
    if len(said) <= MOST_ROWS:
        return said
    words = said.subscriber_id.dictionary_encode()
    hashed = np.array([crc32(str(one).encode()) for one in words.dictionary.to_pylist()]) / 2**32
    return said.take(np.flatnonzero(hashed[words.indices.to_numpy()] < MOST_ROWS / len(said)))


# --- outcomes


def _outcomes(said: _Said, ineligible: int) -> Outcomes:
    known = np.flatnonzero(np.isfinite(said.label))
    counted = Outcomes(len(known), len(said) - len(known), ineligible)
    if len(known) < LEAST_ROWS:
        return counted
    judged = said.take(known)
    return replace(
        counted,
        predicted=float(judged.probability.mean()),
        ours=evaluate(judged.probability, judged.label, judged.people),
        weeks=_weeks(judged),
        probability=judged.probability,
        label=judged.label,
    )


def _weeks(judged: _Said) -> tuple[Week, ...]:
    number = np.floor((judged.as_of / MICROSECONDS_PER_HOUR + HOURS_TO_FIRST_MONDAY) / HOURS_OF_WEEK).astype(np.int64)
    weeks = [(int(week), judged.take(np.flatnonzero(number == week))) for week in np.unique(number)]
    return tuple(_week(week, those) for week, those in weeks if len(those) >= LEAST_ROWS)


def _week(number: int, those: _Said) -> Week:
    return Week(
        begins=instant((number * HOURS_OF_WEEK - HOURS_TO_FIRST_MONDAY) * MICROSECONDS_PER_HOUR),
        versions=tuple(sorted({str(version) for version in those.version})),
        predicted=float(those.probability.mean()),
        ours=evaluate(those.probability, those.label, those.people, resamples=WEEK_RESAMPLES),
    )


# --- drift


def _drift(watch: _Watch, spec: ModelSpec, bundle: Bundle | None, found: _Found, version: str) -> Drift:
    ours = found.meant.take(np.flatnonzero(found.meant.version == version))
    now, everybody = _last_week(ours), found.said
    drift = Drift(learnt=_from_learnt(bundle, now), first_week=_from_first_week(everybody))
    if bundle is None or not len(now):
        return drift
    try:
        # The service may have answered after the last event was taken in.
        until = min(instant(float(ours.as_of.min())), watch.known_until)
        then = labelled_rows(spec, watch.folder, watch.start, until)
    except DatasetError:
        # The log begins when the service did: nothing from before is known.
        return drift
    moved = _moved(_features_of_rows(watch, bundle, then), _features_of_said(watch, bundle, now))
    strongest = sorted(moved, key=lambda one: (-one.shift.psi, one.name))
    return replace(
        drift,
        features=tuple(one for one in strongest if one.shift.word != "steady")[:NAMED],
        compared=len(moved),
        base_rate=_base_rate(then, found.outcomes),
    )


def _last_week(said: _Said) -> _Said:
    if not len(said):
        return said
    return said.take(np.flatnonzero(said.as_of > said.as_of.max() - _us(RECENT)))


def _from_learnt(bundle: Bundle | None, now: _Said) -> Shift | None:
    quantiles = bundle.parameters.get("quantiles") if bundle else None
    if bundle is None or not quantiles or not len(now):
        return None
    rows = int(bundle.metrics.get("test_rows") or len(quantiles))
    return shift(quantiles, now.probability, reference_rows=rows)


def _from_first_week(said: _Said) -> Shift | None:
    """None while the log is not two weeks long."""
    if not len(said) or said.as_of.max() - said.as_of.min() < 2 * _us(RECENT):
        return None
    first = said.as_of < said.as_of.min() + _us(RECENT)
    return shift(said.probability[first], _last_week(said).probability)


def _features_of_rows(watch: _Watch, bundle: Bundle, rows: Rows) -> Features:
    rows = rows.take(_thinned(len(rows)))
    return derive(watch.folder.fold(rows.stored), rows.as_of, bundle.catalogue)


def _features_of_said(watch: _Watch, bundle: Bundle, said: _Said) -> Features:
    """What serving read then: the state as old as it was, seen from the moment of the score."""
    said = said.take(_thinned(len(said)))
    return derive(watch.folder.fold(Spine(said.subscriber_id, said.stored_as_of)), said.as_of, bundle.catalogue)


def _thinned(rows: int) -> npt.NDArray[np.int64]:
    """Evenly spread positions, all of them where there are few."""
    return np.unique(np.linspace(0, rows - 1, min(rows, DRIFT_ROWS)).astype(np.int64))


def _moved(then: Features, now: Features) -> list[MovedFeature]:
    compare = {name: category_shift if name in then.categorical else shift for name in then.names}
    return [MovedFeature(name, compare[name](then.column(name), now.column(name))) for name in then.names]


def _base_rate(then: Rows, outcomes: Outcomes) -> RateChange | None:
    return rate_change(then.label, outcomes.label) if outcomes.ours is not None else None


# --- what it amounts to


def _alarms(seen: Watched) -> list[str]:
    shifts = {
        "those it was judged on": seen.drift.learnt,
        "those of the log's first week": seen.drift.first_week,
    }
    words = [
        f"scores shifted against {whom} (PSI {moved.psi:.2f})"
        for whom, moved in shifts.items()
        if moved is not None and moved.word == "shifted"
    ]
    ours = seen.outcomes.ours
    if ours is not None and calibration_gone(seen.outcomes):
        words.append(
            f"probabilities no longer come true: {seen.outcomes.predicted:.3f} foretold, {ours.base_rate:.3f} observed, "
            f"calibration error {ours.expected_calibration_error.value:.3f}"
        )
    if seen.experiment is not None and seen.experiment.surely_worse:
        words.append("sending at the decided moments is answered less than sending at the default, beyond doubt")
    return [*words, *_not_fresh(seen.recent_statuses)]


def _not_fresh(statuses: Mapping[str, float]) -> list[str]:
    """A service whose store is empty or old answers all the same, and says so only here."""
    asked = 1 - statuses.get("no_consent", 0.0)
    fresh = statuses.get("ok", 0.0)
    if asked <= 1e-9 or fresh >= LEAST_FRESH * asked:
        return []
    rest = ", ".join(
        f"{share / asked:.0%} {name}" for name, share in statuses.items() if name not in ("ok", "no_consent")
    )
    return [
        f"only {fresh / asked:.0%} of the last week's answers were personal and fresh ({rest}): fill the store with "
        "`inbox materialize`, and see with `inbox doctor` what is missing"
    ]


def calibration_gone(outcomes: Outcomes) -> bool:
    """Whether the calibration error is surely too large; see ``CALIBRATION_LIMIT``. Never on a handful of cases."""
    if outcomes.ours is None:
        return False
    # Foretold or observed: of outcomes that no longer occur there is nothing left to count.
    rarer = max(min(rate, 1 - rate) for rate in (outcomes.ours.base_rate, outcomes.predicted))
    surely = outcomes.ours.expected_calibration_error.low > min(CALIBRATION_LIMIT, CALIBRATION_SHARE * rarer)
    return surely and rarer * outcomes.judged >= LEAST_CASES


def _notes(seen: Watched) -> list[str]:
    words = []
    if seen.outcomes.ours is None:
        words.append(
            f"{seen.outcomes.judged:,} predictions have an outcome yet ({seen.outcomes.waiting:,} wait for theirs); "
            f"{LEAST_ROWS} are judged at the least"
        )
    if seen.experiment is not None:
        missed = unfollowed(seen.experiment.followed)
        if missed:
            words.append(f"fewer than half of the decisions were followed by a send ({', '.join(missed)})")
        for name, policy in (("exploiting", seen.experiment.exploit), ("the default", seen.experiment.default)):
            if policy.warning:
                words.append(f"{name} off-policy: {policy.warning}")
        if not seen.experiment.lift.balance.balanced:
            words.append("arms were not sent to on the same weekdays; read the lift within weekdays")
    return words


def _bundle(home: Home, model: str, version: str) -> tuple[Bundle | None, list[str]]:
    directory = home.bundles / model / version
    if not directory.is_dir():
        return None, [f"the bundle of version {version} is not here, so nothing is held against what it learnt"]
    try:
        return load(directory, bundle_key(home)), []
    except BundleCorrupt as error:
        return None, [str(error)]


def _horizon(home: Home, spec: ModelSpec, bundle: Bundle | None) -> timedelta:
    """The label's, as the version that answered last was trained with."""
    days = bundle.parameters.get("horizon_days") if bundle else None
    return timedelta(days=days) if days else about_home(home).horizon(spec.name) or spec.horizon


def _promised(bundle: Bundle | None) -> dict[str, float]:
    metrics = bundle.metrics if bundle else {}
    names = ("test_auc", "test_log_loss", "test_expected_calibration_error", "test_base_rate")
    return {name.removeprefix("test_"): metrics[name] for name in names if metrics.get(name) is not None}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(one["values"]): one["counts"] for one in pc.value_counts(column).to_pylist()}


def _shares(column: pa.ChunkedArray) -> dict[str, float]:
    counts = _counts(column)
    return {word: counts[word] / len(column) for word in sorted(counts, key=lambda word: (-counts[word], word))}


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
