"""What a model fitted as of one moment said later: rolling origins over a folded log.

What enters: a folded log, a spec, the moments to train until and to ask at. What leaves: every later question with the
probability the model gave it and, where it is known by now, the answer. The promise: a model reads nothing received at or
after its origin, and its scores are made from the bundle that would have been served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from features.fold import Folder
from models.bundle import Bundle
from models.spec import ModelSpec
from training.dataset import Dataset, dataset, labelled_rows, questions
from training.fit import Fitted, fit
from training.package import package_fitted
from training.shapes import offsets

Array = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Origin:
    """A model trained until one moment, what it learnt from, and what it was asked before the next origin."""

    train_until: datetime
    fitted: Fitted
    bundle: Bundle
    learnt: Dataset
    asked: Dataset
    """Labels are NaN where the answer is not known yet."""
    probability: Array
    """Of each row asked."""


def train_until(
    spec: ModelSpec, folder: Folder, start: datetime, until: datetime, progress: Progress | None = None
) -> tuple[Dataset, Fitted]:
    """Fit on what was received and mature before a moment; nothing is held back for a test.

    Raises
    ------
    DatasetError
        When training refuses.
    """
    rows = labelled_rows(spec, folder, start, until)
    data = dataset(rows, folder.fold(rows.stored), folder.catalogue)
    return data, fit(data, spec, with_test=False, progress=progress)


def origin(
    spec: ModelSpec,
    folder: Folder,
    start: datetime,
    instants: Sequence[datetime],
    stretch: tuple[datetime, datetime],
    known_until: datetime,
    progress: Progress | None = None,
) -> Origin:
    """Train until the beginning of a stretch and score what is asked in it.

    Parameters
    ----------
    start
        Of the log.
    instants
        When everybody is asked about, see ``training.dataset.questions``.
    known_until
        Of the labels of what is asked.

    Raises
    ------
    DatasetError
        When training refuses or nobody is there to ask about.
    """
    learnt, fitted = train_until(spec, folder, start, stretch[0], progress)
    rows = questions(spec, folder, instants, *stretch, known_until)
    asked = dataset(rows, folder.fold(rows.stored), folder.catalogue)
    bundle = package_fitted(fitted, folder.catalogue, "backtest", stretch[0])
    return Origin(stretch[0], fitted, bundle, learnt, asked, scored(fitted, bundle, asked))


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
