"""What would change if machines were counted as people: a page for a marketer.

What enters: a ``Classified``. What leaves: one HTML page. The promise: every number on it is in ``report.json`` too, and it
names no person.
"""

from __future__ import annotations

from pipelines.classify import Classified
from pipelines.pages import Html, bullets, document, header, paragraph, percent, section, table, tag

MOST_CAMPAIGNS = 50


def page(found: Classified) -> str:
    """The whole page."""
    title = f"People and machines: {found.about.title}"
    footer = tag(
        "footer",
        paragraph(
            "A person's event counts 1, a doubtful one in part. A probability rests on the user agent, the network, the time "
            "since delivery, and on what else was clicked or opened about the same moment."
        ),
    )
    return document(
        title, header(title, found.about.simulated), [_whole(found), _by_campaign(found), _by_evidence(found)], footer
    )


def _whole(found: Classified) -> Html:
    total, people = found.campaigns[0], found.people
    how = (
        "What machines are like was learnt from this log."
        if found.learnt
        else "This log shows too few machines beyond doubt to learn from: what is known beforehand was used."
    )
    told = [
        f"{_inflated('Opens', total['opens'], total['human_opens'])}",
        f"{_inflated('Clicks', total['clicks'], total['human_clicks'])}",
        f"{people['active']:,} people would count as active; {people['only_machines']:,} of them only because of machines.",
        f"{found.machines:,} of {len(found.events):,} events are more likely a machine's.",
        how,
    ]
    return section("If machines were counted", bullets(told))


def _inflated(what: str, counted: int, human: float) -> str:
    share = 1 - human / counted if counted else float("nan")
    return f"{what}: {counted:,} are counted, {human:,.0f} are people's; {percent(share)} are machines'."


def _by_campaign(found: Classified) -> Html:
    largest = sorted(found.campaigns[1:], key=lambda row: (-row["opens"] - row["clicks"], str(row["campaign_id"])))
    rows = [
        (
            row["campaign_id"] or "none",
            f"{row['opens']:,}",
            f"{row['human_opens']:,.0f}",
            f"{row['clicks']:,}",
            f"{row['human_clicks']:,.0f}",
        )
        for row in largest[:MOST_CAMPAIGNS]
    ]
    caption = f"The {len(rows)} campaigns with the most opens and clicks, of {len(largest):,}."
    head = ("campaign", "opens", "people's", "clicks", "people's")
    return section("By campaign", table(head, rows, caption))


def _by_evidence(found: Classified) -> Html:
    rows = [
        (
            ", ".join(
                (one["kind"], *(f"{name}: {one[name]}" for name in ("agent", "network") if one[name] != "unknown"))
            ),
            ", ".join(f"{name}: {one[name]}" for name in ("haste", "burst", "trap")),
            f"{one['events']:,}",
            f"{one['human_probability']:.3f}",
        )
        for one in found.patterns
    ]
    caption = "The most frequent evidence: how many events show it, and how likely each is a person's."
    return section("By evidence", table(("event", "about its moment", "events", "a person"), rows, caption, words=2))
