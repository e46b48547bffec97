"""Fitting one model: refuse what cannot be learnt, find when to stop, learn from all rows, calibrate, judge on later ones.

What enters: a ``Dataset`` and a spec. What leaves: a ``Fitted`` model with its ``Judgement`` beside the simplest baseline.
The promise: the test rows decide nothing, and the same dataset gives the same model bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import TypeAdapter

from features.derive import Features
from features.errors import LeakingFeature, MissingLabels, NoMatureLabels, SingleClass, TooFewPositives
from features.state import MICROSECONDS_PER_DAY
from models.calibration import Calibration, choose, identity, levelled
from models.level import Level
from models.ranking import percentile, reference
from models.spec import ModelSpec
from models.timing import Timing
from training.baselines import fit_baseline
from training.dataset import Dataset
from training.evaluation import Band, Comparison, Evaluation, auc, compare, evaluate, score_bands
from training.level import FOLDS, Course, carried, learn_habits, left_out
from training.shapes import learn_shapes, offsets
from training.splits import Positions, Split, fold_of, split
from training.walk import blocks, chosen_memory

LEAST_POSITIVES = 30
"""Of the rarer class, in the training slice: fewer, and anything learnt would be noise."""
LEAST_POSITIVES_LATER = 10
LEVEL_SPREAD = 0.1
"""How far the level of the probabilities is believed to move between the rows learnt from and those asked, in log-odds."""
LEAST_ROUNDS = 60
"""Where later rows contradict the earlier ones they say to stop at once; what is learnt from both says something still."""
LEAK_AUC = 0.98
"""A single feature that ranks this well was filled in after the fact."""
SEGMENT_STRENGTH = 100.0
"""A segment's own mean counts as much as everybody's once it has so many rows."""

Array = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


JUDGEMENT = "judgement.json"
"""With a run: how the model did on later rows, for ``read_judgement``."""


@dataclass(frozen=True)
class Judgement:
    """Quality on the test slice, the baseline's on the same rows, and the paired differences."""

    ours: Evaluation
    baseline: Evaluation
    baseline_name: str
    gain: Comparison
    bands: tuple[Band, ...] = ()
    """By the score (0–100) these rows would have been given; empty where their labels do not tell of a whole horizon."""

    def to_json(self) -> bytes:
        """For ``read_judgement``; NaN becomes null."""
        return orjson.dumps(self, option=orjson.OPT_INDENT_2)

    def metrics(self) -> dict[str, float]:
        """Flat names for a run: ``test_auc``, ``baseline_auc``, ``test_auc_gain`` and so on."""
        return {**self.ours.metrics("test"), **self.baseline.metrics("baseline"), **self.gain.metrics("test")}


def read_judgement(content: bytes) -> Judgement | None:
    """What ``Judgement.to_json`` wrote; None where it is something else."""
    try:
        return TypeAdapter(Judgement).validate_python(_numbers(orjson.loads(content)))
    except (ValueError, TypeError):
        return None


