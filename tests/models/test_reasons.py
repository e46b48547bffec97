"""Reasons: grouped, in the direction they pushed, in words that are facts, steady when little changes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.catalogue import HALF_LIVES_DAYS, Attribute, Catalogue
from features.derive import Features, derive, feature_names
from features.state import MICROSECONDS_PER_DAY, identity
from models.boosting import Booster, train
from models.reasons import CODES, Reason, ReasonCatalogue, reason_code
from models.spec import BOOSTING
from tests.features.logs import CATALOGUE

NAMES = feature_names(CATALOGUE)
REASONS = ReasonCatalogue(NAMES, CATALOGUE)
NOW = 1.7e15
STRANGER = derive(identity(CATALOGUE, 1), NOW, CATALOGUE).matrix
TABLE = Path(__file__).parents[2] / "docs" / "reasons.md"

Floats = npt.NDArray[np.float64]


def pushed(**effects: float) -> Floats:
    return np.array([[*(effects.get(name, 0.0) for name in NAMES), -2.0]])


def valued(**values: float) -> Floats:
    """A stranger's features, but for these."""
    row = STRANGER.copy()
    for name, value in values.items():
        row[0, NAMES.index(name)] = value
    return row


def worded(code: str, **values: float) -> str:
    """What a code says of a stranger of whom this is known."""
    row = dict(zip(NAMES, valued(**values)[0].tolist(), strict=True))
    return next(one for one in REASONS.codes if one.name == code).words(row)


def only(reasons: list[list[Reason]]) -> list[str]:
    return [str(reason) for reason in reasons[0]]


@cache
def people(count: int = 3_000, seed: int = 11) -> Features:
    """People who get a mail every few days and open and click at rates of their own; some buy."""
    rng = np.random.default_rng(seed)
    states = identity(CATALOGUE, count)
    sent, rate = rng.poisson(25, count) + 1, rng.beta(1, 2, count)
    states["engagement_velocity_decayed_at"] = NOW
    states["created_at"] = NOW - rng.uniform(100, 900, count) * MICROSECONDS_PER_DAY
    for kind, chance in (("sent", np.ones(count)), ("open", rate), ("click", rate * 0.4), ("purchase", rate * 0.1)):
        events = rng.binomial(sent, chance) if kind != "sent" else sent
        ages = np.where(np.arange(60) < events[:, None], rng.uniform(0, 120, (count, 60)), np.inf)
        states[f"{kind}_count"] = events
        states[f"last_{kind}_at"] = np.where(events > 0, NOW - ages.min(axis=1) * MICROSECONDS_PER_DAY, np.nan)
        for days in HALF_LIVES_DAYS:
            states[f"{kind}_decayed_{days}d"] = np.exp2(-ages / days).sum(axis=1)
    states["profile_age"] = rng.integers(18, 80, count)
    states["profile_job"] = rng.integers(-1, 3, count)
    return derive(states, NOW, CATALOGUE)


@cache
def booster() -> Booster:
    """Who clicks churns less; nothing else matters."""
    features, rng = people(), np.random.default_rng(12)
    clicks = features.column("click_decayed_90d")
    label = (rng.random(len(clicks)) < 1 / (1 + np.exp(clicks - 2))).astype(np.float64)
    return train(
        features.matrix, label, features=NAMES, categorical=features.categorical, parameters=BOOSTING, rounds=60
    ).booster


def test_what_says_the_same_is_added_before_it_is_ranked() -> None:
    effects = pushed(click_decayed_7d=0.3, click_decayed_30d=0.3, tenure_days=-0.5)
    first, second = REASONS.explain(effects, STRANGER)[0]
    assert (first.code, first.effect) == ("click_activity", 0.6)
    assert (second.code, second.effect) == ("tenure", -0.5)
    assert str(first) == "↑ no click so far"
    assert str(second) == "↓ joining date not known"


def test_what_cancels_out_within_a_code_is_no_reason() -> None:
    effects = pushed(click_decayed_7d=2.0, click_rate_ever=-1.99, tenure_days=-0.5)
    assert only(REASONS.explain(effects, STRANGER)) == ["↓ joining date not known"]


