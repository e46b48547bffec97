"""Providers as the service meets them: each signs its posts in its own way, with keys made for the occasion."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from serving.webhooks.sns import SIGNED, canonical

NOW = datetime(2026, 11, 23, 8, 15, tzinfo=UTC)
NOW_S = NOW.timestamp()
TOPIC = "arn:aws:sns:eu-west-1:123456789012:mail"
PEM = "SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
CERTIFICATE_URL = f"https://sns.eu-west-1.amazonaws.com/{PEM}"
CONFIRM_URL = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=mail&Token=2336412f37"
MAILGUN_KEY = "key-0a1b2c3d4e5f"
POSTMARK = "basic:postmark:correct-horse header:X-Webhook-Secret:battery-staple"
BREVO = "bearer:brevo-token-123"
MAILJET = "basic:mailjet:open:sesame"
SECRETS = (MAILGUN_KEY, "correct-horse", "battery-staple", "brevo-token-123", "open:sesame")


@dataclass(frozen=True)
class Post:
    """A request a provider makes."""

    provider: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/v1/events/{self.provider}"

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        named = {"content-type": "application/json", "content-length": str(len(self.body))} | dict(self.headers)
        return [(name.lower().encode(), value.encode("latin-1")) for name, value in named.items()]


def sendgrid_key(name: str = "own") -> ec.EllipticCurvePrivateKey:
    return _sendgrid_key(name)


@cache
def _sendgrid_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def shown(key: ec.EllipticCurvePrivateKey) -> str:
    """As SendGrid shows it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def sendgrid(body: bytes, key: ec.EllipticCurvePrivateKey | None = None, signed_s: float = NOW_S) -> Post:
    timestamp = f"{signed_s:.0f}"
    signature = (key or sendgrid_key()).sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
    headers = {
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
    }
    return Post("sendgrid", body, headers)


def mailgun(
    event: Mapping[str, Any], token: Any = "a" * 50, key: str = MAILGUN_KEY, signed_s: float = NOW_S, **block: Any
) -> Post:
    timestamp = f"{signed_s:.0f}"
    signature = hmac.new(key.encode(), f"{timestamp}{token}".encode(), hashlib.sha256).hexdigest()
    signed = {"timestamp": timestamp, "token": token, "signature": signature} | block
    return Post("mailgun", json.dumps({"signature": signed, "event-data": event}).encode())


@dataclass(frozen=True)
class SnsKey:
    key: rsa.RSAPrivateKey
    pem: bytes


@cache
def sns_key(name: str = "own", from_days: float = -30, until_days: float = 300, bits: int = 2048) -> SnsKey:
    key = rsa.generate_private_key(65537, bits)
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW + timedelta(days=from_days))
        .not_valid_after(NOW + timedelta(days=until_days))
        .sign(key, SHA256())
    )
    return SnsKey(key, certificate.public_bytes(Encoding.PEM))


