"""The leads in figures: how many of which grade, what they are expected to bring, and what a score came to on later data.

What enters: the people of a lead book, and the bands of the lead score's judgement. What leaves: parts of the page. The
promise: an expectation is the sum of chances, and what really happened is told of rows the model had not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from models.lead_score import GRADES
from pipelines.pages import Html, bullets, figure, paragraph, section, table, tag, text, told
from pipelines.report.charts import grade_chart
from pipelines.report.people import People
from pipelines.report.trust import ModelCard
from pipelines.report.words import amount, crowd, from_data, part, percent, rate, span
from training.evaluation import Band

BEST_FIRST = tuple(reversed(GRADES))
REASONS_SHOWN = 5
LEAST_ROWS = 30
"""Of a band: of fewer nothing is said in words."""

_KIND = "without_numbers(ltrim(said, '↑↓ '))"
"""A reason without its arrow and numbers, so that like counts with like."""
_PUSHING = "list_filter({}, lambda said: said[1] <> '↓')"

NO_BANDS = (
    "Nothing is on record of what each score came to. It is recorded whenever a model is trained, so the next training (`inbox "
    "retrain lead_score`) brings it, once the list has conversions whose time is over."
)


def glance_section(people: People | None) -> Html:
    """A few numbers, before anything else."""
    if people is None:
        return section("At a glance", told("Nobody has been scored yet: `inbox export leads` scores everybody."))
    return section("At a glance", tag("div", *(_tile(*tile) for tile in _tiles(people)), class_="tiles"))


def _tiles(people: People) -> Iterator[tuple[str, str, str]]:
    leads = people.has("grade")
    yield ("Leads" if leads else "People scored", f"{people.count:,}", "scored, and may be written to")
    if leads:
        best, expected = people.one("SELECT count(*) FILTER (grade = 'A'), sum(probability) FROM people")
        yield "Grade A", f"{best:,}", "the ones to speak to first"
        yield "Expected conversions", amount(expected), "the sum of all leads' chances"
    if people.has("churn_band"):
        (high,) = people.one("SELECT count(*) FILTER (churn_band = 'high') FROM people")
        yield "At high risk", f"{high:,}", "of going quiet or opting out"
    if people.has("send_time_confident"):
        (sure,) = people.one("SELECT count(*) FILTER (send_time_confident) FROM people")
        yield "Own best hour", f"{sure:,}", "people for whom it clearly beats the default"


def _tile(name: str, value: str, note: str) -> Html:
    number = tag("span", text(value), class_="number")
    return tag("p", tag("span", text(name), class_="name"), number, tag("span", text(note)), class_="tile")


def grades_section(people: People) -> Html:
    """Leads and expected conversions by grade."""
    if not people.has("grade"):
        return Html("")
    found = people.rows("SELECT grade, count(*), sum(probability) FROM people GROUP BY grade")
    by_grade = {grade: (int(count), float(expected)) for grade, count, expected in found}
    counted = [(grade, *by_grade.get(grade, (0, 0.0))) for grade in BEST_FIRST]
    total = sum(expected for *_, expected in counted)
    shares = [(grade, part(count, people.count), part(expected, total)) for grade, count, expected in counted]
    rows = [
        (grade, f"{count:,}", percent(of_leads), amount(expected), percent(of_conversions))
        for (grade, count, expected), (_, of_leads, of_conversions) in zip(counted, shares, strict=True)
    ]
    words = f"Grade A is {percent(shares[0][1])} of the leads and {percent(shares[0][2])} of the expected conversions."
    chart = figure(grade_chart(shares), f"Bar chart by grade. {words} The table has the numbers.", "Share by grade")
    head = ("Grade", "Leads", "Share", "Expected to convert", "Share")
    numbers = table(head, rows, "Leads and expected conversions by grade")
    why = reasons(people, "What most often speaks for the A leads", "reasons_for", "grade = 'A'")
    return section("Your leads", paragraph(words), tag("div", numbers, chart, class_="beside"), *why)


def reasons(people: People, title: str, column: str, who: str) -> Iterator[Html]:
    """The reasons that push most people's score up; numbers are left out so that like counts with like.

    Parameters
    ----------
    column
        A list of reasons, whose arrow, where it has one, says which way it pushes.
    who
        A condition in SQL.
    """
    if not people.has(column):
        return
    kinds = f"list_distinct(list_transform({_PUSHING.format(column)}, lambda said: {_KIND}))"
    found = people.rows(
        f"WITH chosen AS (SELECT {kinds} AS kinds FROM people WHERE {who}) "
        "SELECT kind, count(*) AS times, (SELECT count(*) FROM chosen) "
        f"FROM (SELECT unnest(kinds) AS kind FROM chosen) GROUP BY kind ORDER BY times DESC, kind LIMIT {REASONS_SHOWN}"
    )
    if found:
        yield tag("h3", text(title))
        items = (
            tag("li", from_data(kind), text(f" ({percent(part(times, whole))} of them)"))
            for kind, times, whole in found
        )
        yield tag("ul", *items)


def strongest(people: People, column: str, most: int) -> list[str]:
    """What is most often somebody's strongest reason, numbers left out."""
    if not people.has(column):
        return []
    first = f"list_transform({column}[1:1], lambda said: {_KIND})[1]"
    found = people.rows(
        f"SELECT {first} AS kind FROM people WHERE len({column}) > 0 GROUP BY kind ORDER BY count(*) DESC, kind LIMIT {most}"
    )
    return [kind for (kind,) in found]


