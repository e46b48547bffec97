"""How a call goes, without doing any of it: what to send, when to repeat, when to give up, what to say instead.

What enters: ids, the clock, and how each step went. What leaves: steps for a driver to take (``Send``, ``Pause``), then one
complete object per id, in order. The promise: no step may last past the call's deadline, and there is an object for
everybody however many steps were never taken.

A request may be repeated because ``POST /v1/scores`` changes nothing: once in a render, when the connection broke, or on
429 and 503 when the service's ``Retry-After`` fits in the time that is left. A prefetch has time: it repeats until its
deadline, and waits for the breaker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from math import inf
from typing import Literal

import httpx

from inbox_client.about import USER_AGENT
from inbox_client.answers import Defaults, Reason, SubscriberScores
from inbox_client.asking import Question, as_id, batches
from inbox_client.breaker import Breaker, Permit
from inbox_client.reading import Unreadable, read
from inbox_client.snapshot import Snapshot
from inbox_client.tally import Tally

log = logging.getLogger("inbox_client")

UNTIL = "inbox_client.until"
"""Where a request's extensions say, on ``monotonic``'s clock, when it ends."""
LEAST_S = 0.001
"""With less left, nothing is begun."""
MARGIN_S, MARGIN_EACH_S = 0.005, 0.000_02
"""Set aside, of what the service is told it has, for the way there and back and for reading what it says of each."""
CONNECT_SHARE = 0.45
"""Of the time there is, for the connection and for the handshake each: httpcore's asynchronous handshake leaves its socket
open when it is cancelled, but not when it times out.
"""
LONGEST_HEADER_MS = 60_000
LIMIT_BYTES, LIMIT_EACH_BYTES = 65_536, 8_192
"""An answer is no larger; one with every reason in long words is a quarter of it."""
PREFETCH_ATTEMPT_S = 5.0
REFUSED_PAUSE_S, LONGEST_PAUSE_S = 0.01, 2.0
POLL_S = 0.05
CONCURRENT = 2
"""Batches of a call at once, where a driver can: while one is scored another is read. The service scores one at a time,
and sheds a second one that asks for reasons.
"""

Fault = Literal["connection", "dropped", "time_out", "unreadable"]
"""What keeps an answer from arriving. ``dropped``: there was a connection, and it went away."""

OK, UNAUTHORIZED, FORBIDDEN, TOO_MANY, BAD_GATEWAY, UNAVAILABLE = 200, 401, 403, 429, 502, 503


@dataclass(frozen=True, slots=True)
class Send:
    """Send this, and read at most ``limit`` bytes of its answer, in at most so many seconds."""

    request: httpx.Request
    seconds: float
    limit: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    retry_after: str
    body: bytes


Heard = Reply | Fault | None
Steps = Generator[Send | Pause, Heard, None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long somebody goes on: ``waits`` until the deadline, or for one repeat."""

    attempt_s: float
    waits: bool


