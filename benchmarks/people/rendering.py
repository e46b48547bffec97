"""Ten thousand personalised messages by the example's own code, against a service that is there, and one that is killed.

What enters: a ``Bench``. What leaves: scores and messages a second, and what a kill and a restart in the middle did to them.
The promise: client, templates, MIME and the service share the machine, as little as it is; every message is counted by
where its scores came from, and one that failed would fail the benchmark.
"""

from __future__ import annotations

import shutil
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from itertools import cycle, islice, takewhile
from math import inf
from typing import Any

from inbox_client import ScoresClient

from benchmarks.people.bench import Bench
from benchmarks.people.lists import people_of
from benchmarks.people.service import Killable, killable
from benchmarks.report import Measured
from examples.rendering.render import DEFAULTS, HERE, PERSONAL, Campaign, Subscriber, Summary, outbox, people_in, send

MESSAGES, FEW_MESSAGES = 10_000, 1_500
SEGMENTS = {"a thousand ahead": 1_000, "one by one": 1}
WAIT_S = 2.0
KILLED_AT, AWAY_S = 0.3, 1.0
"""At this share of the messages it is killed, and started again after so long."""
POLL_S = 0.02


def rendering(bench: Bench) -> Measured:
    """With the service there, prefetched and one by one."""
    count = FEW_MESSAGES if bench.quick else MESSAGES
    measured = Measured("rendering", f"Rendering {count:,} messages of two templates each, MIME, one .eml file each")
    people = _people(bench)
    with killable(bench.home, bench.work / "service.log") as service:
        _warm(service, people)
        found: dict[str, list[Summary]] = {words: [] for words in SEGMENTS}
        with bench.narrator.step("rendering") as share:
            for number in range(bench.rounds):
                for words, ahead in SEGMENTS.items():
                    found[words].append(_to_disk(bench, service, people, count, ahead))
                share((number + 1) / bench.rounds)
    for words, summaries in found.items():
        _note(measured, words, summaries)
    measured.ratio(
        "messages, a thousand ahead over one by one",
        *([one.messages / one.seconds for one in found[words]] for words in SEGMENTS),
    )
    return measured


def killed(bench: Bench) -> Measured:
    """The same while the service is killed and comes back."""
    count = FEW_MESSAGES if bench.quick else MESSAGES
    measured = Measured("killed", f"Rendering {count:,} messages while the service is killed and started again")
    people = _people(bench)
    for words, ahead in SEGMENTS.items():
        with bench.narrator.step(f"killed, {words}"), killable(bench.home, bench.work / "service.log") as service:
            _warm(service, people)
            _through_a_kill(measured, words, service, people, count, ahead)
    return measured


def _note(measured: Measured, words: str, summaries: list[Summary]) -> None:
    measured.add(f"{words}, messages", [one.messages / one.seconds for one in summaries], "messages/s")
    measured.add(f"{words}, scores", [one.messages / one.asking_s for one in summaries], "scores/s")
    measured.add(f"{words}, templates", [one.messages / one.rendering_s for one in summaries], "messages/s")
    measured.add(f"{words}, share of the time for scores", [one.asking_s / one.seconds for one in summaries])
    measured.add(f"{words}, personal", [one.personal for one in summaries], "messages")
    measured.facts[words] = [dict(one.statuses) for one in summaries]


def _people(bench: Bench) -> list[Subscriber]:
    """The whole list, as a CSV of ids would name it."""
    path = bench.work / "people.csv"
    path.write_text("\n".join(["subscriber_id", *people_of(bench.home)["subscriber_id"].to_pylist()]), encoding="utf-8")
    return people_in(path)


@contextmanager
def _campaign(service: Killable) -> Iterator[Watched]:
    with ScoresClient(service.url, service.key, defaults=DEFAULTS) as client:
        yield Watched("newsletter", tomllib.loads((HERE / "issue.toml").read_text(encoding="utf-8")), client)


class Watched(Campaign):
    """Notes when each message was rendered, and where its scores came from."""

    def __init__(self, template: str, issue: dict[str, Any], client: ScoresClient) -> None:
        super().__init__(template, issue, client)
        self.at: list[float] = []
        self.statuses: list[str] = []

    def rendered(self, subscriber: Subscriber) -> tuple[str, str]:
        texts = super().rendered(subscriber)
        self.at.append(time.perf_counter())
        self.statuses.append(self.scores[subscriber.subscriber_id].status)
        return texts


def _to_disk(bench: Bench, service: Killable, people: list[Subscriber], count: int, ahead: int) -> Summary:
    """As the command does it."""
    out = bench.work / "outbox"
    shutil.rmtree(out, ignore_errors=True)
    with _campaign(service) as campaign, outbox(out) as box:
        summary = send(islice(cycle(people), count), campaign, box, ahead, WAIT_S)
    written = sum(1 for _ in out.iterdir())
    if written != count:
        raise RuntimeError(f"{written:,} of {count:,} messages were written")
    return summary


def _warm(service: Killable, people: list[Subscriber]) -> None:
    """A service's first answers are slower than all others."""
    with _campaign(service) as campaign:
        for _ in range(3):
            campaign.prefetch(people[:1_000], WAIT_S)


# --- a kill in the middle --------------------------------------------------------------------------------------------


@dataclass
class Fate:
    """Kills a service when so many messages are made, starts it again, and waits until it answers; in a thread."""

    service: Killable
    campaign: Watched
    after: int
    killed_at: float = inf
    started_at: float = inf
    ready_at: float = inf

    def run(self) -> None:
        while len(self.campaign.at) < self.after:
            time.sleep(POLL_S)
        self.killed_at = time.perf_counter()
        self.service.kill()
        time.sleep(AWAY_S)
        self.started_at = time.perf_counter()
        self.service.start()
        self.service.await_ready()
        self.ready_at = time.perf_counter()

    @property
    def over(self) -> bool:
        """Whether a message has been personal again since it came back."""
        return (
            bool(self.campaign.at) and self.campaign.at[-1] > self.ready_at and self.campaign.statuses[-1] in PERSONAL
        )


def _through_a_kill(
    measured: Measured, words: str, service: Killable, people: list[Subscriber], count: int, ahead: int
) -> None:
    with _campaign(service) as campaign:
        fate = Fate(service, campaign, int(KILLED_AT * count))
        with ThreadPoolExecutor(1) as aside:
            done = aside.submit(fate.run)
            asked = takewhile(lambda _: len(campaign.at) < count or not (fate.over or _failed(done)), cycle(people))
            summary = send(asked, campaign, Nowhere(), ahead, WAIT_S)
            done.result()
    again = next(
        at
        for at, status in zip(campaign.at, campaign.statuses, strict=True)
        if at > fate.ready_at and status in PERSONAL
    )
    measured.add(f"{words}, messages", [summary.messages], "")
    measured.add(f"{words}, of these without a score", [summary.statuses["fallback"]], "")
    measured.add(f"{words}, longest wait between two", [1000 * summary.longest_s], "ms")
    measured.add(f"{words}, from start to ready", [fate.ready_at - fate.started_at], "s")
    measured.add(f"{words}, from ready to scores", [again - fate.ready_at], "s")
    measured.facts[words] = {"statuses": dict(summary.statuses), "reasons": dict(summary.reasons)}
    measured.remarks.append(f"{words}: no render failed; one that did would have ended the benchmark")


def _failed(done: Future[None]) -> bool:
    return done.done() and done.exception() is not None


class Nowhere:
    """An outbox that makes the bytes and lets go of them."""

    policy = SMTP

    def add(self, message: EmailMessage) -> None:
        message.as_bytes()
