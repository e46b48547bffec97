"""The guard before a real server: who is let in, what is refused and how, and that nothing sent comes back."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from features import errors
from features.errors import MalformedRequest, Overloaded, RequestError
from serving.guard import route_of
from serving.problems import STATUS, problem
from tests.serving.stand_in import FixedScorer, Front, front, serving

CANARY = "anna@example.org"
ONE = {"subscriber_ids": ["s1"]}


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Front]:
    behind = front(tmp_path, body_limit_bytes=10_000, body_deadline_s=0.3)
    yield behind
    behind.close()


@pytest.fixture
def url(behind: Front) -> Iterator[str]:
    with serving(behind.guard) as url:
        yield url


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= said.keys()
    assert said["status"] == answer.status_code
    return (answer.status_code, said["code"]) == (status, code)


def concrete(kind: type[RequestError]) -> list[type[RequestError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in concrete(child))]


def test_every_error_a_caller_can_cause_has_a_status_and_no_other_has() -> None:
    kinds = [kind for kind in concrete(RequestError) if kind is not RequestError]
    assert {kind.code for kind in kinds} == set(STATUS)
    assert all(hasattr(errors, kind.__name__) for kind in kinds)
    assert sorted(STATUS.values()) == [400, 401, 401, 404, 404, 408, 409, 413, 415, 429, 503, 503]


def test_a_known_key_is_let_in(behind: Front, url: str) -> None:
    assert httpx.post(f"{url}/v1/scores", json=ONE, headers=behind.headers).status_code == 200
    shouted = {"authorization": behind.headers["authorization"].replace("Bearer", "BEARER")}
    assert httpx.post(f"{url}/v1/scores", json=ONE, headers=shouted).status_code == 200


@pytest.mark.parametrize(
    "sent", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic {key}", "{key}", "Bearer {key}x"]
)
@pytest.mark.parametrize("path", ["/v1/scores", "/v1/scores/s1", "/schema.json", "/nothing"])
def test_without_a_known_key_there_is_nothing_to_see(behind: Front, url: str, sent: str | None, path: str) -> None:
    headers = {} if sent is None else {"authorization": sent.format(key=behind.key).strip()}
    answer = httpx.get(url + path, headers=headers)
    assert is_problem(answer, 401, "unknown_key")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_probes_and_docs_need_no_key_and_docs_can_be_closed(tmp_path: Path) -> None:
    for docs_open, expected in ((True, 200), (False, 401)):
        behind = front(tmp_path / str(docs_open), docs_open=docs_open)
        with serving(behind.guard) as url:
            assert httpx.get(f"{url}/metrics").status_code == 200
            assert httpx.get(f"{url}/").status_code == expected
        behind.close()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/vnd.bentoml+pickle"},
        {"content-type": "application/json5"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_only_json_is_read(behind: Front, url: str, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{url}/v1/scores", content=b'{"subscriber_ids": ["s1"]}', headers=headers | behind.headers)
    assert is_problem(answer, 415, "not_json")


def test_json_may_name_its_charset(behind: Front, url: str) -> None:
    headers = behind.headers | {"content-type": "Application/JSON; charset=utf-8"}
    assert httpx.post(f"{url}/v1/scores", content=b'{"subscriber_ids": ["s1"]}', headers=headers).status_code == 200


def test_a_body_too_large_is_refused_announced_or_not_and_the_connection_lives_on(behind: Front, url: str) -> None:
    large = b" " * 5_000_000
    headers = behind.headers | {"content-type": "application/json"}
    with httpx.Client(base_url=url, headers=headers) as client:
        assert is_problem(client.post("/v1/scores", content=large), 413, "body_too_large")
        assert is_problem(client.post("/v1/scores", content=iter([large[:6_000]] * 3)), 413, "body_too_large")
        assert client.post("/v1/scores", json=ONE).status_code == 200
        exact = b'{"subscriber_ids": ["s1"]}'.ljust(10_000)
        assert client.post("/v1/scores", content=exact).status_code == 200


def assert_soon(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not met() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert met()


def raw_request(behind: Front, body: bytes, announced: int) -> bytes:
    head = f"POST /v1/scores HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {behind.key}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {announced}\r\n\r\n".encode() + body


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5)


def test_a_body_that_dawdles_is_cut_off_at_the_deadline(behind: Front, url: str) -> None:
    with connected(url) as line:
        started = time.monotonic()
        line.sendall(raw_request(behind, b'{"subscriber_ids"', 100))
        received = b"".join(iter(lambda: line.recv(65_536), b""))
    assert received.startswith(b"HTTP/1.1 408") and b"slow_body" in received
    assert 0.3 <= time.monotonic() - started < 3


def test_half_sent_bodies_take_nobodys_place(tmp_path: Path) -> None:
    behind = front(tmp_path, max_in_flight=1, body_deadline_s=5)
    with serving(behind.guard) as url:
        lines = [connected(url) for _ in range(20)]
        for line in lines:
            line.sendall(raw_request(behind, b'{"sub', 100))
        assert httpx.post(f"{url}/v1/scores", json=ONE, headers=behind.headers).status_code == 200
        for line in lines:
            line.close()
    behind.close()
    assert behind.guard.admission.in_flight == 0


def test_large_bodies_on_their_way_are_bounded_together_and_keep_no_small_one_out(tmp_path: Path) -> None:
    behind = front(tmp_path, max_in_flight=8, body_limit_bytes=50_000, body_deadline_s=5)
    large = b'{"subscriber_ids": ["s1"]}'.ljust(45_000)
    with serving(behind.guard) as url:
        lines = [connected(url) for _ in range(2)]
        for line in lines:
            line.sendall(raw_request(behind, large, 50_000))
        assert_soon(lambda: behind.guard.questions.arriving_bytes == 90_000)
        headers = behind.headers | {"content-type": "application/json"}
        assert is_problem(httpx.post(f"{url}/v1/scores", content=large, headers=headers), 429, "overloaded")
        assert httpx.post(f"{url}/v1/scores", json=ONE, headers=behind.headers).status_code == 200
        for line in lines:
            line.close()
        assert_soon(lambda: behind.guard.questions.arriving_bytes == 0)
        assert httpx.post(f"{url}/v1/scores", content=large, headers=headers).status_code == 200
    behind.close()


def test_who_hangs_up_is_counted_and_forgotten(behind: Front, url: str) -> None:
    with connected(url) as line:
        line.sendall(raw_request(behind, b'{"sub', 100))
        time.sleep(0.1)
    assert_soon(lambda: behind.guard.meters.requests["POST", "/v1/scores", "499"] == 1)


def test_more_than_allowed_at_once_is_shed_with_a_time_to_return(tmp_path: Path) -> None:
    inside, leave = Event(), Event()

    def wait(columns: dict[str, Any]) -> None:
        inside.set()
        leave.wait(10)

    behind = front(tmp_path, FixedScorer(spoil=wait), max_in_flight=1)
    many = {"subscriber_ids": [f"s{i}" for i in range(100)]}
    with serving(behind.guard) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{url}/v1/scores", json=many, headers=behind.headers)
        assert inside.wait(5)
        started = time.monotonic()
        shed = httpx.post(f"{url}/v1/scores", json=ONE, headers=behind.headers)
        assert httpx.get(f"{url}/metrics").status_code == 200
        assert time.monotonic() - started < 1
        leave.set()
        assert first.result().status_code == 200
        assert httpx.post(f"{url}/v1/scores", json=ONE, headers=behind.headers).status_code == 200
    assert is_problem(shed, 429, "overloaded")
    assert shed.headers["retry-after"] == "1"
    behind.close()


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers at once."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def test_whoever_arrives_in_one_turn_of_the_loop_is_counted_before_anybody_is_served(tmp_path: Path) -> None:
    behind = front(tmp_path, app=hello, max_in_flight=4)
    headers = [(b"authorization", behind.headers["authorization"].encode())]
    answered: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        answered.extend([message["status"]] if "status" in message else [])

    async def arrive(count: int) -> None:
        scope = {"type": "http", "method": "GET", "path": "/v1/scores/s1", "headers": headers}
        await asyncio.gather(*(behind.guard(dict(scope), receive, send) for _ in range(count)))

    asyncio.run(arrive(10))
    assert sorted(answered) == [200] * 4 + [429] * 6
    assert behind.guard.meters.shed == Counter(send=6)
    asyncio.run(arrive(4))
    assert answered[10:] == [200] * 4
    behind.close()


@pytest.mark.parametrize("count", [1, 100])
def test_a_defect_inside_is_a_problem_at_once_and_says_nothing(
    tmp_path: Path, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(columns: dict[str, Any]) -> None:
        raise ValueError(f"cannot score {columns['subscriber_id']}")

    behind = front(tmp_path, FixedScorer(spoil=fail))
    with serving(behind.guard) as url, caplog.at_level(logging.DEBUG):
        started = time.monotonic()
        asked = {"subscriber_ids": [CANARY] * count}
        answer = httpx.post(f"{url}/v1/scores", json=asked, headers=behind.headers)
        assert time.monotonic() - started < 2
        assert httpx.get(f"{url}/v1/scores/{CANARY}", headers=behind.headers).status_code == 500
    assert is_problem(answer, 500, "internal_server_error")
    assert CANARY not in answer.text and "cannot score" not in answer.text
    logged = [record.getMessage() for record in caplog.records if record.name == "inbox.guard"]
    assert len(logged) == 2
    assert logged[0].startswith("ValueError at ") and answer.json()["request_id"] in logged[0]
    assert not any(CANARY in record.getMessage() for record in caplog.records if record.name.startswith("inbox"))
    assert not any(record.name.startswith("uvicorn") for record in caplog.records)
    assert behind.guard.admission.in_flight == 0
    behind.close()


def test_log_lines_and_metrics_name_routes_never_ids(behind: Front, url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="inbox"):
        httpx.get(f"{url}/v1/scores/{CANARY}?campaign_id={CANARY}", headers=behind.headers)
        httpx.get(f"{url}/v1/scores/{CANARY}?window_hours={CANARY}", headers=behind.headers)
        httpx.get(f"{url}/v1/scores/{CANARY}", headers={"authorization": f"Bearer {CANARY}"})
        httpx.post(f"{url}/v1/scores", json={"subscriber_ids": [CANARY, 1]}, headers=behind.headers)
        httpx.request("PROPFIND", f"{url}/{CANARY}", headers=behind.headers)
        metrics = httpx.get(f"{url}/metrics").text
    assert CANARY not in caplog.text and CANARY not in metrics and "PROPFIND" not in metrics
    lines = [record.getMessage() for record in caplog.records if record.name == "inbox.access"]
    assert [line.split(" ms ")[0].rsplit(" ", 1)[0] for line in lines] == [
        "GET /v1/scores/{subscriber_id} 200",
        "GET /v1/scores/{subscriber_id} 400",
        "GET /v1/scores/{subscriber_id} 401",
        "POST /v1/scores 400",
        "other other 404",
    ]
    assert 'inbox_requests_total{method="GET",route="/v1/scores/{subscriber_id}",status="200"} 1.0' in metrics
    assert 'inbox_request_seconds_count{route="/v1/scores/{subscriber_id}"} 3.0' in metrics
    assert 'inbox_scores_total{status="ok"} 1.0' in metrics


def test_who_is_shed_is_counted_and_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    behind = front(tmp_path, max_in_flight=1)
    behind.guard.admission.taken["send"] = 1
    with serving(behind.guard) as url, caplog.at_level(logging.DEBUG, logger="inbox"):
        assert httpx.get(f"{url}/v1/scores/s1", headers=behind.headers).status_code == 429
        metrics = httpx.get(f"{url}/metrics").text
    assert 'inbox_shed_total{class="send"} 1.0' in metrics and 'status="429"} 1.0' in metrics
    assert not [record for record in caplog.records if record.name == "inbox.access"]
    behind.close()


MALFORMED: dict[str, tuple[bytes, str]] = {
    "unknown field": (b'{"subscriber_ids": ["s1"], "colour": "CANARY"}', "colour"),
    "NaN": (b'{"subscriber_ids": ["s1"], "context": {"window_hours": NaN}}', "context.window_hours"),
    "NaN for an id": (b'{"subscriber_ids": ["CANARY", NaN]}', "subscriber_ids[1]"),
    "Infinity": (b'{"subscriber_ids": ["s1"], "context": {"quiet_hours": [-Infinity, 7]}}', "context.quiet_hours[0]"),
    "huge number": (b'{"subscriber_ids": ["s1"], "context": {"window_hours": 1e999}}', "context.window_hours"),
    "huge integer": (b'{"subscriber_ids": [%s]}' % (b"9" * 2_000), "subscriber_ids[0]"),
    "integer for a text": (b'{"subscriber_ids": ["s1"], "context": {"campaign_id": 7}}', "context.campaign_id"),
    "text for a truth": (b'{"subscriber_ids": ["s1"], "explain": "CANARY"}', "explain"),
    "control character": (b'{"subscriber_ids": ["CANARY\\u0007"]}', "subscriber_ids[0]"),
    "bare control character": (b'{"subscriber_ids": ["CANARY\x01"]}', "body"),
    "lone surrogate": (b'{"subscriber_ids": ["CANARY\\udc00"]}', "body"),
    "encoded surrogate": (b'{"subscriber_ids": ["CANARY\xed\xa0\x80"]}', "body"),
    "deep": (b"[" * 9_900, "body"),
    "deep inside": (b'{"subscriber_ids": ["s1"], "context": ' + b'{"CANARY":' * 800, "body"),
    "byte order mark": (b'\xef\xbb\xbf{"subscriber_ids": ["CANARY"]}', "body"),
    "UTF-16": ('{"subscriber_ids": ["CANARY"]}'.encode("utf-16"), "body"),
    "two documents": (b'{"subscriber_ids": ["CANARY"]}{}', "body"),
    "nothing": (b"", "body"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_by_field_and_never_repeated(behind: Front, url: str, name: str) -> None:
    body, field = MALFORMED[name]
    headers = behind.headers | {"content-type": "application/json"}
    answer = httpx.post(f"{url}/v1/scores", content=body, headers=headers)
    assert is_problem(answer, 400, "malformed_request")
    assert answer.json()["field"] == field
    # The request's own random id may hold any digits.
    said = answer.text.replace(answer.json()["request_id"], "")
    assert "CANARY" not in said and "999" not in said


def test_errors_of_others_leave_as_problems_too(behind: Front, url: str) -> None:
    assert is_problem(httpx.get(f"{url}/nothing", headers=behind.headers), 404, "not_found")
    wrong_method = httpx.put(f"{url}/v1/scores", json=ONE, headers=behind.headers)
    assert is_problem(wrong_method, 405, "method_not_allowed")
    assert wrong_method.headers["allow"] == "POST"


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that forgets to answer."""


