"""Whom to contact: what any cut through the scores is expected to bring, as a table, and as a slider where scripts run.

What enters: the people of a lead book. What leaves: a part of the page with its script. The promise: slider and table show the
same texts, made here; the script only puts them in their places, and nothing from data is in it.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass

import orjson

from models.lead_score import GRADE_CUTS, GRADES
from pipelines.pages import Html, bar, paragraph, section, table, tag, text
from pipelines.report.people import People
from pipelines.report.words import amount, part, percent

FIRST_CUT = GRADE_CUTS[-2]
"""Where the slider stands at first: grade B and better."""
ROWS_EVERY = 10

SCRIPT = """
(function () {
  "use strict";
  var source = document.getElementById("cut-points");
  if (!source) { return; }
  var points = JSON.parse(source.textContent);
  var range = document.getElementById("cut-score");
  var places = document.querySelectorAll("[data-cut]");
  var bars = document.querySelectorAll("[data-bar]");
  function show() {
    var point = points[Number(range.value)];
    places.forEach(function (place) { place.textContent = point[Number(place.dataset.cut)]; });
    bars.forEach(function (bar) { bar.style.width = parseFloat(point[Number(bar.dataset.bar)]) + "%"; });
    range.setAttribute("aria-valuetext", "score " + point[0] + " or more: " + point[1] + " contacts");
  }
  document.getElementById("cut-control").hidden = false;
  range.addEventListener("input", show);
  show();
})();
"""


@dataclass(frozen=True)
class Cut:
    """Contacting everybody from a score on, in words. ``of_leads`` and ``of_all`` are shares."""

    score: str
    contacts: str
    of_leads: str
    expected: str
    of_all: str
    per_hundred: str
    at_random: str


def cuts(people: People) -> list[Cut]:
    """A cut at each score, 0 to 100."""
    found = people.rows("SELECT score, count(*), sum(probability) FROM people GROUP BY score ORDER BY score DESC")
    counts = {int(score): (int(count), float(expected)) for score, count, expected in found}
    total = sum(expected for _, expected in counts.values())
    contacts, expected, made = 0, 0.0, list[Cut]()
    for score in range(100, -1, -1):
        here = counts.get(score, (0, 0.0))
        contacts, expected = contacts + here[0], expected + here[1]
        made.append(_cut(score, contacts, expected, people.count, total))
    return made[::-1]


def _cut(score: int, contacts: int, expected: float, people: int, total: float) -> Cut:
    return Cut(
        score=str(score),
        contacts=f"{contacts:,}",
        of_leads=percent(part(contacts, people)),
        expected=amount(expected),
        of_all=percent(part(expected, total)),
        per_hundred=amount(100 * part(expected, contacts)),
        at_random=amount(total * part(contacts, people)),
    )


def cut_section(people: People) -> Html:
    """A slider over all cuts, and a table of some."""
    if not people.has("score"):
        return Html("")
    found = cuts(people)
    points = orjson.dumps([astuple(one) for one in found]).decode().replace("<", "\\u003c")
    return section(
        "How many to contact",
        paragraph(
            "Contact everybody from a score on: how many is that, and how many of them are expected to convert? The "
            "expectation adds up the leads' own chances, as trustworthy as those are."
        ),
        _slider(found[FIRST_CUT]),
        _table(found),
        Html(f'<script type="application/json" id="cut-points">{points}</script>'),
    )


def _slider(start: Cut) -> Html:
    score = Html(
        f'<input type="range" id="cut-score" min="0" max="100" step="1" value="{FIRST_CUT}" aria-controls="cut-result">'
    )
    label = tag("label", text("Contact everybody scored at least "), _place("score", start, "strong"), for_="cut-score")
    ends = tag("p", tag("span", text("0: everybody")), tag("span", text("100: the very best")), class_="ends")
    control = tag("div", label, score, ends, id="cut-control", hidden="")
    return tag("div", control, _result(start), class_="cut")


def _result(start: Cut) -> Html:
    contacts = _sentence(start, "Score {score} or more: {contacts} contacts, {of_leads} of the leads.")
    brings = _sentence(start, "They bring {expected} expected conversions, {of_all} of all that are expected.")
    rate = _sentence(
        start, "That is {per_hundred} per 100 contacts. As many leads drawn at random would bring {at_random}."
    )
    bars = _bar("of_leads", start, "leads"), _bar("of_all", start, "conversions")
    parts = (contacts, bars[0], brings, bars[1], rate)
    return tag("div", *parts, id="cut-result", role="status", aria_live="polite", aria_atomic="true")


def _sentence(start: Cut, words: str) -> Html:
    """Words with places for the cut's texts."""
    parts = re.split(r"\{(\w+)\}", words)
    return tag("p", *(_place(part, start, "strong") if number % 2 else text(part) for number, part in enumerate(parts)))


def _place(name: str, start: Cut, element: str = "span") -> Html:
    """Where the script puts a text of the cut."""
    return tag(element, text(getattr(start, name)), data_cut=str(_POSITIONS[name]))


def _bar(name: str, start: Cut, kind: str) -> Html:
    share = float(getattr(start, name).split("\N{NO-BREAK SPACE}")[0]) / 100
    return bar(share, kind, data_bar=str(_POSITIONS[name]))


def _table(found: list[Cut]) -> Html:
    grades = dict(zip(map(str, GRADE_CUTS), GRADES[1:], strict=True))
    rows = [(_from(one.score, grades.get(one.score)), *astuple(one)[1:]) for one in reversed(found[::ROWS_EVERY])]
    head = (
        "Score from (grades)",
        "Contacts",
        "Of the leads",
        "Expected conversions",
        "Of all expected",
        "Per 100",
        "At random",
    )
    return table(head, rows, "Expected contacts and conversions by where one cuts")


def _from(score: str, grade: str | None) -> str:
    """A score, and the grades it lets in where it is the border of one."""
    if grade is None:
        return score
    # Word joiners: a dash may end a line.
    return f"{score} (A)" if grade == "A" else f"{score} (A\N{WORD JOINER}–\N{WORD JOINER}{grade})"


_POSITIONS = {name: place for place, name in enumerate(Cut.__dataclass_fields__)}
