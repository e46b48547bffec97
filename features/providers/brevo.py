"""Brevo's webhooks, for transactional messages and for campaigns: one flat object each.

What enters: one object. What leaves: what it says. The promise: every event type that Brevo documents is known here, and no
time is taken from a clock without a zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from features.payload import custom, digest, listed, loose_epoch_us, mapping, of_message, text, texts, unread
from features.told import Aside, Found, Told

_TYPES = {
    "request": "sent",
    "sent": "sent",
    "delivered": "delivered",
    "opened": "open",
    "unique_opened": "open",
    "proxy_open": "open",
    "unique_proxy_open": "open",
    "loaded_by_proxy": "open",
    "click": "click",
    "hard_bounce": "hard_bounce",
    # The address cannot be one.
    "invalid_email": "hard_bounce",
    "invalid": "hard_bounce",
    "soft_bounce": "soft_bounce",
    "spam": "complaint",
    "complaint": "complaint",
    "unsubscribe": "unsubscribe",
    "unsubscribed": "unsubscribe",
    "list_addition": "subscribe",
}
_BY_PROXY = frozenset(("proxy_open", "unique_proxy_open", "loaded_by_proxy"))
# Blocked: not sent because of a bounce, complaint or opt-out that was told when it happened. Deferred: tried again. Error:
# the sender's. The others are about records of contacts.
_ASIDE = frozenset(
    ("blocked", "deferred", "error", "contact_updated", "contact_deleted", "coupon_sent", "unique_coupon_sent")
)
_TIMES = ("ts_epoch", "ts_event", "ts")
"""The best clock first. ``date`` is in the account's own time zone, without saying which."""


def brevo(item: Any) -> list[Found]:
    """What one webhook says."""
    event = mapping(item)
    name = event.get("event")
    if name is None and "items" in event:
        # Mail that came in.
        return [Aside("inbound")]
    if isinstance(name, str) and name in _ASIDE:
        return [Aside(name)]
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        return [unread("event is not one that Brevo documents", item)]
    occurred_us = _occurred_us(event)
    if occurred_us is None:
        return [unread("none of ts_epoch, ts_event and ts is a number of seconds or milliseconds since 1970", item)]
    # Changes of contacts name several people at once.
    addresses = texts(event.get("email")) or (None,)
    return [_told(event, kind, occurred_us, address) for address in addresses]


def _occurred_us(event: Mapping[str, Any]) -> int | None:
    return next((us for us in (loose_epoch_us(event.get(name)) for name in _TIMES) if us is not None), None)


def _told(event: Mapping[str, Any], kind: str, occurred_us: int, address: str | None) -> Told:
    own = custom(event.get("X-Mailin-custom"))
    message_id = text(event.get("message-id"))
    message_id = None if message_id is None else message_id.strip("<>")
    campaign_id = text(own.get("campaign_id")) or _numbered(event.get("camp_id"))
    url = text(event.get("link")) or text(event.get("URL")) if kind == "click" else None
    evidence = kind in ("open", "click")
    return Told(
        # Its `id` is the webhook's own, so what happened has to say which event it is.
        f"brevo:{digest(kind, message_id or campaign_id, occurred_us, url)}",
        kind,
        occurred_us,
        address,
        text(own.get("subscriber_id")),
        campaign_id or of_message("brevo", message_id),
        _content(event),
        None,
        text(event.get("user_agent")) if evidence else None,
        text(event.get("ip")) if evidence else None,
        url,
        event["event"] in _BY_PROXY,
        True,
    )


def _numbered(value: Any) -> str | None:
    """A campaign's number; 0 is none."""
    number = text(value)
    return None if number == "0" else number


def _content(event: Mapping[str, Any]) -> tuple[str, ...] | None:
    """``tags``, or ``tag``: one tag, or a JSON list of them."""
    if "tags" in event:
        return texts(event["tags"])
    return texts(listed(event.get("tag")))
