"""Requests that arrive together are scored together: one read, one derivation, one predict per model for all of them.

What enters: requests for a few subscribers each. What leaves: to each its own part of one scoring. The promise: nobody
waits for company. A group is whoever was there when the event loop turned, so a lone request is scored at once and a
burst costs little more than one; the bits are the same either way (``scorer``).

For one subscriber nearly all of the time is the number of steps, not the arithmetic, so this is what lets a service on
one core answer a crowd of renderers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from serving.answers import Scores
from serving.schemas import Context, ScoreRequest

MOST_IDS = 512
"""Of a group: what a send may have to wait for at most."""

Key = tuple[tuple[str, ...], Context | None]


@dataclass(frozen=True)
class Scored:
    """Scores, when they were made and by which versions."""

    scores: Scores
    scored_at: datetime
    versions: Mapping[str, str]


Score = Callable[[ScoreRequest, float | None], Scored]
"""A request, and how long the store may take."""


class Together:
    """Forms groups of requests that ask the same of different subscribers. Everything happens on the event loop."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self._open: dict[Key, _Group] = {}

    async def score(self, asked: ScoreRequest, budget_s: float | None) -> Scored:
        """Scores of one request, made with whatever else is there. ``explain`` is not for here."""
        key = asked.models, asked.context
        group = self._open.get(key)
        if group is None or len(group.ids) + len(asked.subscriber_ids) > MOST_IDS:
            group = self._open[key] = _Group(asked)
            group.task = asyncio.get_running_loop().create_task(self._serve(key, group))
        start = group.join(asked, budget_s)
        # A caller who leaves takes nobody else's scores along.
        scored = await asyncio.shield(group.task)
        own = scored.scores.part(start, start + len(asked.subscriber_ids))
        return Scored(own, scored.scored_at, scored.versions)

    async def _serve(self, key: Key, group: _Group) -> Scored:
        """Runs when the loop has turned once: by then everybody is in who came in the same turn."""
        if self._open.get(key) is group:
            del self._open[key]
        return self._score(group.asked, group.budget_s)


class _Group:
    """Requests to be scored as one."""

    task: asyncio.Task[Scored]

    def __init__(self, first: ScoreRequest) -> None:
        self._first = first
        self.ids: list[str] = []
        self.budget_s: float | None = None

    @property
    def asked(self) -> ScoreRequest:
        """All of them. Each was checked by itself."""
        return self._first.model_copy(update={"subscriber_ids": tuple(self.ids)})

    def join(self, asked: ScoreRequest, budget_s: float | None) -> int:
        """Take one in; at which position its subscribers begin.

        The most hurried decides for all how long the store may take.
        """
        start = len(self.ids)
        self.ids += asked.subscriber_ids
        budgets = [budget for budget in (self.budget_s, budget_s) if budget is not None]
        self.budget_s = min(budgets, default=None)
        return start