def test_nothing_pushed_is_no_reason_and_no_more_than_asked_are_given() -> None:
    assert REASONS.explain(pushed(), STRANGER) == [[]]
    assert len(REASONS.explain(np.ones((1, len(NAMES))), STRANGER, most=2)[0]) == 2
    assert ReasonCatalogue([], CATALOGUE).explain(np.zeros((1, 1)), np.zeros((1, 0))) == [[]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_effect_is_lost_or_doubled_and_a_row_alone_is_as_among_many(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = people().matrix[rng.choice(3_000, 8)]
    contributions = rng.normal(size=(8, len(NAMES) + 1)) * (rng.random((8, len(NAMES) + 1)) < 0.3)
    effects = REASONS.effects(contributions, matrix)
    assert effects.sum(axis=1) == pytest.approx(contributions[:, :-1].sum(axis=1))
    together = REASONS.explain(contributions, matrix)
    assert together == [REASONS.explain(contributions[i : i + 1], matrix[i : i + 1])[0] for i in range(8)]
    for row, reasons in zip(effects, together, strict=True):
        sizes = [abs(reason.effect) for reason in reasons]
        assert sizes == sorted(sizes, reverse=True)
        assert {reason.effect for reason in reasons} <= set(row.tolist())


EVERYBODY = {
    "a stranger": STRANGER,
    "nothing but NaN": np.full((1, len(NAMES)), np.nan),
    "all zero": np.zeros((1, len(NAMES))),
    "somebody": people().matrix[:1],
    "large": np.full((1, len(NAMES)), 1e7),
}


@pytest.mark.parametrize("who", EVERYBODY)
def test_every_feature_has_a_code_and_every_code_words_whatever_is_known(who: str) -> None:
    given = REASONS.explain(np.ones((1, len(NAMES))), EVERYBODY[who], most=len(NAMES))[0]
    assert {reason_code(name) for name in NAMES} >= {reason.code for reason in given}
    for code in REASONS.codes:
        words = code.words(dict(zip(NAMES, EVERYBODY[who][0].tolist(), strict=True)))
        assert words == words.strip() != "" and not {"nan", "inf"} & set(words.lower().split())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_reads_one_feature_alone_can_be_explained(name: str) -> None:
    alone = ReasonCatalogue([name], CATALOGUE)
    for matrix in EVERYBODY.values():
        (reason,) = alone.explain(np.array([[0.7, -1.0]]), matrix[:, [NAMES.index(name)]])[0]
        assert reason.code == reason_code(name)
        assert reason.words and "nan" not in reason.words.lower().split()


def test_each_feature_belongs_to_one_code_and_none_is_left_to_speak_for_itself() -> None:
    names = [name for name in NAMES if not name.startswith(("profile_", "affinity_", "timezone"))]
    assert {reason_code(name) for name in names} == {code.name for code in CODES}
    assert reason_code("profile_open_count") == "profile_open_count"
    odd = Catalogue(content=("a\nb",), attributes=(Attribute("x_velocity_y"), Attribute("tenure_days")))
    assert {code.name for code in ReasonCatalogue(feature_names(odd), odd).codes} >= {
        "affinity",
        "profile_x_velocity_y",
        "profile_tenure_days",
    }


def test_a_feature_nobody_foresaw_is_named_with_its_value() -> None:
    novel = ReasonCatalogue(["weather_tomorrow"], CATALOGUE)
    assert only(novel.explain(np.array([[-1.0]]), np.array([[21.5]]))) == ["↓ weather tomorrow: 21.5"]


def test_engagement_speaks_for_the_kind_of_event_that_it_was() -> None:
    effects = pushed(hours_since_last_engagement=-0.5, hours_since_last_purchase=-0.2, engagement_count=0.4)
    bought = valued(hours_since_last_engagement=48, hours_since_last_purchase=48, purchase_count=8, engagement_count=8)
    assert only(REASONS.explain(effects, bought)) == ["↓ last purchase 2 days ago", "↑ 8 purchases so far"]
    opened = valued(
        hours_since_last_engagement=48,
        hours_since_last_open=48,
        hours_since_last_purchase=2_400,
        purchase_count=8,
        engagement_count=20,
    )
    assert only(REASONS.explain(effects, opened)) == [
        "↓ last open 2 days ago",
        "↑ 20 actions of their own so far",
        "↓ no purchase for 3 months",
    ]
    assert only(REASONS.explain(effects, STRANGER))[0] == "↓ never active so far"


def test_a_click_and_its_open_are_one_visit() -> None:
    both = valued(hours_since_last_engagement=240, hours_since_last_click=240.01, hours_since_last_open=240)
    assert only(REASONS.explain(pushed(engagement_silence_ratio=1.0), both)) == ["↑ last click 10 days ago"]


WORDS = [
    ("click_recency", {"hours_since_last_click": 63 * 24.0}, "no click for 63 days"),
    ("click_recency", {"hours_since_last_click": 3 * 24.0}, "last click 3 days ago"),
    ("click_recency", {"hours_since_last_click": 5.0}, "last click within the last day"),
    ("click_recency", {}, "no click so far"),
    ("page_view_recency", {"hours_since_last_page_view": 400 * 24.0}, "no site visit for 13 months"),
    ("form_submit_activity", {"form_submit_count": 2.0}, "2 completed forms so far"),
    ("pace", {}, "no activity so far"),
    ("tenure", {"tenure_days": 745.0}, "on the list for 2 years"),
    ("tenure", {"tenure_days": 0.2}, "joined within the last day"),
    ("tenure", {"days_since_first_engagement": 40.0}, "first active 40 days ago"),
    ("purchase_activity", {"purchase_count": 1.0, "purchase_value_sum": 0.4}, "1 purchase so far"),
    (
        "purchase_activity",
        {"purchase_count": 9.0, "purchase_value_sum": 1692.3},
        "9 purchases so far, about 1,700 in all",
    ),
    ("mail", {}, "no email sent so far"),
    ("mail", {"sent_count": 12.0, "hours_since_last_sent": 50.0}, "12 emails sent so far, the last 2 days ago"),
    ("bounces", {"soft_bounce_count": 1.0, "hard_bounce_count": 1.0}, "2 bounces so far"),
    (
        "complaint",
        {"complaint_count": 1.0, "hours_since_last_complaint": 72.0},
        "1 complaint so far, the last 3 days ago",
    ),
    ("automatic_opens", {"machine_open_rate_ever": 0.32}, "about 3 in 10 opens made by machines"),
    ("active_hours", {"active_night_rate": 0.6}, "mostly active at night"),
    ("active_hours", {"active_morning_rate": 0.4, "active_evening_rate": 0.4}, "no one time of day preferred"),
    ("active_weekend", {"active_weekend_rate": 0.42}, "about 4 in 10 actions on weekends"),
    ("affinity", {"affinity_top": 2.0}, "most interested in hats"),
    ("affinity", {"affinity_top": 0.0}, "most interested in topics beyond the main ones"),
    ("affinity", {"affinity_top": -1.0}, "no interest shown in any one topic"),
    ("timezone", {"timezone": 1.0}, "time zone Europe/Berlin"),
    ("timezone", {"timezone": -1.0}, "time zone not known"),
    ("profile_age", {"profile_age": 41.5}, "age: 41.5"),
    ("profile_age", {}, "age: not known"),
    ("profile_job", {"profile_job": 2.0}, "job: smith"),
    ("profile_job", {"profile_job": 0.0}, "job: other"),
    ("profile_job", {}, "job: not known"),
]


@pytest.mark.parametrize(("code", "values", "words"), WORDS)
def test_words_say_the_fact(code: str, values: dict[str, float], words: str) -> None:
    assert worded(code, **values) == words


MAILS = [
    (5, 0, 4.4, 0, "opened none of the 5 emails so far"),
    (5, 4, 4.9, 3.9, "opened about 4 of the last 5 emails"),
    (5, 5, 4.9, 4.9, "opened nearly all of the last 5 emails"),
    (9, 1, 5.0, 0.1, "opened hardly any of the last 5 emails"),
    (9, 20, 6.0, 14.0, "opened nearly all of the last 6 emails"),
    (80, 30, 40.0, 12.4, "opened about 3 in 10 emails of late"),
    (80, 30, 0.3, 0.0, "opened about 4 in 10 emails so far"),
    (4, 2, 0.3, 0.0, "opened about 2 of 4 emails so far"),
    (1, 1, 0.9, 0.9, "opened the only email so far"),
    (1, 0, 0.9, 0.0, "did not open the only email so far"),
    (0, 0, 0.0, 0.0, "no open so far"),
    (0, 7, 0.0, 3.0, "7 opens so far"),
]


@pytest.mark.parametrize(("sent", "opened", "sent_of_late", "opened_of_late", "words"), MAILS)
def test_mails_are_told_by_the_number(
    sent: float, opened: float, sent_of_late: float, opened_of_late: float, words: str
) -> None:
    said = worded(
        "open_activity",
        sent_count=sent,
        open_count=opened,
        sent_decayed_90d=sent_of_late,
        open_decayed_90d=opened_of_late,
    )
    assert said == words


def test_of_the_last_mails_about_as_many_were_opened_as_is_said() -> None:
    rng = np.random.default_rng(2)
    off = []
    for _ in range(300):
        ages, opened = np.sort(rng.uniform(0, 60, 8)), rng.random(8) < rng.beta(1, 1)
        weight = np.exp2(-ages / 90)
        said = worded(
            "open_activity",
            sent_count=8,
            open_count=opened.sum(),
            sent_decayed_90d=weight.sum(),
            open_decayed_90d=weight[opened].sum(),
        )
        words = said.replace("hardly any of", "0 of").replace("none of the 8", "0 of 8").split()
        of = int(words[words.index("emails") - 1])
        found = of if "nearly" in words else next(int(word) for word in words if word.isdigit())
        off.append(found / of - opened[:of].mean())
    assert np.abs(off).mean() < 0.08
    assert abs(np.mean(off)) < 0.02


@given(st.floats(-6, 6), st.floats(-6, 6))
def test_the_pace_that_is_said_is_the_pace_there_is(week: float, month: float) -> None:
    said = worded("pace", engagement_count=3, engagement_velocity_7d_90d=week, engagement_velocity_30d_90d=month)
    if "more active" in said:
        assert max(week, month) > 0.29 and min(week, month) > -0.31
    elif "less active" in said:
        assert min(week, month) < -0.29 and max(week, month) < 0.31
    elif said == "about as active as before":
        assert max(abs(week), abs(month)) < 0.31
    else:
        assert said == "active on and off lately" and min(week, month) < -0.29 and max(week, month) > 0.29


def test_the_arrow_is_the_sign_of_what_is_true() -> None:
    features = people()
    clicks = features.column("click_count")
    chosen = np.flatnonzero((clicks == 0) | (features.column("click_decayed_90d") > 5))[:300]
    explained = REASONS.explain(booster().contributions(features.matrix[chosen]), features.matrix[chosen])
    for person, reasons in zip(chosen, explained, strict=True):
        assert reasons[0].code in ("click_activity", "click_recency")
        assert (reasons[0].effect > 0) == (clicks[person] == 0)
        never = {"no click so far", "clicked in none"} & {reasons[0].words, " ".join(reasons[0].words.split()[:3])}
        assert bool(never) == (clicks[person] == 0) or "only email" in reasons[0].words


def test_reasons_stay_when_every_feature_moves_by_up_to_one_percent() -> None:
    features, model = people(), booster()
    before = features.matrix[:600]
    numeric = [place for place, name in enumerate(NAMES) if name not in features.categorical]
    after = before.copy()
    after[:, numeric] *= 1 + 0.01 * np.random.default_rng(13).uniform(-1, 1, (len(before), len(numeric)))
    steady = np.abs(model.raw(after) - model.raw(before)) < 0.05
    assert steady.mean() > 0.8
    told, retold = (REASONS.explain(model.contributions(matrix), matrix) for matrix in (before, after))
    pairs = [pair for pair, same in zip(zip(told, retold, strict=True), steady, strict=True) if same]
    changed = [{reason.code for reason in one} != {reason.code for reason in other} for one, other in pairs]
    reworded = [one[0].words != other[0].words for one, other in pairs]
    assert np.mean(changed) < 0.05
    assert np.mean([one[0].code != other[0].code for one, other in pairs]) < 0.01
    assert np.mean(reworded) < 0.15


def table() -> str:
    """The catalogue of reason codes as ``docs/reasons.md`` shows it."""
    rows = (dict(zip(NAMES, matrix[0].tolist(), strict=True)) for matrix in (people().matrix[:1], STRANGER))
    somebody, stranger = rows
    lines = [
        f"| `{code.name}` | {code.about} | {code.words(somebody)} | {code.words(stranger)} | "
        + ", ".join(f"`{name}`" for name in NAMES if reason_code(name) == code.name)
        + " |"
        for code in REASONS.codes
    ]
    head = ["| code | speaks of | of somebody | of a stranger | features |", "|---|---|---|---|---|"]
    return "\n".join([*head, *lines]) + "\n"


def test_the_documented_catalogue_is_the_one_there_is() -> None:
    # When codes changed on purpose: replace the table there by what this test wanted to see.
    assert TABLE.read_text(encoding="utf-8").endswith(table())
