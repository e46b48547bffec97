"""`inbox backtest`: what a model trained until one moment would have said later, judged by what happened.

What enters: files in the input contract, a model, a moment to train until, moments to ask at. What leaves: predictions, a
report for machines and one for people; for send time also everybody's week. The promise: the log is taken in as `ingest`
takes it, in a home of its own that is removed afterwards; nothing received at or after the moment reaches the training;
the probabilities come from the bundle that would have been served.

Weighed: whether to leave out rows whose answer is not known by the log's end. They are scored, with an empty label: who asks
for everybody's score gets it, and no metric counts them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.clock import instant, microseconds
from features.contract import HOURS_OF_WEEK, UTC_MICROSECONDS
from features.derive import derive
from features.errors import NoMatureLabels, NothingEligible, UnusableOption
from features.fold import Folder, Spine
from features.home import Home
from features.log import EventLog, IntakeReport
from features.vocabulary import learn
from models.bundle import Bundle
from models.spec import AsOfPolicy, ModelSpec, Response
from models.specs import SPECS
from models.timing import Timing, shape
from pipelines.about import About, about_files
from pipelines.console import Narrator, Share
from pipelines.files import replacing
from training.backtest import Judged, Learnt, Origin, ask, judge, stretches, train_until
from training.hours import FittedHours, fit_hours

JUST_AFTER = timedelta(microseconds=1)
"""The right edge is open: as of this long after the log's end its last event counts."""
WEEKS_AT_ONCE = 5_000
"""Subscribers whose 168 hours are worked out together."""
MAX_ORIGINS = 200


@dataclass(frozen=True)
class Files:
    """Where the log is."""

    events: Path
    subscribers: Path | None
    campaigns: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What is asked. Without ``test_as_of`` each newcomer when created, or each send. ``retrain_every`` None: trained once;
    else again and again, on everything mature by then.
    """

    spec: ModelSpec
    train_until: datetime
    test_as_of: tuple[datetime, ...]
    retrain_every: timedelta | None = None


@dataclass(frozen=True)
class Backtest:
    """Everything a backtest found. ``hours`` stands in for the rest where the log knows no sends."""

    plan: Plan
    about: About
    intake: IntakeReport
    origins: tuple[Origin, ...] = ()
    judged: Judged | None = None
    hours: FittedHours | None = None


def plan(
    model: str,
    train_until: datetime,
    test_as_of: Sequence[datetime] = (),
    *,
    activity_window: timedelta | None = None,
    horizon: timedelta | None = None,
    as_of_policy: AsOfPolicy | None = None,
    response: Response | None = None,
    retrain_every: timedelta | None = None,
) -> Plan:
    """Put what was asked in order.

    Raises
    ------
    UnusableOption
        When it does not fit together.
    """
    given: dict[str, Any] = {"activity_window": activity_window, "horizon": horizon, "response": response}
    spec = replace(SPECS[model], **{name: value for name, value in given.items() if value is not None})
    _refuse_policy(model, as_of_policy)
    instants = () if model == "send_time" or as_of_policy == "creation" else tuple(sorted(set(test_as_of)))
    if not instants and (model == "churn" or as_of_policy == "grid"):
        raise UnusableOption("--test-as-of", "say as of when to ask, like 2026-03-01,2026-06-01")
    if instants and instants[0] < train_until:
        raise UnusableOption(
            "--test-as-of", f"{instants[0]:%Y-%m-%d} is before --train-until: the model would know the answer"
        )
    return Plan(spec, train_until, instants, retrain_every)


def _refuse_policy(model: str, policy: AsOfPolicy | None) -> None:
    if model == "send_time" and policy is not None:
        raise UnusableOption("--as-of-policy", "send_time asks about sends as of each send; leave it out")
    if model == "churn" and policy == "creation":
        raise UnusableOption("--as-of-policy", "whoever was just created has not engaged yet; churn asks by grid")


def backtest(files: Files, asked: Plan, out: Path, narrator: Narrator) -> Backtest:
    """Run a plan over a log and write its predictions into a directory; see ``backtest_page.write_report`` for the rest.

    Raises
    ------
    EventError, DatasetError
        When the files cannot be read, training refuses, or nobody is there to ask about.
    """
    with tempfile.TemporaryDirectory(prefix="inbox-backtest-") as place:
        log, about = EventLog(Home(Path(place))), about_files(files.events)
        with narrator.step("read the log") as share:
            intake = log.append(files.events, files.subscribers, files.campaigns, share)
        if asked.train_until <= log.start():
            raise UnusableOption(
                "--train-until", f"the log begins {log.start():%Y-%m-%d %H:%M}; nothing was known before"
            )
        found = Backtest(asked, about, intake)
        if asked.spec.as_of_policy == "sent" and not _knows_sends(log, asked.train_until):
            return _hours_alone(found, log, out, narrator)
        origins = _origins(found, log, out, narrator)
    _write_table(out / "predictions.parquet", predictions(origins))
    with narrator.step("judge"):
        return replace(found, origins=tuple(origins), judged=_judged(origins))


def _judged(origins: Sequence[Origin]) -> Judged | None:
    """None where nothing was asked, or no answer is known by the log's end."""
    try:
        return judge(origins) if origins else None
    except NoMatureLabels:
        return None


