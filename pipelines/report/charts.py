"""The report's drawings.

What enters: numbers. What leaves: SVG texts. The promise: the same numbers give the same bytes, and no drawing loads anything.

Weighed: charts as inline SVG share one set of element identifiers and must be renamed apart; as images they stay apart, carry
an alternative text, and a browser runs nothing in them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import vl_convert

from models.churn import BANDS
from pipelines.report.words import DAYS
from training.evaluation import CalibrationBin
from training.week import Week

INK, BLUE, GREEN, GREY, AMBER, RED = "#1d2733", "#1f5fa8", "#2c7a57", "#a9b7c9", "#e0a443", "#b3402e"
_PERCENT_AXIS = alt.Axis(format="~%", tickCount=5, grid=True)
SIZES = (("sure", 0.2, 1.0), ("fair", 0.5, 0.62), ("unsure", math.inf, 0.3))
"""Of a square in the heat map: how far the interval may reach from the rate, relative to the list's average, and its side."""
_CELL = 26


def _svg(chart: Any, size: Mapping[str, Any]) -> str:
    # Without labels for screen readers, which make a drawing thrice as large: nobody hears what is inside an image.
    styled = (
        chart.properties(**size)
        .configure(font="Arial", background="transparent", aria=False)
        .configure_view(stroke=None)
    )
    styled = styled.configure_axis(labelFontSize=13, titleFontSize=13, titleFontWeight="normal", labelColor=INK)
    return vl_convert.vegalite_to_svg(styled.configure_legend(labelFontSize=13, titleFontSize=13).to_dict())


def _values(rows: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def calibration_chart(groups: Sequence[CalibrationBin]) -> str:
    """What was said against what happened, with what chance allows."""
    top = max(max(g.predicted, g.high) for g in groups)
    scale = alt.Scale(domain=[0, top], nice=True)
    line = alt.Chart(_values({"at": at} for at in (0, top))).mark_line(color="#8a94a3", strokeDash=[5, 4])
    points = alt.Chart(
        _values({"said": g.predicted, "seen": g.observed, "low": g.low, "high": g.high} for g in groups)
    ).encode(x=alt.X("said:Q", title="It said", scale=scale, axis=_PERCENT_AXIS))
    layers = alt.layer(
        line.encode(x="at:Q", y="at:Q"),
        points.mark_rule(color=BLUE).encode(
            y=alt.Y("low:Q", title="It happened", scale=scale, axis=_PERCENT_AXIS), y2="high:Q"
        ),
        points.mark_circle(color=BLUE, size=60, opacity=1).encode(y="seen:Q"),
    )
    return _svg(layers, {"width": 250, "height": 230})


def grade_chart(shares: Sequence[tuple[str, float, float]]) -> str:
    """Bars by grade: its share of the leads and of the expected conversions."""
    kinds = ("leads", "expected conversions")
    rows = ({"grade": g, "of": kind, "share": s} for g, *both in shares for kind, s in zip(kinds, both, strict=True))
    chart = (
        alt.Chart(_values(rows))
        .mark_bar()
        .encode(
            y=alt.Y("grade:N", title=None, sort=[grade for grade, *_ in shares]),
            yOffset=alt.YOffset("of:N", sort=list(kinds)),
            x=alt.X("share:Q", title=None, axis=_PERCENT_AXIS),
            color=alt.Color(
                "of:N",
                title=None,
                scale=alt.Scale(domain=list(kinds), range=[GREY, GREEN]),
                legend=alt.Legend(orient="top", direction="horizontal"),
            ),
        )
    )
    return _svg(chart, {"width": 280, "height": 230})


def band_chart(counts: Mapping[str, int]) -> str:
    """Bars of people by risk."""
    rows = ({"band": band, "people": count} for band, count in counts.items())
    colours = alt.Scale(domain=list(BANDS), range=[GREY, AMBER, RED])
    chart = (
        alt.Chart(_values(rows))
        .mark_bar()
        .encode(
            y=alt.Y("band:N", title=None, sort=list(reversed(BANDS))),
            x=alt.X("people:Q", title=None, axis=alt.Axis(grid=True, tickCount=4, format=",d")),
            color=alt.Color("band:N", scale=colours, legend=None),
        )
    )
    return _svg(chart, {"width": 260, "height": 130})


def sureness(week: Week, hour: int) -> str:
    """In which of ``SIZES`` an hour's rate is known."""
    reach = float(max(week.high[hour] - week.rate[hour], week.rate[hour] - week.low[hour]))
    relative = reach / week.average if week.average else math.inf
    return next(name for name, most, _ in SIZES if relative <= most)


def heat_chart(week: Week) -> str:
    """The week by hour: the colour is the rate, a small square is little known, a frame really differs from the average."""
    sides = {name: side for name, _, side in SIZES}
    rows = [
        {
            "day": DAYS[hour // 24][:3],
            "hour": hour % 24,
            "rate": float(week.rate[hour]),
            "side": (sides[sureness(week, hour)] * (_CELL - 4)) ** 2,
            "differs": bool(week.differs[hour]),
        }
        for hour in np.flatnonzero(np.isfinite(week.rate)).tolist()
    ]
    across = alt.X("hour:O", title="Hour of the reader's clock", axis=alt.Axis(labelAngle=0), scale=_ordinal(range(24)))
    down = alt.Y("day:O", title=None, scale=_ordinal(day[:3] for day in DAYS))
    size = alt.Size("side:Q", scale=None)
    # Steps, not a gradient: they are easier to tell apart, and a gradient is numbered anew in every drawing.
    steps = alt.Scale(type="quantize", scheme="yellowgreenblue")
    colour = alt.Color(
        "rate:Q", title="Answered", scale=steps, legend=alt.Legend(format=".1%", type="symbol", symbolType="square")
    )
    base = alt.Chart(_values(rows)).encode(x=across, y=down, size=size)
    squares = base.mark_point(shape="square", filled=True, opacity=1).encode(color=colour)
    framed = base.transform_filter("datum.differs").mark_point(
        shape="square", filled=False, stroke=INK, strokeWidth=2.5, opacity=1
    )
    return _svg(alt.layer(squares, framed), {"width": 24 * _CELL, "height": 7 * _CELL})


def _ordinal(domain: Iterable[Any]) -> alt.Scale:
    return alt.Scale(domain=list(domain))
