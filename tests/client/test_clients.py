"""What a program calls: order, batches, connections, threads, loops, forks, and what is refused at once."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from inbox_client import (
    AsyncScoresClient,
    ChurnAnswer,
    Context,
    LeadScoreAnswer,
    ScoresClient,
    SubscriberScores,
    __version__,
)
from inbox_client.wire import KEEP_S

from tests.client.conftest import KEY, Both
from tests.client.service import Asked, answer, hangs, http, in_turn, leaves, nowhere, says, serving, status, well
from tests.serving.stand_in import SEND_AT, front
from tests.serving.stand_in import serving as serving_app

Connect = Callable[..., Both]


def test_the_contracts_example_is_read_whole(connect: Connect) -> None:
    with serving(well) as service:
        one = connect(service.url).score("s000017")
    assert (one.subscriber_id, one.status, one.feature_age_s, one.request_id) == ("s000017", "ok", 412, "r-17")
    assert (one.churn.probability, one.churn.band, one.churn.percentile, one.churn.reasons) == (0.18, "high", 31, None)
    assert (one.lead_score.score, one.lead_score.grade) == (81, "B")
    assert one.send_time.send_at.isoformat() == "2026-11-24T07:00:00+00:00"
    assert (one.send_time.gain_interval, one.send_time.timezone_assumed) == ((0.03, 0.21), False)
    assert (one.defaulted, one.fallback_reason) == ((), None)


def test_any_number_is_asked_a_thousand_at_a_time_repeats_once_and_in_order(connect: Connect) -> None:
    ids = [f"s{number % 2300}" for number in range(5000)]
    with serving(well) as service:
        client = connect(service.url)
        many = client.scores(one for one in ids)
        assert [one.subscriber_id for one in many] == ids
        assert {one.status for one in many} == {"ok"}
        assert sorted(len(asked.ids) for asked in service.asked) == [300, 1000, 1000]
    assert client.stats.scored == 2300


def test_nobody_asked_for_is_nothing_asked(connect: Connect) -> None:
    with serving(well) as service:
        client = connect(service.url)
        assert client.scores([]) == []
        assert len(client.prefetch(())) == 0
        assert service.asked == []


def test_a_bad_id_costs_its_own_answer_and_nobody_elses(connect: Connect) -> None:
    uuid = UUID("12345678123456781234567812345678")
    ids = ["s1", "", None, 17, uuid, b"s2", "x" * 257, "new\nline", "half \ud800", True, 1.5, "s3"]
    with serving(well) as service:
        client = connect(service.url)
        many = client.scores(ids)
        assert service.asked[0].ids == ["s1", "17", str(uuid), "s3"]
    assert [one.status == "ok" for one in many] == [one in ("s1", 17, uuid, "s3") for one in ids]
    assert {one.fallback_reason for one in many if one.status == "fallback"} == {"bad_id"}
    assert client.stats.fallbacks == {"bad_id": 8}


def test_only_what_was_asked_for_is_believed(connect: Connect) -> None:
    with serving(well) as service:
        one = connect(service.url).score("s1", models=["churn"])
        assert service.asked[0].json["models"] == ["churn"]
    assert (one.churn.band, one.defaulted) == ("high", ("lead_score", "send_time"))


def test_a_request_says_who_asks_and_takes_nothing_from_the_environment(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, nowhere())
    with serving(well) as service:
        assert connect(service.url + "/inbox/").score("ü 1", explain=True).status == "ok"
        [asked] = service.asked
    assert asked.line == "POST /inbox/v1/scores HTTP/1.1"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["user-agent"] == f"inbox-client/{__version__}"
    assert asked.json["explain"] is True
    assert 1 <= int(asked.headers["x-deadline-ms"]) < 5000


def test_closing_twice_is_closing_once(connect: Connect) -> None:
    client = connect(nowhere())
    client.close()
    client.close()
    assert client.prefetch(["s1"]).fallbacks == ["s1"]


def test_a_connection_is_kept(connect: Connect) -> None:
    with serving(well) as service:
        client = connect(service.url)
        for _ in range(5):
            client.score("s1")
        assert {asked.connection for asked in service.asked} == {1}


def test_it_is_given_up_before_the_service_closes_it() -> None:
    assert KEEP_S < 5


def test_a_kept_connection_that_went_away_meanwhile_costs_nothing_but_a_repeat(connect: Connect) -> None:
    with serving(in_turn(well, leaves, well)) as service:
        client = connect(service.url)
        assert [client.score("s1").status for _ in range(3)] == ["ok"] * 3
    assert client.stats.retries == 1


def test_a_service_that_comes_back_is_used_again(connect: Connect) -> None:
    with serving(status(503)) as service:
        client = connect(service.url, breaker_failures=2, breaker_pause_s=0.05)
        assert client.score("s1").fallback_reason == "server_error"
        assert client.score("s1").fallback_reason == "breaker_open"
        service.behaviour = well
        time.sleep(0.06)
        assert client.score("s1").status == "ok"
    assert client.stats.breaker_openings == 1


def test_a_prefetch_waits_for_a_service_that_is_not_ready_and_says_whom_it_missed(connect: Connect) -> None:
    with serving(in_turn(status(503), leaves, status(429, retry_after=0), well)) as service:
        client = connect(service.url)
        ready = client.prefetch(["s1", "s2", "s1", 3])
    assert list(ready) == ["s1", "s2", "3"]
    assert (ready["s1"].status, ready[3].status, ready.fallbacks) == ("ok", "ok", [])
    assert ("s1" in ready, 3 in ready, "s9" in ready, None in ready) == (True, True, False, False)
    assert ready["s9"].fallback_reason == ready.get("s9", None).fallback_reason == "not_prefetched"
    assert client.prefetch(["s1"], deadline_ms=50).fallbacks == ["s1"]


def test_many_threads_share_one_client() -> None:
    def delayed(asked: Asked) -> bytes:
        time.sleep(0.002)
        return http(200, answer(asked))

    with serving(says(delayed)) as service, ScoresClient(service.url, KEY, deadline_ms=10_000) as client:

        def work(number: int) -> list[SubscriberScores]:
            return client.scores([f"{number}-{position}" for position in range(20)])

        with ThreadPoolExecutor(8) as threads:
            for number, many in enumerate(threads.map(work, range(80))):
                assert [one.subscriber_id for one in many] == [f"{number}-{position}" for position in range(20)]
                assert {one.status for one in many} == {"ok"}
        assert (client.stats.requests, client.stats.scored, client.stats.fallbacks) == (80, 1600, {})
        assert len({asked.connection for asked in service.asked}) <= 8


def test_a_breaker_is_shared_by_all_threads_and_lets_one_probe() -> None:
    with (
        serving(hangs) as service,
        ScoresClient(service.url, KEY, deadline_ms=100, breaker_failures=4, breaker_pause_s=0.1) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        list(threads.map(client.score, ["s1"] * 4))
        assert client.stats.breaker_openings == 1
        time.sleep(0.11)
        before = client.stats.requests
        together = threading.Barrier(4)

        def at_once(subscriber_id: str) -> str | None:
            together.wait()
            return client.score(subscriber_id).fallback_reason

        assert sorted(map(str, threads.map(at_once, ["s1"] * 4))) == ["breaker_open"] * 3 + ["time_out"]
        assert client.stats.requests == before + 1


def test_many_tasks_share_one_client() -> None:
    async def run(url: str) -> list[SubscriberScores]:
        async with AsyncScoresClient(url, KEY, deadline_ms=10_000) as client:
            return await asyncio.gather(*(client.score(f"s{number}") for number in range(30)))

    with serving(well) as service:
        many = asyncio.run(run(service.url))
    assert [(one.subscriber_id, one.status) for one in many] == [(f"s{number}", "ok") for number in range(30)]


def test_each_event_loop_has_connections_of_its_own() -> None:
    with serving(well) as service, asyncio.Runner() as one, asyncio.Runner() as other:
        client = AsyncScoresClient(service.url, KEY, deadline_ms=10_000)
        assert [runner.run(client.score("s1")).status for runner in (one, other, one)] == ["ok"] * 3
        for runner in (one, other):
            runner.run(client.aclose())
        assert [asked.connection for asked in service.asked] == [1, 2, 1]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own() -> None:
    with serving(well) as service, ScoresClient(service.url, KEY, deadline_ms=5000) as client:
        client.score("s1")
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(write, client.score("s2").status.encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 100) == b"ok"
        os.close(read)
        os.close(write)
        assert client.score("s3").status == "ok"
        assert [asked.connection for asked in service.asked] == [1, 2, 1]


def test_nothing_of_a_subscriber_or_the_key_is_ever_logged_or_shown(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "inbox_client"):
        with serving(in_turn(well, status(401), status(500))) as service:
            client = connect(service.url, breaker_failures=1)
            for _ in range(4):
                client.score("ada@example.org")
        text = caplog.text + repr(client.client) + repr(client.stats)
    assert caplog.records
    assert "ada@" not in text
    assert KEY not in text


@pytest.mark.parametrize("kind", [ScoresClient, AsyncScoresClient])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"base_url": ""}, "base_url"),
        ({"base_url": "127.0.0.1:3000"}, "base_url"),
        ({"base_url": "ftp://127.0.0.1"}, "base_url"),
        ({"base_url": "http://"}, "base_url"),
        ({"base_url": "http://me:secret@127.0.0.1"}, "base_url"),
        ({"base_url": "http://127.0.0.1?key=1"}, "base_url"),
        ({"base_url": "http://127.0.0.1:99999999"}, "base_url"),
        ({"base_url": "http://127.0.0.1:0"}, "base_url"),
        ({"base_url": None}, "base_url"),
        ({"key": ""}, "key"),
        ({"key": None}, "key"),
        ({"key": "two words"}, "key"),
        ({"key": "line\r\nx-other: 1"}, "key"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": -5}, "deadline_ms"),
        ({"deadline_ms": float("nan")}, "deadline_ms"),
        ({"deadline_ms": float("inf")}, "deadline_ms"),
        ({"deadline_ms": "150"}, "deadline_ms"),
        ({"deadline_ms": True}, "deadline_ms"),
        ({"defaults": {"churn": "low"}}, "defaults"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 1001}, "batch_size"),
        ({"breaker_failures": 0}, "breaker_failures"),
        ({"breaker_pause_s": 0}, "breaker_pause_s"),
        ({"breaker_pause_s": float("nan")}, "breaker_pause_s"),
    ],
)
def test_what_cannot_be_is_refused_when_the_client_is_made(kind: Any, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        kind(**{"base_url": "http://127.0.0.1:3000", "key": "k", **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ("chrun",)},
        {"models": ()},
        {"context": {"campaign_id": "c12"}},
        {"deadline_ms": 0},
        {"deadlin_ms": 5},
    ],
)
def test_wrong_use_of_a_call_is_refused_whoever_is_asked_for(connect: Connect, wrong: dict[str, Any]) -> None:
    client = connect(nowhere())
    for call in (client.score, client.scores, client.prefetch):
        with pytest.raises((ValueError, TypeError)):
            call([], **wrong)


def test_a_single_id_where_many_belong_is_refused(connect: Connect) -> None:
    with pytest.raises(TypeError, match="score"):
        connect(nowhere()).scores("s000017")


def test_a_transport_of_ones_own_is_used() -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=answer(Asked("", {}, request.content, 0)))

    with ScoresClient("http://service.invalid", KEY, transport=httpx.MockTransport(reply)) as client:
        assert client.score("s1").status == "ok"


def test_the_real_service_answers_both_clients(connect: Connect, tmp_path: Path) -> None:
    parts = front(tmp_path)
    try:
        with serving_app(parts.guard) as url:
            client = connect(url, key=parts.key)
            context = Context(campaign_id="c12", default_send_at=SEND_AT, window_hours=48, quiet_hours=(22, 7))
            many = client.scores(["s1", "new2", *map(str, range(1500))], context=context, explain=True)
            assert connect(url, key="wrong").score("s1").fallback_reason == "unknown_key"
            client.close()
    finally:
        parts.close()
    assert [(one.subscriber_id, one.status, one.prior) for one in many[:2]] == [
        ("s1", "ok", None),
        ("new2", "prior", "global"),
    ]
    assert many[0].churn == ChurnAnswer(0.18, "low", 31, ("opened often",))
    assert many[0].lead_score == LeadScoreAnswer(0.07, 81, "B", ("opened often",))
    assert many[0].send_time.send_at == SEND_AT
    assert {(one.defaulted, one.fallback_reason) for one in many} == {((), None)}
