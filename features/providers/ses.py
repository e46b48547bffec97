"""Amazon SES: records of event publishing and classic notifications, in SNS's envelope or delivered raw.

What enters: one object. What leaves: what it says, one event per recipient concerned. The promise: every event type that SES
documents is known here, and what a message to several recipients cannot tell is not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from features.payload import digest, iso_us, mapping, of_message, parse, text, texts, unread
from features.told import Aside, Found, Told

_ASIDE = frozenset(
    (
        # Refused for what is in it, or never made: the sender's. Delayed: tried again.
        "Reject",
        "Rendering Failure",
        "DeliveryDelay",
        # Mail that came in, and SES trying out a topic.
        "Received",
        "AmazonSnsSubscriptionSucceeded",
    )
)
_TALK_OF_SNS = frozenset(("SubscriptionConfirmation", "UnsubscribeConfirmation"))
_TOPIC_TRIED = "Successfully validated SNS topic for Amazon SES event publishing"
# The account's own list and its opt-outs: a bounce, complaint or opt-out that was told when it happened. What SES's global
# list suppresses bounced for somebody else, which is news of the address.
_KNOWN_BEFORE = frozenset(("OnAccountSuppressionList", "UnsubscribedRecipient"))
# Reports of failed authentication and viruses come from programs; "not-spam" says the opposite of a complaint.
_NO_COMPLAINT = frozenset(("not-spam", "auth-failure", "virus"))
_SINGLE = {"Open": "open", "Click": "click", "Subscription": ""}
_TAG_HEADER = "x-ses-message-tags"


def ses(item: Any) -> list[Found]:
    """What one record says, or one SNS message around it."""
    outer = mapping(item)
    given = outer.get("Type")
    if isinstance(given, str) and given in _TALK_OF_SNS:
        return [Aside(given)]
    if given != "Notification" or "Message" not in outer:
        return _record(item)
    message = outer["Message"]
    if not isinstance(message, str):
        return _record(message)
    if message.startswith(_TOPIC_TRIED):
        return [Aside("AmazonSnsSubscriptionSucceeded")]
    try:
        return _record(parse(message.encode("utf-8", "replace")))
    except ValueError:
        return [unread("Message is no JSON", item)]


def _record(item: Any) -> list[Found]:
    record = mapping(item)
    name = record.get("eventType", record.get("notificationType"))
    if not isinstance(name, str):
        return [unread("eventType and notificationType are missing", item)]
    if name in _ASIDE:
        return [Aside(name)]
    if name in _SINGLE:
        return [_of_one(record, name, item)]
    told = _OF_RECIPIENTS.get(name)
    if told is None:
        return [unread("eventType is not one that SES documents", item)]
    kind, stamp, recipients = told(record)
    if kind == "":
        return [Aside(name)]
    return list(_of_each(record, kind, stamp, recipients, item))


# --- what concerns each recipient -------------------------------------------------------------------------------------


def _sent(record: Mapping[str, Any]) -> tuple[str, Any, Any]:
    mail = mapping(record.get("mail"))
    return "sent", mail.get("timestamp"), mail.get("destination")


def _delivery(record: Mapping[str, Any]) -> tuple[str, Any, Any]:
    delivery = mapping(record.get("delivery"))
    return "delivered", delivery.get("timestamp"), delivery.get("recipients")


def _bounce(record: Mapping[str, Any]) -> tuple[str, Any, Any]:
    bounce = mapping(record.get("bounce"))
    kind = "hard_bounce" if bounce.get("bounceType") == "Permanent" else "soft_bounce"
    known = text(bounce.get("bounceSubType")) in _KNOWN_BEFORE
    return "" if known else kind, bounce.get("timestamp"), bounce.get("bouncedRecipients")


def _complaint(record: Mapping[str, Any]) -> tuple[str, Any, Any]:
    complaint = mapping(record.get("complaint"))
    known = text(complaint.get("complaintSubType")) in _KNOWN_BEFORE
    none = known or text(complaint.get("complaintFeedbackType")) in _NO_COMPLAINT
    return "" if none else "complaint", complaint.get("timestamp"), complaint.get("complainedRecipients")


_OF_RECIPIENTS = {"Send": _sent, "Delivery": _delivery, "Bounce": _bounce, "Complaint": _complaint}


def _of_each(record: Mapping[str, Any], kind: str, stamp: Any, recipients: Any, item: Any) -> Iterator[Found]:
    occurred_us = iso_us(stamp)
    if occurred_us is None:
        yield unread("timestamp is missing or no instant with its time zone", item)
    elif not isinstance(recipients, list) or not recipients:
        yield unread("the record names no recipient", item)
    else:
        alone = len(recipients) == 1 and not _is_shared(record)
        for recipient in recipients:
            given = recipient.get("emailAddress") if isinstance(recipient, dict) else recipient
            yield _told(record, kind, occurred_us, text(given), alone, {})


def _is_shared(record: Mapping[str, Any]) -> bool:
    """Whether the message went to several: then its own subscriber id is not known to be this one's."""
    destination = mapping(record.get("mail")).get("destination")
    return isinstance(destination, list) and len(destination) > 1


