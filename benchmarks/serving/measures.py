"""What is compared: one function per row of issue 3's table.

What enters: a ``Bench``. What leaves: a ``Measured`` each. The promise: contenders of one measure take turns, round by
round, and ratios are made within a round, so that a slow minute of the machine is everybody's; what fails is counted,
never hidden; nothing is asserted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import redis

from benchmarks.report import Goal, Measured
from benchmarks.serving import floor, load, ours
from benchmarks.serving.contenders import ROOT, Bench, Database, Service
from benchmarks.serving.data import sample
from features.contract import MODELS
from features.home import Home
from features.stores import open_store
from pipelines.console import Share
from tests.serving import faults

IDS = 1000
Timed = Callable[[int], float]
"""Called with the number of the round; gives that round's figure."""


def take_turns(contenders: Mapping[str, Timed], rounds: int, share: Share) -> dict[str, list[float]]:
    """A B C A B C …, every other round backwards: who comes second finds the same rows warm."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    steps = rounds * len(contenders)
    for number in range(rounds):
        for name, timed in list(contenders.items())[:: -1 if number % 2 else 1]:
            found[name].append(timed(number))
            share(sum(map(len, found.values())) / steps)
    return found


# --- the store -------------------------------------------------------------------------------------------------------


def store_read(bench: Bench) -> Measured:
    """1,000 subscribers out of the online store, in ms."""
    measured = Measured("store_read", f"Read {IDS:,} subscribers from the store")
    contenders: dict[str, Timed] = {}
    for database in bench.databases:
        read = _our_read(bench, database)
        contenders[f"ours {database}"] = _read_timer(bench, read, 5 if bench.quick else 30)
        contenders[f"raw {database}"] = _read_timer(bench, _raw_read(bench, database), 5 if bench.quick else 30)
    for database in bench.databases:
        contenders[f"stock {database}"] = _read_timer(bench, _stock_read(bench, database), 2)
    with bench.narrator.step("store_read") as share:
        found = take_turns(contenders, 3 if bench.quick else 7, share)
    for name, values in found.items():
        measured.add(name, values, "ms")
    for database in bench.databases:
        mine = found[f"ours {database}"]
        measured.ratio(f"stock / ours, {database}", found[f"stock {database}"], mine, Goal(">=", 200))
        measured.ratio(f"ours / raw, {database}", mine, found[f"raw {database}"], Goal("<=", 1.5))
    return measured


def _our_read(bench: Bench, database: Database) -> floor.Read:
    store, catalogue = open_store(bench.our_home(database)), bench.data.catalogue
    _, found = store.read(sample(bench.data, IDS, 0), catalogue)
    if not found.all():
        raise RuntimeError(f"our store on {database} lacks {(~found).sum()} of {IDS:,} rows")
    return lambda ids: store.read(ids, catalogue)


def _raw_read(bench: Bench, database: Database) -> floor.Read:
    if database == "sqlite":
        return floor.raw_select(bench.our_home("sqlite").online)
    bench.our_home("redis")
    return floor.raw_mget(bench.redis("ours"))


def _stock_read(bench: Bench, database: Database) -> floor.Read:
    store, references = bench.stock_store(database)

    def read(ids: Sequence[str]) -> object:
        rows = [{"subscriber_id": one} for one in ids]
        return store.get_online_features(features=references, entity_rows=rows).to_dict()

    return read


def _read_timer(bench: Bench, read: floor.Read, times: int) -> Timed:
    """Median of a few reads of ids that change from read to read, the same for everybody, after one to warm up."""

    def timed(number: int) -> float:
        read(sample(bench.data, IDS, 1000 * number + times))
        return median(_ms(read, sample(bench.data, IDS, 1000 * number + i)) for i in range(times))

    return timed


def _ms(work: Callable[..., object], *given: object) -> float:
    before = time.perf_counter()
    work(*given)
    return (time.perf_counter() - before) * 1000


def materialize(bench: Bench) -> Measured:
    """Everybody into the online store."""
    count = len(bench.data.subscriber_ids)
    measured = Measured("materialize", f"Materialize {count:,} subscribers")
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(1 if bench.quick else 3):
        for database in bench.databases:
            found.setdefault(f"ours {database}", []).append(_fill_ours(bench, database))
            found.setdefault(f"stock {database}", []).append(_fill_stock(bench, database))
    seconds = {name: [run["seconds"] for run in runs] for name, runs in found.items()}
    stored = {name: [run["bytes"] for run in runs] for name, runs in found.items()}
    for name in found:
        measured.add(f"{name}, time", seconds[name], "s")
        measured.add(f"{name}, stored", [size / 1e6 for size in stored[name]], "MB")
        measured.add(f"{name}, memory", [run["peak_bytes"] / 1e6 for run in found[name]], "MB")
    for database in bench.databases:
        mine, theirs = f"ours {database}", f"stock {database}"
        measured.ratio(f"stock / ours, {database}, time", seconds[theirs], seconds[mine], Goal(">=", 50))
        on_disk = Goal("<=", 0.1) if database == "sqlite" else None
        measured.ratio(f"ours / stock, {database}, stored", stored[mine], stored[theirs], on_disk)
    measured.remarks.append("stored: the database file for SQLite, the server's used memory for Redis")
    return measured


def _fill_ours(bench: Bench, database: Database) -> dict[str, float]:
    target = Home(bench.work / "homes" / "materialize")
    shutil.rmtree(target.root, ignore_errors=True)
    url = bench.redis("ours") if database == "redis" else None
    empty = _emptied(url) if url else 0.0
    words = [str(bench.data.home.root), str(target.root), str(bench.data.as_of)]
    with ours.store_url(url), bench.narrator.step(f"our materialize ({database})"):
        command = [sys.executable, "-m", "benchmarks.serving.fill", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"our materialize failed: {done.stderr.decode()[-500:]}")
    run: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return run | {"bytes": _used(url) - empty if url else _on_disk(target.online)}


def _fill_stock(bench: Bench, database: Database) -> dict[str, float]:
    bench.empty_stock(database)
    url = bench.redis("stock") if database == "redis" else None
    empty = _used(url) if url else 0.0
    run = bench.fill_stock(database)
    return run | {"bytes": _used(url) - empty if url else _on_disk(bench.stock_repository(database).database)}


def _emptied(url: str) -> float:
    redis.Redis.from_url(url).execute_command("FLUSHALL", "SYNC")
    return _used(url)


def _used(url: str) -> float:
    return float(redis.Redis.from_url(url).info("memory")["used_memory"])


def _on_disk(database: Path) -> float:
    """The database with its log."""
    return float(sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*")))


# --- HTTP ------------------------------------------------------------------------------------------------------------


def http_bulk(bench: Bench) -> Measured:
    """One client, 1,000 subscribers and three models a request, one request after another."""
    measured = Measured("http_bulk", f"HTTP, {IDS:,} subscribers × three models, one client")
    services = _services(bench)
    seconds = 2.0 if bench.quick else 5.0
    contenders: dict[str, Timed] = {
        service.name: _closed_loop(bench, service, IDS, 1, seconds, lambda records: _rows_rate(records, IDS))
        for service in services
    }
    arrow = bench.our_service(bench.databases[0])
    contenders[f"{arrow.name}, Arrow"] = _closed_loop(
        bench, arrow, IDS, 1, seconds, lambda records: _rows_rate(records, IDS), ARROW
    )
    empty = _closed_loop(bench, bench.empty_service(), IDS, 1, seconds / 2, lambda found: _median_ms(found))
    predict = floor.bare_predict(bench.data, IDS)
    contenders["empty endpoint"] = empty
    contenders["bare predict"] = lambda _: median(_ms(predict) for _ in range(10))
    for database in bench.databases:
        contenders[f"raw {database}"] = _read_timer(bench, _raw_read(bench, database), 10)
    with bench.narrator.step("http_bulk") as share:
        found = take_turns(contenders, 3 if bench.quick else 7, share)
    for name, values in found.items():
        measured.add(name, values, "ms" if name in FLOORS else "rows/s")
    for database in bench.databases:
        mine = found[f"ours {database}"]
        measured.ratio(f"ours / stock, {database}, rows/s", mine, found[f"stock {database}"], Goal(">=", 20))
        parts = zip(found[f"raw {database}"], found["bare predict"], found["empty endpoint"], strict=True)
        ours_ms = [IDS / rate * 1000 for rate in mine]
        measured.ratio(f"ours / floor, {database}, ms", ours_ms, [sum(part) for part in parts], Goal("<=", 1.4))
    measured.remarks.append(
        "floor: raw read + bare predict of three models + empty endpoint, medians of the same round"
    )
    return measured


FLOORS = ("empty endpoint", "bare predict", "raw sqlite", "raw redis")
ARROW = {"accept": "application/vnd.apache.arrow.stream"}


def http_one(bench: Bench) -> Measured:
    """Four clients, one subscriber a request."""
    measured = Measured("http_one", "HTTP, one subscriber, 4 clients")
    services = [*_services(bench), bench.empty_service()]
    kept: dict[str, list[load.Records]] = {service.name: [] for service in services}

    def timer(service: Service) -> Timed:
        def note(records: load.Records) -> float:
            kept[service.name].append(records)
            return len(records.status) / records.span

        return _closed_loop(bench, service, 1, 4, 2.0 if bench.quick else 5.0, note)

    contenders = {service.name: timer(service) for service in services}
    with bench.narrator.step("http_one") as share:
        found = take_turns(contenders, 3 if bench.quick else 7, share)
    tails: dict[str, list[float]] = {}
    for name, values in found.items():
        tails[name] = [_percentile_ms(records, 99) for records in kept[name]]
        measured.add(name, values, "requests/s")
        measured.add(f"{name}, p50", [_percentile_ms(records, 50) for records in kept[name]], "ms")
        measured.add(f"{name}, p99", tails[name], "ms")
    for database in bench.databases:
        mine, theirs = f"ours {database}", f"stock {database}"
        measured.ratio(f"ours / stock, {database}, requests/s", found[mine], found[theirs], Goal(">=", 3))
        measured.ratio(f"ours / empty, {database}, p99", tails[mine], tails["empty endpoint"], Goal("<=", 3))
    measured.facts["generator_cpu_share"] = {name: [one.cpu_share for one in runs] for name, runs in kept.items()}
    return measured


def _services(bench: Bench) -> list[Service]:
    services = [
        *(bench.our_service(database) for database in bench.databases),
        *(bench.stock_service(database) for database in bench.databases),
    ]
    compare_answers(bench, services)
    return services


def compare_answers(bench: Bench, services: Sequence[Service]) -> None:
    """All services say the same of the same people, through httpx as through the load generator.

    Stock features are as old as the last materializing and ours are carried to now, so log-odds may differ a little.
    """
    ids = sample(bench.data, 20, 5)
    said: dict[str, np.ndarray] = {}
    for service in services:
        job = load.Job(service.url, [service.request(ids)], count=1, keep=1)
        for answer in (service.ask({"subscriber_ids": ids}), json.loads(load.run(job).bodies[0])):
            rows = answer["scores"] if isinstance(answer, dict) else answer
            if [row["subscriber_id"] for row in rows] != ids:
                raise RuntimeError(f"{service.name} answers for other subscribers than it was asked for")
            churn = [row["churn"] if isinstance(row["churn"], float) else row["churn"]["probability"] for row in rows]
            said.setdefault(service.name, np.array(churn))
    first = next(iter(said.values()))
    for name, scores in said.items():
        if np.median(np.abs(scores - first)) > 0.02:
            raise RuntimeError(f"{name} scores otherwise than {next(iter(said))}: {scores} and {first}")


def _closed_loop(
    bench: Bench,
    service: Service,
    ids: int,
    connections: int,
    seconds: float,
    figure: Callable[[load.Records], float],
    more: Mapping[str, str] | None = None,
) -> Timed:
    """A round of closed-loop load, after a short one to warm up."""

    def timed(number: int) -> float:
        requests = _requests(bench, service, ids, 50 if ids > 1 else 1000, number, more)
        if number == 0:
            load.run(load.Job(service.url, requests, connections, seconds=min(1.0, seconds)))
        records = load.run(load.Job(service.url, requests, connections, seconds))
        if (records.status != 200).any():
            raise RuntimeError(f"{service.name}: {_by_status(records)}")
        return figure(records)

    return timed


def _requests(
    bench: Bench, service: Service, ids: int, count: int, seed: int, more: Mapping[str, str] | None = None
) -> list[bytes]:
    return [service.request(sample(bench.data, ids, 10_000 * (seed + 1) + i), more) for i in range(count)]


def _rows_rate(records: load.Records, ids: int) -> float:
    """By the median request: what one client sees, one request after another."""
    return ids / float(np.median(records.seconds))


def _median_ms(records: load.Records) -> float:
    return float(np.median(records.seconds)) * 1000


def _percentile_ms(records: load.Records, percent: float) -> float:
    return float(np.percentile(records.seconds, percent)) * 1000 if len(records.seconds) else float("nan")


def _by_status(records: load.Records) -> dict[str, int]:
    statuses, counts = np.unique(records.status, return_counts=True)
    return {str(status): int(count) for status, count in zip(statuses, counts, strict=True)}


# --- overload --------------------------------------------------------------------------------------------------------


CONNECTIONS = 512
"""Open from the beginning: twice the places that the service has."""


def overload(bench: Bench) -> Measured:
    """Three times as many requests as can be answered, from an open loop."""
    measured = Measured("overload", "Overload at 3 × capacity")
    service = bench.our_service(bench.databases[0])
    rounds = 1 if bench.quick else 3
    for ids in (100, 1):
        with bench.narrator.step(f"overload, {ids} id(s) a request") as share:
            runs = [
                _overloaded(bench, service, ids, number) for number in range(rounds) if share(number / rounds) is None
            ]
        told = f"{ids} ids" if ids > 1 else "1 id"
        measured.add(f"{told}: peak goodput", [run["peak"] for run in runs], "requests/s")
        measured.add(f"{told}: goodput / peak", [run["share"] for run in runs], "", Goal(">=", 0.9))
        measured.add(f"{told}: answered 200, p99", [run["kept_p99_ms"] for run in runs], "ms")
        if all(run["shed"] for run in runs):
            measured.add(f"{told}: shed answer, p99", [run["shed_p99_ms"] for run in runs], "ms", Goal("<=", 50))
        measured.add(f"{told}: neither 200 nor 429", [run["failed"] for run in runs], "", Goal("<=", 0))
        measured.add(f"{told}: recovery", [run["recovery_s"] for run in runs], "s", Goal("<=", 5))
        measured.facts[told] = runs
    measured.remarks.append("“immediate” is read as 50 ms at the 99th percentile, from sent to answered")
    return measured


def _overloaded(bench: Bench, service: Service, ids: int, seed: int) -> dict[str, Any]:
    long = 4.0 if bench.quick else 10.0
    requests = _requests(bench, service, ids, 200, seed)
    peak = max(_goodput(load.run(load.Job(service.url, requests, many, long / 4))) for many in (2, 8, 24, 64))
    phases = [(peak / 2, 2.0), (3 * peak, long), (peak / 2, 8.0)]
    records = load.run(load.Job(service.url, requests, CONNECTIONS, phases=phases))
    begin = float(records.due.min()) + 2.0
    calm, after = records.during(0, begin), records.during(begin + long, np.inf)
    # The first second fills the queues.
    answered = (records.status == 200) & (records.done >= begin + 1) & (records.done < begin + long)
    under = records.during(begin + 1, begin + long)
    kept, shed = under.where(under.status == 200), under.where(under.status == 429)
    return {
        "peak": peak,
        "share": float(answered.sum() / (long - 1) / peak),
        "kept_p99_ms": _percentile_ms(kept, 99),
        "shed": len(shed.status),
        "shed_p99_ms": _percentile_ms(shed, 99),
        "failed": int(((records.status != 200) & (records.status != 429)).sum()),
        "unsent": records.unsent,
        "recovery_s": _recovery(after, begin + long, max(0.1, 5 * float(np.percentile(calm.seconds, 99)))),
        "statuses": _by_status(under),
        "generator_cpu_share": records.cpu_share,
        "sent_late_p99_ms": float(np.percentile(under.sent - under.due, 99)) * 1000,
    }


def _goodput(records: load.Records) -> float:
    return float((records.status == 200).sum()) / records.span


def _recovery(after: load.Records, end: float, usual: float) -> float:
    """Until the last request that was refused or took unusually long; the whole time when that never ends."""
    bad = (after.status != 200) | (after.waited > usual)
    return float(after.due[bad].max() - end) if bad.any() else 0.0


# --- promotion -------------------------------------------------------------------------------------------------------


def promotion(bench: Bench) -> Measured:
    """Two versions of each model, published in turns under load."""
    swaps = 6 if bench.quick else 100
    measured = Measured("promotion", f"Promotion under load, {swaps} swaps")
    directory = bench.work / "homes" / "promotion"
    shutil.rmtree(directory, ignore_errors=True)
    with ExitStack() as until:
        home = ours.furnish(bench.data, directory)
        service = bench.serve_home(home, "ours for promotions", until)
        _promote_under_load(bench, home, service, swaps, measured)
    return measured


def _promote_under_load(bench: Bench, home: Home, service: Service, swaps: int, measured: Measured) -> None:
    moment = bench.data.moment.replace(microsecond=0).isoformat()
    body = {
        "subscriber_ids": sample(bench.data, 20, 7),
        "context": {"campaign_id": "benchmark", "default_send_at": moment},
    }
    expected: dict[str, dict[str, list[float]]] = {model: {} for model in MODELS}
    for version in ("2", "1"):
        for model in MODELS:
            ours.promote(bench.data, home, model, version)
            if _seen_after(service, body, model, version) is None:
                measured.remarks.append("a promotion does not reach the running service: nothing was measured")
                return
        for model, row in ((model, row) for model in MODELS for row in service.ask(body)["scores"]):
            expected[model].setdefault(version, []).append(row[model]["probability"])
    job = load.Job(service.url, [service.prepared(body)], connections=4, until_told=True, read=True, expected=expected)
    running, delays, unseen = load.Running(job), [], 0
    began = time.monotonic()
    with bench.narrator.step("promotion") as share:
        time.sleep(2.0)
        first_swap = time.monotonic()
        for number in range(swaps):
            model, version = MODELS[number % 3], str(2 - number // 3 % 2)
            ours.promote(bench.data, home, model, version)
            delay = _seen_after(service, body, model, version)
            unseen += delay is None
            delays += [] if delay is None else [delay]
            share(number / swaps)
    running.tell()
    records = running.result()
    calm, under = records.during(began, first_swap), records.during(first_swap, np.inf)
    measured.add("requests", [len(records.status)])
    measured.add("failed requests", [int((records.status != 200).sum())], "", Goal("<=", 0))
    measured.add("mixed-version answers", [int(records.mixed.sum())], "", Goal("<=", 0))
    measured.add("promotions not in service after 5 s", [unseen], "", Goal("<=", 0))
    if delays:
        measured.add("from published to in service", delays, "s", Goal("<=", 5))
    measured.add("p99 before", [_percentile_ms(calm, 99)], "ms")
    measured.add("p99 while swapping", [_percentile_ms(under, 99)], "ms")
    measured.facts |= {
        "statuses": _by_status(records),
        "delays_s": delays,
        "longest_ms": float(records.seconds.max()) * 1e3,
    }


def _seen_after(service: Service, body: Any, model: str, version: str) -> float | None:
    """Seconds until the service names this version; None after more than five."""
    since = time.monotonic()
    while time.monotonic() - since < 6.0:
        if service.ask(body)["models"].get(model) == version:
            return time.monotonic() - since
        time.sleep(0.05)
    return None


# --- faults ----------------------------------------------------------------------------------------------------------

DEADLINE_MS = 250
FAULT_S, HEALTHY_S, FLAP_S = 4.0, 6.0, 0.3
STRETCH_S = 0.25
QUICKER = 3
"""Faults and pauses are so many times shorter in a quick run, or it would not see them all."""


def store_faults(bench: Bench) -> Measured:
    """The store is killed, frozen, black-holed, flapping and talking nonsense while requests keep coming."""
    count = 10_000 if bench.quick else 100_000
    measured = Measured("store_faults", f"Store killed, stalled, flapping under load, {count:,} requests or more")
    directory = bench.work / "homes" / "faults"
    shutil.rmtree(directory, ignore_errors=True)
    with ExitStack() as until:
        place = Path(until.enter_context(tempfile.TemporaryDirectory(prefix="inbox-valkey-")))
        server = until.enter_context(faults.valkey(place))
        wire = until.enter_context(faults.proxy(server.port))
        ours.furnish(bench.data, directory, server.url)
        service = bench.serve_home(Home(directory, wire.url), "ours for faults", until)
        job = load.Job(
            service.url, _mixed_requests(bench, service), connections=8, count=count, until_told=True, read=True
        )
        with bench.narrator.step("store_faults"):
            load.run(load.Job(service.url, job.requests, connections=2, seconds=2.0))
            running = load.Running(job)
            spans = _fault_after_fault(server, wire, running, QUICKER if bench.quick else 1)
        _add_faults(measured, running.result(), spans)
    return measured


def _mixed_requests(bench: Bench, service: Service) -> list[bytes]:
    """One subscriber mostly, every twentieth time a hundred; all with a deadline."""
    deadline = {"x-deadline-ms": str(DEADLINE_MS)}
    return [service.request(sample(bench.data, 100 if i % 20 == 0 else 1, 20_000 + i), deadline) for i in range(400)]


def _fault_after_fault(
    server: faults.Valkey, wire: faults.Proxy, running: load.Running, quicker: int
) -> list[tuple[str, float, float]]:
    """Break and mend the store until the load is through; what was when."""
    spans: list[tuple[str, float, float]] = []

    def spend(name: str, seconds: float, meanwhile: Callable[[], None] = lambda: time.sleep(0.05)) -> None:
        begin = time.monotonic()
        while running.is_running() and time.monotonic() < begin + seconds / quicker:
            meanwhile()
        spans.append((name, begin, time.monotonic()))

    def flap() -> None:
        wire.switch("refuse")
        time.sleep(FLAP_S)
        wire.switch("pass")
        time.sleep(FLAP_S)

    spend("healthy", 3.0)
    while running.is_running():
        server.kill()
        spend("killed", FAULT_S)
        server.start()
        spend("after killed", HEALTHY_S)
        server.freeze()
        spend("frozen", FAULT_S)
        server.thaw()
        spend("after frozen", HEALTHY_S)
        for mode in ("stall", "trickle", "cut", "garbage"):
            wire.switch(mode)
            spend(mode, FAULT_S)
            wire.switch("pass")
            spend(f"after {mode}", HEALTHY_S)
        spend("flapping", FAULT_S, flap)
        spend("after flapping", HEALTHY_S)
        # Every fault was seen once: enough, once there were enough requests.
        running.tell()
    return spans


def _add_faults(measured: Measured, records: load.Records, spans: Sequence[tuple[str, float, float]]) -> None:
    measured.add("requests", [len(records.status)])
    measured.add("answers other than 200", [int((records.status != 200).sum())], "", Goal("<=", 0))
    measured.add("answers with a score that is not finite", [int((records.finite == 0).sum())], "", Goal("<=", 0))
    late = int((records.seconds > DEADLINE_MS / 1000).sum())
    measured.add(f"answers later than {DEADLINE_MS} ms", [late], "", Goal("<=", 0))
    measured.add("longest", [float(records.seconds.max()) * 1000], "ms")
    told: dict[str, list[dict[str, Any]]] = {}
    for name, begin, end in spans:
        part = records.during(begin, end)
        if len(part.status):
            told.setdefault(name, []).append(_told(part, begin, end))
    measured.facts |= {"statuses": _by_status(records), "phases": told, "generator_cpu_share": records.cpu_share}
    recoveries = [run["mended_s"] for name, runs in told.items() if name.startswith("after") for run in runs]
    if recoveries:
        measured.add("recovery after a fault ends", recoveries, "s", Goal("<=", 5))
    for name, runs in told.items():
        measured.add(f"{name}: p99", [run["p99_ms"] for run in runs], "ms")


def _told(part: load.Records, begin: float, end: float) -> dict[str, Any]:
    # All are known, so whoever gets the prior could not be read.
    read = part.label != load.LABELS.index("prior")
    return {
        "requests": len(part.status),
        "not_200": int((part.status != 200).sum()),
        "late": int((part.seconds > DEADLINE_MS / 1000).sum()),
        "p50_ms": _percentile_ms(part, 50),
        "p99_ms": _percentile_ms(part, 99),
        "longest_ms": float(part.seconds.max()) * 1000,
        "read_share": float(read.mean()),
        "first_read_s": float(part.done[read].min() - begin) if read.any() else None,
        # Who was answered in the next phase met the next fault.
        "mended_s": _mended(part.done[part.done < end] - begin, read[part.done < end]),
    }


def _mended(after_s: np.ndarray, read: np.ndarray) -> float:
    """End of the last stretch in which less than nine answers in ten had their features."""
    stretch = (after_s / STRETCH_S).astype(int)
    shares = [
        read[stretch == number].mean() if (stretch == number).any() else 1.0 for number in range(stretch.max() + 1)
    ]
    bad = [number for number, share in enumerate(shares) if share < 0.9]
    return (bad[-1] + 1) * STRETCH_S if bad else 0.0


MEASURES: dict[str, Callable[[Bench], Measured]] = {
    measure.__name__: measure
    for measure in (store_read, materialize, http_bulk, http_one, overload, promotion, store_faults)
}
