"""The monitor's page and file: what a person looks at once a week.

What enters: what was found. What leaves: ``monitor.json`` for machines, ``monitor.html`` for people. The promise: what needs a
person stands first; every number has an interval or says that there is none yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from models.specs import SPECS
from pipelines.decisions import Experiment
from pipelines.files import replacing
from pipelines.monitor import Drift, Monitored, Outcomes, Watched, Week
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
from pipelines.report.words import STATUS_MEANINGS
from training.drift import Shift
from training.evaluation import Interval
from training.offpolicy import Contrast, PolicyValue
from training.plots import calibration_chart, rivals_chart, score_chart

HIDDEN = ("probability", "label")
"""Rows are for the page's charts, not for the file."""
ARM_MEANINGS = {
    "exploit": "sent at the moment the model chose",
    "explore": "sent at a moment drawn by lot",
    "holdout": "always sent at the default",
}


def write_findings(found: Monitored, out: Path) -> None:
    """Write both files into a directory, each whole or not at all.

    Raises
    ------
    UnusableOption
        When it cannot be written.
    """
    contents = {
        "monitor.json": orjson.dumps(described(found), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z),
        "monitor.html": page(found).encode(),
    }
    for name, content in contents.items():
        with replacing(out / name) as beside:
            beside.write_bytes(content)


def described(found: Monitored) -> dict[str, Any]:
    """All findings as JSON can say them; NaN becomes null."""
    told: dict[str, Any] = _plain(found)
    return told | {"alarms": found.alarms}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        told = {one.name: _plain(getattr(value, one.name)) for one in fields(value) if one.name not in HIDDEN}
        return told | {name: getattr(value, name) for name in ("word", "warning", "share") if hasattr(value, name)}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def page(found: Monitored) -> str:
    """The whole page."""
    title = f"Monitor of {found.title}"
    sections = [_short_section(found), *(one for seen in found.watched for one in _sections(seen))]
    footer = tag(
        "footer",
        paragraph(
            f"Outcomes as far as the event log knew them at {_moment(found.as_of)}. Intervals are 95 %; those of quality draw "
            "whole subscribers with replacement, those of policies and arms take each person's sends together."
        ),
    )
    return document(title, header(title, found.simulated), sections, footer)


def _short_section(found: Monitored) -> Html:
    alarms = found.alarms
    needs = "These need a person:" if alarms else "Nothing here needs a person."
    rows = [row(seen) for seen in found.watched]
    silent = f"Never asked: {', '.join(found.silent)}." if found.silent else ""
    parts = [
        paragraph(needs),
        *([bullets(alarms)] if alarms else []),
        table(COLUMNS, rows, "Models in service"),
        paragraph(LEGEND),
    ]
    return section("In short", *parts, *([paragraph(silent)] if silent else []))


COLUMNS = ("model", "version", "predictions", "fresh", "scores", "outcomes", "AUC", "promised", "calibration error", "")


LEGEND = (
    "look: something named above needs a person; fine: nothing was found that does. fresh: the share of the last week's "
    "answers that rest on the person's own, recent data."
)


def row(seen: Watched) -> tuple[str, ...]:
    """A model in one line; see ``COLUMNS``."""
    ours = seen.outcomes.ours
    return (
        seen.model,
        seen.version,
        f"{seen.predictions:,}",
        percent(seen.recent_statuses.get("ok", 0.0)),
        _worst(seen.drift),
        f"{seen.outcomes.judged:,}",
        "–" if ours is None else interval(ours.auc),
        _number(seen.promised.get("auc")),
        "–" if ours is None else interval(ours.expected_calibration_error),
        "look" if seen.alarms else "fine",
    )


def _worst(drift: Drift) -> str:
    """The larger of the two shifts of scores."""
    shifts = [one for one in (drift.learnt, drift.first_week) if one is not None and np.isfinite(one.psi)]
    return _shift(max(shifts, key=lambda one: one.psi)) if shifts else "–"


# --- one model


def _sections(seen: Watched) -> Iterator[Html]:
    name = seen.model.replace("_", " ")
    yield section(f"{name}: what was said", *_said(seen))
    yield section(f"{name}: did it come true?", *_true(seen))
    yield section(f"{name}: has the world moved?", *_drift(seen.drift))
    if seen.experiment is not None:
        yield section("Send time: is deciding worth it?", *_experiment(seen.experiment))


