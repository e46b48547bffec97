"""Charts are drawn for real, and their titles are read: a title must say what the data say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from training import plots
from training.evaluation import CalibrationBin, Interval, evaluate
from training.plots import Chart

RNG = np.random.default_rng(0)
PROBABILITY = RNG.beta(2, 6, 2_000)
LABEL = (RNG.random(2_000) < PROBABILITY).astype(np.float64)
JUDGED = evaluate(PROBABILITY, LABEL, resamples=20)
NOTHING = evaluate(np.empty(0), np.empty(0))
ONE_CLASS = evaluate(PROBABILITY, np.zeros(2_000), resamples=20)

CHARTS: dict[str, Chart] = {
    "learning": plots.learning_curve([0.6, 0.5, 0.4], [0.61, 0.55, 0.56], 2),
    "calibration": plots.calibration_chart(JUDGED.calibration, PROBABILITY),
    "importance": plots.importance_chart({"clicks": 3.0, "opens": 1.0}),
    "lift": plots.lift_chart(JUDGED.deciles),
    "scores": plots.score_chart(PROBABILITY, LABEL),
    "send time": plots.send_time_chart(np.linspace(0.01, 0.04, 168)),
}
POOR_CHARTS: dict[str, Chart] = {
    "learning, no rounds": plots.learning_curve([], [], 0),
    "learning, not a number": plots.learning_curve([np.nan], [np.nan], 1),
    "calibration, no rows": plots.calibration_chart(NOTHING.calibration, np.empty(0)),
    "calibration, one class": plots.calibration_chart(ONE_CLASS.calibration, PROBABILITY),
    "calibration, all scores 0": plots.calibration_chart(evaluate(np.zeros(9), np.zeros(9)).calibration, np.zeros(9)),
    "importance, no features": plots.importance_chart({}),
    "importance, no gain": plots.importance_chart({"clicks": 0.0}),
    "lift, no rows": plots.lift_chart(NOTHING.deciles),
    "lift, one class": plots.lift_chart(ONE_CLASS.deciles),
    "lift, no intervals": plots.lift_chart(evaluate(PROBABILITY, LABEL, resamples=0).deciles),
    "scores, no rows": plots.score_chart(np.empty(0), np.empty(0)),
    "scores, one class": plots.score_chart(PROBABILITY, np.ones(2_000)),
    "send time, no evidence": plots.send_time_chart(np.full(168, np.nan)),
    "send time, one hour": plots.send_time_chart(np.where(np.arange(168) == 5, 0.1, np.nan)),
}
ALL_CHARTS = CHARTS | POOR_CHARTS


@pytest.mark.parametrize("chart", ALL_CHARTS.values(), ids=ALL_CHARTS.keys())
def test_every_chart_becomes_a_png_even_of_poor_data(chart: Chart) -> None:
    png = plots.to_png(chart, scale=1)
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.rstrip(b"\x00").endswith(b"IEND\xaeB`\x82")
    assert "NaN" not in plots.to_svg(chart)


def test_titles_state_what_the_data_say() -> None:
    promised = [CalibrationBin(0.05, 0.04, 100, 0.02, 0.1), CalibrationBin(0.2, 0.19, 100, 0.12, 0.28)]
    titles = {name: plots.caption(chart).replace("\u00a0", " ") for name, chart in CHARTS.items()}
    assert plots.caption(plots.calibration_chart(promised, [0.05, 0.2])).replace("\u00a0", " ") == (
        "Of those scored 20 %, 19 % churned"
    )
    assert titles["learning"] == "After round 2 more training stops helping"
    assert titles["importance"] == "clicks tells most: 75 % of the gain"
    assert titles["lift"] == f"The top tenth holds {100 * JUDGED.deciles[0].capture.value:.0f} % of all who churned"
    assert titles["send time"] == "Strongest on Sunday at 23:00, when 4.0 % of sends were answered"


def test_a_run_that_was_still_learning_says_so() -> None:
    assert plots.caption(plots.learning_curve([0.6, 0.5], [0.6, 0.5], 2)) == "Still learning at the last round, 2"


def test_a_chart_with_nothing_to_show_says_so() -> None:
    empty = ("no rows", "no rounds", "no evidence")
    silent = [plots.caption(chart) for name, chart in POOR_CHARTS.items() if name.endswith(empty)]
    assert silent == ["No rows to show"] * 5
    assert plots.caption(POOR_CHARTS["importance, no gain"]) == "No feature helps"
    assert plots.caption(POOR_CHARTS["lift, one class"]) == "Nobody churned: there is no lift to show"


def test_importance_keeps_the_strongest_and_orders_ties_by_name() -> None:
    svg = plots.to_svg(plots.importance_chart({"b": 1.0, "a": 1.0, "z": 0.5, "c": 2.0}, top=3))
    assert re.findall(r">([abcz])<", svg) == ["c", "a", "b"]


def test_the_same_data_give_the_same_picture() -> None:
    again = plots.calibration_chart(JUDGED.calibration, PROBABILITY)
    assert plots.to_png(again) == plots.to_png(CHARTS["calibration"])


def test_an_axis_of_auc_is_not_crowded() -> None:
    values = [Interval(value, value - 0.02, value + 0.02) for value in (0.73, 0.55)]
    rivals = plots.to_svg(plots.rivals_chart(["ours", "recency"], values, "AUC", "Ranking"))
    ageing = plots.to_svg(plots.ageing_chart(["0", "30"], values, values))
    for svg in (rivals, ageing):
        assert 2 <= len(re.findall(r">0\.\d\d?<", svg)) <= 9
