"""The durable inbox: what programs tell us while they run, before it is part of the log.

What enters: deliveries, each some events with what in it could not be read. What leaves: the events in the order in which
they were received, for live features, and all of them into the log. The promise: what was accepted is on disk when
``accept`` returns, once, whoever writes at the same time and whenever a process is killed; a repeat changes nothing.

``received_us`` is assigned inside the write transaction and strictly increases from event to event: who has read up to
one of them has seen everything before it. Draining needs no mark per event for that reason, only how far it came; it
goes in steps whose end is written down first, so that a killed step is done again over the same events.

On disk: one SQLite file with a write-ahead log that is synced at each commit. An event goes when it is drained and older
than ``RETAINED``; the digest by which a repeat is known stays for ``KNOWN_FOR``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa

from features.clock import microseconds
from features.database import TURN_TIMEOUT_S, Database
from features.event import Event, to_table
from features.home import Home
from features.intake import CLOCK_TOLERANCE, FIRST_YEAR, LAST_YEAR
from features.log import QUARANTINE_SCHEMA, EventLog, IntakeReport, combined
from features.merges import FORGOTTEN, Merges, ids_in, names_any

RETAINED = timedelta(days=7)
"""Live features judge an event by what came within as many days."""
KNOWN_FOR = timedelta(days=35)
"""Amazon SNS sends again for 23 days."""
DRAINED_AT_ONCE = 250_000
"""Events of one step, about 200 MB of memory, which become one file of the log."""
AHEAD = "occurred_at is in the future: check the clock that wrote it"
OUTSIDE = f"occurred_at is outside the years {FIRST_YEAR} to {LAST_YEAR}"
UNWRITABLE = "a text holds half a character (a lone surrogate)"

_US = timedelta(microseconds=1)
_FIRST_US, _END_US = (microseconds(datetime(year, 1, 1, tzinfo=UTC)) for year in (FIRST_YEAR, LAST_YEAR + 1))
_NEW, _REPEATED = "\0new", "\0repeated"
"""What becomes of an event; no reason reads so."""
_Row = tuple[Any, ...]
"""Of the table of events."""
_KEYS_AT_ONCE = 500
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS events (
        received_us INTEGER PRIMARY KEY, event_id TEXT NOT NULL, subscriber_id TEXT NOT NULL, event_type TEXT NOT NULL,
        occurred_us INTEGER NOT NULL, campaign_id TEXT, content TEXT, value REAL, agent TEXT NOT NULL, network TEXT,
        link TEXT)""",
    "CREATE INDEX IF NOT EXISTS events_by_subscriber ON events (subscriber_id)",
    "CREATE TABLE IF NOT EXISTS seen (key BLOB PRIMARY KEY NOT NULL, received_us INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS quarantined (
        received_us INTEGER PRIMARY KEY, source TEXT NOT NULL, reason TEXT NOT NULL, payload TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS tokens (
        key BLOB PRIMARY KEY NOT NULL, digest BLOB NOT NULL, received_us INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY NOT NULL, us INTEGER NOT NULL) WITHOUT ROWID",
)
_COLUMNS = (
    "received_us, event_id, subscriber_id, event_type, occurred_us, campaign_id, content, value, agent, network, link"
)
_LAST, _DRAINED, _DRAINING, _HORIZON = "last", "drained", "draining", "horizon"
"""Marks: the last instant assigned; through which all is in the log; the end of the step that was begun; from which on
every event is still here."""


class Unread(Protocol):
    """An item that could not be read, its payload without addresses."""

    @property
    def reason(self) -> str: ...

    @property
    def payload(self) -> str: ...


@dataclass(frozen=True)
class Delivery:
    """What came in one message.

    Parameters
    ----------
    source
        The provider or stream.
    events
        Their ``received_us`` is the inbox's to say.
    aliases
        Former ids of the same people, and their ids now.
    token
        What its sender uses once. With another ``digest`` it is a replay, and nothing of the delivery is taken.
    digest
        Of the message's bytes.
    """

    source: str
    events: Sequence[Event] = ()
    quarantined: Sequence[Unread] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    digest: bytes = b""


