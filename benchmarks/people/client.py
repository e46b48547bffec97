"""What the client costs over a bare httpx call with the same body to the same server, and when it has given up.

What enters: a ``Bench``. What leaves: times and ratios. The promise: both take turns call by call on one kept connection
each, every call is answered 200 by the real service, and the bare call also parses its JSON in its second row: the client
reads every value, so that is the nearest thing with the same use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from statistics import median

import httpx
import orjson
from inbox_client import AsyncScoresClient, ScoresClient, SubscriberScores

from benchmarks.people.bench import Bench
from benchmarks.people.lists import people_of
from benchmarks.people.service import Killable, killable
from benchmarks.report import Measured
from pipelines.serve import free_port

SIZES = {"one subscriber": (1, 200), "1,000 subscribers": (1_000, 20)}
"""Ids a call, and calls a round of each contender."""
DEADLINE_MS = 10_000.0
OPEN_CALLS = 2_000

Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]


def overhead(bench: Bench) -> Measured:
    """Sync and async, one and a thousand; and a call while the service is known to be away."""
    measured = Measured("overhead", "The client, beside httpx with the same body")
    ids = people_of(bench.home)["subscriber_id"].to_pylist()
    with killable(bench.home, bench.work / "service.log") as service:
        for words, (size, calls) in SIZES.items():
            asked = ids[:size]
            with bench.narrator.step(words):
                _sync(measured, words, service, asked, calls // 4 if bench.quick else calls, bench.rounds)
                asyncio.run(_async(measured, words, service, asked, calls // 4 if bench.quick else calls, bench.rounds))
    _open(measured, bench.rounds, ids[:1_000])
    return measured


def _sync(measured: Measured, words: str, service: Killable, ids: Sequence[str], calls: int, rounds: int) -> None:
    with (
        ScoresClient(service.url, service.key, deadline_ms=DEADLINE_MS) as client,
        httpx.Client(base_url=service.url, headers=_headers(service)) as bare,
    ):
        body = _body(ids)
        ask = partial(client.score, ids[0]) if len(ids) == 1 else partial(client.scores, ids)
        contenders: dict[str, Call] = {
            "bare": lambda: _bytes_of(bare.post("/v1/scores", content=body)),
            "parsed": lambda: bare.post("/v1/scores", content=body).json()["scores"],
            "client": lambda: _scored(ask()),
        }
        _note(measured, words, [_turns(contenders, calls) for _ in range(rounds + 1)][1:])


async def _async(
    measured: Measured, words: str, service: Killable, ids: Sequence[str], calls: int, rounds: int
) -> None:
    async with (
        AsyncScoresClient(service.url, service.key, deadline_ms=DEADLINE_MS) as client,
        httpx.AsyncClient(base_url=service.url, headers=_headers(service)) as bare,
    ):
        body = _body(ids)

        async def bytes_of() -> object:
            return _bytes_of(await bare.post("/v1/scores", content=body))

        async def parsed() -> object:
            return (await bare.post("/v1/scores", content=body)).json()["scores"]

        async def ours() -> object:
            return _scored(await (client.score(ids[0]) if len(ids) == 1 else client.scores(ids)))

        contenders: dict[str, AsyncCall] = {"bare": bytes_of, "parsed": parsed, "client": ours}
        _note(measured, f"{words}, async", [await _async_turns(contenders, calls) for _ in range(rounds + 1)][1:])


def _turns(contenders: dict[str, Call], calls: int) -> dict[str, float]:
    """Each one's median milliseconds; they take turns, each of them first as often."""
    took: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(calls):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begun = time.perf_counter()
            contenders[name]()
            took[name].append(1000 * (time.perf_counter() - begun))
    return {name: median(values) for name, values in took.items()}


async def _async_turns(contenders: dict[str, AsyncCall], calls: int) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(calls):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begun = time.perf_counter()
            await contenders[name]()
            took[name].append(1000 * (time.perf_counter() - begun))
    return {name: median(values) for name, values in took.items()}


def _note(measured: Measured, words: str, rounds: list[dict[str, float]]) -> None:
    bare, parsed, ours = ([one[name] for one in rounds] for name in ("bare", "parsed", "client"))
    measured.add(f"{words}, client", ours, "ms")
    measured.add(f"{words}, httpx, body left as bytes", bare, "ms")
    measured.add(f"{words}, httpx, JSON parsed", parsed, "ms")
    measured.add(f"{words}, client more than httpx", [o - b for o, b in zip(ours, bare, strict=True)], "ms")
    measured.ratio(f"{words}, client over httpx", ours, bare)
    measured.ratio(f"{words}, client over httpx with JSON parsed", ours, parsed)


def _open(measured: Measured, rounds: int, ids: Sequence[str]) -> None:
    """Nobody is at that address: after five calls nobody is asked."""
    with ScoresClient(f"http://127.0.0.1:{free_port()}", "nobody-checks-this", breaker_pause_s=60.0) as client:
        for _ in range(10):
            client.score(ids[0])
        one = [_each_us(partial(client.score, ids[0]), OPEN_CALLS) for _ in range(rounds)]
        many = [_each_us(partial(client.scores, ids), OPEN_CALLS // 100) for _ in range(rounds)]
    measured.add("breaker open, one subscriber", one, "µs")
    measured.add("breaker open, 1,000 subscribers", many, "µs")


def _each_us(call: Call, calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return 1e6 * (time.perf_counter() - begun) / calls


def _headers(service: Killable) -> dict[str, str]:
    return {"authorization": f"Bearer {service.key}", "content-type": "application/json"}


def _body(ids: Sequence[str]) -> bytes:
    return orjson.dumps({"subscriber_ids": ids, "models": ["churn", "lead_score", "send_time"]})


def _bytes_of(answer: httpx.Response) -> bytes:
    if answer.status_code != httpx.codes.OK:
        raise RuntimeError(f"the service answered {answer.status_code}")
    return answer.content


def _scored(found: SubscriberScores | list[SubscriberScores]) -> object:
    listed = found if isinstance(found, list) else [found]
    if any(one.status == "fallback" for one in listed):
        raise RuntimeError(f"the client fell back: {listed[0].fallback_reason}")
    return found
