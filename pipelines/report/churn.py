"""Who is slipping away: people by risk, and in which groups of the list the risk lies.

What enters: the people of a lead book. What leaves: a part of the page. The promise: a group of few is never shown alone, the
attribute shown is the one in which risk differs most and the page says so, and every expected loss has its range.

An attribute is a text of the list's own with two to twelve common values. How much risk differs between its groups is the
variance of the groups' mean risk, less what chance alone would give so many groups (the numerator of omega squared): many small
groups must not win by being many. The range of a loss is that of a sum of independent chances, as they were foretold: it does
not hold what the model itself may be wrong by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from features.intake import quoted
from models.churn import BANDS
from pipelines.pages import Html, bar, bullets, figure, paragraph, rich_table, section, table, tag, text
from pipelines.report.charts import band_chart
from pipelines.report.leads import reasons
from pipelines.report.people import People
from pipelines.report.words import LONGEST, amount, from_data, percent, short
from serving.leads.book import PROFILE

ATTRIBUTES_SHOWN = 3
MOST_VALUES = 12
MOST_DISTINCT = 20_000
"""An attribute with more is no grouping, and counting all of them would take too much memory."""
LEAST_PEOPLE = 20
"""Of a group that is shown by itself."""
FEW_PEOPLE = 100
"""Below, a group's numbers carry a warning."""
LEAST_COVERED = 0.5
"""Of the people, so many must have one of the common values."""
_Z = 1.96


@dataclass(frozen=True)
class Group:
    """People who share a value of an attribute. ``expected`` losses are the sum of their chances, ``variance`` of it."""

    value: str | None
    """None: all rarer values together."""
    count: int
    expected: float
    variance: float
    square: float
    """Sum of squared chances."""

    @property
    def risk(self) -> float:
        return self.expected / self.count

    @property
    def ends(self) -> tuple[float, float]:
        """The 95 % range of the losses."""
        reach = _Z * self.variance**0.5
        return max(self.expected - reach, 0.0), min(self.expected + reach, float(self.count))


@dataclass(frozen=True)
class Segmented:
    """An attribute and its groups, the most endangered first. ``left_out`` people are in groups too small to be shown."""

    attribute: str
    groups: tuple[Group, ...]
    left_out: int
    spread: float
    """Variance of risk between groups beyond chance."""


def churn_section(people: People) -> Html:
    """People by risk, by group, and what endangers them."""
    if not people.has("churn_band"):
        return Html("")
    found = people.rows("SELECT churn_band, count(*), sum(churn_probability) FROM people GROUP BY churn_band")
    by_band = {band: (int(count), float(expected)) for band, count, expected in found if band is not None}
    counts = {band: by_band.get(band, (0, 0.0))[0] for band in BANDS}
    asked = sum(counts.values())
    rows = [
        (band, f"{counts[band]:,}", percent(counts[band] / asked), amount(by_band.get(band, (0, 0.0))[1]))
        for band in BANDS
    ]
    lost = (
        f"In the high band there are {counts['high']:,} people; about {amount(by_band.get('high', (0, 0.0))[1])} of them are "
        "expected to go quiet or opt out if nothing changes."
    )
    chart = figure(band_chart(counts), f"Bar chart of people by risk band. {lost}", "People by risk of going quiet")
    numbers = table(("Risk", "People", "Share", "Expected to be lost"), rows, "People by risk of going quiet")
    why = reasons(people, "What most often endangers those at high risk", "churn_reasons", "churn_band = 'high'")
    beside = tag("div", numbers, chart, class_="beside")
    return section("Who is slipping away", paragraph(lost), *_whom(people), beside, *_segments(people), *why)


def _whom(people: People) -> Iterator[Html]:
    """A lead book does not hold those who have converted."""
    if people.has("grade"):
        yield paragraph("This is about the leads alone: those who have converted are not among them.", "meaning")


# --- groups


