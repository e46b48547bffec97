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
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from features.errors import UntrustedEvents
from features.payload import mapping, parse
from serving.webhooks.door import JSON, ONE_EVENT_BYTES, Arrived, Freshness, Headers, Trusted, parsed_of_strangers

_TOKEN = re.compile(r"[A-Za-z0-9]{16,128}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_BLOCKS = 8
_BLOCK = re.compile(rb'"signature"\s*:\s*(\{[^{}]{1,2000}\})')


class MailgunDoor:
    """Opens to what was signed with one of a few signing keys."""

    provider = "mailgun"
    media_types = JSON
    largest_body: int | None = ONE_EVENT_BYTES

    def __init__(self, keys: Sequence[str], max_age_s: float) -> None:
        self._keys, self._freshness = tuple(key.encode() for key in keys), Freshness(self.provider, max_age_s)

    def greet(self, headers: Headers, now_s: float) -> None:
        """Everything is in the body."""

    def check(self, arrived: Arrived) -> Trusted:
        """Verify the signature. Nothing but what looks like one is parsed before."""
        refused = UntrustedEvents(self.provider, "unsigned")
        for block in _blocks(arrived.body):
            try:
                token = self._token(block, arrived.now_s)
            except UntrustedEvents as error:
                refused = error
                continue
            if _signature_in(arrived.body) != block:
                raise UntrustedEvents(self.provider, "unsigned")
            return Trusted(arrived.body, token)
        raise refused

    def _token(self, block: Mapping[str, Any], now_s: float) -> str:
        """The token of a block that was made with one of the keys."""
        timestamp, token = str(block.get("timestamp", "")), block.get("token")
        given = [block.get("signature"), block.get("parent-signature")]
        claims = [claim for claim in given if isinstance(claim, str) and _DIGEST.fullmatch(claim)]
        if not claims or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise UntrustedEvents(self.provider, "unsigned")
        self._freshness.check_digits(timestamp.encode("utf-8", "replace"), now_s)
        if not self._made_by_us((timestamp + token).encode(), claims):
            raise UntrustedEvents(self.provider, "forged")
        return token

    def _made_by_us(self, signed: bytes, claims: Sequence[str]) -> bool:
        made = [hmac.digest(key, signed, "sha256").hex() for key in self._keys]
        # Each is compared, whichever matches.
        return True in [hmac.compare_digest(claim, own) for claim in claims for own in made]


def _blocks(body: bytes) -> Iterator[Mapping[str, Any]]:
    """What looks like a signature, first ones first: an event's own data may hold others."""
    for found in islice(_BLOCK.finditer(body), _MOST_BLOCKS):
        try:
            yield mapping(parsed_of_strangers(found[1]))
        except ValueError:
            continue


def _signature_in(body: bytes) -> Mapping[str, Any]:
    """Where Mailgun puts it, by the reader that takes any form: only for bodies with a signature that was verified."""
    try:
        return mapping(mapping(parse(body)).get("signature"))
    except ValueError:
        return {}