# --- what one person did ----------------------------------------------------------------------------------------------


def _of_one(record: Mapping[str, Any], name: str, item: Any) -> Found:
    done = mapping(record.get(name.lower()))
    kind = _SINGLE[name] or _preference(done)
    if kind == "":
        return Aside(name)
    occurred_us = iso_us(done.get("timestamp"))
    if occurred_us is None:
        return unread("timestamp is missing or no instant with its time zone", item)
    destination = mapping(record.get("mail")).get("destination")
    if isinstance(destination, list) and len(destination) > 1:
        return unread("the message went to several recipients, and SES does not say whose event this is", item)
    address = text(destination[0]) if isinstance(destination, list) and destination else None
    return _told(record, kind, occurred_us, address, True, done if kind in ("open", "click") else {})


def _preference(change: Mapping[str, Any]) -> str:
    """What a person decided: leaving everything or a topic, or coming back; "" when nothing is different."""
    before, after = _topics(change.get("oldTopicPreferences")), _topics(change.get("newTopicPreferences"))
    left = any(out and before.get(topic) is not True for topic, out in after.items())
    joined = any(not out and before.get(topic) is True for topic, out in after.items())
    return "unsubscribe" if left else "subscribe" if joined else ""


def _topics(preferences: Any) -> dict[str | None, bool]:
    """Whether each topic is opted out of; None stands for everything."""
    given = mapping(preferences)
    out: dict[str | None, bool] = {}
    if isinstance(given.get("unsubscribeAll"), bool):
        out[None] = given["unsubscribeAll"]
    topics = given.get("topicSubscriptionStatus")
    for topic in map(mapping, topics if isinstance(topics, list) else ()):
        # SES's records name these in one way, its interface for contacts in another.
        name, status = topic.get("topicName"), topic.get("subscriptionStatus")
        if isinstance(name, str) and status in ("OptOut", "OptIn", "OPT_OUT", "OPT_IN"):
            out[name] = status in ("OptOut", "OPT_OUT")
    return out


def _told(
    record: Mapping[str, Any], kind: str, occurred_us: int, address: str | None, alone: bool, done: Mapping[str, Any]
) -> Told:
    mail = mapping(record.get("mail"))
    tags = _tags(mail)
    message_id = text(mail.get("messageId"))
    url = text(done.get("link"))
    return Told(
        # A classic notification and a published record of one event say the same, and so are one.
        f"ses:{digest(kind, message_id, occurred_us, url)}",
        kind,
        occurred_us,
        address,
        _first(tags, "subscriber_id") if alone else None,
        _first(tags, "campaign_id") or of_message("ses", message_id),
        texts(tags.get("content")),
        None,
        text(done.get("userAgent")),
        text(done.get("ipAddress")),
        url,
        False,
        True,
    )


def _first(tags: Mapping[str, Any], name: str) -> str | None:
    found = texts(tags.get(name))
    return None if found is None else found[0]


def _tags(mail: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message's tags: classic notifications know them only as the header they were given in."""
    if "tags" in mail:
        return mapping(mail["tags"])
    headers = mail.get("headers")
    for header in map(mapping, headers if isinstance(headers, list) else ()):
        name, value = text(header.get("name")), text(header.get("value"))
        if name is not None and value is not None and name.lower() == _TAG_HEADER:
            pairs = (pair.partition("=") for pair in value.split(","))
            return {key.strip(): [given.strip()] for key, _, given in pairs}
    return {}
