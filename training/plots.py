"""Charts of a training run and of a backtest, each with a title that states what it shows.

What enters: tables of ``training.evaluation``, plain arrays and mappings. What leaves: Altair charts, and the PNG or
the one HTML page made of them. The promise: everything is drawn here, by vl-convert and without a browser; neither the
PNG nor the page fetches anything when it is looked at, now or in ten years.

The page holds pictures (SVG) and no script: Vega's own inline bundle adds 0.9 MB to a page, and neither mail clients
nor a strict content policy would run it. What is lost is the tooltip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import altair as alt
import numpy as np
import numpy.typing as npt
import vl_convert

from training.evaluation import CalibrationBin, Decile, Floats, Interval

INK, MUTED, FAINT = "#1f2933", "#66727f", "#e4e8ec"
BLUE, ORANGE, PALE = "#2166a5", "#d8642a", "#b9d3ea"
NIGHT = ("#f1f5f9", "#9cc3e2", "#2f7fb8", "#0b2f5b")
FONT = "Helvetica Neue, Arial, Liberation Sans, sans-serif"
"""Liberation Sans travels inside vl-convert, so a machine without any font still draws legible PNGs."""

WIDTH, HEIGHT = 560, 300
SCORE_BINS = 40
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS = 24
_NO_ROWS = "No rows to show"
_FEW_TICKS = alt.Axis(tickCount=6)
"""One at each hundredth of AUC would be crowded."""

Chart = alt.LayerChart | alt.VConcatChart | alt.HConcatChart
_AnyChart = TypeVar("_AnyChart", alt.LayerChart, alt.VConcatChart, alt.HConcatChart)


def learning_curve(
    training: Sequence[float], validation: Sequence[float], best_iteration: int, metric: str = "log loss"
) -> alt.LayerChart:
    """Draw a metric (less is better) by boosting round.

    ``training`` and ``validation`` hold one value per round, the first after round 1; ``best_iteration`` counts from 1,
    as LightGBM's does.
    """
    rows = [*_curve_rows("training rows", training), *_curve_rows("later rows, not trained on", validation)]
    line = (
        alt.Chart(_data(rows))
        .mark_line(strokeWidth=2.2)
        .encode(
            x=alt.X("round:Q", title="boosting round", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False)),
            y=alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False)),
            color=alt.Color(
                "rows:N",
                title=None,
                scale=alt.Scale(domain=["training rows", "later rows, not trained on"], range=[PALE, BLUE]),
                legend=alt.Legend(orient="top"),
            ),
        )
    )
    best = [row for row in rows[len(training) :] if row["round"] == best_iteration]
    mark = alt.Chart(_data(best)).encode(x="round:Q")
    rule = mark.mark_rule(color=MUTED, strokeDash=[4, 4])
    point = mark.mark_point(color=BLUE, filled=True, size=90, opacity=1).encode(y="value:Q")
    title, subtitle = _learning_words(rows, best, best_iteration, len(validation), metric)
    return _house(_layers(rule, line, point, width=WIDTH, height=HEIGHT), title, subtitle)


def calibration_chart(
    bins: Sequence[CalibrationBin], probability: npt.ArrayLike, outcome: str = "churned"
) -> alt.VConcatChart:
    """Draw promised against observed with Wilson intervals, and below it where the scores lie.

    ``bins`` is ``Evaluation.calibration``; ``probability`` the scores themselves, shape (rows,), 0–1; ``outcome`` a
    verb in the past tense that fits "Of those scored 20 %, 19 % …".
    """
    scores = _finite(probability)
    top = _top([bound for bin_ in bins for bound in (bin_.high, bin_.predicted)] + [_bulk(scores)])
    across = alt.X("predicted:Q", title=None, axis=_percent_axis(), scale=alt.Scale(domain=[0, top], nice=False))
    base = alt.Chart(_data([_calibration_row(bin_) for bin_ in bins])).encode(x=across)
    up = alt.Scale(domain=[0, top], nice=False)
    diagonal = (
        alt.Chart(_data([{"predicted": 0.0, "observed": 0.0}, {"predicted": top, "observed": top}]))
        .mark_line(color=MUTED, strokeDash=[5, 4], strokeWidth=1.2)
        .encode(x=across, y=alt.Y("observed:Q", scale=up))
    )
    spread = base.mark_rule(color=BLUE, strokeWidth=2).encode(y=alt.Y("low:Q", scale=up), y2="high:Q")
    point = base.mark_line(color=BLUE, strokeWidth=1.2, point=alt.OverlayMarkDef(color=BLUE, size=70)).encode(
        y=alt.Y("observed:Q", title=f"{outcome}, of all in the bin", axis=_percent_axis(), scale=up)
    )
    reliability = _layers(diagonal, spread, point, width=WIDTH, height=HEIGHT)
    title, subtitle = _calibration_words(bins, outcome)
    return _house(alt.vconcat(reliability, _score_strip(scores, top), spacing=8), title, subtitle)


def importance_chart(gain: Mapping[str, float], top: int = 25) -> alt.LayerChart:
    """Draw the ``top`` features by their share of the total gain (all features together are 100 %)."""
    total = sum(gain.values()) or 1.0
    ranked = sorted(gain.items(), key=lambda item: (-item[1], item[0]))[:top]
    rows: list[dict[str, Any]] = [{"feature": name, "share": 100 * value / total} for name, value in ranked]
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("feature:N", sort=[name for name, _ in ranked], title=None, axis=alt.Axis(labelLimit=320)),
        x=alt.X("share:Q", title="share of the total gain", axis=_percent_axis()),
    )
    bar = base.mark_bar(color=BLUE, cornerRadiusEnd=2, height=alt.RelativeBandSize(0.72))
    text = base.mark_text(align="left", dx=5, color=MUTED, fontSize=11).encode(text=alt.Text("share:Q", format=".1f"))
    used = bool(rows) and rows[0]["share"] > 0
    head = f"{ranked[0][0]} tells most: {_percent(rows[0]['share'])} of the gain" if used else "No feature helps"
    under = f"The {len(rows)} strongest of {len(gain)} features. Gain says what was used, not what causes what."
    return _house(_layers(bar, text, width=WIDTH - 160, height=alt.Step(20)), head, under)


def lift_chart(deciles: Sequence[Decile], outcome: str = "churned") -> alt.HConcatChart:
    """Draw lift by tenth of the list, highest scored first, and how much of all positives is found on the way down.

    ``deciles`` is ``Evaluation.deciles``; ``outcome`` a verb in the past tense that fits "those who …".
    """
    rows = [{"decile": d.decile, "lift": _number(d.lift)} for d in deciles]
    bars = alt.Chart(_data(rows)).encode(
        x=alt.X("decile:O", title="tenth of the list, highest scored first", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("lift:Q", title="times the average"),
    )
    bar = bars.mark_bar(color=BLUE, cornerRadiusEnd=2)
    text = bars.mark_text(dy=-7, color=INK, fontSize=11).encode(text=alt.Text("lift:Q", format=".1f"))
    average = alt.Chart(_data([{"average": 1}])).mark_rule(color=ORANGE, strokeDash=[5, 4]).encode(y="average:Q")
    lift = _layers(bar, average, text, width=300, height=HEIGHT - 40)
    title, subtitle = _lift_words(deciles, outcome)
    return _house(alt.hconcat(lift, _capture_panel(deciles, outcome), spacing=30), title, subtitle)


def score_chart(probability: npt.ArrayLike, label: npt.ArrayLike, outcome: str = "churned") -> alt.LayerChart:
    """Draw how the scores of positives and of the others are spread, each class as 100 %.

    Arrays of shape (rows,): probability 0–1, label 0 or 1. Rows that lack either are left out.
    """
    scores, truth = np.asarray(probability, dtype=np.float64), np.asarray(label, dtype=np.float64)
    sides = {outcome: _finite(scores[truth == 1]), "the others": _finite(scores[truth == 0])}
    top = _top([_bulk(side) for side in sides.values()])
    rows = [row | {"side": name} for name, side in sides.items() for row in _histogram(side, top)]
    bars = (
        alt.Chart(_data(rows))
        .mark_rect(opacity=0.55)
        .encode(
            x=alt.X("from:Q", title="score", axis=_percent_axis(), scale=alt.Scale(domain=[0, top], nice=False)),
            x2="to:Q",
            y=alt.Y("share:Q", title="share of the class", axis=_percent_axis()),
            y2=alt.datum(0),
            color=alt.Color(
                "side:N",
                title=None,
                scale=alt.Scale(domain=list(sides), range=[ORANGE, BLUE]),
                legend=alt.Legend(orient="top", symbolType="square"),
            ),
        )
    )
    title, subtitle = _score_words(sides, outcome, top)
    return _house(_layers(bars, width=WIDTH, height=HEIGHT), title, subtitle)


def rivals_chart(names: Sequence[str], values: Sequence[Interval], measure: str, head: str) -> alt.LayerChart:
    """Draw one number of several contenders with its 95 % interval, one above the other; the first one is ours."""
    rows = [
        {"who": name, "value": _number(one.value), "low": _number(one.low), "high": _number(one.high), "ours": nth == 0}
        for nth, (name, one) in enumerate(zip(names, values, strict=True))
    ]
    across = alt.Scale(zero=False, padding=12)
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("who:N", sort=list(names), title=None, axis=alt.Axis(labelLimit=320)),
        color=alt.Color("ours:N", scale=alt.Scale(domain=[True, False], range=[BLUE, MUTED]), legend=None),
    )
    rule = base.mark_rule(strokeWidth=2.5).encode(
        x=alt.X("low:Q", title=measure, scale=across, axis=_FEW_TICKS), x2="high:Q"
    )
    point = base.mark_point(filled=True, size=90, opacity=1).encode(x=alt.X("value:Q", scale=across, axis=_FEW_TICKS))
    text = base.mark_text(dy=-11, fontSize=11).encode(x="value:Q", text=alt.Text("value:Q", format=".3f"))
    layers = _layers(rule, point, text, width=WIDTH - 160, height=alt.Step(34))
    return _house(layers, head, "Points with 95 % intervals, whole subscribers resampled.")


def ageing_chart(names: Sequence[str], ours: Sequence[Interval], best: Sequence[Interval]) -> alt.LayerChart:
    """Draw AUC against the model's age, beside the best baseline on the same rows."""
    sides = (("ours", ours), ("best baseline", best))
    rows = [
        {"age": name, "who": who, "value": _number(one.value), "low": _number(one.low), "high": _number(one.high)}
        for who, side in sides
        for name, one in zip(names, side, strict=True)
    ]
    colour = alt.Scale(domain=[who for who, _ in sides], range=[BLUE, MUTED])
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("age:O", sort=list(names), title="age of the model", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("who:N", title=None, scale=colour, legend=alt.Legend(orient="top")),
        xOffset=alt.XOffset("who:N", sort=[who for who, _ in sides]),
    )
    up = alt.Scale(zero=False)
    rule = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title="AUC", scale=up, axis=_FEW_TICKS), y2="high:Q")
    point = base.mark_point(filled=True, size=70, opacity=1).encode(y=alt.Y("value:Q", scale=up, axis=_FEW_TICKS))
    head = _ageing_words(names, ours)
    return _house(_layers(rule, point, width=WIDTH, height=HEIGHT - 60), head, "AUC with 95 % intervals.")


