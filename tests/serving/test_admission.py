"""Who is let in and by when they are answered: real requests before a real server, more of them than it can take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from math import inf
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import orjson
import pyarrow.parquet as pq
import pytest

from features.errors import MalformedRequest, Overloaded
from serving.admission import FEW_IDS, MAX_DEADLINE_MS, SMALL_BODY, Admission, Pace, Place, class_of, read_deadline
from serving.answers import Scores
from serving.meters import Meters
from serving.schemas import ScoreRequest, ScoreResponse
from tests.serving.stand_in import FixedScorer, Front, front, serving

CANARY = "anna@example.org"
ONE = {"subscriber_ids": ["s1"]}
MANY = {"subscriber_ids": [f"s{i}" for i in range(100)]}
Ask = Callable[..., httpx.Response]


class Gate:
    """A ``spoil`` that holds requests for many until it is opened."""

    def __init__(self) -> None:
        self.reached, self.open = Event(), Event()

    def __call__(self, columns: dict[str, Any]) -> None:
        if len(columns["subscriber_id"]) > FEW_IDS:
            self.reached.set()
            self.open.wait(10)


def taking(seconds: float) -> Callable[[dict[str, Any]], None]:
    """A ``spoil`` that takes its time, for requests for many."""
    return lambda columns: time.sleep(seconds) if len(columns["subscriber_id"]) > FEW_IDS else None


@contextmanager
def asking(home: Path, spoil: Callable[[dict[str, Any]], None], **settings: Any) -> Iterator[tuple[Front, Ask]]:
    """A server, and a way to ask it that any thread may use."""
    behind = front(home, FixedScorer(spoil=spoil), **settings)
    limits = httpx.Limits(max_connections=None)
    with (
        serving(behind.guard) as url,
        httpx.Client(base_url=url, headers=behind.headers, timeout=20, limits=limits) as client,
    ):

        def ask(body: dict[str, Any] = ONE, deadline_ms: object = None) -> httpx.Response:
            headers: dict[str, Any] = (
                {} if deadline_ms is None else {"x-deadline-ms": str(deadline_ms).encode("latin-1")}
            )
            return client.post("/v1/scores", json=body, headers=headers)

        yield behind, ask
    behind.close()


def logged(home: Path) -> Counter[str]:
    """Rows of each request in the prediction log."""
    paths = (home / "var" / "predictions").glob("*.parquet")
    return Counter(row for path in paths for row in pq.read_table(path)["request_id"].to_pylist())


def is_shed(answer: httpx.Response) -> bool:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"].isdigit() and int(answer.headers["retry-after"]) >= 1
    return (answer.status_code, answer.json()["code"]) == (429, "overloaded")


def statuses(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200
    ScoreResponse.model_validate_json(answer.content)
    return {row["status"] for row in answer.json()["scores"]}


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_bulk_beyond_its_bound_is_shed_while_sends_are_answered_and_let_in_again_afterwards(tmp_path: Path) -> None:
    gate = Gate()
    with asking(tmp_path, gate, max_in_flight=16) as (behind, ask), ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, MANY) for _ in range(4)]
        until(lambda: behind.guard.admission.taken["bulk"] == 4)
        started = time.monotonic()
        shed = ask(MANY)
        assert is_shed(shed)
        assert statuses(ask()) == {"ok"}
        assert time.monotonic() - started < 3
        gate.open.set()
        assert [statuses(answer.result()) for answer in waiting] == [{"ok"}] * 4
        assert statuses(ask(MANY)) == {"ok"}
        until(lambda: behind.guard.admission.in_flight == 0)
        assert behind.guard.admission.waiting_s == pytest.approx(0, abs=1e-9)
        meters = behind.guard.meters
        assert (meters.admitted, meters.shed) == (
            {"send": 1, "bulk": 5, "events": 0},
            {"send": 0, "bulk": 1, "events": 0},
        )
        assert b'inbox_shed_total{class="bulk"} 1.0' in meters.to_text()
    assert sum(logged(tmp_path).values()) == 3 * (5 * len(MANY["subscriber_ids"]) + 1)
    assert shed.json()["request_id"] not in logged(tmp_path)


def test_what_waits_is_bounded_by_how_long_it_will_take(tmp_path: Path) -> None:
    with asking(tmp_path, taking(0.2), bulk_wait_s=0.3) as (_, ask), ThreadPoolExecutor(8) as pool:
        assert statuses(ask(MANY)) == {"ok"}
        answers = [answer.result() for answer in [pool.submit(ask, MANY) for _ in range(8)]]
        let_in = [answer for answer in answers if answer.status_code == 200]
        assert 2 <= len(let_in) <= 4
        assert all(is_shed(answer) for answer in answers if answer not in let_in)


def test_overload_costs_little_of_what_is_done_and_nobody_an_error(tmp_path: Path) -> None:
    """Three times as much as can be done, for a second: the thread keeps working, and no send is turned away."""
    taken_s = 0.05
    with asking(tmp_path, taking(taken_s), bulk_wait_s=0.2) as (_, ask), ThreadPoolExecutor(16) as pool:
        assert statuses(ask(MANY)) == {"ok"}
        started, asked = time.monotonic(), list[Future[httpx.Response]]()
        while time.monotonic() - started < 1:
            asked.append(pool.submit(ask, MANY))
            asked.append(pool.submit(ask))
            time.sleep(taken_s / 3)
        answers = [answer.result() for answer in asked]
        elapsed = time.monotonic() - started
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(answer.status_code == 200 for answer in answers[1::2])
    done = sum(answer.status_code == 200 for answer in answers[::2])
    assert done >= 0.3 * elapsed / taken_s
    assert done < len(answers[::2])


def test_a_large_body_is_turned_away_unread_when_bulk_has_no_place(tmp_path: Path) -> None:
    gate = Gate()
    large = {"subscriber_ids": [f"{i:0>256}" for i in range(20)]}
    assert len(orjson.dumps(large)) > SMALL_BODY
    with asking(tmp_path, gate, max_in_flight=8) as (behind, ask), ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, large) for _ in range(2)]
        until(lambda: behind.guard.admission.taken["bulk"] == 2)
        assert is_shed(ask(large))
        gate.open.set()
        assert [statuses(answer.result()) for answer in waiting] == [{"ok"}] * 2


def test_few_subscribers_with_long_ids_hold_a_send_place_once_they_are_counted(tmp_path: Path) -> None:
    long = {"subscriber_ids": [f"{i:\N{GRINNING FACE}>256}" for i in range(FEW_IDS)]}
    assert len(orjson.dumps(long)) > SMALL_BODY
    with asking(tmp_path, taking(0)) as (behind, ask):
        assert statuses(ask(long)) == {"ok"}
        assert behind.guard.meters.admitted == {"send": 1, "bulk": 0, "events": 0}


def test_reasons_are_bulk_whoever_asks() -> None:
    assert [class_of(1, False), class_of(FEW_IDS, False), class_of(FEW_IDS + 1, False), class_of(1, True)] == [
        "send",
        "send",
        "bulk",
        "bulk",
    ]


@pytest.mark.parametrize("body", [ONE, MANY])
def test_a_deadline_long_enough_changes_nothing_but_bounds_the_scorer(tmp_path: Path, body: dict[str, Any]) -> None:
    with asking(tmp_path, taking(0)) as (behind, ask):
        assert statuses(ask(body)) == {"ok"}
        assert statuses(ask(body, 5_000)) == {"ok"}
        assert isinstance(behind.engine.scorer, FixedScorer)
        without, within = behind.engine.scorer.budgets
        assert without is None
        assert within is not None and 4 < within < 5


def test_a_send_that_would_be_late_gets_priors_at_once_and_scores_again_when_it_would_not(tmp_path: Path) -> None:
    with asking(tmp_path, taking(0)) as (behind, ask):
        pace = behind.engine.together.pace
        pace.learn(1_000, 100)
        assert statuses(ask(ONE, 90)) == {"prior"}
        assert statuses(ask(ONE)) == {"ok"}
        pace.learn(1_000, 100)
        until(lambda: statuses(ask(ONE, 90)) == {"ok"})
        degraded = behind.guard.meters.degraded
        assert degraded["send"] >= 2 and not degraded["bulk"]
        assert f'inbox_degraded_total{{class="send"}} {degraded["send"]}.0'.encode() in behind.guard.meters.to_text()


def test_a_bulk_that_overruns_its_deadline_gets_priors_in_time_and_is_written_down_once(tmp_path: Path) -> None:
    gate = Gate()
    with asking(tmp_path, gate) as (behind, ask):
        started = time.monotonic()
        answer = ask(MANY, 300)
        assert statuses(answer) == {"prior"}
        assert 0.2 < time.monotonic() - started < 2
        assert gate.reached.is_set()
        gate.open.set()
        until(lambda: behind.guard.admission.waiting_s < 1e-9)
        assert behind.guard.meters.degraded == {"send": 0, "bulk": 1}
        assert behind.guard.meters.scores == {"prior": len(MANY["subscriber_ids"])}
    assert logged(tmp_path) == {answer.json()["request_id"]: 3 * len(MANY["subscriber_ids"])}


class SlowPriors(FixedScorer):
    """Priors for many take until the gate opens."""

    def priors(self, request: ScoreRequest, scored_at: datetime) -> Scores:
        scores = super().priors(request, scored_at)
        self.spoil(dict(scores.columns))
        return scores


def test_bulk_that_is_too_late_for_scores_keeps_no_send_waiting_and_counts_as_work(tmp_path: Path) -> None:
    gate = Gate()
    with asking(tmp_path, gate) as (behind, ask), ThreadPoolExecutor(1) as pool:
        behind.engine.scorer = SlowPriors(spoil=gate)
        behind.guard.admission.scoring["bulk"].learn(1_000, 5)
        late = pool.submit(ask, MANY, 1)
        assert gate.reached.wait(5)
        until(lambda: behind.guard.admission.waiting_s > 0)
        assert statuses(ask(ONE)) == {"ok"}
        assert not late.done()
        gate.open.set()
        assert statuses(late.result()) == {"prior"}
        until(lambda: behind.guard.admission.waiting_s < 1e-9)
    assert behind.guard.meters.degraded == {"send": 0, "bulk": 1}


def test_a_bulk_whose_turn_would_come_too_late_gets_priors_without_waiting_for_it(tmp_path: Path) -> None:
    gate = Gate()
    with asking(tmp_path, gate) as (behind, ask), ThreadPoolExecutor(1) as pool:
        behind.guard.admission.scoring["bulk"].learn(1_000, 5)
        first = pool.submit(ask, MANY)
        assert gate.reached.wait(5)
        started = time.monotonic()
        assert statuses(ask(MANY, 400)) == {"prior"}
        assert time.monotonic() - started < 2
        gate.open.set()
        assert statuses(first.result()) == {"ok"}
        assert isinstance(behind.engine.scorer, FixedScorer)
        assert behind.engine.scorer.budgets == [None]


def test_a_defect_after_the_deadline_says_nothing_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    def fail(columns: dict[str, Any]) -> None:
        gate(columns)
        if gate.reached.is_set():
            gate.reached.clear()
            raise ValueError(CANARY)

    with asking(tmp_path, fail) as (behind, ask):
        assert statuses(ask(MANY, 300)) == {"prior"}
        gate.open.set()
        until(lambda: behind.guard.admission.waiting_s < 1e-9)
        assert statuses(ask()) == {"ok"}
    assert CANARY not in caplog.text


def test_a_malformed_deadline_is_refused_by_name(tmp_path: Path) -> None:
    malformed = ("0", "-1", "+5", "1.5", "1e3", "5 ms", "", "0x10", "99999", "9" * 400, "NaN", "\xb2", CANARY)
    with asking(tmp_path, taking(0)) as (behind, ask):
        for text in malformed:
            answer = ask(ONE, text)
            assert (answer.status_code, answer.json()["field"]) == (400, "X-Deadline-Ms")
            assert len(text) < 4 or text not in answer.text.replace(answer.json()["request_id"], "")
        assert behind.guard.meters.admitted == {"send": 0, "bulk": 0, "events": 0}


def test_the_path_form_keeps_deadlines_too(tmp_path: Path) -> None:
    behind = front(tmp_path)
    with serving(behind.guard) as url:
        said = httpx.get(f"{url}/v1/scores/s1", headers=behind.headers | {"x-deadline-ms": "5000"})
        refused = httpx.get(f"{url}/v1/scores/s1", headers=behind.headers | {"x-deadline-ms": "soon"})
    behind.close()
    assert statuses(said) == {"ok"}
    assert (refused.status_code, refused.json()["field"]) == (400, "X-Deadline-Ms")


def test_a_deadline_is_said_once_in_whole_milliseconds() -> None:
    assert read_deadline([(b"host", b"x")]) == inf
    assert read_deadline([(b"x-deadline-ms", str(MAX_DEADLINE_MS).encode())]) == 60
    with pytest.raises(MalformedRequest, match="X-Deadline-Ms"):
        read_deadline([(b"x-deadline-ms", b"5")] * 2)


def test_a_pace_follows_the_work_and_large_work_weighs_more_than_small() -> None:
    pace = Pace(0.001)
    for _ in range(5):
        pace.learn(1_000, 0.02)
    assert pace.cost(1_000) == pytest.approx(0.02, rel=0.3)
    pace.learn(17, 0.0017)
    assert pace.cost(1_000) == pytest.approx(0.02, rel=0.3)
    for _ in range(50):
        pace.learn(1_000, 0.2)
    assert pace.cost(1_000) == pytest.approx(0.2, rel=0.05)


def test_places_are_given_back_whatever_becomes_of_their_holder() -> None:
    admission = Admission(4, 1.0, Meters())
    with pytest.raises(Overloaded), Place(admission, "send", 0.0) as first, Place(admission, "bulk", 0.0):
        assert admission.taken == {"send": 1, "bulk": 1, "events": 0}
        first.become("bulk")
    assert admission.in_flight == 0
    admission.waiting_s = 2.5
    with pytest.raises(Overloaded) as refused:
        Place(admission, "bulk", 0.0)
    assert refused.value.retry_after_s == 3
