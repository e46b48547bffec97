"""The online store kept up with the inbox: what was accepted is in the next state that is read.

What enters: a home, its inbox and its online store. What leaves: rows as a fold of log and inbox together would give them. The
promise: an event counts once in a row however often it is brought, by however many processes at once, wherever one of them is
killed; and a nightly materialization finds the rows that it would have made.

Why several may write. A row's ``as_of`` says what it knows: all that was received before, nothing since. Received moments are
assigned in the order in which events are committed, so whoever has read the inbox up to one of them has seen all before it.
The store changes a row under its lock (SQLite) or by compare-and-set (Redis, Valkey): who comes second reads the first one's
``as_of`` and finds nothing new, or only what is. Of two rows the one with the later ``as_of`` wins, because it knows all
that the other does and more; at the same ``as_of`` both say the same. So a materialization may run at the same time: where
live events came after its moment, the live row stays, and elsewhere its own does, to which later events are added.

A row that cannot be revised (see ``live``) is folded from log and inbox together. So is that of somebody who has none, because
only the log knows whether there is a past; and that of a person who was two, whose other row goes. Folding takes about a
second, for one person as for a thousand. So what can be judged without is taken in at once, as a guess that the row owns up
to, and ``settle`` folds all who are owed that together, while others' events go on coming in.

How far it came (the mark) is a matter of speed alone: starting over from the inbox's first event gives the same rows. It is
kept beside the home's other files, with the newest ``as_of`` of the store at that time. A store whose newest row is older came
back from an earlier snapshot, and all of the inbox is brought to it again. What that does not see: another process had already
written something newer into such a store. The next materialization does.

Rows are revised by the catalogue of the last materialization: its weights judged what they hold, and what is taken back must be
what was put in. One that was learnt since then counts from the next.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType

import ibis
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.contract import EVENT_SCHEMA
from features.errors import EmptyLog, UnreadableFile
from features.event import Event, to_table
from features.evidence import epoch_us
from features.fold import Folder, Spine
from features.home import Home
from features.inbox import Inbox
from features.intake import CAMPAIGNS, SUBSCRIBERS
from features.judge import table_of
from features.live import Outcome, Reviser
from features.log import EventLog
from features.merges import Merges
from features.online import Found, StateStore
from features.state import States, anchors
from features.stores import place

EVENTS_AT_ONCE = 2_000
"""Looked for at a time. The mark moves on after each."""
ROWS_AT_ONCE = 500
"""Revised under one lock."""
FOLDED_AT_ONCE = 5_000
"""People folded anew at a time."""
MOST_TRIES = 5
"""How often somebody is folded anew while others are faster."""
FOLD_MEMORY = "1GB"


@dataclass(frozen=True)
class Caught:
    """What one look at the inbox brought."""

    subscribers: int = 0
    events: int = 0
    refolded: int = 0
    """Subscribers folded anew."""
    failed: int = 0
    """Those that could not be: the log is damaged, or others were faster. They are tried again."""

    def __add__(self, other: Caught) -> Caught:
        return Caught(
            self.subscribers + other.subscribers,
            self.events + other.events,
            self.refolded + other.refolded,
            self.failed + other.failed,
        )


@dataclass(frozen=True)
class _Words:
    """What the files say that a row is revised by, and of which state of these files that is."""

    stamp: tuple[object, ...]
    catalogue: Catalogue
    reviser: Reviser


class _Outdated(Exception):
    """The catalogue was written meanwhile: rows may be laid out by the new one."""


class LiveUpdater:
    """Brings what the inbox accepted into one online store. Any thread may call it; one at a time does the work.

    Parameters
    ----------
    catalogue
        To begin with, while none is saved in the home; the last materialization's, else the home's, is taken up whenever
        it changes. Without any there is nothing to do.
    """

    def __init__(self, home: Home, inbox: Inbox, store: StateStore, catalogue: Catalogue | None = None) -> None:
        self.home, self.inbox, self.store = home, inbox, store
        self._given = catalogue
        self._log, self._merges = EventLog(home), Merges(home)
        self._lock, self._settling = threading.Lock(), threading.Lock()
        self._words: _Words | None = None
        self._mark: int | None = None
        self._newest = -1.0
        self._owed: set[str] = set()
        self._folding: set[str] = set()
        self._sight: tuple[tuple[object, ...], int] | None = None

    def __enter__(self) -> LiveUpdater:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what this thread holds open."""
        self.inbox.close()
        self.store.close()
        self._merges.close()

    def catch_up(self, settle: bool = True) -> Caught:
        """Bring everything that was accepted so far into the store.

        Parameters
        ----------
        settle
            Whether to fold those whose rows are guesses now; else whoever calls ``settle`` does.

        Raises
        ------
        StoreUnavailable, InboxUnavailable
            What was brought stays, and the rest is brought next time.
        """
        total = Caught()
        with self._lock:
            if not self._ready():
                return total
            while (step := self._step()) is not None:
                total += step
        return total + self.settle() if settle else total

    @property
    def owed(self) -> int:
        """How many rows are guesses, or missing, until ``settle`` is called."""
        return len(self._owed | self._folding)

    def settle(self) -> Caught:
        """Fold all whose rows are guesses. Another thread may go on catching up meanwhile.

        Raises
        ------
        StoreUnavailable, InboxUnavailable
        """
        with self._settling:
            with self._lock:
                if not self._owed:
                    return Caught()
                owed, self._owed = self._owed, set()
                self._folding = owed
            left: set[str] = owed
            try:
                left = self._refold(owed)
            finally:
                with self._lock:
                    self._owed |= left
                    self._folding = set()
                    self._keep_mark()
            return Caught(refolded=len(owed) - len(left), failed=len(left))

    def refold(self, subscriber_ids: Collection[str]) -> Caught:
        """Fold some people anew from log and inbox, as of what their rows know or later: after a merge, or a repair.

        Former ids stand for who they are now, and lose the rows they had.

        Raises
        ------
        StoreUnavailable, InboxUnavailable
        """
        with self._lock:
            if not self._ready():
                return Caught()
            self._owed |= {*subscriber_ids}
        return self.settle()

    # --- one look

    def _ready(self) -> bool:
        """Read what changed since the last look: catalogue, campaigns, and whether the store is still the one we left."""
        stamp = self._stamp()
        if self._words is None or self._words.stamp != stamp:
            self._words = self._read_words(stamp)
        if self._words is None:
            return False
        self.store.create()
        newest = self.store.newest()
        if self._mark is None:
            self._mark = self._kept_mark(newest)
        if self._mark is None or newest is None or newest < self._newest:
            self._newest = -1.0
            # Not from the horizon: what came before a file raised it may not have been brought yet.
            self._mark = 0
        return True

    def _step(self) -> Caught | None:
        assert self._mark is not None
        ids, through = self.inbox.changed_since(self._mark, EVENTS_AT_ONCE)
        if not ids:
            return None
        events = sum(self._bring(some, through) for some in _parts(ids, ROWS_AT_ONCE))
        self._mark = through
        self._newest = max(self._newest, self.store.newest() or -1.0)
        self._keep_mark()
        return Caught(len(ids), events)

    def _bring(self, ids: Sequence[str], through: int) -> int:
        """Bring some people's events into their rows, and give how many; whose rows must be folded anew is owed that."""
        assert self._mark is not None
        forgotten = self._merges.forgotten_among(ids)
        events = self.inbox.events_of(ids)
        try:
            needy = self._revise([*events], events, forgotten)
        except _Outdated:
            self._words = self._read_words(self._stamp())
            needy = list(events)
        self._owed.update(needy, self._twofold(ids))
        return sum(
            bisect_right(e, through, key=_received) - bisect_right(e, self._mark, key=_received)
            for e in events.values()
        )

    def _revise(
        self, ids: Sequence[str], events: Mapping[str, Sequence[Event]], forgotten: Mapping[str, int]
    ) -> list[str]:
        """Change the rows that can be, guess the others, and say whose those are."""
        assert self._words is not None
        words, horizon = self._words, self._seen_from()
        needy: dict[str, None] = {}

        def change(states: States, found: Found) -> States:
            self._refuse_outdated(words)
            gone = self._forgotten_since(forgotten, ids)
            needy.clear()
            needy.update(dict.fromkeys(gone))
            for row, who in enumerate(ids):
                if who in gone:
                    continue
                if not found[row] or words.reviser.revise(states, row, events[who], horizon) is Outcome.REFOLD:
                    needy[who] = None
                    words.reviser.guess(states, row, events[who])
            return states

        self.store.revise(ids, change, words.catalogue)
        return list(needy)

    def _refuse_outdated(self, words: _Words) -> None:
        """When rows have been read and before any is written: a catalogue is saved before any row is written by it."""
        if self._stamp() != words.stamp:
            raise _Outdated

    def _forgotten_since(self, before: Mapping[str, int], ids: Sequence[str]) -> set[str]:
        """Who asked to be forgotten after their events were read. The store is theirs only after this look or before it."""
        return {who for who, until in self._merges.forgotten_among(ids).items() if before.get(who) != until}

    def _twofold(self, ids: Sequence[str]) -> list[str]:
        """Those of whom a row is stored under a former id, too."""
        assert self._words is not None
        group_of = {former: who for who, group in self._merges.members(ids).items() for former in group[1:]}
        if not group_of:
            return []
        _, found = self.store.read(list(group_of), self._words.catalogue)
        return [who for who, there in zip(group_of.values(), found, strict=True) if there]

    # --- folding anew

    def _refold(self, subscriber_ids: Collection[str]) -> set[str]:
        """Fold people anew, and say who could not be."""
        people = list(dict.fromkeys(self._merges.resolve(subscriber_ids).values()))
        unfolded = set[str]()
        for some in _parts(people, FOLDED_AT_ONCE):
            left = some
            try:
                for _ in range(MOST_TRIES):
                    if not left:
                        break
                    left = self._folded(left)
            except UnreadableFile:
                # Others need not wait until somebody has mended the log.
                pass
            unfolded.update(left)
        return unfolded

    def _folded(self, people: Sequence[str]) -> Sequence[str]:
        """``_fold``; everybody is left where the catalogue was written meanwhile, which is taken up."""
        try:
            return self._fold(people)
        except _Outdated:
            with self._lock:
                self._words = self._read_words(self._stamp())
            return people

    def _fold(self, people: Sequence[str]) -> list[str]:
        """Fold people anew once, and say whose row knows more meanwhile."""
        with self._lock:
            words = self._words
        assert words is not None
        forgotten = self._merges.forgotten_among(people)
        with self._past(people) as con:
            logged = max((last for last, _ in _heard(con).values()), default=-1)
            if logged > (self.inbox.newest() or -1):
                # What is accepted from now on is received later than all that is folded.
                self.inbox.push_clock(logged)
            rows, there = self.store.read(people, words.catalogue)
            # After the rows: so none of them knows an event that is not among these.
            _add(con, list(chain.from_iterable(self.inbox.events_of(people).values())))
            heard = _heard(con)
            known = [i for i, who in enumerate(people) if who in heard]
            ids = [people[i] for i in known]
            as_of = np.fmax(anchors(rows)[known], [float(max(heard[who][0] + 1, heard[who][1])) for who in ids])
            states = Folder(con, words.catalogue).fold(Spine(pa.array(ids, pa.string()), as_of))
        lost = self._put(ids, states, as_of, words, forgotten)
        self._remove([who for who, found in zip(people, there, strict=True) if found and who not in heard])
        self._remove_former([who for who in ids if who not in lost], words.catalogue)
        return lost

    def _put(
        self,
        ids: Sequence[str],
        states: States,
        as_of: npt.NDArray[np.float64],
        words: _Words,
        forgotten: Mapping[str, int],
    ) -> list[str]:
        """Store rows where nothing newer is, and say where it is, or who was forgotten meanwhile."""
        lost: dict[str, None] = {}

        def change(stored: States, found: Found) -> States:
            self._refuse_outdated(words)
            gone = self._forgotten_since(forgotten, ids)
            kept = (anchors(stored) > as_of) | np.array([who in gone for who in ids])
            lost.clear()
            lost.update((who, None) for who, is_kept in zip(ids, kept, strict=True) if is_kept)
            stored[~kept] = states[~kept]
            return stored

        if ids:
            self.store.revise(ids, change, words.catalogue)
        return list(lost)

    def _remove_former(self, ids: Sequence[str], catalogue: Catalogue) -> None:
        """Rows under ids that were merged into these."""
        former = [*chain.from_iterable(group[1:] for group in self._merges.members(ids).values())]
        if former:
            _, there = self.store.read(former, catalogue)
            self._remove([who for who, found in zip(former, there, strict=True) if found])

    def _remove(self, ids: Sequence[str]) -> None:
        for who in ids:
            self.store.delete(who)

    @contextmanager
    def _past(self, people: Sequence[str]) -> Iterator[ibis.BaseBackend]:
        """What the log says of some people, in tables that more can be added to."""
        try:
            con = self._log.connect(FOLD_MEMORY, only=people)
        except EmptyLog:
            con = _nothing()
        try:
            yield con
        finally:
            con.disconnect()

    # --- what it goes by

    def _stamp(self) -> tuple[object, ...]:
        return (*_identity(self._catalogue), *_identity(self._campaigns))

    @property
    def _catalogue(self) -> Path:
        """That of the rows: what was learnt since then would judge them otherwise than they were made."""
        return self.home.materialized if self.home.materialized.exists() else self.home.catalogue

    @property
    def _campaigns(self) -> Path:
        return self.home.event_log / f"{CAMPAIGNS.table}.parquet"

    def _read_words(self, stamp: tuple[object, ...]) -> _Words | None:
        catalogue = Catalogue.load(self._catalogue) if self._catalogue.exists() else self._given
        if catalogue is None:
            return None
        return _Words(stamp, catalogue, Reviser(catalogue, table_of(catalogue.machines), _contents(self._campaigns)))

    def _seen_from(self) -> int:
        """Every event received from then on is in the inbox: since the last one before its horizon that the log has."""
        horizon = self.inbox.horizon()
        key = (horizon, *_identity(self.home.event_log / "events"))
        if self._sight is None or self._sight[0] != key:
            try:
                last = self._log.last_before(horizon)
            except UnreadableFile:
                # Whose row needs the log must wait; the others need not.
                return horizon if self._sight is None else self._sight[1]
            self._sight = key, 0 if last is None else last + 1
        return self._sight[1]

    # --- the mark

    @property
    def _path(self) -> Path:
        return self.home.var / "live.json"

    def _keep_mark(self) -> None:
        """Unless somebody's row is a guess: only the events after the mark are looked at again."""
        if self._owed or self._folding or self._mark is None:
            return
        beside = self._path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_bytes(orjson.dumps({"through": self._mark, "newest": self._newest, "store": place(self.home)}))
        beside.replace(self._path)

    def _kept_mark(self, newest: float | None) -> int | None:
        """None where there is none, or the store is not what it was then."""
        try:
            kept = orjson.loads(self._path.read_bytes())
            through, then, where = int(kept["through"]), float(kept["newest"]), kept["store"]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return through if newest is not None and newest >= then and where == place(self.home) else None


