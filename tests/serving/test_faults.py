"""Real faults, in short: a locked file, a killed or frozen server, a broken network.

Nobody waits, nothing false is said, and all is well again within seconds of the fault's end.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from features.catalogue import VIEWS, Catalogue, as_of_name
from features.errors import StoreUnavailable
from features.online import Found, SqliteStateStore, StateStore
from features.online_redis import RedisStateStore
from features.state import States, identity
from serving.breaker import BUDGET_S, Breaker
from serving.schemas import ScoreRequest
from serving.scorer import Scorer
from tests.serving.faults import HOST, MODES, Mode, Proxy, Valkey, locked, proxy, valkey

CATALOGUE = Catalogue()
IDS = [f"s{i}" for i in range(200)]
SCORED_AT = datetime(2026, 11, 23, 8, 15, tzinfo=UTC)
RECOVERY_S = 5.0
BUSY_S = 0.5
"""A machine that runs tests keeps one waiting so long in all, through no fault of the store."""
USUAL_S = 0.06
"""Half of the reads take no longer, busy machine or not: most are not even tried."""
FAULTS = [mode for mode in MODES if mode != "pass"]


def some_states() -> States:
    states = identity(CATALOGUE, len(IDS))
    states["click_count"] = np.arange(len(IDS))
    for view in VIEWS:
        states[as_of_name(view)] = 1e15
    return states


STATES = some_states()


@dataclass
class Witness:
    """Reads again and again, and remembers how long it took and whether anything false was said."""

    breaker: Breaker
    answered_s: list[float] = field(default_factory=list)
    """How long each took."""
    refused_s: list[float] = field(default_factory=list)

    def read(self, ids: list[str]) -> None:
        began = time.monotonic()
        try:
            states, found = self.breaker.read(ids, CATALOGUE)
        except StoreUnavailable:
            self.refused_s.append(time.monotonic() - began)
        else:
            self.answered_s.append(time.monotonic() - began)
            places = [int(one[1:]) for one in ids]
            assert found.all()
            assert states.tobytes() == STATES[places].tobytes()

    def read_for(self, seconds: float) -> None:
        """One, some, many: small and large answers."""
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            for count in (1, 10, len(IDS)):
                self.read(IDS[-count:])
            time.sleep(0.002)

    def read_apart(self, seconds: float) -> None:
        """In a thread of one's own, with a connection of one's own."""
        with closing(self.breaker.store):
            self.read_for(seconds)

    def sees_it_well(self) -> bool:
        """Three answers in a row."""
        before = len(self.refused_s)
        for count in (1, 10, len(IDS)):
            self.read(IDS[:count])
        return len(self.refused_s) == before

    def waited_little(self) -> bool:
        """One budget for each read that was tried in vain, and for the others next to nothing."""
        owed_s = self.breaker.failures * self.breaker.budget_s
        return median(self.answered_s + self.refused_s) < USUAL_S and sum(self.refused_s) < owed_s + BUSY_S


def until(holds: Callable[[], bool]) -> bool:
    give_up_at = time.monotonic() + RECOVERY_S
    while time.monotonic() < give_up_at:
        if holds():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "online.db"
    SqliteStateStore(path).write(IDS, STATES)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        with closing(RedisStateStore(server.url)) as store:
            store.write(IDS, STATES)
        yield server


@pytest.fixture
def wire(server: Valkey) -> Iterator[Proxy]:
    with proxy(server.port) as wire:
        yield wire


@contextmanager
def guarded(store: StateStore) -> Iterator[Breaker]:
    with closing(store), closing(Breaker(store, BUDGET_S)) as breaker:
        yield breaker


def statuses(scorer: Scorer, ids: list[str]) -> tuple[set[str], bool]:
    scores = scorer.score(ScoreRequest(subscriber_ids=tuple(ids)), SCORED_AT)
    return set(scores.listed("status")), scores.store_failed


class Sluggish(SqliteStateStore):
    """Cares little how long it may take, but fails in the end."""

    def read(
        self, subscriber_ids: Sequence[str], catalogue: Catalogue, timeout_s: float | None = None
    ) -> tuple[States, Found]:
        time.sleep(0.9)
        raise StoreUnavailable("it took too long")


def test_a_witness_notices_a_single_read_that_takes_longer_than_it_may(tmp_path: Path) -> None:
    with guarded(Sluggish(tmp_path / "online.db")) as breaker:
        witness = Witness(breaker)
        witness.read_for(1.0)
        assert breaker.failures == 1
        assert not witness.waited_little()


def test_a_locked_database_means_priors_at_once_and_passes(database: Path) -> None:
    with guarded(SqliteStateStore(database)) as breaker:
        scorer = Scorer({}, breaker, 3600.0)
        with locked(database):
            began = time.monotonic()
            assert statuses(scorer, IDS[:1]) == ({"prior"}, True)
            assert time.monotonic() - began < BUDGET_S + BUSY_S
            assert breaker.is_open
            began = time.monotonic()
            assert all(statuses(scorer, IDS) == ({"prior"}, True) for _ in range(20))
            assert time.monotonic() - began < BUDGET_S + BUSY_S
        assert until(lambda: statuses(scorer, IDS) == ({"stale"}, False))


def test_a_locked_database_is_given_no_more_than_the_budget_whatever_the_store_would_wait(database: Path) -> None:
    patient = SqliteStateStore(database, timeout_s=30.0)
    with guarded(patient) as breaker, locked(database):
        witness = Witness(breaker)
        witness.read_for(0.2)
        assert witness.waited_little()
        assert not witness.answered_s


def test_a_database_that_is_not_there_yet_is_found_once_it_is(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "later.db"
    with guarded(SqliteStateStore(path)) as breaker:
        witness = Witness(breaker)
        witness.read_for(0.2)
        assert (len(witness.answered_s), breaker.opened) == (0, 1)
        SqliteStateStore(path).write(IDS, STATES)
        assert until(witness.sees_it_well)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_network_keeps_nobody_waiting_and_says_nothing_false(wire: Proxy, fault: Mode) -> None:
    with guarded(RedisStateStore(wire.url)) as breaker:
        witness = Witness(breaker)
        assert until(witness.sees_it_well)
        witness = Witness(breaker)
        wire.switch(fault)
        witness.read_for(1.0)
        assert len(witness.refused_s) > 100 > len(witness.answered_s)
        assert witness.waited_little()
        assert breaker.failures < 20
        wire.switch("pass")
        assert until(witness.sees_it_well)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_service_that_starts_into_a_broken_network_finds_the_store_once_it_is_mended(
    wire: Proxy, fault: Mode
) -> None:
    wire.switch(fault)
    with guarded(RedisStateStore(wire.url)) as breaker:
        witness = Witness(breaker)
        witness.read_for(0.3)
        assert witness.waited_little()
        wire.switch("pass")
        assert until(witness.sees_it_well)


@pytest.mark.slow
def test_a_flapping_network_costs_little_and_says_nothing_false(wire: Proxy) -> None:
    with guarded(RedisStateStore(wire.url)) as breaker, ThreadPoolExecutor(2) as threads:
        witnesses = [Witness(breaker) for _ in range(2)]
        reading = [threads.submit(witness.read_apart, 4.0) for witness in witnesses]
        for i in range(38):
            wire.switch(FAULTS[i // 2 % len(FAULTS)] if i % 2 else "pass")
            time.sleep(0.1)
        wire.switch("pass")
        for future in reading:
            future.result(timeout=10.0)
        assert all(witness.waited_little() for witness in witnesses)
        assert until(witnesses[0].sees_it_well)


def test_a_server_that_is_killed_is_missed_once_and_found_again(server: Valkey) -> None:
    with guarded(RedisStateStore(server.url)) as breaker:
        witness = Witness(breaker)
        assert until(witness.sees_it_well)
        server.kill()
        try:
            witness.read_for(0.5)
        finally:
            server.start()
        assert len(witness.refused_s) > 50
        assert witness.waited_little()
        assert until(witness.sees_it_well)


def test_a_server_that_is_frozen_keeps_nobody_waiting(server: Valkey) -> None:
    with guarded(RedisStateStore(server.url)) as breaker:
        witness = Witness(breaker)
        assert until(witness.sees_it_well)
        server.freeze()
        try:
            witness.read_for(0.5)
        finally:
            server.thaw()
        assert len(witness.refused_s) > 50
        assert witness.waited_little()
        assert until(witness.sees_it_well)


def test_the_scorer_answers_priors_while_the_server_is_gone(server: Valkey, wire: Proxy) -> None:
    with guarded(RedisStateStore(wire.url)) as breaker:
        scorer = Scorer({}, breaker, 3600.0)
        assert until(lambda: statuses(scorer, IDS) == ({"stale"}, False))
        wire.switch("stall")
        assert statuses(scorer, IDS[:1]) == ({"prior"}, True)
        assert statuses(scorer, IDS) == ({"prior"}, True)
        wire.switch("pass")
        assert until(lambda: statuses(scorer, IDS) == ({"stale"}, False))


def test_the_proxy_makes_the_faults_it_says(wire: Proxy) -> None:
    assert first_said(wire.port) == b"+PONG\r\n"
    wire.switch("trickle")
    assert first_said(wire.port) == b"+"
    wire.switch("garbage")
    assert first_said(wire.port) != b"+PONG\r\n"
    wire.switch("cut")
    assert first_said(wire.port) in (b"+PO", b"reset")
    wire.switch("refuse")
    with pytest.raises(ConnectionRefusedError):
        first_said(wire.port)
    wire.switch("stall")
    with pytest.raises(TimeoutError):
        first_said(wire.port)
    wire.switch("pass")
    assert first_said(wire.port) == b"+PONG\r\n"


def test_what_was_said_in_silence_arrives_late(wire: Proxy) -> None:
    with socket.create_connection((HOST, wire.port), timeout=5.0) as connection:
        wire.switch("stall")
        connection.sendall(b"PING\r\n")
        late = threading.Timer(0.1, wire.switch, ("pass",))
        late.start()
        assert connection.recv(16) == b"+PONG\r\n"
        late.join()


def first_said(port: int) -> bytes:
    """The first that comes back for a PING."""
    with socket.create_connection((HOST, port), timeout=0.5) as connection:
        connection.sendall(b"PING\r\n")
        try:
            return connection.recv(16)
        except ConnectionResetError:
            return b"reset"
