"""The network: one exchange at a time, over connections that are kept, never for longer than it may take.

What enters: a ``Send``. What leaves: a ``Reply``, or the fault that kept it from arriving. The promise: it does not raise,
and it ends in time: finding the address, connecting, the handshake, sending, waiting and a body that trickles included.

httpx bounds each operation, not all of them together: a server that sends a byte now and then is never late. Async code
can be cancelled from outside. For threads the pool is given a door to the network (``httpcore.NetworkBackend``) that
shrinks every operation to what is left of the request's time. A thread per call would do as well, for the price of the
call again.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from ipaddress import ip_address
from socket import SOCK_STREAM, getaddrinfo
from threading import Thread, local
from time import monotonic
from typing import cast

import httpcore
import httpx

from inbox_client.core import UNTIL, Fault, Heard, Reply, Send

KEEP_S = 4.0
"""The service closes a connection that is idle for five seconds."""
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_S)
"""As many as there are threads or tasks; nobody waits for another's."""
WRITE_BYTES = 65_536
_GZIP = 16 + zlib.MAX_WBITS

_LATE = (TimeoutError, httpx.TimeoutException, httpcore.TimeoutException)
_REFUSED = (httpx.ConnectError, httpcore.ConnectError, httpx.UnsupportedProtocol, httpx.ProxyError)


class _TooLarge(Exception):
    """The body is larger than any answer."""


class SyncWire:
    """For threads."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self.transport = transport

    def exchange(self, step: Send) -> Heard:
        """Send it, wait for all of its answer."""
        try:
            response = self.transport.handle_request(step.request)
            try:
                body = Body(step)
                for chunk in cast(httpx.SyncByteStream, response.stream):
                    body.take(chunk)
            finally:
                response.close()
            return _reply(response, body)
        except Exception as error:  # noqa: BLE001 - whatever a network does ends here
            return fault_of(error)


class AsyncWire:
    """For tasks of one event loop."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport

    async def exchange(self, step: Send) -> Heard:
        """Send it, wait for all of its answer."""
        try:
            async with asyncio.timeout(step.seconds):
                response = await self.transport.handle_async_request(step.request)
                try:
                    body = Body(step)
                    async for chunk in cast(httpx.AsyncByteStream, response.stream):
                        body.take(chunk)
                finally:
                    await response.aclose()
            return _reply(response, body)
        except Exception as error:  # noqa: BLE001 - whatever a network does ends here
            return fault_of(error)


class Body:
    """An answer's body as it arrives."""

    def __init__(self, step: Send) -> None:
        self._limit = self._room = step.limit
        self._until = step.request.extensions[UNTIL]
        self._chunks: list[bytes] = []

    def take(self, chunk: bytes) -> None:
        """One more piece of it.

        Raises
        ------
        TimeoutError
            When it is too late.
        """
        self._room -= len(chunk)
        if self._room < 0:
            raise _TooLarge
        if monotonic() > self._until:
            raise TimeoutError
        self._chunks.append(chunk)

    def whole(self, encoding: str) -> bytes:
        """All of it, unzipped where somebody on the way zipped it unasked.

        Raises
        ------
        zlib.error
            When it is not what it says it is.
        """
        arrived = b"".join(self._chunks)
        if encoding != "gzip":
            return arrived
        content = zlib.decompressobj(_GZIP).decompress(arrived, self._limit)
        if len(content) == self._limit:
            raise _TooLarge
        return content


def _reply(response: httpx.Response, body: Body) -> Reply:
    headers = response.headers
    return Reply(response.status_code, headers.get("retry-after", ""), body.whole(headers.get("content-encoding", "")))


def fault_of(error: Exception) -> Fault:
    """What it comes to."""
    match error:
        case _ if isinstance(error, _LATE):
            return "time_out"
        case _ if isinstance(error, _REFUSED):
            return "connection"
        case _ if isinstance(error, (_TooLarge, zlib.error)):
            return "unreadable"
        case _:
            return "dropped"


class BoundedTransport(httpx.BaseTransport):
    """A pool of connections on which a request ends when its time does."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._door = _Door()
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            max_connections=LIMITS.max_connections,
            max_keepalive_connections=LIMITS.max_keepalive_connections,
            keepalive_expiry=LIMITS.keepalive_expiry,
            network_backend=self._door,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it; the thread that calls is the one that reads the answer."""
        self._door.until = request.extensions[UNTIL]
        raw = request.url
        url = httpcore.URL(scheme=raw.raw_scheme, host=raw.raw_host, port=raw.port, target=raw.raw_path)
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method,
                url,
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Arriving(answer), extensions=answer.extensions
        )

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


class _Arriving(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Door(local, httpcore.NetworkBackend):
    """The way out for one pool; ``until`` is each thread's own."""

    def __init__(self) -> None:
        self.until = 0.0

    def left_s(self) -> float:
        """For whatever this thread does next."""
        left_s: float = self.until - monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout
        return left_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Try each address in turn, each for its part of what is left: one that is dead does not cost the others."""
        addresses = _addresses(host, port, self.left_s())
        for position, address in enumerate(addresses):
            part_s = self.left_s() / (len(addresses) - position)
            try:
                stream = _BACKEND.connect_tcp(address, port, part_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if position == len(addresses) - 1:
                    raise
            else:
                return _Stream(stream, self)
        raise httpcore.ConnectError


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, door: _Door) -> None:
        self._stream, self._door = stream, door

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._door.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITE_BYTES):
            self._stream.write(buffer[start : start + WRITE_BYTES], self._door.left_s())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._door.left_s()), self._door)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


_BACKEND = httpcore.SyncBackend()


def _addresses(host: str, port: int, seconds: float) -> list[str]:
    """Where that is. Asking for it cannot be interrupted: a thread asks, and is left behind when it takes too long."""
    try:
        return [str(ip_address(host))]
    except ValueError:
        found: Future[list[str]] = Future()
        Thread(target=_resolve, args=(host, port, found), daemon=True, name="inbox-client-dns").start()
        return found.result(seconds)


def _resolve(host: str, port: int, found: Future[list[str]]) -> None:
    try:
        found.set_result([cast(str, entry[4][0]) for entry in getaddrinfo(host, port, type=SOCK_STREAM)])
    except (OSError, ValueError, OverflowError):
        found.set_exception(httpcore.ConnectError())
