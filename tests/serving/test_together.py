"""Requests scored together get what each would have got alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from math import inf
from time import perf_counter

import pytest

from serving.schemas import Context, ScoreRequest
from serving.together import HURRIED_S, MOST_IDS, PATIENCE_S, Scored, Together
from tests.serving.stand_in import SCORED_AT, FixedScorer

VERSIONS = {"churn": "7"}


class Counting:
    """Scores, and remembers what it was asked."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.asked: list[tuple[ScoreRequest, float | None]] = []

    def __call__(self, asked: ScoreRequest, budget_s: float | None) -> Scored:
        self.asked.append((asked, budget_s))
        time.sleep(self.takes_s)
        if "broken" in asked.subscriber_ids:
            raise KeyError
        at = SCORED_AT + timedelta(seconds=len(self.asked))
        return Scored(FixedScorer().score(asked, at, budget_s), at, VERSIONS)

    def priors(self, asked: ScoreRequest) -> Scored:
        return Scored(FixedScorer().priors(asked, SCORED_AT), SCORED_AT, VERSIONS, late=True)


def asked(*subscriber_ids: str, **rest: object) -> ScoreRequest:
    return ScoreRequest(subscriber_ids=subscriber_ids, **rest)  # type: ignore[arg-type]


def together(
    requests: Sequence[ScoreRequest], seconds: Sequence[float] = (), takes_s: float = 0.0
) -> tuple[Counting, list[Scored | BaseException]]:
    """Score requests that arrive in one turn of the loop, each with so many seconds to spare."""
    score = Counting(takes_s)

    async def run() -> list[Scored | BaseException]:
        table, now = Together(score, score.priors), perf_counter()
        spare = seconds or [inf] * len(requests)
        asking = (table.score(one, now + left) for one, left in zip(requests, spare, strict=True))
        return await asyncio.gather(*asking, return_exceptions=True)

    return score, asyncio.run(run())


def test_who_arrives_together_is_scored_once_and_gets_their_own() -> None:
    score, answers = together([asked("a", "new1"), asked("b"), asked("new2", "c", "c")])
    assert [request.subscriber_ids for request, _ in score.asked] == [("a", "new1", "b", "new2", "c", "c")]
    said = [one.scores for one in answers if isinstance(one, Scored)]
    assert [scores.listed("subscriber_id") for scores in said] == [["a", "new1"], ["b"], ["new2", "c", "c"]]
    assert [scores.listed("status") for scores in said] == [["ok", "prior"], ["ok"], ["prior", "ok", "ok"]]
    assert all(len(scores.columns["churn_probability"]) == len(scores) for scores in said)


def test_only_those_who_ask_the_same_are_scored_together() -> None:
    context = Context(campaign_id="c1", content=("shoes",))
    requests = [asked("a"), asked("b", models=("churn",)), asked("c", context=context), asked("d", context=context)]
    score, _ = together(requests)
    assert sorted(request.subscriber_ids for request, _ in score.asked) == [("a",), ("b",), ("c", "d")]


def test_a_group_has_an_end() -> None:
    requests = [asked(*(f"s{i}-{k}" for k in range(16))) for i in range(MOST_IDS // 16 + 1)]
    score, answers = together(requests)
    assert [len(request.subscriber_ids) for request, _ in score.asked] == [MOST_IDS, 16]
    for request, answer in zip(requests, answers, strict=True):
        assert isinstance(answer, Scored)
        assert tuple(answer.scores.listed("subscriber_id")) == request.subscriber_ids


def test_the_most_hurried_decides_how_long_the_store_may_take() -> None:
    score, _ = together([asked("a"), asked("b"), asked("c")], [inf, 0.2, 5.0])
    [(request, budget_s)] = score.asked
    assert request.subscriber_ids == ("a", "b", "c")
    assert budget_s is not None and 0 < budget_s <= 0.2


def test_who_has_hardly_any_time_left_hurries_nobody_else() -> None:
    score, _ = together([asked("a"), asked("b"), asked("c")], [inf, HURRIED_S / 2, inf])
    assert {request.subscriber_ids: budget_s is None for request, budget_s in score.asked} == {
        ("a", "c"): True,
        ("b",): False,
    }


def test_a_group_whose_time_is_up_before_its_turn_gets_priors() -> None:
    """Six campaigns at once over a store that takes 60 ms: who would be late is told what strangers are told."""
    requests = [asked("a", context=Context(campaign_id=f"c{i}")) for i in range(6)]
    score, answers = together(requests, [0.1] * 6, takes_s=0.06)
    late = [one.late for one in answers if isinstance(one, Scored)]
    assert len(score.asked) == late.count(False) < 3
    assert late == sorted(late)
    assert all(one.scores.listed("status") == ["prior"] for one in answers if isinstance(one, Scored) and one.late)


def test_nobody_waits_for_ever_behind_others() -> None:
    requests = [asked("a", context=Context(campaign_id=f"c{i}")) for i in range(8)]
    _, answers = together(requests, takes_s=PATIENCE_S / 3)
    late = [one.late for one in answers if isinstance(one, Scored)]
    assert late == sorted(late) and 0 < late.count(True) < 8


def test_a_defect_reaches_everybody_it_concerns_and_nobody_else() -> None:
    _, answers = together([asked("a"), asked("broken"), asked("c", models=("churn",))])
    assert [type(answer) for answer in answers] == [KeyError, KeyError, Scored]


def test_whoever_leaves_takes_nobody_along() -> None:
    score = Counting()

    async def run() -> Scored:
        table = Together(score, score.priors)
        leaving = asyncio.ensure_future(table.score(asked("leaves")))
        staying = asyncio.ensure_future(table.score(asked("stays")))
        await asyncio.sleep(0)
        leaving.cancel()
        answer = await staying
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return answer

    assert asyncio.run(run()).scores.listed("subscriber_id") == ["stays"]


def test_nobody_waits_for_company() -> None:
    """A lone request is scored as soon as the loop turns, and the next one is another group."""
    score = Counting()

    async def run() -> None:
        table = Together(score, score.priors)
        for who in ("a", "b"):
            await asyncio.wait_for(table.score(asked(who)), 1)

    asyncio.run(run())
    assert [request.subscriber_ids for request, _ in score.asked] == [("a",), ("b",)]
