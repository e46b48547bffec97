"""The two clients: what a program calls, and the drivers that take the core's steps.

What enters: ids. What leaves: scores, or the caller's defaults. The promise: wrong use raises ``ValueError`` or
``TypeError`` the first time it is run; nothing else does, ever.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections.abc import Iterable
from contextlib import closing
from random import random
from types import TracebackType
from typing import Generic, Self, TypedDict, TypeVar, Unpack
from weakref import WeakKeyDictionary

import httpx

from inbox_client.answers import MODELS, Defaults, SubscriberScores
from inbox_client.asking import MAX_BATCH, Context, Question, checked_models
from inbox_client.core import PREFETCH, RENDER, Call, Core, Patience, Pause, Settings, Steps, Surroundings, utc_now
from inbox_client.snapshot import Snapshot
from inbox_client.tally import Stats
from inbox_client.wire import LIMITS, AsyncWire, BoundedTransport, SyncWire

DEADLINE_MS, PREFETCH_MS = 150.0, 30_000.0
_KEY = re.compile(r"[!-~]{1,512}")
_PATH = "/v1/scores"
_LONGEST_MS = 3_600_000.0
_LAST_PORT = 65_535

Transport = TypeVar("Transport", bound=httpx.BaseTransport | httpx.AsyncBaseTransport)


class Asked(TypedDict, total=False):
    """What every call takes besides ids.

    models: which to ask for, all unless given. context: of the message. explain: add reasons, which cost far more.
    deadline_ms: instead of the client's.
    """

    models: Iterable[str]
    context: Context | None
    explain: bool
    deadline_ms: float


class _Client(Generic[Transport]):
    """What both have in common: everything but waiting."""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        deadline_ms: float = DEADLINE_MS,
        defaults: Defaults | None = None,
        batch_size: int = MAX_BATCH,
        breaker_failures: int = 5,
        breaker_pause_s: float = 1.0,
        ssl_context: ssl.SSLContext | None = None,
        transport: Transport | None = None,
    ) -> None:
        if not isinstance(defaults, Defaults | None):
            raise TypeError("defaults should be inbox_client.Defaults.")
        _check(
            isinstance(key, str) and _KEY.fullmatch(key),
            "key should be what `inbox serve --new-key NAME` showed: visible ASCII, without spaces.",
        )
        _check(type(batch_size) is int and 1 <= batch_size <= MAX_BATCH, f"batch_size should be 1 to {MAX_BATCH}.")
        _check(type(breaker_failures) is int and breaker_failures > 0, "breaker_failures should be at least 1.")
        _check(_is_number(breaker_pause_s) and breaker_pause_s > 0, "breaker_pause_s should be above 0.")
        url, limit_ms = _url(base_url), _deadline(deadline_ms)
        self._settings = Settings(
            url, key, limit_ms, defaults or Defaults(), batch_size, breaker_failures, breaker_pause_s
        )
        needs_context = url.scheme == "https" and ssl_context is None and transport is None
        self._ssl_context = httpx.create_ssl_context(trust_env=False) if needs_context else ssl_context
        self._transport = transport
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Anew, also in a process that was forked: connections and locks are not for two.

        A transport of the caller's own cannot be made anew here, which is why it must not be carried over a fork.
        """
        self._process = os.getpid()
        self._core = Core(self._settings, Surroundings(time.monotonic, utc_now, random))

    @property
    def stats(self) -> Stats:
        """What has been counted since the client was made."""
        return self._core.tally.stats(self._core.breaker.openings)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings.url.host}>"

    def _call(
        self,
        ids: Iterable[object],
        patience: Patience,
        *,
        models: Iterable[str] = MODELS,
        context: Context | None = None,
        explain: bool = False,
        deadline_ms: float | None = None,
    ) -> Call:
        if isinstance(ids, str | bytes):
            raise TypeError("This takes many ids; score() takes one.")
        if not isinstance(context, Context | None):
            raise TypeError("context should be inbox_client.Context.")
        usual_ms = PREFETCH_MS if patience.waits else self._settings.deadline_ms
        limit_ms = usual_ms if deadline_ms is None else _deadline(deadline_ms)
        question = Question(MODELS if models is MODELS else checked_models(models), context, bool(explain))
        if self._process != os.getpid():
            self._begin()
        call = self._core.begin(ids, question, limit_ms, patience)
        if self._closed:
            call.abandon("closed")
            call.batches = []
        return call


