"""Between the scorer and the online store: a store in trouble is left alone until it is well again.

What enters: reads. What leaves: the store's answer, or ``StoreUnavailable``. The promise: trouble costs a request its
budget at most, and nothing once it is known; whether it has passed is asked by a thread of the breaker's own.

Weighed:

- What opens it. A read of a few ids that failed does, at once. A read that says less (of many ids, with less time than
  the budget, or whole but late) only sends the probe to look: a store that carries one subscriber in time but not a
  thousand must not take the one away, and a busy machine makes reads late that the store answered in time.
- When to look. At once after a long calm, so that a hiccup costs others a millisecond; else after a pause that doubles
  up to ``LONGEST_PAUSE_S``. A store that fails, answers the probe and fails again so costs one budget per pause.
- Damaged rows do not open it. They cost no time, the checksum already keeps them from being believed, and the rest of
  the answer is good. They are counted by the store.
- Reading in a thread that can be left behind would also bound reads that hang in the kernel (a dead network file
  system). Handing over costs as much again as a read of one subscriber, 20 µs; such a mount is no place for the store.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event, Lock, Thread
from time import monotonic

from features.catalogue import Catalogue
from features.errors import StoreUnavailable
from features.online import Found, StateStore
from features.state import States

log = logging.getLogger("inbox.breaker")

BUDGET_S = 0.025
FEW_IDS = 16
"""A store that cannot read so many within the budget is in trouble."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
CALM_S = 10.0
"""Well for so long, and earlier trouble is forgotten."""
ATTEMPTS = 3
"""Of one probe, in a row: where threads compete for the interpreter, one may be late through no fault of the store."""
PROBE = ("",)
"""Nobody's id. Somebody's could lie on a damaged page and keep the store from everybody else."""
_OPEN = "it failed a moment ago and has not answered since"


class Breaker:
    """Reads like a ``StateStore``. Any thread may read.

    Parameters
    ----------
    store
        Keeps to the ``timeout_s`` it is given: a read is not interrupted from outside.
    budget_s
        What a read may take.

    Attributes
    ----------
    is_open
        Whether the store is left alone at the moment.
    opened
        How often that began.
    failures
        Reads the store did not answer, probes not among them.
    """

    def __init__(self, store: StateStore, budget_s: float = BUDGET_S) -> None:
        self.store, self.budget_s = store, budget_s
        self.is_open, self.opened, self.failures = False, 0, 0
        self._pause_s = 0.0
        self._changed_at = monotonic() - CALM_S
        self._catalogue = Catalogue()
        self._lock = Lock()
        self._in_doubt, self._ended = Event(), Event()
        self._prober = self._started()

    def read(
        self, subscriber_ids: Sequence[str], catalogue: Catalogue, timeout_s: float | None = None
    ) -> tuple[States, Found]:
        """What the store answers, which may be late.

        Parameters
        ----------
        timeout_s
            How long it may take at most; never more than the budget.

        Raises
        ------
        StoreUnavailable
            When the store fails, and without asking it while the breaker is open or when there is no time at all.
        """
        if self.is_open:
            # A new one each time: an exception raised again and again keeps every frame it went through.
            raise StoreUnavailable(_OPEN)
        allowed_s = self.budget_s if timeout_s is None else min(timeout_s, self.budget_s)
        if allowed_s <= 0:
            raise StoreUnavailable("the request had no time left for it")
        began = monotonic()
        try:
            answer = self.store.read(subscriber_ids, catalogue, allowed_s)
        except StoreUnavailable as error:
            in_time = monotonic() - began < allowed_s
            says_all = in_time or (allowed_s == self.budget_s and len(subscriber_ids) <= FEW_IDS)
            self._failed(error, says_all)
            raise
        if monotonic() - began > self.budget_s:
            self._in_doubt.set()
        return answer

    def close(self) -> None:
        """Stop probing; an open breaker stays open. What other threads hold of the store is theirs to close."""
        self._ended.set()
        self._in_doubt.set()
        self._prober.join(1.0)

    def _failed(self, error: StoreUnavailable, says_all: bool) -> None:
        with self._lock:
            self.failures += 1
        if says_all:
            self._open(error.reason)
        self._in_doubt.set()

    def _open(self, reason: str) -> None:
        with self._lock:
            if self.is_open:
                return
            now = monotonic()
            self._pause_s = 0.0 if now - self._changed_at >= CALM_S else _longer(self._pause_s)
            self._changed_at = now
            self.opened += 1
            # Last: what the probe reads once this is set must be there.
            self.is_open = True
        log.warning("store: left alone for now: %s", reason)

    def _close(self) -> None:
        with self._lock:
            if not self.is_open:
                return
            self.is_open = False
            now = monotonic()
            away_s, self._changed_at = now - self._changed_at, now
        log.info("store: it can be read again, after %.1f s", away_s)

    def _started(self) -> Thread:
        prober = Thread(target=self._run, name="store-probe", daemon=True)
        prober.start()
        return prober

    def _run(self) -> None:
        try:
            while self._in_doubt.wait() and not self._ended.is_set():
                self._in_doubt.clear()
                self._settle()
                self.store.close()
        finally:
            if not self._ended.is_set():
                # A probe that blew up has ended this thread: without a next one the store would stay away for good.
                self._open("probing it failed unexpectedly")
                self._in_doubt.set()
                self._prober = self._started()

    def _settle(self) -> None:
        """Probe until the store answers in time."""
        while self._may_probe():
            trouble = self._probed()
            if trouble is None:
                self._close()
                return
            self._open(trouble)

    def _may_probe(self) -> bool:
        """Let the pause pass; False when the breaker has ended meanwhile."""
        if not self.is_open:
            return True
        pause_s, self._pause_s = self._pause_s, _longer(self._pause_s)
        return not self._ended.wait(pause_s)

    def _probed(self) -> str | None:
        """Why the store cannot be read within the budget; None when it can."""
        for _ in range(ATTEMPTS):
            trouble = self._attempted()
            if trouble is None:
                break
        return trouble

    def _attempted(self) -> str | None:
        began = monotonic()
        try:
            self.store.read(PROBE, self._catalogue, self.budget_s)
        except StoreUnavailable as error:
            return error.reason
        took_s = monotonic() - began
        return None if took_s <= self.budget_s else f"one read took {took_s:.3f} s"


def _longer(pause_s: float) -> float:
    return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, 2 * pause_s))
