"""What a model fitted as of one moment said later, and how good that was.

What enters: a folded log, a spec, the moments to train until and to ask at. What leaves: every later question with the
probability the model gave it and, where it is known by now, the answer; and the judgement of all of them, beside named
baselines, by slice and by the model's age. The promise: a model reads nothing received at or after its origin, its scores
are made from the bundle that would have been served, and so are its baselines fitted on its training rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.clock import microseconds
from features.errors import NoMatureLabels
from features.fold import Folder
from features.state import MICROSECONDS_PER_DAY
from models.bundle import Bundle
from models.spec import ModelSpec
from training.baselines import fit_baselines
from training.dataset import Dataset, Rows, dataset, labelled_rows, questions
from training.evaluation import Comparison, Evaluation, compare, evaluate
from training.fit import Fitted, fit
from training.package import package_fitted
from training.shapes import offsets
from training.slices import LEAST_ROWS, Mask, memberships, telling

AGES = 8
"""The model's age is cut into at most so many spans."""
PART_RESAMPLES = 100
ROWS_AT_ONCE = 50_000
"""States and features of so many rows are held at a time, some 150 MB."""

Array = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Learnt:
    """A model trained until one moment, and what it learnt from."""

    train_until: datetime
    fitted: Fitted
    bundle: Bundle
    rows: Rows
    """States and features are let go: many origins would not fit in memory."""
    baselines: Mapping[str, Callable[[Dataset], Array]]
    """Fitted on the same training rows."""


@dataclass(frozen=True)
class Origin:
    """A trained model and what it was asked before the next one."""

    learnt: Learnt
    asked: Rows
    """Labels are NaN where the answer is not known yet."""
    probability: Array
    """Of each row asked."""
    baselines: Mapping[str, Array]
    """What each baseline said of the same rows."""
    slices: Mapping[str, Mask]
    """To which parts of the list the rows belong, see ``training.slices.memberships``."""

    @property
    def age_days(self) -> Array:
        """How old the model was at each row."""
        return (self.asked.as_of - microseconds(self.learnt.train_until)) / MICROSECONDS_PER_DAY


@dataclass(frozen=True)
class Rival:
    """A baseline on the same rows. ``gain`` is ours over it: above zero is better."""

    name: str
    evaluation: Evaluation
    gain: Comparison


@dataclass(frozen=True)
class Part:
    """Some of the rows: a slice, or those asked about when the model had a certain age."""

    name: str
    ours: Evaluation
    best_baseline: Evaluation
    """Of the baseline that is best on all rows."""
    predicted: float
    """Mean probability; compare ``ours.base_rate``."""


@dataclass(frozen=True)
class Judged:
    """How good everything that was asked came out. ``unknown`` rows had no answer by the log's end and count nowhere."""

    ours: Evaluation
    predicted: float
    trained_rate: float
    """Share of positives among the rows learnt from, to hold against ``ours.base_rate``."""
    rivals: tuple[Rival, ...]
    slices: tuple[Part, ...]
    by_age: tuple[Part, ...]
    unknown: int


def train_until(
    spec: ModelSpec,
    folder: Folder,
    start: datetime,
    until: datetime,
    known_until: datetime,
    progress: Progress | None = None,
) -> Learnt:
    """Fit on what was received and mature before a moment; nothing is held back for a test.

    Parameters
    ----------
    folder
        Under a catalogue learnt before ``until``.
    start, known_until
        Of the log. A horizon that ends after ``known_until`` is not over, however late ``until`` is.

    Raises
    ------
    DatasetError
        When training refuses.
    """
    rows = labelled_rows(spec, folder, start, min(until, known_until))
    data = dataset(rows, folder.fold(rows.stored), folder.catalogue)
    fitted = fit(data, spec, with_test=False, progress=progress)
    bundle = package_fitted(fitted, folder.catalogue, "backtest", until)
    return Learnt(until, fitted, bundle, rows, fit_baselines(spec, data, fitted.split.development))


def ask(learnt: Learnt, folder: Folder, instants: Sequence[datetime], until: datetime, known_until: datetime) -> Origin:
    """Score what is asked between a model's training and a later moment.

    Parameters
    ----------
    instants
        When everybody is asked about, see ``training.dataset.questions``.
    known_until
        Of the labels of what is asked.

    Raises
    ------
    NothingEligible
        When nobody is there to ask about.
    """
    rows = questions(learnt.fitted.spec, folder, instants, learnt.train_until, until, known_until)
    parts = [
        _said(learnt, dataset(part, folder.fold(part.stored), folder.catalogue))
        for part in (
            rows.take(np.arange(k, min(k + ROWS_AT_ONCE, len(rows)))) for k in range(0, len(rows), ROWS_AT_ONCE)
        )
    ]
    return Origin(
        learnt,
        rows,
        np.concatenate([part.probability for part in parts]),
        _in_one([part.baselines for part in parts], [len(part.asked) for part in parts], np.nan),
        _in_one([part.slices for part in parts], [len(part.asked) for part in parts], False),
    )


def _said(learnt: Learnt, data: Dataset) -> Origin:
    """Everything said of some rows; states and features are let go afterwards."""
    said = {name: baseline(data) for name, baseline in learnt.baselines.items()}
    return Origin(learnt, data.rows, scored(learnt.fitted, learnt.bundle, data), said, memberships(data))


