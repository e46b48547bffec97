"""The wire to Redis or Valkey: commands go out, answers come in, and one deadline is over all of it.

What enters: a URL, commands, an instant of ``time.monotonic`` by which to be done. What leaves: the server's answers. The
promise: whatever is at the other end (nobody, silence, a byte now and then, garbage), a call ends by its deadline, with
an answer to the question, an ``OSError`` or ``StoreUnavailable``; and no error, no name and no ``repr`` shows a password,
nor anything that was asked about.

Weighed: redis-py 8.1. Its time-outs are per ``recv``, its handshake's too, so a server that trickles holds a reader as
long as it likes; its retries have to be switched off; importing it takes 130 ms. What is spoken here is RESP 2, unchanged
since 2010. An MGET of 1 / 100 / 1000 rows of 1.9 kB, client and server on one busy 2-core machine, in milliseconds:

=========================================== ===== ===== ====
the bytes alone, received and not looked at 0.020 0.090 2.10
``Wire.values``                             0.025 0.123 2.58
a socket and ``hiredis.Reader``             0.022 0.109 2.71
``redis.Redis.mget``, with hiredis          0.041 0.160 2.62
``redis.Redis.mget``, without               0.046 0.245 4.18
=========================================== ===== ===== ====

hiredis alone is as fast, but believes a stray ``*99999999`` and makes a list of that size.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from time import monotonic
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit
from weakref import finalize

from features.errors import StoreUnavailable, UnusableOption
from features.home import STORE_URL

PORT = 6379
SCHEMES = ("redis", "rediss", "unix")
LONGEST_LINE = 1_024
LONGEST_VALUE = 64 * 2**20
DEEPEST = 5
"""Of answers within answers: XREADGROUP's are that deep, SCAN's two."""
USUAL_BUFFER = 256 * 2**10
LARGEST_KEPT_BUFFER = 8 * 2**20
"""A connection's buffer grows with its largest answer; beyond this it is given back."""


@dataclass(frozen=True)
class Refusal:
    """The server understood and says no. Only the code word is kept: the rest may repeat the question, secrets and all."""

    code: str
    """Like ``NOSCRIPT``; empty where there is none."""

    @classmethod
    def parse(cls, said: bytes) -> Refusal:
        """Read what follows the minus sign.

        >>> Refusal.parse(b"ERR unknown command 'AUTH', with args beginning with: 's3cret'")
        Refusal(code='ERR')
        """
        code = re.match(rb"[A-Z]+(?= |$)", said)
        return cls(code[0].decode() if code else "")

    def __str__(self) -> str:
        return f"it says no ({self.code})" if self.code else "it says no"


Places: TypeAlias = list[tuple[Any, ...]]
"""As ``socket.getaddrinfo`` gives them."""
Answer: TypeAlias = "int | bytes | Refusal | list[Answer] | None"

_LOOK_UPS: dict[tuple[str, int], Future[Places]] = {}
"""Those under way, by host and port."""
_LOOK_UPS_LOCK = Lock()


