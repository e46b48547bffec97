"""A server that plays the service, and everything that can be wrong with one.

What enters: connections. What leaves: whatever ``behaviour`` does, byte by byte. The promise: what a test says happens on
the wire happens there; nothing of the client is replaced.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any

EXAMPLE: dict[str, Any] = {
    "status": "ok",
    "feature_age_s": 412,
    "churn": {"probability": 0.18, "band": "high", "percentile": 31},
    "lead_score": {"probability": 0.07, "score": 81, "grade": "B"},
    "send_time": {
        "send_at": "2026-11-24T07:00:00Z",
        "hour_of_week": 31,
        "probability": 0.041,
        "gain": 0.12,
        "gain_interval": [0.03, 0.21],
        "confident": True,
        "pool_weight": 0.4,
        "arm": "exploit",
        "propensity": 0.95,
    },
}
"""Of serving contract v1."""
BOMB = gzip.compress(bytes(20_000_000))
"""Small on the wire, and larger than any answer."""


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def ids(self) -> list[str]:
        ids: list[str] = self.json["subscriber_ids"]
        return ids


def answer(asked: Asked, **changed: Any) -> bytes:
    """The contract's example, for everybody asked for."""
    rows = [{"subscriber_id": one, **EXAMPLE, **changed} for one in asked.ids]
    return json.dumps(
        {"request_id": "r-17", "scored_at": "2026-11-23T08:15:02Z", "models": {}, "scores": rows}
    ).encode()


def http(status: int, body: bytes = b"", **headers: object) -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Service:
    """Serves until closed. ``behaviour`` may be replaced at any time."""

    behaviour: Behaviour
    ended: Event = field(default_factory=Event)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock, self._connections = Lock(), 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._thread = Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self._connections += 1
                Thread(target=self._serve, args=(connection, self._connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError, ValueError), connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                headers = dict(_header(one) for one in iter(lines.readline, b"\r\n"))
                body = lines.read(int(headers.get("content-length", "0")))
                asked = Asked(line.decode().strip(), headers, body, number)
                with self._lock:
                    self.asked.append(asked)
                if not self.behaviour(self, connection, asked):
                    return


Behaviour = Callable[[Service, socket.socket, Asked], bool]
"""Does something on the connection; whether it stays open."""


def _header(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode().partition(":")
    return name.lower(), value.strip()


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Service]:
    """A service that behaves like that."""
    service = Service(behaviour)
    try:
        yield service
    finally:
        service.close()


def says(what: Callable[[Asked], bytes]) -> Behaviour:
    """Write this, and stay."""

    def behave(service: Service, connection: socket.socket, asked: Asked) -> bool:
        connection.sendall(what(asked))
        return True

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Each once; the last from then on."""
    waiting = list(behaviours)

    def behave(service: Service, connection: socket.socket, asked: Asked) -> bool:
        chosen = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return chosen(service, connection, asked)

    return behave


def status(code: int, body: bytes = b"", **headers: object) -> Behaviour:
    return says(lambda asked: http(code, body, **headers))


def body(content: bytes) -> Behaviour:
    return says(lambda asked: http(200, content))


well = says(lambda asked: http(200, answer(asked)))
zipped = says(lambda asked: http(200, gzip.compress(answer(asked)), content_encoding="gzip"))


def hangs(service: Service, connection: socket.socket, asked: Asked) -> bool:
    service.ended.wait(30)
    return False


def leaves(service: Service, connection: socket.socket, asked: Asked) -> bool:
    return False


def garbage(service: Service, connection: socket.socket, asked: Asked) -> bool:
    connection.sendall(b"\x16\x03\x01 this is no HTTP \x00\xff\r\n\r\n" * 10)
    return False


def cut(service: Service, connection: socket.socket, asked: Asked) -> bool:
    whole = http(200, answer(asked))
    connection.sendall(whole[: len(whole) // 2])
    return False


def _trickled(service: Service, connection: socket.socket, content: bytes) -> bool:
    for byte in content:
        if service.ended.wait(0.02):
            return False
        connection.sendall(bytes([byte]))
    return False


def trickles(service: Service, connection: socket.socket, asked: Asked) -> bool:
    """Its head at once, its body never quite."""
    head, _, rest = http(200, answer(asked)).partition(b"\r\n\r\n")
    connection.sendall(head + b"\r\n\r\n")
    return _trickled(service, connection, rest)


def trickles_its_head(service: Service, connection: socket.socket, asked: Asked) -> bool:
    return _trickled(service, connection, http(200, answer(asked), x_long="x" * 5000))


def is_endless(service: Service, connection: socket.socket, asked: Asked) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while not service.ended.is_set():
        connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
    return False


def explodes(service: Service, connection: socket.socket, asked: Asked) -> bool:
    connection.sendall(http(200, BOMB, content_encoding="gzip"))
    return False


def nowhere() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
