"""Learning a list's own words: content categories, attributes with their categories, time zones; and its machines.

What enters: a backend with the log's views and an instant. What leaves: a grown ``Catalogue``. The promise: only what was
known before the instant is learnt, and what was learnt before keeps its place (but for the machines, learnt anew each time).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import available_timezones

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from features.catalogue import CATEGORY_LIMIT, CONTENT_SLOTS, Attribute, Catalogue
from features.contract import SUBSCRIBER_COLUMNS
from features.machines import learn_machines, pattern_counts


def learn(con: ibis.BaseBackend, until: datetime, catalogue: Catalogue) -> Catalogue:
    """Grow a catalogue by what the log held before an instant.

    Parameters
    ----------
    until
        Events received and subscribers created at or after it teach nothing.
    """
    subscribers = con.table("subscribers").filter(lambda t: t.created_at < ibis.literal(until))
    names = [name for name in subscribers.columns if name not in SUBSCRIBER_COLUMNS]
    zones = _most_frequent(subscribers.select(word=subscribers.timezone), 10_000)
    grown = catalogue.grown(
        content=_contents(con, until),
        attributes=[_attribute(subscribers, name) for name in names],
        timezones=[zone for zone in zones if zone in available_timezones()],
    )
    return replace(grown, machines=learn_machines(pattern_counts(con, until)))


def _contents(con: ibis.BaseBackend, until: datetime) -> list[str]:
    events, campaigns = con.table("events"), con.table("campaigns")
    seen = events.filter(events.received_at < ibis.literal(until))
    theirs = campaigns.select("campaign_id", campaign_content="content")
    joined = seen.left_join(theirs, "campaign_id")
    words = joined.select(word=ibis.coalesce(joined.content, joined.campaign_content).unnest())
    return _most_frequent(words, CONTENT_SLOTS - 1)


def _attribute(subscribers: ir.Table, name: str) -> Attribute:
    column = subscribers[name]
    if isinstance(column.type(), dt.String):
        return Attribute(name, tuple(_most_frequent(subscribers.select(word=column), CATEGORY_LIMIT)))
    return Attribute(name)


def _most_frequent(words: ir.Table, limit: int) -> list[str]:
    """The most frequent words, ties in alphabetical order."""
    counted = words.filter(words.word.notnull()).group_by("word").aggregate(count=lambda t: t.count())
    ranked = counted.order_by([ibis.desc("count"), "word"]).limit(limit)
    return [str(word) for word in ranked.to_pyarrow()["word"].to_pylist()]
