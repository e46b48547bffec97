"""Samples of one population are steady, others are not, and a missing value counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.drift import Shift, category_shift, psi, rate_change, shift


def test_psi_equals_its_definition_over_the_references_tenths() -> None:
    rng = np.random.default_rng(0)
    reference, current = rng.normal(size=1_000), rng.normal(0.5, 1.2, size=800)
    edges = np.sort(reference)[np.arange(100, 1_000, 100) - 1]
    then = (np.histogram(reference, [-np.inf, *np.nextafter(edges, np.inf), np.inf])[0] + 0.5) / 1_005
    now = (np.histogram(current, [-np.inf, *np.nextafter(edges, np.inf), np.inf])[0] + 0.5) / 805
    assert psi(reference, current) == pytest.approx(float(((now - then) * np.log(now / then)).sum()), rel=1e-12)


def test_the_words_follow_the_convention() -> None:
    words = [Shift(value, 0.0).word for value in (0.0, 0.09, 0.1, 0.24, 0.25, 3.0, math.nan)]
    assert words == ["steady", "steady", "moved", "moved", "shifted", "shifted", "steady"]


def test_a_shift_that_chance_explains_is_steady() -> None:
    assert Shift(0.3, by_chance=0.4).word == "steady"


def test_chance_stays_below_its_bound_about_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(1)
    found = [shift(rng.normal(size=200), rng.normal(size=100)) for _ in range(400)]
    above = np.mean([one.psi > one.by_chance for one in found])
    assert 0.02 < above < 0.08


def test_a_shifted_population_is_called_so() -> None:
    rng = np.random.default_rng(12)
    then = rng.normal(size=2_000)
    assert shift(then, rng.normal(size=2_000)).word == "steady"
    assert shift(then, rng.normal(0.4, 1, size=2_000)).word == "moved"
    assert shift(then, rng.normal(1.0, 1, size=2_000)).word == "shifted"


def test_values_that_went_missing_are_a_shift() -> None:
    then = np.arange(1_000.0)
    now = np.where(np.arange(1_000) % 2 == 0, np.nan, then)
    assert shift(then, now).word == "shifted"
    assert shift(now, now).psi == 0.0


def test_a_value_that_most_have_keeps_what_lies_beside_it_apart() -> None:
    then = np.append(np.zeros(900), np.arange(1.0, 101.0))
    assert shift(then, np.append(np.zeros(500), np.arange(1.0, 501.0))).word == "shifted"
    assert shift(np.zeros(500), np.full(500, -1.0)).word == "shifted"
    assert shift(np.zeros(500), np.zeros(300)).psi < 1e-6


def test_infinities_are_numbers_like_others() -> None:
    then = np.append(np.full(100, -np.inf), np.arange(900.0))
    assert shift(then, then).psi == 0.0
    assert shift(then, np.full(200, np.inf)).word == "shifted"


def test_the_order_of_rows_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    then, now = rng.poisson(2, 500).astype(float), rng.poisson(3, 300).astype(float)
    assert psi(then, now) == psi(then[::-1], rng.permutation(now))


def test_quantiles_stand_for_as_many_rows_as_were_said() -> None:
    quantiles = np.quantile(np.random.default_rng(4).normal(size=9_000), np.linspace(0, 1, 1_001))
    now = np.random.default_rng(5).normal(size=9_000)
    assert shift(quantiles, now, reference_rows=9_000).by_chance < shift(quantiles, now).by_chance
    assert shift(quantiles, now, reference_rows=9_000).word == "steady"


def test_categories_are_told_apart_by_value_and_the_missing_one_is_one() -> None:
    then = np.array(["a", "b", None] * 100, dtype=object)
    assert category_shift(then, then).psi == 0.0
    assert category_shift(then, np.array(["a", "b", "c"] * 100, dtype=object)).word == "shifted"
    assert category_shift([1.0, 2.0, math.nan] * 100, [1.0, 2.0, math.nan] * 90).word == "steady"


def test_many_rare_categories_count_as_one() -> None:
    rng = np.random.default_rng(6)
    many = category_shift(rng.integers(0, 500, 2_000), rng.integers(0, 500, 2_000))
    assert many.by_chance < 0.05 and many.word == "steady"


def test_nothing_to_compare_is_not_a_number_and_not_an_alarm() -> None:
    for found in (shift([], [1.0]), shift([1.0], []), category_shift([], ["a"])):
        assert math.isnan(found.psi) and found.word == "steady"


def test_a_rate_that_did_not_change_has_an_interval_around_zero_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(7)
    found = [rate_change(rng.random(300) < 0.1, rng.random(150) < 0.1).difference for _ in range(600)]
    covered = np.mean([change.low <= 0 <= change.high for change in found])
    assert 0.92 < covered < 0.985


def test_a_rate_that_changed_says_by_how_much() -> None:
    change = rate_change([0] * 900 + [1] * 100, [0] * 700 + [1] * 300)
    assert (change.then, change.now) == (0.1, 0.3)
    assert change.difference.low > 0.15 and change.difference.high < 0.25
    assert math.isnan(rate_change([], [1, 0]).difference.low)