@dataclass(frozen=True)
class Accepted:
    """What became of one delivery's items."""

    new: int = 0
    repeated: int = 0
    quarantined: int = 0
    replayed: bool = False
    reasons: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Of what is quarantined, how many for which."""


@dataclass(frozen=True)
class _Item:
    """An event or what could not be read, with the digest by which a repeat is known."""

    key: bytes
    event: Event | None = None
    reason: str = ""
    payload: str = ""


class Inbox:
    """The inbox of one home. Any thread and any process may use it.

    Parameters
    ----------
    timeout_s
        How long to wait for a turn behind other writers.
    """

    def __init__(self, home: Home, timeout_s: float = TURN_TIMEOUT_S) -> None:
        self.home = home
        self._database = Database(home.inbox, _SCHEMA, timeout_s)
        self._merges = Merges(home)

    # --- taking in

    def accept(self, deliveries: Sequence[Delivery], now_us: int) -> list[Accepted]:
        """Take deliveries in with one transaction for all; they are durable when this returns.

        Parameters
        ----------
        now_us
            Microseconds since 1970 UTC. Where the clock went back, the inbox goes on from where it was.

        Raises
        ------
        InboxUnavailable
            When nothing was taken.
        """
        items = [list(_items(delivery)) for delivery in deliveries]
        self._record_aliases(deliveries)
        with self._database.writing() as con:
            # Only inside the transaction: who is forgotten after this look finds these events here and removes them.
            forgotten = self._merges.forgotten_among({who for each in items for item in each for who in _whom(item)})
            taking = _Taking(con, now_us, _known(con, (item.key for each in items for item in each)), forgotten)
            accepted = [taking.take(delivery, each) for delivery, each in zip(deliveries, items, strict=True)]
            taking.write()
        return accepted

    def know(self, event_ids: Iterable[str], now_us: int) -> None:
        """Events that went into the log another way: told again, they are repeats."""
        with self._database.writing() as con:
            rows = ((_key("event", event_id), now_us) for event_id in event_ids)
            con.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", rows)

    def push_clock(self, at_least_us: int) -> None:
        """Whatever is accepted from now on is received after this instant."""
        self._raise(_LAST, at_least_us)

    def raise_horizon(self, at_least_us: int) -> None:
        """Say that the log has events received before this instant which never were here (a file's)."""
        self._raise(_HORIZON, at_least_us)

    # --- asking

    def newest(self) -> int | None:
        """When the newest event that is here was received; None when there is none."""
        if not self._database.exists():
            return None
        with self._database.reading() as con:
            (newest,) = con.execute("SELECT max(received_us) FROM events").fetchone()
        return None if newest is None else int(newest)

    def waiting(self) -> int:
        """How many events are not in the log yet."""
        if not self._database.exists():
            return 0
        with self._database.reading() as con:
            drained = _mark(con, _DRAINED)
            (waiting,) = con.execute("SELECT count(*) FROM events WHERE received_us > ?", (drained,)).fetchone()
        return int(waiting)

    def horizon(self) -> int:
        """Every event received from this instant on is still here; of earlier ones only the log knows all."""
        if not self._database.exists():
            return 0
        with self._database.reading() as con:
            # Before the first event: whatever comes is later than the last instant assigned.
            return _mark(con, _HORIZON) or _mark(con, _LAST) + 1

    def changed_since(self, received_us: int, limit: int) -> tuple[list[str], int]:
        """Who has events received after an instant, and through when that was looked at: at most ``limit`` events."""
        if not self._database.exists():
            return [], received_us
        with self._database.reading() as con:
            rows = con.execute(
                "SELECT subscriber_id, received_us FROM events WHERE received_us > ? ORDER BY received_us LIMIT ?",
                (received_us, limit),
            ).fetchall()
        now = self._merges.resolve(who for who, _ in rows)
        return list(dict.fromkeys(now.values())), rows[-1][1] if rows else received_us

    def events_of(self, subscriber_ids: Iterable[str]) -> dict[str, list[Event]]:
        """Each one's events that are still here, in the order received, those under merged ids among them."""
        members = self._merges.members(subscriber_ids)
        person = {member: who for who, group in members.items() for member in group}
        found: dict[str, list[Event]] = {who: [] for who in members}
        if not self._database.exists():
            return found
        query = f"""SELECT {_COLUMNS} FROM events WHERE subscriber_id IN (SELECT value FROM json_each(?))
            ORDER BY received_us"""
        with self._database.reading() as con:
            for event in map(_event, con.execute(query, (json.dumps(list(person)),))):
                who = person[event.subscriber_id]
                found[who].append(event if event.subscriber_id == who else replace(event, subscriber_id=who))
        return found

    # --- letting go

    def drain(self, log: EventLog) -> IntakeReport:
        """Copy what is new into the log. Killed at any moment and done again, the log has everything once."""
        reports = []
        if self._database.exists():
            with self._draining():
                while step := self._step():
                    reports.append(log.take(*self._between(*step)))
                    self._drained(step[1])
        return combined(reports)

    def purge(self, before_us: int) -> int:
        """Remove what live features need no more, and digests of repeats that come no more; give how many events.

        Parameters
        ----------
        before_us
            When the states were last materialized. What was received within ``RETAINED`` before it stays, and what is
            not in the log yet.
        """
        if not self._database.exists():
            return 0
        with self._database.writing() as con:
            safe = min(before_us, _mark(con, _LAST) + 1)
            drained = _mark(con, _DRAINED) + 1
            old, known = min(safe - RETAINED // _US, drained), min(safe - KNOWN_FOR // _US, drained)
            removed = con.execute("DELETE FROM events WHERE received_us < ?", (old,)).rowcount
            if removed:
                _set(con, _HORIZON, max(old, _mark(con, _HORIZON)))
            for table in ("seen", "tokens"):
                con.execute(f"DELETE FROM {table} WHERE received_us < ?", (known,))
        return removed

    def forget(self, subscriber_ids: Iterable[str]) -> tuple[int, int]:
        """Remove some people's events and what in quarantine names them; give how many of each.

        An event counts until it is drained: what is in the log, too, is the log's to count.

        The digests of their events stay, so that a repeat is still known as one.
        """
        asked = list(subscriber_ids)
        if not asked or not self._database.exists():
            return 0, 0
        with self._database.writing() as con:
            theirs = "FROM events WHERE subscriber_id IN (SELECT value FROM json_each(?))"
            listed, drained = json.dumps(asked), _mark(con, _DRAINED)
            (waiting,) = con.execute(f"SELECT count(*) {theirs} AND received_us > ?", (listed, drained)).fetchone()
            con.execute(f"DELETE {theirs}", (listed,))
            rows = con.execute("SELECT received_us, payload FROM quarantined").fetchall()
            naming = [(received_us,) for received_us, payload in rows if names_any(payload, asked)]
            con.executemany("DELETE FROM quarantined WHERE received_us = ?", naming)
        self._database.scrub()
        return int(waiting), len(naming)

    def close(self) -> None:
        """Let go of what this thread holds open; the next use opens it again."""
        self._database.close()
        self._merges.close()

    # --- the parts

    def _record_aliases(self, deliveries: Sequence[Delivery]) -> None:
        """Before the events: an alias is true whether or not they get in, and says who is forgotten under another id."""
        aliases = {former: now for delivery in deliveries for former, now in delivery.aliases.items()}
        if aliases:
            self._merges.alias(aliases)

    def _raise(self, mark: str, at_least_us: int) -> None:
        with self._database.writing() as con:
            _set(con, mark, max(at_least_us, _mark(con, mark)))

    @contextmanager
    def _draining(self) -> Iterator[None]:
        """One at a time; the lock goes with the process that holds it."""
        with (self.home.var / "drain.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _step(self) -> tuple[int, int] | None:
        """After which instant and through which one to drain: the step that was begun, or the next one."""
        with self._database.writing() as con:
            drained, draining = _mark(con, _DRAINED), _mark(con, _DRAINING)
            if draining <= drained:
                draining = _end_of_step(con, drained)
                _set(con, _DRAINING, draining)
        return (drained, draining) if draining > drained else None

    def _between(self, after_us: int, through_us: int) -> tuple[pa.Table, pa.Table]:
        asked = (after_us, through_us)
        where = "WHERE received_us > ? AND received_us <= ? ORDER BY received_us"
        with self._database.reading() as con:
            events = to_table(map(_event, con.execute(f"SELECT {_COLUMNS} FROM events {where}", asked)))
            rows = con.execute(f"SELECT source, reason, payload FROM quarantined {where}", asked).fetchall()
        named = ("source", "reason", "raw")
        quarantined = [
            {"table": "events", "row": number, **dict(zip(named, row, strict=True))}
            for number, row in enumerate(rows, start=1)
        ]
        return events, pa.Table.from_pylist(quarantined, QUARANTINE_SCHEMA)

    def _drained(self, through_us: int) -> None:
        with self._database.writing() as con:
            con.execute("DELETE FROM quarantined WHERE received_us <= ?", (through_us,))
            _set(con, _DRAINED, max(through_us, _mark(con, _DRAINED)))


class _Taking:
    """What one transaction takes in."""

    def __init__(self, con: sqlite3.Connection, now_us: int, known: set[bytes], forgotten: Mapping[str, int]) -> None:
        self.con, self.known, self.forgotten = con, known, forgotten
        self.next_us = max(now_us, _mark(con, _LAST) + 1)
        self.first_us = self.next_us
        self.events: list[_Row] = []
        self.quarantined: list[tuple[int, str, str, str]] = []
        self.seen: list[tuple[bytes, int]] = []

    def take(self, delivery: Delivery, items: Iterable[_Item]) -> Accepted:
        if self._is_replay(delivery):
            return Accepted(replayed=True)
        became = Counter(self._take(delivery.source, item) for item in items)
        new, repeated = became.pop(_NEW, 0), became.pop(_REPEATED, 0)
        return Accepted(new, repeated, became.total(), reasons=dict(became))

    def write(self) -> None:
        if self.next_us == self.first_us:
            return
        self.con.executemany(f"INSERT INTO events VALUES ({', '.join('?' * 11)})", self.events)
        self.con.executemany("INSERT INTO quarantined VALUES (?, ?, ?, ?)", self.quarantined)
        self.con.executemany("INSERT INTO seen VALUES (?, ?)", self.seen)
        if not _mark(self.con, _HORIZON):
            _set(self.con, _HORIZON, self.first_us)
        _set(self.con, _LAST, self.next_us - 1)

    def _is_replay(self, delivery: Delivery) -> bool:
        if delivery.token is None:
            return False
        key = _key(delivery.source, delivery.token)
        self.con.execute("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?)", (key, delivery.digest, self.next_us))
        (first,) = self.con.execute("SELECT digest FROM tokens WHERE key = ?", (key,)).fetchone()
        return bytes(first) != delivery.digest

    def _take(self, source: str, item: _Item) -> str:
        """What became of it: the reason, where it is in quarantine."""
        if item.event is None:
            return self._quarantine(source, item)
        if item.key in self.known:
            return _REPEATED
        if item.event.occurred_us <= self.forgotten.get(item.event.subscriber_id, item.event.occurred_us - 1):
            return FORGOTTEN
        if item.event.occurred_us - self.next_us > CLOCK_TOLERANCE // _US:
            return self._quarantine(source, self._looked_up(_refused(item.event, AHEAD)))
        self.events.append(_row(item.event, self._seen(item.key)))
        return _NEW

    def _quarantine(self, source: str, item: _Item) -> str:
        # Of the forgotten nothing is kept, not even here.
        if item.key not in self.known and self.forgotten.keys().isdisjoint(_whom(item)):
            self.quarantined.append((self._seen(item.key), source, item.reason, item.payload))
        return item.reason

    def _looked_up(self, item: _Item) -> _Item:
        """Known under a key that nobody could look up before: only now is it clear that it is refused."""
        self.known |= _known(self.con, [item.key])
        return item

    def _seen(self, key: bytes) -> int:
        self.known.add(key)
        self.seen.append((key, self.next_us))
        self.next_us += 1
        return self.next_us - 1


def _items(delivery: Delivery) -> Iterator[_Item]:
    for event in delivery.events:
        fault = _fault(event)
        yield _refused(event, fault) if fault else _Item(_key("event", event.event_id), event)
    for unread in delivery.quarantined:
        reason, payload = (text.encode(errors="replace").decode() for text in (unread.reason, unread.payload))
        yield _Item(_key("unread", delivery.source, reason, payload), None, reason, payload)


def _whom(item: _Item) -> set[str]:
    """Whom an item is about."""
    return ids_in(item.payload) if item.event is None else {item.event.subscriber_id}


def _refused(event: Event, reason: str) -> _Item:
    # Only ASCII: whatever a text holds, this can be written.
    told = {name: value for name, value in asdict(event).items() if value is not None and name != "received_us"}
    payload = json.dumps(told)
    return _Item(_key("refused", reason, payload), None, reason, payload)


def _fault(event: Event) -> str | None:
    """What would stop the whole transaction, whoever checked the event before."""
    if not _FIRST_US <= event.occurred_us < _END_US:
        return OUTSIDE
    return None if _is_writable(event) else UNWRITABLE


def _is_writable(event: Event) -> bool:
    texts = (event.event_id, event.subscriber_id, event.campaign_id or "", *(event.content or ()))
    return not any("\ud800" <= character <= "\udfff" for text in texts if not text.isascii() for character in text)


def _key(*parts: str) -> bytes:
    """16 bytes that stand for these texts."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).digest()[:16]


def _known(con: sqlite3.Connection, keys: Iterable[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    asked = list(keys)
    for start in range(0, len(asked), _KEYS_AT_ONCE):
        some = asked[start : start + _KEYS_AT_ONCE]
        rows = con.execute(f"SELECT key FROM seen WHERE key IN ({', '.join('?' * len(some))})", some)
        found.update(bytes(key) for (key,) in rows)
    return found


def _row(event: Event, received_us: int) -> _Row:
    """Of a clock that runs a little fast, what happened had happened when we learnt it."""
    content = None if event.content is None else json.dumps(event.content)
    return (
        received_us, event.event_id, event.subscriber_id, event.event_type, min(event.occurred_us, received_us),
        event.campaign_id, content, event.value, event.agent, event.network, event.link,
    )  # fmt: skip


def _event(row: _Row) -> Event:
    received_us, event_id, subscriber_id, event_type, occurred_us, campaign_id, content, *rest = row
    words = None if content is None else tuple(json.loads(content))
    return Event(event_id, subscriber_id, event_type, occurred_us, received_us, campaign_id, words, *rest)


def _end_of_step(con: sqlite3.Connection, drained: int) -> int:
    """Of the next step: where nothing is new it is where the last one ended."""
    after = "SELECT received_us FROM events WHERE received_us > ? ORDER BY received_us LIMIT 1 OFFSET ?"
    row = con.execute(after, (drained, DRAINED_AT_ONCE - 1)).fetchone()
    if row is not None:
        return int(row[0])
    newest = (con.execute(f"SELECT max(received_us) FROM {table}").fetchone()[0] for table in ("events", "quarantined"))
    return max(drained, *(us or 0 for us in newest))


def _mark(con: sqlite3.Connection, name: str) -> int:
    row = con.execute("SELECT us FROM marks WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def _set(con: sqlite3.Connection, name: str, us: int) -> None:
    con.execute("INSERT INTO marks VALUES (?, ?) ON CONFLICT DO UPDATE SET us = excluded.us", (name, us))
