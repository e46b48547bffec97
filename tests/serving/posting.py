"""Posting to the application in its own process, without a socket between: thousands of requests in seconds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive

from serving.webhooks.certificates import Certificates
from tests.serving.senders import CERTIFICATE_URL, Post, configured, sns_key
from tests.serving.stand_in import Front, front


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def said(self) -> Any:
        return orjson.loads(self.body)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Accepted, repeated, quarantined, set aside."""
        assert self.status == 200, self.said
        return tuple(self.said[name] for name in ("accepted", "repeated", "quarantined", "set_aside"))  # type: ignore[return-value]


async def ask(
    app: ASGIApp,
    path: str,
    headers: Sequence[tuple[bytes, bytes]] = (),
    parts: Sequence[bytes] = (b"",),
    method: str = "POST",
    whole: bool = True,
) -> Answer:
    """One exchange. ``whole`` False: the caller hangs up after the last part."""
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": not whole or number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return await exchange(app, path, headers, receive, method)


async def exchange(
    app: ASGIApp, path: str, headers: Sequence[tuple[bytes, bytes]], receive: Receive, method: str = "POST"
) -> Answer:
    """One exchange, with whatever the caller sends and when."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": list(headers),
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "root_path": "",
    }
    await app(scope, receive, send)
    if not sent:
        return Answer(499, {}, b"")
    return Answer(
        sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])
    )


async def deliver(behind: Front, post: Post) -> Answer:
    return await ask(behind.guard, post.path, post.raw_headers, (post.body,))


def delivered(behind: Front, *posts: Post) -> list[Answer]:
    """One after the other."""

    async def all_of_them() -> list[Answer]:
        return [await deliver(behind, post) for post in posts]

    return asyncio.run(all_of_them())


def together(behind: Front, posts: Sequence[Post]) -> list[Answer]:
    """At once."""

    async def all_of_them() -> list[Answer]:
        return await asyncio.gather(*(deliver(behind, post) for post in posts))

    return asyncio.run(all_of_them())


def on_their_way(behind: Front) -> tuple[int, int]:
    """Bodies of events, and their bytes, of all providers."""
    gates = behind.guard.gates.values()
    return sum(gate.admission.taken["events"] for gate in gates), sum(gate.bodies.arriving_bytes for gate in gates)


def own_certificates() -> Certificates:
    """SNS's own key fetched from a dictionary."""
    return Certificates(fetch=lambda url: {CERTIFICATE_URL: sns_key().pem}.get(url, b"<html>"))


@contextmanager
def open_for_business(home: Path, certificates: Certificates | None = None, **settings: Any) -> Iterator[Front]:
    """All providers configured."""
    behind = front(home, certificates=certificates or own_certificates(), **configured(**settings))
    try:
        yield behind
    finally:
        behind.close()


def inbox_rows(home: Path, table: str = "events") -> list[tuple[Any, ...]]:
    """As another program finds them."""
    path = home / "var" / "inbox.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()
