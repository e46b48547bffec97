"""Off-policy estimates against worlds whose truth is known, over many seeds; arms against their plain counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from training.evaluation import Floats, Interval
from training.offpolicy import Balance, Expected, Logged, PolicyValue, lift, policy_gain, policy_value

MOMENTS, SENDS_EACH = 8, 4
HOLDOUT, EXPLORE = 0.1, 0.2
SEEDS = range(250)
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """What was done, and what nobody sees: each send's chance of an answer at every moment."""

    logged: Logged
    moment: Numbers
    arm: npt.NDArray[np.str_]
    exploit: Numbers
    truth: Floats
    """Shape (sends, moments)."""

    def value(self, moment: Numbers | int) -> float:
        """The true response rate of sending at these moments."""
        return float(self.truth[np.arange(len(self.truth)), moment].mean())

    def chooses(self, moment: Numbers | int) -> Floats:
        """The target of a policy that always sends at these."""
        return (self.moment == moment).astype(np.float64)

    def expected(self, model: Floats, moment: Numbers | int) -> Expected:
        rows = np.arange(len(model))
        return Expected(model[rows, self.moment], model[rows, moment])


def world(seed: int, people: int = 400) -> World:
    """Everybody has a level and a best moment of their own; the default is moment 0, the policy often finds the best."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), SENDS_EACH)
    best = rng.integers(0, MOMENTS, people)
    level = rng.normal(-1.5, 0.8, people)
    distance = np.abs(np.arange(MOMENTS) - best[:, None])
    truth = (1 / (1 + np.exp(-level[:, None] - 1.0 + 0.4 * distance)))[person]
    exploit = np.where(rng.random(people) < 0.7, best, rng.integers(0, MOMENTS, people))[person]
    holdout = (rng.random(people) < HOLDOUT)[person]
    explore = ~holdout & (rng.random(person.size) < EXPLORE / (1 - HOLDOUT))
    moment = np.where(holdout, 0, np.where(explore, rng.integers(0, MOMENTS, person.size), exploit))
    propensity = HOLDOUT * (moment == 0) + EXPLORE / MOMENTS + (1 - HOLDOUT - EXPLORE) * (moment == exploit)
    outcome = (rng.random(person.size) < truth[np.arange(person.size), moment]).astype(np.float64)
    arm = np.where(holdout, "holdout", np.where(explore, "explore", "exploit"))
    return World(Logged(propensity, outcome, person), moment, arm, exploit, truth)


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [world(seed) for seed in SEEDS]


def covered(intervals: list[Interval], truths: list[float]) -> float:
    return float(np.mean([one.low <= truth <= one.high for one, truth in zip(intervals, truths, strict=True)]))


def errors(intervals: list[Interval], truths: list[float]) -> Floats:
    return np.array([one.value for one in intervals]) - truths


def judged(worlds: list[World], which: str, model: str = "none") -> tuple[list[PolicyValue], list[float]]:
    """Every world's estimate of one policy, with a good, a bad or no outcome model, and the truth."""
    values, truths = [], []
    for one in worlds:
        moment: Numbers | int = {"default": 0, "exploit": one.exploit, "new": (one.exploit + 1) % MOMENTS}[which]
        models = {"none": None, "good": one.truth, "bad": 1 - one.truth}[model]
        expected = None if models is None else one.expected(models, moment)
        values.append(policy_value(one.logged, one.chooses(moment), expected))
        truths.append(one.value(moment))
    return values, truths


@pytest.mark.parametrize("which", ["default", "exploit", "new"])
def test_ips_is_unbiased_for_a_policy_that_was_hardly_followed(worlds: list[World], which: str) -> None:
    values, truths = judged(worlds, which)
    off = errors([value.ips for value in values], truths)
    assert abs(off.mean()) < 3 * off.std() / math.sqrt(len(off))


@pytest.mark.parametrize("which", ["default", "exploit", "new"])
@pytest.mark.parametrize("estimator", ["ips", "snips", "doubly_robust"])
def test_intervals_hold_the_truth_nineteen_times_of_twenty(worlds: list[World], which: str, estimator: str) -> None:
    values, truths = judged(worlds, which, "good")
    assert 0.90 <= covered([getattr(value, estimator) for value in values], truths) <= 0.99


@pytest.mark.parametrize("which", ["default", "new"])
def test_a_good_outcome_model_narrows_and_a_bad_one_does_not_mislead(worlds: list[World], which: str) -> None:
    good, truths = judged(worlds, which, "good")
    bad, _ = judged(worlds, which, "bad")
    of_good, of_bad = (errors([value.doubly_robust for value in values], truths) for values in (good, bad))
    of_ips = errors([value.ips for value in good], truths)
    assert of_good.std() < 0.95 * of_ips.std()
    assert abs(of_bad.mean()) < 3 * of_bad.std() / math.sqrt(len(of_bad))
    assert covered([value.doubly_robust for value in bad], truths) >= 0.90


