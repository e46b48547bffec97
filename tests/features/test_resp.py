"""The wire to Redis: answers come apart the same however they arrive, nonsense is refused, passwords stay unseen."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import StoreUnavailable, UnusableOption
from features.resp import LONGEST_LINE, USUAL_BUFFER, Address, Refusal, Wire, binary_command, command, connect

SOON_S = 5.0


@contextmanager
def answering(*chunks: bytes, then_close: bool = False) -> Iterator[Wire]:
    """A wire whose other end says these chunks, whatever it is asked."""
    ours, theirs = socket.socketpair()

    def speak() -> None:
        for chunk in chunks:
            theirs.sendall(chunk)
        if then_close:
            theirs.shutdown(socket.SHUT_WR)

    with closing(Wire(ours)) as wire, closing(theirs):
        speaker = threading.Thread(target=speak)
        speaker.start()
        yield wire
        speaker.join(SOON_S)


def spelled(values: Sequence[bytes | None]) -> bytes:
    said = [b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value) for value in values]
    return b"*%d\r\n" % len(values) + b"".join(said)


def chopped(whole: bytes, cuts: Sequence[int]) -> list[bytes]:
    ends = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    return [whole[start:end] for start, end in pairwise(ends)]


rows = st.none() | st.binary(max_size=12) | st.sampled_from([b"", b"\r\n", b"$-1\r\n", b"*1\r\n", b"x" * 300])


@settings(deadline=None)
@given(st.lists(rows, min_size=1, max_size=8), st.lists(st.integers(0, 400), max_size=6), st.integers(0, 9))
def test_values_come_apart_the_same_however_they_arrive(values: list[bytes | None], cuts: list[int], skip: int) -> None:
    with answering(*chopped(spelled(values), cuts)) as wire:
        keys = [str(i) for i in range(len(values))]
        read = wire.values(keys, skip, monotonic() + SOON_S)
        assert [None if value is None else bytes(value) for value in read] == [
            None if value is None else value[skip:] for value in values
        ]


def test_an_answer_larger_than_the_buffer_is_whole() -> None:
    values = [bytes([i]) * (USUAL_BUFFER // 3 + i) for i in range(40)]
    with answering(spelled(values)) as wire:
        read = wire.values([str(i) for i in range(40)], 0, monotonic() + SOON_S)
        assert [bytes(value) for value in read if value is not None] == values


def test_answers_of_every_kind_are_understood() -> None:
    said = b"+OK\r\n", b":-7\r\n", b"-ERR no\r\n", b"$-1\r\n", b"*2\r\n$1\r\n5\r\n*1\r\n$1\r\nk\r\n"
    with answering(*said) as wire:
        answers = wire.ask_all([command("ANY")] * 5, monotonic() + SOON_S)
    assert answers == [b"OK", -7, Refusal("ERR"), None, [b"5", [b"k"]]]


@pytest.mark.parametrize(
    "said",
    [
        b"+OK\r\n",
        b":7\r\n",
        b"$-1\r\n",
        b"$5\r\nhello\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"*3\r\n$1\r\nx\r\n$1\r\ny\r\n$1\r\nz\r\n",
        b"*2\r\n:7\r\n:7\r\n",
        b"*2\r\n*1\r\n$1\r\nx\r\n",
        b"*2\r\n$99999999999\r\n",
        b"*2\r\n$-2\r\n",
        b"*2\r\n$1_0\r\n",
        b"*2\r\n$ 1\r\n",
        b"*2\r\n$-1\r\n$-1\r\n$-1\r\n",
        b"*99999999\r\n",
        b"-ERR no\r\n",
        b"-LOADING wait\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\r\n",
        b"x" * (LONGEST_LINE + 2),
        b"\xff\xfe\r\n",
    ],
)
def test_what_is_no_answer_to_two_keys_is_refused_at_once(said: bytes) -> None:
    with answering(said) as wire, pytest.raises(StoreUnavailable) as caught:
        wire.values(["a", "b"], 0, monotonic() + SOON_S)
    assert str(caught.value).isprintable()


SECRET = "S3CRET of ann"


@pytest.mark.parametrize(
    "said",
    [
        f"-ERR unknown command 'AUTH', with args beginning with: 'ann' '{SECRET}' \r\n",
        f"-NOAUTH {SECRET}\r\n",
        f"-{SECRET}\r\n",
        f"+{SECRET}\r\n",
        f"${SECRET}\r\n",
        f":{SECRET}\r\n",
        f"{SECRET}\r\n",
        f"*2\r\n${SECRET}\r\n",
        f"*2\r\n$-1\r\n$-1\r\n{SECRET}\r\n",
        SECRET * 100,
    ],
)
def test_nothing_of_what_the_server_says_is_repeated_but_the_code_of_a_refusal(said: str) -> None:
    with answering(said.encode()) as wire, pytest.raises(StoreUnavailable) as caught:
        wire.values(["a", "b"], 0, monotonic() + SOON_S)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"-LOADING wait\r\n", "it says no (LOADING)"),
        (b"-NOSCRIPT\r\n", "it says no (NOSCRIPT)"),
        (b"-\r\n", "it says no"),
    ],
)
def test_a_refusal_shows_its_code(said: bytes, shown: str) -> None:
    with answering(said) as wire, pytest.raises(StoreUnavailable) as caught:
        wire.ask(command("PING"), monotonic() + SOON_S)
    assert caught.value.reason == shown


@pytest.mark.parametrize("said", [b"hello\r\n", b":x\r\n", b"*1\r\n" * 20, b"*99999999999\r\n", b"+OK\r\n+OK\r\n"])
def test_what_is_no_answer_at_all_is_refused_at_once(said: bytes) -> None:
    with answering(said) as wire, pytest.raises(StoreUnavailable):
        wire.ask(command("PING"), monotonic() + SOON_S)


def test_an_answer_that_ends_early_is_a_broken_connection() -> None:
    with answering(b"*2\r\n$5\r\nhel", then_close=True) as wire, pytest.raises(ConnectionError):
        wire.values(["a", "b"], 0, monotonic() + SOON_S)


def test_an_answer_that_does_not_end_is_waited_for_until_the_deadline() -> None:
    began = monotonic()
    with answering(b"*2\r\n$5\r\nhel") as wire, pytest.raises(TimeoutError):
        wire.values(["a", "b"], 0, began + 0.1)
    assert 0.1 <= monotonic() - began < 1


def test_commands_count_bytes_not_characters() -> None:
    assert command("GET", "é") == b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xa9\r\n"
    assert command("GET", "\ud800") == b"*2\r\n$3\r\nGET\r\n$3\r\n\xed\xa0\x80\r\n"
    assert command("GET", "\0") == binary_command(b"GET", b"\0") == b"*2\r\n$3\r\nGET\r\n$1\r\n\0\r\n"


@pytest.mark.parametrize(
    ("url", "shown", "greeting"),
    [
        ("redis://localhost", "redis://localhost:6379/0", []),
        ("redis://localhost/", "redis://localhost:6379/0", []),
        ("redis://[::1]:7000/3", "redis://[::1]:7000/3", [("SELECT", "3")]),
        ("redis://:s%40cret@h", "redis://***@h:6379/0", [("AUTH", "s@cret")]),
        ("rediss://ann:s3cret@h:1/2", "rediss://***@h:1/2", [("AUTH", "ann", "s3cret"), ("SELECT", "2")]),
        ("unix:///run/valkey%20here.sock", "unix:///run/valkey here.sock?db=0", []),
        ("unix://:s3cret@/run/v.sock?db=4", "unix://***@/run/v.sock?db=4", [("AUTH", "s3cret"), ("SELECT", "4")]),
    ],
)
def test_a_url_says_where_and_as_whom(url: str, shown: str, greeting: list[tuple[str, ...]]) -> None:
    address = Address.parse(url)
    assert str(address) == shown
    assert address.greeting == [command(*words) for words in greeting]
    assert "cret" not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "http://:s3cret@h",
        "redis://",
        "redis://:s3cret@",
        "redis://:s3cret@h:port",
        "redis://:s3cret@h:99999",
        "redis://:s3cret@h/one",
        "redis://:s3cret@h/-1",
        "redis://h/0?password=s3cret",
        "redis://:s3/cret@h",
        "redis://[s3cret",
        "unix://",
        "unix:///v.sock?database=s3cret",
        "unix:///v.sock?s3cret",
    ],
)
def test_an_unusable_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UnusableOption, match="INBOX_STORE_URL") as caught:
        Address.parse(url)
    assert "s3" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_unix_socket_is_connected_to(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "v.sock"))
        server.listen()
        with closing(connect(Address.parse(f"unix://{tmp_path}/v.sock"), monotonic() + SOON_S)) as wire:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"+PONG\r\n")
                assert wire.ask(command("PING"), monotonic() + SOON_S) == b"PONG"
                assert peer.recv(100) == command("PING")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Names are looked up only once this is set."""
    known, may_answer = socket.getaddrinfo, threading.Event()

    def slow(host: str, port: int, *, type: int, flags: int = 0) -> object:
        if not flags:
            may_answer.wait(SOON_S)
        return known(host, port, type=type, flags=flags)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield may_answer
    may_answer.set()


