"""SendGrid's door: the Signed Event Webhook.

What enters: requests with ``X-Twilio-Email-Event-Webhook-Signature`` and ``-Timestamp``. What leaves: the body, when an ECDSA
signature over timestamp and raw bytes was made with the key whose public half SendGrid shows. The promise: not a byte may
differ.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from features.errors import UntrustedEvents
from serving.webhooks.door import JSON, MANY_EVENTS_BYTES, Arrived, Freshness, Headers, Trusted, decoded

SIGNATURE = b"x-twilio-email-event-webhook-signature"
TIMESTAMP = b"x-twilio-email-event-webhook-timestamp"
_LONGEST_SIGNATURE = 200


def public_key(text: str) -> EllipticCurvePublicKey:
    """A verification key as SendGrid shows it: base64 of its DER form.

    Raises
    ------
    ValueError
        When it is something else.
    """
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("should be the verification key that SendGrid shows, in base64") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError("should be a key on the curve P-256, as SendGrid's are")
    return key


class SendGridDoor:
    """Opens to what was signed with one of a few keys: two while keys are changed."""

    provider = "sendgrid"
    media_types = JSON
    largest_body: int | None = MANY_EVENTS_BYTES

    def __init__(self, keys: Sequence[EllipticCurvePublicKey], max_age_s: float) -> None:
        self._keys, self._freshness = tuple(keys), Freshness(self.provider, max_age_s)

    def greet(self, headers: Headers, now_s: float) -> None:
        """Without a signature, or with an old one, nothing is read."""
        if not 0 < len(headers.get(SIGNATURE, b"")) <= _LONGEST_SIGNATURE:
            raise UntrustedEvents(self.provider, "unsigned")
        self._freshness.check_digits(headers.get(TIMESTAMP, b""), now_s)

    def check(self, arrived: Arrived) -> Trusted:
        """Verify the signature."""
        self.greet(arrived.headers, arrived.now_s)
        signed = arrived.headers[TIMESTAMP] + arrived.body
        signature = decoded(arrived.headers[SIGNATURE])
        if signature is None or not any(_verifies(key, signature, signed) for key in self._keys):
            raise UntrustedEvents(self.provider, "forged")
        return Trusted(arrived.body)


def _verifies(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
