"""How likely it is that a person made an event, and what else an event brings to a fold.

What enters: the log's raw views. What leaves: one Ibis table of events, each with its human probability, its content and
its local hour of week. The promise: what is said of an event rests on nothing received after that event, so a later
arrival never rewrites an earlier feature.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.catalogue import Catalogue
from features.clock import EPOCH, HOURS_TO_FIRST_MONDAY, MICROSECONDS_PER_HOUR, instant, utc_offsets
from features.contract import ENGAGEMENT_TYPES, HOURS_OF_WEEK

HUMAN_BY_AGENT = {"unknown": 1.0, "person": 1.0, "image_proxy": 0.95, "prefetch": 0.05, "scanner": 0.02}
"""Prior belief per class of user agent: Gmail's image proxy fetches when a person opens, Apple's before anybody does."""
SCANNER_DELAY_SECONDS = 10
"""People do not click within this time of a message's delivery; link scanners do."""
SCANNER_CLICK_HUMAN = 0.05
HUMAN_THRESHOLD = 0.5
"""From here on an event counts as a person's where only yes or no will do (labels, latest times)."""


def epoch_us(instants: ir.Value) -> ir.IntegerValue:
    """Microseconds since 1970 UTC of a timestamp column."""
    return instants.delta(ibis.literal(EPOCH), unit="microsecond")


def with_human_probability(events: ir.Table, subscribers: ir.Table) -> ir.Table:
    """Add ``human`` (0–1): 1 for what a program does itself, less for engagement that a machine may have made.

    Opens of somebody who refused open tracking count for nothing.
    """
    by_agent = ibis.cases(*((events.agent == agent, p) for agent, p in HUMAN_BY_AGENT.items()), else_=1.0)
    engagement = events.event_type.isin(ENGAGEMENT_TYPES)
    judged = events.mutate(human=engagement.ifelse(by_agent, 1.0))
    hasty = _hasty_clicks(events).mutate(hasty=True)
    judged = judged.left_join(hasty, "event_id").drop("event_id_right")
    judged = judged.mutate(
        human=judged.hasty.notnull().ifelse(ibis.least(judged.human, SCANNER_CLICK_HUMAN), judged.human)
    )
    refused = subscribers.filter(~subscribers.consent_open_tracking).select("subscriber_id").mutate(refused=True)
    judged = judged.left_join(refused, "subscriber_id").drop("subscriber_id_right", "hasty")
    unwanted = judged.refused.notnull() & (judged.event_type == "open")
    return judged.mutate(human=unwanted.ifelse(0.0, judged.human)).drop("refused")


def _hasty_clicks(events: ir.Table) -> ir.Table:
    """Ids of clicks that follow the delivery of their message faster than a person could."""
    clicks = events.filter(events.event_type == "click", events.campaign_id.notnull())
    sends = events.filter(events.event_type.isin(["sent", "delivered"])).select(
        "subscriber_id", "campaign_id", delivered_at="occurred_at", delivery_received_at="received_at"
    )
    joined = clicks.join(sends, ["subscriber_id", "campaign_id"])
    known = joined.filter(
        joined.delivery_received_at <= joined.received_at,
        joined.delivered_at <= joined.occurred_at,
        epoch_us(joined.occurred_at) - epoch_us(joined.delivered_at) < SCANNER_DELAY_SECONDS * 1_000_000,
    )
    return known.select("event_id").distinct()


def with_content(events: ir.Table, campaigns: ir.Table) -> ir.Table:
    """An event without content of its own concerns its campaign's."""
    theirs = campaigns.select("campaign_id", campaign_content="content")
    joined = events.left_join(theirs, "campaign_id").drop("campaign_id_right")
    return joined.mutate(content=ibis.coalesce(joined.content, joined.campaign_content)).drop("campaign_content")


def with_local_hour(events: ir.Table, subscribers: ir.Table, catalogue: Catalogue) -> ir.Table:
    """Add ``hour_of_week`` (0 = Monday 00:00) in the subscriber's zone, the list's default where there is none."""
    known = list(catalogue.timezones)
    zone = ibis.coalesce(
        subscribers.timezone.isin(known).ifelse(subscribers.timezone, None), catalogue.default_timezone
    )
    zones = subscribers.select("subscriber_id", zone=zone)
    joined = events.left_join(zones, "subscriber_id").drop("subscriber_id_right")
    joined = joined.mutate(
        zone=ibis.coalesce(joined.zone, catalogue.default_timezone), occurred_us=epoch_us(joined.occurred_at)
    )
    first, last = _span(joined.occurred_us)
    offsets = ibis.memtable(utc_offsets(known, instant(first), instant(last)))
    offsets = offsets.select(
        "timezone", "offset_us", from_us=epoch_us(offsets.valid_from), until_us=epoch_us(offsets.valid_until)
    )
    local = joined.join(
        offsets,
        [
            joined.zone == offsets.timezone,
            joined.occurred_us >= offsets.from_us,
            joined.occurred_us < offsets.until_us,
        ],
    )
    hours = ((local.occurred_us + local.offset_us) / MICROSECONDS_PER_HOUR).floor().cast("int64")
    return local.mutate(hour_of_week=(hours + HOURS_TO_FIRST_MONDAY) % HOURS_OF_WEEK).drop(
        "zone", "timezone", "offset_us", "from_us", "until_us"
    )


def _span(occurred_us: ir.IntegerColumn) -> tuple[int, int]:
    """First and last moment, both 0 without any."""
    ends = occurred_us.as_table().aggregate(first=occurred_us.min().fill_null(0), last=occurred_us.max().fill_null(0))
    row = ends.to_pyarrow().to_pylist()[0]
    return row["first"], row["last"]


def evidence(con: ibis.BaseBackend, catalogue: Catalogue) -> ir.Table:
    """Every event of the log, ready to fold: ``human``, ``content``, ``hour_of_week``, ``occurred_us``, ``received_us``.

    Parameters
    ----------
    con
        A backend with the views ``events``, ``subscribers`` and ``campaigns``, as ``EventLog.connect`` gives.
    """
    events, subscribers, campaigns = con.table("events"), con.table("subscribers"), con.table("campaigns")
    judged = with_human_probability(events, subscribers)
    local = with_local_hour(with_content(judged, campaigns), subscribers, catalogue)
    return local.mutate(received_us=epoch_us(local.received_at))
