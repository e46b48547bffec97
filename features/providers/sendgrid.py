"""SendGrid's Event Webhook: an array of flat objects, custom arguments among their keys.

What enters: one object. What leaves: what it says. The promise: every event type that SendGrid documents is known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from features.payload import digest, epoch_us, mapping, of_message, text, texts, unread
from features.told import Aside, Found, Told

_TYPES = {
    # Taken on and about to be delivered: what others call sent. What is dropped is never processed.
    "processed": "sent",
    "delivered": "delivered",
    "open": "open",
    "click": "click",
    "bounce": "hard_bounce",
    "blocked": "soft_bounce",
    "expired": "soft_bounce",
    "spamreport": "complaint",
    "spam_report": "complaint",
    "unsubscribe": "unsubscribe",
    "group_unsubscribe": "unsubscribe",
    "group_resubscribe": "subscribe",
}
# Deferred: it will be tried again, and the end of it is told. The other is about the sender's account.
_ASIDE = frozenset(("deferred", "account_status_change"))
_WITH_EVIDENCE = frozenset(("open", "click", "unsubscribe", "subscribe"))
_INVALID = frozenset(("invalid", "invalid address", "invalid email", "invalid email address"))
_CUSTOM = ("unique_args", "custom_args")
_CAMPAIGN_KEYS = ("campaign_id", "marketing_campaign_id", "singlesend_id", "mc_auto_id")
# Ids of today begin with 22 characters of the message; those of long ago with three shorter parts.
_LONG = 20


def sendgrid(item: Any) -> list[Found]:
    """What one object of the array says."""
    event = mapping(item)
    name = event.get("event")
    kind = _kind(event, name) if isinstance(name, str) else None
    if kind is None:
        return [unread("event is not one that SendGrid documents", item)]
    if kind == "":
        return [Aside(str(name))]
    occurred_us = epoch_us(event.get("timestamp"))
    if occurred_us is None:
        return [unread("timestamp is missing or not in seconds since 1970", item)]
    return [_told(event, kind, occurred_us)]


def _kind(event: Mapping[str, Any], name: str) -> str | None:
    """The event's type; "" for what is set aside and None for what is not known."""
    if name == "bounce":
        return _bounce(event)
    if name == "dropped":
        # Not sent because of a bounce, complaint or opt-out that was told when it happened, or for the sender's own fault.
        # Only an address that cannot be one is news.
        reason = event.get("reason")
        return "hard_bounce" if isinstance(reason, str) and reason.strip().lower() in _INVALID else ""
    return "" if name in _ASIDE else _TYPES.get(name)


def _bounce(event: Mapping[str, Any]) -> str:
    """Blocked: refused this time, for the sender or the content; the address may be good."""
    given = event.get("type")
    known = _TYPES.get(given) if given in ("bounce", "blocked", "expired") else None
    status = event.get("status")
    return known or ("soft_bounce" if isinstance(status, str) and status.startswith("4") else "hard_bounce")


def _told(event: Mapping[str, Any], kind: str, occurred_us: int) -> Told:
    message_id = _message_id(event)
    address = text(event.get("email"))
    event_id = text(event.get("sg_event_id"))
    url = text(event.get("url")) if kind == "click" else None
    evidence = kind in _WITH_EVIDENCE
    return Told(
        f"sendgrid:{digest(event_id) if event_id else digest(kind, message_id, occurred_us, url)}",
        kind,
        occurred_us,
        address,
        _own(event, "subscriber_id"),
        _campaign(event) or of_message("sendgrid", message_id),
        texts(event.get("category")),
        None,
        text(event.get("useragent")) if evidence else None,
        text(event.get("ip")) if evidence else None,
        url,
        event.get("sg_machine_open") in (True, "true", "True", "1"),
        event_id is None,
    )


def _campaign(event: Mapping[str, Any]) -> str | None:
    for key in _CAMPAIGN_KEYS:
        found = _own(event, key)
        if found is not None:
            return found
    return None


def _own(event: Mapping[str, Any], key: str) -> str | None:
    """Custom arguments are keys of the event itself; some forward them under the name they were given by."""
    if key in event:
        return text(event[key])
    return next((text(event[name][key]) for name in _CUSTOM if key in mapping(event.get(name))), None)


def _message_id(event: Mapping[str, Any]) -> str | None:
    """What all events of one message share: the id without what each server adds to it."""
    given = text(event.get("sg_message_id"))
    if given is None:
        return _from_smtp(text(event.get("smtp-id")))
    head = given.partition(".")[0]
    return head if len(head) >= _LONG else ".".join(given.split(".", 3)[:3])


def _from_smtp(given: str | None) -> str | None:
    """A delayed bounce has no other id; where SendGrid itself wrote this one, it begins with the message's."""
    if given is None:
        return None
    head, _, host = given.strip("<>").partition("@")
    return head if "ismtpd" in host or host.endswith("sendgrid.net") else given.strip("<>")
