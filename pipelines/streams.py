"""Streams that programs put events on: Kafka, and Redis or Valkey Streams. The one door to their clients.

What enters: where a stream is. What leaves: batches of message bodies, each until it is acknowledged. The promise: a
message is acknowledged only by ``Stream.done``, so one that was not taken in comes again, to this consumer or to another
of its group; a broker that is away is waited for, and a vendor's exception is ours when it leaves here.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from features.errors import ScoringError, StoreUnavailable, UnreadableFile, UnusableOption
from features.resp import Address, Answer, Refusal, Wire, command, connect

Partition: TypeAlias = tuple[str, int]

FETCH_S = 0.5
"""How long a batch is waited for: by then a stop that was asked for is heard."""
GATHER_S = 0.05
"""For how long what follows a first message joins its batch: a click is in the next score within a second."""
PATIENCE_S = 30.0
"""How long who wants the end of a stream waits for a broker that does not answer."""
REDIS_TIMEOUT_S = 5.0
_START = "0-0"
CLAIM_AFTER_MS = 60_000
"""What another consumer of the group has had for so long without acknowledging it is taken over."""


class StreamFailed(ScoringError):
    """A stream cannot be read. ``reason`` names brokers and topics, never a message."""

    code = "stream_failed"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The stream cannot be read: {reason}. What was not acknowledged comes again; run this again.")


class Stream(Protocol):
    """Bodies of messages, at least once."""

    trouble: str | None
    """What is wrong at the moment, if anything is."""

    @property
    def at_end(self) -> bool:
        """Whether there was nothing more when last asked."""

    def fetch(self, at_most: int) -> Sequence[bytes | None]:
        """What comes next, within about ``FETCH_S``; None for a message without a body.

        Raises
        ------
        StreamFailed
            When waiting would not help.
        """

    def done(self) -> None:
        """Acknowledge what was fetched last. When that fails it comes again, which changes nothing."""

    def close(self) -> None:
        """Leave the group, so that others go on at once."""


class KafkaStream:
    """Topics of a Kafka cluster, as one of a consumer group.

    Offsets are committed by ``done`` alone, each the one after the last message of its partition. A partition may be
    taken away between ``fetch`` and ``done``: then the commit is refused, and its next owner sees the messages again.

    Parameters
    ----------
    settings
        Of librdkafka, such as ``security.protocol``; see ``read_settings``.

    Raises
    ------
    UnusableOption
        When librdkafka does not know a setting or cannot use its value.
    """

    def __init__(self, brokers: str, topics: Sequence[str], group: str, settings: Mapping[str, str]) -> None:
        self.trouble: str | None = None
        self._assigned: set[Partition] = set()
        self._is_settled = False
        self._ended: set[Partition] = set()
        self._next: dict[Partition, int] = {}
        wanted: dict[str, Any] = {
            "bootstrap.servers": brokers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            **settings,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "error_cb": self._hear,
        }
        try:
            self._consumer = Consumer(wanted, logger=logging.getLogger("inbox.kafka"))
            self._consumer.subscribe(list(topics), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)
        except KafkaException as error:
            raise UnusableOption("--setting", _said(error.args[0])) from None

    @property
    def at_end(self) -> bool:
        return self._is_settled and self._assigned <= self._ended

    def fetch(self, at_most: int) -> Sequence[bytes | None]:
        """See ``Stream.fetch``. The first message is waited for, what is there already comes with it."""
        self._next = {}
        try:
            messages = self._consumer.consume(1, FETCH_S)
            if messages and not messages[0].error():
                messages += self._consumer.consume(at_most - 1, GATHER_S)
        except KafkaException as error:
            raise StreamFailed(_said(error.args[0])) from None
        return [message.value() for message in messages if self._is_event(message)]

    def done(self) -> None:
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in self._next.items()]
        self._next = {}
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self.trouble = f"an offset could not be committed ({_said(error.args[0])})"

    def close(self) -> None:
        self._consumer.close()

    def _is_event(self, message: Message) -> bool:
        """Whether it is a message; what else is said on the way is noted."""
        error, partition = message.error(), (str(message.topic()), int(message.partition() or 0))
        if error is None:
            self.trouble = None
            self._ended.discard(partition)
            self._next[partition] = int(message.offset() or 0) + 1
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self.trouble = None
            self._ended.add(partition)
        elif error.fatal() or error.code() in _HOPELESS:
            raise StreamFailed(_said(error))
        else:
            self.trouble = _said(error)
        return False

    def _hear(self, error: KafkaError) -> None:
        self.trouble = _said(error)

    def _assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """All partitions after all were revoked; where the group shares cooperatively, those that are new."""
        self._assigned |= {(each.topic, each.partition) for each in partitions}
        self._is_settled = True

    def _revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        gone = {(each.topic, each.partition) for each in partitions}
        self._is_settled = False
        self._assigned -= gone
        self._ended -= gone
        self._next = {each: offset for each, offset in self._next.items() if each not in gone}


_HOPELESS = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
)
"""Errors that waiting does not mend."""


def _said(error: KafkaError) -> str:
    """librdkafka's words: they name brokers, topics and settings."""
    return str(error.str()).strip().rstrip(".").removeprefix("Subscribed topic not available: ")


