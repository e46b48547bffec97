"""A search that can be repeated, taken up again, and disbelieved."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features.state import MICROSECONDS_PER_DAY, identity
from models import churn
from tests.features.logs import CATALOGUE
from tests.training.test_fit import made
from training.dataset import Dataset, Rows, dataset
from training.splits import split
from training.tuning import SPACE, Budget, Tuned, before_test, read_trials, tune

SPEC = replace(churn.SPEC, horizon=timedelta(days=7), rounds=20)
POOR = replace(SPEC, parameters={**SPEC.parameters, "num_leaves": 2, "feature_fraction": 1.0})
"""Defaults that cannot learn what two features say only together."""


def entangled() -> Dataset:
    """Who clicks or bounces stays, and who does both or neither leaves: no line and no stump can tell."""
    rng = np.random.default_rng(4)
    as_of = 1.7e15 + np.repeat(np.arange(20), 120) * 7.0 * MICROSECONDS_PER_DAY
    states = identity(CATALOGUE, len(as_of))
    clicks, bounces = rng.integers(0, 2, (2, len(as_of)))
    states["click_count"], states["soft_bounce_count"] = 5 * clicks, 5 * bounces
    leaves = (rng.random(len(as_of)) < np.where(clicks == bounces, 0.85, 0.15)).astype(np.float64)
    return dataset(Rows(pa.array([f"s{i % 120}" for i in range(len(as_of))]), as_of, as_of, leaves), states, CATALOGUE)


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, bytes]:
    kept = tmp_path_factory.mktemp("tuning") / "trials.jsonl"
    return tune(entangled(), POOR, Budget(5), kept), kept.read_bytes()


def test_parameters_that_beat_the_defaults_on_a_later_slice_are_taken(poor: tuple[Tuned, bytes]) -> None:
    tuned, _ = poor
    assert tuned.gain is not None and tuned.gain.log_loss_gain.low > 0
    assert {name: tuned.spec.parameters[name] for name in tuned.best} == tuned.best
    assert set(tuned.best) == set(SPACE)
    assert tuned.words.startswith("parameters of trial")
    assert tuned.metrics()["tuning_log_loss_gain"] > 0


def test_the_first_trial_is_the_defaults(poor: tuple[Tuned, bytes]) -> None:
    first = poor[0].trials[0]
    assert first.parameters == {name: POOR.parameters[name] for name in SPACE}


def test_parameters_that_are_not_shown_to_be_better_leave_the_defaults(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tuned = tune(made(rng.integers(0, 2, 2000)), SPEC, Budget(3), tmp_path / "trials.jsonl")
    assert tuned.spec == SPEC
    assert "the defaults stay" in tuned.words


def test_a_search_that_was_killed_comes_to_the_same_end(poor: tuple[Tuned, bytes], tmp_path: Path) -> None:
    tuned, lines = poor
    kept = tmp_path / "trials.jsonl"
    kept.write_bytes(b"".join(lines.splitlines(keepends=True)[:2]) + b'{"number": 2, "para')
    assert tune(entangled(), POOR, Budget(5), kept) == tuned
    assert kept.read_bytes() == lines


def test_a_finished_search_is_not_repeated(poor: tuple[Tuned, bytes], tmp_path: Path) -> None:
    tuned, lines = poor
    kept = tmp_path / "trials.jsonl"
    kept.write_bytes(lines)
    assert tune(entangled(), POOR, Budget(5), kept) == tuned
    assert [trial.number for trial in read_trials(kept)] == list(range(5))


def test_a_budget_of_time_ends_too(tmp_path: Path) -> None:
    assert len(tune(made(), SPEC, Budget(10_000, seconds=1e-9), tmp_path / "trials.jsonl").trials) == 1


def test_the_search_sees_nothing_that_was_not_mature_before_what_it_is_judged_on() -> None:
    data = made()
    rows = data.rows
    test = split(SPEC.name, rows.as_of, SPEC.horizon, rows.subscriber_id).test
    development = before_test(data, SPEC)
    span = SPEC.horizon / timedelta(microseconds=1)
    assert (development.rows.as_of + span).max() <= rows.as_of[test].min()
    inner = before_test(development, SPEC)
    assert len(inner.rows) < len(development.rows) < len(rows)


def test_a_history_too_short_to_search_in_says_so(tmp_path: Path) -> None:
    long = replace(SPEC, horizon=timedelta(days=60))
    tuned = tune(made(), long, Budget(3), tmp_path / "trials.jsonl")
    assert tuned.spec == long and tuned.trials == ()
    assert "too few rows before the test" in tuned.words
