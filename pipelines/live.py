"""Live features beside a verb that takes events in.

What enters: a home. What leaves: states in its online store that hold what was accepted. The promise: without a catalogue, or
while the store is away, nothing fails: what was accepted is in the inbox, and is caught up with later.
"""

from __future__ import annotations

from collections.abc import Callable

from features.catchup import LiveUpdater
from features.errors import ScoringError
from features.home import Home
from features.inbox import Inbox
from features.stores import open_store


def live_updater(home: Home) -> LiveUpdater:
    """Of the home's own online store; closed at the end of its ``with``."""
    return LiveUpdater(home, Inbox(home), open_store(home))


class Refresher:
    """Called after each batch; says what keeps it from its work, once."""

    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self._updater, self._say = live_updater(home), say
        self._trouble = ""
        self.subscribers = 0

    def __call__(self) -> None:
        try:
            self.subscribers += self._updater.catch_up().subscribers
            self._trouble = ""
        except ScoringError as error:
            if str(error) != self._trouble:
                self._say(f"live features wait, what was accepted is kept: {error}")
            self._trouble = str(error)

    def close(self) -> None:
        self._updater.close()
