"""Whatever is wrong with the service: the caller gets complete objects, in time."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from inbox_client import AsyncScoresClient, ChurnAnswer, Defaults, LeadScoreAnswer, ScoresClient, SendTimeAnswer
from inbox_client import wire as wire_module

from tests.client.conftest import KEY, Both
from tests.client.service import (
    EXAMPLE,
    Asked,
    Behaviour,
    answer,
    body,
    cut,
    explodes,
    garbage,
    hangs,
    http,
    is_endless,
    leaves,
    nowhere,
    says,
    serving,
    status,
    trickles,
    trickles_its_head,
    well,
    zipped,
)

Connect = Callable[..., Both]
DEADLINE_MS = 150
SLACK = 10
"""Busy machines are late; what is tested is that every call ends, and not after what the fault would take."""
DEFAULTS = Defaults(
    ChurnAnswer(0.5, "medium", 40),
    LeadScoreAnswer(0.25, 33, "D"),
    SendTimeAnswer(datetime(2026, 12, 1, 9, tzinfo=UTC), hour_of_week=33),
)


def row_with(**changed: Any) -> Behaviour:
    return says(lambda asked: http(200, answer(asked, **changed)))


FAULTS: dict[str, tuple[Behaviour, str]] = {
    "hangs": (hangs, "time_out"),
    "leaves": (leaves, "connection"),
    "speaks no HTTP": (garbage, "connection"),
    "is cut in the middle": (cut, "connection"),
    "trickles its body": (trickles, "time_out"),
    "trickles its head": (trickles_its_head, "time_out"),
    "is endless": (is_endless, "unreadable"),
    "explodes when unzipped": (explodes, "unreadable"),
    "is said to be zipped and is not": (status(200, b"{}", content_encoding="gzip"), "unreadable"),
    "is empty": (body(b""), "unreadable"),
    "is no JSON": (body(b"<html>Welcome to the hotel</html>"), "unreadable"),
    "is no UTF-8": (body(b'{"scores": [{"subscriber_id": "\xff"}]}'), "unreadable"),
    "is deep": (body(b"[" * 30_000), "unreadable"),
    "is a list": (body(b"[]"), "unreadable"),
    "has no scores": (body(b'{"scores": []}'), "unreadable"),
    "has scores of no kind": (body(b'{"scores": {"s1": 1}}'), "unreadable"),
    "speaks of somebody else": (row_with(subscriber_id="somebody else"), "unreadable"),
    "has a status nobody knows": (row_with(status="splendid"), "unreadable"),
    "claims to be a fallback": (row_with(status="fallback"), "unreadable"),
    "has an id that is a list": (row_with(subscriber_id=["s1"]), "unreadable"),
    "redirects": (status(307, location="http://127.0.0.1:1/v1/scores"), "unreadable"),
    "says nothing": (status(204), "unreadable"),
    "answers 400": (status(400, b"{}"), "rejected"),
    "answers 401": (status(401, b"{}"), "unknown_key"),
    "answers 403": (status(403, b"{}"), "unknown_key"),
    "answers 404": (status(404, b"not found"), "rejected"),
    "answers 429": (status(429, b"{}", retry_after=7), "overloaded"),
    "answers 429 with a strange pause": (status(429, b"{}", retry_after="9" * 5000), "overloaded"),
    "answers 500": (status(500, b"{}"), "server_error"),
    "answers 503": (status(503, b"{}", retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), "server_error"),
}


def assert_defaults(many: list[Any], ids: list[str], reason: str) -> None:
    assert [one.subscriber_id for one in many] == ids
    assert {one.status for one in many} == {"fallback"}
    assert {one.fallback_reason for one in many} == {reason}
    for one in many:
        assert (one.churn, one.lead_score, one.send_time) == (DEFAULTS.churn, DEFAULTS.lead_score, DEFAULTS.send_time)
        assert one.defaulted == ("churn", "lead_score", "send_time")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_service_that(fault: str, connect: Connect) -> None:
    behaviour, reason = FAULTS[fault]
    with serving(behaviour) as service:
        client = connect(service.url, deadline_ms=DEADLINE_MS, defaults=DEFAULTS)
        began = time.monotonic()
        many = client.scores(["s1", "s2"])
        took_ms = 1000 * (time.monotonic() - began)
    assert_defaults(many, ["s1", "s2"], reason)
    assert took_ms < SLACK * DEADLINE_MS
    assert client.stats.fallbacks == {reason: 2}
    assert client.stats.scored == 0


def test_nobody_listening_is_a_fallback(connect: Connect) -> None:
    client = connect(nowhere(), deadline_ms=DEADLINE_MS, defaults=DEFAULTS)
    assert_defaults(client.scores(["s1"]), ["s1"], "connection")


def test_a_name_nobody_knows_is_a_fallback(connect: Connect) -> None:
    client = connect("http://no-such-host.invalid", deadline_ms=1000, defaults=DEFAULTS)
    assert client.score("s1").fallback_reason in ("connection", "time_out")


@contextmanager
def deaf(host: str, port: int) -> Iterator[int]:
    """A port where no connection is taken up, because the queue is full: as behind a firewall that drops packets."""
    with socket.create_server((host, port), backlog=0) as listener, ExitStack() as fillers:
        for _ in range(8):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_service_that_accepts_nothing_is_a_fallback_in_time(connect: Connect) -> None:
    with deaf("127.0.0.1", 0) as port:
        client = connect(f"http://127.0.0.1:{port}", deadline_ms=DEADLINE_MS, defaults=DEFAULTS)
        began = time.monotonic()
        assert_defaults(client.scores(["s1"]), ["s1"], "time_out")
        assert time.monotonic() - began < SLACK * DEADLINE_MS / 1000


def test_names_that_take_for_ever_to_find_do_not_hold_up_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # The resolver is the machine's: it cannot be made slow from outside.
    ended = threading.Event()

    def never(*asked: object, **more: object) -> None:
        ended.wait(30)
        raise OSError

    monkeypatch.setattr(wire_module, "getaddrinfo", never)
    began = time.monotonic()
    with ScoresClient("http://service.invalid", KEY, deadline_ms=DEADLINE_MS) as client:
        assert client.score("s1").fallback_reason == "time_out"
    assert time.monotonic() - began < SLACK * DEADLINE_MS / 1000
    ended.set()


def test_an_address_that_is_dead_does_not_keep_the_next_one_from_being_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(well) as service, deaf("127.0.0.2", service.port):
        both = [(0, 0, 0, "", (host, service.port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(wire_module, "getaddrinfo", lambda *asked, **more: both)
        with ScoresClient(f"http://service.invalid:{service.port}", KEY, deadline_ms=1000) as client:
            assert client.score("s1").status == "ok"


def test_tls_spoken_to_a_service_without_it_is_a_fallback(connect: Connect) -> None:
    with serving(hangs) as service:
        client = connect(
            service.url.replace("http:", "https:"),
            deadline_ms=DEADLINE_MS,
            defaults=DEFAULTS,
            ssl_context=ssl.create_default_context(),
        )
        began = time.monotonic()
        assert client.score("s1").fallback_reason in ("time_out", "connection")
        assert time.monotonic() - began < SLACK * DEADLINE_MS / 1000


def test_an_answer_that_is_zipped_is_read(connect: Connect) -> None:
    with serving(zipped) as service:
        assert connect(service.url).score("s1").status == "ok"


@pytest.mark.parametrize(
    ("model", "field", "wrong"),
    [
        ("churn", "probability", math.nan),
        ("churn", "probability", 1.5),
        ("churn", "probability", True),
        ("churn", "probability", "0.2"),
        ("churn", "probability", 10**400),
        ("churn", "band", "enormous"),
        ("churn", "band", ["low"]),
        ("churn", "percentile", 31.0),
        ("churn", "percentile", None),
        ("churn", "reasons", "opened often"),
        ("churn", "reasons", ["half \ud800 a character"]),
        ("lead_score", "score", 101),
        ("lead_score", "grade", "F"),
        ("lead_score", "probability", -math.inf),
        ("send_time", "send_at", "2026-11-24T07:00:00"),
        ("send_time", "send_at", "0001-01-01T00:00:00+14:00"),
        ("send_time", "send_at", 1_800_000_000),
        ("send_time", "gain", math.inf),
        ("send_time", "gain", 10**400),
        ("send_time", "gain_interval", [0.1]),
        ("send_time", "gain_interval", {"low": 0, "high": 1}),
        ("send_time", "gain_interval", [math.nan, 1]),
        ("send_time", "confident", 1),
        ("send_time", "hour_of_week", 168),
        ("send_time", "arm", "fallback"),
    ],
)
def test_one_wrong_value_costs_its_model_and_nothing_else(model: str, field: str, wrong: Any) -> None:
    with (
        serving(row_with(**{model: EXAMPLE[model] | {field: wrong}})) as service,
        ScoresClient(service.url, KEY, deadline_ms=5000, defaults=DEFAULTS) as client,
    ):
        one = client.score("s1")
    assert (one.status, one.defaulted) == ("ok", (model,))
    assert getattr(one, model) == getattr(DEFAULTS, model)


@pytest.mark.parametrize("wrong", [{}, [], "low", 7, None, True, [EXAMPLE["churn"]]])
def test_a_model_that_answers_in_no_form_we_know_is_the_default(wrong: Any) -> None:
    with serving(row_with(churn=wrong)) as service, ScoresClient(service.url, KEY, deadline_ms=5000) as client:
        assert client.score("s1").defaulted == ("churn",)


def test_what_a_newer_service_adds_is_passed_over(connect: Connect) -> None:
    newer = row_with(churn=EXAMPLE["churn"] | {"half_life": 3}, mood={"probability": 0.3})
    with serving(newer) as service:
        one = connect(service.url).score("s1")
    assert (one.status, one.defaulted, one.churn.band) == ("ok", (), "high")


def test_rows_in_another_order_reach_whom_they_name(connect: Connect) -> None:
    def turned(asked: Asked) -> bytes:
        content = json.loads(answer(asked))
        for row in content["scores"]:
            row["feature_age_s"] = int(row["subscriber_id"])
        return http(200, json.dumps(content | {"scores": content["scores"][::-1]}).encode())

    with serving(says(turned)) as service:
        assert [one.feature_age_s for one in connect(service.url).scores(range(5))] == [0, 1, 2, 3, 4]


def test_whoever_the_answer_leaves_out_is_a_fallback_and_nobody_else(connect: Connect) -> None:
    def without_the_second(asked: Asked) -> bytes:
        content = json.loads(answer(asked))
        del content["scores"][1]
        return http(200, json.dumps(content).encode())

    with serving(says(without_the_second)) as service:
        client = connect(service.url)
        many = client.scores(["s1", "s2", "s3"])
    assert [one.status for one in many] == ["ok", "fallback", "ok"]
    assert many[1].fallback_reason == "unanswered"


class Broken(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A way to the service that fails as nothing in httpx does."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise RuntimeError("unforeseen")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise RuntimeError("unforeseen")


def test_a_transport_that_fails_in_its_own_way_is_a_fallback(connect: Connect) -> None:
    assert connect("http://service.invalid", transport=Broken()).score("s1").status == "fallback"


def test_a_closed_client_gives_the_defaults(connect: Connect) -> None:
    with serving(well) as service:
        client = connect(service.url)
        client.close()
        assert client.score("s1").fallback_reason == "closed"
        assert service.asked == []


def test_cancelling_a_task_cancels_it_and_leaves_the_client_well() -> None:
    async def run(url: str) -> None:
        async with AsyncScoresClient(url, KEY, deadline_ms=5000, breaker_failures=1) as client:
            asking = asyncio.create_task(client.score("s1"))
            await asyncio.sleep(0.05)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            service.behaviour = well
            assert (await client.score("s2")).status == "ok"

    with serving(hangs) as service:
        asyncio.run(run(service.url))
