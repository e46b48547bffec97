"""The load generator: a process of its own that sends prepared bytes and writes down what came back.

What enters: a ``Job``. What leaves: ``Records``, one row per request. The promise: it is light (it shares two cores with
the server), never waits for anything but sockets, and forgets no request: one without an answer is a row with status 0.

A closed loop sends a connection's next request when its last one is answered. An open loop sends at a rate, whatever the
server does, and counts time from the moment a request was due: a server that stalls cannot slow down its own test.

Weighed: httpx, at some 0.4 ms of CPU a request; here it is some 0.03 ms (``Records.cpu_share`` says what it was).
"""

from __future__ import annotations

import asyncio
import base64
import gc
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import orjson
import uvloop

HANGS_AFTER_S = 15.0
"""A request without an answer for so long is given up, as status 0."""
TICK_S = 0.001
RECONNECT_S = 0.01
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LABELS = ("ok", "stale", "partial", "prior", "no_consent")
MODELS = ("churn", "lead_score", "send_time")
APART = 0.8
"""Rows whose log-odds differ by less between two versions do not tell them apart: priors, those without consent."""


@dataclass(frozen=True)
class Job:
    """What to send. ``requests`` are whole HTTP/1.1 requests, sent in turns.

    Either ``phases`` of (requests per second, seconds) make it an open loop, or ``connections`` send in a closed loop for
    ``seconds``, or until ``count`` requests were sent, or until told to stop; with ``count`` and ``until_told``, until both.
    """

    url: str
    requests: list[bytes]
    connections: int = 1
    seconds: float = math.inf
    count: int | None = None
    until_told: bool = False
    phases: list[tuple[float, float]] = field(default_factory=list)
    read: bool = False
    """Whether to read our service's answers: status label, finite scores, versions."""
    expected: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By model and version, each row's probability; an answer that fits another version than it names is mixed."""
    keep: int = 0
    """How many of the first bodies to keep."""


@dataclass(frozen=True)
class Records:
    """One element per request, in the order of completion; instants are ``time.monotonic`` of this machine, in seconds."""

    due: npt.NDArray[np.float64]
    sent: npt.NDArray[np.float64]
    done: npt.NDArray[np.float64]
    status: npt.NDArray[np.int64]
    """HTTP's, 0 when there was no answer."""
    label: npt.NDArray[np.int64]
    """Position in ``LABELS`` of the first subscriber's status; -1 when not read."""
    finite: npt.NDArray[np.int64]
    """1 when every number that must be finite is, 0 when not, -1 when not read."""
    mixed: npt.NDArray[np.int64]
    """1 when the scores are not those of the version named."""
    version: npt.NDArray[np.int64]
    """Versions named, three digits of a thousand each in the order of ``MODELS``."""
    bodies: list[bytes]
    unsent: int
    """Of an open loop: due, but never sent for want of a connection."""
    cpu_share: float
    """Of one core, used by the generator."""

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """From sending to the last byte."""
        return self.done - self.sent

    @property
    def waited(self) -> npt.NDArray[np.float64]:
        """From when it was due to the last byte."""
        return self.done - self.due

    @property
    def span(self) -> float:
        return float(self.done.max() - self.sent.min())

    def during(self, begin: float, end: float) -> Records:
        """Those due in [begin, end)."""
        return self.where((self.due >= begin) & (self.due < end))

    def where(self, chosen: npt.NDArray[np.bool_]) -> Records:
        return replace(self, **{name: getattr(self, name)[chosen] for name in _COLUMNS})


_COLUMNS = ("due", "sent", "done", "status", "label", "finite", "mixed", "version")


def post(url: str, path: str, body: Any, headers: dict[str, str] | None = None) -> bytes:
    """A whole POST of JSON, keep-alive."""
    return post_bytes(url, path, orjson.dumps(body), headers)