def _parts(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _received(event: Event) -> int:
    return event.received_us


def _identity(path: Path) -> tuple[int, ...]:
    """Of a file or directory as it is now."""
    try:
        now = path.stat()
    except OSError:
        return ()
    return now.st_ino, now.st_size, now.st_mtime_ns


def _contents(path: Path) -> dict[str, list[str | None]]:
    """The content of each campaign that has any."""
    if not path.exists() or not {"campaign_id", "content"} <= {*pq.read_schema(path).names}:
        return {}
    table = pq.read_table(path, columns=["campaign_id", "content"])
    rows = zip(table["campaign_id"].to_pylist(), table["content"].to_pylist(), strict=True)
    return {campaign: content for campaign, content in rows if content}


def _nothing() -> ibis.BaseBackend:
    """A log's tables without a row."""
    con = ibis.duckdb.connect(autoinstall_known_extensions="false", autoload_known_extensions="false")
    for name, schema in (
        ("events", EVENT_SCHEMA),
        ("subscribers", SUBSCRIBERS.schema),
        ("campaigns", CAMPAIGNS.schema),
    ):
        con.con.register(f"no_{name}", schema.empty_table())
        con.raw_sql(f"create {'view' if name == 'events' else 'table'} {name} as from no_{name}")
    return con


def _add(con: ibis.BaseBackend, events: list[Event]) -> None:
    """Add events that the log may have or not, and who is first heard of with them."""
    con.con.register("incoming", to_table(events))
    con.raw_sql(
        "create table together as from events union all by name from incoming anti join events using (event_id)"
    )
    con.raw_sql("create or replace view events as from together")
    con.raw_sql("""
        insert into subscribers by name
        select subscriber_id, min(received_at) as created_at from events anti join subscribers using (subscriber_id)
        group by subscriber_id
    """)


def _heard(con: ibis.BaseBackend) -> dict[str, tuple[int, int]]:
    """When each person's last event was received (-1: there is none), and when the person was created."""
    events, people = con.table("events"), con.table("subscribers")
    last = events.group_by("subscriber_id").aggregate(last=epoch_us(events.received_at).max())
    both = people.left_join(last, "subscriber_id")
    asked = both.select("subscriber_id", last=both.last.fill_null(-1), created=epoch_us(both.created_at))
    return {
        who: (last, created) for who, last, created in zip(*con.to_pyarrow(asked).to_pydict().values(), strict=True)
    }