class ScoresClient(_Client[httpx.BaseTransport]):
    """Scores for programs with threads, any number of which may share a client.

    Parameters
    ----------
    base_url
        Of the service, such as ``http://127.0.0.1:3000``; a path before ``/v1/scores`` may follow.
    key
        That ``inbox serve --new-key NAME`` showed.
    deadline_ms
        By when a call of ``score`` or ``scores`` has answered, all of its batches and repeats.
    defaults
        What is said when there is nothing better.
    batch_size
        Subscribers a request asks for; smaller where the service takes fewer.
    breaker_failures, breaker_pause_s
        So many requests in a row without an answer, and the service is left alone for so long.
    ssl_context
        For a certificate of one's own; else the usual authorities are trusted.
    transport
        Another way to the service: httpx's through a proxy or a Unix socket, or a mock's in a test. Through another
        synchronous one a call's end is checked between pieces of an answer only. A client with one must not be carried
        over a fork, where two processes would read from one socket: make both in each process.

    Raises
    ------
    ValueError, TypeError
        When one of these cannot be.
    """

    def _begin(self) -> None:
        super()._begin()
        self._wire = SyncWire(self._transport or BoundedTransport(self._ssl_context))

    def score(self, subscriber_id: object, **asked: Unpack[Asked]) -> SubscriberScores:
        """Of one."""
        return self._run(self._call((subscriber_id,), RENDER, **asked)).rows()[0]

    def scores(self, subscriber_ids: Iterable[object], **asked: Unpack[Asked]) -> list[SubscriberScores]:
        """Of any number, in order; repeats are asked for once."""
        return self._run(self._call(subscriber_ids, RENDER, **asked)).rows()

    def prefetch(self, subscriber_ids: Iterable[object], **asked: Unpack[Asked]) -> Snapshot:
        """Of a whole segment, before it is rendered: with 30 seconds unless ``deadline_ms`` says otherwise, and patience."""
        return self._run(self._call(subscriber_ids, PREFETCH, **asked)).snapshot()

    def close(self) -> None:
        """Close every connection. Who asks afterwards gets the defaults."""
        self._closed = True
        self._wire.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self, call: Call) -> Call:
        try:
            for batch in call.batches:
                with closing(call.steps(batch)) as steps:
                    self._take(steps)
        except Exception as error:  # noqa: BLE001 - a render never fails
            call.broke(error)
        return call

    def _take(self, steps: Steps) -> None:
        step = next(steps, None)
        try:
            while step is not None:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(steps)
                else:
                    step = steps.send(self._wire.exchange(step))
        except StopIteration:
            return


class AsyncScoresClient(_Client[httpx.AsyncBaseTransport]):
    """Scores for asyncio. Everything is as in ``ScoresClient``, but to be awaited."""

    def _begin(self) -> None:
        super()._begin()
        # A connection belongs to the event loop it was made in.
        self._wires: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncWire] = WeakKeyDictionary()

    async def score(self, subscriber_id: object, **asked: Unpack[Asked]) -> SubscriberScores:
        """Of one."""
        return (await self._run(self._call((subscriber_id,), RENDER, **asked))).rows()[0]

    async def scores(self, subscriber_ids: Iterable[object], **asked: Unpack[Asked]) -> list[SubscriberScores]:
        """Of any number, in order; repeats are asked for once."""
        return (await self._run(self._call(subscriber_ids, RENDER, **asked))).rows()

    async def prefetch(self, subscriber_ids: Iterable[object], **asked: Unpack[Asked]) -> Snapshot:
        """Of a whole segment, before it is rendered: with 30 seconds unless ``deadline_ms`` says otherwise, and patience."""
        return (await self._run(self._call(subscriber_ids, PREFETCH, **asked))).snapshot()

    async def aclose(self) -> None:
        """Close every connection of this event loop. Who asks afterwards gets the defaults."""
        self._closed = True
        await self._wire().transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    def _wire(self) -> AsyncWire:
        loop = asyncio.get_running_loop()
        if loop not in self._wires:
            # Without a context there is no TLS: httpx would load every authority for nothing.
            transport = self._transport or httpx.AsyncHTTPTransport(
                verify=self._ssl_context or False, limits=LIMITS, trust_env=False
            )
            self._wires[loop] = AsyncWire(transport)
        return self._wires[loop]

    async def _run(self, call: Call) -> Call:
        try:
            waiting = iter(call.batches)
            workers = min(call.at_once, len(call.batches))
            if workers == 1:
                await self._work(call, waiting)
            else:
                await asyncio.gather(*(self._work(call, waiting) for _ in range(workers)))
        except Exception as error:  # noqa: BLE001 - a render never fails
            call.broke(error)
        return call

    async def _work(self, call: Call, waiting: Iterable[list[str]]) -> None:
        for batch in waiting:
            with closing(call.steps(batch)) as steps:
                await self._take(steps)

    async def _take(self, steps: Steps) -> None:
        wire, step = self._wire(), next(steps, None)
        try:
            while step is not None:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                else:
                    step = steps.send(await wire.exchange(step))
        except StopIteration:
            return


def _check(holds: object, words: str) -> None:
    if not holds:
        raise ValueError(words)


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _deadline(milliseconds: float) -> float:
    holds = _is_number(milliseconds) and 1 <= milliseconds <= _LONGEST_MS
    _check(holds, "deadline_ms should be a number of milliseconds, from 1 to an hour's.")
    return milliseconds


def _url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError):
        url = httpx.URL()
    plain = not (url.userinfo or url.query or url.fragment) and (url.port is None or 0 < url.port <= _LAST_PORT)
    _check(
        url.scheme in ("http", "https") and url.host and plain,
        "base_url should be the service's address, like http://127.0.0.1:3000, without a question mark or a password.",
    )
    return url.copy_with(path=url.path.rstrip("/") + _PATH)
