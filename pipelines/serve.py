"""`inbox serve`: the Bento on a port, in the foreground, or for as long as a block runs.

What enters: a home and a port. What leaves: a service that answers, or an error that says why not, with its last words. The
promise: what is started here is stopped here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx

from features.errors import ScoringError
from features.home import STORE_URL, Home
from serving.keys import create_key, read_keys, revoke_key
from serving.settings import ServingSettings

ROOT = Path(__file__).resolve().parents[1]
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0


class ServiceFailed(ScoringError):
    """The service did not come up."""

    code = "service_failed"

    def __init__(self, reason: str, log: Path | None) -> None:
        self.reason, self.log = reason, log
        where = f" Its last words are in {log}." if log else ""
        super().__init__(f"The service did not start: {reason}.{where}")


@dataclass(frozen=True)
class Running:
    """A service that answers at ``url``, with a key that it accepts."""

    url: str
    key: str
    log: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=10.0)


def serve_forever(home: Home, port: int, now: datetime | None = None) -> int:
    """Run the Bento in the foreground until it is interrupted; its exit code.

    Raises
    ------
    ServiceFailed
        When the port is taken.
    """
    _refuse_taken(port)
    process = subprocess.Popen(_command(port), env=_environment(home, now), cwd=ROOT)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(process)


@contextmanager
def running(home: Home, port: int = 0, now: datetime | None = None, key_name: str = "demo") -> Iterator[Running]:
    """A service for the length of a block, on a free port unless one is given, with a key of its own.

    Raises
    ------
    ServiceFailed
        When it is not ready within a minute.
    """
    port = port or free_port()
    _refuse_taken(port)
    log = home.var / "service.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_key(home, key_name) as key, log.open("wb") as words:
        process = subprocess.Popen(
            _command(port), env=_environment(home, now), cwd=ROOT, stdout=words, stderr=subprocess.STDOUT
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _await_ready(process, url, log)
            yield Running(url, key, log)
        finally:
            _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ready(url: str) -> bool:
    """Whether a service at this address is ready to score."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def _temporary_key(home: Home, name: str) -> Iterator[str]:
    keys = ServingSettings(home=home.root).keys
    if name in {record.name for record in read_keys(keys)}:
        revoke_key(keys, name)
    key = create_key(keys, name)
    try:
        yield key
    finally:
        revoke_key(keys, name)


def _command(port: int) -> list[str]:
    return [sys.executable, "-m", "bentoml", "serve", "serving.service:Scoring", "--port", str(port)]


def _environment(home: Home, now: datetime | None) -> dict[str, str]:
    environment = os.environ | {
        "INBOX_HOME": str(home.root.resolve()),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str((home.var / "bentoml").resolve()),
        "PYTHONPATH": str(ROOT),
        # The home's own choice, whatever the environment says: the demo's rows are in its own file.
        STORE_URL: home.store_url or "",
    }
    return environment if now is None else environment | {"INBOX_NOW": now.isoformat()}


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ServiceFailed(f"port {port} is taken; give another with --port", None)


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceFailed(f"it ended with exit code {process.returncode}", log)
        if ready(url):
            return
        time.sleep(0.1)
    raise ServiceFailed(f"it was not ready within {READY_WITHIN_S:g} s", log)


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    try:
        return process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