async def halfway(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that fails in the middle of its answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"12345", "more_body": True})
    raise RuntimeError(CANARY)


def test_an_application_that_forgets_to_answer_does_not_leave_the_caller_hanging(tmp_path: Path) -> None:
    behind = front(tmp_path, app=silent)
    with serving(behind.guard) as url:
        assert is_problem(httpx.get(f"{url}/livez", timeout=2), 500, "internal_server_error")
    behind.close()


async def asleep(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that never answers."""
    await asyncio.sleep(3_600)


async def out_of_time(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that lets somebody else's time-out through."""
    raise TimeoutError(CANARY)


def test_what_hangs_is_ended_at_the_deadline(tmp_path: Path) -> None:
    behind = front(tmp_path, app=asleep, answer_deadline_s=0.2)
    with serving(behind.guard) as url:
        answer = httpx.post(f"{url}/v1/scores", json=ONE, headers=behind.headers, timeout=2)
    assert is_problem(answer, 504, "gateway_timeout")
    assert behind.guard.admission.in_flight == 0
    behind.close()


def test_a_time_out_that_is_not_ours_is_a_defect(tmp_path: Path) -> None:
    behind = front(tmp_path, app=out_of_time)
    with serving(behind.guard) as url:
        assert is_problem(httpx.get(f"{url}/livez", timeout=2), 500, "internal_server_error")
    behind.close()


def test_an_answer_that_breaks_off_is_cut_not_mended(tmp_path: Path) -> None:
    behind = front(tmp_path, app=halfway)
    with serving(behind.guard) as url, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url}/livez", timeout=2)
    behind.close()


def test_websockets_are_turned_away(behind: Front) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(behind.guard({"type": "websocket", "path": "/v1/scores"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_routes_are_few_whatever_is_asked_for() -> None:
    asked = ("/v1/scores", "/v1/scores/", "/v1/scores/a/b", "/v1/scoresx", "/livez", "/livez/x", "/static_content/a.js")
    assert [route_of(path) for path in asked] == [
        "/v1/scores",
        "/v1/scores/{subscriber_id}",
        "/v1/scores/{subscriber_id}",
        "other",
        "/livez",
        "other",
        "/static_content/",
    ]


def test_a_problem_names_the_field_and_the_time_to_return() -> None:
    malformed = problem(MalformedRequest("context.window_hours", "should be less"), "r1")
    assert b'"field":"context.window_hours"' in malformed.body
    assert (b"retry-after", b"7") in problem(Overloaded(7), "r1").headers
