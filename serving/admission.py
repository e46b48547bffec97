"""Who is let in when not everybody can be, and by when they are answered.

What enters: a request's class, how much it asks for, and how long its caller will wait. What leaves: a place, or
``Overloaded`` with a time to return; then scores, or priors when scores would come too late. The promise: what cannot be
done soon is refused at once, callers of many before callers of few; an admitted request is answered within its deadline
as far as that is in our hands.

Two classes ask for scores. ``send`` asks for a few subscribers: a renderer, in the middle of a message. ``bulk`` asks for
many, or for reasons, which cost a hundred times a score; it can come back later.

A third, ``events``, brings something: a provider's events. Each provider has an ``Admission`` of its own for them, and so
takes nobody else's places: a flood of events sheds itself. Its callers come again by themselves, for hours.

**Places.** A request holds one from when its body is whole until its answer is sent, so places bound memory. Bodies on
their way hold none: however many dawdle, they keep nobody out (the guard bounds their bytes instead). Bulk may hold a
quarter of the places; that is what keeps the rest free for sends, also from callers who read a large answer slowly. The
guard has to class a request before anybody has parsed it, or shedding would cost as much as it saves: it goes by the
size of the body, and ``become`` sets that right once the ids are counted.

**Waiting.** Sends are scored on the event loop, one after the other, and the queue before them is the loop's own. It
becomes visible, and the places bound it, because the guard lets the loop turn once between taking a place and using it:
all that arrived together is counted before the first of it is served. Bulk waits for one thread, as long as what waits
there is less than ``bulk_wait_s`` of work. How long work takes is learned while it is done (``Pace``).

**Deadlines.** Admission comes first: a request that is shed is told so at once, deadline or not. One that was let in and
cannot have scores in time gets priors; if its scores are ready later nobody sees them. Priors of a thousand take some
milliseconds too: they have a thread of their own and count as waiting work, or callers in a hurry would starve the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from math import ceil, inf
from time import perf_counter
from types import TracebackType
from typing import Generic, Literal, NoReturn, TypeVar

from features.errors import MalformedRequest, Overloaded
from serving.meters import Meters

T = TypeVar("T")
Class = Literal["send", "bulk", "events"]
Score = Callable[[float | None], T]
"""Takes the seconds it may take, None for as long as it needs."""

PLACE = "inbox.place"
"""Where a request's place is found in the ASGI scope."""
FEW_IDS = 16
"""Up to so many are a send."""
SMALL_BODY = 1_024
"""Up to so many bytes look like a send: 16 ids as long as a UUID and a context are below that. What looks like bulk and
turns out to be a send is treated as one, unless it was shed before.
"""
MAX_DEADLINE_MS = 60_000
BULK_SHARE = 4
"""Bulk may hold one place in so many."""

EVENTS_RETRY_S = 5
"""When bringers of events should come again."""

HEARD_LATE_S = 0.005
"""When bulk runs out of time the event loop, beside busy threads, hears of it about so late."""
SEND_PRIORS_S = 0.0005
"""What priors of a few take, rendered."""
_CAUTION = 1.5
"""How many times what something usually takes is set aside for it."""
_MEMORY = 0.9
_TRUST_S = 1.0
"""An estimate is believed for so long. Work that is not done because of what it would cost teaches nobody that it has
become cheaper: so, once in a while, it is tried.
"""


def class_of(count: int, explain: bool) -> Class:
    """The class of a request for ``count`` subscribers, with or without reasons."""
    return "send" if count <= FEW_IDS and not explain else "bulk"


