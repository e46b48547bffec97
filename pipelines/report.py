"""The report: one page a marketer opens to see what the list is, how far to trust the scores, and what to do with them.

What enters: facts about the list, a card for each model and the scored table. What leaves: one HTML file. The promise:
it loads nothing from anywhere, every word that came from data is escaped, and it says plainly whether the people in it
are real, what beats the simplest rule and what does not, and what this data cannot tell.

Weighed: charts as inline SVG share one set of element identifiers and must be renamed apart; as images they stay apart,
carry an alternative text, and a browser runs nothing in them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import altair as alt
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import vl_convert

from models.churn import BANDS
from models.spec import ModelSpec
from pipelines.export import GRADES, expected_by_group, replacing
from pipelines.pages import Html, bullets, document, figure, header, paragraph, section, table, tag, text
from training.evaluation import CalibrationBin, Evaluation, Interval
from training.fit import Judgement

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

STATUS_MEANINGS = {
    "ok": "fresh data",
    "stale": "old data: the score may lag behind",
    "partial": "some of the data was missing",
    "prior": "nothing known about them: the list's average",
    "no_consent": "withheld consent: no personal score, in no ranking",
}
_AGES = (("within 7 days", 7.0), ("8 to 30 days ago", 30.0), ("31 to 90 days ago", 90.0), ("longer ago", math.inf))


@dataclass(frozen=True)
class MetricRow:
    """One measure of a model beside its simplest baseline, both on the same rows.

    ``form``: ``pairs`` shows 0.78 as "78 of 100", ``times`` as "0.78 times", ``number`` as it is. ``gain`` is the
    paired difference (above zero: ours is better); without it the verdict compares the interval of ``ours`` with
    ``baseline``.
    """

    name: str
    meaning: str
    ours: Interval
    baseline: float
    gain: Interval | None = None
    form: Literal["pairs", "times", "number"] = "number"
    higher_is_better: bool = True


@dataclass(frozen=True)
class ModelCard:
    """What one model answers and how good it is; with ``refused_reason`` there is no model, and that is why."""

    model: str
    question: str
    version: str = ""
    judged_on: str = ""
    baseline_name: str = ""
    metrics: tuple[MetricRow, ...] = ()
    calibration: tuple[CalibrationBin, ...] = ()
    top_reasons: tuple[str, ...] = ()
    refused_reason: str | None = None


@dataclass(frozen=True, eq=False)
class ReportInput:
    """Everything the page tells.

    ``heat`` has shape (7, 24): the part of mail answered (0-1) by weekday (0 = Monday) and the reader's local hour, NaN
    where too little was sent. ``scored`` is the table of ``pipelines.score``; sections whose columns it lacks are left
    out. ``exports`` says where the files are.
    """

    title: str
    simulated: bool
    list_facts: Mapping[str, str]
    models: Sequence[ModelCard]
    scored: pa.Table
    caveats: Sequence[str]
    heat: npt.NDArray[np.float64] | None = None
    exports: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class _Outcome:
    """How a model's rows and its positive label are called in a sentence."""

    unit: str = "people"
    cases: str = "cases of"
    happened: str = "did"
    rate: str = "positive"


_OUTCOMES = {
    "churn": _Outcome("people", "cases of", "went quiet or opted out", "loss"),
    "lead_score": _Outcome("people", "cases of", "converted", "conversion"),
    "send_time": _Outcome("sends", "sends to", "were opened or clicked", "response"),
}


def model_card(
    spec: ModelSpec, version: str, judgement: Judgement | None, top_reasons: Sequence[str] = ()
) -> ModelCard:
    """The card of a fitted model; without a judgement it says that nothing was left to judge it on."""
    if judgement is None:
        return ModelCard(spec.name, spec.question, version, top_reasons=tuple(top_reasons))
    return ModelCard(
        model=spec.name,
        question=spec.question,
        version=version,
        judged_on=_judged_on(spec.name, judgement.ours),
        baseline_name=judgement.baseline_name.replace("_", " "),
        metrics=_metrics(spec.name, judgement),
        calibration=judgement.ours.calibration,
        top_reasons=tuple(top_reasons),
    )


def refused_card(spec: ModelSpec, reason: str) -> ModelCard:
    """The card of a model that this data could not make, and why."""
    return ModelCard(spec.name, spec.question, refused_reason=reason.removeprefix(f"{spec.name}: "))


def _outcome(model: str) -> _Outcome:
    return _OUTCOMES.get(model, _Outcome())


