"""The process that brings what was accepted into the online store: soon, again after failures, and never left behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from features.catalogue import Catalogue
from features.catchup import LiveUpdater
from features.event import Event
from features.home import Home
from features.inbox import Delivery, Inbox
from features.stores import open_store
from serving.webhooks.follower import NICENESS, Follower, Progress
from serving.webhooks.live import LONGEST_REST_S, Report, rest_s
from tests.serving.senders import NOW

NOW_US = int(NOW.timestamp() * 1_000_000)
MANY = 400


def until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


@contextmanager
def following(home: Home, every_s: float = 30.0, command: Sequence[str] = ()) -> Iterator[Follower]:
    follower = Follower(home, every_s, command)
    try:
        yield follower
    finally:
        follower.close()
        assert children() == []


def children() -> list[psutil.Process]:
    """Processes of this one, the ended ones that nobody asked after included; multiprocessing keeps its own for longer."""
    found = psutil.Process().children()
    return [
        child for child in found if child.status() == psutil.STATUS_ZOMBIE or "serving.webhooks.live" in child.cmdline()
    ]


def child() -> psutil.Process:
    until(lambda: len(children()) == 1)
    return children()[0]


def accept(home: Home, *numbers: int) -> int:
    events = [Event(f"e{number}", f"s{number}", "click", NOW_US - 60_000_000, 0, agent="person") for number in numbers]
    with closing(Inbox(home)) as inbox:
        return inbox.accept([Delivery("test", events)], NOW_US)[0].new


def known(home: Home, *numbers: int) -> list[bool]:
    return rows(home, *numbers)[1]


def rows(home: Home, *numbers: int) -> tuple[bytes, list[bool]]:
    catalogue = Catalogue.load(home.catalogue)
    with closing(open_store(home)) as store:
        states, found = store.read([f"s{number}" for number in numbers], catalogue)
    return states.tobytes(), found.tolist()


def made(root: Path) -> Home:
    home = Home(root)
    home.var.mkdir(parents=True)
    Catalogue().save(home.catalogue)
    return home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path)


def test_what_is_accepted_is_in_the_store_soon_after_the_word(home: Home) -> None:
    with following(home) as follower:
        follower.wake(accept(home, 1, 2, 3))
        until(lambda: follower.progress.events == 3)
        assert known(home, 1, 2, 3, 4) == [True, True, True, False]
        until(lambda: follower.progress.waiting_events == 0)
        follower.wake(accept(home, 4))
        until(lambda: known(home, 4) == [True])
    assert follower.progress.failures == 0


def test_what_other_processes_accept_is_found_without_a_word(home: Home) -> None:
    with following(home, 0.05) as follower:
        child()
        accept(home, 1)
        until(lambda: follower.progress.events == 1)
        assert follower.progress.waiting_events == 0


def test_nothing_is_done_before_there_is_a_catalogue_and_then_everything(home: Home) -> None:
    home.catalogue.unlink()
    with following(home, 0.05) as follower:
        follower.wake(accept(home, 1))
        until(lambda: follower.progress.waiting_events == 0)
        assert not home.online.exists()
        Catalogue().save(home.catalogue)
        until(lambda: follower.progress.events == 1)
        Catalogue(content=("shoes",)).save(home.catalogue)
        follower.wake(accept(home, 2))
        until(lambda: follower.progress.events == 2)
        assert known(home, 1, 2) == [True, True]
    assert follower.progress.failures == 0


def test_what_was_accepted_waits_until_a_look_has_seen_it(home: Home) -> None:
    with following(home) as follower:
        process = child()
        until(lambda: home.online.exists())
        process.suspend()
        follower.wake(accept(home, 1, 2))
        time.sleep(0.1)
        assert follower.progress.waiting_events == 2
        process.resume()
        until(lambda: follower.progress.waiting_events == 0)
        assert known(home, 1, 2) == [True, True]


def test_a_word_more_than_the_pipe_holds_makes_nobody_wait_and_is_made_up_for(home: Home) -> None:
    with following(home, 0.2) as follower:
        process = child()
        until(lambda: home.online.exists())
        process.suspend()
        began = time.monotonic()
        for _ in range(20_000):
            follower.wake(1)
        assert time.monotonic() - began < 2
        process.resume()
        until(lambda: follower.progress.heard_events == 20_000 and follower.progress.waiting_events == 0)


def test_after_failures_it_goes_on_and_says_nothing_of_anybody(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.catalogue.write_text('{"content": "anna@example.org"')
    with caplog.at_level(logging.DEBUG), following(home) as follower:
        follower.wake(accept(home, 1))
        until(lambda: follower.progress.failures_in_a_row == 2)
        pid = child().pid
        Catalogue().save(home.catalogue)
        until(lambda: follower.progress.events == 1)
        assert child().pid == pid
        assert follower.progress.failures_in_a_row == 0
    lines = [record.getMessage() for record in caplog.records if record.name == "inbox.live"]
    assert len(lines) == follower.progress.failures and lines[0].startswith("live features wait")
    assert "anna" not in caplog.text


def test_one_that_is_killed_at_its_work_is_started_again_and_counts_nothing_twice(tmp_path: Path) -> None:
    home, calm = made(tmp_path / "home"), made(tmp_path / "calm")
    numbers = range(MANY)
    for each in (home, calm):
        accept(each, *numbers)
    with LiveUpdater(calm, Inbox(calm), open_store(calm)) as updater:
        updater.catch_up()
    with following(home, 0.05) as follower:
        follower.wake(MANY)
        for pause_s in (0.0, 0.6, 0.8):
            process = child()
            time.sleep(pause_s)
            failures = follower.progress.failures
            process.send_signal(signal.SIGKILL)
            until(lambda failures=failures: follower.progress.failures > failures)  # type: ignore[misc]
        until(lambda: follower.progress.waiting_events == 0 and follower.progress.failures_in_a_row == 0)
        # Strangers: guessed at once, folded a little later.
        until(lambda: rows(home, *numbers) == rows(calm, *numbers))
    assert known(home, *numbers) == [True] * MANY
    assert follower.progress.failures == 3


def test_one_that_always_ends_is_started_less_and_less_often(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    with following(home, command=[sys.executable, "-S", "-c", "raise SystemExit(3)"]) as follower:
        until(lambda: follower.progress.failures == 3)
        follower.wake(1)
        assert follower.progress.waiting_events == 1
    assert "ended with 3" in caplog.text
    rests = [rest_s(failures) for failures in range(1, 30)]
    assert rests == sorted(rests) and rests[0] == 0.5 and rests[-1] == LONGEST_REST_S


def test_one_that_is_told_to_end_is_no_failure_and_is_started_again(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    with following(home) as follower:
        first = child()
        first.terminate()
        until(lambda: not first.is_running())
        follower.wake(accept(home, 1))
        until(lambda: follower.progress.waiting_events == 0)
        assert known(home, 1) == [True]
        assert follower.progress.failures == 0
    assert caplog.text == ""


def test_a_program_that_is_not_there_ends_nothing(home: Home) -> None:
    with following(home, command=["/nowhere/to/be/found"]) as follower:
        until(lambda: follower.progress.failures == 2)
        follower.wake(1)


def test_what_is_no_report_is_passed_over(home: Home) -> None:
    said = "import sys; print('hello'); print('[1]'); print('{\"heard\": 7}', flush=True); sys.stdin.read()"
    with following(home, command=[sys.executable, "-S", "-c", said]) as follower:
        until(lambda: follower.progress.covered_events == 7)
    assert follower.progress.failures == 0


def test_it_stops_soon_while_it_starts_waits_or_rests(home: Home) -> None:
    for command, pause_s in (((), 0.0), ((), 1.5), (("/nowhere",), 0.1)):
        with following(home, command=command):
            time.sleep(pause_s)
            began = time.monotonic()
        assert time.monotonic() - began < 2.5


def test_it_gives_way_to_the_service(home: Home) -> None:
    with following(home):
        until(lambda: child().nice() == min(psutil.Process().nice() + NICENESS, 19))


def test_it_loads_nothing_of_the_service() -> None:
    heavy = ("bentoml", "fastapi", "starlette", "pydantic", "lightgbm", "feast", "cryptography")
    program = f"import sys, serving.webhooks.live; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("looking", [False, True])
def test_it_ends_by_itself_when_whoever_started_it_is_killed(home: Home, looking: bool) -> None:
    if looking:
        accept(home, *range(MANY))
    program = (
        "import sys, time; from pathlib import Path; from features.home import Home; "
        "from serving.webhooks.follower import Follower; Follower(Home(Path(sys.argv[1]))); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(home.root)]) as parent:
        try:
            process = psutil.Process(parent.pid)
            until(lambda: bool(process.children()))
            (live,) = process.children()
            until(home.online.exists if not looking else lambda: live.cpu_times().user > 0.3)
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    live.wait(5)


def test_a_failed_look_covers_nothing() -> None:
    progress = Progress(heard_events=5)
    progress.add(Report(5, failure="StoreUnavailable"))
    assert (progress.waiting_events, progress.failures, progress.failures_in_a_row) == (5, 1, 1)
    progress.add(Report(3, 2, 3, 1, 0, 0.5))
    assert (progress.waiting_events, progress.events, progress.refolded, progress.failures_in_a_row) == (2, 3, 1, 0)
