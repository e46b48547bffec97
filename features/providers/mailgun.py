"""Mailgun's webhooks: an object with a signature and the event, or the bare event as its Events API lists them.

What enters: one object. What leaves: what it says. The promise: every event type that Mailgun documents is known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from features.payload import custom, digest, epoch_us, mapping, of_message, text, texts, unread
from features.told import Aside, Found, Told

_TYPES = {
    "accepted": "sent",
    "delivered": "delivered",
    "opened": "open",
    "clicked": "click",
    "unsubscribed": "unsubscribe",
    "complained": "complaint",
}
# Refused by Mailgun for the sender's fault, mail that came in, and the sender's own uploads.
_ASIDE = frozenset(
    (
        "rejected",
        "stored",
        "list_member_uploaded",
        "list_member_upload_error",
        "list_uploaded",
        "email_validation",
    )
)
_WITH_EVIDENCE = frozenset(("open", "click", "unsubscribe"))
# Given up after hours of trying, or refused for the sender's reputation or the content.
_SOFT_REASONS = frozenset(("old", "espblock", "greylisted"))
_SUPPRESSED_CODES = frozenset(("605", "606", "607"))
_POLICY = "5.7."


def mailgun(item: Any) -> list[Found]:
    """What one webhook says."""
    event = mapping(mapping(item).get("event-data", item))
    name = event.get("event")
    kind = _kind(event, name) if isinstance(name, str) else None
    if kind is None:
        return [unread("event is not one that Mailgun documents", item)]
    if kind == "":
        return [Aside(str(name))]
    occurred_us = epoch_us(event.get("timestamp"))
    if occurred_us is None:
        return [unread("timestamp is missing or not in seconds since 1970", item)]
    return [_told(event, kind, occurred_us)]


def _kind(event: Mapping[str, Any], name: str) -> str | None:
    """The event's type; "" for what is set aside and None for what is not known."""
    if name != "failed" and name not in _TYPES:
        return "" if name in _ASIDE else None
    flags = mapping(event.get("flags"))
    if flags.get("is-test-mode") is True or (flags.get("is-routed") is True and name in ("accepted", "delivered")):
        # Nothing went out, or mail that came in was passed on.
        return ""
    return _failure(event) if name == "failed" else _TYPES[name]


def _failure(event: Mapping[str, Any]) -> str:
    status = mapping(event.get("delivery-status"))
    reason = text(event.get("reason")) or ""
    if event.get("severity") == "temporary":
        # It is tried again, as what others call deferred; the end of it is told.
        return ""
    if reason.startswith("suppress-") or text(status.get("code")) in _SUPPRESSED_CODES:
        # Not tried because of a bounce, complaint or opt-out that was told when it happened.
        return ""
    policy = (text(status.get("enhanced-code")) or "").startswith(_POLICY)
    return "soft_bounce" if reason in _SOFT_REASONS or (policy and reason != "bounce") else "hard_bounce"


def _told(event: Mapping[str, Any], kind: str, occurred_us: int) -> Told:
    variables = custom(event.get("user-variables"))
    message_id = text(mapping(mapping(event.get("message")).get("headers")).get("message-id"))
    client = mapping(event.get("client-info")) if kind in _WITH_EVIDENCE else {}
    # Mailgun promises ids that are unique within a day only.
    event_id = text(event.get("id"))
    url = text(event.get("url")) if kind == "click" else None
    found = (event_id, None) if event_id else (message_id, url)
    return Told(
        f"mailgun:{digest(kind, occurred_us, *found)}",
        kind,
        occurred_us,
        text(event.get("recipient")),
        text(variables.get("subscriber_id")),
        text(variables.get("campaign_id")) or _campaign(event) or of_message("mailgun", _bare(message_id)),
        texts(event.get("tags")),
        None,
        text(client.get("user-agent")),
        text(event.get("ip")) if client else None,
        url,
        text(client.get("bot")) is not None,
        event_id is None,
    )


def _bare(message_id: str | None) -> str | None:
    """Some events write a message's id between angles, some without."""
    return None if message_id is None else message_id.strip("<>")


def _campaign(event: Mapping[str, Any]) -> str | None:
    """The first of the campaigns that older accounts have."""
    listed = event.get("campaigns")
    return text(mapping(listed[0]).get("id")) if isinstance(listed, list) and listed else None