def segmented(people: People) -> list[Segmented]:
    """The attributes in which risk differs most, the most telling first."""
    found = (_by(people, name) for name in people.texts)
    telling = [one for one in found if one is not None and one.spread > 0]
    return sorted(telling, key=lambda one: (-one.spread, one.attribute))[:ATTRIBUTES_SHOWN]


def _by(people: People, attribute: str) -> Segmented | None:
    """People by an attribute; None where it has no values to tell apart."""
    column = f"left({quoted(PROFILE + attribute)}, {LONGEST})"
    known = "FROM people WHERE churn_probability IS NOT NULL"
    asked, distinct = people.one(f"SELECT count(*), approx_count_distinct({column}) {known}")
    if distinct > MOST_DISTINCT:
        return None
    common = people.rows(
        f"SELECT {column}, count(*) AS many {known} AND {column} IS NOT NULL GROUP BY 1 HAVING many >= {LEAST_PEOPLE} "
        f"ORDER BY many DESC, 1 LIMIT {MOST_VALUES + 1}"
    )
    covered = sum(int(many) for _, many in common)
    if not 2 <= len(common) <= MOST_VALUES or covered < LEAST_COVERED * asked:
        return None
    sums = "sum(churn_probability), sum(churn_probability * (1 - churn_probability)), sum(churn_probability ** 2)"
    marks = ", ".join("?" * len(common))
    rows = people.rows(
        f"SELECT CASE WHEN {column} IN ({marks}) THEN {column} END AS value, count(*), {sums} {known} GROUP BY 1",
        *(value for value, _ in common),
    )
    groups = [Group(value, int(count), *map(float, sums)) for value, count, *sums in rows]
    shown = sorted((one for one in groups if one.count >= LEAST_PEOPLE), key=lambda one: (-one.risk, one.value or ""))
    return Segmented(attribute, tuple(shown), asked - sum(one.count for one in shown), _spread(shown))


def _spread(groups: Sequence[Group]) -> float:
    """Variance of risk between groups beyond what chance gives."""
    count, freedom = sum(one.count for one in groups), len(groups) - 1
    mean = sum(one.expected for one in groups) / count
    between = sum(one.count * (one.risk - mean) ** 2 for one in groups)
    within = sum(one.square - one.count * one.risk**2 for one in groups)
    return (between - freedom * within / (count - len(groups))) / count


def _segments(people: People) -> Iterator[Html]:
    found = segmented(people)
    if not found:
        return
    yield tag("h3", text("Where the risk lies"))
    yield paragraph(
        f"Of the list's own attributes with 2 to {MOST_VALUES} common values, {_these(len(found))} in which the foretold risk "
        "differs most between groups. The range is what chance allows if each person's risk is as foretold. A difference is "
        "no cause: the groups may differ in much else."
    )
    for one in found:
        yield _table(one)
        yield from _notes(one)


def _these(count: int) -> str:
    return "this is the one" if count == 1 else f"these are the {count}"


def _table(one: Segmented) -> Html:
    rows = (
        [
            from_data(group.value or "(empty)", 60) if group.value is not None else text("other or not known"),
            text(f"{group.count:,}" + (" (few)" if group.count < FEW_PEOPLE else "")),
            Html(bar(group.risk, "risk") + text(percent(group.risk))),
            text(amount(group.expected)),
            text(f"{amount(group.ends[0])} to {amount(group.ends[1])}"),
        ]
        for group in one.groups
    )
    head = ("Group", "People", "Mean risk", "Expected to be lost", "95 % range")
    return rich_table(head, rows, f"Expected losses by {short(one.attribute.replace('_', ' '), 60)}")


def _notes(one: Segmented) -> Iterator[Html]:
    notes = []
    if any(group.count < FEW_PEOPLE for group in one.groups):
        notes.append(f"“Few”: fewer than {FEW_PEOPLE} people; do not plan on such a number.")
    if one.left_out:
        notes.append(f"Not shown: {one.left_out:,} of groups with fewer than {LEAST_PEOPLE} people.")
    if notes:
        yield bullets(notes)
