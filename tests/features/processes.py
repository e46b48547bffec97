"""Processes that write to an inbox until they are killed, begun within a millisecond: forked from one that has imported.

Run as a module it reads a line of JSON for each process to begin, the name of a function here and what it is given, and
answers with the process's number.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pandas as pd  # noqa: F401  DuckDB imports it when it is first used, which takes longer than a drain.

from features.event import Event
from features.forgetting import forget
from features.home import Home
from features.inbox import Delivery, Inbox
from features.log import EventLog

NOW = 1_790_000_000_000_000
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Bad:
    reason: str
    payload: str


def event(event_id: str, subscriber_id: str = "s1") -> Event:
    return Event(event_id, subscriber_id, "click", NOW - 1, 0)


def send(root: str, writer: str, acknowledged: str) -> None:
    """This writer's stream from where it was acknowledged last, without end."""
    inbox, begin = Inbox(Home(Path(root))), len(Path(acknowledged).read_text().splitlines())
    file = os.open(acknowledged, os.O_WRONLY | os.O_APPEND)
    for number in count(begin):
        # Each event is told twice, and some by the other writer, too.
        told = [event(each) for each in (f"{writer}-{number}", f"{writer}-{max(0, number - 1)}", f"both-{number // 2}")]
        unread = Delivery("x", [event(f"{writer}.{number}")], [Bad("no", f"{writer}-{number}")])
        inbox.accept([Delivery("x", told), unread], NOW)
        os.write(file, f"{number}\n".encode())
        # Who drains shall have a turn, too.
        time.sleep(0.004)


def drain(root: str) -> None:
    """Again and again."""
    while True:
        Inbox(Home(Path(root))).drain(EventLog(Home(Path(root))))


def erase(root: str, subscriber_id: str) -> None:
    forget(Home(Path(root)), subscriber_id)


class Nursery:
    """Begins processes and kills them."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        self.parent = parent

    def begin(self, name: str, *given: object) -> int:
        if self.parent.stdin is None or self.parent.stdout is None:
            raise RuntimeError
        print(json.dumps([name, *map(str, given)]), file=self.parent.stdin, flush=True)
        return int(self.parent.stdout.readline())

    def kill(self, process: int) -> None:
        """And wait until it is no more; one that ended by itself is no fault."""
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            while True:
                os.kill(process, 0)
                time.sleep(0.001)


@contextmanager
def nursery() -> Iterator[Nursery]:
    command = [sys.executable, "-m", "tests.features.processes"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        yield Nursery(parent)


def _bear() -> None:
    # Children that ended are no more, without anybody waiting for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    jobs: dict[str, Callable[..., None]] = {"send": send, "drain": drain, "erase": erase}
    for line in sys.stdin:
        name, *given = json.loads(line)
        process = os.fork()
        if process == 0:
            jobs[name](*given)
            os._exit(0)
        print(process, flush=True)


if __name__ == "__main__":
    _bear()
