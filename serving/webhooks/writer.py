"""The one who writes: everything that waits goes into the inbox in one transaction.

What enters: deliveries, from any thread. What leaves: what became of each, once it is on disk. The promise: a promise kept
is a row on disk; a delivery that cannot be written spoils none of those beside it.

While one transaction waits for the disk the next ones gather, so the more there is to write, the fewer flushes each costs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Protocol

from features.errors import EventsNotTaken, InboxUnavailable
from features.inbox import Accepted, Delivery

log = logging.getLogger("inbox.webhooks")

MOST_AT_ONCE = 20_000
"""Events in a transaction, but for a single larger delivery."""


class InboxLike(Protocol):
    """What is needed of ``features.inbox``."""

    def accept(self, deliveries: Sequence[Delivery], now_us: int) -> list[Accepted]:
        """Write all or nothing."""

    def close(self) -> None:
        """Let go of what this thread holds open."""


@dataclass(frozen=True)
class _Waiting:
    delivery: Delivery
    written: Future[Accepted] = field(default_factory=Future)

    def __len__(self) -> int:
        return len(self.delivery.events) + len(self.delivery.quarantined)


class Writer:
    """A thread that writes, from now until closed.

    Parameters
    ----------
    now_us
        Tells the time, in microseconds since 1970 UTC.
    wake
        Called after each transaction, with the number of new events if there are any.
    """

    def __init__(
        self, inbox: InboxLike, now_us: Callable[[], int], wake: Callable[[int], None] = lambda events: None
    ) -> None:
        self._inbox, self._now_us, self._wake = inbox, now_us, wake
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._door = Lock()
        self._closed = False
        self.commits = 0
        self._thread = Thread(target=self._run, name="inbox-writer", daemon=True)
        self._thread.start()

    def offer(self, delivery: Delivery) -> Future[Accepted]:
        """Have it written; the future is done when it is durable, or fails with ``InboxUnavailable``.

        Raises
        ------
        EventsNotTaken
            When the service is about to end.
        """
        waiting = _Waiting(delivery)
        with self._door:
            if self._closed:
                raise EventsNotTaken("the service is about to end")
            self._queue.put(waiting)
        return waiting.written

    def close(self) -> None:
        """Write what waits and end."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        for group in self._groups():
            self._begin(group)
        self._inbox.close()

    def _groups(self) -> Iterator[list[_Waiting]]:
        """All that waits, again and again; ends when the last is given out."""
        while (first := self._queue.get()) is not None:
            group, size = [first], len(first)
            while size < MOST_AT_ONCE:
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
                if more is None:
                    yield group
                    return
                group.append(more)
                size += len(more)
            yield group

    def _begin(self, group: list[_Waiting]) -> None:
        """Write those whose callers have not given up yet."""
        if begun := [waiting for waiting in group if waiting.written.set_running_or_notify_cancel()]:
            self._write(begun)

    def _write(self, group: list[_Waiting]) -> None:
        try:
            accepted = self._inbox.accept([waiting.delivery for waiting in group], self._now_us())
        except InboxUnavailable as error:
            log.error("%d deliveries were not written. %s", len(group), error)
            _fail(group, error)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one of them, the thread goes on
            self._write_apart(group, error)
        else:
            self.commits += 1
            for waiting, one in zip(group, accepted, strict=True):
                waiting.written.set_result(one)
            if new := sum(one.new for one in accepted):
                self._wake(new)

    def _write_apart(self, group: list[_Waiting], error: Exception) -> None:
        """One of them cannot be written: find out which."""
        if len(group) == 1:
            _fail(group, error)
        else:
            for waiting in group:
                self._write([waiting])


def _fail(group: list[_Waiting], error: Exception) -> None:
    for waiting in group:
        waiting.written.set_exception(error)
