"""The two clients as one, so that what is promised of both is tested of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from inbox_client import AsyncScoresClient, ScoresClient, Stats, SubscriberScores

KEY = "test-key-that-nobody-else-has"


class Both:
    """A client of either kind, called as if it were synchronous, in one event loop."""

    def __init__(self, kind: str, url: str, key: str = KEY, **options: Any) -> None:
        options = {"deadline_ms": 5_000, **options}
        self.runner = asyncio.Runner() if kind == "async" else None
        self.client: Any = (AsyncScoresClient if self.runner else ScoresClient)(url, key, **options)

    def score(self, subscriber_id: object, **asked: Any) -> SubscriberScores:
        one: SubscriberScores = self._awaited(self.client.score(subscriber_id, **asked))
        return one

    def scores(self, subscriber_ids: Iterable[object], **asked: Any) -> list[SubscriberScores]:
        many: list[SubscriberScores] = self._awaited(self.client.scores(subscriber_ids, **asked))
        return many

    def prefetch(self, subscriber_ids: Iterable[object], **asked: Any) -> Any:
        return self._awaited(self.client.prefetch(subscriber_ids, **asked))

    @property
    def stats(self) -> Stats:
        stats: Stats = self.client.stats
        return stats

    def close(self) -> None:
        if self.runner is None:
            self.client.close()
        else:
            self.runner.run(self.client.aclose())

    def end(self) -> None:
        self.close()
        if self.runner is not None:
            self.runner.close()

    def _awaited(self, result: Any) -> Any:
        return result if self.runner is None else self.runner.run(result)


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterable[Callable[..., Both]]:
    """Make a client; it is closed after the test."""
    made: list[Both] = []

    def make(url: str, **options: Any) -> Both:
        made.append(Both(request.param, url, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()
