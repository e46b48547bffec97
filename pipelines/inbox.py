"""What comes in message by message, on its way into the log: webhooks' payloads from an archive, or a stream's.

What enters: bodies of messages and the name of their format. What leaves: events in the inbox, and from there in the log.
The promise: every item of every body is new, repeated, in quarantine with its reason, or set aside by its type, and all are
counted; taking the same bodies twice changes nothing.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, cast

import pyarrow as pa

from features.clock import microseconds
from features.errors import EmptyInput, EmptyLog, UnreadableFile
from features.event import Event, to_table
from features.home import Home
from features.identity import Pseudonyms
from features.inbox import AHEAD, KNOWN_FOR, Delivery, Inbox
from features.intake import CLOCK_TOLERANCE
from features.log import QUARANTINE_SCHEMA, EventLog, IntakeReport
from features.merges import FORGOTTEN, Merges
from features.providers import PROVIDERS, Aside, Found, Unread, read
from features.providers.canonical import Canonical, canonical
from pipelines import messages
from pipelines.console import Share

EVENTS_PER_TRANSACTION = 5_000
LONGEST = 64 << 20
"""Document, in bytes."""
GZIP = b"\x1f\x8b"

Reader = Callable[[bytes], list[Found]]
FORMATS: Mapping[str, Reader] = {messages.FORMAT: messages.read} | {name: partial(read, name) for name in PROVIDERS}


def drained(home: Home) -> IntakeReport:
    """Take what waits in the inbox into the log. Every verb that reads the log does this first."""
    return Inbox(home).drain(EventLog(home))


def files_taken(home: Home, aliases: Mapping[str, str] | None = None) -> None:
    """Tell the inbox of files that went straight into the log.

    What is accepted from now on is received after all that is in the log, and of what the files brought the inbox knows
    nothing: live features look into the log where they need it.
    """
    inbox = Inbox(home)
    if aliases:
        inbox.accept([Delivery("files", aliases=aliases)], now_us())
    try:
        end_us = microseconds(EventLog(home).end())
    except EmptyLog:
        return
    # A log of profiles alone ends when the last one was created, which may be written as any day.
    end_us = min(end_us, now_us() + CLOCK_TOLERANCE // timedelta(microseconds=1))
    inbox.push_clock(end_us)
    inbox.raise_horizon(end_us + 1)


def now_us() -> int:
    return microseconds(datetime.now(UTC))


@dataclass
class Taken:
    """What became of the items of some bodies."""

    bodies: int = 0
    new: int = 0
    repeated: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Of what is in quarantine."""
    aside: Counter[str] = field(default_factory=Counter)
    """What says nothing about a person, by type."""

    @property
    def quarantined(self) -> int:
        return self.reasons.total()

    def __iadd__(self, other: Taken) -> Taken:
        self.bodies += other.bodies
        self.new += other.new
        self.repeated += other.repeated
        self.reasons += other.reasons
        self.aside += other.aside
        return self

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"{self.new:,} new events from {self.bodies:,} messages; {self.repeated:,} repeated, "
            f"{self.quarantined:,} quarantined, {self.aside.total():,} set aside"
        )


class Intake:
    """Takes bodies of one format into the inbox of a home."""

    def __init__(self, home: Home, form: str) -> None:
        self.form = form
        self.inbox = Inbox(home)
        self._pseudonyms = Pseudonyms.load(home)

    def take(self, bodies: Sequence[bytes | None]) -> Taken:
        """One transaction; what was accepted is durable when this returns.

        Raises
        ------
        InboxUnavailable
            When nothing was taken.
        """
        told = self.told(bodies)
        delivery = Delivery(self.form, told.events, told.quarantined, told.aliases)
        (accepted,) = self.inbox.accept([delivery], now_us())
        return Taken(len(bodies), accepted.new, accepted.repeated, Counter(accepted.reasons), told.aside)

    def told(self, bodies: Sequence[bytes | None]) -> Canonical:
        """What bodies say; nothing is taken yet."""
        return canonical((record for body in bodies for record in self._found(body)), self._pseudonyms)

    def _found(self, body: bytes | None) -> Sequence[Found]:
        if not body:
            return [Aside("a message without a body")]
        return FORMATS[self.form](body) or [Aside("an empty list")]


# --- archives: payloads as they came, in files ------------------------------------------------------------------------


