"""The LightGBM door: gradient-boosted trees, trained, written as text, read again, scored.

What enters: float64 matrices whose columns stand in a stated order (NaN = missing) and 0/1 labels. What leaves: a
``Booster`` whose raw scores are log-odds. The promise: the same rows give the same bits, whether trained twice, whether
before or after a journey through text, whether one row at a time or a million.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import lightgbm
import numpy as np
import numpy.typing as npt
from scipy.special import expit

from features.errors import TrainerFailed

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with (rounds done, rounds at most)."""
Split = tuple[Floats, npt.NDArray[Any], Floats | None]
"""Matrix, label, offset."""

TWO_THREADS_FROM = 5_000_000
"""Cells of the matrix from which a second thread pays. Below, on a busy machine, threads that wait for each other made
training five times slower. Never more and never the machine's count, so that the text depends on the data alone."""
LARGEST_CATEGORY = 2**31 - 1
_FURTHEST_START = 20.0

_DEFAULTS: Mapping[str, Any] = {
    "objective": "binary",
    "metric": ["binary_logloss", "auc"],
    "seed": 7,
}
_FIXED: Mapping[str, Any] = {
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
_SCORING: Mapping[str, Any] = {"num_threads": 1, "verbosity": -1}


@dataclass(frozen=True)
class Trained:
    """A booster cut at its best iteration, and how it got there.

    ``history`` maps ``"train_{metric}"`` and ``"validation_{metric}"`` to one value per round, the rounds after
    ``best_iteration`` (counted from 1) included.
    """

    booster: Booster
    best_iteration: int
    history: dict[str, list[float]]
    start: float = 0.0
    """With an offset, what to add to the raw scores besides it: log-odds at which the rows are right on average."""


class Booster:
    """A trained ensemble, always made from its text, so that what is judged is what is shipped."""

    def __init__(self, inner: lightgbm.Booster, text: str) -> None:
        self._inner = inner
        self.text = text
        self.features: tuple[str, ...] = tuple(unquote(name) for name in inner.feature_name())

    @classmethod
    def from_text(cls, text: str) -> Booster:
        """Parse LightGBM's native text, LF line ends.

        Only text whose hash is verified: on a damaged one LightGBM aborts, hangs or mispredicts instead of raising.

        Raises
        ------
        TrainerFailed
            When LightGBM notices that the text is no model.
        """
        with _our_errors():
            return cls(lightgbm.Booster(model_str=text, params=dict(_SCORING)), text)

    def raw(self, matrix: Floats) -> Floats:
        """Log-odds before calibration, float64, shape (rows,), on one thread.

        The offset a model was trained with is not part of it: add it to the result.

        Parameters
        ----------
        matrix
            Shape (rows, features), columns in the order of ``features``. NaN is missing, and so is a negative category.

        Raises
        ------
        TrainerFailed
            When the number of columns is another one.
        """
        self._refuse_other_width(matrix)
        if len(matrix) == 0:
            return np.empty(0, dtype=np.float64)
        with _our_errors():
            scores = self._inner.predict(_contiguous(matrix), raw_score=True, **_SCORING)
        return np.asarray(scores, dtype=np.float64)

    def contributions(self, matrix: Floats) -> Floats:
        """What each feature adds to ``raw`` (exact tree SHAP), shape (rows, features + 1); the last column is the base.

        About 75 times the price of ``raw``. A row sums to its raw score up to rounding.
        """
        self._refuse_other_width(matrix)
        if len(matrix) == 0:
            return np.empty((0, len(self.features) + 1), dtype=np.float64)
        with _our_errors():
            parts = self._inner.predict(_contiguous(matrix), pred_contrib=True, **_SCORING)
        return np.asarray(parts, dtype=np.float64)

    def gain_importance(self) -> dict[str, float]:
        """Share (0 to 1) of the total gain that each feature's splits brought, largest first; all 0 without a split."""
        gain = self._inner.feature_importance(importance_type="gain")
        shares = gain / max(float(gain.sum()), np.finfo(np.float64).tiny)
        order = np.argsort(-shares, kind="stable")
        return {self.features[position]: float(shares[position]) for position in order}

    def _refuse_other_width(self, matrix: Floats) -> None:
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise TrainerFailed(f"a matrix of shape {matrix.shape} cannot hold {len(self.features)} features")


def train(
    matrix: Floats,
    label: npt.NDArray[Any],
    *,
    features: Sequence[str],
    categorical: Sequence[str],
    validation: Split | None = None,
    offset: Floats | None = None,
    weight: Floats | None = None,
    parameters: Mapping[str, Any],
    rounds: int,
    patience: int = 0,
    progress: Progress | None = None,
) -> Trained:
    """Boost until the first metric has not improved on the validation split for ``patience`` rounds, or, without one, for
    ``rounds`` rounds.

    Parameters
    ----------
    matrix
        Shape (rows, features), columns in the order of ``features``; NaN is missing.
    label
        0 or 1, shape (rows,).
    categorical
        Names of the features that hold codes, 0 to 2^31 - 1; a negative code is missing.
    validation
        Matrix, label and offset (or None) of a later slice; its columns stand in the same order.
    offset
        Log-odds to start each row from. It is not part of the booster's raw scores.
    weight
        Of each row of the matrix; all alike unless given.
    parameters
        LightGBM's, over objective ``binary`` and a fixed seed; threads and determinism cannot be overridden.

    Raises
    ------
    TrainerFailed
        On labels that are not 0 or 1, infinite values, codes out of range, shapes that differ, or when LightGBM fails.
    """
    positions = [list(features).index(name) for name in categorical]
    start = 0.0 if offset is None else _start(offset, label, weight)
    threads = 2 if matrix.size >= TWO_THREADS_FROM else 1
    settings = {**_DEFAULTS, **parameters, **_FIXED, "num_threads": threads}
    history: dict[str, dict[str, list[float]]] = {}
    callbacks: list[Callable[..., Any]] = [lightgbm.record_evaluation(history)]
    if validation is not None:
        callbacks.append(lightgbm.early_stopping(patience, first_metric_only=True, verbose=False))
    if progress is not None:
        callbacks.append(_reporting(progress, rounds))
    learning = _dataset((matrix, label, _moved(offset, start)), features, positions, settings, None, weight)
    watched = {"train": learning}
    if validation is not None:
        later = (validation[0], validation[1], _moved(validation[2], start))
        watched["validation"] = _dataset(later, features, positions, settings, learning)
    with _our_errors():
        inner = lightgbm.train(
            settings,
            learning,
            num_boost_round=rounds,
            valid_sets=list(watched.values()),
            valid_names=list(watched),
            callbacks=callbacks,
        )
        best = inner.best_iteration if inner.best_iteration > 0 else inner.num_trees()
        text = inner.model_to_string(num_iteration=best)
    curves = {f"{split}_{metric}": values for split, curve in history.items() for metric, values in curve.items()}
    return Trained(Booster.from_text(text), best, curves, start)


def _start(offset: Floats, label: npt.NDArray[Any], weight: Floats | None) -> float:
    """The constant beside the offset that makes as many positives expected as there are.

    LightGBM finds it itself without an offset. With one it starts from the offset alone: where few are positive, every row then
    pulls the same way, no split gains anything over its ridge, and nothing at all is learnt.
    """
    if not (np.isfinite(offset).all() and np.isin(label, (0, 1)).all()):
        return 0.0
    weights = np.ones(len(label)) if weight is None else weight
    low, high = -_FURTHEST_START, _FURTHEST_START
    for _ in range(60):
        middle = (low + high) / 2
        expected = float(np.sum(weights * expit(offset + middle)))
        low, high = (middle, high) if expected < float(np.sum(weights * label)) else (low, middle)
    return (low + high) / 2


def _moved(offset: Floats | None, start: float) -> Floats | None:
    return None if offset is None else offset + start


def _dataset(
    split: Split,
    features: Sequence[str],
    positions: list[int],
    settings: Mapping[str, Any],
    reference: lightgbm.Dataset | None,
    weight: Floats | None = None,
) -> lightgbm.Dataset:
    matrix, label, offset = split
    _refuse_unusable(split, features, positions)
    return lightgbm.Dataset(
        _without_negative_codes(matrix, positions),
        label,
        weight=weight,
        init_score=offset,
        reference=reference,
        # LightGBM refuses JSON's special characters and turns blanks into underscores: quoted, every name survives.
        feature_name=[quote(name, safe="") for name in features],
        categorical_feature=positions,
        params=dict(settings),
    )


def _refuse_unusable(split: Split, features: Sequence[str], positions: list[int]) -> None:
    matrix, label, offset = split
    if matrix.shape != (len(label), len(features)):
        raise TrainerFailed(f"a matrix of shape {matrix.shape} is not {len(label)} labels x {len(features)} features")
    if offset is not None and (offset.shape != label.shape or not np.isfinite(offset).all()):
        raise TrainerFailed("the offset must be one finite number per row")
    if not np.isin(label, (0, 1)).all():
        raise TrainerFailed("labels must be 0 or 1")
    endless = [name for name, column in zip(features, matrix.T, strict=True) if np.isinf(column).any()]
    if endless:
        raise TrainerFailed(f"infinite values in {', '.join(endless)}")
    # Codes beyond int32 are undefined behaviour in LightGBM, not an error.
    vast = [features[position] for position in positions if (matrix[:, position] > LARGEST_CATEGORY).any()]
    if vast:
        raise TrainerFailed(f"category codes above {LARGEST_CATEGORY} in {', '.join(vast)}")


def _without_negative_codes(matrix: Floats, positions: list[int]) -> Floats:
    """Negative codes as NaN. Scoring takes both for missing; in training LightGBM warns once per column."""
    if not positions:
        return _contiguous(matrix)
    cleaned = matrix.astype(np.float64, order="C", copy=True)
    codes = cleaned[:, positions]
    cleaned[:, positions] = np.where(codes < 0, np.nan, codes)
    return cleaned


def _contiguous(matrix: Floats) -> Floats:
    return np.ascontiguousarray(matrix, dtype=np.float64)


def _reporting(progress: Progress, rounds: int) -> Callable[[lightgbm.callback.CallbackEnv], None]:
    def report(env: lightgbm.callback.CallbackEnv) -> None:
        progress(env.iteration + 1, rounds)

    return report


@contextmanager
def _our_errors() -> Iterator[None]:
    """LightGBM's exceptions become ours, and what it prints goes to the debug log."""
    lightgbm.register_logger(logging.getLogger("lightgbm"), info_method_name="debug", warning_method_name="debug")
    try:
        yield
    except lightgbm.basic.LightGBMError as error:
        raise TrainerFailed(str(error).strip().rstrip(".")[:300]) from error
