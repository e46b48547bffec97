"""Mailgun's door: a signature inside the body.

What enters: JSON with ``signature: {timestamp, token, signature}``. What leaves: the body and its token. The promise: a
token lets in one body, however often.

Mailgun signs the time and a random token with HMAC-SHA256, and not the event. Whoever has seen one request could send
another body with its signature; that a token was used, and for what, is therefore kept in the inbox, in the transaction that
keeps the events. Of a subaccount's event ``parent-signature`` is made with the main account's key.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from features.errors import UntrustedEvents
from features.payload import mapping, parse
from serving.webhooks.door import JSON, Arrived, Freshness, Headers, Trusted

_TOKEN = re.compile(r"[A-Za-z0-9]{16,128}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class MailgunDoor:
    """Opens to what was signed with one of a few signing keys."""

    provider = "mailgun"
    media_types = JSON

    def __init__(self, keys: Sequence[str], max_age_s: float) -> None:
        self._keys, self._freshness = tuple(key.encode() for key in keys), Freshness(self.provider, max_age_s)

    def greet(self, headers: Headers, now_s: float) -> None:
        """Everything is in the body."""

    def check(self, arrived: Arrived) -> Trusted:
        """Verify the signature."""
        block = _signature_block(arrived.body)
        timestamp, token = str(block.get("timestamp", "")), block.get("token")
        given = [block.get("signature"), block.get("parent-signature")]
        claims = [claim for claim in given if isinstance(claim, str) and _DIGEST.fullmatch(claim)]
        if not claims or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise UntrustedEvents(self.provider, "unsigned")
        self._freshness.check_digits(timestamp.encode(), arrived.now_s)
        if not self._made_by_us((timestamp + token).encode(), claims):
            raise UntrustedEvents(self.provider, "forged")
        return Trusted(arrived.body, token)

    def _made_by_us(self, signed: bytes, claims: Sequence[str]) -> bool:
        made = [hmac.digest(key, signed, "sha256").hex() for key in self._keys]
        # Each is compared, whichever matches.
        return True in [hmac.compare_digest(claim, own) for claim in claims for own in made]


def _signature_block(body: bytes) -> Mapping[str, Any]:
    """What says who sent it; empty where nothing does."""
    try:
        return mapping(mapping(parse(body)).get("signature"))
    except ValueError:
        return {}