def send_time_chart(rate: npt.ArrayLike, meaning: str = "of sends were answered") -> alt.LayerChart:
    """Draw a heat map of the week.

    ``rate`` has shape (168,), 0–1, position 0 being Monday 00:00 local; NaN (nothing was sent then) stays blank.
    ``meaning`` completes "4 % …".
    """
    hours = np.asarray(rate, dtype=np.float64)
    rows: list[dict[str, Any]] = [
        {"weekday": WEEKDAYS[hour // HOURS], "hour": hour % HOURS, "rate": 100 * float(hours[hour])}
        for hour in np.flatnonzero(np.isfinite(hours)).tolist()
    ]
    base = alt.Chart(_data(rows)).encode(
        x=alt.X(
            "hour:O",
            title="local hour",
            scale=alt.Scale(domain=list(range(HOURS))),
            axis=alt.Axis(labelAngle=0, labelExpr="format(datum.value, '02d')", grid=False),
        ),
        y=alt.Y("weekday:O", title=None, scale=alt.Scale(domain=list(WEEKDAYS)), axis=alt.Axis(grid=False)),
    )
    # A legend without a range would be drawn with NaN for its labels.
    legend = alt.Legend(orient="right", gradientLength=150, labelExpr=_TENTHS_LABEL) if rows else None
    cell = base.mark_rect(stroke="white", strokeWidth=1.5, cornerRadius=3).encode(
        color=alt.Color("rate:Q", title=None, scale=alt.Scale(range=list(NIGHT), zero=False), legend=legend)
    )
    best = max(rows, key=lambda row: row["rate"], default=None)
    ring = base.transform_filter(_is_hour(best)).mark_rect(filled=False, stroke=ORANGE, strokeWidth=2.5, cornerRadius=3)
    title = _hour_words(best, meaning)
    layers = _layers(cell, ring, width=alt.Step(25), height=alt.Step(27))
    return _house(layers, title, "By local hour of the week; a blank cell is an hour without evidence.")


def to_png(chart: Chart, scale: float = 2.0) -> bytes:
    """Draw a chart as PNG; ``scale`` 2 suits a dense screen."""
    return vl_convert.vegalite_to_png(chart.to_dict(), scale=scale)


def to_svg(chart: Chart) -> str:
    """Draw a chart as SVG."""
    return vl_convert.vegalite_to_svg(chart.to_dict())


def caption(chart: Chart) -> str:
    """Give the sentence above a chart."""
    return str(chart.to_dict()["title"]["text"])


_PERCENT_LABEL = "format(datum.value, '~g') + '\\u00a0%'"
_TENTHS_LABEL = "format(datum.value, '.1f') + '\\u00a0%'"


def _house(chart: _AnyChart, title: str, subtitle: str) -> _AnyChart:
    """Give every chart the same look: the only place where fonts, sizes and lines are chosen."""
    words = alt.TitleParams(text=title, subtitle=subtitle)
    styled: _AnyChart = chart.properties(title=words, background="white", padding=14).configure(
        font=FONT,
        view=alt.ViewConfig(stroke=None),
        title=alt.TitleConfig(
            anchor="start",
            frame="bounds",
            fontSize=17,
            fontWeight="bold",
            color=INK,
            subtitleFontSize=12.5,
            subtitleColor=MUTED,
            subtitlePadding=6,
            offset=16,
        ),
        axis=alt.AxisConfig(
            labelFontSize=11.5,
            titleFontSize=12,
            titleFontWeight="normal",
            labelColor=INK,
            titleColor=MUTED,
            titlePadding=10,
            gridColor=FAINT,
            domainColor=FAINT,
            ticks=False,
            labelPadding=6,
        ),
        axisX=alt.AxisConfig(grid=False, labelFlush=False),
        legend=alt.LegendConfig(labelFontSize=12, labelColor=INK, symbolSize=140, offset=14),
    )
    return styled


def _layers(*charts: alt.Chart, width: int | alt.Step, height: int | alt.Step) -> alt.LayerChart:
    return alt.LayerChart(layer=list(charts), width=width, height=height)


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=[dict(row) for row in rows])


def _percent_axis() -> alt.Axis:
    """For values already times 100."""
    return alt.Axis(labelExpr=_PERCENT_LABEL, tickCount=6)


def _number(value: float) -> float | None:
    """JSON has no NaN; Vega leaves a null out."""
    return float(value) if np.isfinite(value) else None


def _percent(value: float) -> str:
    """Write a value that is already times 100: whole above ten, one digit below, so that 0.4 % is not "0 %"."""
    return f"{value:.0f}\u00a0%" if value >= 9.95 else f"{value:.1f}\u00a0%"


def _top(values: Sequence[float]) -> float:
    """Where a percentage axis ends: just above the highest of the values (0–1), at most at 100."""
    return min(100.0, 105 * max((value for value in values if np.isfinite(value)), default=0.0)) or 100.0


def _curve_rows(name: str, values: Sequence[float]) -> list[dict[str, Any]]:
    return [{"rows": name, "round": number, "value": _number(value)} for number, value in enumerate(values, start=1)]


def _learning_words(
    rows: Sequence[Mapping[str, Any]], best: Sequence[Mapping[str, Any]], best_iteration: int, rounds: int, metric: str
) -> tuple[str, str]:
    if not best or best[0]["value"] is None:
        return _NO_ROWS, ""
    trained = [row["value"] for row in rows[:-rounds] if row["round"] == best_iteration]
    beside = f", {trained[0]:.4f} on the training rows" if trained and trained[0] is not None else ""
    under = f"There the {metric} on later rows is {best[0]['value']:.4f}{beside}."
    if best_iteration >= rounds:
        return f"Still learning at the last round, {rounds:,}", under
    return f"After round {best_iteration:,} more training stops helping", under


def _ageing_words(names: Sequence[str], ours: Sequence[Interval]) -> str:
    if len(ours) < 2:
        return "One age only: nothing to say about going stale"
    first, last = ours[0], ours[-1]
    if last.high < first.low:
        return f"It goes stale: AUC {first.value:.3f} at {names[0]}, {last.value:.3f} at {names[-1]}"
    return f"No sign of going stale: AUC {first.value:.3f} at {names[0]}, {last.value:.3f} at {names[-1]}"


def _calibration_row(bin_: CalibrationBin) -> dict[str, float | None]:
    return {name: _number(100 * getattr(bin_, name)) for name in ("predicted", "observed", "low", "high")}


def _calibration_words(bins: Sequence[CalibrationBin], outcome: str) -> tuple[str, str]:
    if not bins or not np.isfinite(bins[-1].observed):
        return _NO_ROWS, ""
    last = bins[-1]
    head = f"Of those scored {_percent(100 * last.predicted)}, {_percent(100 * last.observed)} {outcome}"
    return head, "The highest bin. On the dashed line promise and outcome agree; bars are 95\u00a0% intervals."


def _score_strip(scores: Floats, top: float) -> alt.Chart:
    strip: alt.Chart = (
        alt.Chart(_data(_histogram(scores, top)))
        .mark_rect(color=PALE, stroke="white", strokeWidth=0.5)
        .encode(
            x=alt.X("from:Q", title="score", axis=_percent_axis(), scale=alt.Scale(domain=[0, top], nice=False)),
            x2="to:Q",
            y=alt.Y("share:Q", title="of all rows", axis=alt.Axis(labelExpr=_PERCENT_LABEL, tickCount=3)),
            y2=alt.datum(0),
        )
        .properties(width=WIDTH, height=70)
    )
    return strip


def _histogram(scores: Floats, top: float) -> list[dict[str, Any]]:
    """Share (%) of the scores in each of ``SCORE_BINS`` steps from 0 to ``top`` (%); those above are in no step."""
    counts, edges = np.histogram(100 * scores, bins=SCORE_BINS, range=(0, top))
    share = 100 * counts / max(scores.size, 1)
    return [
        {"from": low, "to": high, "share": part}
        for (low, high), part in zip(pairwise(edges.tolist()), share.tolist(), strict=True)
    ]


def _finite(values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def _bulk(scores: Floats) -> float:
    """The score below which all but one in two hundred lie: a few strays must not squeeze the rest together."""
    return float(np.quantile(scores, 0.995)) if scores.size else 0.0


def _capture_panel(deciles: Sequence[Decile], outcome: str) -> alt.LayerChart:
    start = {"part": 0.0, "value": 0.0, "low": 0.0, "high": 0.0}
    full = alt.Scale(domain=[0, 100])
    base = alt.Chart(_data([start, *(_capture_row(decile) for decile in deciles)])).encode(
        x=alt.X("part:Q", title="highest scored part of the list", axis=_percent_axis(), scale=full)
    )
    band = base.mark_area(color=PALE, opacity=0.8).encode(y=alt.Y("low:Q", scale=full), y2="high:Q")
    line = base.mark_line(color=BLUE, strokeWidth=2.2, point=alt.OverlayMarkDef(color=BLUE, size=40)).encode(
        y=alt.Y("value:Q", title=f"found, of all who {outcome}", axis=_percent_axis(), scale=full)
    )
    chance = base.mark_line(color=ORANGE, strokeDash=[5, 4], strokeWidth=1.2).encode(y="part:Q")
    return _layers(band, chance, line, width=300, height=HEIGHT - 40)


def _capture_row(decile: Decile) -> dict[str, float | None]:
    bounds = {name: _number(100 * getattr(decile.capture, name)) for name in ("value", "low", "high")}
    return {"part": 10.0 * decile.decile} | bounds


def _lift_words(deciles: Sequence[Decile], outcome: str) -> tuple[str, str]:
    if not deciles or not np.isfinite(deciles[0].lift):
        return (f"Nobody {outcome}: there is no lift to show" if deciles else _NO_ROWS), ""
    first = deciles[0]
    head = f"The top tenth holds {_percent(100 * first.capture.value)} of all who {outcome}"
    return head, f"That is {first.lift:.1f} times as many as in a tenth at random (dashed). Band: 95\u00a0% interval."


def _score_words(sides: Mapping[str, Floats], outcome: str, top: float) -> tuple[str, str]:
    positives, others = sides.values()
    if not positives.size or not others.size:
        return _NO_ROWS if not positives.size + others.size else "Only one class: nothing to tell apart", ""
    ours, theirs = _percent(100 * float(positives.mean())), _percent(100 * float(others.mean()))
    beyond = int(np.count_nonzero(100 * np.concatenate([positives, others]) > top))
    hidden = f" {beyond:,} scores above {_percent(top)} are not drawn." if beyond else ""
    head = f"Those who {outcome} were scored {ours} on average, the others {theirs}"
    return head, f"{positives.size:,} who {outcome} and {others.size:,} others, each class taken as 100\u00a0%.{hidden}"


def _is_hour(row: Mapping[str, Any] | None) -> str:
    return f"datum.weekday == '{row['weekday']}' && datum.hour == {row['hour']}" if row else "false"


def _hour_words(best: Mapping[str, Any] | None, meaning: str) -> str:
    if best is None:
        return _NO_ROWS
    return f"Strongest on {best['weekday']} at {best['hour']:02d}:00, when {_percent(best['rate'])} {meaning}"