def test_snips_varies_less_than_ips_and_stays_a_rate(worlds: list[World]) -> None:
    values, truths = judged(worlds, "new")
    assert errors([value.snips for value in values], truths).std() < errors([v.ips for v in values], truths).std()
    assert all(0 <= value.snips.value <= 1 for value in values)


@pytest.mark.parametrize("with_model", [True, False])
def test_the_gain_of_one_policy_over_another_is_found_and_covered(worlds: list[World], with_model: bool) -> None:
    gains, truths = [], []
    for one in worlds:
        models = (one.expected(one.truth, one.exploit), one.expected(one.truth, 0)) if with_model else None
        gains.append(policy_gain(one.logged, one.chooses(one.exploit), one.chooses(0), models))
        truths.append(one.value(one.exploit) - one.value(0))
    assert 0.90 <= covered(gains, truths) <= 0.99
    assert np.mean([gain.low > 0 for gain in gains]) > 0.5


def test_intervals_agree_with_a_cluster_bootstrap() -> None:
    one = world(0)
    target, people = one.chooses(0), np.unique(one.logged.subscriber)
    rng, draws = np.random.default_rng(0), []
    for _ in range(300):
        times = np.bincount(rng.integers(0, people.size, people.size), minlength=people.size)[one.logged.subscriber]
        weight = times * target / one.logged.propensity
        draws.append((weight * one.logged.outcome).sum() / weight.sum())
    low, high = np.quantile(draws, [0.025, 0.975])
    ours = policy_value(one.logged, target).snips
    assert ours.high - ours.low == pytest.approx(high - low, rel=0.2)


def test_the_policy_that_was_in_force_is_judged_by_its_own_rate() -> None:
    logged = world(1).logged
    value = policy_value(logged, logged.propensity)
    assert value.ips.value == value.snips.value == pytest.approx(logged.outcome.mean())
    assert value.effective_size == pytest.approx(len(logged)) and value.largest_weight == 1.0
    assert value.warning == ""


def test_too_little_evidence_comes_with_a_warning() -> None:
    small = world(2, people=40)
    assert "160" not in policy_value(small.logged, small.chooses(0)).warning
    assert "would be the least" in policy_value(small.logged, small.chooses(0)).warning
    silent = Logged(np.ones(500), np.zeros(500), np.arange(500))
    assert "0 answers" in policy_value(silent, np.ones(500)).warning


def test_propensities_that_are_not_what_was_done_are_noticed() -> None:
    one = world(3)
    wrong = Logged(one.logged.propensity / 2, one.logged.outcome, one.logged.subscriber)
    assert policy_value(one.logged, one.chooses(one.exploit)).warning == ""
    assert "weights average 1.96" in policy_value(wrong, one.chooses(one.exploit)).warning


def test_large_weights_are_cut_and_counted() -> None:
    one = world(4)
    value = policy_value(one.logged, one.chooses((one.exploit + 1) % MOMENTS), most_weight=10.0)
    assert value.largest_weight == 10.0 and 0 < value.clipped_share <= 1
    assert value.ips.value < policy_value(one.logged, one.chooses((one.exploit + 1) % MOMENTS)).ips.value


def test_a_policy_that_was_never_followed_has_no_value() -> None:
    one = world(5)
    value = policy_value(one.logged, np.zeros(len(one.logged)))
    assert math.isnan(value.snips.value) and value.effective_size == 0.0 and value.matched == 0
    assert "would be the least" in value.warning


def test_the_order_of_sends_changes_nothing_that_matters() -> None:
    one = world(6)
    turned = Logged(one.logged.propensity[::-1], one.logged.outcome[::-1], one.logged.subscriber[::-1])
    there, back = policy_value(one.logged, one.chooses(0)), policy_value(turned, one.chooses(0)[::-1])
    assert there.snips.low == pytest.approx(back.snips.low, rel=1e-12)


def test_the_lift_over_the_holdout_is_found_and_covered(worlds: list[World]) -> None:
    differences, ratios, stratified, truths = [], [], [], []
    for one in worlds:
        days = np.random.default_rng(0).integers(0, 5, len(one.logged))
        found = lift(one.arm, one.logged.outcome, one.logged.subscriber, days, weeks=4.0).contrasts[0]
        differences.append(found.difference)
        ratios.append(found.ratio)
        stratified.append(found.stratified)
        truths.append((one.value(one.exploit), one.value(0)))
    gaps, quotients = [a - b for a, b in truths], [a / b for a, b in truths]
    assert 0.90 <= covered(differences, gaps) <= 0.99
    assert 0.90 <= covered(ratios, quotients) <= 0.99
    assert 0.90 <= covered(stratified, gaps) <= 0.99


