"""The online store on a server in trouble: it costs a read its time at most, and nothing is lost or believed by mistake."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest

from features.errors import StoreUnavailable
from features.online import Found
from features.online_redis import RedisStateStore
from features.resp import Address, Wire, command, connect
from features.state import States
from tests.features.states import CATALOGUE, some_states
from tests.serving import faults

TIMEOUT_S = 0.2
SLACK_S = 0.8
"""A machine with other things to do may be late."""
IDS = [f"s{i}" for i in range(50)]
MODES = [mode for mode in faults.MODES if mode != "pass"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[faults.Valkey]:
    """A server of the test's own, to be killed."""
    with faults.valkey(tmp_path) as server:
        yield server


def stored(url: str) -> tuple[RedisStateStore, States]:
    store, states = RedisStateStore(url, TIMEOUT_S), some_states(len(IDS), as_of=1e15)
    # To be counted on, exactly.
    states["sent_count"] = 0
    store.write(IDS, states)
    return store, states


def assert_unavailable_in_time(store: RedisStateStore) -> None:
    began = monotonic()
    with pytest.raises(StoreUnavailable):
        store.read(IDS, CATALOGUE)
    assert monotonic() - began < TIMEOUT_S + SLACK_S


def assert_reads(store: RedisStateStore, states: States) -> None:
    assert store.read(IDS, CATALOGUE, timeout_s=5.0)[0].tobytes() == states.tobytes()


def say(url: str, *words: str) -> object:
    until = monotonic() + 5
    with closing(connect(Address.parse(url), until)) as wire:
        return wire.ask(command(*words), until)


@pytest.fixture
def url(valkey: faults.Valkey) -> str:
    """Of the shared server, with nothing of ours on it."""
    RedisStateStore(valkey.url).drop()
    return valkey.url


def test_a_killed_server_is_unavailable_and_one_started_again_is_used_without_ado(own: faults.Valkey) -> None:
    store, states = stored(own.url)
    own.kill()
    for _ in range(2):
        assert_unavailable_in_time(store)
        with pytest.raises(StoreUnavailable):
            store.write(IDS, states)
    own.start()
    assert_reads(store, states)


def test_a_restart_between_two_reads_goes_unnoticed(own: faults.Valkey) -> None:
    store, states = stored(own.url)
    own.kill()
    own.start()
    assert_reads(store, states)


def test_scripts_lost_in_a_restart_are_sent_again(own: faults.Valkey) -> None:
    store, states = stored(own.url)
    own.kill()
    own.start()
    assert store.write(IDS, states) == len(IDS)
    say(own.url, "SCRIPT", "FLUSH", "SYNC")
    assert store.revise(IDS, lambda rows, found: rows, CATALOGUE) == len(IDS)
    assert_reads(store, states)


def test_a_frozen_server_costs_the_time_out_and_is_used_again_once_it_moves(own: faults.Valkey) -> None:
    store, states = stored(own.url)
    own.freeze()
    # Over a connection that was there, and over a new one, which the kernel still accepts.
    assert_unavailable_in_time(store)
    assert_unavailable_in_time(store)
    own.thaw()
    assert_reads(store, states)


@pytest.mark.parametrize("mode", MODES)
def test_a_broken_network_costs_the_time_out_at_most_and_is_believed_nothing(
    own: faults.Valkey, mode: faults.Mode
) -> None:
    _, states = stored(own.url)
    with faults.proxy(own.port) as network:
        store = RedisStateStore(network.url, TIMEOUT_S)
        assert_reads(store, states)
        network.switch(mode)
        for _ in range(3):
            assert_unavailable_in_time(store)
        network.switch("pass")
        assert_reads(store, states)
        network.switch(mode)
        began = monotonic()
        with pytest.raises(StoreUnavailable):
            store.read(IDS, CATALOGUE, timeout_s=0.02)
        assert monotonic() - began < 0.02 + SLACK_S


