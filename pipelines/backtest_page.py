"""The backtest's report: does this model earn trust, and where does it not?

What enters: what a backtest found. What leaves: one HTML page. The promise: every number stands beside a baseline on the
same rows and has an interval; what was left out, or cannot be said, is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import orjson

from pipelines.backtest import Backtest, described
from pipelines.files import replacing
from pipelines.pages import (
    Html,
    bullets,
    document,
    drawn,
    header,
    interval,
    paragraph,
    percent,
    section,
    table,
    tag,
    text,
)
from training.backtest import Judged, Part
from training.evaluation import Evaluation, Interval
from training.plots import (
    Chart,
    ageing_chart,
    calibration_chart,
    importance_chart,
    lift_chart,
    rivals_chart,
    score_chart,
    send_time_chart,
)

UNJUDGED = (
    "No question had an answer by the log's end, so nothing can be judged. Train until an earlier moment, ask earlier, or "
    "give a shorter --horizon."
)
GLOSSARY = (
    "AUC: of one who did and one who did not, how often the one who did is ranked higher; 0.5 is chance.",
    "PR-AUC: the share of hits among the highest ranked, averaged over all hits; the rate of positives is chance.",
    "Log loss: the mean surprise, in nats, at what happened; less is better. Brier: the mean squared error of the probability.",
    "Calibration error: how far promised and observed rates are apart, on average over ten equal groups.",
    "Lift: how many times as many positives as among as many at random. Lift quality: 2 · AUC − 1; 0 is chance, 1 perfect.",
    "Best baseline: the one with the least log loss on these very rows, which favours it.",
    "Intervals of groups with few hundred rows are too narrow for the calibration error.",
)
COLUMNS = ("", "AUC", "PR-AUC", "log loss", "Brier", "calibration error", "top tenth, lift", "lift quality")


def write_report(found: Backtest, out: Path) -> None:
    """``report.json`` for machines and ``report.html`` for people, into a directory.

    Raises
    ------
    UnusableOption
        When it cannot be written.
    """
    contents = {
        "report.json": orjson.dumps(described(found), option=orjson.OPT_INDENT_2),
        "report.html": page(found).encode(),
    }
    for name, content in contents.items():
        with replacing(out / name) as beside:
            beside.write_bytes(content)


def page(found: Backtest) -> str:
    """The whole page."""
    spec = found.plan.spec
    title = f"{spec.question} Backtest of {spec.name.replace('_', ' ')} on {found.about.title}"
    sections = [_asked_section(found), *_hours_section(found), *_sections(found)]
    footer = tag("footer", paragraph("Intervals are 95 %: whole subscribers are drawn with replacement."))
    return document(title, header(title, found.about.simulated), sections, footer)


def _asked_section(found: Backtest) -> Html:
    asked, spec = found.plan, found.plan.spec
    label = f"{spec.positive} within {_span(spec.horizon)}"
    facts = {
        "Model": spec.name,
        "Label": label if found.hours is None else "none: the log knows no sends",
        "Trained on": f"what was received and mature before {asked.train_until:%Y-%m-%d %H:%M} UTC",
        "Asked": ", ".join(f"{at:%Y-%m-%d}" for at in asked.test_as_of) or _when(found),
        "Trained again": "never" if asked.retrain_every is None else f"every {_span(asked.retrain_every)}",
        "Log": found.intake.summary(),
    }
    listed = [tag("div", tag("dt", text(name)), tag("dd", text(value))) for name, value in facts.items()]
    return section("What was asked", tag("dl", *listed, class_="facts"))


def _when(found: Backtest) -> str:
    if found.hours is not None:
        return "the hour of each later engagement"
    return (
        "each send after that"
        if found.plan.spec.as_of_policy == "sent"
        else "everybody created after that, when created"
    )


def _span(span: timedelta) -> str:
    days = span / timedelta(days=1)
    return f"{days:g} days" if days >= 2 else f"{span / timedelta(hours=1):g} hours"


def _sections(found: Backtest) -> Iterator[Html]:
    judged = found.judged
    if judged is None:
        if found.hours is None:
            yield section("In short", paragraph(UNJUDGED))
        return
    yield _verdict_section(found, judged)
    yield _rivals_section(judged)
    yield _calibration_section(found, judged)
    yield _parts_section("By slice", "A mean can hide who is served badly.", judged.slices)
    yield _age_section(judged)
    yield _learnt_section(found)
    yield section("Words", bullets(GLOSSARY))


def _verdict_section(found: Backtest, judged: Judged) -> Html:
    return section("In short", bullets(verdict(found.plan.spec.outcome, judged)))


def verdict(outcome: str, judged: Judged) -> list[str]:
    """What a careful reader would take away, in sentences."""
    ours, best = judged.ours, min(judged.rivals, key=lambda rival: rival.evaluation.log_loss.value)
    words = [
        f"{ours.rows:,} questions about {ours.subscribers:,} people had an answer by the log's end; "
        f"{100 * ours.base_rate:.1f} % {outcome}, {100 * judged.predicted:.1f} % were foretold.",
        f"Of one who {outcome} and one who did not, it ranks the right one higher in {100 * ours.auc.value:.1f} of 100 pairs "
        f"({100 * ours.auc.low:.1f} to {100 * ours.auc.high:.1f}); {best.name} in {100 * best.evaluation.auc.value:.1f}.",
        _beats(best.name, best.gain.log_loss_gain),
    ]
    if judged.unknown:
        words.append(f"{judged.unknown:,} more were scored whose answer is not known yet; they count nowhere.")
    return words + drifted(judged)


def drifted(judged: Judged) -> list[str]:
    """A warning where what was learnt from and what came later differ beyond doubt."""
    ours = judged.ours
    error = float(np.sqrt(ours.base_rate * (1 - ours.base_rate) / max(ours.subscribers, 1)))
    moved = ours.base_rate - judged.trained_rate
    if abs(moved) <= max(3 * error, 0.1 * judged.trained_rate):
        return []
    return [
        f"The world moved: {100 * judged.trained_rate:.1f} % of the rows learnt from were positive, "
        f"{100 * ours.base_rate:.1f} % of the later ones. Retrain more often (--retrain-every shows what that brings)."
    ]


def _beats(name: str, gain: Interval) -> str:
    if gain.low > 0:
        return (
            f"Its probabilities are better than those of {name}, beyond doubt: {gain.value:.4f} nats of log loss each."
        )
    if gain.high < 0:
        return (
            f"Its probabilities are WORSE than those of {name}, beyond doubt: {-gain.value:.4f} nats of log loss each."
        )
    return f"Its probabilities are not shown to be better than those of {name}."


def _rivals_section(judged: Judged) -> Html:
    names = ["this model", *(rival.name for rival in judged.rivals)]
    all_of_them = [judged.ours, *(rival.evaluation for rival in judged.rivals)]
    rows = [(name, *_cells(one)) for name, one in zip(names, all_of_them, strict=True)]
    gains = [(rival.name, _gain(rival.gain.auc_gain), _gain(rival.gain.log_loss_gain)) for rival in judged.rivals]
    charts = [
        rivals_chart(names, [one.auc for one in all_of_them], "AUC, more is better", "Ranking, beside simple rules"),
        rivals_chart(
            names, [one.log_loss for one in all_of_them], "log loss, less is better", "Probabilities, likewise"
        ),
    ]
    return section(
        "Beside simple baselines",
        *(drawn(chart) for chart in charts),
        table(COLUMNS, rows, "All on the same rows"),
        table(("baseline", "our gain in AUC", "our gain in log loss"), gains, "Paired: above zero we are better"),
    )


def _calibration_section(found: Backtest, judged: Judged) -> Html:
    outcome = found.plan.spec.outcome
    label = np.concatenate([one.asked.label for one in found.origins])
    scores = np.concatenate([one.probability for one in found.origins])
    known = np.isfinite(label)
    charts: list[Chart] = [
        calibration_chart(judged.ours.calibration, scores[known], outcome),
        lift_chart(judged.ours.deciles, outcome),
        score_chart(scores[known], label[known], outcome),
    ]
    rows = [
        (
            str(d.decile),
            f"{d.rows:,.0f}",
            percent(d.predicted),
            percent(d.observed),
            f"{d.lift:.2f}",
            interval(d.capture),
        )
        for d in judged.ours.deciles
    ]
    head = ("tenth", "rows", "foretold", "observed", "lift", "found so far")
    return section(
        "Can one believe the numbers?",
        *(drawn(chart) for chart in charts),
        table(head, rows, "Tenths, highest scored first"),
    )


def _parts_section(title: str, words: str, parts: Sequence[Part]) -> Html:
    if not parts:
        return Html("")
    rows = [
        (
            part.name,
            f"{part.ours.rows:,}",
            percent(part.predicted),
            percent(part.ours.base_rate),
            interval(part.ours.auc),
            interval(part.best_baseline.auc),
            interval(part.ours.expected_calibration_error),
        )
        for part in parts
    ]
    head = ("", "rows", "foretold", "observed", "AUC", "AUC, best baseline", "calibration error")
    return section(title, paragraph(words), table(head, rows, "Ours beside the best baseline"))


def _age_section(judged: Judged) -> Html:
    if len(judged.by_age) < 2:
        return Html("")
    names = [part.name for part in judged.by_age]
    chart = ageing_chart(names, [p.ours.auc for p in judged.by_age], [p.best_baseline.auc for p in judged.by_age])
    rows = [
        (
            part.name,
            f"{part.ours.rows:,}",
            percent(part.predicted),
            percent(part.ours.base_rate),
            *_cells(part.ours)[:3],
        )
        for part in judged.by_age
    ]
    head = ("age of the model", "rows", "foretold", "observed", "AUC", "PR-AUC", "log loss")
    return section("How fast it goes stale", drawn(chart), table(head, rows, "By the model's age"))


def _learnt_section(found: Backtest) -> Html:
    rows = [
        (
            f"{one.learnt.train_until:%Y-%m-%d}",
            f"{len(one.learnt.rows):,}",
            percent(float(one.learnt.rows.label.mean())),
            str(one.learnt.fitted.best_iteration),
            one.learnt.fitted.calibration.method,
        )
        for one in found.origins
    ]
    head = ("trained until", "rows", "positive", "trees", "calibration")
    last = found.origins[-1].learnt.fitted
    return section("What it learnt from", drawn(importance_chart(last.importance)), table(head, rows, "Models trained"))


def _hours_section(found: Backtest) -> Iterator[Html]:
    hours = found.hours
    if hours is None:
        return
    parts = [
        paragraph(
            "The log knows no sends, so no probability of an answer can be claimed. What can be foretold is at which hours "
            f"people are active: judged on {hours.later_events:,} later events."
        ),
        drawn(send_time_chart(hours.timing.everybody, "of a week's activity is expected")),
    ]
    if hours.later_events:
        rows = [("this model", interval(hours.ours)), ("everybody's histogram", interval(hours.baseline))]
        head = ("", "mean log-likelihood of the local hour of day")
        parts.append(table(head, rows, "Later hours; nearer to zero is better"))
        parts.append(paragraph(f"Gain over everybody's histogram: {_gain(hours.gain)} nats."))
    yield section("Hours of activity", *parts)


def _cells(one: Evaluation) -> tuple[str, ...]:
    return tuple(
        interval(value)
        for value in (
            one.auc,
            one.average_precision,
            one.log_loss,
            one.brier,
            one.expected_calibration_error,
            one.lift_top_10,
            one.lift_quality,
        )
    )


def _gain(one: Interval) -> str:
    return f"{one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
