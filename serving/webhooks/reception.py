"""From a request that came through a door to events on disk.

What enters: a provider's request. What leaves: how many events are new, known, unreadable or beside the point. The promise:
when it answers, what it counts is durable; when it does not, sending the same again is safe.

Three threads beside the event loop: one checks and reads, one waits for other machines, one writes (``Writer``).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from features.clock import microseconds
from features.errors import EventsNotTaken, IdentityUnreadable, InboxUnavailable, ReplayedEvents, RequestError
from features.home import Home
from features.identity import Pseudonyms
from features.inbox import Accepted, Delivery
from features.providers import read
from features.providers.canonical import canonical
from serving.guard import reason_of
from serving.meters import Meters
from serving.webhooks.certificates import Certificates, CertificateWanted
from serving.webhooks.door import Arrived, Door
from serving.webhooks.writer import InboxLike, Writer

log = logging.getLogger("inbox.webhooks")

T = TypeVar("T")

WRITTEN_WITHIN_S = 5.0
"""Later than that the caller is asked to come again. What is being written may get in all the same: a repeat then."""


@dataclass(frozen=True)
class Taken:
    """What became of the events in one request."""

    accepted: int = 0
    repeated: int = 0
    quarantined: int = 0
    set_aside: int = 0


class Names:
    """Subscriber ids for addresses, with the keys as they are now: another process may have made a new one."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._seen = (0, 0)
        self._known: Pseudonyms | None = None

    def now(self) -> Pseudonyms:
        """For one thread.

        Raises
        ------
        EventsNotTaken
            When the keys cannot be read: without them everybody would become a stranger.
        """
        seen = _mark(self._home.identity)
        if self._known is None or (seen != self._seen and any(seen)):
            try:
                self._known = Pseudonyms.load(self._home)
            except (IdentityUnreadable, OSError) as error:
                log.error("%s", error if isinstance(error, IdentityUnreadable) else type(error).__name__)
                raise EventsNotTaken("the keys that stand for addresses cannot be read") from None
            self._seen = _mark(self._home.identity)
        return self._known


@dataclass
class Reception:
    """Takes in what came through a door.

    Parameters
    ----------
    wake
        Called with the number of new events after each transaction, in the writer's thread.
    """

    home: Home
    inbox: InboxLike
    clock: Callable[[], datetime]
    meters: Meters
    certificates: Certificates = field(default_factory=Certificates)
    wake: Callable[[int], None] = lambda events: None

    def __post_init__(self) -> None:
        self.writer = Writer(self.inbox, lambda: microseconds(self.clock()), self.wake)
        self._names = Names(self.home)
        self._reading = ThreadPoolExecutor(1, "events")
        self._outside = ThreadPoolExecutor(1, "sns")

    async def take(self, door: Door, arrived: Arrived) -> Taken:
        """Check, read and write one request.

        Raises
        ------
        UntrustedEvents, ReplayedEvents
            When it is refused.
        EventsNotTaken
            When it may come again.
        """
        try:
            taken = await self._take(door, arrived)
        except RequestError as error:
            self.meters.refused_events[door.provider, reason_of(error)] += 1
            raise
        for outcome, count in asdict(taken).items():
            self.meters.events[door.provider, outcome] += count
        return taken

    def close(self) -> None:
        """Finish what was begun and write it down."""
        self._reading.shutdown()
        self._outside.shutdown()
        self.writer.close()

    async def _take(self, door: Door, arrived: Arrived) -> Taken:
        read = await self._read(door, arrived)
        if read.confirm_url is not None:
            await _in(self._outside, partial(self.certificates.visit, read.confirm_url))
            log.info("a subscription of %s was confirmed", door.provider)
        if read.delivery is None:
            return Taken()
        accepted = await self._written(read.delivery)
        if accepted.replayed:
            raise ReplayedEvents(door.provider)
        return Taken(accepted.new, accepted.repeated, accepted.quarantined, read.aside)

    async def _read(self, door: Door, arrived: Arrived) -> _Read:
        work = partial(self._checked_and_read, door, arrived)
        try:
            return await _in(self._reading, work)
        except CertificateWanted as wanted:
            await _in(self._outside, partial(self.certificates.obtain, wanted.url))
            return await _in(self._reading, work)

    def _checked_and_read(self, door: Door, arrived: Arrived) -> _Read:
        trusted = door.check(arrived)
        if trusted.body is None:
            return _Read(None, confirm_url=trusted.confirm_url)
        found = canonical(read(door.provider, trusted.body), self._names.now())
        delivery = Delivery(
            door.provider,
            found.events,
            found.quarantined,
            found.aliases,
            trusted.token,
            hashlib.sha256(arrived.body).digest() if trusted.token else b"",
        )
        return _Read(delivery, found.aside.total())

    async def _written(self, delivery: Delivery) -> Accepted:
        try:
            async with asyncio.timeout(WRITTEN_WITHIN_S):
                return await asyncio.wrap_future(self.writer.offer(delivery))
        except TimeoutError:
            raise EventsNotTaken("writing takes long") from None
        except InboxUnavailable:
            raise EventsNotTaken("the inbox cannot be written just now") from None


@dataclass(frozen=True)
class _Read:
    delivery: Delivery | None
    aside: int = 0
    confirm_url: str | None = None


async def _in(thread: Executor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