def _numbers(written: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(written, dict):
        return {name: _numbers(value) for name, value in written.items()}
    if isinstance(written, list):
        return [_numbers(value) for value in written]
    return float("nan") if written is None else written


@dataclass(frozen=True)
class Fitted:
    """A fitted model. ``timing`` and offsets exist for send time only."""

    spec: ModelSpec
    level: Level
    calibration: Calibration
    quantiles: list[float]
    prior: float
    prior_by_content: Mapping[str, float]
    """The same among those who care most for a content category."""
    features: tuple[str, ...]
    history: Mapping[str, Sequence[float]]
    best_iteration: int
    importance: Mapping[str, float]
    split: Split
    probability: Array
    """Calibrated, for every row of the dataset. Of those learnt from, by a level that never saw their subscriber; of sends, by
    trees that saw the earlier rows alone for the later ones, and by the level itself for the earlier.
    """
    judgement: Judgement | None
    golden: Array
    timing: Timing | None = None


def fit(
    data: Dataset,
    spec: ModelSpec,
    with_test: bool = True,
    allowed: Sequence[str] = (),
    progress: Progress | None = None,
) -> Fitted:
    """Fit and judge one model.

    Parameters
    ----------
    with_test
        False when the model is judged elsewhere, on rows that are not in ``data``.
    allowed
        Features that may know the answer on their own.

    Raises
    ------
    MissingLabels, SingleClass, TooFewPositives, LeakingFeature, NoMatureLabels
        When training refuses.
    """
    rows, horizon = data.rows, data.rows.horizon or spec.horizon
    refuse_labels(spec.name, rows.label)
    cut = split(spec.name, rows.as_of, horizon, rows.subscriber_id, with_test)
    refuse_slice(spec.name, rows.label[cut.train], LEAST_POSITIVES)
    refuse_slice(spec.name, rows.label[cut.validation], LEAST_POSITIVES_LATER)
    features = _readable(data.features, spec)
    refuse_leaks(spec.name, features, cut.train, rows.label, allowed)
    made = _learn(data, features, spec, cut, horizon, progress)
    probability = made.calibration(made.raw)
    judged = cut.test if len(cut.test) else cut.validation
    served = probability if rows.offset is None else made.calibration(made.raw - rows.offset)
    # Labels that do not tell of a whole horizon say too little of how many.
    whole = rows.offset is None and horizon == spec.horizon
    outcome = rows.label if whole else served
    return Fitted(
        spec=spec,
        level=made.level,
        calibration=made.calibration,
        quantiles=reference(served[judged]),
        prior=float(outcome[judged].mean()),
        prior_by_content=_prior_by_content(data.features, outcome, judged),
        features=features.names,
        history=made.history,
        best_iteration=made.rounds,
        importance=made.level.booster.gain_importance(),
        split=cut,
        probability=probability,
        judgement=_judge(data, spec, cut, probability, served if whole else None) if len(cut.test) else None,
        golden=features.matrix[judged[:: max(1, len(judged) // 32)][:32]],
        timing=made.timing,
    )


@dataclass(frozen=True)
class _Learnt:
    level: Level
    calibration: Calibration
    raw: Array
    """Of every row, offsets included."""
    history: Mapping[str, Sequence[float]]
    rounds: int
    timing: Timing | None


def _learn(
    data: Dataset, features: Features, spec: ModelSpec, cut: Split, horizon: timedelta, progress: Progress | None
) -> _Learnt:
    """Stop where later rows say, learn again from all rows that may be learnt from, calibrate.

    Weighed: keeping what was learnt from the earlier part. Learning again takes X Education's AUC of later rows from .858 to
    .867 (three cuts of time), Activate Good's opens from .854 to .864.
    """
    rows, learnt = data.rows, cut.development
    timing = learn_shapes(data, cut.train) if spec.as_of_policy == "sent" else None
    offset = rows.offset if timing is None else offsets(data, timing)
    habits = learn_habits(spec, _some(features, learnt), rows.people[learnt], horizon)
    if horizon < spec.horizon and habits.silence is None:
        span = (rows.as_of[-1] - rows.as_of[0]) / MICROSECONDS_PER_DAY + horizon / timedelta(days=1)
        raise NoMatureLabels(spec.name, spec.horizon / timedelta(days=1), span)
    course = Course(spec, habits, tuple(name for name in features.categorical if name in features.names))
    examples = course.examples(features, rows.label, rows.as_of, offset, learnt)
    trained = course.trees(examples.take(cut.train), spec.rounds, examples.take(cut.validation), progress)
    rounds = min(max(trained.best_iteration, LEAST_ROUNDS), spec.rounds)
    walk = blocks(rows.as_of[learnt], rows.label[learnt], horizon) if spec.walks else []
    if walk:
        memory, newest = chosen_memory(course, examples.take(learnt), rows.as_of[learnt], walk, rounds)
        course = replace(course, spec=replace(spec, memory=memory))
        examples = course.examples(features, rows.label, rows.as_of, offset, learnt)
    level = course.level(examples.take(learnt), rounds)
    raw = level.scores(examples.matrix) + examples.start
    if timing is None:
        raw[learnt] = left_out(course, examples.take(learnt), rounds, fold_of(rows.subscriber_id, FOLDS)[learnt])
    else:
        later = examples.take(cut.validation)
        raw[cut.validation] = trained.booster.raw(later.matrix) + trained.start + later.start
    calibration = _calibration(raw[learnt], rows.label[learnt], rows.people[learnt], timing)
    if walk:
        calibration = levelled(calibration, newest, rows.label[learnt][walk[-1].foretold], LEVEL_SPREAD)
    if horizon < spec.horizon:
        level, calibration, raw = carried(level, calibration, features.matrix, spec.horizon)
    return _Learnt(level, calibration, raw, trained.history, rounds, timing)


def _calibration(raw: Array, label: Array, people: Positions, timing: Timing | None) -> Calibration:
    """On people the level never saw.

    Send time's log-odds are believed as they are. Weighed on Activate Good's opens, three cuts of time: a sigmoid fitted to the
    later quarter before learning from all rows has a calibration error of .080 on still later ones, none .040.
    """
    return choose(raw, label, people) if timing is None else identity(raw, label)


def refuse_labels(model: str, label: Array) -> None:
    """Raise unless every label is 0 or 1 and both occur."""
    missing = int(np.isnan(label).sum())
    if missing:
        raise MissingLabels(model, missing, len(label))
    if len(np.unique(label)) < 2:
        raise SingleClass(model, int(label[0]), len(label))


def refuse_slice(model: str, label: Array, needed: int) -> None:
    """Raise unless a slice holds enough of the rarer class."""
    rarer = int(min(label.sum(), len(label) - label.sum()))
    if rarer < needed:
        raise TooFewPositives(model, rarer, needed, len(label))


def refuse_leaks(model: str, features: Features, rows: Positions, label: Array, allowed: Sequence[str] = ()) -> None:
    """Raise when one feature alone, or whether it is filled in at all, tells the answer."""
    for i, name in enumerate(features.names):
        values = features.matrix[rows, i]
        for tells in (np.nan_to_num(values, nan=np.nanmin(values, initial=0.0) - 1), np.isnan(values).astype(float)):
            ranks = auc(tells, label[rows])
            if max(ranks, 1 - ranks) >= LEAK_AUC and name not in allowed:
                raise LeakingFeature(model, name, max(ranks, 1 - ranks))


def _readable(features: Features, spec: ModelSpec) -> Features:
    kept = [i for i, name in enumerate(features.names) if name not in spec.excluded]
    names = tuple(features.names[i] for i in kept)
    return Features(names, features.categorical, features.matrix[:, kept])


def _some(features: Features, rows: Positions) -> Features:
    return Features(features.names, features.categorical, features.matrix[rows])


def _bands(served: Array, label: Array, people: Positions) -> tuple[Band, ...]:
    return score_bands(percentile(served, reference(served)), label, people)


def _judge(data: Dataset, spec: ModelSpec, cut: Split, probability: Array, served: Array | None) -> Judgement:
    """``served`` is what these rows would have been told; None where labels do not tell of a whole horizon."""
    label, people, learnt = data.rows.label[cut.test], data.rows.people[cut.test], cut.development
    values = data.features.column(spec.baseline)
    simplest = fit_baseline(values[learnt], data.rows.label[learnt])(values[cut.test])
    ours = probability[cut.test]
    return Judgement(
        ours=evaluate(ours, label, people),
        baseline=evaluate(simplest, label, people),
        baseline_name=spec.baseline,
        gain=compare(ours, simplest, label, people),
        bands=() if served is None else _bands(served[cut.test], label, people),
    )


def _prior_by_content(features: Features, outcome: Array, rows: Positions) -> dict[str, float]:
    """Mean outcome by the content category somebody engages with most, shrunk towards everybody's."""
    top, everybody = features.column("affinity_top")[rows], float(outcome[rows].mean())
    slots = {name[len("affinity_[") : -1]: slot for slot, name in enumerate(_categories(features), start=1)}
    return {word: _shrunk(outcome[rows][top == slot], everybody) for word, slot in slots.items()}


def _categories(features: Features) -> list[str]:
    return [name for name in features.names if name.startswith("affinity_[")]


def _shrunk(label: Array, towards: float) -> float:
    return float((label.sum() + SEGMENT_STRENGTH * towards) / (len(label) + SEGMENT_STRENGTH))