def sns_timestamp(signed_s: float) -> str:
    return datetime.fromtimestamp(signed_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def ses(
    message: Mapping[str, Any] | str,
    key: SnsKey | None = None,
    kind: str = "Notification",
    signed_s: float = NOW_S,
    version: str = "2",
    topic: str = TOPIC,
    **changed: Any,
) -> Post:
    text = message if isinstance(message, str) else json.dumps(message)
    fields: dict[str, Any] = {
        "Type": kind,
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "TopicArn": topic,
        "Message": text,
        "Timestamp": sns_timestamp(signed_s),
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE_URL,
    }
    if kind == "Notification":
        fields |= {"Subject": "Amazon SES Email Event Notification"}
    else:
        fields |= {"Token": "2336412f37", "SubscribeURL": CONFIRM_URL}
    fields |= changed
    fields = {name: value for name, value in fields.items() if value is not None}
    signed = canonical({name: fields[name] for name in SIGNED[kind] if name in fields})
    digest = SHA256() if version == "2" else SHA1()
    fields["Signature"] = base64.b64encode((key or sns_key()).key.sign(signed, PKCS1v15(), digest)).decode()
    headers = {
        "content-type": "text/plain; charset=UTF-8",
        "x-amz-sns-message-type": kind,
        "x-amz-sns-topic-arn": topic,
        "x-amz-sns-message-id": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
    }
    return Post("ses", json.dumps(fields).encode(), headers)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def postmark(body: bytes) -> Post:
    return Post("postmark", body, basic("postmark", "correct-horse"))


def brevo(body: bytes) -> Post:
    return Post("brevo", body, {"Authorization": "Bearer brevo-token-123"})


def mailjet(body: bytes) -> Post:
    return Post("mailjet", body, basic("mailjet", "open:sesame"))


def configured(**other: Any) -> dict[str, Any]:
    """Settings that know all of them."""
    return {
        "now": NOW,
        "sendgrid_public_key": f"{shown(sendgrid_key('old'))} {shown(sendgrid_key())}",
        "mailgun_signing_key": MAILGUN_KEY,
        "ses_topics": f"arn:aws:sns:eu-west-1:123456789012:other {TOPIC}",
        "postmark_secret": POSTMARK,
        "brevo_secret": BREVO,
        "mailjet_secret": MAILJET,
    } | other


def click(number: int = 1, person: str = "anna@example.org", at_s: float = NOW_S - 60) -> dict[str, Any]:
    """SendGrid's."""
    return {
        "email": person,
        "timestamp": int(at_s),
        "event": "click",
        "sg_event_id": f"event-{number}",
        "sg_message_id": "message-1.filter0001",
        "useragent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1.15",
        "ip": "203.0.113.7",
        "url": "https://shop.example/autumn?mail=anna",
    }


def mailgun_open(number: int = 1, person: str = "anna@example.org", at_s: float = NOW_S - 60) -> dict[str, Any]:
    return {
        "event": "opened",
        "id": f"mailgun-{number}",
        "timestamp": at_s,
        "recipient": person,
        "ip": "203.0.113.7",
        "client-info": {"user-agent": "Mozilla/5.0 (Macintosh) Safari/605.1.15"},
        "message": {"headers": {"message-id": "20261123.1@example.org"}},
    }


def ses_click(number: int = 1, person: str = "anna@example.org", at_s: float = NOW_S - 60) -> dict[str, Any]:
    return {
        "eventType": "Click",
        "mail": {
            "timestamp": sns_timestamp(at_s - 600),
            "messageId": f"ses-{number}",
            "source": "shop@example.org",
            "destination": [person],
            "tags": {},
        },
        "click": {
            "timestamp": sns_timestamp(at_s),
            "ipAddress": "203.0.113.7",
            "userAgent": "Mozilla/5.0 (Macintosh) Safari/605.1.15",
            "link": "https://shop.example/autumn",
            "linkTags": None,
        },
    }


def postmark_open(number: int = 1, person: str = "anna@example.org", at_s: float = NOW_S - 60) -> dict[str, Any]:
    return {
        "RecordType": "Open",
        "MessageID": f"postmark-{number}",
        "MessageStream": "broadcast",
        "Recipient": person,
        "ReceivedAt": sns_timestamp(at_s),
        "UserAgent": "Mozilla/5.0 (Macintosh) Safari/605.1.15",
        "FirstOpen": True,
    }


def brevo_open(number: int = 1, person: str = "anna@example.org", at_s: float = NOW_S - 60) -> dict[str, Any]:
    return {
        "event": "unique_opened",
        "email": person,
        "id": number,
        "ts_event": int(at_s),
        "ts_epoch": int(at_s * 1000),
        "message-id": f"<brevo-{number}@example.org>",
    }


def mailjet_open(number: int = 1, person: str = "anna@example.org", at_s: float = NOW_S - 60) -> dict[str, Any]:
    return {
        "event": "open",
        "time": int(at_s),
        "MessageID": 19421777835146490 + number,
        "email": person,
        "ip": "203.0.113.7",
        "agent": "Mozilla/5.0 (Macintosh) Safari/605.1.15",
    }


def listed(events: Iterable[Any]) -> bytes:
    return json.dumps(list(events)).encode()


def one(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event).encode()


def genuine(number: int = 1, person: str = "anna@example.org") -> list[Post]:
    """One good post of each provider, with one event in it."""
    token = hashlib.sha256(f"{number}".encode()).hexdigest()[:50]
    return [
        sendgrid(listed([click(number, person)])),
        mailgun(mailgun_open(number, person), token),
        ses(ses_click(number, person)),
        postmark(one(postmark_open(number, person))),
        brevo(one(brevo_open(number, person))),
        mailjet(listed([mailjet_open(number, person)])),
    ]
