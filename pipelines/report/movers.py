"""Who moved and why: the newest lead book beside the one before it.

What enters: the people of a book and the summary of its changes. What leaves: a part of the page. The promise: the reasons are
the book's own; a first book says that there is nothing to compare yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.leads.changes import Changes
from pipelines.pages import Html, paragraph, rich_table, section, tag, text, told
from pipelines.report.people import People
from pipelines.report.words import from_data, people
from serving.leads.columns import GRADES

MOVERS_SHOWN = 10
REASONS_SHOWN = 6
FIRST = (
    "This is the first lead book, so there is nothing to compare it with. The next `inbox export leads` shows who moved, how "
    "far and why."
)


def movers_section(crowd: People, changes: Changes | None) -> Html:
    """Counts of moves, where to, why, and the farthest."""
    title = "Who moved, and why"
    if not crowd.has("grade"):
        return Html("")
    if changes is None:
        return section(title, told(FIRST))
    parts = [paragraph(_told(changes), "first"), _moves(changes), *_reasons(changes)]
    return section(title, *parts, *_farthest(crowd, "up"), *_farthest(crowd, "down"))


def _told(changes: Changes) -> str:
    moved = changes.up + changes.down
    words = f"{people(moved, 'lead', 'leads')} changed grade since {changes.since:%d %B %Y}: "
    words += f"{changes.up:,} up, {changes.down:,} down."
    words += f" {changes.same:,} kept theirs, {changes.new:,} are new"
    return f"{words}, {changes.gone:,} are no longer among the leads."


def _moves(changes: Changes) -> Html:
    """Five by five: from row to column."""
    titles = tag(
        "tr", *(tag("th", text(words), scope="col") for words in ("Before", *(f"now {grade}" for grade in GRADES)))
    )
    body = (
        tag("tr", tag("th", text(before), scope="row"), *(_cell(changes, before, now) for now in GRADES))
        for before in GRADES
    )
    caption = "Leads by grade before and now"
    inner = tag(
        "table",
        tag("caption", text(f"{caption}: green moved up, red moved down")),
        tag("thead", titles),
        tag("tbody", *body),
    )
    return tag("div", inner, class_="scroll moves", tabindex="0", role="region", aria_label=caption)


def _cell(changes: Changes, before: str, now: str) -> Html:
    count = changes.moved.get((before, now), 0)
    if before == now:
        return tag("td", text(f"{count:,}"), class_="stayed")
    # The arrow says it to who does not see the colour.
    kind, arrow = ("rose", "▲") if GRADES.index(now) < GRADES.index(before) else ("fell", "▼")
    return tag("td", text(f"{arrow} {count:,}"), class_=kind) if count else tag("td", text("–"), class_="none")


def _reasons(changes: Changes) -> Iterator[Html]:
    if changes.reasons:
        yield tag("h3", text("The commonest reasons"))
        items = (
            tag("li", from_data(reason), text(f" ({people(count, 'lead', 'leads')})"))
            for reason, count in list(changes.reasons)[:REASONS_SHOWN]
        )
        yield tag("ul", *items)


def _farthest(crowd: People, way: str) -> Iterator[Html]:
    sign, order = (">", "DESC") if way == "up" else ("<", "ASC")
    found = crowd.rows(
        "SELECT subscriber_id, score_before, score, grade_before, grade, change_reason FROM people "
        f"WHERE score_change {sign} 0 ORDER BY score_change {order}, rank LIMIT {MOVERS_SHOWN}"
    )
    if found:
        yield tag("h3", text(f"The farthest {way}"))
        yield rich_table(
            ("Lead", "Why", "Score (grade)"), map(_mover, found), f"The {len(found)} that moved farthest {way}", words=2
        )


def _mover(row: tuple[Any, ...]) -> list[Html]:
    who, score_before, score, grade_before, grade, why = row
    moved = f"{score_before} ({grade_before}) → {score} ({grade})"
    return [from_data(who, 40), from_data(why or ""), text(moved)]