def _judged_on(model: str, ours: Evaluation) -> str:
    outcome = _outcome(model)
    return (
        f"Judged on {ours.rows:,} {outcome.cases} {ours.subscribers:,} people, all later than what it learnt from; "
        f"{_percent(ours.base_rate)} {outcome.happened}."
    )


def _metrics(model: str, judged: Judgement) -> tuple[MetricRow, ...]:
    outcome = _outcome(model)
    return (
        MetricRow(
            "Puts them in the right order",
            f"Take one of the {outcome.unit} that {outcome.happened} and one that did not: how often does it rank the "
            "first one higher? Tossing a coin gives 50 of 100.",
            judged.ours.auc,
            judged.baseline.auc.value,
            judged.gain.auc_gain,
            "pairs",
        ),
        MetricRow(
            "Finds the best tenth",
            f"In the tenth of the {outcome.unit} it ranks highest, how many times the average {outcome.rate} rate?",
            judged.ours.lift_top_10,
            judged.baseline.lift_top_10.value,
            form="times",
        ),
        MetricRow(
            "Is seldom surprised",
            "Average surprise at what really happened (log loss). Lower is better.",
            judged.ours.log_loss,
            judged.baseline.log_loss.value,
            judged.gain.log_loss_gain,
            higher_is_better=False,
        ),
    )


def write_report(out: Path, report: ReportInput) -> Path:
    """Write the page, whole or not at all, and return its path.

    Raises
    ------
    UnusableOption
        When the file cannot be written.
    """
    page = _page(report)
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")
    return out


# --- the page


def _page(report: ReportInput) -> Html:
    people = report.scored.filter(pc.not_equal(report.scored["status"], "no_consent"))
    sections = [
        _list_section(report),
        _glance_section(people),
        _models_section(report.models),
        _leads_section(people),
        _churn_section(people),
        _send_time_section(people, report.heat),
        _freshness_section(report.scored),
        _caveats_section(report.caveats),
        _exports_section(report.exports),
    ]
    return document(report.title, header(report.title, report.simulated), sections, _footer(report))


def _footer(report: ReportInput) -> Html:
    versions = ", ".join(f"{card.model} {card.version}" for card in report.models if card.version)
    words = [f"Scored {moment}." for moment in _scored_at(report.scored)]
    if versions:
        words.append(f"Model versions: {versions}.")
    return tag("footer", paragraph(" ".join(words))) if words else Html("")


def _scored_at(scored: pa.Table) -> Iterator[str]:
    latest = pc.max(scored["scored_at"]).as_py() if "scored_at" in scored.column_names else None
    if latest is not None:
        yield f"{latest:%d %B %Y, %H:%M} UTC"


def _list_section(report: ReportInput) -> Html:
    facts = [tag("div", tag("dt", text(name)), tag("dd", text(value))) for name, value in report.list_facts.items()]
    return section("What this list is", tag("dl", *facts, class_="facts"))


def _glance_section(people: pa.Table) -> Html:
    tiles = [("People scored", f"{people.num_rows:,}", "who did not withhold consent")]
    if _has(people, "lead_score_grade"):
        best = _count(people, "lead_score_grade", "A")
        tiles.append(("Grade A leads", f"{best:,}", "the ones to speak to first"))
        expected = pc.sum(people["lead_score_probability"]).as_py()
        tiles.append(("Expected conversions", _amount(expected), "the sum of all leads' chances"))
    if _has(people, "churn_band"):
        tiles.append(("At high risk", f"{_count(people, 'churn_band', 'high'):,}", "of going quiet or opting out"))
    if _has(people, "send_time_confident"):
        sure = pc.sum(people["send_time_confident"]).as_py()
        tiles.append(("Own best hour", f"{sure or 0:,}", "people for whom it clearly beats the default"))
    return section("At a glance", tag("div", *(_tile(*tile) for tile in tiles), class_="tiles"))


def _tile(name: str, value: str, note: str) -> Html:
    number = tag("span", text(value), class_="number")
    return tag("p", tag("span", text(name), class_="name"), number, tag("span", text(note)), class_="tile")


# --- models


def _models_section(models: Sequence[ModelCard]) -> Html:
    intro = (
        "Each model is shown beside the simplest rule that could do its work, on data later than what it learnt from. "
        "A range such as “74 to 82” holds the true value with 95 % confidence."
    )
    return section("How far to trust the models", paragraph(intro), *(_card(card) for card in models))


