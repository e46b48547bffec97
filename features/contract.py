"""Input contract v1: the three tables, their columns and the event types.

What enters: nothing. What leaves: names that every other module spells the same way. The promise: a column or an event
type is written once, here.
"""

from __future__ import annotations

import pyarrow as pa

EVENT_TYPES = (
    "sent",
    "delivered",
    "open",
    "click",
    "soft_bounce",
    "hard_bounce",
    "complaint",
    "unsubscribe",
    "subscribe",
    "page_view",
    "form_submit",
    "purchase",
    "conversion",
)
ENGAGEMENT_TYPES = ("open", "click", "page_view", "form_submit", "purchase")
RESPONSE_TYPES = ("open", "click")
VISIT_TYPES = ("page_view", "form_submit", "purchase")
OPT_OUT_TYPES = ("unsubscribe", "complaint")

MODELS = ("churn", "lead_score", "send_time")
HOURS_OF_WEEK = 168

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")

# `agent`, `network` and `link` replace the raw user_agent, ip and url: evidence reduced at ingest, then dropped. Logs written
# before the latter two were kept have neither.
EVENT_SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("subscriber_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("occurred_at", UTC_MICROSECONDS, nullable=False),
        pa.field("received_at", UTC_MICROSECONDS, nullable=False),
        pa.field("campaign_id", pa.string()),
        pa.field("content", pa.list_(pa.string())),
        pa.field("value", pa.float64()),
        pa.field("agent", pa.string(), nullable=False),
        pa.field("network", pa.string()),
        pa.field("link", pa.string()),
    ]
)
RAW_EVENT_COLUMNS = (
    "event_id",
    "subscriber_id",
    "event_type",
    "occurred_at",
    "received_at",
    "campaign_id",
    "content",
    "value",
    "user_agent",
    "ip",
    "url",
)
REQUIRED_EVENT_COLUMNS = ("event_id", "subscriber_id", "event_type", "occurred_at")

# Attribute columns follow these in `subscribers` and `campaigns`; their names are the list's own.
SUBSCRIBER_COLUMNS = ("subscriber_id", "created_at", "timezone", "consent_profiling", "consent_open_tracking")
CAMPAIGN_COLUMNS = ("campaign_id", "sent_at", "subject", "content")

AGENTS = ("unknown", "person", "image_proxy", "prefetch", "scanner")
"""What a user agent says on its own: nothing, a person's mail program or browser, an image proxy with a person behind
it (Gmail), a mail-privacy prefetch (Apple), or a crawler or link scanner."""

NETWORKS = ("unknown", "public", "image_proxy", "prefetch", "datacentre", "scanner")
"""What an address says on its own: nothing, some network where people are, a mail provider's image proxy, a mail-privacy
relay, a data centre, or a security vendor's gateway."""
UNSUBSCRIBE_LINK, HONEYPOT_LINK = "unsubscribe", "honeypot"
"""Two links that are called by name in ``link``; any other is a digest of its host and path."""