def _origins(found: Backtest, log: EventLog, out: Path, narrator: Narrator) -> list[Origin]:
    """Train at each origin and ask what lies before the next one."""
    asked, known_until = found.plan, log.end() + JUST_AFTER
    origins = []
    for begin, end in _stretches(asked, max(known_until, _newest(log) + JUST_AFTER)):
        folder = folder_of(log, begin, found.about)
        with narrator.step(f"train until {begin:%Y-%m-%d}") as share:
            learnt = train_until(asked.spec, folder, log.start(), begin, known_until, partial(_part_of, share))
        if asked.spec.as_of_policy == "sent" and begin == asked.train_until:
            with narrator.step("everybody's week"):
                _write_table(out / "send_time.parquet", weeks(learnt.bundle, folder, begin))
        instants = [at for at in asked.test_as_of if begin <= at < end]
        with narrator.step(f"score until {end:%Y-%m-%d}"):
            origins += _answers(learnt, folder, instants, end, known_until)
        folder.con.disconnect()
    return origins


def _answers(
    learnt: Learnt, folder: Folder, instants: Sequence[datetime], until: datetime, known_until: datetime
) -> list[Origin]:
    """What is asked; a stretch without any send or newcomer is no error."""
    try:
        return [ask(learnt, folder, instants, until, known_until)]
    except NothingEligible:
        if instants:
            raise
        return []


def _knows_sends(log: EventLog, until: datetime) -> bool:
    """Whether any send was received before a moment."""
    con = log.connect()
    events = con.table("events")
    return bool(con.execute(((events.event_type == "sent") & (events.received_at < ibis.literal(until))).any()))


def _hours_alone(found: Backtest, log: EventLog, out: Path, narrator: Narrator) -> Backtest:
    """A log that knows no sends: hours of activity can be foretold, answers to sends cannot."""
    until = found.plan.train_until
    with narrator.step("hours of activity"):
        folder = folder_of(log, until, found.about)
        hours = fit_hours(folder, log.start(), until, log.end() + JUST_AFTER)
        _write_table(out / "send_time.parquet", attention(hours.timing, folder, until))
        _write_table(out / "predictions.parquet", predictions([]))
    return replace(found, hours=hours)


def _part_of(share: Share, done: int, rounds: int) -> None:
    share(done / rounds)


def folder_of(log: EventLog, until: datetime, about: About) -> Folder:
    """A log under the words that were known at a moment."""
    con = log.connect()
    return Folder(con, learn(con, until, Catalogue(timezones=(about.default_timezone,))))


def _newest(log: EventLog) -> datetime:
    """When the newest subscriber was created: it may be after the last event."""
    con = log.connect()
    newest: datetime = con.to_pyarrow(con.table("subscribers").created_at.max()).as_py()
    return newest


def _stretches(asked: Plan, until: datetime) -> list[tuple[datetime, datetime]]:
    end = max(until, asked.train_until + JUST_AFTER, *(at + JUST_AFTER for at in asked.test_as_of))
    found = stretches(asked.train_until, end, asked.retrain_every)
    if len(found) > MAX_ORIGINS:
        raise UnusableOption("--retrain-every", f"would train {len(found):,} models; give a longer time")
    if asked.test_as_of:
        found = [one for one in found if any(one[0] <= at < one[1] for at in asked.test_as_of)]
    return found


def predictions(origins: Sequence[Origin]) -> pa.Table:
    """Every row asked: whose, as of when, the probability, the label (null: not known by the log's end), for sends the
    event.
    """
    fields = [
        pa.field("subscriber_id", pa.string()),
        pa.field("as_of", UTC_MICROSECONDS),
        pa.field("probability", pa.float64()),
        pa.field("label", pa.int8()),
        pa.field("trained_until", UTC_MICROSECONDS),
        pa.field("event_id", pa.string()),
    ]
    parts = [_predictions(one) for one in origins]
    sends = not origins or origins[0].asked.event_id is not None
    schema = pa.schema(fields if sends else fields[:-1])
    return pa.concat_tables([part.cast(schema) for part in parts]) if parts else schema.empty_table()