def post_bytes(url: str, path: str, payload: bytes, headers: dict[str, str] | None = None) -> bytes:
    """Likewise, of bytes that must arrive as they are: somebody signed them."""
    lines = {
        "host": urlsplit(url).netloc,
        "content-type": "application/json",
        "content-length": str(len(payload)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + payload


class Running:
    """A load in progress in its own process."""

    def __init__(self, job: Job) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="inbox-load-")
        self._out = Path(self._place.name) / "records.npz"
        document = asdict(job) | {"requests": [base64.b64encode(one).decode() for one in job.requests]}
        given = Path(self._place.name) / "job.json"
        document["seconds"] = None if math.isinf(job.seconds) else job.seconds
        given.write_bytes(orjson.dumps(document))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.load", str(given), str(self._out)],
            stdin=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
        )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def tell(self) -> None:
        """Tell it that it may end."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def result(self) -> Records:
        """Wait for its end."""
        code = self._process.wait()
        if code != 0:
            raise RuntimeError(f"the load generator ended with exit code {code}")
        with np.load(self._out) as found:
            columns = {name: found[name] for name in _COLUMNS}
            rest = orjson.loads(found["rest"].tobytes())
        self._place.cleanup()
        bodies = [base64.b64decode(body) for body in rest["bodies"]]
        return Records(**columns, bodies=bodies, unsent=rest["unsent"], cpu_share=rest["cpu_share"])


def run(job: Job) -> Records:
    """Send it all and wait."""
    return Running(job).result()


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, sender: _Sender) -> None:
        self.sender = sender
        self.transport: Any = None
        self.buffer = bytearray()
        self.due = self.sent = 0.0
        self.busy = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, request: bytes, due: float) -> None:
        self.busy, self.due, self.sent = True, due, time.monotonic()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        found = _LENGTH.search(self.buffer, 0, head + 2)
        whole = head + 4 + (int(found[1]) if found else 0)
        if len(self.buffer) < whole:
            return
        status, body = int(self.buffer[9:12]), bytes(self.buffer[head + 4 : whole])
        closing = b"onnection: close" in self.buffer[:head]
        del self.buffer[:whole]
        self.busy = False
        self.sender.note(self, status, body)
        if closing:
            self.transport.abort()
        else:
            self.sender.is_free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.sender.is_lost(self)


class _Sender:
    """What is to be sent, over which connections, and what came back."""

    def __init__(self, job: Job) -> None:
        self.job = job
        address = urlsplit(job.url)
        self.host, self.port = address.hostname or "127.0.0.1", address.port or 80
        self.rows: list[tuple[float, float, float, int, int, int, int, int]] = []
        self.bodies: list[bytes] = []
        self.connections: set[_Connection] = set()
        self.idle: list[_Connection] = []
        self.waiting: deque[float] = deque()
        self.tasks: set[asyncio.Task[None]] = set()
        self.turn = self.opening = self.given = 0
        self.stopping = False
        self.over: asyncio.Event = asyncio.Event()

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        if self.job.until_told:
            loop.add_reader(sys.stdin.fileno(), self._told_to_stop)
        watch = loop.create_task(self._give_up_hanging())
        if self.job.phases:
            await self._open_loop()
        else:
            for _ in range(self.job.connections):
                await self._connect()
            if self.job.seconds != math.inf:
                loop.call_later(self.job.seconds, self._stop)
            await self.over.wait()
        watch.cancel()
        for connection in list(self.connections):
            connection.transport.abort()

    def note(self, connection: _Connection, status: int, body: bytes) -> None:
        read = _read(body, self.job.expected) if self.job.read and status == 200 else (-1, -1, 0, 0)
        self.rows.append((connection.due, connection.sent, time.monotonic(), status, *read))
        if len(self.bodies) < self.job.keep:
            self.bodies.append(body)

    def is_free(self, connection: _Connection) -> None:
        if self.job.phases:
            if self.waiting:
                connection.send(self._next(), self.waiting.popleft())
            else:
                self.idle.append(connection)
        elif self._is_enough():
            self._leave(connection)
        else:
            connection.send(self._next(), time.monotonic())

    def _is_enough(self) -> bool:
        if self.job.count is None:
            return self.stopping
        return self.given >= self.job.count and (self.stopping or not self.job.until_told)

    def is_lost(self, connection: _Connection) -> None:
        self.connections.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if connection.busy:
            connection.busy = False
            self.note(connection, 0, b"")
        self._connect_again()

    def _connect_again(self) -> None:
        """A closed loop keeps its number of connections."""
        if not self.job.phases and not self.stopping:
            self._soon(self._connect())

    def _soon(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self.opening += 1
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), self.host, self.port)
        except OSError:
            now = time.monotonic()
            self.rows.append((now, now, now, 0, -1, -1, 0, 0))
            await asyncio.sleep(RECONNECT_S)
            self._connect_again()
            return
        finally:
            self.opening -= 1
        self.connections.add(connection)
        self.is_free(connection)

    def _next(self) -> bytes:
        request = self.job.requests[self.turn]
        self.turn = (self.turn + 1) % len(self.job.requests)
        self.given += 1
        return request

    def _leave(self, connection: _Connection) -> None:
        self.connections.discard(connection)
        self.stopping = True
        if not any(other.busy for other in self.connections):
            self.over.set()

    def _stop(self) -> None:
        self.stopping = True

    def _told_to_stop(self) -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop()

    async def _open_loop(self) -> None:
        await self._open_connections()
        begin = time.monotonic()
        for rate, seconds in self.job.phases:
            await self._phase(begin, begin + seconds, rate)
            begin += seconds
        patience = time.monotonic() + HANGS_AFTER_S
        while any(connection.busy for connection in self.connections) and time.monotonic() < patience:
            await asyncio.sleep(0.01)

    async def _open_connections(self) -> None:
        """All of them, each with a request to make sure that the server has taken it; none of these count.

        Hundreds of connections made under load waited for seconds before anybody read from them, on the empty endpoint
        too, and what is measured would be that. Why they do was not found out.
        """
        for _ in range(self.job.connections):
            self.waiting.append(time.monotonic())
            await self._connect()
        while any(connection.busy for connection in self.connections):
            await asyncio.sleep(0.01)
        self.rows.clear()

    async def _phase(self, begin: float, end: float, rate: float) -> None:
        """Send what is due, every millisecond. What finds no connection free waits here; lost ones are replaced."""
        given, total = 0, int(rate * (end - begin))
        while given < total:
            now = time.monotonic()
            for number in range(given, min(total, int((now - begin) * rate) + 1)):
                self._send_due(begin + number / rate)
                given = number + 1
            await asyncio.sleep(TICK_S)
        await asyncio.sleep(max(0.0, end - time.monotonic()))

    def _send_due(self, due: float) -> None:
        if self.idle:
            self.idle.pop().send(self._next(), due)
            return
        self.waiting.append(due)
        if len(self.connections) + self.opening < self.job.connections:
            self._soon(self._connect())

    async def _give_up_hanging(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            late = time.monotonic() - HANGS_AFTER_S
            for connection in list(self.connections):
                if connection.busy and connection.sent < late:
                    connection.transport.abort()


def _read(body: bytes, expected: dict[str, dict[str, list[float]]]) -> tuple[int, int, int, int]:
    """Label, finite, mixed, version of an answer of our service."""
    answer = orjson.loads(body)
    scores, versions = answer["scores"], answer["models"]
    finite = all(_is_finite(row[model]) for row in scores for model in versions)
    mixed = any(_is_other(scores, model, versions[model], expected[model]) for model in expected)
    version = 0
    for model in MODELS:
        version = version * 1000 + int(versions.get(model, 0)) % 1000
    return LABELS.index(scores[0]["status"]), int(finite), int(mixed), version


def _is_finite(score: dict[str, Any]) -> bool:
    # A number that was not finite leaves as null.
    return b"null" not in orjson.dumps(score)


def _is_other(scores: list[dict[str, Any]], model: str, named: str, expected: dict[str, list[float]]) -> bool:
    """Whether at least two rows fit another version better than the one named.

    Not one: a feature that passes a split between two requests may move a row as far as a version does.
    """
    if named not in expected:
        return True
    found = np.array([_logit(row[model]["probability"]) for row in scores])
    logits = {version: np.array([_logit(one) for one in usual]) for version, usual in expected.items()}
    mine = logits.pop(named)
    return any(
        int(((abs(found - mine) > abs(found - rival)) & (abs(mine - rival) > APART)).sum()) >= 2
        for rival in logits.values()
    )


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def main(given: Path, out: Path) -> None:
    document = orjson.loads(given.read_bytes())
    document["requests"] = [base64.b64decode(one) for one in document["requests"]]
    document["seconds"] = math.inf if document["seconds"] is None else document["seconds"]
    job = Job(**document)
    gc.freeze()
    gc.disable()
    begun, used = time.monotonic(), time.process_time()

    async def send() -> _Sender:
        sender = _Sender(job)
        await sender.work()
        return sender

    sender = uvloop.run(send())
    cpu_share = (time.process_time() - used) / (time.monotonic() - begun)
    rows = list(zip(*sender.rows, strict=True)) or [()] * len(_COLUMNS)
    bodies = [base64.b64encode(body).decode() for body in sender.bodies]
    rest = orjson.dumps({"bodies": bodies, "unsent": len(sender.waiting), "cpu_share": cpu_share})
    kinds = [np.float64] * 3 + [np.int64] * 5
    columns = {name: np.array(row, kind) for name, row, kind in zip(_COLUMNS, rows, kinds, strict=True)}
    np.savez(out, rest=np.frombuffer(rest, np.uint8), **columns)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
