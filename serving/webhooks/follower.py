"""Has the online store kept up with the inbox, by a process of its own, while the service runs.

What enters: word that something was accepted. What leaves: a running ``live`` that is told so, and numbers about how it goes.
The promise: it never touches a score, and a failure only makes live features later: the inbox keeps what was accepted. A
process that ends is started again; none is left behind, however the service ends.

Weighed: a thread in the service. Revising rows is Python, and one interpreter does one thing at a time: beside it a score's
slowest hundredth took several times as long, and fewer webhooks were taken in.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGTERM
from subprocess import PIPE, Popen
from threading import Event, Lock, Thread

import orjson

from features.home import STORE_URL, Home
from serving.webhooks import live
from serving.webhooks.live import WORD, Report, rest_s

log = logging.getLogger("inbox.live")

LOOK_EVERY_S = 2.0
"""Between looks for what other processes accepted."""
STOP_WITHIN_S = 5.0
NICENESS = 10
"""Above the service's. When cores are short, scores and intake go first; it still gets about a tenth of what one of them does,
so it comes late and not never."""
TOLD_TO_END = (-SIGTERM, -SIGINT)
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Progress:
    """Numbers that other threads read."""

    heard_events: int = 0
    """Accepted in this process."""
    covered_events: int = 0
    """Of these, how many were accepted before a look that went well."""
    events: int = 0
    """Brought into the store, those of other processes included."""
    refolded: int = 0
    """Subscribers whose row had to be folded from the log."""
    failed: int = 0
    """Subscribers who could not be brought up to date at the last look."""
    failures: int = 0
    failures_in_a_row: int = 0
    seconds: float = 0.0
    """Of the last look that found something."""

    @property
    def waiting_events(self) -> int:
        """Accepted in this process and not known to be in the store."""
        return self.heard_events - self.covered_events

    def add(self, report: Report) -> None:
        """Take in what a look came to."""
        if report.failure is not None:
            self.fail()
            return
        self.covered_events, self.failures_in_a_row, self.failed = report.heard, 0, report.failed
        if report.subscribers or report.refolded:
            self.seconds = report.seconds
            self.events += report.events
            self.refolded += report.refolded

    def fail(self) -> None:
        self.failures += 1
        self.failures_in_a_row += 1


class Follower:
    """A thread that keeps the process running and listens to it, from now until closed.

    Parameters
    ----------
    command
        Another program than ``live``, which speaks as it does.
    """

    def __init__(self, home: Home, look_every_s: float = LOOK_EVERY_S, command: Sequence[str] = ()) -> None:
        self._command = command or (sys.executable, "-P", "-m", live.__name__, str(home.root), str(look_every_s))
        self._environment = _environment(home)
        self.progress = Progress()
        self._door, self._closing = Lock(), Event()
        self._process: Popen[bytes] | None = None
        self._thread = Thread(target=self._run, name="live", daemon=True)
        self._thread.start()

    def wake(self, events: int) -> None:
        """So many more were accepted. For one thread, which never waits here."""
        self.progress.heard_events += events
        self._say()

    def close(self) -> None:
        """Stop. What is left is done when the service starts again."""
        self._closing.set()
        with self._door:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
        self._thread.join(STOP_WITHIN_S)
        with self._door:
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                code = self._follow()
            except OSError as error:
                self._note(f"could not be started ({type(error).__name__})")
            else:
                # Who stops a service may tell everybody, this process before us.
                if code not in TOLD_TO_END:
                    self._note(f"ended with {code}")
            self._closing.wait(rest_s(self.progress.failures_in_a_row))

    def _note(self, what: str) -> None:
        if not self._closing.is_set():
            self.progress.fail()
            log.error("the process for live features %s and is started again; what was accepted is kept", what)

    def _follow(self) -> int:
        """Listen to one process until it ends, and say with which code."""
        with self._running() as process:
            self._say()
            assert process.stdout is not None
            for line in process.stdout:
                self._hear(line)
        return process.returncode

    def _hear(self, line: bytes) -> None:
        try:
            report = Report(**orjson.loads(line))
        except (ValueError, TypeError):
            return
        self.progress.add(report)
        if report.failure is not None:
            log.error("live features wait, what was accepted is kept: %s", report.failure)
        elif report.heard < self.progress.heard_events:
            # Word was lost, or is on its way; twice does no harm.
            self._say()

    def _say(self) -> None:
        """Tell how many events were accepted so far. A full pipe holds words enough already."""
        with self._door, suppress(OSError, ValueError):
            if self._process is not None and self._process.stdin is not None:
                os.write(self._process.stdin.fileno(), self.progress.heard_events.to_bytes(WORD, "little"))

    @contextmanager
    def _running(self) -> Iterator[Popen[bytes]]:
        with Popen(self._command, stdin=PIPE, stdout=PIPE, env=self._environment) as process:
            try:
                self._begin(process)
                yield process
            finally:
                with self._door:
                    self._process = None
                    # Also one that only closed its stdout. There is nothing to lose.
                    process.kill()

    def _begin(self, process: Popen[bytes]) -> None:
        assert process.stdin is not None
        # From outside, because what it imports first is half a second's work.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        os.set_blocking(process.stdin.fileno(), False)
        with self._door:
            self._process = process
            if self._closing.is_set():
                process.stdin.close()


def _environment(home: Home) -> dict[str, str]:
    """This process's, and where things are: the code, and the store, whose URL may hold a password."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OPENBLAS_NUM_THREADS": "1",
        STORE_URL: home.store_url or "",
    }
