"""Streams: nothing is lost and nothing is doubled, whoever is killed when. Kafka is librdkafka's own mock cluster."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from features.catalogue import Catalogue
from features.errors import InboxUnavailable, UnusableOption
from features.home import STORE_URL, Home
from features.inbox import Inbox
from features.log import EventLog
from features.stores import open_store
from pipelines.consume import consume
from pipelines.inbox import Intake, Taken, drained
from pipelines.materialize import materialize
from pipelines.streams import KafkaStream, RedisStream, Stream, StreamFailed, read_settings
from tests.features.test_online_redis import say
from tests.front_door import inbox
from tests.serving import faults

pytestmark = pytest.mark.slow

GROUP = {"session.timeout.ms": "2500", "heartbeat.interval.ms": "300", "topic.metadata.refresh.interval.ms": "300"}
TOPICS = (f"topic{number}" for number in count())


@dataclass(frozen=True)
class Cluster:
    """Lives as long as its producer."""

    producer: Producer
    brokers: str

    def put(self, topic: str, bodies: Sequence[bytes], partition: Callable[[int], int] = lambda n: n % 4) -> None:
        for number, body in enumerate(bodies):
            self.producer.produce(topic, body, partition=partition(number))
            self.producer.poll(0)
        assert self.producer.flush(20) == 0

    def stream(self, topic: str, **settings: str) -> KafkaStream:
        return KafkaStream(self.brokers, [topic], "inbox", GROUP | settings)


def started() -> Cluster:
    producer = Producer({"test.mock.num.brokers": 1, "log_level": 0, "queue.buffering.max.messages": 1_000_000})
    brokers = producer.list_topics(timeout=10).brokers.values()
    return Cluster(producer, ",".join(f"{broker.host}:{broker.port}" for broker in brokers))


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return started()


@pytest.fixture
def topic() -> str:
    return next(TOPICS)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def message(number: int, **other: Any) -> bytes:
    told = {
        "event_id": f"e{number}",
        "subscriber_id": f"s{number % 50}",
        "event_type": "click",
        "occurred_at": f"2026-01-{1 + number % 28:02d}T09:00:00Z",
        "campaign_id": "c1",
    }
    return orjson.dumps(told | other)


def to_the_end(stream: Stream, home: Home, form: str = "events") -> Taken:
    return consume(stream, Intake(home, form), lambda: False, lambda text: None, until_end=True, patience_s=20)


def ids(home: Home) -> list[str]:
    """Of everything that is in the log when the inbox is drained."""
    drained(home)
    return sorted(EventLog(home).connect().table("events").to_pyarrow()["event_id"].to_pylist())


def expected(number: int) -> list[str]:
    return sorted(f"e{n}" for n in range(number))


def command(cluster: Cluster, topic: str, home: Home, *more: str) -> list[str]:
    settings = [word for key, value in GROUP.items() for word in ("--setting", f"{key}={value}")]
    where = ["--from", f"kafka://{cluster.brokers}", "--topic", topic, "--home", str(home.root)]
    return [sys.executable, "-c", "from pipelines.cli import main; main()", "consume", *where, *settings, *more]


def begun(cluster: Cluster, topic: str, home: Home) -> subprocess.Popen[str]:
    words = command(cluster, topic, home)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))


def accepted(home: Home) -> int:
    return sum(map(len, Inbox(home).events_of(f"s{n}" for n in range(50)).values()))


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_every_message_is_taken_once_and_the_next_run_goes_on_where_it_was(
    cluster: Cluster, topic: str, home: Home
) -> None:
    cluster.put(topic, [message(n) for n in range(100)])
    settings = [word for key, value in GROUP.items() for word in ("--setting", f"{key}={value}")]
    words = ("consume", "--from", f"kafka://{cluster.brokers}", "--topic", topic, *settings, "--until-end")
    said = inbox(*words, "--home", home.root)
    assert said.code == 0, said.err
    assert "100 new events from 100 messages" in said.out
    assert ids(home) == expected(100)
    said = inbox(*words, "--home", home.root)
    assert "0 new events from 0 messages" in said.out, said


def test_repeats_disorder_and_poison_change_nothing_and_stop_nothing(cluster: Cluster, topic: str, home: Home) -> None:
    good = [message(n) for n in range(40)]
    bad = [b"\xff\xfe not json", b"[1]", message(99, event_type="opened"), message(98, occurred_at="soon"), b""]
    stream = good * 46 + bad
    random.Random(5).shuffle(stream)
    cluster.put(topic, stream)
    taken = to_the_end(cluster.stream(topic), home)
    assert (taken.new, taken.repeated, taken.bodies) == (40, 40 * 45, len(stream))
    assert taken.quarantined == 4 and taken.aside == {"a message without a body": 1}
    assert ids(home) == expected(40)


def test_what_was_taken_but_not_acknowledged_comes_again_and_changes_nothing(
    cluster: Cluster, topic: str, home: Home
) -> None:
    cluster.put(topic, [message(n) for n in range(30)])
    first = cluster.stream(topic)
    bodies: list[bytes | None] = []
    until(lambda: bool(bodies.extend(first.fetch(5_000))) or len(bodies) == 30)
    assert Intake(home, "events").take(bodies).new == 30
    # Killed here: it leaves without acknowledging.
    first.close()
    taken = to_the_end(cluster.stream(topic), home)
    assert (taken.new, taken.repeated) == (0, 30)
    assert ids(home) == expected(30)


def test_a_webhooks_payload_may_come_by_a_stream(cluster: Cluster, topic: str, home: Home) -> None:
    payload = [
        {
            "email": "ann@example.com",
            "event": "open",
            "timestamp": 1_767_604_364,
            "sg_event_id": "x1",
            "sg_message_id": "m",
        }
    ]
    cluster.put(topic, [orjson.dumps(payload)] * 2)
    taken = to_the_end(cluster.stream(topic), home, "sendgrid")
    assert (taken.new, taken.repeated) == (1, 1)
    drained(home)
    assert b"ann" not in b"".join(path.read_bytes() for path in home.event_log.rglob("*.parquet"))


def test_a_consumer_that_is_killed_loses_nothing_and_doubles_nothing(cluster: Cluster, topic: str, home: Home) -> None:
    number = 30_000
    cluster.put(topic, [message(n) for n in range(number)])
    process = begun(cluster, topic, home)
    until(lambda: accepted(home) > 0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < accepted(home) < number
    taken = to_the_end(cluster.stream(topic), home)
    assert taken.new > 0
    assert ids(home) == expected(number)


def test_a_consumer_that_is_asked_to_stop_acknowledges_what_it_took(cluster: Cluster, topic: str, home: Home) -> None:
    cluster.put(topic, [message(n) for n in range(500)])
    process = begun(cluster, topic, home)
    until(lambda: accepted(home) == 500)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0, out
    assert "500 new events from 500 messages" in " ".join(out.split())
    assert to_the_end(cluster.stream(topic), home).bodies == 0


@pytest.mark.parametrize("how", ["range", "cooperative-sticky"])
def test_consumers_that_join_and_leave_share_the_work(cluster: Cluster, topic: str, home: Home, how: str) -> None:
    cluster.put(topic, [message(n) for n in range(2_000)])
    stop, results = Event(), []

    def work() -> None:
        stream = cluster.stream(topic, **{"partition.assignment.strategy": how})
        results.append(consume(stream, Intake(home, "events"), stop.is_set, lambda text: None))

    first, second = Thread(target=work), Thread(target=work)
    first.start()
    until(lambda: accepted(home) > 0)
    second.start()
    for start in range(2_000, 12_000, 500):
        cluster.put(topic, [message(n) for n in range(start, start + 500)])
        time.sleep(0.2)
    until(lambda: accepted(home) == 12_000)
    stop.set()
    first.join(20)
    second.join(20)
    assert sum(taken.new for taken in results) == 12_000
    assert ids(home) == expected(12_000)


def test_partitions_that_come_one_by_one_are_all_read_to_their_end(cluster: Cluster, topic: str, home: Home) -> None:
    cooperative = {"partition.assignment.strategy": "cooperative-sticky"}
    cluster.put(topic, [message(n) for n in range(40)])
    first = cluster.stream(topic, **cooperative)
    try:
        until(lambda: (first.fetch(99), len(first._assigned) == 4)[1])
        second = cluster.stream(topic, **cooperative)
        until(lambda: (first.fetch(99), second.fetch(99), len(first._assigned) == len(second._assigned) == 2)[2])
        second.close()
        until(lambda: (first.fetch(99), len(first._assigned) == 4)[1])
        until(lambda: (first.fetch(99), first.at_end)[1])
    finally:
        first.close()
    assert to_the_end(cluster.stream(topic, **cooperative), home).bodies == 40


def test_a_broker_that_goes_away_is_waited_for_and_then_said(topic: str, home: Home) -> None:
    dying = started()
    dying.put(topic, [message(n) for n in range(10)])
    stream, told = dying.stream(topic), list[str]()
    intake = Intake(home, "events")
    bodies: list[bytes | None] = []
    until(lambda: bool(bodies.extend(stream.fetch(100))) or len(bodies) == 10)
    intake.take(bodies)
    del dying
    # The mock cluster goes with its producer.
    with pytest.raises(StreamFailed, match="cannot be read"):
        consume(stream, intake, lambda: False, told.append, until_end=True, patience_s=3)
    assert any("waiting" in text for text in told)
    assert ids(home) == expected(10)


def test_a_batch_that_cannot_be_written_is_not_acknowledged(cluster: Cluster, topic: str, home: Home) -> None:
    cluster.put(topic, [message(n) for n in range(10)])
    intake = Intake(home, "events")
    home.inbox.mkdir(parents=True)
    with pytest.raises(InboxUnavailable):
        consume(cluster.stream(topic), intake, lambda: False, lambda text: None)
    home.inbox.rmdir()
    assert to_the_end(cluster.stream(topic), home).new == 10


def test_a_topic_that_is_not_there_is_said(cluster: Cluster, home: Home) -> None:
    with pytest.raises(StreamFailed, match=r"never.*[Uu]nknown topic"):
        to_the_end(cluster.stream("never"), home)


def test_sources_formats_and_settings_that_are_none_are_one_sentence(cluster: Cluster, home: Home) -> None:
    where = ("--topic", "t", "--home", home.root)
    said = inbox("consume", "--from", f"kafka://{cluster.brokers}", *where, "--setting", "no.such=1")
    assert said.code == 1 and "--setting" in said.err and "no.such" in said.err, said.err
    for source, words in (
        ("kafka://", "names no broker"),
        ("http://x", "must begin with"),
        ("redis:///0", "no server"),
    ):
        said = inbox("consume", "--from", source, *where)
        assert said.code == 1 and "--from" in said.err and words in said.err, said.err
    said = inbox("consume", "--from", "kafka://x", *where, "--format", "csv")
    assert said.code == 1 and "'csv' is not known" in said.err


def test_settings_are_read_from_a_file_and_a_bad_line_is_named_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("# secret\nsasl.password=a=b\n\n security.protocol = SSL\n")
    wanted = {"sasl.password": "a=b", "security.protocol": "PLAINTEXT"}
    assert read_settings(file, ["security.protocol=PLAINTEXT"]) == wanted
    file.write_text("sasl.password hunter2\n")
    with pytest.raises(UnusableOption) as refused:
        read_settings(file, [])
    assert "line 1" in str(refused.value) and "hunter2" not in str(refused.value)


# --- Redis and Valkey -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[faults.Valkey]:
    with faults.valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


def put(server: faults.Valkey, key: str, bodies: Sequence[bytes]) -> None:
    for body in bodies:
        say(server.url, "XADD", key, "*", "event", body.decode())


def test_a_redis_stream_is_taken_once(valkey: faults.Valkey, topic: str, home: Home) -> None:
    put(valkey, topic, [message(n) for n in range(50)] * 2 + [b"poison"])
    say(valkey.url, "XADD", topic, "*", "other", "field")
    words = ("consume", "--from", valkey.url, "--topic", topic, "--until-end", "--home", home.root)
    said = inbox(*words)
    assert said.code == 0, said.err
    assert "50 new events from 102 messages; 50 repeated, 1 quarantined, 1 set aside" in said.out
    assert ids(home) == expected(50)
    assert "0 new events from 0 messages" in inbox(*words).out


def test_what_a_killed_consumer_of_a_redis_stream_had_comes_again(
    valkey: faults.Valkey, topic: str, home: Home
) -> None:
    put(valkey, topic, [message(n) for n in range(20)])
    killed = RedisStream(valkey.url, topic, "inbox", "one")
    assert len(killed.fetch(15)) == 15
    killed.close()
    taken = to_the_end(RedisStream(valkey.url, topic, "inbox", "one"), home)
    assert taken.new == 20
    assert ids(home) == expected(20)


def test_what_another_consumer_left_is_taken_over(
    valkey: faults.Valkey, topic: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(valkey, topic, [message(n) for n in range(20)])
    RedisStream(valkey.url, topic, "inbox", "gone").fetch(15)
    monkeypatch.setattr("pipelines.streams.CLAIM_AFTER_MS", 2_000)
    begun, told = time.monotonic(), list[str]()
    stream = RedisStream(valkey.url, topic, "inbox", "new")
    taken = consume(stream, Intake(home, "events"), lambda: False, told.append, until_end=True)
    assert taken.new == 20 and time.monotonic() - begun >= 1.5
    assert told == ["waiting: messages are with another consumer of the group; after 2 s they are taken over"]


def test_what_was_left_is_found_behind_much_that_is_at_work(
    valkey: faults.Valkey, topic: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(valkey, topic, [message(n) for n in range(60)])
    at_work, gone = (RedisStream(valkey.url, topic, "inbox", name) for name in ("busy", "gone"))
    ahead = at_work.fetch(50)
    assert len(ahead) == 50 and len(gone.fetch(10)) == 10
    time.sleep(1.0)
    ids = [entry.decode() for entry in at_work._fetched]
    say(valkey.url, "XCLAIM", topic, "inbox", "busy", "0", *ids)
    monkeypatch.setattr("pipelines.streams.CLAIM_AFTER_MS", 700)
    assert len(RedisStream(valkey.url, topic, "inbox", "new").fetch(2)) == 2


def test_who_ends_with_nothing_open_leaves_the_group_and_who_has_something_stays(
    valkey: faults.Valkey, topic: str, home: Home
) -> None:
    put(valkey, topic, [message(n) for n in range(3)])
    to_the_end(RedisStream(valkey.url, topic, "inbox", "clean"), home)
    assert say(valkey.url, "XINFO", "CONSUMERS", topic, "inbox") == []
    put(valkey, topic, [message(9)])
    open_still = RedisStream(valkey.url, topic, "inbox", "open")
    assert len(open_still.fetch(9)) == 1
    open_still.close()
    assert to_the_end(RedisStream(valkey.url, topic, "inbox", "open"), home).new == 1


def test_what_was_consumed_is_in_the_online_store_at_once(
    valkey: faults.Valkey, topic: str, home: Home, tmp_path: Path
) -> None:
    (tmp_path / "events.jsonl").write_bytes(message(0))
    EventLog(home).append(tmp_path / "events.jsonl", None, None)
    materialize(home, lambda share: None)
    put(valkey, topic, [message(n) for n in range(1, 4)])
    said = inbox("consume", "--from", valkey.url, "--topic", topic, "--until-end", "--home", home.root)
    assert "3 new events" in said.out and "live features wait" not in said.out, said
    with closing(open_store(home)) as store:
        _, found = store.read(["s0", "s1", "s2", "s3", "s4"], Catalogue.load(home.catalogue))
    assert found.tolist() == [True, True, True, True, False]


def test_a_store_that_is_away_stops_no_stream(
    valkey: faults.Valkey, topic: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.var.mkdir(parents=True)
    Catalogue().save(home.catalogue)
    monkeypatch.setenv(STORE_URL, "redis://127.0.0.1:1/0")
    put(valkey, topic, [message(n) for n in range(3)])
    said = inbox("consume", "--from", valkey.url, "--topic", topic, "--until-end", "--home", home.root)
    assert said.code == 0 and "3 new events" in said.out, said
    assert said.out.count("live features wait, what was accepted is kept") == 1


def test_a_redis_that_is_not_there_is_said(home: Home) -> None:
    stream = RedisStream("redis://127.0.0.1:1", "t", "inbox")
    with pytest.raises(StreamFailed, match="refused"):
        consume(stream, Intake(home, "events"), lambda: False, lambda text: None, until_end=True, patience_s=0.2)