def _said(seen: Watched) -> Iterator[Html]:
    facts = {
        "Question": SPECS[seen.model].question,
        "Predictions": f"{seen.predictions:,} for {seen.subscribers:,} people",
        "From": _moment(seen.first),
        "To": _moment(seen.last),
        "Versions": ", ".join(f"{version} ({count:,})" for version, count in seen.versions.items()),
    }
    listed = [tag("div", tag("dt", text(name)), tag("dd", text(value))) for name, value in facts.items()]
    yield tag("dl", *listed, class_="facts")
    if seen.notes:
        yield bullets(seen.notes)
    rows = [
        (status, STATUS_MEANINGS.get(status, ""), percent(share), percent(seen.recent_statuses.get(status, 0.0)))
        for status, share in seen.statuses.items()
    ]
    yield table(("status", "what it means", "all", "last 7 days"), rows, "What answers rested on", words=2)


def _true(seen: Watched) -> Iterator[Html]:
    outcomes, ours = seen.outcomes, seen.outcomes.ours
    yield paragraph(
        f"{outcomes.judged:,} predictions have a known outcome, {outcomes.waiting:,} wait for theirs, {outcomes.ineligible:,} "
        "were of people the question is not about."
    )
    if ours is None:
        return
    measures = {
        "AUC": (ours.auc, "auc"),
        "log loss": (ours.log_loss, "log_loss"),
        "calibration error": (ours.expected_calibration_error, "expected_calibration_error"),
    }
    rows = [(name, interval(now), _number(seen.promised.get(key))) for name, (now, key) in measures.items()]
    rows.append(("foretold", percent(outcomes.predicted), ""))
    rows.append(("observed", percent(ours.base_rate), _promised_rate(seen)))
    yield table(("", "now", "when it was trained"), rows, f"{ours.rows:,} predictions, {ours.subscribers:,} people")
    yield from _quality_charts(seen, outcomes)
    weeks = [_week(one) for one in outcomes.weeks]
    head = ("week from", "versions", "rows", "foretold", "observed", "AUC", "log loss", "calibration error")
    yield table(head, weeks, "Week by week", words=2)


def _promised_rate(seen: Watched) -> str:
    rate = seen.promised.get("base_rate")
    return "–" if rate is None else percent(rate)


def _quality_charts(seen: Watched, outcomes: Outcomes) -> Iterator[Html]:
    outcome = SPECS[seen.model].outcome
    if outcomes.ours is not None:
        yield drawn(calibration_chart(outcomes.ours.calibration, outcomes.probability, outcome))
        yield drawn(score_chart(outcomes.probability, outcomes.label, outcome))
    if len(outcomes.weeks) > 1:
        yield _ranking(outcomes.weeks)


def _ranking(weeks: Sequence[Week]) -> Html:
    ranked = [one for one in weeks if np.isfinite(one.ours.auc.value)]
    if not ranked:
        return paragraph(
            "No chart of the ranking by week: in each week all outcomes were the same, so there is none to rank."
        )
    names, values = [f"{one.begins:%Y-%m-%d}" for one in ranked], [one.ours.auc for one in ranked]
    return drawn(rivals_chart(names, values, "AUC, more is better", "Ranking by week"))


def _week(one: Week) -> tuple[str, ...]:
    ours = one.ours
    return (
        f"{one.begins:%Y-%m-%d}",
        ", ".join(one.versions),
        f"{ours.rows:,}",
        percent(one.predicted),
        percent(ours.base_rate),
        interval(ours.auc),
        interval(ours.log_loss),
        interval(ours.expected_calibration_error),
    )


def _drift(drift: Drift) -> Iterator[Html]:
    sides = {
        "those it was judged on when trained": drift.learnt,
        "those of the prediction log's first week": drift.first_week,
    }
    rows = [
        (f"scores, against {whom}", _number(moved.psi), _number(moved.by_chance), moved.word)
        for whom, moved in sides.items()
        if moved is not None
    ]
    rows += [(one.name, _number(one.shift.psi), _number(one.shift.by_chance), one.shift.word) for one in drift.features]
    yield paragraph(
        "Population stability index of the last week's predictions: below 0.1 is steady, from 0.25 on shifted. Features are "
        "held against what could be learnt from when the version was first used; those of age and count grow by themselves. "
        "By chance below: without any change the index would stay below this; above it, more than chance moved."
    )
    yield table(("", "PSI", "by chance below", ""), rows, _compared(drift))
    if drift.base_rate is not None:
        change = drift.base_rate
        yield paragraph(
            f"Rate of the outcome: {percent(change.then)} then, {percent(change.now)} now "
            f"(change {_points(change.difference)})."
        )


