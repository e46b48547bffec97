"""What a client counts.

What enters: what happened. What leaves: ``Stats``. The promise: numbers only, never an id or the key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from inbox_client.answers import Reason


@dataclass(frozen=True, slots=True)
class Stats:
    """Since the client was made.

    Attributes
    ----------
    requests
        Sent over the network, repeats among them.
    retries
        Repeats alone.
    scored
        Subscribers the service answered for.
    fallbacks
        Subscribers who got the caller's defaults, by reason.
    breaker_openings
        How often the service was found to be in trouble.
    """

    requests: int
    retries: int
    scored: int
    fallbacks: Mapping[Reason, int]
    breaker_openings: int


class Tally:
    """Counts from many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests = self._retries = self._scored = 0
        self._fallbacks: Counter[Reason] = Counter()

    def sent(self, again: bool) -> None:
        """One request, the first of its batch or a repeat."""
        with self._lock:
            self._requests += 1
            self._retries += again

    def scored(self, subscribers: int) -> None:
        """So many were answered for."""
        with self._lock:
            self._scored += subscribers

    def fell_back(self, reason: Reason, subscribers: int) -> None:
        """So many were not."""
        with self._lock:
            self._fallbacks[reason] += subscribers

    def stats(self, breaker_openings: int) -> Stats:
        """As it stands."""
        with self._lock:
            return Stats(self._requests, self._retries, self._scored, dict(self._fallbacks), breaker_openings)
