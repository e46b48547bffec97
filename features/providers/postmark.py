"""Postmark's webhooks: one object each, told apart by its record type.

What enters: one object. What leaves: what it says. The promise: every record type, type of bounce and reason of suppression
that Postmark documents is known here. Postmark tells of deliveries, not of sends: a delivery is both, or nobody could learn
from its messages what was answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from features.payload import custom, digest, iso_us, mapping, of_message, text, texts, unread
from features.told import Aside, Found, Told

_TYPES = {"Delivery": "delivered", "Open": "open", "Click": "click", "SpamComplaint": "complaint"}
_ASIDE = frozenset(("Inbound", "SMTPApiError"))
_TIMES = {
    "Delivery": "DeliveredAt",
    "Bounce": "BouncedAt",
    "SpamComplaint": "BouncedAt",
    "Open": "ReceivedAt",
    "Click": "ReceivedAt",
    "SubscriptionChange": "ChangedAt",
}
_BOUNCES = {
    "HardBounce": "hard_bounce",
    "BadEmailAddress": "hard_bounce",
    "SoftBounce": "soft_bounce",
    "Blocked": "soft_bounce",
    # A filter's judgement of the message, or a refusal nobody could classify: no complaint by a person.
    "SpamNotification": "soft_bounce",
    "Unknown": "soft_bounce",
    "SpamComplaint": "complaint",
    "Unsubscribe": "unsubscribe",
    "Subscribe": "subscribe",
    # Tried again.
    "Transient": "",
    "DnsError": "",
    # Answers by programs, after which the message may well be read.
    "AutoResponder": "",
    "AddressChange": "",
    "ChallengeVerification": "",
    "OpenRelayTest": "",
    # The sender's own doing or fault.
    "VirusNotification": "",
    "ManuallyDeactivated": "",
    "Unconfirmed": "",
    "SMTPApiError": "",
    "InboundError": "",
    "DMARCPolicy": "",
    "TemplateRenderingFailed": "",
}
_SUPPRESSIONS = {"HardBounce": "hard_bounce", "SpamComplaint": "complaint"}
# Told in two records, with a time each; of one message to one person they happen once.
_ONCE = frozenset(_SUPPRESSIONS.values())


def postmark(item: Any) -> list[Found]:
    """What one webhook says."""
    record = mapping(item)
    name = record.get("RecordType")
    if name is None and "FromFull" in record:
        # Mail that came in has no record type.
        return [Aside("Inbound")]
    kind = _kind(record, name) if isinstance(name, str) else None
    if kind is None:
        return [unread("RecordType, or what it tells, is not one that Postmark documents", item)]
    if kind == "":
        return [Aside(str(name))]
    stamp = _TIMES[str(name)]
    occurred_us = iso_us(record.get(stamp))
    if occurred_us is None:
        return [unread(f"{stamp} is missing or no instant with its time zone", item)]
    kinds = ("sent", kind) if kind == "delivered" else (kind,)
    return [_told(record, each, occurred_us) for each in kinds]


def _kind(record: Mapping[str, Any], name: str) -> str | None:
    """The event's type; "" for what is set aside and None for what is not known."""
    if name == "Bounce":
        given = record.get("Type")
        return _BOUNCES.get(given) if isinstance(given, str) else None
    if name == "SubscriptionChange":
        return _change(record)
    return "" if name in _ASIDE else _TYPES.get(name)


def _change(record: Mapping[str, Any]) -> str | None:
    suppressed, reason = record.get("SuppressSending"), record.get("SuppressionReason")
    if suppressed is False:
        return "subscribe"
    if suppressed is not True:
        return None
    if isinstance(reason, str) and reason in _SUPPRESSIONS:
        return _SUPPRESSIONS[reason]
    if reason not in (None, "ManualSuppression"):
        return None
    # Customer and admin: the sender stopped it, and the person has not said a word.
    return {"Recipient": "unsubscribe", "Customer": "", "Admin": ""}.get(str(record.get("Origin")))


def _told(record: Mapping[str, Any], kind: str, occurred_us: int) -> Told:
    metadata = custom(record.get("Metadata"))
    message_id = text(record.get("MessageID"))
    number = text(record.get("ID"))
    once = kind in _ONCE and message_id is not None
    url = text(record.get("OriginalLink")) if kind == "click" else None
    evidence = kind in ("open", "click")
    parts = (message_id,) if once else (number,) if number else (message_id, occurred_us, url)
    return Told(
        f"postmark:{digest(kind, *parts)}",
        kind,
        occurred_us,
        text(record.get("Recipient")) or text(record.get("Email")),
        text(metadata.get("subscriber_id")),
        text(metadata.get("campaign_id")) or of_message("postmark", message_id),
        texts(record.get("Tag")),
        None,
        text(record.get("UserAgent")) if evidence else None,
        text(mapping(record.get("Geo")).get("IP")) if evidence else None,
        url,
        False,
        once or number is None,
    )