def looking_up() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "store-name"]


def test_a_name_that_takes_too_long_to_look_up_costs_no_more_than_the_deadline(hanging: threading.Event) -> None:
    began = monotonic()
    with pytest.raises(TimeoutError, match="looking up the name timed out"):
        connect(Address.parse("redis://localhost:1"), began + 0.1)
    assert monotonic() - began < 1


def test_a_name_is_looked_up_once_at_a_time_however_many_ask_and_anew_afterwards(hanging: threading.Event) -> None:
    with socket.create_server(("localhost", 0)) as server:
        address = Address.parse(f"redis://localhost:{server.getsockname()[1]}")
        for _ in range(5):
            with pytest.raises(TimeoutError):
                connect(address, monotonic() + 0.01)
        (under_way,) = looking_up()
        late = threading.Timer(0.1, hanging.set)
        late.start()
        # Who waits for the same look-up gets its answer.
        connect(address, monotonic() + SOON_S).close()
        late.join()
        under_way.join(SOON_S)
        connect(address, monotonic() + SOON_S).close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 70, "a..b"])
def test_a_name_that_is_nobodys_is_an_error_of_the_connection(host: str) -> None:
    with pytest.raises(OSError):
        connect(Address.parse(f"redis://{host}"), monotonic() + SOON_S)


def test_tls_to_a_server_that_says_nothing_ends_with_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = monotonic()
        with pytest.raises(TimeoutError):
            connect(Address.parse(f"rediss://127.0.0.1:{server.getsockname()[1]}"), began + 0.2)
        assert monotonic() - began < 2