def _predictions(one: Origin) -> pa.Table:
    rows = one.asked
    columns = {
        "subscriber_id": rows.subscriber_id.cast(pa.string()),
        "as_of": pa.array(rows.as_of.astype(np.int64), pa.int64()).cast(UTC_MICROSECONDS),
        "probability": pa.array(one.probability),
        "label": pa.array(rows.label, pa.float64(), from_pandas=True).cast(pa.int8()),
        "trained_until": pa.array([one.learnt.train_until] * len(rows), UTC_MICROSECONDS),
    }
    return pa.table(columns if rows.event_id is None else columns | {"event_id": rows.event_id.cast(pa.string())})


def weeks(bundle: Bundle, folder: Folder, at: datetime) -> pa.Table:
    """Everybody's 168 local hours as a send-time bundle sees them as of a moment. Who was not there yet has everybody's."""
    timing = Timing.from_parameters(bundle.parameters["timing"])
    return pa.concat_tables([_week(bundle, timing, folder, part, at) for part in _everybody(folder, at)])


def _week(bundle: Bundle, timing: Timing, folder: Folder, spine: Spine, at: datetime) -> pa.Table:
    states = folder.fold(spine)
    features = derive(states, float(microseconds(at)), folder.catalogue)
    columns = [features.names.index(name) for name in bundle.features]
    raw = bundle.raw(np.ascontiguousarray(features.matrix[:, columns]))
    probability = bundle.calibration(raw[:, None] + shape(states, timing).week().log_odds(timing))
    return _week_table(spine, states["timezone"], probability, folder.catalogue)


def attention(timing: Timing, folder: Folder, at: datetime) -> pa.Table:
    """Likewise without sends: each hour's share of a week of attention."""
    parts = []
    for spine in _everybody(folder, at):
        states = folder.fold(spine)
        hours = shape(states, timing).week()
        fares = np.exp(hours.pool + hours.person)
        shares = fares / fares.sum(axis=1, keepdims=True)
        parts.append(_week_table(spine, states["timezone"], shares, folder.catalogue))
    return pa.concat_tables(parts)


def _everybody(folder: Folder, at: datetime) -> Iterator[Spine]:
    people = folder.con.table("subscribers").select("subscriber_id").order_by("subscriber_id")
    ids = folder.con.to_pyarrow(people)["subscriber_id"].combine_chunks()
    return Spine(ids, np.full(len(ids), float(microseconds(at)))).chunks(WEEKS_AT_ONCE)


def _week_table(
    spine: Spine, timezone: npt.NDArray[np.float64], probability: npt.NDArray[np.float64], catalogue: Catalogue
) -> pa.Table:
    zones = pa.array(catalogue.timezones).take(pa.array(np.maximum(timezone, 0).astype(np.int64)))
    starts = pa.array(np.arange(len(spine) + 1, dtype=np.int32) * HOURS_OF_WEEK)
    return pa.table(
        {
            "subscriber_id": spine.subscriber_id.cast(pa.string()),
            "hour_of_week_local": pa.array(probability.argmax(axis=1).astype(np.int32)),
            "probabilities": pa.ListArray.from_arrays(starts, pa.array(probability.ravel())),
            "timezone": zones,
        }
    )


def described(found: Backtest) -> dict[str, Any]:
    """The report for machines. Intervals are 95 %, from a bootstrap over subscribers."""
    asked, intake = found.plan, found.intake
    words: dict[str, Any] = {
        "model": asked.spec.name,
        "list": {"name": found.about.name, "simulated": found.about.simulated},
        "spec": asked.spec.described(),
        "train_until": asked.train_until.isoformat(),
        "test_as_of": [at.isoformat() for at in asked.test_as_of],
        "retrain_every_days": None if asked.retrain_every is None else asked.retrain_every / timedelta(days=1),
        "intake": {"accepted": intake.accepted, "quarantined": intake.quarantined, "reasons": intake.reasons},
    }
    if found.hours is not None:
        return words | {"hours": found.hours.metrics()}
    return words | {"origins": [_origin_words(one) for one in found.origins], "judged": found.judged}


def _origin_words(one: Origin) -> dict[str, Any]:
    learnt, label = one.learnt, one.asked.label
    fitted, rows = learnt.fitted, learnt.rows
    known = label[np.isfinite(label)]
    return {
        "train_until": learnt.train_until.isoformat(),
        "rows_learnt": len(rows),
        "rate_learnt": float(rows.label.mean()),
        "newest_row_learnt": instant(rows.as_of.max()).isoformat(),
        "rows_asked": len(label),
        "rows_known": len(known),
        "rate_known": float(known.mean()) if len(known) else None,
        "predicted": float(one.probability.mean()),
        "trees": fitted.best_iteration,
        "calibration": fitted.calibration.to_json(),
        "importance": dict(list(fitted.importance.items())[:20]),
    }


def _write_table(path: Path, table: pa.Table) -> None:
    with replacing(path) as beside:
        pq.write_table(table, beside, compression="zstd")