def _compared(drift: Drift) -> str:
    if not drift.compared:
        return "Scores"
    return f"Scores, and the features that moved most of {drift.compared}"


# --- the experiment


def _experiment(found: Experiment) -> Iterator[Html]:
    yield bullets(verdicts(found))
    arms, names = found.lift.arms, [one.arm for one in found.lift.arms]
    if found.sends:
        yield drawn(rivals_chart(names, [one.rate for one in arms], "response rate", "Arms, as they were dealt"))
    followed = {one.arm: one for one in found.followed}
    rows = [
        (
            one.arm,
            ARM_MEANINGS.get(one.arm, ""),
            f"{one.sends:,}",
            f"{one.subscribers:,}",
            f"{one.answers:,}",
            _rate(one.rate),
            percent(followed[one.arm].share),
        )
        for one in arms
    ]
    head = ("arm", "what it is", "sends", "people", "answers", "response rate", "decisions followed")
    yield table(head, rows, "Arms", words=2)
    yield table(
        ("", "difference", "ratio", "difference within weekdays"),
        [_contrast(one) for one in found.lift.contrasts],
        "Lift: what randomisation alone says",
    )
    yield table(
        ("policy", "IPS", "SNIPS", "doubly robust", "worth sends", "largest weight", "cut"),
        [_policy(name, one) for name, one in _policies(found)],
        "Off-policy: every send counts",
    )
    yield paragraph(
        f"Outcome model of the doubly robust estimate: {found.outcome_model}. Sends whose response window is not over: "
        f"{found.waiting:,}."
    )
    yield table(("to find a lift of", "sends", "weeks at this pace"), list(_needed(found)), "How much is needed")


def verdicts(found: Experiment) -> list[str]:
    """What a careful reader would take away, in sentences."""
    balance, power = found.lift.balance, found.lift.power
    words = [_lift_words(one) for one in found.lift.contrasts if np.isfinite(one.difference.value)]
    words.append(f"Off-policy, exploiting instead of the default changes the response rate by {_points(found.gain)}.")
    words += [f"{name}: {one.warning}." for name, one in _policies(found) if one.warning]
    words.append(
        f"Weekdays of the arms are {'balanced' if balance.balanced else 'NOT balanced'} (chi-square {balance.chi_square:.1f}, "
        f"p = {balance.p_value:.2f}; largest standardised difference {balance.largest:.2f})."
    )
    if np.isfinite(power.detectable):
        words.append(f"So many sends show a relative lift of {percent(power.detectable)} in 80 of 100 cases.")
    return words


def _policies(found: Experiment) -> Sequence[tuple[str, PolicyValue]]:
    return ("Always exploiting", found.exploit), ("Always the default", found.default)


def _lift_words(one: Contrast) -> str:
    if one.difference.low > 0:
        verdict = "beyond doubt better"
    elif one.difference.high < 0:
        verdict = "beyond doubt WORSE"
    else:
        verdict = "not shown to differ"
    return f"{one.arm} against {one.against}: {_points(one.difference)}, {verdict}."


def _contrast(one: Contrast) -> tuple[str, ...]:
    within = f"{_points(one.stratified)}" if one.strata_share else "–"
    return f"{one.arm} against {one.against}", _points(one.difference), interval(one.ratio, 2), within


def _policy(name: str, one: PolicyValue) -> tuple[str, ...]:
    return (
        name,
        _rate(one.ips),
        _rate(one.snips),
        _rate(one.doubly_robust),
        f"{one.effective_size:,.0f}",
        f"{one.largest_weight:.1f}",
        percent(one.clipped_share),
    )


def _needed(found: Experiment) -> Iterator[tuple[str, ...]]:
    for one in found.lift.power.needed:
        if np.isfinite(one.sends):
            yield percent(one.lift), f"{one.sends:,.0f}", f"{one.weeks:,.1f}"


# --- numbers in words


def _rate(one: Interval) -> str:
    if not np.isfinite(one.value):
        return "–"
    return f"{percent(one.value)} ({100 * one.low:.1f} to {100 * one.high:.1f})"


def _points(one: Interval) -> str:
    """A difference of rates in percentage points."""
    if not np.isfinite(one.value):
        return "–"
    return f"{100 * one.value:+.2f} points ({100 * one.low:+.2f} to {100 * one.high:+.2f})"


def _shift(one: Shift) -> str:
    return f"{one.word} ({one.psi:.2f})"


def _number(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
