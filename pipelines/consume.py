"""`inbox consume`: from a stream into the inbox, and at once into the online store.

What enters: a stream and an intake. What leaves: events in the inbox, live features beside them. The promise: a message is
acknowledged only after the transaction that took it in, so a kill at any moment loses nothing, and its repeats change
nothing; a message that nobody can read goes to quarantine and stops no other.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from pipelines.inbox import Intake, Taken
from pipelines.streams import PATIENCE_S, Stream, StreamFailed

AT_MOST = 5_000
"""Messages of one transaction."""
TOLD_EVERY_S = 10.0


def consume(
    stream: Stream,
    intake: Intake,
    stopped: Callable[[], bool],
    say: Callable[[str], None],
    refresh: Callable[[], object] = lambda: None,
    until_end: bool = False,
    patience_s: float = PATIENCE_S,
) -> Taken:
    """Take in what a stream has, until it is told to stop.

    Parameters
    ----------
    stopped
        Asked between batches; then all that was taken is acknowledged.
    say
        Told of throughput and of trouble, at most every ``TOLD_EVERY_S``.
    refresh
        Called after each batch: live features catch up.
    until_end
        Stop at the stream's present end, and when its broker has not answered for ``patience_s``.

    Raises
    ------
    StreamFailed, InboxUnavailable
        The messages of the batch at hand come again.
    """
    taken, teller, heard = Taken(), _Teller(say), monotonic()
    try:
        while not stopped():
            bodies = stream.fetch(AT_MOST)
            if bodies:
                taken += intake.take(bodies)
                stream.done()
                refresh()
            if stream.trouble is None:
                heard = monotonic()
            elif until_end and monotonic() - heard > patience_s:
                raise StreamFailed(stream.trouble)
            ended = until_end and not bodies and stream.at_end
            teller.tell(taken, stream.trouble)
            if ended:
                break
    finally:
        stream.close()
    return taken


class _Teller:
    """Says how it goes, not too often."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told_at, self._bodies = monotonic(), 0
        self._trouble: str | None = None

    def tell(self, taken: Taken, trouble: str | None) -> None:
        seconds = monotonic() - self._told_at
        if trouble and trouble != self._trouble:
            self._say(f"waiting: {trouble}")
        self._trouble = trouble
        if seconds < TOLD_EVERY_S:
            return
        if taken.bodies > self._bodies:
            self._say(f"{taken.summary()} ({(taken.bodies - self._bodies) / seconds:,.0f} messages/s)")
        self._told_at, self._bodies = monotonic(), taken.bodies
