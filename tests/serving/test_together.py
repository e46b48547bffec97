"""Requests scored together get what each would have got alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from serving.schemas import Context, ScoreRequest
from serving.together import MOST_IDS, Scored, Together
from tests.serving.stand_in import SCORED_AT, FixedScorer

VERSIONS = {"churn": "7"}


class Counting:
    """Scores, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[ScoreRequest, float | None]] = []

    def __call__(self, asked: ScoreRequest, budget_s: float | None) -> Scored:
        self.asked.append((asked, budget_s))
        if "broken" in asked.subscriber_ids:
            raise KeyError
        at = SCORED_AT + timedelta(seconds=len(self.asked))
        return Scored(FixedScorer().score(asked, at, budget_s), at, VERSIONS)


def asked(*subscriber_ids: str, **rest: object) -> ScoreRequest:
    return ScoreRequest(subscriber_ids=subscriber_ids, **rest)  # type: ignore[arg-type]


def together(
    requests: Sequence[ScoreRequest], budgets: Sequence[float | None] | None = None
) -> tuple[Counting, list[Scored | BaseException]]:
    """Score requests that arrive in one turn of the loop."""
    score = Counting()

    async def run() -> list[Scored | BaseException]:
        table = Together(score)
        given = budgets or [None] * len(requests)
        return await asyncio.gather(
            *(table.score(one, budget) for one, budget in zip(requests, given, strict=True)), return_exceptions=True
        )

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
    score, _ = together([asked("a"), asked("b"), asked("c")], [None, 0.02, 0.5])
    assert [budget for _, budget in score.asked] == [0.02]


def test_a_defect_reaches_everybody_it_concerns_and_nobody_else() -> None:
    _, answers = together([asked("a"), asked("broken"), asked("c", models=("churn",))])
    assert [type(answer) for answer in answers] == [KeyError, KeyError, Scored]


def test_whoever_leaves_takes_nobody_along() -> None:
    score = Counting()

    async def run() -> Scored:
        table = Together(score)
        leaving = asyncio.ensure_future(table.score(asked("leaves"), None))
        staying = asyncio.ensure_future(table.score(asked("stays"), None))
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
        table = Together(score)
        for who in ("a", "b"):
            await asyncio.wait_for(table.score(asked(who), None), 1)

    asyncio.run(run())
    assert [request.subscriber_ids for request, _ in score.asked] == [("a",), ("b",)]
