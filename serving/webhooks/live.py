"""The process that keeps the online store up with the inbox. ``follower`` starts it and is told how it goes.

What enters: on stdin, how many events the service has accepted so far, eight bytes after each transaction. What leaves: states
in the online store; on stdout, a line of JSON after each look. The promise: it ends when its stdin does, however the service
ended, and may be killed at any moment: how far a state came is written in the state.

It looks after each word, and every few seconds for what other processes accepted. Rows that only the log can tell about are
guessed in a look and folded by a thread of their own, so that nobody's click waits for a stranger's. How is
``features.catchup``'s to know, also that there is nothing to do until there is a catalogue. It imports ``features`` and nothing
of the service, so it is up soon and small.

::

    python -m serving.webhooks.live HOME LOOK_EVERY_S
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread

import orjson

from features.catchup import LiveUpdater
from features.home import STORE_URL, Home
from features.inbox import Inbox
from features.stores import open_store
from serving.failures import described

WORD = 8
"""Bytes of a count. Pipes take and give so few at a time whole."""
WORDS_AT_ONCE = 65_536 // WORD
GATHER_S = 0.05
"""For so long what follows a word is waited for: one look for many transactions costs less than one for each."""
SETTLE_EVERY_S = 2.0
"""So long guesses gather: folding one person takes as long as folding a thousand."""
LONGEST_REST_S = 60.0
ENDS_WITHIN_S = 1.0
"""A look that takes longer is given up when the service has ended; it is safe at any moment."""


@dataclass(frozen=True)
class Report:
    """What a look came to."""

    heard: int
    """The last word before the look: so many of the service's events it has seen, if it did not fail."""
    subscribers: int = 0
    events: int = 0
    refolded: int = 0
    failed: int = 0
    seconds: float = 0.0
    failure: str | None = None
    """Why there was none, without anybody's values."""


@dataclass
class Words:
    """What has been said on stdin. Written by the thread that listens."""

    heard: int = 0
    came: Event = field(default_factory=Event)
    ended: Event = field(default_factory=Event)


def follow(home: Home, words: Words, tell: Callable[[Report], None], look_every_s: float) -> None:
    """Look, tell, wait; until the words end. After failures it rests, twice as long each time."""
    failures = 0

    def tell_well(report: Report) -> None:
        nonlocal failures
        failures = 0
        tell(report)

    while not words.ended.is_set():
        try:
            _look_on(home, words, tell_well, look_every_s)
        except Exception as error:  # noqa: BLE001 - the process's outermost door: a failure must not end it
            failures += 1
            tell(Report(words.heard, failure=described(error)))
            words.ended.wait(rest_s(failures))


def rest_s(failures: int) -> float:
    """After failures in a row: twice as long each time."""
    return min(LONGEST_REST_S, 0.25 * 2.0 ** min(failures, 10))


def _look_on(home: Home, words: Words, tell: Callable[[Report], None], look_every_s: float) -> None:
    with LiveUpdater(home, Inbox(home), open_store(home)) as updater, _settler(updater) as settler:
        while not words.ended.is_set():
            words.came.clear()
            tell(_look(updater, settler, words.heard))
            if words.came.wait(look_every_s):
                words.ended.wait(GATHER_S)


def _look(updater: LiveUpdater, settler: _Settler, heard: int) -> Report:
    began = time.monotonic()
    caught = updater.catch_up(settle=False)
    seconds = time.monotonic() - began
    return Report(heard, caught.subscribers, caught.events, settler.taken(), settler.failed, seconds)


class _Settler:
    """Folds whose rows are guesses, now and then, in a thread of its own. Its failures are raised by ``taken``."""

    def __init__(self, updater: LiveUpdater) -> None:
        self._updater, self.closing = updater, Event()
        self._refolded, self.failed = 0, 0
        self._error: Exception | None = None
        self.thread = Thread(target=self._run, name="settler", daemon=True)

    def taken(self) -> int:
        """How many were folded since this was last asked."""
        if self._error is not None:
            raise self._error
        refolded, self._refolded = self._refolded, 0
        return refolded

    def _run(self) -> None:
        try:
            while not self.closing.wait(SETTLE_EVERY_S):
                if self._updater.owed:
                    caught = self._updater.settle()
                    self._refolded, self.failed = self._refolded + caught.refolded, caught.failed
        except Exception as error:  # noqa: BLE001 - raised again by who looks
            self._error = error
        finally:
            self._updater.close()


@contextmanager
def _settler(updater: LiveUpdater) -> Iterator[_Settler]:
    settler = _Settler(updater)
    settler.thread.start()
    try:
        yield settler
    finally:
        settler.closing.set()
        settler.thread.join()


def _listen(words: Words, stdin: int) -> None:
    """Hear every word, and see to it that this process ends soon after the last."""
    while heard := os.read(stdin, WORDS_AT_ONCE * WORD):
        words.heard = int.from_bytes(heard[-WORD:], "little")
        words.came.set()
    words.ended.set()
    words.came.set()
    time.sleep(ENDS_WITHIN_S)
    os._exit(0)


def _teller(words: Words, stdout: int) -> Callable[[Report], None]:
    def tell(report: Report) -> None:
        try:
            os.write(stdout, orjson.dumps(asdict(report)) + b"\n")
        except OSError:
            # Nobody is there any more.
            words.ended.set()

    return tell


def main(home: str, look_every_s: str) -> None:
    """Follow the inbox until stdin ends."""
    # An interrupt from the keyboard goes to everybody; the service says when it is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reports = os.dup(1)
    # Whatever a library prints must not get between the lines.
    os.dup2(2, 1)
    words = Words()
    Thread(target=_listen, args=(words, 0), name="words", daemon=True).start()
    follow(Home(Path(home), os.environ.get(STORE_URL) or None), words, _teller(words, reports), float(look_every_s))


if __name__ == "__main__":
    main(*sys.argv[1:])
