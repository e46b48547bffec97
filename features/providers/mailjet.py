"""Mailjet's Event API: one flat object, or an array of them when events are grouped.

What enters: one object. What leaves: what it says. The promise: every event type that Mailjet documents is known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from features.payload import custom, digest, epoch_us, mapping, of_message, text, texts, unread
from features.told import Aside, Found, Told

_TYPES = {
    # The receiving server took it; Mailjet has no other word for either.
    "sent": "sent",
    "open": "open",
    "click": "click",
    "spam": "complaint",
    "unsub": "unsubscribe",
}
_WITH_EVIDENCE = frozenset(("open", "click", "unsubscribe"))
_INVALID = frozenset(("user unknown", "invalid domain", "no mail host", "typofix"))


def mailjet(item: Any) -> list[Found]:
    """What one object says."""
    event = mapping(item)
    name = event.get("event")
    kind = _kind(event, name) if isinstance(name, str) else None
    if kind is None:
        return [unread("event is not one that Mailjet documents", item)]
    if kind == "":
        return [Aside(str(name))]
    occurred_us = epoch_us(event.get("time"))
    if occurred_us is None:
        return [unread("time is missing or not in seconds since 1970", item)]
    return [_told(event, kind, occurred_us)]


def _kind(event: Mapping[str, Any], name: str) -> str | None:
    """The event's type; "" for what is set aside and None for what is not known."""
    error = event.get("error")
    if name == "blocked":
        # Not tried, mostly because of what was told before. An address that cannot be one is news.
        return "hard_bounce" if isinstance(error, str) and error in _INVALID else ""
    if name != "bounce":
        return _TYPES.get(name)
    if event.get("hard_bounce") in (True, 1, "true", "1"):
        return "hard_bounce"
    # Greylisted: tried again.
    return "" if error == "greylisted" else "soft_bounce"


def _told(event: Mapping[str, Any], kind: str, occurred_us: int) -> Told:
    own = custom(event.get("Payload")) | custom(event.get("CustomID"))
    message_id = text(event.get("MessageID")) or text(event.get("Message_GUID"))
    campaign_id = text(own.get("campaign_id")) or text(event.get("customcampaign")) or _number(event)
    url = text(event.get("url")) if kind == "click" else None
    evidence = kind in _WITH_EVIDENCE
    return Told(
        f"mailjet:{digest(kind, message_id or campaign_id, occurred_us, url)}",
        kind,
        occurred_us,
        text(event.get("email")),
        text(own.get("subscriber_id")),
        campaign_id or of_message("mailjet", message_id),
        # Mailjet knows no tags.
        texts(own.get("content")),
        None,
        text(event.get("agent")) if evidence else None,
        text(event.get("ip")) if evidence else None,
        url,
        False,
        True,
    )


def _number(event: Mapping[str, Any]) -> str | None:
    """Mailjet's own number of the campaign; 0 is none."""
    number = text(event.get("mj_campaign_id"))
    return None if number == "0" else number