def _card(card: ModelCard) -> Html:
    title = tag("h3", text(card.question))
    name = paragraph(f"Model {card.model}{f', version {card.version}' if card.version else ''}", "label")
    if card.refused_reason is not None:
        why = tag(
            "p",
            tag("strong", text("Not made from this data. ")),
            text(card.refused_reason[:1].upper() + card.refused_reason[1:]),
        )
        return tag("article", title, name, why, class_="card refused")
    judged = paragraph(card.judged_on or "Too little data was left to judge it on; take its scores with care.")
    metrics = tag("div", *(_metric(row, card.baseline_name) for row in card.metrics), class_="metrics")
    return tag("article", title, name, judged, metrics, *_calibration(card), *_looks_at(card), class_="card")


def _metric(row: MetricRow, baseline_name: str) -> Html:
    verdict, kind = _verdict(row)
    known = math.isfinite(row.ours.low) and math.isfinite(row.ours.high)
    interval = f"{_bare(row.ours.low, row)} to {_bare(row.ours.high, row)}" if known else "range not known"
    return tag(
        "div",
        tag("h4", text(row.name)),
        tag("p", tag("span", text(_shown(row.ours.value, row)), class_="number"), text(f" ({interval})")),
        paragraph(f"Simplest rule, {baseline_name} alone: {_shown(row.baseline, row)}"),
        tag("p", tag("span", text(verdict), class_=f"verdict {kind}")),
        paragraph(row.meaning, "meaning"),
        class_="metric",
    )


def _verdict(row: MetricRow) -> tuple[str, str]:
    """What the comparison with the simplest rule amounts to, and its CSS class."""
    gain = row.gain if row.gain is not None else _unpaired_gain(row)
    if not (math.isfinite(gain.low) and math.isfinite(gain.high)):
        return "Too little data to tell", "even"
    if gain.low > 0:
        return "Better than the simplest rule", "better"
    if gain.high < 0:
        return "Worse than the simplest rule", "worse"
    return "No clear difference from the simplest rule", "even"


def _unpaired_gain(row: MetricRow) -> Interval:
    ours, base = row.ours, row.baseline
    if row.higher_is_better:
        return Interval(ours.value - base, ours.low - base, ours.high - base)
    return Interval(base - ours.value, base - ours.high, base - ours.low)


def _bare(value: float, row: MetricRow) -> str:
    if not math.isfinite(value):
        return "not known"
    return {"pairs": f"{100 * value:.0f}", "times": f"{value:.1f}", "number": f"{value:.3f}"}[row.form]


def _shown(value: float, row: MetricRow) -> str:
    ending = {"pairs": " of 100", "times": " times", "number": ""}[row.form] if math.isfinite(value) else ""
    return _bare(value, row) + ending