def test_a_connection_that_the_server_closed_while_idle_is_replaced(url: str) -> None:
    store, states = stored(url)
    say(url, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert_reads(store, states)
    say(url, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert store.write(IDS, states) == len(IDS)


def test_a_change_whose_fate_is_unknown_is_not_made_twice(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = stored(url)
    ask_all, lost = Wire.ask_all, []

    def lose_one_answer(wire: Wire, questions: list[bytes], until: float) -> object:
        answers = ask_all(wire, questions, until)
        if not lost:
            lost.append(answers)
            raise ConnectionResetError
        return answers

    def count_one(states: States, found: Found) -> States:
        states["sent_count"] += 1
        return states

    store.revise(IDS, count_one, CATALOGUE)
    monkeypatch.setattr(Wire, "ask_all", lose_one_answer)
    with pytest.raises(StoreUnavailable):
        store.revise(IDS, count_one, CATALOGUE)
    assert (store.read(IDS, CATALOGUE)[0]["sent_count"] == 2).all()


def test_rows_lost_to_another_writer_are_changed_again_and_only_those(url: str) -> None:
    store, _ = stored(url)
    interrupted = []

    def count_one(states: States, found: Found) -> States:
        if not interrupted:
            interrupted.append(True)
            RedisStateStore(url).revise(IDS[:3], count_one, CATALOGUE)
        states["sent_count"] += 1
        return states

    assert store.revise(IDS, count_one, CATALOGUE) == len(IDS)
    counts = store.read(IDS, CATALOGUE)[0]["sent_count"]
    assert counts.tolist() == [2.0] * 3 + [1.0] * (len(IDS) - 3)


def test_an_evicted_row_is_unknown_and_an_evicted_mark_is_found_again(url: str) -> None:
    store, _ = stored(url)
    say(url, "DEL", "inbox:state:s7", "inbox:state")
    assert store.read(["s7", "s8"], CATALOGUE)[1].tolist() == [False, True]
    assert store.count() == len(IDS) - 1
    assert store.newest() == 1e15


def test_a_value_too_short_for_an_anchor_is_damaged_and_replaced(url: str) -> None:
    store, states = stored(url)
    say(url, "SET", "inbox:state:s0", "short")
    assert store.read(IDS, CATALOGUE)[1].sum() == len(IDS) - 1
    assert store.damaged_rows == 1
    assert store.write(IDS, states) == len(IDS)
    assert_reads(store, states)


def test_a_key_of_another_kind_is_nobody_to_a_reader_and_stops_a_writer(url: str) -> None:
    store, states = stored(url)
    say(url, "DEL", "inbox:state:s0")
    say(url, "LPUSH", "inbox:state:s0", "somebody", "else's")
    assert store.read(IDS, CATALOGUE)[1].sum() == len(IDS) - 1
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        store.write(IDS, states)
    store.drop()
    assert store.count() == 0


def test_halves_of_surrogate_pairs_and_nul_make_ids_of_their_own(url: str) -> None:
    ids = ["\ud83d\ude00", "\U0001f600", "\ud83d", "a\0b", "a"]
    store, states = RedisStateStore(url), some_states(5, as_of=1e15)
    store.write(ids, states)
    assert store.count() == 5
    assert store.read(ids, CATALOGUE)[0].tobytes() == states.tobytes()


def test_a_user_with_a_password_and_a_database_is_let_in(valkey: faults.Valkey) -> None:
    say(valkey.url, "ACL", "SETUSER", "ann", "reset", "on", ">s3 cret/", "~inbox:*", "+@all")
    try:
        url = valkey.url.replace("//", "//ann:s3%20cret%2f@").removesuffix("/0")
        store, states = stored(f"{url}/5")
        assert_reads(store, states)
        assert RedisStateStore(f"{valkey.url.removesuffix('/0')}/5").count() == len(IDS)
        assert RedisStateStore(f"{valkey.url.removesuffix('/0')}/6").count() == 0
        store.drop()
        with pytest.raises(StoreUnavailable, match="WRONGPASS") as caught:
            RedisStateStore(url.replace("s3", "wr0ng")).read(IDS, CATALOGUE)
        assert "wr0ng" not in str(caught.value)
    finally:
        say(valkey.url, "ACL", "DELUSER", "ann")


@contextmanager
def tls_in_front_of(port: int, directory: Path) -> Iterator[tuple[int, Path]]:
    """A port of localhost that takes TLS, and the certificate it shows."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    made = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
        "-days",
        "2",
    ]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", *made, *named], check=True, capture_output=True, timeout=60)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(65_536):
                sink.write(chunk)
                await sink.drain()
        sink.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, to_server), pump(from_server, writer))

    async def serve(listening: socket.socket, ended: asyncio.Event) -> None:
        async with await asyncio.start_server(relay, sock=listening, ssl=context):
            await ended.wait()

    loop, ended = asyncio.new_event_loop(), asyncio.Event()
    with closing(loop), socket.create_server(("127.0.0.1", 0)) as listening:
        front = listening.getsockname()[1]
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(listening, ended),))
        thread.start()
        try:
            yield front, certificate
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join(5)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_tls_works_with_a_certificate_that_is_trusted_and_not_with_another(
    url: str, valkey: faults.Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, states = stored(url)
    with tls_in_front_of(valkey.port, tmp_path) as (port, certificate):
        with pytest.raises(StoreUnavailable, match="certificate"):
            RedisStateStore(f"rediss://localhost:{port}").read(IDS, CATALOGUE)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with closing(RedisStateStore(f"rediss://localhost:{port}")) as over_tls:
            assert_reads(over_tls, states)
            assert over_tls.write(IDS, states) == len(IDS)
        with pytest.raises(StoreUnavailable, match="certificate"):
            RedisStateStore(f"rediss://127.0.0.1:{port}").read(IDS, CATALOGUE)
    store.close()


def test_a_thread_that_ends_takes_its_connection_along(url: str) -> None:
    store, _ = stored(url)

    def connections() -> int:
        clients = say(url, "CLIENT", "LIST")
        assert isinstance(clients, bytes)
        return clients.count(b"\n")

    before = connections()
    for _ in range(5):
        reader = threading.Thread(target=store.read, args=(IDS, CATALOGUE))
        reader.start()
        reader.join()
    assert connections() <= before + 1
