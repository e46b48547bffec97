"""When to send: for whom a time of their own is worth it, and at which hours this list answers, with how sure that is.

What enters: the people of a lead book and the rates of ``training.week``. What leaves: a part of the page. The promise: an hour
is called better or worse only where that is more than chance, and every cell has its interval in a table.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipelines.pages import Html, bullets, figure, paragraph, section, table, tag, text
from pipelines.report.charts import SIZES, heat_chart, sureness
from pipelines.report.people import People
from pipelines.report.words import DAYS, percent, rate, span
from training.week import FALSE_DISCOVERIES, LEAST_SENDS, Week

HOURS_SHOWN = 4

SENDS_UNKNOWN = (
    f"No hour of the week has {LEAST_SENDS} sends whose time to be answered is over, so nothing is said about hours."
)


def send_time_section(people: People | None, week: Week | None, has_sends: bool) -> Html:
    """Own hours and the list's week."""
    parts = [*_own_hours(people), *_heat(week)] if week is not None else [*_own_hours(people)]
    if week is None and has_sends:
        parts.append(paragraph(SENDS_UNKNOWN))
    return section("When to send", *parts) if parts else Html("")


def _own_hours(people: People | None) -> Iterator[Html]:
    if people is None or not people.has("send_time_confident"):
        return
    sure, half = people.one(
        "SELECT count(*) FILTER (send_time_confident), "
        "quantile_cont(send_time_gain, 0.5) FILTER (send_time_confident) FROM people"
    )
    words = (
        f"For {sure:,} of {people.count:,} people ({percent(sure / people.count)}) a time of their own clearly beats the "
        "default."
    )
    if half is not None:
        words += f" Half of these gain at least {percent(half)} in responses."
    yield paragraph(words)
    if sure < people.count:
        yield paragraph("For everybody else this data shows nothing that is clearly better than the default.")


def _heat(week: Week) -> Iterator[Html]:
    yield tag("h3", text("When this list answers"))
    yield bullets(hour_words(week))
    alternative = f"Heat map of the week by hour. {' '.join(hour_words(week))} The table has the numbers."
    caption = (
        f"Colour: how many answered. Size: how sure that is – the range reaches at most {percent(SIZES[0][1])} of the average "
        f"from the rate in a full square, at most {percent(SIZES[1][1])} in a middle one, further in a small one. Framed: "
        f"really differs from the average. Empty: fewer than {LEAST_SENDS} sends."
    )
    drawing = figure(heat_chart(week), alternative, "")
    yield tag(
        "div", drawing, class_="scroll wide", tabindex="0", role="region", aria_label="Heat map, scrolls sideways"
    )
    yield paragraph(caption, "meaning")
    yield tag(
        "details",
        tag("summary", text("Every hour with its range")),
        _hours_table(week),
        paragraph(_method(week), "meaning"),
    )


def hour_words(week: Week) -> list[str]:
    """Which hours really differ, in sentences."""
    words = [
        f"On average {rate(week.average)} of the mail was answered, over {week.looked_at} hours of the week (of the "
        f"reader's own clock) that had at least {LEAST_SENDS} sends."
    ]
    for sign, said in ((1, "more"), (-1, "less")):
        told = _told(week, sign)
        if told:
            words.append(f"Surely {said} than that: {told}.")
    if not week.differs.any():
        words.append("No hour really differs from the average: what differences there are, chance alone may give.")
    return words


def _told(week: Week, sign: int) -> str:
    hours = np.flatnonzero(week.differs == sign)
    ranked = hours[np.argsort(-sign * week.rate[hours], kind="stable")].tolist()
    named = [f"{_name(hour)} ({rate(float(week.rate[hour]))}, {_ends(week, hour)})" for hour in ranked[:HOURS_SHOWN]]
    more = f" and {len(ranked) - HOURS_SHOWN} more" if len(ranked) > HOURS_SHOWN else ""
    return "; ".join(named) + more


def _name(hour: int) -> str:
    return f"{DAYS[hour // 24]} {hour % 24:02d}:00"


def _ends(week: Week, hour: int) -> str:
    return span(float(week.low[hour]), float(week.high[hour]))


def _method(week: Week) -> str:
    return (
        "Mail of one campaign is alike, so it does not count as so many independent tries: within an hour the answers of one "
        f"campaign correlate by {week.alike:.3f}, and each range is as wide as that makes it. Of {week.looked_at} hours looked "
        f"at some differ by chance; of those named about {percent(FALSE_DISCOVERIES)} may. What was sent at an hour, and to "
        "whom, may be the reason rather than the hour: nobody dealt the hours out by lot."
    )


def _hours_table(week: Week) -> Html:
    verdicts = {1: "more than average", 0: "", -1: "less than average"}
    rows = [
        (
            f"{DAYS[hour // 24][:3]} {hour % 24:02d}:00",
            rate(float(week.rate[hour])),
            _ends(week, hour),
            f"{week.sends[hour]:,}",
            f"{week.campaigns[hour]:,}",
            sureness(week, hour),
            verdicts[int(week.differs[hour])],
        )
        for hour in np.flatnonzero(np.isfinite(week.rate)).tolist()
    ]
    head = ("Hour", "Answered", "95 % range", "Sends", "Campaigns", "How sure", "Differs")
    return table(head, rows, "Answers by hour of the reader's week")