# --- what a score came to


def worth_section(card: ModelCard | None, within: str) -> Html:
    """Calibration in words: of 100 leads of a score, so many converted.

    Parameters
    ----------
    within
        The time a lead had, in words.
    """
    if card is None or card.refused_reason is not None:
        return Html("")
    known = [band for band in reversed(card.bands) if band.rows >= LEAST_ROWS]
    if not known:
        return section("What a score came to", told(NO_BANDS))
    sentences = bullets(_sentence(band) for band in _spread(known))
    intro = (
        f"When the model was trained, its scores were held against what happened later, to people as they stood at "
        f"{sum(band.rows for band in card.bands):,} moments it had not seen. Converted means: within {within} of the score."
    )
    rows = [
        (f"{band.low}–{band.high}", f"{band.rows:,}", f"{band.positives:,}", rate(band.rate.value), _range(band))
        for band in known
    ]
    head = ("Score", "Cases", "Converted", "Rate", "95 % range")
    numbers = tag("details", tag("summary", text("All scores")), table(head, rows, "What each score came to"))
    return section("What a score came to", sentences, paragraph(intro, "meaning"), *_order(known), numbers)


def _spread(told: Sequence[Band]) -> list[Band]:
    """The highest, the lowest, and two between."""
    places = dict.fromkeys((0, len(told) // 4, len(told) // 2, len(told) - 1))
    return [told[place] for place in places]


def _sentence(band: Band) -> str:
    # Nobody of many is told of a thousand.
    of = min(crowd(band.rate.value, least=4.5), 1_000)
    low, high = f"{of * band.rate.low:.0f}", f"{of * band.rate.high:.0f}"
    return (
        f"Of {of:,} leads scored {band.low}–{band.high}, {of * band.rate.value:.0f} converted (range {low} to {high})."
    )


def _range(band: Band) -> str:
    return span(band.rate.low, band.rate.high)


def _order(told: Sequence[Band]) -> Iterator[Html]:
    """Whether a higher score always came to more."""
    rates = [band.rate.value for band in told]
    if len(rates) > 1 and rates == sorted(rates, reverse=True):
        yield paragraph("Every higher score came to more conversions than the one below it.")
    elif len(rates) > 1:
        yield paragraph(
            "Not every higher score came to more than the one below it: where ranges overlap, take neighbouring scores "
            "as equal."
        )