@dataclass(frozen=True)
class Address:
    """Where a server is and who asks. ``str()`` of it has no secret."""

    scheme: str
    host: str = ""
    port: int = PORT
    path: str = ""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    """Made with the address: to read the machine's certificates takes 20 ms, more than a read may."""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` (TLS) or ``unix:///path[?db=number]``.

        TLS takes the certificates that the machine trusts, or those in the file that ``SSL_CERT_FILE`` names.

        >>> str(Address.parse("rediss://ann:secret@example.org/2"))
        'rediss://***@example.org:6379/2'

        Raises
        ------
        UnusableOption
            Which does not repeat the URL.
        """
        try:
            return cls._of(urlsplit(url))
        except ValueError:
            # Without its cause, which may quote the URL.
            raise _unusable("it cannot be read") from None

    @classmethod
    def _of(cls, parts: SplitResult) -> Address:
        if parts.scheme not in SCHEMES:
            raise _unusable(f"it must begin with {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
        local = parts.scheme == "unix"
        database = options.pop("db", ["0"])[-1] if local else parts.path.strip("/") or "0"
        if options or not re.fullmatch(r"[0-9]{1,6}", database):
            raise _unusable("it names a database that is no number, or an option that there is not")
        if not (parts.path if local else parts.hostname):
            raise _unusable("it names no server")
        return cls(
            parts.scheme,
            parts.hostname or "",
            parts.port or PORT,
            unquote(parts.path) if local else "",
            int(database),
            unquote(parts.username or ""),
            unquote(parts.password or ""),
            ssl.create_default_context() if parts.scheme == "rediss" else None,
        )

    def __str__(self) -> str:
        secret = "***@" if self.username or self.password else ""
        if self.scheme == "unix":
            return f"unix://{secret}{self.path}?db={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{secret}{host}:{self.port}/{self.database}"

    @property
    def greeting(self) -> list[bytes]:
        """What must be said before anything else."""
        said = []
        if self.password:
            said.append(command("AUTH", *filter(None, (self.username, self.password))))
        if self.database:
            said.append(command("SELECT", str(self.database)))
        return said


class Wire:
    """A connection to one server, for one thread at a time.

    Once a call has failed, nobody knows what the next bytes belong to: throw the wire away.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # A thread that ends leaves its wire behind.
        self.close = finalize(self, connection.close)
        self._bytes = bytearray(USUAL_BUFFER)
        self._view = memoryview(self._bytes)
        # What is received and not read yet lies between the two.
        self._at = self._have = 0

    def ask(self, question: bytes, until: float) -> Answer:
        """One command, one answer.

        Raises
        ------
        StoreUnavailable
            When the server says no.
        """
        (answer,) = self.ask_all([question], until)
        if isinstance(answer, Refusal):
            raise StoreUnavailable(str(answer))
        return answer

    def ask_all(self, questions: Sequence[bytes], until: float) -> list[Answer]:
        """Several commands in one round trip. A refusal is an answer here."""
        self._send(b"".join(questions), until)
        answers = [self._answer(until) for _ in questions]
        self._expect_silence()
        return answers

    def values(self, keys: Sequence[str], skip: int, until: float) -> list[memoryview | None]:
        """Values of keys in one round trip, None for an absent one; what they hold is good until the next call.

        Parameters
        ----------
        skip
            How many of the first bytes of each value to leave out.
        """
        self._send(command("MGET", *keys), until)
        first = self._line(until)
        if first.startswith(b"-"):
            raise StoreUnavailable(str(Refusal.parse(first[1:])))
        if first != b"*%d" % len(keys):
            raise _garbled()
        values = self._bulks(len(keys), skip, until)
        self._expect_silence()
        return values

    def _bulks(self, count: int, skip: int, until: float) -> list[memoryview | None]:
        values: list[memoryview | None] = []
        usual, length = b"", -1
        while len(values) < count:
            start = self._at + len(usual)
            end = start + length
            # Values are nearly always as long as the one before: its first line is compared, not read.
            if usual and end + 2 <= self._have and self._bytes.startswith(usual, self._at):
                values.append(self._view[start + skip : end])
                self._at = end + 2
                continue
            line = self._line(until)
            length = _length(line, b"$", LONGEST_VALUE)
            usual = line + b"\r\n" if length >= 0 else b""
            values.append(self._bulk(length, until)[skip:] if length >= 0 else None)
        return values

    def _answer(self, until: float, depth: int = 0) -> Answer:
        line = self._line(until)
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Refusal.parse(rest)
        if kind == b":":
            return _number(rest)
        if kind == b"$":
            length = _length(line, b"$", LONGEST_VALUE)
            return None if length < 0 else bytes(self._bulk(length, until))
        length = _length(line, b"*", LONGEST_VALUE if depth < DEEPEST else 0)
        return [self._answer(until, depth + 1) for _ in range(length)]

    def _bulk(self, length: int, until: float) -> memoryview:
        # With the two bytes that end it.
        while self._have < self._at + length + 2:
            self._receive(until)
        start = self._at
        self._at += length + 2
        return self._view[start : start + length]

    def _line(self, until: float) -> bytes:
        while (end := self._bytes.find(b"\r\n", self._at, self._have)) < 0:
            if self._have - self._at > LONGEST_LINE:
                raise _garbled()
            self._receive(until)
        line = bytes(self._view[self._at : end])
        self._at = end + 2
        return line

    def _send(self, request: bytes, until: float) -> None:
        if len(self._bytes) > LARGEST_KEPT_BUFFER:
            self._renew_buffer(USUAL_BUFFER)
        self._at = self._have = 0
        # Not `sendall`: over TLS its time-out is for each piece.
        rest = memoryview(request)
        while rest:
            self._connection.settimeout(_left(until))
            rest = rest[self._connection.send(rest) :]

    def _receive(self, until: float) -> None:
        if self._have == len(self._bytes):
            self._grow()
        self._connection.settimeout(_left(until))
        received = self._connection.recv_into(self._view[self._have :])
        if not received:
            raise ConnectionResetError("the server closed the connection")
        self._have += received

    def _grow(self) -> None:
        """Go on in a larger buffer. Values cut from the old one keep it."""
        rest = self._view[self._at : self._have]
        self._renew_buffer(2 * len(self._bytes))
        self._view[: len(rest)] = rest
        self._at, self._have = 0, len(rest)

    def _renew_buffer(self, size: int) -> None:
        self._bytes = bytearray(size)
        self._view = memoryview(self._bytes)

    def _expect_silence(self) -> None:
        if self._have > self._at:
            raise _garbled()


def connect(address: Address, until: float) -> Wire:
    """Connect and introduce oneself.

    Raises
    ------
    OSError
        When nobody is there, or not in time.
    StoreUnavailable
        When the server will not have us.
    """
    wire = Wire(_connected(address, until))
    for said in address.greeting:
        wire.ask(said, until)
    return wire


def command(*words: str) -> bytes:
    """A command as RESP spells it."""
    spelled = "".join([f"${len(word)}\r\n{word}\r\n" for word in words])
    if spelled.isascii():
        return f"*{len(words)}\r\n{spelled}".encode()
    return binary_command(*(encoded(word) for word in words))


def binary_command(*words: bytes) -> bytes:
    """A command of which not every word is text."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def encoded(word: str) -> bytes:
    """Every string has bytes of its own, even one with half a surrogate pair."""
    return word.encode("utf-8", "surrogatepass")


def _unusable(reason: str) -> UnusableOption:
    how = "redis://user:password@host:6379/0, with % codes for special characters of the password"
    return UnusableOption(STORE_URL, f"{reason}; write it like {how}")


def _connected(address: Address, until: float) -> socket.socket:
    if address.scheme == "unix":
        return _joined(socket.AF_UNIX, address.path, _left(until))
    failure: OSError = ConnectionError("the server's name has no address")
    places = _places(address, until)
    for i, (family, *_, place) in enumerate(places):
        try:
            # One address that swallows everything leaves time for the others.
            joined = _joined(family, place, _left(until) / (len(places) - i))
        except OSError as error:
            failure = error
        else:
            joined.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _secured(joined, address, until)
    raise failure


def _joined(family: int, place: Any, timeout_s: float) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection


def _secured(connection: socket.socket, address: Address, until: float) -> socket.socket:
    if address.tls is None:
        return connection
    try:
        connection.settimeout(_left(until))
        return address.tls.wrap_socket(connection, server_hostname=address.host)
    except BaseException:
        connection.close()
        raise


def _places(address: Address, until: float) -> Places:
    """The addresses of a name. The system's resolver knows no time-out, so it is left behind when it takes too long."""
    with suppress(socket.gaierror, UnicodeError):
        return socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    found = _looked_up(address.host, address.port)
    left_s = _left(until)
    try:
        return found.result(left_s)
    except TimeoutError:
        raise TimeoutError("looking up the name timed out") from None


def _looked_up(host: str, port: int) -> Future[Places]:
    """What will be known. A look-up that hangs is waited for by everybody: each new one would be a thread more."""
    with _LOOK_UPS_LOCK:
        found = _LOOK_UPS.get((host, port))
        if found is None:
            found = Future()
            Thread(target=_look_up, args=(host, port, found), name="store-name", daemon=True).start()
            _LOOK_UPS[host, port] = found
        return found


def _look_up(host: str, port: int, found: Future[Places]) -> None:
    try:
        found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        found.set_exception(ConnectionError(str(error)))
    finally:
        # Who asks from now on asks anew: names move.
        with _LOOK_UPS_LOCK:
            del _LOOK_UPS[host, port]


def _left(until: float) -> float:
    left_s = until - monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s


def _length(line: bytes, kind: bytes, most: int) -> int:
    """How long what follows is; -1 when it is not there."""
    length = _number(line[1:]) if line[:1] == kind else most + 1
    if not -1 <= length <= most:
        raise _garbled()
    return length


def _number(digits: bytes) -> int:
    if not digits.removeprefix(b"-").isdigit():
        raise _garbled()
    return int(digits)


def _garbled() -> StoreUnavailable:
    # Without a word of it: who gives a wrong answer may well give somebody else's.
    return StoreUnavailable("it answers what Redis does not")
