"""Webhook bodies as the providers send them, about people nobody knows.

What enters: how many events and people, a seed. What leaves: bodies and, for SendGrid, signed requests. The promise: the same
arguments give the same events; every event has an id of its own, so nothing passes for a repeat.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.serving.load import post_bytes

KINDS = ("delivered", "open", "click")
BROWSER = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)
CAMPAIGNS = 20
HOURS_SPAN = 24.0


@dataclass(frozen=True)
class Happened:
    """What a body tells of: one of ``KINDS``, to person ``who``, in epoch seconds."""

    number: int
    kind: str
    who: int
    at: float
    campaign: int

    @property
    def address(self) -> str:
        return f"person{self.who}@example.com"

    @property
    def message(self) -> str:
        return f"message{self.who}c{self.campaign}"

    @property
    def ip(self) -> str:
        return f"192.0.2.{self.who % 250 + 1}"

    @property
    def url(self) -> str:
        return f"https://example.com/pages/{self.number % 7}"

    @property
    def iso(self) -> str:
        return datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def happenings(count: int, people: int, end: datetime, seed: int = 0) -> list[Happened]:
    """Events of the day before ``end``."""
    chance, last = random.Random(seed), end.timestamp()
    return [
        Happened(
            number=seed * 10_000_000 + number,
            kind=chance.choice(KINDS),
            who=chance.randrange(people),
            at=last - chance.random() * HOURS_SPAN * 3600,
            campaign=chance.randrange(CAMPAIGNS),
        )
        for number in range(count)
    ]


def sendgrid(one: Happened) -> dict[str, Any]:
    told: dict[str, Any] = {
        "email": one.address,
        "event": one.kind,
        "timestamp": int(one.at),
        "sg_event_id": f"event{one.number}",
        "sg_message_id": f"{one.message}.filter0001",
        "campaign_id": f"c{one.campaign}",
    }
    if one.kind != "delivered":
        told |= {"useragent": BROWSER, "ip": one.ip}
    return told | {"url": one.url} if one.kind == "click" else told


def _ses(one: Happened) -> dict[str, Any]:
    kind = {"delivered": "Delivery", "open": "Open", "click": "Click"}[one.kind]
    seen = {"timestamp": one.iso, "ipAddress": one.ip, "userAgent": BROWSER, "link": one.url}
    told = {"timestamp": one.iso, "recipients": [one.address]} if kind == "Delivery" else seen
    mail = {"timestamp": one.iso, "messageId": one.message, "destination": [one.address], "tags": {}}
    return {"eventType": kind, "mail": mail, kind.lower(): told}


def _mailgun(one: Happened) -> dict[str, Any]:
    kind = {"delivered": "delivered", "open": "opened", "click": "clicked"}[one.kind]
    data = {
        "event": kind,
        "id": f"event{one.number}",
        "timestamp": one.at,
        "recipient": one.address,
        "message": {"headers": {"message-id": f"{one.message}@example.com"}},
        "user-variables": {"campaign_id": f"c{one.campaign}"},
        "tags": [],
        "ip": one.ip,
        "client-info": {"user-agent": BROWSER},
        "url": one.url,
    }
    return {"signature": {"token": "", "timestamp": "", "signature": ""}, "event-data": data}


def _postmark(one: Happened) -> dict[str, Any]:
    kind = {"delivered": "Delivery", "open": "Open", "click": "Click"}[one.kind]
    told = {"RecordType": kind, "MessageID": one.message, "Recipient": one.address, "Metadata": {}}
    if kind == "Delivery":
        return told | {"DeliveredAt": one.iso}
    return told | {"ReceivedAt": one.iso, "UserAgent": BROWSER, "Geo": {"IP": one.ip}, "OriginalLink": one.url}


def _brevo(one: Happened) -> dict[str, Any]:
    return {
        "event": {"open": "opened"}.get(one.kind, one.kind),
        "email": one.address,
        "id": 1,
        "message-id": f"<{one.message}@smtp-relay.mailin.fr>",
        "ts_event": int(one.at),
        "ts_epoch": int(one.at * 1000),
        "tags": [],
        "link": one.url if one.kind == "click" else "",
    }


def _mailjet(one: Happened) -> dict[str, Any]:
    return {
        "event": {"delivered": "sent"}.get(one.kind, one.kind),
        "time": int(one.at),
        "MessageID": one.number,
        "email": one.address,
        "mj_campaign_id": one.campaign + 1,
        "customcampaign": "",
        "ip": one.ip,
        "agent": BROWSER,
        "url": one.url,
        "CustomID": "",
        "Payload": "",
    }


ITEMS: Mapping[str, Callable[[Happened], dict[str, Any]]] = {
    "sendgrid": sendgrid,
    "ses": _ses,
    "mailgun": _mailgun,
    "postmark": _postmark,
    "brevo": _brevo,
    "mailjet": _mailjet,
}
IN_BATCHES = ("sendgrid", "mailjet")
"""Providers that send several events in one body."""


def bodies(provider: str, told: Sequence[Happened], size: int) -> list[bytes]:
    """What a provider would send of these: arrays of ``size`` where it sends arrays, else one event a body."""
    items = [ITEMS[provider](one) for one in told]
    if provider not in IN_BATCHES:
        return [orjson.dumps(item) for item in items]
    return [orjson.dumps(items[start : start + size]) for start in range(0, len(items), size)]


class SendGridSender:
    """Somebody who holds SendGrid's private key."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> str:
        """As SendGrid shows it: DER in base64."""
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(self._key.public_key().public_bytes(*form)).decode()

    def request(self, url: str, body: bytes, at: datetime) -> bytes:
        """A whole signed request."""
        stamp = str(int(at.timestamp()))
        signature = self._key.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "x-twilio-email-event-webhook-timestamp": stamp,
            "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
        }
        return post_bytes(url, "/v1/events/sendgrid", body, headers)