RENDER = Patience(inf, waits=False)
PREFETCH = Patience(PREFETCH_ATTEMPT_S, waits=True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an exchange came to: ``reason`` None when it was an answer."""

    reason: Reason | None
    went_well: bool
    again: bool = False
    pause_s: float = 0.0


_FAULTS: dict[Fault, Verdict] = {
    "connection": Verdict("connection", went_well=False, again=True, pause_s=REFUSED_PAUSE_S),
    "dropped": Verdict("connection", went_well=False, again=True),
    "time_out": Verdict("time_out", went_well=False),
    "unreadable": Verdict("unreadable", went_well=False),
}
_ANSWERED = Verdict(None, went_well=True)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client was made with."""

    url: httpx.URL
    key: str
    deadline_ms: float
    defaults: Defaults
    batch_size: int
    breaker_failures: int
    breaker_pause_s: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What differs from run to run: clocks and chance (0 to 1)."""

    clock: Callable[[], float]
    today: Callable[[], datetime]
    chance: Callable[[], float]


class Core:
    """What all calls of a client share."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        self.settings, self.surroundings = settings, surroundings
        self.tally = Tally()
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_pause_s, surroundings.clock)
        self._headers = {
            "authorization": f"Bearer {settings.key}",
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": USER_AGENT,
        }
        self._said: set[Reason] = set()

    def begin(self, ids: Iterable[object], question: Question, deadline_ms: float, patience: Patience) -> Call:
        """A call for these, whose time begins now."""
        return Call(self, ids, question, self.surroundings.clock() + deadline_ms / 1000, patience)

    def request(self, body: bytes, seconds: float, subscribers: int) -> httpx.Request:
        """That asks for scores in so many seconds."""
        spared_s = max(seconds / 2, seconds - MARGIN_S - MARGIN_EACH_S * subscribers)
        milliseconds = max(1, min(LONGEST_HEADER_MS, int(spared_s * 1000)))
        extensions = {
            "timeout": {**dict.fromkeys(("read", "write", "pool"), seconds), "connect": CONNECT_SHARE * seconds},
            UNTIL: self.surroundings.clock() + seconds,
        }
        headers = self._headers | {"x-deadline-ms": str(milliseconds)}
        return httpx.Request("POST", self.settings.url, headers=headers, content=body, extensions=extensions)

    def say_once(self, reason: Reason, words: str) -> None:
        """Log it, unless that was done since the service answered last."""
        if reason not in self._said:
            self._said.add(reason)
            log.error("scores: %s; those who are rendered get the defaults", words)

    def say_again(self) -> None:
        """The service has answered: whatever goes wrong next is news."""
        if self._said:
            self._said.clear()


