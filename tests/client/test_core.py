"""How a call goes, step by step, with a clock that stands still until it is moved. Nothing here touches a network."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from inbox_client import Context, Defaults
from inbox_client.asking import Question
from inbox_client.breaker import Breaker
from inbox_client.core import PREFETCH, RENDER, Call, Core, Heard, Patience, Pause, Reply, Send, Settings, Surroundings

from tests.client.service import EXAMPLE

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
URL = httpx.URL("http://127.0.0.1:3000/v1/scores")


@dataclass
class Stage:
    """A core, its clock, and everything it asked to be done."""

    failures: int = 5
    pause_s: float = 1.0
    chance: float = 0.0
    at: float = 100.0
    sent: list[Send] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = Settings(URL, "key", 150, Defaults(), 1000, self.failures, self.pause_s)
        self.core = Core(settings, Surroundings(lambda: self.at, lambda: NOW, lambda: self.chance))

    def call(self, hear: Callable[[Send], Heard], count: int = 1, ms: float = 150, patience: Patience = RENDER) -> Call:
        """Play a call to its end. ``hear`` may move the clock, as a pause does."""
        call = self.core.begin([f"s{number}" for number in range(count)], Question(), ms, patience)
        for batch in call.batches:
            self._play(call, batch, hear)
        return call

    def _play(self, call: Call, batch: list[str], hear: Callable[[Send], Heard]) -> None:
        steps = call.steps(batch)
        heard: Heard = None
        while True:
            try:
                step = steps.send(heard)
            except StopIteration:
                return
            if isinstance(step, Pause):
                self.paused.append(step.seconds)
                self.at += step.seconds
                heard = None
            else:
                self.sent.append(step)
                heard = hear(step)


def ids_of(step: Send) -> list[str]:
    ids: list[str] = json.loads(step.request.content)["subscriber_ids"]
    return ids


def well(step: Send) -> Reply:
    rows = [{"subscriber_id": one, **EXAMPLE} for one in ids_of(step)]
    return Reply(200, "", json.dumps({"scores": rows}).encode())


def first(*heard: Heard) -> Callable[[Send], Heard]:
    """These in turn, and then answers."""
    waiting = list(heard)
    return lambda step: waiting.pop(0) if waiting else well(step)


def reasons(call: Call) -> set[Any]:
    return {one.fallback_reason for one in call.rows()}


@pytest.mark.parametrize("heard", ["connection", "dropped", Reply(503, "", b""), Reply(502, "", b"")])
def test_what_may_be_repeated_is_repeated_once(heard: Heard) -> None:
    stage = Stage()
    assert reasons(stage.call(first(heard))) == {None}
    assert stage.core.tally.stats(0).retries == 1
    assert reasons(stage.call(lambda step: heard)) != {None}
    assert len(stage.sent) == 4


@pytest.mark.parametrize("heard", ["time_out", "unreadable", *(Reply(code, "", b"") for code in (400, 401, 404, 500))])
def test_what_may_not_be_repeated_is_not(heard: Heard) -> None:
    stage = Stage()
    assert reasons(stage.call(lambda step: heard)) != {None}
    assert len(stage.sent) == 1


def test_a_pause_the_service_asks_for_is_kept_with_some_chance_in_it() -> None:
    stage = Stage(chance=0.5)
    assert reasons(stage.call(first(Reply(429, "1", b"")), ms=2000)) == {None}
    assert stage.paused == [1.5]


def test_a_pause_longer_than_the_time_left_is_not_begun() -> None:
    stage = Stage()
    assert reasons(stage.call(first(Reply(429, "1", b"")))) == {"overloaded"}
    assert (stage.paused, len(stage.sent)) == ([], 1)


def test_the_service_is_told_less_than_the_time_that_is_left() -> None:
    stage = Stage()

    def late(step: Send) -> Heard:
        stage.at += 0.1
        return "dropped" if len(stage.sent) == 1 else well(step)

    stage.call(late)
    told = [int(step.request.headers["x-deadline-ms"]) for step in stage.sent]
    assert told[0] < 150
    assert told[1] < 50
    assert stage.sent[1].seconds == pytest.approx(0.05)


def test_the_service_is_never_told_what_it_would_refuse() -> None:
    stage = Stage()
    for ms in (1, 1.9, 2, 3_600_000):
        stage.call(well, ms=ms)
    assert all(1 <= int(step.request.headers["x-deadline-ms"]) <= 60_000 for step in stage.sent)
    assert len(stage.sent) >= 3


def test_batches_that_did_not_make_it_are_fallback_and_the_others_are_kept() -> None:
    stage = Stage()

    def slow(step: Send) -> Heard:
        stage.at += 0.06
        return well(step) if stage.at < 100.15 else "time_out"

    rows = stage.call(slow, count=3500).rows()
    assert [one.fallback_reason for one in (rows[0], rows[1999], rows[2000], rows[3499])] == [
        None,
        None,
        "time_out",
        "time_out",
    ]
    assert len(stage.sent) == 3


def test_a_key_nobody_knows_ends_the_call_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    with caplog.at_level(logging.INFO, "inbox_client"):
        assert reasons(stage.call(lambda step: Reply(401, "", b""), count=2500)) == {"unknown_key"}
        stage.call(lambda step: Reply(401, "", b""))
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        stage.call(well)
        stage.call(lambda step: Reply(403, "", b""))
    assert len(caplog.records) == 2
    assert len(stage.sent) == 4


def test_the_breaker_opens_lets_one_probe_through_and_closes(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(failures=3)
    with caplog.at_level(logging.INFO, "inbox_client"):
        for _ in range(3):
            stage.call(lambda step: "time_out")
        assert reasons(stage.call(well)) == {"breaker_open"}
        stage.at += 1.01
        assert reasons(stage.call(lambda step: "time_out")) == {"time_out"}
        assert reasons(stage.call(well)) == {"breaker_open"}
        stage.at += 1.01
        assert reasons(stage.call(well)) == {None}
        assert reasons(stage.call(well)) == {None}
    assert (len(stage.sent), stage.core.breaker.openings) == (6, 1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_success_between_failures_keeps_it_closed() -> None:
    stage = Stage(failures=2)
    for _ in range(5):
        assert reasons(stage.call(lambda step: "time_out")) == {"time_out"}
        assert reasons(stage.call(well)) == {None}
    assert stage.core.breaker.openings == 0


@pytest.mark.parametrize("code", [400, 401, 404, 429])
def test_a_service_that_refuses_is_well(code: int) -> None:
    stage = Stage(failures=1)
    for _ in range(3):
        stage.call(lambda step: Reply(code, "9", b""))
    assert stage.core.breaker.openings == 0


@pytest.mark.parametrize("heard", ["connection", "dropped", "time_out", "unreadable", Reply(500, "", b"")])
def test_a_service_without_a_usable_answer_is_not(heard: Heard) -> None:
    stage = Stage(failures=1)
    stage.call(lambda step: heard)
    assert stage.core.breaker.is_open


def test_exactly_one_of_many_probes() -> None:
    now = [0.0]
    breaker = Breaker(1, 1.0, lambda: now[0])
    breaker.settle("usual", False)
    now[0] = 2.0
    assert [breaker.admit() for _ in range(4)] == ["probe", None, None, None]
    # One who was sent before it opened says nothing new.
    breaker.settle("usual", False)
    assert breaker.admit() is None
    # One who gave up for reasons of its own leaves the place to the next.
    breaker.settle("probe", None)
    assert [breaker.admit() for _ in range(2)] == ["probe", None]
    breaker.settle("probe", False)
    assert breaker.admit() is None
    now[0] = 3.5
    assert breaker.admit() == "probe"
    breaker.settle("probe", True)
    assert [breaker.admit() for _ in range(2)] == ["usual", "usual"]


def test_a_probe_whose_call_is_left_unfinished_does_not_block_the_next() -> None:
    stage = Stage(failures=1)
    stage.call(lambda step: "time_out")
    stage.at += 2
    call = stage.core.begin(["s1"], Question(), 150, RENDER)
    steps = call.steps(call.batches[0])
    next(steps)
    assert reasons(stage.call(well)) == {"breaker_open"}
    steps.close()
    assert reasons(stage.call(well)) == {None}


def test_a_prefetch_waits_for_a_service_that_restarts() -> None:
    stage = Stage(failures=3)

    def restarting(step: Send) -> Heard:
        return well(step) if stage.at > 108 else "connection"

    assert reasons(stage.call(restarting, count=3000, ms=30_000, patience=PREFETCH)) == {None}
    assert len(stage.sent) < 25


def test_a_prefetch_of_a_dead_service_ends_by_its_deadline() -> None:
    stage = Stage()
    assert len(reasons(stage.call(lambda step: "connection", count=3000, ms=30_000, patience=PREFETCH))) <= 2
    assert stage.at <= 130
    assert len(stage.sent) < 60


def test_one_request_of_a_prefetch_that_hangs_does_not_eat_all_its_time() -> None:
    stage = Stage()

    def hangs_once(step: Send) -> Heard:
        if len(stage.sent) > 1:
            return well(step)
        stage.at += step.seconds
        return "time_out"

    assert reasons(stage.call(hangs_once, ms=30_000, patience=PREFETCH)) == {None}
    assert stage.at < 106


def test_a_fallback_is_sent_when_it_was_planned() -> None:
    stage = Stage()
    planned = datetime(2026, 12, 3, 17, tzinfo=UTC)
    for context, moment in ((None, NOW), (Context(default_send_at=planned), planned)):
        call = stage.core.begin([""], Question(context=context), 150, RENDER)
        [one] = call.rows()
        assert one.send_time.send_at == moment
        assert one.send_time.hour_of_week == 24 * moment.weekday() + moment.hour
        assert one.send_time.arm == "fallback"
