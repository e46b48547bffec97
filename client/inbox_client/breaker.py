"""Between a client and the service: a service in trouble is left alone for a while.

What enters: how each request went. What leaves: whether the next one may be sent. The promise: once so many in a row
have failed nobody waits for the service, and then exactly one at a time finds out whether it is back.

A failure is a request without a usable answer: no connection, none in time, 5xx, something that is not our service. 429
is none: a service that sheds bulk so that sends come first is well, and opening on it would take the sends away too.
Neither are 401 and 400: it answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import Literal

log = logging.getLogger("inbox_client")

Permit = Literal["usual", "probe"]


class Breaker:
    """Shared by all threads and tasks of a client.

    Parameters
    ----------
    failures
        So many in a row open it.
    pause_s
        For so long nobody is let through; then one is, and again after each one that fails.
    """

    def __init__(self, failures: int, pause_s: float, clock: Callable[[], float]) -> None:
        self.failures, self.pause_s, self.clock = failures, pause_s, clock
        self.openings = 0
        self._failed, self._probing = 0, False
        self._opened_at: float | None = None
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        """Whether the service is left alone; also while one request finds out whether it is back."""
        return self._opened_at is not None

    @property
    def wait_s(self) -> float:
        """When to ask again, from now."""
        opened_at = self._opened_at
        return 0.0 if opened_at is None else max(0.0, opened_at + self.pause_s - self.clock())

    def admit(self) -> Permit | None:
        """Leave to send one request, to be settled afterwards whatever happens; None while there is none."""
        if self._opened_at is None:
            return "usual"
        with self._lock:
            if self._opened_at is None:
                return "usual"
            if self._probing or self.clock() - self._opened_at < self.pause_s:
                return None
            self._probing = True
            return "probe"

    def settle(self, permit: Permit, went_well: bool | None) -> None:
        """So it went; None when that says nothing, because it was given up for reasons of our own."""
        if went_well and not self._failed and self._opened_at is None:
            return
        with self._lock:
            if permit == "probe":
                self._probing = False
            if went_well:
                self._close()
            elif went_well is not None:
                self._fail(permit)

    def _fail(self, permit: Permit) -> None:
        if self._opened_at is not None:
            # What was sent before it opened says nothing new.
            self._opened_at = self.clock() if permit == "probe" else self._opened_at
            return
        self._failed += 1
        if self._failed >= self.failures:
            self._opened_at = self.clock()
            self.openings += 1
            log.warning("scores: %d requests in a row failed; the service is left alone for now", self._failed)

    def _close(self) -> None:
        self._failed = 0
        if self._opened_at is not None:
            self._opened_at = None
            log.info("scores: the service answers again")
