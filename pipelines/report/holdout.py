"""Is choosing the moment worth it? The arms of the running experiment, as ``inbox monitor`` compares them.

What enters: an ``Experiment``, or none. What leaves: a part of the page. The promise: no number stands here that no send has
earned; until then the page says how it will come to be.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.send_time import EXPLORE_SHARE, HOLDOUT_SHARE
from pipelines.decisions import Experiment
from pipelines.pages import Html, bullets, paragraph, section, table, told
from pipelines.report.words import rate, span
from training.evaluation import Interval
from training.offpolicy import LEAST_ANSWERS, ArmRate

ARMS = {
    "exploit": "sent when the model said",
    "explore": "sent at a moment drawn by lot",
    "holdout": "held out: sent at the default",
}
"""In a marketer's words."""

HOW_IT_COMES = (
    f"Of the people the service answers about, {HOLDOUT_SHARE:.0%} are held out: they get their mail at the default time "
    f"whatever the model says. Another {EXPLORE_SHARE:.0%} of the sends go out at a moment drawn by lot. Which arm each "
    "send is in is logged with the answer. Once campaigns are sent at the moments the service chose, and their time to be "
    "answered is over, this report compares the arms; `inbox monitor send_time` shows the whole of it."
)


def holdout_section(found: Experiment | None) -> Html:
    """The lift against the holdout, or how it will come to be."""
    title = "Is choosing the moment worth it?"
    if found is None:
        return section(
            title,
            paragraph("There is no number yet: the service has not chosen a moment to send at."),
            told(HOW_IT_COMES),
        )
    if not found.sends:
        return section(title, paragraph(_waiting(found)), told(HOW_IT_COMES))
    arms = {arm.arm: arm for arm in found.lift.arms}
    rows = [
        (ARMS[name], f"{one.sends:,}", f"{one.subscribers:,}", f"{one.answers:,}", _rate(one.rate))
        for name, one in arms.items()
    ]
    head = ("Arm", "Sends", "People", "Answered", "Rate (95 % range)")
    return section(title, bullets(_words(found, arms)), table(head, rows, "The arms side by side"))


def _waiting(found: Experiment) -> str:
    decided = sum(one.decided for one in found.followed)
    if not decided and not found.waiting:
        return "There is no number yet: moments were chosen, and the events known so far end before the first of them."
    return (
        f"There is no number yet: of {decided:,} chosen moments that have come, no send at that moment is known whose time to "
        f"be answered is over ({found.waiting:,} are waiting for theirs)."
    )


def _words(found: Experiment, arms: dict[str, ArmRate]) -> Iterator[str]:
    first = found.lift.contrasts[0]
    answers = [arms[name].answers if name in arms else 0 for name in (first.arm, first.against)]
    if min(answers) < LEAST_ANSWERS or not np.isfinite(first.difference.low):
        yield (
            f"It is too early to tell: {answers[0]:,} answers to mail sent when the model said, {answers[1]:,} to mail held "
            f"out; {LEAST_ANSWERS} of each would be the least."
        )
        return
    yield f"Mail sent when the model said, against mail held out: {_points(first.difference)}. {_verdict(first.difference)}"
    if np.isfinite(first.ratio.low):
        change = Interval(*(one - 1 for one in (first.ratio.value, first.ratio.low, first.ratio.high)))
        yield f"In relation: {change.value:+.0%} ({change.low:+.0%} to {change.high:+.0%}) responses."
    if np.isfinite(found.gain.low) and not (found.exploit.warning or found.default.warning):
        yield f"Counting every send by how likely it was: {_points(found.gain)}. {_verdict(found.gain)}"


def _verdict(difference: Interval) -> str:
    if difference.low > 0:
        return "Choosing the moment is worth it."
    if difference.high < 0:
        return "Choosing the moment does harm: look at inbox monitor and consider a rollback."
    return "Chance alone may give such a difference: it is not shown to be worth it yet."


def _points(one: Interval) -> str:
    return f"{100 * one.value:+.2f} responses per 100 sends ({100 * one.low:+.2f} to {100 * one.high:+.2f})"


def _rate(one: Interval) -> str:
    return f"{rate(one.value)} ({span(one.low, one.high)})"
