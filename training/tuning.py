"""Looking for better parameters than the defaults, within a budget, and believing them only when a later slice does.

What enters: the data a model is about to be fitted on, its spec and a budget. What leaves: a ``Tuned`` spec, which is the
given one unless a paired interval shows that the found parameters beat it on rows later than any the search looked at. The
promise: the test rows of the fit are never looked at; the same data and number of trials give the same parameters, also
when the search was killed and taken up again.

The rows are cut twice by time. What is mature before the test slice is development; of that, what is mature before its own
last fifth is searched on, with the loss of the early stopping as the objective, and the last fifth confirms. Each trial's
sampler is seeded with the trial's number and sees the trials before it, so where a search was interrupted leaves no trace:
trials are kept as lines of a file and told to Optuna again.

Weighed: Optuna's own storage in SQLite, which keeps trials but not the sampler's state, so that a search taken up again
would go elsewhere than one that was not interrupted.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import optuna
import orjson
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from features.derive import Features
from features.errors import DatasetError
from models.spec import ModelSpec
from training.dataset import Dataset
from training.evaluation import Comparison, compare
from training.fit import fit
from training.splits import Positions, split

SEED = 20250106
Range: TypeAlias = FloatDistribution | IntDistribution
SPACE: Mapping[str, Range] = {
    "learning_rate": FloatDistribution(0.015, 0.15, log=True),
    "num_leaves": IntDistribution(3, 63, log=True),
    "min_data_in_leaf": IntDistribution(15, 400, log=True),
    "feature_fraction": FloatDistribution(0.2, 1.0),
    "bagging_fraction": FloatDistribution(0.5, 1.0),
    "lambda_l2": FloatDistribution(0.1, 200.0, log=True),
}
OBJECTIVE = "validation_binary_logloss"
STARTUP_TRIALS = 8
"""Drawn at random before the sampler believes what it saw."""

Parameters: TypeAlias = Mapping[str, float | int]


@dataclass(frozen=True)
class Trial:
    """One fit of the search: its parameters and the early stopping's log loss, in nats."""

    number: int
    parameters: Parameters
    log_loss: float


@dataclass(frozen=True)
class Budget:
    """When a search ends. Only a number of trials gives the same parameters every time."""

    trials: int
    seconds: float = math.inf