class RedisStream:
    """One stream of a Redis (6.2 or newer) or Valkey server, as one of a consumer group; the event is in one field.

    What this consumer fetched and never acknowledged, because it was killed, is given to it again first; what another
    of the group left so for a minute it takes over. The stream's end is where nothing of the group is unacknowledged.
    """

    def __init__(self, url: str, stream: str, group: str, name: str = "", field: str = "event") -> None:
        self.trouble: str | None = None
        self._at_end = False
        self._address, self._stream, self._group, self._field = Address.parse(url), stream, group, field.encode()
        self._name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._wire: Wire | None = None
        self._fetched: list[bytes] = []
        self._own_first = True
        self._claim_from = _START

    @property
    def at_end(self) -> bool:
        """Whether all is read and acknowledged. What another consumer has is waited for: it may have been killed."""
        return self._at_end and not self._is_pending_elsewhere()

    def fetch(self, at_most: int) -> Sequence[bytes | None]:
        self._fetched, self._at_end = [], False
        try:
            entries = self._claimed(at_most) or self._read(at_most)
        except (OSError, StoreUnavailable) as error:
            self._lose(error)
            return []
        self.trouble, self._at_end = None, not entries
        self._fetched = [entry[0] for entry in entries]
        return [_field_of(entry[1], self._field) for entry in entries]

    def done(self) -> None:
        if not self._fetched:
            return
        ids = [entry.decode() for entry in self._fetched]
        try:
            self._ask("XACK", self._stream, self._group, *ids)
        except (OSError, StoreUnavailable) as error:
            self._lose(error)
        self._fetched = []

    def close(self) -> None:
        """The group need not remember who has nothing; with what was not acknowledged it must."""
        # Else it stays in the group's list, and harms nobody.
        with suppress(OSError, StoreUnavailable):
            if self._wire is not None and not self._pending(self._name):
                self._ask("XGROUP", "DELCONSUMER", self._stream, self._group, self._name)
        self._hang_up()

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _is_pending_elsewhere(self) -> bool:
        try:
            pending = self._pending()
        except (OSError, StoreUnavailable) as error:
            self._lose(error)
            return True
        if pending:
            after = CLAIM_AFTER_MS // 1000
            self.trouble = f"messages are with another consumer of the group; after {after} s they are taken over"
        return pending

    def _pending(self, *consumer: str) -> bool:
        """Whether anything is fetched and not acknowledged, by anybody or by one consumer."""
        return bool(self._ask("XPENDING", self._stream, self._group, "-", "+", "1", *consumer))

    def _read(self, at_most: int) -> list[Any]:
        block = ("BLOCK", str(int(1000 * FETCH_S)))
        found = self._ask(
            "XREADGROUP", "GROUP", self._group, self._name, "COUNT", str(at_most), *block, "STREAMS", self._stream, ">"
        )
        return _entries(found)

    def _claimed(self, at_most: int) -> list[Any]:
        """What is pending: of this consumer at once when it begins, of others after a while."""
        if self._own_first:
            found = self._ask(
                "XREADGROUP", "GROUP", self._group, self._name, "COUNT", str(at_most), "STREAMS", self._stream, "0"
            )
            entries = _entries(found)
            self._own_first = bool(entries)
            if entries:
                return entries
        while True:
            given = self._claim(at_most)
            # Of what was trimmed meanwhile, Redis before 7 tells only who asks for its own.
            self._own_first = None in given
            if (entries := _whole(given)) or self._claim_from == _START:
                return entries

    def _claim(self, at_most: int) -> list[Any]:
        """The next of what others left: a call looks at some of it, and says where to go on."""
        asked = (str(CLAIM_AFTER_MS), self._claim_from, "COUNT", str(at_most))
        claimed: Any = self._ask("XAUTOCLAIM", self._stream, self._group, self._name, *asked)
        self._claim_from = bytes(claimed[0]).decode()
        return list(claimed[1])

    def _ask(self, *words: str) -> Answer:
        until = monotonic() + REDIS_TIMEOUT_S
        if self._wire is None:
            self._wire = connect(self._address, until)
            (made,) = self._wire.ask_all(
                [command("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")], until
            )
            if isinstance(made, Refusal) and made.code != "BUSYGROUP":
                raise StoreUnavailable(str(made))
        return self._wire.ask(command(*words), until)

    def _lose(self, error: Exception) -> None:
        """A connection that failed once is not asked again. What was pending is: the server may have forgotten it sent it."""
        self._hang_up()
        self._own_first = True
        self.trouble = error.reason if isinstance(error, StoreUnavailable) else str(error)


def _entries(found: Answer) -> list[Any]:
    """Of the one stream that was asked for; no answer when nothing came in time."""
    streams: Any = found
    return _whole(streams[0][1]) if isinstance(streams, list) and streams else []


def _whole(entries: Any) -> list[Any]:
    """Entries as id and fields; the fields of one that was trimmed meanwhile are gone."""
    return [entry for entry in entries or () if isinstance(entry, list) and len(entry) == 2]


def _field_of(fields: Any, wanted: bytes) -> bytes | None:
    pairs = dict(zip(fields[::2], fields[1::2], strict=False)) if isinstance(fields, list) else {}
    value = pairs.get(wanted)
    return bytes(value) if isinstance(value, bytes) else None


def read_settings(path: Path | None, given: Sequence[str]) -> dict[str, str]:
    """librdkafka's settings from a file of ``key=value`` lines, for secrets, and from options.

    Raises
    ------
    UnreadableFile, UnusableOption
        Which names the line, not what is in it.
    """
    settings = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path else []
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(Path(str(path)), "it is no text file that can be opened") from error
    told = [(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1)]
    for where, line in [*told, *(("--setting", one) for one in given)]:
        key, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not key.strip():
            raise UnusableOption(where, "is no pair; write it like security.protocol=SSL")
        settings[key.strip()] = value.strip()
    return settings