def _in_one(parts: Sequence[Mapping[str, Any]], sizes: Sequence[int], otherwise: float | bool) -> dict[str, Any]:
    """Named columns of several parts, one after the other; where a part lacks one, it holds ``otherwise``."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate(
            [part.get(name, np.full(size, otherwise)) for part, size in zip(parts, sizes, strict=True)]
        )
        for name in names
    }


def stretches(begin: datetime, end: datetime, every: timedelta | None) -> list[tuple[datetime, datetime]]:
    """From one origin to the next, the last until ``end``; one stretch when the model is never trained again."""
    if every is None:
        return [(begin, end)]
    count = max(1, -((begin - end) // every))
    return [(begin + k * every, min(begin + (k + 1) * every, end)) for k in range(count)]


def scored(fitted: Fitted, bundle: Bundle, data: Dataset) -> Array:
    """The probability that serving gives each row; for a send, at its own hour."""
    columns = [data.features.names.index(name) for name in bundle.features]
    raw = bundle.raw(np.ascontiguousarray(data.features.matrix[:, columns]))
    if fitted.timing is not None:
        raw = raw + offsets(data, fitted.timing)
    return bundle.calibration(raw)


def judge(origins: Sequence[Origin]) -> Judged:
    """Judge what all origins said together.

    Raises
    ------
    NoMatureLabels
        When no answer is known by the log's end.
    """
    told = _Told.of(origins)
    if not len(told.label):
        raise _nothing_known(origins)
    ours = evaluate(told.probability, told.label, told.people)
    rivals = [
        Rival(name, evaluate(said, told.label, told.people), compare(told.probability, said, told.label, told.people))
        for name, said in told.baselines.items()
    ]
    best = min(rivals, key=lambda rival: rival.evaluation.log_loss.value)
    return Judged(
        ours=ours,
        predicted=float(told.probability.mean()),
        trained_rate=_rate_learnt(origins),
        rivals=tuple(rivals),
        slices=tuple(told.part(name, mask, best.name) for name, mask in told.slices.items()),
        by_age=tuple(told.part(name, mask, best.name) for name, mask in _by_age(told.age_days)),
        unknown=sum(len(one.asked) for one in origins) - len(told.label),
    )


def _rate_learnt(origins: Sequence[Origin]) -> float:
    """Share of positives a model learnt from, each origin counting as much as it was asked. Leads that are not finished count
    as much as they have told.
    """
    rates = []
    for one in origins:
        rows = one.learnt.rows
        told = len(rows) if rows.offset is None else float(np.exp(rows.offset).sum())
        rates.append(float(rows.label.sum()) / told)
    return float(np.average(rates, weights=[len(one.asked) for one in origins]))


@dataclass(frozen=True)
class _Told:
    """Rows of all origins whose answer is known."""

    probability: Array
    label: Array
    people: npt.NDArray[np.int64]
    age_days: Array
    baselines: Mapping[str, Array]
    slices: Mapping[str, npt.NDArray[np.bool_]]

    @staticmethod
    def of(origins: Sequence[Origin]) -> _Told:
        label = np.concatenate([one.asked.label for one in origins])
        known, sizes = np.isfinite(label), [len(one.asked) for one in origins]
        names = [name for name in origins[0].baselines if all(name in one.baselines for one in origins)]
        ids = pa.concat_arrays([one.asked.subscriber_id for one in origins]).dictionary_encode()
        masks = _in_one([one.slices for one in origins], sizes, False)
        return _Told(
            probability=np.concatenate([one.probability for one in origins])[known],
            label=label[known],
            people=np.asarray(ids.indices.to_numpy(), dtype=np.int64)[known],
            age_days=np.concatenate([one.age_days for one in origins])[known],
            baselines={name: np.concatenate([one.baselines[name] for one in origins])[known] for name in names},
            slices=telling({name: mask[known] for name, mask in masks.items()}),
        )

    def part(self, name: str, mask: npt.NDArray[np.bool_], best: str) -> Part:
        label, people = self.label[mask], self.people[mask]
        return Part(
            name,
            evaluate(self.probability[mask], label, people, resamples=PART_RESAMPLES),
            evaluate(self.baselines[best][mask], label, people, resamples=PART_RESAMPLES),
            float(self.probability[mask].mean()),
        )


def _by_age(age_days: Array) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Rows by the model's age: moment by moment where there are few, else in equal spans of whole days."""
    moments = np.unique(age_days)
    if len(moments) <= AGES:
        return [(f"{age:.0f} days", age_days == age) for age in moments]
    span = max(1.0, np.ceil((moments[-1] + 1e-9) / AGES))
    nth = np.floor(age_days / span)
    spans = [(f"{k * span:.0f} to {(k + 1) * span:.0f} days", nth == k) for k in np.unique(nth)]
    return [(name, mask) for name, mask in spans if mask.sum() >= LEAST_ROWS]


def _nothing_known(origins: Sequence[Origin]) -> NoMatureLabels:
    spec = origins[0].learnt.fitted.spec
    last = max(float(one.asked.as_of.max()) for one in origins)
    begin = microseconds(origins[0].learnt.train_until)
    return NoMatureLabels(spec.name, spec.horizon / timedelta(days=1), (last - begin) / MICROSECONDS_PER_DAY)
