"""Amazon SES's door: notifications that SNS delivers and signs.

What enters: SNS messages with ``x-amz-sns-*`` headers. What leaves: the signed fields alone, put together anew, or an address
to confirm a subscription at. The promise: what is not signed is not read; topics that nobody allowed do not exist; SHA-1
(SignatureVersion 1) is not a signature.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from features.errors import UntrustedEvents
from features.payload import mapping
from serving.webhooks.certificates import Certificates, host_of, is_sns, seconds_of
from serving.webhooks.door import ONE_EVENT_BYTES, Arrived, Freshness, Headers, Trusted, decoded, parsed_of_strangers

TYPE, TOPIC = b"x-amz-sns-message-type", b"x-amz-sns-topic-arn"
NOTIFICATION = "Notification"
SUBSCRIPTION, UNSUBSCRIPTION = "SubscriptionConfirmation", "UnsubscribeConfirmation"
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
SIGNED = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    SUBSCRIPTION: _CONFIRMATION,
    UNSUBSCRIPTION: _CONFIRMATION,
}
"""What is signed of each type of message, in this order; an absent subject is left out."""
_TYPES = {name.encode(): name for name in SIGNED}


class SnsDoor:
    """Opens to messages of a few topics."""

    provider = "ses"
    media_types = frozenset({b"application/json", b"text/plain"})
    largest_body: int | None = ONE_EVENT_BYTES

    def __init__(self, topics: Collection[str], certificates: Certificates, max_age_s: float) -> None:
        self.topics, self.certificates = frozenset(topics), certificates
        self._freshness = Freshness(self.provider, max_age_s)

    def greet(self, headers: Headers, now_s: float) -> None:
        """SNS repeats in the headers what sort of message it is, and of which topic."""
        if headers.get(TYPE) not in _TYPES:
            raise UntrustedEvents(self.provider, "unsigned")
        if headers.get(TOPIC, b"").decode("latin-1") not in self.topics:
            raise UntrustedEvents(self.provider, "foreign")

    def check(self, arrived: Arrived) -> Trusted:
        """Verify the signature.

        Raises
        ------
        CertificateWanted
            When the certificate has to be fetched first.
        """
        self.greet(arrived.headers, arrived.now_s)
        message = self._message(arrived)
        fields = self._signed_fields(message, arrived)
        if message.get("SignatureVersion") != "2":
            raise UntrustedEvents(self.provider, "outdated")
        url = message.get("SigningCertURL", "")
        if not url.startswith(f"https://{host_of(fields['TopicArn'])}/"):
            raise UntrustedEvents(self.provider, "foreign")
        key = self.certificates.find(url, arrived.now_s)
        if not _verifies(key, message.get("Signature", ""), canonical(fields)):
            raise UntrustedEvents(self.provider, "forged")
        return self._trusted(fields)

    def _message(self, arrived: Arrived) -> dict[str, str]:
        """All texts of the message."""
        try:
            said = mapping(parsed_of_strangers(arrived.body))
        except ValueError:
            said = {}
        return {name: value for name, value in said.items() if isinstance(value, str)}

    def _signed_fields(self, message: dict[str, str], arrived: Arrived) -> dict[str, str]:
        """What the signature covers, if it is what the headers announced, now."""
        kind = _TYPES[arrived.headers[TYPE]]
        fields = {name: message[name] for name in SIGNED[kind] if name in message}
        if len(fields) < len(SIGNED[kind]) - (kind == NOTIFICATION and "Subject" not in fields):
            raise UntrustedEvents(self.provider, "unsigned")
        # Names and values are signed with line breaks between them: a value that has some could pass for two.
        if any("\n" in value for name, value in fields.items() if name != "Message"):
            raise UntrustedEvents(self.provider, "forged")
        if fields["Type"] != kind or fields["TopicArn"] != arrived.headers[TOPIC].decode("latin-1"):
            raise UntrustedEvents(self.provider, "forged")
        try:
            signed_s = seconds_of(fields["Timestamp"])
        except ValueError:
            raise UntrustedEvents(self.provider, "unsigned") from None
        self._freshness.check(signed_s, arrived.now_s)
        return fields

    def _trusted(self, fields: dict[str, str]) -> Trusted:
        if fields["Type"] == NOTIFICATION:
            return Trusted(json.dumps(fields).encode())
        if fields["Type"] == UNSUBSCRIPTION:
            return Trusted(None)
        if not is_sns(fields["SubscribeURL"]):
            raise UntrustedEvents(self.provider, "foreign")
        return Trusted(None, confirm_url=fields["SubscribeURL"])


def canonical(fields: dict[str, str]) -> bytes:
    """What SNS signs: each name and each value on a line of its own."""
    return "".join(f"{name}\n{value}\n" for name, value in fields.items()).encode("utf-8", "surrogatepass")


def _verifies(key: RSAPublicKey, signature: str, signed: bytes) -> bool:
    made = decoded(signature.encode("utf-8", "surrogatepass"))
    if made is None:
        return False
    try:
        key.verify(made, signed, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True
