"""The real service: killed while it is being posted to, and a click that the next score knows of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pq
import pytest

from features.home import Home
from features.log import EventLog
from pipelines.serve import ROOT, free_port
from serving.keys import create_key
from serving.settings import ServingSettings
from tests.serving.posting import inbox_rows
from tests.serving.senders import click, listed, sendgrid, sendgrid_key, shown

UP_WITHIN_S = 60.0
POSTERS = 4
BATCH = 5


@contextmanager
def service(home: Path, path: str = "/livez", **variables: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A service in a process of its own."""
    port = free_port()
    environment = os.environ | {
        "INBOX_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(home / "var" / "bentoml"),
        "PYTHONPATH": str(ROOT),
        "INBOX_SENDGRID_PUBLIC_KEY": shown(sendgrid_key()),
        **variables,
    }
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Scoring", "--port", str(port)]
    (home / "var").mkdir(parents=True, exist_ok=True)
    with (home / "var" / "service.log").open("ab") as words:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=words, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            _await(url + path, process)
            yield url, process
        finally:
            process.terminate()
            process.wait(20)


def kill(process: subprocess.Popen[bytes]) -> None:
    """At once, the one that watches and the one that works; what keeps live features ends by itself."""
    everybody = psutil.Process(process.pid).children(recursive=True)
    live = [one for one in everybody if is_live(one)]
    for one in everybody:
        if one not in live:
            one.kill()
    process.kill()
    process.wait(10)
    assert psutil.wait_procs(live, 5)[1] == []


def is_live(process: psutil.Process) -> bool:
    try:
        return "serving.webhooks.live" in process.cmdline()
    except psutil.NoSuchProcess:
        # Or ended, and nobody has asked after it yet.
        return False


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < give_up_at:
        assert process.poll() is None
        try:
            if httpx.get(url, timeout=2.0).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the service did not come up")


@dataclass
class Poster:
    """A provider's machine: posts batch after batch, and repeats what was not answered with 200."""

    numbers: Iterator[int]
    acknowledged: list[str] = field(default_factory=list)
    unanswered: list[list[str]] = field(default_factory=list)

    def post_until_killed(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=5.0) as client:
            give_up_at = time.monotonic() + 20
            while time.monotonic() < give_up_at:
                people = [f"p{next(self.numbers)}" for _ in range(BATCH)]
                try:
                    taken = deliver(client, people)
                except httpx.TransportError:
                    self.unanswered.append(people)
                    return
                if taken:
                    self.acknowledged += people
                else:
                    self.unanswered.append(people)

    def repeat(self, url: str) -> None:
        """What was not answered, and some of what was."""
        with httpx.Client(base_url=url, timeout=5.0) as client:
            for people in (*self.unanswered, self.acknowledged[-BATCH:]):
                assert deliver(client, people)
                self.acknowledged += people
        self.unanswered = []


def deliver(client: httpx.Client, people: list[str], now_s: float | None = None) -> bool:
    """Whether one click of each was taken in."""
    now_s = now_s or time.time()
    events = [click(number_of(who), at_s=now_s - 5) | {"subscriber_id": who} for who in people]
    post = sendgrid(listed(events), signed_s=now_s)
    headers = {"content-type": "application/json", **post.headers}
    return client.post(post.path, content=post.body, headers=headers).status_code == 200


def number_of(who: str) -> int:
    return int(who.strip("abcdefghijklmnopqrstuvwxyz"))


@pytest.mark.slow
def test_whatever_was_acknowledged_before_a_kill_is_there_once_and_repeats_double_nothing(tmp_path: Path) -> None:
    numbers = count(1)
    posters = [Poster(numbers) for _ in range(POSTERS)]
    for _ in range(2):
        with service(tmp_path) as (url, process), ThreadPoolExecutor(POSTERS) as pool:
            for poster in posters:
                poster.repeat(url)
            posting = [pool.submit(poster.post_until_killed, url) for poster in posters]
            time.sleep(1.5)
            kill(process)
            for one in posting:
                one.result(10)
        found = Counter(row[2] for row in inbox_rows(tmp_path))
        acknowledged = {who for poster in posters for who in poster.acknowledged}
        assert len(acknowledged) > 200
        assert acknowledged <= found.keys()
        assert set(found.values()) == {1}
    with service(tmp_path) as (url, _):
        for poster in posters:
            poster.repeat(url)
    found = Counter(row[2] for row in inbox_rows(tmp_path))
    assert found == Counter({who: 1 for poster in posters for who in poster.acknowledged})
    words = (tmp_path / "var" / "service.log").read_text()
    assert "example.org" not in words and "ERROR" not in words


@pytest.mark.slow
def test_a_killed_worker_leaves_nothing_behind_and_the_next_one_has_a_process_of_its_own(tmp_path: Path) -> None:
    with service(tmp_path) as (_, process):
        watching = psutil.Process(process.pid)

        def live() -> list[psutil.Process]:
            return [one for one in watching.children(recursive=True) if is_live(one)]

        within(5, lambda: len(live()) == 1)
        (first,) = live()
        first.parent().kill()
        first.wait(5)
        within(30, lambda: len(live()) == 1)
        (second,) = live()
    second.wait(5)


@pytest.fixture
def home(small_home: Home, tmp_path: Path) -> Home:
    shutil.copytree(small_home.var, tmp_path / "var")
    return Home(tmp_path)


def asked(client: httpx.Client, *people: str) -> dict[str, Any]:
    answer = client.post("/v1/scores", json={"subscriber_ids": people, "models": ["churn"]})
    assert answer.status_code == 200
    return {row["subscriber_id"]: row for row in answer.json()["scores"]}


def within(seconds: float, holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


@pytest.mark.slow
def test_within_a_second_of_a_click_the_score_knows_of_it(home: Home) -> None:
    now = EventLog(home).end() + timedelta(hours=1)
    people = sorted(set(pq.read_table(home.event_log / "subscribers.parquet")["subscriber_id"].to_pylist()))[:300]
    key = create_key(ServingSettings(home=home.root).keys, "click")
    with (
        service(home.root, "/readyz", INBOX_NOW=now.isoformat()) as (url, _),
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=5.0) as client,
    ):
        before = asked(client, "p1", *people)
        likely = {who: row["churn"]["probability"] for who, row in before.items() if row["status"] == "ok"}
        leaving = max(likely, key=lambda who: likely[who])
        assert before["p1"]["status"] == "prior"
        # Of a newcomer the whole log is asked first, which takes longer than one more event of somebody known.
        for who, seconds in ((leaving, 1.0), ("p1", 15.0)):
            assert deliver(client, [who], now.timestamp())
            within(seconds, lambda who=who: asked(client, who)[who]["churn"] != before[who]["churn"])  # type: ignore[misc]
        # Both are guesses until they are folded, which the rows' age shows; the numbers follow the rows.
        within(10.0, lambda: asked(client, leaving)[leaving]["feature_age_s"] < before[leaving]["feature_age_s"])
        after = asked(client, "p1", leaving)
        assert after["p1"]["status"] == "ok"
        assert after[leaving]["churn"]["probability"] < before[leaving]["churn"]["probability"]
        told = {"inbox_live_events_total 2.0", "inbox_live_waiting_events 0.0", "inbox_live_failures_total 0.0"}
        within(10.0, lambda: told <= {*client.get("/metrics").text.splitlines()})
