"""The report: one page a marketer opens to see what the list is, what to do with it, and how far to trust the scores.

What enters: all there is to tell, see ``pipelines.report.gather``. What leaves: one HTML file. The promise: it loads nothing
from anywhere and runs only its own script, every word that came from data is escaped and cut to what a reader reads, and it
says plainly whether the people in it are real, what is not known, and what this data cannot tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pipelines.decisions import Experiment
from pipelines.files import replacing
from pipelines.leads.changes import Changes
from pipelines.pages import Html, document, facts, header, paragraph, section, tag, text
from pipelines.report.churn import churn_section
from pipelines.report.cut import SCRIPT, cut_section
from pipelines.report.freshness import freshness_section
from pipelines.report.holdout import holdout_section
from pipelines.report.hours import send_time_section
from pipelines.report.leads import glance_section, grades_section, worth_section
from pipelines.report.movers import movers_section
from pipelines.report.people import People
from pipelines.report.trust import ModelCard, trust_section
from pipelines.report.words import from_data, short
from serving.leads.book import LeftOut
from training.week import Week

LONGEST_TITLE = 200


@dataclass(frozen=True, eq=False)
class ReportInput:
    """Everything the page tells; what is None is said to be missing, or left out where nobody would miss it.

    ``people`` are those of the newest lead book. ``changes`` compares it with the one before. ``converts_within``
    is how long a lead is given, in words. ``exports`` says where the files are.
    """

    title: str
    simulated: bool
    list_facts: Mapping[str, str]
    models: Sequence[ModelCard]
    caveats: Sequence[str]
    people: People | None = None
    left_out: LeftOut | None = None
    changes: Changes | None = None
    week: Week | None = None
    has_sends: bool = False
    experiment: Experiment | None = None
    log_end: datetime | None = None
    converts_within: str = "30 days"
    exports: Sequence[str] = field(default_factory=tuple)


def write_report(out: Path, report: ReportInput) -> Path:
    """Write the page, whole or not at all, and return its path.

    Raises
    ------
    UnusableOption
        When the file cannot be written.
    """
    page = _page(report)
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8", errors="replace")
    return out


def _page(report: ReportInput) -> Html:
    title = short(report.title, LONGEST_TITLE)
    sections = [
        glance_section(report.people),
        section("What this list is", facts({name: short(value) for name, value in report.list_facts.items()})),
        *_of_people(report),
        send_time_section(report.people, report.week, report.has_sends),
        holdout_section(report.experiment) if report.has_sends else Html(""),
        freshness_section(report.people, report.left_out, report.log_end),
        _told("What this data cannot tell", report.caveats),
        _told("Where the exports are", report.exports),
        trust_section(report.models),
    ]
    told = [part for part in sections if part]
    top = Html(header(title, report.simulated) + _contents(told))
    return document(title, top, told, _footer(report), SCRIPT)


def _contents(sections: Sequence[Html]) -> Html:
    """Links to the parts there are."""
    titles = (re.search(r'<h2 id="([^"]+)">([^<]+)</h2>', part) for part in sections)
    links = (tag("li", tag("a", Html(found[2]), href=f"#{found[1]}")) for found in titles if found is not None)
    return tag("nav", tag("ul", *links), aria_label="Parts of this page")


def _of_people(report: ReportInput) -> list[Html]:
    """What needs a lead book."""
    people = report.people
    lead_card = next((card for card in report.models if card.model == "lead_score"), None)
    if people is None:
        return []
    return [
        grades_section(people),
        movers_section(people, report.changes),
        worth_section(lead_card, report.converts_within) if people.has("grade") else Html(""),
        cut_section(people),
        churn_section(people),
    ]


def _told(title: str, words: Sequence[str]) -> Html:
    return section(title, tag("ul", *(tag("li", from_data(one, 1_000)) for one in words))) if words else Html("")


def _footer(report: ReportInput) -> Html:
    versions = [tag("span", text(f"{card.model} "), from_data(card.version)) for card in report.models if card.version]
    return (
        tag("footer", paragraph("Model versions:"), tag("ul", *(tag("li", one) for one in versions)))
        if versions
        else Html("")
    )