def test_each_arm_is_counted_as_it_is() -> None:
    one = world(7)
    found = lift(one.arm, one.logged.outcome, one.logged.subscriber, np.zeros(len(one.logged), np.int64), 4.0)
    for arm in found.arms:
        chosen = one.arm == arm.arm
        assert (arm.sends, arm.answers) == (chosen.sum(), one.logged.outcome[chosen].sum())
        assert 0 <= arm.rate.low <= arm.rate.value <= arm.rate.high <= 1
    assert sum(arm.sends for arm in found.arms) == len(one.logged)
    assert found.contrasts[0].stratified.value == pytest.approx(found.contrasts[0].difference.value)


def test_a_weekday_that_tilts_the_comparison_is_noticed_and_taken_out() -> None:
    rng = np.random.default_rng(8)
    size = 20_000
    ours = rng.random(size) < 0.5
    day = (rng.random(size) < np.where(ours, 0.7, 0.3)).astype(np.int64)
    outcome = (rng.random(size) < np.where(day == 1, 0.3, 0.1)).astype(np.float64)
    found = lift(np.where(ours, "exploit", "holdout"), outcome, np.arange(size), day, weeks=8.0)
    assert not found.balance.balanced and found.balance.largest > 0.5
    [contrast, _] = found.contrasts
    assert contrast.difference.low > 0.05
    assert contrast.stratified.low < 0 < contrast.stratified.high and contrast.strata_share == 1.0


def test_days_dealt_by_chance_are_balanced_nearly_always() -> None:
    rng = np.random.default_rng(9)
    arm = np.where(rng.random(4_000) < 0.1, "holdout", "exploit")
    outcome, people = (rng.random(4_000) < 0.1).astype(np.float64), np.arange(4_000)
    found = [lift(arm, outcome, people, rng.integers(0, 7, 4_000), 4.0).balance for _ in range(100)]
    assert sum(balance.balanced for balance in found) >= 97
    assert 0.3 < np.mean([balance.p_value for balance in found]) < 0.7


def test_a_trifle_in_very_many_sends_is_no_imbalance() -> None:
    assert Balance(chi_square=40.0, degrees=6, p_value=1e-6, largest=0.02).balanced


def test_the_power_note_keeps_what_it_promises() -> None:
    rng = np.random.default_rng(10)
    arm = np.where(rng.random(20_000) < 0.1, "holdout", "exploit")
    people, days = np.arange(20_000), np.zeros(20_000, np.int64)
    null = lift(arm, (rng.random(20_000) < 0.1).astype(np.float64), people, days, weeks=10.0).power
    found = []
    for _ in range(200):
        rate = np.where(arm == "exploit", 0.1 * (1 + null.detectable), 0.1)
        outcome = (rng.random(20_000) < rate).astype(np.float64)
        found.append(lift(arm, outcome, people, days, weeks=10.0).contrasts[0].difference.low > 0)
    assert 0.7 < np.mean(found) < 0.9
    of_twenty, of_ten = null.needed[2], null.needed[1]
    assert (of_twenty.lift, of_ten.lift) == (0.20, 0.10)
    assert of_ten.sends == pytest.approx(4 * of_twenty.sends)
    assert of_ten.weeks / 10.0 == pytest.approx(of_ten.sends / 20_000)


def test_an_arm_that_is_missing_leaves_numbers_empty_and_raises_nothing() -> None:
    found = lift(np.array(["exploit"] * 4), np.array([1.0, 0, 0, 1]), np.arange(4), np.zeros(4, np.int64), 1.0)
    assert [arm.arm for arm in found.arms] == ["exploit"]
    assert math.isnan(found.contrasts[0].difference.value) and math.isnan(found.power.detectable)
    assert found.balance.balanced


def test_without_any_send_nothing_is_known_and_nothing_raises() -> None:
    none, nobody = np.empty(0), np.empty(0, dtype=np.int64)
    found = lift(np.empty(0, dtype=np.str_), none, nobody, nobody, weeks=1.0)
    assert found.arms == () and found.balance.balanced and math.isnan(found.contrasts[0].ratio.value)
    assert policy_value(Logged(none, none, nobody), none).warning
    assert math.isnan(policy_gain(Logged(none, none, nobody), none, none).value)
