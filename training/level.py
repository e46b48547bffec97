"""Learning what scores: habits chosen, a line and trees fitted, their log-odds for people who were left out.

What enters: labelled rows, a spec, which rows to learn from and which are later. What leaves: a ``Level`` learnt from all of
them, how many rounds it took, and for every row the log-odds of a level that never saw its subscriber. The promise: nothing
but the rows given decides anything, and the same rows give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from features.derive import Features
from features.state import MICROSECONDS_PER_DAY
from models.boosting import Progress, Trained, train
from models.calibration import Calibration
from models.habits import HISTORY, Habits
from models.level import Level, widened
from models.linear import Linear, fit_linear
from models.silence import fit_silence
from models.spec import ModelSpec
from training.splits import Positions

Array = npt.NDArray[np.float64]

CALENDAR_SHARE = 0.4
"""A feature of which so much of the variance of ranks lies between instants tells the time rather than the person."""
FOLDS = 3
LARGEST_SHIFT = 10.0


@dataclass(frozen=True)
class Examples:
    """Rows to learn from: what line and trees read, labels, weights and what is added to the log-odds beforehand."""

    matrix: Array
    label: Array
    weight: Array
    offset: Array | None
    """None: nothing."""

    @property
    def start(self) -> Array:
        """What a row's log-odds begin with."""
        return np.zeros(len(self.label)) if self.offset is None else self.offset

    def take(self, rows: Positions) -> Examples:
        offset = None if self.offset is None else self.offset[rows]
        return Examples(self.matrix[rows], self.label[rows], self.weight[rows], offset)


@dataclass(frozen=True)
class Course:
    """How one model is learnt: everything but the rows."""

    spec: ModelSpec
    habits: Habits
    categorical: tuple[str, ...]

    def examples(
        self, features: Features, label: Array, as_of: Array, offset: Array | None, rows: Positions
    ) -> Examples:
        """All rows as this course reads them. What is not read, judged by ``rows``, is missing for everybody."""
        matrix = widened(self.habits, features.matrix).copy()
        matrix[:, unread(features, as_of, rows, self.habits)] = np.nan
        weight = np.zeros(len(label))
        weight[rows] = recency(as_of[rows], self.spec.memory)
        return Examples(matrix, label, weight, offset)

    @property
    def codes(self) -> list[int]:
        return [self.habits.features.index(name) for name in self.categorical]

    def line(self, examples: Examples) -> Linear:
        return fit_linear(
            examples.matrix,
            examples.label,
            codes=self.codes,
            weight=examples.weight,
            offset=examples.start,
            share=self.spec.line_share,
        )

    def trees(
        self,
        examples: Examples,
        rounds: int,
        validation: Examples | None = None,
        progress: Progress | None = None,
    ) -> Trained:
        return train(
            examples.matrix,
            examples.label,
            features=(*self.habits.features, *self.habits.speaks_for),
            categorical=self.categorical,
            validation=None if validation is None else (validation.matrix, validation.label, validation.offset),
            offset=examples.offset,
            weight=examples.weight,
            parameters=self.spec.parameters,
            rounds=rounds,
            patience=self.spec.patience,
            progress=progress,
        )

    def level(self, examples: Examples, rounds: int) -> Level:
        trained = self.trees(examples, rounds)
        return Level(self.habits, trained.booster, self.line(examples) if self.spec.line_share else None, trained.start)


def learn_habits(spec: ModelSpec, features: Features, people: npt.NDArray[np.int64], horizon: timedelta) -> Habits:
    """What to read besides the features. ``people`` are the rows' subscribers, rows in order of time."""
    if not spec.habits:
        return Habits(features.names)
    days = horizon / timedelta(days=1)
    if features.column("sent_count").max(initial=0) > 0:
        return Habits(features.names, "mails", days)
    # Each person as last seen.
    newest = np.unique(people[::-1], return_index=True)[1]
    count, hours, age = (features.column(name)[::-1][newest] for name in HISTORY)
    silence = fit_silence(count, age - hours / 24, age)
    return Habits(features.names) if silence is None else Habits(features.names, "silence", days, silence)


def unread(features: Features, as_of: Array, rows: Positions, habits: Habits) -> list[int]:
    """Positions of the features that habits tell better, or that among these rows tell the calendar."""
    if habits.kind == "none":
        return []
    replaced = [i for i, name in enumerate(features.names) if habits.replaces(name)]
    instants, nth = np.unique(as_of[rows], return_inverse=True)
    if len(instants) > len(rows) / 10:
        # Everybody is asked about at a moment of their own: there is no telling moments from people.
        return replaced
    calendar = [
        i
        for i, name in enumerate(features.names)
        if name not in features.categorical and _between(features.matrix[rows, i], nth) > CALENDAR_SHARE
    ]
    return sorted({*replaced, *calendar})


def _between(values: Array, nth: npt.NDArray[np.int64]) -> float:
    """Share (0 to 1) of the variance of ranks that lies between groups."""
    known = ~np.isnan(values)
    _, place, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return 0.0
    ranks = (np.cumsum(counts) - counts / 2)[place]
    rows = np.bincount(nth[known])
    means = np.bincount(nth[known], weights=ranks) / np.maximum(rows, 1)
    middle = ranks.mean()
    return float(np.sum(rows * (means - middle) ** 2) / np.sum((ranks - middle) ** 2))


def recency(as_of: Array, memory: timedelta | None) -> Array:
    """Weights with mean 1 that halve with every ``memory`` before the last instant."""
    if memory is None:
        return np.ones(len(as_of))
    weight = np.exp2((as_of - as_of.max()) / (MICROSECONDS_PER_DAY * (memory / timedelta(days=1))))
    return np.asarray(weight / weight.mean())


def left_out(course: Course, examples: Examples, rounds: int, fold: npt.NDArray[np.int64]) -> Array:
    """Log-odds of every row, offset included, from levels that did not see the row's fold."""
    raw = np.empty(len(examples.label))
    for number in range(FOLDS):
        aside = np.flatnonzero(fold == number)
        level = course.level(examples.take(np.flatnonzero(fold != number)), rounds)
        raw[aside] = level.scores(examples.matrix[aside]) + examples.start[aside]
    return raw


def carried(
    level: Level, calibration: Calibration, matrix: Array, horizon: timedelta
) -> tuple[Level, Calibration, Array]:
    """A level with a silence model, learnt from a shorter horizon's labels, to be asked about a longer one, and the log-odds of
    all rows.

    What is learnt of people is kept; habits look as far ahead as is asked, and the mean is moved by as much as the silence
    model says that it moves. Weighed on CDNOW, asked on 30 September 1997 about the next 273 days with 271 days of log: learnt
    over 60, 90 and 135 days the AUC is .779, .777 and .777 (calibration error .056, .045 and .055), the silence model alone
    .746, and .761 to .764 where a line only corrects what that says.
    """
    longer = replace(level, habits=replace(level.habits, horizon_days=horizon / timedelta(days=1)))
    raw = longer.raw(matrix)
    before, after = (float(np.nanmean(expit(one.habits.columns(matrix)[:, 0]))) for one in (level, longer))
    wanted = float(calibration(level.raw(matrix)).mean()) * after / before
    low, high = -LARGEST_SHIFT, LARGEST_SHIFT
    for _ in range(60):
        middle = (low + high) / 2
        moved = replace(calibration, intercept=calibration.intercept + middle)
        low, high = (middle, high) if moved(raw).mean() < wanted else (low, middle)
    return longer, replace(calibration, intercept=calibration.intercept + (low + high) / 2), raw