def _calibration(card: ModelCard) -> Iterator[Html]:
    """What the probabilities are worth: three sentences, a chart, and all groups in a table."""
    groups = sorted(card.calibration, key=lambda group: group.predicted)
    if not groups:
        return
    outcome = _outcome(card.model)
    fits = sum(group.low <= group.predicted <= group.high for group in groups)
    yield tag("h4", text("Can its percentages be taken at their word?"))
    told = dict.fromkeys((len(groups) - 1, len(groups) // 2, 0))
    sentences = bullets(_calibration_words(groups[place], outcome) for place in told)
    verdict = paragraph(f"In {fits} of {len(groups)} groups what it said lies within what chance allows.")
    alternative = (
        f"Chart of what the model said against what happened in {len(groups)} groups; the table has the numbers."
    )
    chart = figure(_calibration_chart(groups), alternative, "On the line: what it said is what happened.")
    yield tag("div", tag("div", sentences, verdict), chart, class_="beside")
    yield tag("details", tag("summary", text("All groups")), _calibration_table(groups, outcome))


def _calibration_words(group: CalibrationBin, outcome: _Outcome) -> str:
    of = _round_crowd(group.predicted)
    said, seen = _percent(group.predicted), f"{of * group.observed:.0f}"
    return f"Of {of:,} {outcome.unit} scored about {said}, {seen} {outcome.happened}."


def _round_crowd(rate: float) -> int:
    """The round number of people of whom about two or more are expected."""
    return next((crowd for crowd in (100, 1_000) if crowd * rate >= 1.95), 10_000)


def _calibration_table(groups: Sequence[CalibrationBin], outcome: _Outcome) -> Html:
    rows = [
        (_percent(g.predicted), _percent(g.observed), f"{_percent(g.low)} to {_percent(g.high)}", f"{g.count:,}")
        for g in groups
    ]
    head = ("It said", f"In fact {outcome.happened}", "Chance allows", outcome.unit.capitalize())
    return table(head, rows, "What it said and what happened")


def _looks_at(card: ModelCard) -> Iterator[Html]:
    if card.top_reasons:
        yield tag("h4", text("What it looks at most"))
        yield bullets(card.top_reasons)


# --- leads, churn, send time


def _leads_section(people: pa.Table) -> Html:
    if not _has(people, "lead_score_grade") or not people.num_rows:
        return Html("")
    counts = {grade: _count(people, "lead_score_grade", grade) for grade in GRADES}
    expected = expected_by_group(people["lead_score_grade"], people["lead_score_probability"])
    total = sum(expected.values())
    shares = [(g, _part(counts[g], people.num_rows), _part(expected.get(g, 0.0), total)) for g in GRADES]
    rows = [
        (grade, f"{counts[grade]:,}", _percent(of_leads), _amount(expected.get(grade, 0.0)), _percent(of_conversions))
        for grade, of_leads, of_conversions in shares
    ]
    head = ("Grade", "Leads", "Share", "Expected to convert", "Share")
    words = (
        f"Grade A is {_percent(shares[0][1])} of the leads and {_percent(shares[0][2])} of the expected conversions."
    )
    chart = figure(_grade_chart(shares), f"Bar chart by grade. {words} The table has the numbers.", "Share by grade")
    numbers = table(head, rows, "Leads and expected conversions by grade")
    best = people.filter(pc.equal(people["lead_score_grade"], "A"))
    why = _reasons("What most often speaks for the A leads", best, "lead_score_reasons")
    return section("Your leads", paragraph(words), tag("div", numbers, chart, class_="beside"), *why)


def _churn_section(people: pa.Table) -> Html:
    if not _has(people, "churn_band") or not people.num_rows:
        return Html("")
    expected = expected_by_group(people["churn_band"], people["churn_probability"])
    counts = {band: _count(people, "churn_band", band) for band in BANDS}
    rows = [(b, f"{counts[b]:,}", _percent(counts[b] / people.num_rows), _amount(expected.get(b, 0.0))) for b in BANDS]
    lost = (
        f"In the high band there are {counts['high']:,} people; about {_amount(expected.get('high', 0.0))} of them are "
        "expected to go quiet or opt out if nothing changes."
    )
    chart = figure(_band_chart(counts), f"Bar chart of people by risk band. {lost}", "People by risk of going quiet")
    numbers = table(("Risk", "People", "Share", "Expected to be lost"), rows, "People by risk of going quiet")
    endangered = people.filter(pc.equal(people["churn_band"], "high"))
    why = _reasons("What most often endangers those at high risk", endangered, "churn_reasons")
    return section("Who is slipping away", paragraph(lost), tag("div", numbers, chart, class_="beside"), *why)


def _reasons(title: str, people: pa.Table, column: str) -> Iterator[Html]:
    """The reasons that push up most people's score, numbers left out so that like counts with like."""
    if not _has(people, column) or not people.num_rows:
        return
    given = Counter(
        kind
        for reasons in people[column].to_pylist()
        for kind in {_kind_of_reason(r) for r in reasons or () if r[:1] == "↑"}
    )
    ranked = sorted(given.items(), key=lambda item: (-item[1], item[0]))[:_REASONS_SHOWN]
    if ranked:
        yield tag("h3", text(title))
        yield bullets(f"{kind}: {_percent(count / people.num_rows)} of them" for kind, count in ranked)


def _kind_of_reason(reason: str) -> str:
    """
    >>> _kind_of_reason("↑ last click 12 days ago")
    'last click … days ago'
    """
    return re.sub(r"\d[\d,.]*", "…", reason.removeprefix("↑").strip())


def _send_time_section(people: pa.Table, heat: npt.NDArray[np.float64] | None) -> Html:
    parts = [*_own_hours(people), *_heat_map(heat)]
    return section("When to send", *parts) if parts else Html("")


def _own_hours(people: pa.Table) -> Iterator[Html]:
    if not _has(people, "send_time_confident") or not people.num_rows:
        return
    sure = people.filter(people["send_time_confident"])
    words = (
        f"For {sure.num_rows:,} of {people.num_rows:,} people ({_percent(sure.num_rows / people.num_rows)}) a time of "
        "their own clearly beats the default."
    )
    gain = pc.quantile(sure["send_time_gain"], 0.5)[0].as_py() if sure.num_rows else None
    if gain is not None:
        words += f" Half of these gain at least {_percent(gain)} in responses."
    yield paragraph(words)
    if sure.num_rows < people.num_rows:
        yield paragraph("For everybody else this data shows nothing that is clearly better than the default.")


def _heat_map(heat: npt.NDArray[np.float64] | None) -> Iterator[Html]:
    if heat is None or not np.isfinite(heat).any():
        return
    order = np.argsort(-np.nan_to_num(heat, nan=-1.0), axis=None, kind="stable")[:_HOURS_SHOWN]
    best = [(DAYS[place // 24], place % 24, float(heat.flat[place])) for place in order.tolist()]
    told = "; ".join(f"{day} {hour:02d}:00 ({_percent(rate)})" for day, hour, rate in best if math.isfinite(rate))
    words = f"Answered most, of what was sent at that hour of the reader's own clock: {told}."
    yield tag("h3", text("When this list answers"))
    yield paragraph(words)
    drawing = figure(
        _heat_chart(heat), f"Heat map of the week by hour. {words}", "Empty: nothing, or too little, was sent."
    )
    yield tag(
        "div", drawing, class_="scroll wide", tabindex="0", role="region", aria_label="Heat map, scrolls sideways"
    )


# --- freshness, caveats, exports


def _freshness_section(scored: pa.Table) -> Html:
    counts = Counter(scored["status"].to_pylist())
    statuses = [*STATUS_MEANINGS, *sorted(set(counts) - set(STATUS_MEANINGS))]
    rows = [
        (status, STATUS_MEANINGS.get(status, ""), f"{counts[status]:,}", _percent(counts[status] / scored.num_rows))
        for status in statuses
        if counts[status]
    ]
    numbers = table(("Status", "What it means", "People", "Share"), rows, "People by the state of their data", words=2)
    return section("How fresh the data is", *_ages(scored), numbers, *_last_engagement(scored))


def _ages(scored: pa.Table) -> Iterator[Html]:
    ages = pc.drop_null(scored["feature_age_s"])
    if len(ages):
        middle, oldest = (pc.quantile(ages, part)[0].as_py() for part in (0.5, 1.0))
        yield paragraph(f"Half of the scores used data younger than {_age(middle)}; the oldest was {_age(oldest)} old.")


def _age(seconds: float) -> str:
    """
    >>> _age(5400), _age(1_000_000)
    ('90 minutes', '12 days')
    """
    for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length or (name == "minutes" and seconds >= 90):
            return f"{seconds / length:,.0f} {name}"
    return "two minutes"


def _last_engagement(scored: pa.Table) -> Iterator[Html]:
    if not (_has(scored, "scored_at") and scored.num_rows):
        return
    microseconds = pc.subtract(scored["scored_at"], scored["last_engagement_at"]).cast(pa.int64())
    days = microseconds.cast(pa.float64()).to_numpy(zero_copy_only=False) / 86_400e6
    floors = (-math.inf, *(limit for _, limit in _AGES[:-1]))
    counts = {
        words: int(((days > low) & (days <= high)).sum()) for low, (words, high) in zip(floors, _AGES, strict=True)
    }
    counts["never"] = int(np.isnan(days).sum())
    rows = [(words, f"{count:,}", _percent(count / scored.num_rows)) for words, count in counts.items()]
    yield table(("Last engagement", "People", "Share"), rows, "When people were last active")


def _caveats_section(caveats: Sequence[str]) -> Html:
    return section("What this data cannot tell", bullets(caveats)) if caveats else Html("")


def _exports_section(exports: Sequence[str]) -> Html:
    return section("Where the export is", bullets(exports)) if exports else Html("")


# --- numbers in words


def _percent(share: float) -> str:
    r"""
    >>> _percent(0.3), _percent(0.0123), _percent(0.0004)
    ('30\xa0%', '1.2\xa0%', '0.04\xa0%')
    """
    size = abs(share)
    digits = 0 if size >= 0.095 or size == 0 else 1 if size >= 0.0095 else 2
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def _amount(expected: float | None) -> str:
    value = expected or 0.0
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:,.0f}"


def _part(some: float, whole: float) -> float:
    return some / whole if whole else 0.0


def _has(table: pa.Table, column: str) -> bool:
    return column in table.column_names


def _count(table: pa.Table, column: str, value: str) -> int:
    return int(pc.sum(pc.equal(table[column], value)).as_py() or 0)


# --- charts


def _svg(chart: Any, size: Mapping[str, int]) -> str:
    styled = chart.properties(**size).configure(font="Arial", background="transparent").configure_view(stroke=None)
    styled = styled.configure_axis(labelFontSize=13, titleFontSize=13, titleFontWeight="normal", labelColor=_INK)
    return vl_convert.vegalite_to_svg(styled.configure_legend(labelFontSize=13, titleFontSize=13).to_dict())


def _values(rows: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _calibration_chart(groups: Sequence[CalibrationBin]) -> str:
    top = max(max(g.predicted, g.high) for g in groups)
    scale = alt.Scale(domain=[0, top], nice=True)
    line = alt.Chart(_values({"at": at} for at in (0, top))).mark_line(color="#8a94a3", strokeDash=[5, 4])
    points = alt.Chart(
        _values({"said": g.predicted, "seen": g.observed, "low": g.low, "high": g.high} for g in groups)
    ).encode(x=alt.X("said:Q", title="It said", scale=scale, axis=_PERCENT_AXIS))
    layers = alt.layer(
        line.encode(x="at:Q", y="at:Q"),
        points.mark_rule(color=_BLUE).encode(
            y=alt.Y("low:Q", title="It happened", scale=scale, axis=_PERCENT_AXIS), y2="high:Q"
        ),
        points.mark_circle(color=_BLUE, size=60, opacity=1).encode(y="seen:Q"),
    )
    return _svg(layers, {"width": 250, "height": 230})


def _grade_chart(shares: Sequence[tuple[str, float, float]]) -> str:
    kinds = ("leads", "expected conversions")
    rows = ({"grade": g, "of": kind, "share": s} for g, *both in shares for kind, s in zip(kinds, both, strict=True))
    chart = (
        alt.Chart(_values(rows))
        .mark_bar()
        .encode(
            y=alt.Y("grade:N", title=None, sort=list(GRADES)),
            yOffset=alt.YOffset("of:N", sort=list(kinds)),
            x=alt.X("share:Q", title=None, axis=_PERCENT_AXIS),
            color=alt.Color(
                "of:N",
                title=None,
                scale=alt.Scale(domain=list(kinds), range=["#a9b7c9", _GREEN]),
                legend=alt.Legend(orient="top", direction="horizontal"),
            ),
        )
    )
    return _svg(chart, {"width": 300, "height": 230})


def _band_chart(counts: Mapping[str, int]) -> str:
    rows = ({"band": band, "people": count} for band, count in counts.items())
    colours = alt.Scale(domain=list(BANDS), range=["#a9b7c9", "#e0a443", "#b3402e"])
    chart = (
        alt.Chart(_values(rows))
        .mark_bar()
        .encode(
            y=alt.Y("band:N", title=None, sort=list(reversed(BANDS))),
            x=alt.X("people:Q", title=None, axis=alt.Axis(grid=True, tickCount=4, format=",d")),
            color=alt.Color("band:N", scale=colours, legend=None),
        )
    )
    return _svg(chart, {"width": 290, "height": 130})


def _heat_chart(heat: npt.NDArray[np.float64]) -> str:
    rows = (
        {"day": DAYS[day][:3], "hour": hour, "rate": float(heat[day, hour])}
        for day in range(7)
        for hour in range(24)
        if math.isfinite(heat[day, hour])
    )
    chart = (
        alt.Chart(_values(rows))
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(
            x=alt.X(
                "hour:O",
                title="Hour of the reader's clock",
                axis=alt.Axis(labelAngle=0),
                scale=alt.Scale(domain=list(range(24))),
            ),
            y=alt.Y("day:O", title=None, scale=alt.Scale(domain=[day[:3] for day in DAYS])),
            # Steps, not a gradient: they are easier to tell apart, and a gradient is numbered anew in every drawing.
            color=alt.Color(
                "rate:Q",
                title="Answered",
                scale=alt.Scale(type="quantize", scheme="blues"),
                legend=alt.Legend(format=".1%", type="symbol", symbolType="square"),
            ),
        )
    )
    return _svg(chart, {"width": 624, "height": 196})


_INK = "#1d2733"
_BLUE = "#1f5fa8"
_GREEN = "#2c7a57"
_PERCENT_AXIS = alt.Axis(format="~%", tickCount=5, grid=True)
_REASONS_SHOWN = 5
_HOURS_SHOWN = 3
