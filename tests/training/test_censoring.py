"""Unfinished leads say what they have told so far, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from training.censoring import exposure, fit_delays


def test_with_everybody_watched_to_the_end_the_shares_are_those_observed() -> None:
    delays = fit_delays(np.array([1.0, 2.0, 2.0, np.nan]), np.full(4, 10.0))
    assert delays.within(np.array([0.5, 1.0, 1.5, 2.0, 2.5, 99.0])).tolist() == pytest.approx(
        [0, 0, 0.25, 0.25, 0.75, 0.75]
    )


def test_unfinished_leads_are_not_taken_for_ones_that_never_convert() -> None:
    rng = np.random.default_rng(5)
    true = np.where(rng.random(20_000) < 0.4, rng.exponential(20.0, 20_000), np.inf)
    watched = rng.uniform(0, 60, 20_000)
    seen = np.where(true < watched, true, np.nan)
    found = fit_delays(seen, watched).within(np.array([50.0]))[0]
    assert found == pytest.approx(0.4 * (1 - np.exp(-50 / 20)), abs=0.02)
    assert np.isfinite(seen).mean() < found - 0.05


def test_the_exposure_is_whole_once_the_horizon_is_over() -> None:
    delays = fit_delays(np.array([1.0, 4.0, 9.0, np.nan]), np.full(4, 10.0))
    shares = exposure(delays, np.array([0.5, 2.0, 5.0, 8.0, 400.0]), horizon=5.0)
    assert shares.tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0])


def test_without_any_conversion_nothing_was_told() -> None:
    delays = fit_delays(np.array([np.nan, np.nan]), np.array([3.0, 4.0]))
    assert exposure(delays, np.array([3.0]), 5.0).tolist() == [0.0]
