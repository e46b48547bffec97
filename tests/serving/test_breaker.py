"""The breaker over a store that does what it is told: what opens it, what closes it, who pays."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.catalogue import Catalogue
from features.errors import StoreUnavailable
from features.online import Found
from features.state import States, identity
from serving import breaker as module
from serving.breaker import ATTEMPTS, FEW_IDS, Breaker

CATALOGUE = Catalogue()
BUDGET_S = 0.025
RECOVERY_S = 5.0
FEW, MANY = ["a"], [f"s{i}" for i in range(FEW_IDS + 1)]


class Store:
    """Reads as ``requests`` does for requests and as ``probes`` does for the probe."""

    def __init__(self) -> None:
        self.requests: Callable[[float], None] = well
        self.probes: Callable[[float], None] = well
        self.asked: list[float] = []
        """Time allowed to each read of a request."""
        self.probed = self.closed = 0

    def becomes(self, behaviour: Callable[[float], None]) -> None:
        self.probes = self.requests = behaviour

    def read(
        self, subscriber_ids: Sequence[str], catalogue: Catalogue, timeout_s: float | None = None
    ) -> tuple[States, Found]:
        assert timeout_s is not None
        if threading.current_thread().name == "store-probe":
            self.probed += 1
            self.probes(timeout_s)
        else:
            self.asked.append(timeout_s)
            self.requests(timeout_s)
        return identity(catalogue, len(subscriber_ids)), np.ones(len(subscriber_ids), dtype=np.bool_)

    def close(self) -> None:
        assert threading.current_thread().name == "store-probe"
        self.closed += 1


def well(allowed_s: float) -> None:
    pass


def down(allowed_s: float) -> None:
    raise StoreUnavailable("connection refused")


def silent(allowed_s: float) -> None:
    time.sleep(allowed_s)
    raise StoreUnavailable("no answer in time")


def slow(allowed_s: float) -> None:
    time.sleep(2 * BUDGET_S)


def faulty(allowed_s: float) -> None:
    raise ZeroDivisionError


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def breaker(store: Store) -> Iterator[Breaker]:
    with closing(Breaker(store, BUDGET_S)) as breaker:
        yield breaker


def refused(breaker: Breaker, ids: Sequence[str] = FEW, timeout_s: float | None = None) -> bool:
    try:
        breaker.read(ids, CATALOGUE, timeout_s)
    except StoreUnavailable:
        return True
    return False


def until(holds: Callable[[], bool], timeout_s: float = RECOVERY_S) -> bool:
    give_up_at = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < give_up_at:
        time.sleep(0.005)
    return holds()


def settled(breaker: Breaker, store: Store) -> None:
    """Wait for the probe that a doubtful read asked for."""
    assert until(lambda: store.probed > 0)
    time.sleep(0.01)


def test_what_the_store_answers_comes_through_within_the_budget(store: Store, breaker: Breaker) -> None:
    states, found = breaker.read(FEW, CATALOGUE)
    assert states.tobytes() == identity(CATALOGUE, 1).tobytes()
    assert found.tolist() == [True]
    breaker.read(FEW, CATALOGUE, 0.010)
    breaker.read(FEW, CATALOGUE, 10.0)
    assert store.asked == [BUDGET_S, 0.010, BUDGET_S]
    assert (breaker.is_open, breaker.opened, breaker.failures, store.probed) == (False, 0, 0, 0)


@pytest.mark.parametrize("trouble", [down, silent])
@pytest.mark.parametrize("ids", [FEW, MANY], ids=["few", "many"])
def test_a_store_in_trouble_is_asked_once_or_until_a_probe_agrees_and_then_left_alone(
    store: Store, breaker: Breaker, trouble: Callable[[float], None], ids: list[str]
) -> None:
    store.becomes(trouble)
    assert refused(breaker, ids)
    assert until(lambda: breaker.is_open)
    asked = len(store.asked)
    began = time.monotonic()
    assert all(refused(breaker, ids) for _ in range(1_000))
    assert time.monotonic() - began < 1.0
    assert len(store.asked) == asked == breaker.failures == breaker.opened == 1


def test_a_hiccup_after_a_long_calm_costs_others_next_to_nothing(store: Store, breaker: Breaker) -> None:
    store.requests = down
    assert refused(breaker)
    store.requests = well
    assert until(lambda: not breaker.is_open, timeout_s=1.0)
    assert not refused(breaker)
    assert (breaker.opened, breaker.failures) == (1, 1)


def test_a_read_with_less_time_than_the_budget_does_not_open_it(store: Store, breaker: Breaker) -> None:
    store.requests = silent
    assert refused(breaker, timeout_s=0.005)
    settled(breaker, store)
    assert (breaker.is_open, breaker.opened, breaker.failures) == (False, 0, 1)


def test_a_store_that_cannot_read_many_in_time_still_reads_few(store: Store, breaker: Breaker) -> None:
    store.requests = silent
    assert refused(breaker, MANY)
    settled(breaker, store)
    store.requests = well
    assert not refused(breaker)
    assert breaker.opened == 0


def test_a_late_answer_is_used_and_does_not_open_it_when_the_store_is_well(store: Store, breaker: Breaker) -> None:
    store.requests = slow
    assert not refused(breaker)
    settled(breaker, store)
    assert breaker.opened == 0


def test_a_store_that_is_always_late_is_left_alone(store: Store, breaker: Breaker) -> None:
    store.becomes(slow)
    assert not refused(breaker)
    assert until(lambda: breaker.is_open)
    assert refused(breaker)


def test_a_silent_store_is_found_out_by_impatient_callers_too(store: Store, breaker: Breaker) -> None:
    store.becomes(silent)
    assert until(lambda: refused(breaker, timeout_s=0.002) and breaker.is_open)


def test_one_late_probe_does_not_keep_a_well_store_away(store: Store, breaker: Breaker) -> None:
    def slow_at_first(allowed_s: float) -> None:
        if store.probed % ATTEMPTS:
            slow(allowed_s)

    store.probes, store.requests = slow_at_first, down
    assert refused(breaker)
    assert until(lambda: not breaker.is_open)
    assert store.probed == ATTEMPTS


def test_a_request_without_time_left_says_nothing_about_the_store(store: Store, breaker: Breaker) -> None:
    assert refused(breaker, timeout_s=0.0)
    assert refused(breaker, timeout_s=-1.0)
    assert (store.asked, store.probed, breaker.failures, breaker.is_open) == ([], 0, 0, False)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [down, silent, slow])
def test_it_closes_by_itself_within_five_seconds_however_long_it_lasted(
    store: Store, breaker: Breaker, trouble: Callable[[float], None]
) -> None:
    store.becomes(trouble)
    refused(breaker)
    time.sleep(2.5)
    assert breaker.is_open
    store.becomes(well)
    assert until(lambda: not refused(breaker))


@pytest.mark.slow
def test_a_store_that_answers_probes_but_not_requests_costs_a_budget_now_and_then(
    store: Store, breaker: Breaker
) -> None:
    store.requests = silent
    give_up_at = time.monotonic() + 3.0
    while time.monotonic() < give_up_at:
        refused(breaker)
        time.sleep(0.001)
    assert 2 <= len(store.asked) <= 8
    store.requests = well
    assert until(lambda: not refused(breaker))


def test_after_a_long_calm_earlier_trouble_is_forgotten(
    store: Store, breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.requests = down
    for _ in range(4):
        assert until(lambda: not breaker.is_open)
        assert refused(breaker)
    assert until(lambda: not breaker.is_open)
    monkeypatch.setattr(module, "CALM_S", 0.1)
    time.sleep(0.1)
    assert refused(breaker)
    assert until(lambda: not breaker.is_open, timeout_s=0.3)


def test_trouble_and_its_end_are_logged_once_each(
    store: Store, breaker: Breaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="inbox.breaker")
    store.becomes(down)
    assert all(refused(breaker) for _ in range(100))
    store.becomes(well)
    assert until(lambda: not breaker.is_open)
    assert until(lambda: len(caplog.messages) > 1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "connection refused" in caplog.messages[0]
    assert "read again" in caplog.messages[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_probe_that_blows_up_is_followed_by_another(store: Store, breaker: Breaker) -> None:
    store.probes, store.requests = faulty, down
    assert refused(breaker)
    assert until(lambda: store.probed > 2)
    store.becomes(well)
    assert until(lambda: not refused(breaker))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_probe_that_blows_up_in_doubt_opens_it(store: Store, breaker: Breaker) -> None:
    store.probes, store.requests = faulty, silent
    assert refused(breaker, MANY)
    assert until(lambda: breaker.is_open)


@pytest.mark.parametrize("trouble", [well, down, silent])
def test_closing_ends_the_thread_and_the_probing(trouble: Callable[[float], None]) -> None:
    before, store = set(threading.enumerate()), Store()
    breaker = Breaker(store, BUDGET_S)
    store.becomes(trouble)
    refused(breaker)
    breaker.close()
    breaker.close()
    assert set(threading.enumerate()) <= before
    probed = store.probed
    time.sleep(0.2)
    assert store.probed == probed


def test_the_probe_keeps_no_connection_once_the_store_is_well(store: Store, breaker: Breaker) -> None:
    store.requests = down
    assert refused(breaker)
    assert until(lambda: not breaker.is_open)
    assert until(lambda: store.closed == 1)


def test_the_thread_sleeps_while_all_is_well(store: Store, breaker: Breaker) -> None:
    assert not any(refused(breaker) for _ in range(1_000))
    time.sleep(0.1)
    assert store.probed == 0


READS = st.tuples(
    st.sampled_from([well, down, silent, slow]),
    st.sampled_from([FEW, MANY, []]),
    st.sampled_from([None, 0.001, 0.0, 1.0]),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(READS, max_size=6))
def test_whatever_happens_it_answers_or_says_unavailable_and_never_asks_while_open(
    reads: list[tuple[Callable[[float], None], list[str], float | None]],
) -> None:
    store = Store()
    store.probes = down
    with closing(Breaker(store, BUDGET_S)) as breaker:
        for behaviour, ids, timeout_s in reads:
            # Probes fail all the while: what is open stays open.
            was_open, asked = breaker.is_open, len(store.asked)
            store.requests = behaviour
            answered = not refused(breaker, ids, timeout_s)
            assert not (was_open and (answered or len(store.asked) > asked))
        store.becomes(well)
        assert until(lambda: not refused(breaker))


def test_threads_that_read_at_once_pay_at_most_once_each(store: Store, breaker: Breaker) -> None:
    store.becomes(silent)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda _: refused(breaker), range(400)))
    assert len(store.asked) <= 8
    assert breaker.failures == len(store.asked)
    assert breaker.opened == 1