class Call:
    """One call of the caller's, from its ids to its objects."""

    def __init__(self, core: Core, ids: Iterable[object], question: Question, until: float, patience: Patience) -> None:
        self._core, self._question, self._until, self._patience = core, question, until, patience
        context = question.context
        planned = context.default_send_at if context else None
        self._stand_ins = core.settings.defaults.at(planned or core.surroundings.today())
        self._given = list(ids)
        self._names = [as_id(one) for one in self._given]
        self._found: dict[str, SubscriberScores] = {}
        self._hopeless: Reason | None = None
        distinct = dict.fromkeys(name for name in self._names if name is not None)
        self.batches = list(batches(distinct, core.settings.batch_size))
        self.at_once = 1 if question.explain else CONCURRENT

    def steps(self, batch: list[str]) -> Steps:
        """Take each, and send back how it went. When they end the batch is answered or given up."""
        body = self._question.body(batch)
        for attempt in count():
            if self._hopeless or self._left() < LEAST_S:
                return self._give_up(batch, self._hopeless or "time_out")
            permit = self._core.breaker.admit()
            if permit is None:
                verdict = Verdict("breaker_open", went_well=False, again=self._patience.waits, pause_s=self._poll())
            else:
                verdict = yield from self._exchange(batch, body, permit, again=attempt > 0)
            if verdict.reason is None:
                return None
            pause_s = self._pause(verdict, attempt)
            if not self._may_repeat(verdict, attempt) or pause_s + LEAST_S > self._left():
                return self._give_up(batch, verdict.reason)
            if pause_s:
                yield Pause(pause_s)
        return None

    def rows(self) -> list[SubscriberScores]:
        """One object per id, in order."""
        found, stand_ins = self._found, self._stand_ins
        rows = []
        for given, name in zip(self._given, self._names, strict=True):
            if name is None:
                rows.append(stand_ins.scores(given if type(given) is str else "", "bad_id"))
            else:
                rows.append(found.get(name) or stand_ins.scores(name, "defect"))
        bad = self._names.count(None)
        if bad:
            self._core.tally.fell_back("bad_id", bad)
        return rows

    def snapshot(self) -> Snapshot:
        """The same by id."""
        return Snapshot({one.subscriber_id: one for one in self.rows()}, self._stand_ins)

    def abandon(self, reason: Reason) -> None:
        """Nobody who is not answered yet will be."""
        self._hopeless = reason
        left = [name for batch in self.batches for name in batch if name not in self._found]
        self._give_up(left, reason)

    def broke(self, error: Exception) -> None:
        """Something went wrong that must not: say so without repeating anything it may quote."""
        self._core.say_once("defect", f"a defect of inbox-client, {type(error).__name__}")
        self.abandon("defect")

    def _exchange(
        self, batch: list[str], body: bytes, permit: Permit, again: bool
    ) -> Generator[Send | Pause, Heard, Verdict]:
        core, went_well = self._core, None
        try:
            seconds = min(self._left(), self._patience.attempt_s)
            core.tally.sent(again)
            heard = yield Send(
                core.request(body, seconds, len(batch)), seconds, LIMIT_BYTES + LIMIT_EACH_BYTES * len(batch)
            )
            verdict = self._judged(heard, batch)
            went_well = verdict.went_well
            return verdict
        finally:
            core.breaker.settle(permit, went_well)

    def _judged(self, heard: Heard, batch: list[str]) -> Verdict:
        if not isinstance(heard, Reply):
            return _FAULTS[heard or "connection"]
        if heard.status == OK:
            return self._answered(heard.body, batch)
        if heard.status in (UNAUTHORIZED, FORBIDDEN):
            self._hopeless = "unknown_key"
            self._core.say_once("unknown_key", "the service does not know this key")
        return _refusal(heard)

    def _answered(self, body: bytes, batch: list[str]) -> Verdict:
        try:
            rows = read(body, self._question.models, self._stand_ins)
        except Unreadable:
            return _FAULTS["unreadable"]
        found = {name: rows[name] for name in batch if name in rows}
        if not found:
            return _FAULTS["unreadable"]
        self._found |= found
        self._core.tally.scored(len(found))
        self._core.say_again()
        if len(found) < len(batch):
            self._give_up([name for name in batch if name not in found], "unanswered")
        return _ANSWERED

    def _give_up(self, batch: list[str], reason: Reason) -> None:
        self._found |= {name: self._stand_ins.scores(name, reason) for name in batch}
        self._core.tally.fell_back(reason, len(batch))

    def _may_repeat(self, verdict: Verdict, attempt: int) -> bool:
        if self._patience.waits:
            return verdict.again or verdict.reason == "time_out"
        return verdict.again and attempt == 0

    def _pause(self, verdict: Verdict, attempt: int) -> float:
        """With some chance in it: whoever failed together should not come again together."""
        pause_s = verdict.pause_s
        if self._patience.waits and verdict.reason != "breaker_open":
            pause_s = max(pause_s, min(LONGEST_PAUSE_S, REFUSED_PAUSE_S * 2.0 ** min(attempt, 10)))
        return pause_s * (1 + self._core.surroundings.chance())

    def _poll(self) -> float:
        return max(POLL_S, self._core.breaker.wait_s)

    def _left(self) -> float:
        return self._until - self._core.surroundings.clock()


def _refusal(reply: Reply) -> Verdict:
    """What a status means that is not 200. Not followed: a redirect, which would take the key somewhere else."""
    match reply.status:
        case 429:
            return Verdict("overloaded", went_well=True, again=True, pause_s=_seconds(reply.retry_after))
        case 502 | 503:
            return Verdict("server_error", went_well=False, again=True, pause_s=_seconds(reply.retry_after))
        case 401 | 403:
            return Verdict("unknown_key", went_well=True)
        case status if status >= 500:
            return Verdict("server_error", went_well=False)
        case status if status >= 400:
            return Verdict("rejected", went_well=True)
        case _:
            return _FAULTS["unreadable"]


def _seconds(retry_after: str) -> float:
    """What Retry-After asks for; a date is not worth reading where time is counted in milliseconds."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else REFUSED_PAUSE_S


def utc_now() -> datetime:
    """Now, with its zone."""
    return datetime.now(UTC)
