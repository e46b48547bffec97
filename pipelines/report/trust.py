"""How far to trust the models: a card for each, beside the simplest rule that could do its work.

What enters: cards. What leaves: a part of the page. The promise: a win is called a win only where the paired interval says so,
and a model that was refused or could not be judged has a card that says that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from models.registry import Version
from models.spec import ModelSpec
from pipelines.pages import Html, bullets, figure, paragraph, section, table, tag, text
from pipelines.report.charts import calibration_chart
from pipelines.report.words import crowd, from_data, percent
from training.evaluation import Band, CalibrationBin, Evaluation, Interval
from training.fit import Judgement

HOURS_BASELINE = "everybody's histogram of hours"


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
    bands: tuple[Band, ...] = ()
    top_reasons: tuple[str, ...] = ()
    refused_reason: str | None = None


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
    """The card of a fitted model; without a judgement it says that there is none."""
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
        bands=judgement.bands,
        top_reasons=tuple(top_reasons),
    )


def hours_card(spec: ModelSpec, version: Version) -> ModelCard:
    """The card of send times learnt from the hours of activity, on a list that knows no sends."""
    ours, baseline, gain = (
        _logged(version, name) for name in ("hours_log_likelihood", "baseline_log_likelihood", "hours_gain")
    )
    row = MetricRow(
        "Foretells the hour",
        "Mean log-likelihood of the local hour of later activity; nearer to 0 is better.",
        ours,
        baseline.value,
        gain,
    )
    return ModelCard(
        model=spec.name,
        question=spec.question,
        version=version.version,
        judged_on=f"Judged on {version.metrics['later_events']:,.0f} later activities.",
        baseline_name=HOURS_BASELINE,
        metrics=(row,),
    )


def _logged(version: Version, name: str) -> Interval:
    """An interval among a run's metrics."""
    nothing = float("nan")
    return Interval(*(version.metrics.get(f"{name}{end}", nothing) for end in ("", "_low", "_high")))


def refused_card(spec: ModelSpec, reason: str) -> ModelCard:
    """The card of a model that there is none of, and why."""
    return ModelCard(spec.name, spec.question, refused_reason=reason.removeprefix(f"{spec.name}: "))


def _outcome(model: str) -> _Outcome:
    return _OUTCOMES.get(model, _Outcome())


def _judged_on(model: str, ours: Evaluation) -> str:
    outcome = _outcome(model)
    return (
        f"Judged on {ours.rows:,} {outcome.cases} {ours.subscribers:,} people, all later than what it learnt from; "
        f"{percent(ours.base_rate)} {outcome.happened}."
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


def trust_section(cards: Sequence[ModelCard]) -> Html:
    """Every model in a line, and its card for who wants to know."""
    intro = (
        "Each model stands beside the simplest rule that could do its work, on data later than what it learnt from. "
        "A range such as “74 to 82” holds the true value with 95 % confidence."
    )
    return section("How far to trust the models", paragraph(intro), *(_card(card) for card in cards))


def _card(card: ModelCard) -> Html:
    verdict, kind = _summary(card)
    title = tag("h3", text(card.question))
    summary = tag("summary", title, tag("span", text(verdict), class_=f"verdict {kind}"))
    return tag("details", summary, *_inside(card), class_="card")


def _summary(card: ModelCard) -> tuple[str, str]:
    """A card in a few words, and their CSS class: the verdict on its first measure."""
    if card.refused_reason is not None:
        return "Not there", "even"
    return _verdict(card.metrics[0]) if card.metrics else ("Not judged", "even")


def _inside(card: ModelCard) -> Iterator[Html]:
    yield tag("p", text(f"Model {card.model}"), *_version(card.version), class_="label")
    if card.refused_reason is not None:
        reason = card.refused_reason[:1].upper() + card.refused_reason[1:]
        yield tag("p", tag("strong", text("There is no such model. ")), from_data(reason, 1_000))
        return
    yield paragraph(
        card.judged_on or "Nothing is on record of how well it does on later data: take its scores with care."
    )
    yield tag("div", *(_metric(row, card.baseline_name) for row in card.metrics), class_="metrics")
    yield from _calibration(card)
    if card.top_reasons:
        yield tag("h4", text("What it looks at most"))
        yield tag("ul", *(tag("li", from_data(reason)) for reason in card.top_reasons))


def _version(version: str) -> Iterator[Html]:
    if version:
        yield text(", version ")
        yield from_data(version)


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
    chart = figure(calibration_chart(groups), alternative, "On the line: what it said is what happened.")
    yield tag("div", tag("div", sentences, verdict), chart, class_="beside")
    yield _calibration_table(groups, outcome)


def _calibration_words(group: CalibrationBin, outcome: _Outcome) -> str:
    of = crowd(group.predicted)
    said, seen = percent(group.predicted), f"{of * group.observed:.0f}"
    return f"Of {of:,} {outcome.unit} scored about {said}, {seen} {outcome.happened}."


def _calibration_table(groups: Sequence[CalibrationBin], outcome: _Outcome) -> Html:
    rows = [
        (percent(g.predicted), percent(g.observed), f"{percent(g.low)} to {percent(g.high)}", f"{g.count:,}")
        for g in groups
    ]
    head = ("It said", f"In fact {outcome.happened}", "Chance allows", outcome.unit.capitalize())
    return table(head, rows, "What it said and what happened")