def read_deadline(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """Seconds from ``X-Deadline-Ms``; infinite without it.

    Raises
    ------
    MalformedRequest
        When it is no whole number from 1 to 60000, or there twice.

    >>> read_deadline([(b"x-deadline-ms", b"250")])
    0.25
    """
    values = [value for name, value in headers if name == b"x-deadline-ms"]
    if not values:
        return inf
    milliseconds = int(values[0]) if values[0].isdigit() and len(values[0]) <= len(str(MAX_DEADLINE_MS)) else 0
    if len(values) > 1 or not 1 <= milliseconds <= MAX_DEADLINE_MS:
        raise MalformedRequest("X-Deadline-Ms", f"should be one whole number from 1 to {MAX_DEADLINE_MS}")
    return milliseconds / 1000


class Pace:
    """What a unit of work costs: seconds over units, both fading, so that much work weighs more than little."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._units = seconds, 1.0
        self._learned_at = -inf

    @property
    def is_fresh(self) -> bool:
        """Whether it was learned lately."""
        return perf_counter() - self._learned_at < _TRUST_S

    def cost(self, units: int) -> float:
        """Seconds to expect for so many units."""
        return units * self._seconds / self._units

    def learn(self, units: int, seconds: float) -> None:
        """So long it took."""
        self._seconds = _MEMORY * self._seconds + seconds
        self._units = _MEMORY * self._units + units
        self._learned_at = perf_counter()


class Admission:
    """The places and the queue of one service. Everything here happens on the event loop.

    Parameters
    ----------
    places
        Requests at once, of both classes.
    bulk_wait_s
        So many seconds of bulk work may wait.
    events_places
        Bodies of events at once, where events are let in.
    """

    def __init__(self, places: int, bulk_wait_s: float, meters: Meters, events_places: int = 1) -> None:
        self.events_places = events_places
        self.places, self.bulk_places, self.bulk_wait_s = places, max(1, places // BULK_SHARE), bulk_wait_s
        self.meters = meters
        self.taken: dict[Class, int] = {"send": 0, "bulk": 0, "events": 0}
        self.waiting_s = 0.0
        """Seconds of bulk work not done yet."""
        self.scoring = {"bulk": Pace(0.000_05), "reasons": Pace(0.005)}
        self.priors = Pace(0.000_02)

    @property
    def in_flight(self) -> int:
        """Requests for scores."""
        return self.taken["send"] + self.taken["bulk"]

    def check(self, kind: Class) -> None:
        """Whether there is room for one more.

        Raises
        ------
        Overloaded
            When there is not.
        """
        if kind == "events":
            if self.taken[kind] >= self.events_places:
                self.refuse(kind)
            return
        crowded = kind == "bulk" and (self.taken["bulk"] >= self.bulk_places or self.waiting_s > self.bulk_wait_s)
        if crowded or self.in_flight >= self.places:
            self.refuse(kind)

    def refuse(self, kind: Class) -> NoReturn:
        """Shed one: bulk until what waits now is done, events for some seconds, sends for the shortest time that can be said.

        Raises
        ------
        Overloaded
        """
        self.meters.shed[kind] += 1
        returns = {"send": 1, "bulk": max(1, ceil(self.waiting_s)), "events": EVENTS_RETRY_S}
        raise Overloaded(returns[kind])


@dataclass(frozen=True)
class Ways(Generic[T]):
    """How one request can be answered."""

    send: Callable[[float], Awaitable[T]]
    """On the event loop, together with others, scores or priors; by when, on ``perf_counter``'s clock."""
    bulk: Score[T]
    """In the bulk thread, scores."""
    priors: Callable[[], T]
    """In the thread beside it."""


@dataclass(frozen=True)
class Threads:
    """Where bulk is worked on: one thread that scores, and one for what can no longer wait for it."""

    scores: Executor
    priors: Executor


class Place:
    """One request's place, until the end of its ``with``."""

    def __init__(self, admission: Admission, kind: Class, arrived: float) -> None:
        admission.check(kind)
        self.admission, self.kind, self.arrived = admission, kind, arrived
        self._turn_s = 0.0
        self._held = 0
        self._count(1)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._count(0)

    async def settle(self) -> None:
        """Let the loop turn once, so that whoever arrived together is counted before anybody is served."""
        before = perf_counter()
        await asyncio.sleep(0)
        self._turn_s = perf_counter() - before

    def become(self, kind: Class) -> None:
        """Take a place as what the request has turned out to be, for the one it was taken for.

        Raises
        ------
        Overloaded
            When there is none.
        """
        self._count(0)
        self.admission.check(kind)
        self.kind = kind
        self._count(1)
        self.admission.meters.admitted[kind] += 1

    def _count(self, held: int) -> None:
        self.admission.taken[self.kind] += held - self._held
        self._held = held

    async def answer(self, ways: Ways[T], rows: int, explain: bool, deadline_s: float, threads: Threads) -> T:
        """Scores, or priors if scores would be later than ``deadline_s`` after arrival."""
        # Before the guard saw it, it waited for the turn before, which most likely was as long as this one.
        until = self.arrived - self._turn_s + deadline_s
        if self.kind == "send":
            return await ways.send(until - _CAUTION * SEND_PRIORS_S)
        fallback, pace = self.admission.priors, self.admission.scoring["reasons" if explain else "bulk"]
        until -= _CAUTION * fallback.cost(rows)
        ready_at = perf_counter() + self.admission.waiting_s + (_CAUTION * pace.cost(rows) if pace.is_fresh else 0.0)
        if ready_at <= until:
            scored = await self._in_turn(ways.bulk, pace, rows, until - HEARD_LATE_S, threads.scores)
            if scored is not None:
                return scored
        self.admission.meters.degraded["bulk"] += 1
        return await self._aside(ways.priors, fallback, rows, threads.priors)

    async def _aside(self, priors: Callable[[], T], pace: Pace, units: int, thread: Executor) -> T:
        """Priors, from their own thread."""
        cost = pace.cost(units)
        job = asyncio.get_running_loop().run_in_executor(thread, _timed, priors)
        self.admission.waiting_s += cost
        try:
            answer, seconds = await job
        finally:
            self.admission.waiting_s -= cost
        pace.learn(units, seconds)
        return answer

    async def _in_turn(self, score: Score[T], pace: Pace, units: int, until: float, thread: Executor) -> T | None:
        """Work in a thread, after those who came before; None when it was not done in time."""
        admission, cost = self.admission, pace.cost(units)

        def work() -> tuple[T, float] | None:
            return None if perf_counter() > until else _timed(lambda: score(_left(until)))

        def finish(job: asyncio.Future[tuple[T, float] | None]) -> None:
            # Called when the thread is done with it, however long ago its caller was answered or left.
            admission.waiting_s -= cost
            if not job.cancelled() and job.exception() is None and (result := job.result()):
                pace.learn(units, result[1])

        job = asyncio.get_running_loop().run_in_executor(thread, work)
        admission.waiting_s += cost
        job.add_done_callback(finish)
        await asyncio.wait([job], timeout=_left(until))
        result = job.result() if job.done() else None
        return result[0] if result else None


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = perf_counter()
    result = work()
    return result, perf_counter() - started


def _left(until: float) -> float | None:
    return None if until == inf else max(0.0, until - perf_counter())
