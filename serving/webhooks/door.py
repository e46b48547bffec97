"""What every provider's door has in common.

What enters: the headers and raw bytes of a request. What leaves: what may be read of it, or the reason why nothing may.
The promise: a door compares secrets in constant time, waits for nobody, and its refusals quote nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from features.errors import UntrustedEvents

Headers = Mapping[bytes, bytes]
"""Lower-case names, as ASGI has them."""

JSON = frozenset({b"application/json"})
ONE_EVENT_BYTES = 256 * 1024
"""Of a body, where a provider posts each event by itself: a hundred times what one takes. Strangers' bodies are read too."""
MANY_EVENTS_BYTES = None
"""Where a provider posts batches: as large as the settings allow."""
AHEAD_S = 600.0
"""So far ahead of ours may a provider's clock be."""
_SECONDS_DIGITS = 10
"""Of every instant from 2001 to 2286. A fixed length, because signatures cover an instant and what follows it without a mark
between them.
"""


@dataclass(frozen=True)
class Arrived:
    """A whole request."""

    headers: Headers
    body: bytes
    now_s: float


@dataclass(frozen=True)
class Trusted:
    """What a door vouches for.

    Attributes
    ----------
    body
        What may be read; None when there is nothing in it for us.
    token
        Of whose repeats only those with the same bytes are let in: for providers who sign a token and not the bytes.
    confirm_url
        To be visited before it counts.
    """

    body: bytes | None
    token: str | None = None
    confirm_url: str | None = None


class Door(Protocol):
    """Of one provider."""

    provider: str
    media_types: frozenset[bytes]
    largest_body: int | None
    """In bytes, where the settings allow more."""

    def greet(self, headers: Headers, now_s: float) -> None:
        """Refuse what can be refused before a byte of the body is read.

        Raises
        ------
        UntrustedEvents
        """

    def check(self, arrived: Arrived) -> Trusted:
        """Refuse what is not the provider's, or say what may be read of it.

        Raises
        ------
        UntrustedEvents
        """


class Closed:
    """The door of a provider without a secret: nobody passes."""

    media_types = JSON
    largest_body: int | None = 0

    def __init__(self, provider: str) -> None:
        self.provider = provider

    def greet(self, headers: Headers, now_s: float) -> None:
        raise UntrustedEvents(self.provider, "unconfigured")

    def check(self, arrived: Arrived) -> Trusted:
        raise UntrustedEvents(self.provider, "unconfigured")


@dataclass(frozen=True)
class Freshness:
    """How old a signature may be. Providers repeat for a day and more what was not answered with 200; what was taken in
    within that time is known again by its event ids.
    """

    provider: str
    max_age_s: float

    def check(self, signed_s: float, now_s: float) -> None:
        """Refuse what was signed too long ago, or will be too long from now.

        Raises
        ------
        UntrustedEvents
        """
        if not -AHEAD_S <= now_s - signed_s <= self.max_age_s:
            raise UntrustedEvents(self.provider, "stale")

    def check_digits(self, digits: bytes, now_s: float) -> None:
        """The same of seconds since 1970 as a provider writes them."""
        if len(digits) != _SECONDS_DIGITS or not digits.isdigit():
            raise UntrustedEvents(self.provider, "unsigned")
        self.check(float(digits), now_s)


def parsed_of_strangers(body: bytes) -> Any:
    """The JSON of a body that nobody vouches for yet: what orjson does not read, nobody else tries to. The reader in
    ``features.payload`` takes more forms and a hundred times as long.

    Raises
    ------
    ValueError
        It is not plain JSON.
    """
    return orjson.loads(body)


def decoded(signature: bytes) -> bytes | None:
    """A signature out of base64, if it is written in the one way there is."""
    try:
        found = base64.b64decode(signature, validate=True)
    except ValueError:
        return None
    return found if base64.b64encode(found) == signature else None
