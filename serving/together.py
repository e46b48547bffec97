"""Requests that arrive together are scored together: one read, one derivation, one predict per model for all of them.

What enters: requests for a few subscribers each, and by when each must be scored. What leaves: to each its own part of one
scoring. The promise: nobody waits for company. A group is whoever was there when the event loop turned, so a lone request
is scored at once and a burst costs little more than one; the bits are the same either way (``scorer``). When a group's
turn comes too late, because others were slow before it, it gets priors instead of being later still.

For one subscriber nearly all of the time is the number of steps, not the arithmetic, so this is what lets a service on
one core answer a crowd of renderers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from time import perf_counter

from serving.admission import Pace
from serving.answers import Scores
from serving.schemas import Context, ScoreRequest

MOST_IDS = 512
"""Of a group: what a send may have to wait for at most."""
PATIENCE_S = 0.25
"""A group that has waited so long for its turn gets priors, deadline or not: before it, a slow store or too many others."""
HURRIED_S = 0.05
"""Who has less time left has a group of their own: how long the store may take is the most hurried's to say."""

Key = tuple[tuple[str, ...], Context | None, bool]


@dataclass(frozen=True)
class Scored:
    """Scores, when they were made and by which versions."""

    scores: Scores
    scored_at: datetime
    versions: Mapping[str, str]
    late: bool = False
    """Whether these are priors because there was no time for scores."""


Score = Callable[[ScoreRequest, float | None], Scored]
"""A request, and how many seconds the store may take; None for its usual time-out."""


class Together:
    """Forms groups of requests that ask the same of different subscribers. Everything happens on the event loop."""

    def __init__(self, score: Score, priors: Callable[[ScoreRequest], Scored]) -> None:
        self._score, self._priors = score, priors
        self._open: dict[Key, _Group] = {}
        self.pace = Pace(0.001)

    async def score(self, asked: ScoreRequest, until: float = inf) -> Scored:
        """Scores of one request, made with whatever else is there. ``explain`` is not for here.

        Parameters
        ----------
        until
            By when, on ``perf_counter``'s clock.
        """
        key = asked.models, asked.context, until - perf_counter() < HURRIED_S
        group = self._open.get(key)
        if group is None or len(group.ids) + len(asked.subscriber_ids) > MOST_IDS:
            group = self._open[key] = _Group(asked)
            group.task = asyncio.get_running_loop().create_task(self._serve(key, group))
        start = group.join(asked, until)
        # A caller who leaves takes nobody else's scores along.
        scored = await asyncio.shield(group.task)
        own = scored.scores.part(start, start + len(asked.subscriber_ids))
        return Scored(own, scored.scored_at, scored.versions, scored.late)

    async def _serve(self, key: Key, group: _Group) -> Scored:
        """Runs when the loop has turned once: by then everybody is in who came in the same turn."""
        if self._open.get(key) is group:
            del self._open[key]
        began = perf_counter()
        needed = self.pace.cost(1) if self.pace.is_fresh else 0.0
        if began + needed > min(group.until, group.began + PATIENCE_S):
            return self._priors(group.asked)
        scored = self._score(group.asked, None if group.until == inf else group.until - began)
        self.pace.learn(1, perf_counter() - began)
        return scored


class _Group:
    """Requests to be scored as one."""

    task: asyncio.Task[Scored]

    def __init__(self, first: ScoreRequest) -> None:
        self._first = first
        self.ids: list[str] = []
        self.began, self.until = perf_counter(), inf

    @property
    def asked(self) -> ScoreRequest:
        """All of them. Each was checked by itself."""
        return self._first.model_copy(update={"subscriber_ids": tuple(self.ids)})

    def join(self, asked: ScoreRequest, until: float) -> int:
        """Take one in; at which position its subscribers begin."""
        start = len(self.ids)
        self.ids += asked.subscriber_ids
        self.until = min(self.until, until)
        return start
