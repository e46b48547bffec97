"""The door of providers who sign nothing, but send a secret along: Postmark, Brevo, Mailjet.

What enters: credentials, and a request's headers. What leaves: the body, when one of the credentials is among the headers.
The promise: nothing of a body is read before its credentials are known, and how long a refusal takes tells nothing.

Postmark and Mailjet send HTTP Basic credentials that stand in the webhook's URL; Postmark also sends headers of one's own;
Brevo either, or a bearer token.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from features.errors import UntrustedEvents
from serving.webhooks.door import JSON, MANY_EVENTS_BYTES, ONE_EVENT_BYTES, Arrived, Headers, Trusted

FORMS = "basic:USER:PASSWORD, bearer:TOKEN or header:NAME:VALUE"
_IN_BATCHES = frozenset({"mailjet", "brevo"})
"""Providers that post many events at once."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, repr=False)
class Credential:
    """A header and what is in it."""

    header: bytes
    value: bytes
    scheme: bytes = b""
    """Of ``Authorization``, lower-case; empty for other headers."""

    def is_among(self, headers: Headers) -> bool:
        """Whether a request brings it."""
        given = headers.get(self.header, b"")
        if self.scheme:
            scheme, _, given = given.partition(b" ")
            given = given.strip() if scheme.lower() == self.scheme else b""
        return hmac.compare_digest(given, self.value)


def credential(text: str) -> Credential:
    """Read one credential from the settings.

    Raises
    ------
    ValueError
        When it has none of the three forms.
    """
    form, _, rest = text.partition(":")
    name, _, value = rest.partition(":")
    if form == "basic" and name and value:
        return Credential(b"authorization", base64.b64encode(rest.encode()), b"basic")
    if form == "bearer" and rest:
        return Credential(b"authorization", rest.encode(), b"bearer")
    if form == "header" and value and _HEADER_NAME.fullmatch(name):
        return Credential(name.lower().encode(), value.encode())
    raise ValueError(f"should be {FORMS}")


class SharedSecretDoor:
    """Opens to whoever brings one of a few credentials: two while they are changed."""

    media_types = JSON

    def __init__(self, provider: str, credentials: Sequence[Credential]) -> None:
        self.provider, self._credentials = provider, tuple(credentials)
        self.largest_body: int | None = MANY_EVENTS_BYTES if provider in _IN_BATCHES else ONE_EVENT_BYTES

    def greet(self, headers: Headers, now_s: float) -> None:
        """All there is to check is in the headers."""
        # Each is compared, whichever matches.
        if True in [known.is_among(headers) for known in self._credentials]:
            return
        carriers = {known.header for known in self._credentials}
        raise UntrustedEvents(self.provider, "forged" if carriers & headers.keys() else "unsigned")

    def check(self, arrived: Arrived) -> Trusted:
        """The same again: a door does not rely on having been asked before."""
        self.greet(arrived.headers, arrived.now_s)
        return Trusted(arrived.body)
