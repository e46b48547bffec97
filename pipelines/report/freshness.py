"""How old the data behind the scores is.

What enters: the people of a lead book, who was left out of it, and when the log ends. What leaves: a part of the page. The
promise: everybody is counted, those who are not scored too, and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from features.clock import instant
from features.state import MICROSECONDS_PER_DAY
from pipelines.pages import Html, paragraph, section, table, told
from pipelines.report.people import People
from pipelines.report.words import STATUS_MEANINGS, percent
from serving.leads.book import LeftOut

# Moments leave DuckDB as numbers: what it makes of them itself needs a time zone library.
SCORED_US = "max(epoch_us(scored_at))"
_AGES = (("within 7 days", 7), ("8 to 30 days ago", 30), ("31 to 90 days ago", 90))


def freshness_section(people: People | None, left_out: LeftOut | None, log_end: datetime | None) -> Html:
    """When data ends, how old what scores rest on is, and who was left out."""
    parts = [*_moments(people, log_end), *(_people(people) if people is not None else ()), *_left_out(left_out)]
    return section("How fresh the data is", *parts)


def _moments(people: People | None, log_end: datetime | None) -> Iterator[Html]:
    if log_end is None:
        yield told("No event has been taken in yet: `inbox ingest` does that.")
        return
    words = f"The newest event known is of {_moment(log_end)}."
    if people is not None and people.has("scored_at"):
        scored_at = instant(people.one(f"SELECT {SCORED_US} FROM people")[0])
        words += f" The scores are as of {_moment(scored_at)}."
        behind = log_end - scored_at
        if behind.total_seconds() >= 86_400:
            words += f" That is {age(behind.total_seconds())} before: `inbox export leads` scores everybody anew."
    yield told(words)


def _people(people: People) -> Iterator[Html]:
    yield from _data_ages(people)
    found = {
        str(status): int(count) for status, count in people.rows("SELECT status, count(*) FROM people GROUP BY status")
    }
    rows = [
        (status, STATUS_MEANINGS.get(status, ""), f"{found[status]:,}", percent(found[status] / people.count))
        for status in [*STATUS_MEANINGS, *sorted(set(found) - set(STATUS_MEANINGS))]
        if status in found
    ]
    yield table(("Status", "What it means", "People", "Share"), rows, "People by the state of their data", words=2)
    if people.has("scored_at"):
        yield _last_engagement(people)


def _data_ages(people: People) -> Iterator[Html]:
    if people.has("data_age_hours"):
        middle, oldest = people.one("SELECT quantile_cont(data_age_hours, 0.5), max(data_age_hours) FROM people")
        if 3600 * oldest < 90:
            yield paragraph("All scores used data that was up to date to the minute.")
            return
        words = (
            f"Half of the scores used data younger than {age(3600 * middle)}; the oldest was {age(3600 * oldest)} old."
        )
        yield paragraph(words)


def _last_engagement(people: People) -> Html:
    counts, before = dict[str, int](), 0
    for words, days in _AGES:
        since = "epoch_us(scored_at) - epoch_us(last_engagement_at)"
        (within,) = people.one(f"SELECT count(*) FROM people WHERE {since} <= {days * MICROSECONDS_PER_DAY:.0f}")
        counts[words], before = within - before, within
    (ever,) = people.one("SELECT count(last_engagement_at) FROM people")
    counts |= {"longer ago": ever - before, "never": people.count - ever}
    rows = [(words, f"{count:,}", percent(count / people.count)) for words, count in counts.items()]
    return table(("Last engagement", "People", "Share"), rows, "When people were last active")


def _left_out(left_out: LeftOut | None) -> Iterator[Html]:
    if left_out is None or not left_out.total:
        return
    why = {
        "withheld consent": left_out.no_consent,
        "have converted already": left_out.converted,
        "have no score": left_out.unscored,
    }
    rows = [(words, f"{count:,}") for words, count in why.items() if count]
    yield table(("Left out of all of the above: they", "People"), rows, "Who is not among the leads")


def age(seconds: float) -> str:
    """
    >>> age(5400), age(1_000_000)
    ('90 minutes', '12 days')
    """
    for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length or (name == "minutes" and seconds >= 90):
            return f"{seconds / length:,.0f} {name}"
    return "two minutes"


def _moment(at: datetime) -> str:
    return f"{at:%d %B %Y, %H:%M} UTC"