def ingest_archive(home: Home, path: Path, form: str, share: Share, as_occurred: bool = False) -> Taken:
    """Take files of payloads into the log: one JSON document a file, or one a line; gzip is unpacked.

    Parameters
    ----------
    as_occurred
        Whether each event counts as received when it occurred, as for the history of a list that is new here. Else it is
        received now, and changes nothing that was known before.

    Raises
    ------
    UnreadableFile, EmptyInput, InboxUnavailable
        What was taken before that stays; taking the same files again completes it.
    """
    intake: Intake | _History = _History(home, form) if as_occurred else Intake(home, form)
    taken, some = Taken(), list[bytes | None]()
    size = 0
    for body, done in _bodies(path):
        some.append(body)
        size += len(body)
        # An event is some 500 bytes.
        if size >= 500 * EVENTS_PER_TRANSACTION:
            taken += intake.take(some)
            some, size = [], 0
            share(done)
    taken += intake.take(some)
    drained(home)
    share(1.0)
    return taken


class _History:
    """Takes bodies straight into the log: the inbox's clock only goes forward."""

    def __init__(self, home: Home, form: str) -> None:
        self._home, self._intake, self._row = home, Intake(home, form), 0
        # What is in the inbox was received when it was; only then is a repeat of it one.
        drained(home)

    def take(self, bodies: Sequence[bytes | None]) -> Taken:
        told, now = self._intake.told(bodies), now_us()
        latest = now + CLOCK_TOLERANCE // timedelta(microseconds=1)
        events = [_as_occurred(event, now) for event in told.events if event.occurred_us <= latest]
        ahead = [Unread(AHEAD, f'{{"event_type":"{e.event_type}"}}') for e in told.events if e.occurred_us > latest]
        unread = [*told.quarantined, *ahead]
        # First: under an older key's id somebody may be forgotten.
        Merges(self._home).alias(told.aliases)
        report = EventLog(self._home).take(to_table(events), self._put_aside(unread))
        recent = now - KNOWN_FOR // timedelta(microseconds=1)
        self._intake.inbox.know((event.event_id for event in events if event.occurred_us > recent), now)
        files_taken(self._home)
        reasons = Counter(each.reason for each in unread)
        reasons[FORGOTTEN] += report.quarantined - len(unread)
        return Taken(len(bodies), report.accepted, report.repeated, +reasons, told.aside)

    def _put_aside(self, unread: Iterable[Unread]) -> pa.Table:
        rows = []
        for each in unread:
            self._row += 1
            row = {"table": "events", "source": self._intake.form, "row": self._row}
            rows.append(row | {"reason": each.reason, "raw": each.payload})
        return pa.Table.from_pylist(rows, QUARANTINE_SCHEMA)


def _as_occurred(event: Event, now: int) -> Event:
    occurred_us = min(event.occurred_us, now)
    return replace(event, occurred_us=occurred_us, received_us=occurred_us)


def _bodies(path: Path) -> Iterator[tuple[bytes, float]]:
    """Every document of a file or of all files below a directory, in order of path, and the share read so far."""
    files = _files(path)
    total, before, any_body = sum(file.stat().st_size for file in files), 0, False
    for file in files:
        try:
            with file.open("rb") as raw, _unpacked(raw) as opened:
                for body in _documents(file, opened):
                    any_body = True
                    yield body, (before + raw.tell()) / max(total, 1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UnreadableFile(file, "it is not a whole gzip file") from error
        except OSError as error:
            raise UnreadableFile(file, error.strerror or "the file cannot be opened") from error
        before += file.stat().st_size
    if not any_body:
        raise EmptyInput(path)


def _unpacked(raw: BinaryIO) -> IO[bytes]:
    """What is in the file, whatever its name says."""
    packed = raw.read(len(GZIP)) == GZIP
    raw.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UnreadableFile(path, "there is no such file")
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
    if not files:
        raise UnreadableFile(path, "the directory holds no file")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _documents(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """One document a line where the first line is one by itself; else the whole is one, unless it is none and a line is."""
    lines = _lines(path, file)
    first = next(lines, b"")
    if messages.is_document(first):
        yield first
        yield from lines
        return
    whole = first + file.read(LONGEST + 1)
    if len(whole) > LONGEST:
        yield from _many_lines(path, whole, file)
    elif messages.is_document(whole) or not any(map(messages.is_document, whole.splitlines())):
        yield from filter(None, [whole.strip()])
    else:
        yield from filter(bytes.strip, whole.splitlines())


def _many_lines(path: Path, start: bytes, file: IO[bytes]) -> Iterator[bytes]:
    """Documents of a long file whose first line is none: one bad line is one, where most of the others are documents."""
    complete, _, cut_off = start.rpartition(b"\n")
    lines = list(filter(bytes.strip, complete.splitlines()))
    if 2 * sum(map(messages.is_document, lines)) <= len(lines):
        raise UnreadableFile(path, f"its one document is longer than {LONGEST >> 20} MiB")
    yield from lines
    yield from filter(bytes.strip, [cut_off + file.readline(LONGEST + 1)])
    yield from _lines(path, file)


def _lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Lines that are not blank."""
    while line := file.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise UnreadableFile(path, f"a line of it is longer than {LONGEST >> 20} MiB")
        if line.strip():
            yield line