@dataclass(frozen=True)
class Tuned:
    """What a search came to. ``gain`` is the found parameters' over the defaults' on the confirming slice."""

    spec: ModelSpec
    trials: tuple[Trial, ...]
    gain: Comparison | None
    words: str
    best: Parameters = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Flat names for a run; empty where nothing was searched."""
        found = {} if self.gain is None else self.gain.metrics("tuning")
        return found | {"tuning_trials": float(len(self.trials))}


def tune(data: Dataset, spec: ModelSpec, budget: Budget, kept: Path, allowed: Sequence[str] = ()) -> Tuned:
    """Search, confirm, choose.

    Parameters
    ----------
    data
        Everything the model is to be fitted and judged on.
    kept
        File of the trials so far, one line each; made when absent. It must belong to this data and spec.
    allowed
        Features that may know the answer on their own.

    Returns
    -------
    The given spec, and why, also where the rows are too few to search and confirm on.
    """
    try:
        development = before_test(data, spec)
        trials = search(before_test(development, spec), spec, budget, kept, allowed)
        best = min(trials, key=lambda trial: (trial.log_loss, trial.number))
        gain = confirm(development, spec, with_parameters(spec, best.parameters), allowed) if best.number else None
    except DatasetError as error:
        return Tuned(
            spec, (), None, f"the defaults stay: too few rows before the test to search and confirm on ({error})"
        )
    return _chosen(spec, trials, best, gain)


def _chosen(spec: ModelSpec, trials: tuple[Trial, ...], best: Trial, gain: Comparison | None) -> Tuned:
    if gain is None:
        return Tuned(spec, trials, None, f"the defaults stay: none of {len(trials)} trials was better in the search")
    better = gain.log_loss_gain
    told = f"log loss better by {better.value:+.4f} ({better.low:+.4f} to {better.high:+.4f}) on the later inner slice"
    if better.low > 0:
        found = with_parameters(spec, best.parameters)
        return Tuned(
            found, trials, gain, f"parameters of trial {best.number} of {len(trials)}: {told}", best.parameters
        )
    words = f"the defaults stay: trial {best.number} of {len(trials)} is not shown to be better: {told}"
    return Tuned(spec, trials, gain, words, best.parameters)


def before_test(data: Dataset, spec: ModelSpec) -> Dataset:
    """The rows whose labels were mature before the first row that a fit would be judged on.

    Raises
    ------
    NoMatureLabels
    """
    rows = data.rows
    test = split(spec.name, rows.as_of, spec.horizon, rows.subscriber_id).test
    span = float(spec.horizon / timedelta(microseconds=1))
    return part(data, np.flatnonzero(rows.as_of + span <= rows.as_of[test].min()))


def part(data: Dataset, rows: Positions) -> Dataset:
    """Some rows of a dataset."""
    features = Features(data.features.names, data.features.categorical, data.features.matrix[rows])
    return Dataset(data.rows.take(rows), data.states[rows], features, data.catalogue)


def search(data: Dataset, spec: ModelSpec, budget: Budget, kept: Path, allowed: Sequence[str]) -> tuple[Trial, ...]:
    """Trials within a budget, those of the file first; the first are the defaults themselves.

    Raises
    ------
    DatasetError
        When training refuses.
    """
    logging.getLogger("optuna").setLevel(logging.WARNING)
    trials = read_trials(kept)[: budget.trials]
    begun = time.monotonic()
    # Whatever the budget, the defaults are tried: there is always something to compare with.
    while not trials or (len(trials) < budget.trials and time.monotonic() - begun < budget.seconds):
        parameters = _proposed(spec, trials)
        fitted = fit(data, with_parameters(spec, parameters), with_test=False, allowed=allowed)
        trial = Trial(len(trials), parameters, float(min(fitted.history[OBJECTIVE])))
        _keep(trial, kept)
        trials.append(trial)
    return tuple(trials)


def _proposed(spec: ModelSpec, trials: Sequence[Trial]) -> Parameters:
    """The defaults first; then what the sampler makes of the trials so far, seeded by their number."""
    searched = {name: found for name, found in SPACE.items() if name in spec.parameters}
    if not trials:
        return {name: spec.parameters[name] for name in searched}
    sampler = optuna.samplers.TPESampler(seed=SEED + len(trials), n_startup_trials=STARTUP_TRIALS)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    space: dict[str, BaseDistribution] = dict(searched)
    study.add_trials(
        [create_trial(params=_within(t.parameters, searched), distributions=space, value=t.log_loss) for t in trials]
    )
    return dict(study.ask(space).params)


def _within(parameters: Parameters, space: Mapping[str, Range]) -> dict[str, float | int]:
    """Defaults may lie outside of what is searched: the sampler is told the nearest."""
    return {name: min(max(parameters[name], space[name].low), space[name].high) for name in space}


def with_parameters(spec: ModelSpec, parameters: Parameters) -> ModelSpec:
    """The spec with some of its parameters replaced."""
    return replace(spec, parameters={**spec.parameters, **parameters})


def confirm(data: Dataset, spec: ModelSpec, found: ModelSpec, allowed: Sequence[str]) -> Comparison:
    """How much better the found parameters are than the defaults on the last fifth of the development rows.

    Raises
    ------
    DatasetError
        When training refuses.
    """
    defaults, tuned = (fit(data, one, allowed=allowed) for one in (spec, found))
    test = defaults.split.test
    label, people = data.rows.label[test], data.rows.people[test]
    return compare(tuned.probability[test], defaults.probability[test], label, people)


def read_trials(kept: Path) -> list[Trial]:
    """The trials of a file in order; a last line that was being written when somebody died is no trial."""
    if not kept.exists():
        return []
    lines = kept.read_bytes().split(b"\n")[:-1]
    return [_trial(orjson.loads(line)) for line in lines]


def _trial(raw: Mapping[str, Any]) -> Trial:
    return Trial(raw["number"], raw["parameters"], raw["log_loss"])


def _keep(trial: Trial, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    whole = kept.read_bytes().rpartition(b"\n")[0] if kept.exists() else b""
    # Written anew, because the last line may be torn; a search has hundreds of lines, not millions.
    beside = kept.with_suffix(".tmp")
    with beside.open("wb") as file:
        file.write((whole + b"\n" if whole else b"") + orjson.dumps(asdict(trial)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(kept)
