"""Scores prefetched for a segment, so that rendering it waits for nothing.

What enters: the rows of a call. What leaves: a mapping from id to scores. The promise: it never asks the service and never
fails; whoever was not prefetched is a fallback here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from inbox_client.answers import StandIns, SubscriberScores
from inbox_client.asking import as_id


class Snapshot(Mapping[str, SubscriberScores]):
    """What was prefetched, by id; reading it from many threads is safe.

    ``in``, ``len`` and iteration speak of those that were asked for.
    """

    def __init__(self, rows: dict[str, SubscriberScores], stand_ins: StandIns) -> None:
        self._rows, self._stand_ins = rows, stand_ins

    def __getitem__(self, subscriber_id: object) -> SubscriberScores:
        name = as_id(subscriber_id) or ""
        return self._rows.get(name) or self._stand_ins.scores(name, "not_prefetched")

    def __contains__(self, subscriber_id: object) -> bool:
        return as_id(subscriber_id) in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def fallbacks(self) -> list[str]:
        """The ids that could not be scored; they can be prefetched again."""
        return [subscriber_id for subscriber_id, one in self._rows.items() if one.status == "fallback"]
