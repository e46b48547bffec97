"""Which subscribers are one person, and who has asked to be forgotten.

What enters: pairs of subscriber ids, and ids to forget. What leaves: for any id, the one that stands for the person. The
promise: a merge is whole or not there, one person has one id however long the chain of merges, and of who was forgotten
only a digest is kept.

A merge is a correction: history is one person's from then on, for earlier moments too. On disk it is one SQLite file
beside the log. A JSON file, written anew for each merge, was weighed: after the key of the pseudonyms changes, each
subscriber is merged once, and a list of a million would be written a million times.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from features.database import Database
from features.errors import MergeRefused
from features.home import Home

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS merges (former TEXT PRIMARY KEY NOT NULL, current TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS merges_by_current ON merges (current)",
    "CREATE TABLE IF NOT EXISTS forgotten (digest TEXT PRIMARY KEY NOT NULL, until_us INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS salt (one INTEGER PRIMARY KEY CHECK (one = 1), value TEXT NOT NULL)",
)
_CURRENT = "SELECT former, current FROM merges WHERE former IN (SELECT value FROM json_each(?))"
_FORMER = "SELECT current, former FROM merges WHERE current IN (SELECT value FROM json_each(?)) ORDER BY former"
_ID, _NUMBER = "subscriber_id", "a number"
_BETWEEN = re.compile(r'[\s,;|"\'<>{}\[\]]+')
_CELL = re.compile(r"[,;|\t\r\n]")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_WRITTEN = re.compile(rf"""{_ID}["'\s]*[:=]["'\s]*([^|&,;\s"']+)""")
"""Fields in a text: ``subscriber_id:17|plan:a``, ``subscriber_id=17&plan=a`` or JSON."""
DIGEST_LENGTH = 32
FORGOTTEN = "the subscriber asked to be forgotten"
"""Why an event or a profile is not taken in. Nothing else of it is kept."""


@dataclass(frozen=True)
class Merged:
    """``former`` is ``current`` from now on. ``new`` is False when that was known before."""

    former: str
    current: str
    new: bool


class Merges:
    """The merges and the forgotten of one home. Any thread and any process may use them."""

    def __init__(self, home: Home) -> None:
        self._database = Database(home.merges, _SCHEMA)

    # --- merging

    def read(self) -> dict[str, str]:
        """All ids that were merged away, and who each is now."""
        if not self._database.exists():
            return {}
        with self._database.reading() as con:
            return dict(con.execute("SELECT former, current FROM merges ORDER BY former"))

    def add(self, former: str, into: str) -> Merged:
        """Record that ``former`` is the person ``into`` is.

        Raises
        ------
        MergeRefused
            When both are one already the other way round, or ``former`` went to somebody else.
        """
        if former == into:
            raise MergeRefused("both ids are the same")
        with self._database.writing() as con:
            before, current = (_current(con, each) for each in (former, into))
            if current == former:
                raise MergeRefused("the second was merged into the first before")
            if before not in (former, current):
                raise MergeRefused("the first was merged into another subscriber before")
            if before == former:
                _join(con, former, current)
            return Merged(former, current, new=before == former)

    def alias(self, aliases: Mapping[str, str]) -> int:
        """Record other ids of the same people, as many as are new; what is one person already stays as it is.

        Where one id of a person is forgotten, the others are up to the same instant, and nothing says who they were.
        """
        asked = {former: into for former, into in aliases.items() if former != into}
        if not asked or self._known(asked):
            return 0
        with self._database.writing() as con:
            until = _forget_alike(con, asked)
            joined = [_joined(con, former, into) for former, into in asked.items() if into not in until]
        return sum(joined)

    def resolve(self, subscriber_ids: Iterable[str]) -> dict[str, str]:
        """Who each is now; most are themselves."""
        asked = list(dict.fromkeys(subscriber_ids))
        found = self._pairs(_CURRENT, asked)
        merged = dict(found)
        return {who: merged.get(who, who) for who in asked}

    def members(self, subscriber_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """All ids under which each has events, its own first. Who was merged away has none."""
        asked = list(dict.fromkeys(subscriber_ids))
        current = self.resolve(asked)
        former: defaultdict[str, list[str]] = defaultdict(list)
        for who, earlier in self._pairs(_FORMER, asked):
            former[who].append(earlier)
        return {who: (who, *former[who]) if current[who] == who else () for who in asked}

    # --- forgetting

    def forget(self, subscriber_ids: Collection[str], until_us: int) -> None:
        """From now on nothing these did up to then is taken in."""
        with self._database.writing() as con:
            _forget(con, dict.fromkeys(subscriber_ids, until_us))

    def drop(self, subscriber_ids: Collection[str]) -> None:
        """Remove the merges of people of whom nothing else is left."""
        with self._database.writing() as con:
            con.execute(
                "DELETE FROM merges WHERE former IN (SELECT value FROM json_each(?))", (_listed(subscriber_ids),)
            )
        self._database.scrub()

    def person(self, subscriber_id: str) -> tuple[str, ...]:
        """All ids of the person who has this one, whichever of them it is; the one that stands is the first."""
        current = self.resolve([subscriber_id])[subscriber_id]
        return self.members([current])[current]

    def forgotten(self) -> tuple[str, dict[str, int]]:
        """The salt, and of each forgotten the digest and until when, in microseconds since 1970 UTC."""
        if not self._database.exists():
            return "", {}
        with self._database.reading() as con:
            rows = dict(con.execute("SELECT digest, until_us FROM forgotten"))
            return (_salt(con) or "", rows) if rows else ("", {})

    def forgotten_among(self, subscriber_ids: Iterable[str]) -> dict[str, int]:
        """Of these ids the forgotten ones, and until when."""
        if not self._database.exists():
            return {}
        with self._database.reading() as con:
            return _forgotten(con, subscriber_ids)

    def names_forgotten(self, texts: Iterable[str]) -> list[bool]:
        """Of rows of the quarantine, which may be about somebody who is forgotten."""
        salt, digests = self.forgotten()
        return [bool(digests) and any(digest_of(salt, who) in digests for who in ids_in(text)) for text in texts]

    def close(self) -> None:
        """Let go of what this thread holds open."""
        self._database.close()

    def _known(self, aliases: Mapping[str, str]) -> bool:
        """Whether they would change nothing."""
        ids = [*aliases, *aliases.values()]
        now, until = self.resolve(ids), self.forgotten_among(ids)
        return all(
            until.get(former) == until.get(into) and (former in until or now[former] == now[into])
            for former, into in aliases.items()
        )

    def _pairs(self, query: str, asked: Collection[str]) -> list[tuple[str, str]]:
        if not asked or not self._database.exists():
            return []
        with self._database.reading() as con:
            return con.execute(query, (_listed(asked),)).fetchall()


def merge(home: Home, former: str, into: str) -> Merged:
    """Record in a home that two subscribers are one; see ``Merges.add``. Who keeps states folds ``current`` anew."""
    return Merges(home).add(former, into)


def digest_of(salt: str, subscriber_id: str) -> str:
    """What is kept of a forgotten id. DuckDB's ``sha256(salt || subscriber_id)`` begins with it."""
    return hashlib.sha256(f"{salt}{subscriber_id}".encode(errors="backslashreplace")).hexdigest()[:DIGEST_LENGTH]


def names_any(text: str, subscriber_ids: Iterable[str]) -> bool:
    """Whether a row of the quarantine may be about one of these; see ``ids_in``."""
    return not ids_in(text).isdisjoint(subscriber_ids)


def ids_in(text: str) -> set[str]:
    """Whom a row of the quarantine may be about.

    Its fields named ``subscriber_id`` say it, wherever in it they are. Where none does, every text that is a value by
    itself may be an id; of a line that could not be taken apart, everything between separators. A number that is no
    field of that name, and a part of a text such as the minutes of an instant, is nobody.
    """
    try:
        row = json.loads(text)
        values = list(_values("", row))
    except (ValueError, RecursionError):
        return _words(text)
    if isinstance(row, dict) and set(row) == {"line"}:
        return _words(str(row["line"]))
    named = {value.strip() for name, value in values if name == _ID}
    return (named or {value.strip() for name, value in values if name != _NUMBER}) - {""}


def _words(line: str) -> set[str]:
    """What stands between separators, however it is quoted."""
    found = {word.strip(":=") for word in _BETWEEN.split(line)} | {word.strip(" \"'") for word in _CELL.split(line)}
    return (found | {word.replace('\\"', '"') for word in _STRING.findall(line)}) - {""}


def _values(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Every value with the name of its field; of a text that is itself written as fields, those too."""
    if isinstance(value, dict):
        for key, each in value.items():
            is_id = key.strip().lower() == _ID
            # A field that is there and empty says it, too: the row is about nobody.
            yield from _values(_ID if is_id else "", "" if is_id and each is None else each)
    elif isinstance(value, list):
        for each in value:
            yield from _values(name, each)
    elif isinstance(value, str):
        yield name, value
        yield from ((_ID, who) for who in _WRITTEN.findall(value))
    elif value is not None:
        yield (name or _NUMBER), str(value)


def _forget(con: sqlite3.Connection, until: Mapping[str, int]) -> None:
    salt = _salted(con)
    con.executemany(
        "INSERT INTO forgotten VALUES (?, ?) ON CONFLICT DO UPDATE SET until_us = max(until_us, excluded.until_us)",
        [(digest_of(salt, who), until_us) for who, until_us in until.items()],
    )


def _forgotten(con: sqlite3.Connection, subscriber_ids: Iterable[str]) -> dict[str, int]:
    salt = _salt(con)
    if salt is None:
        return {}
    digests = {digest_of(salt, who): who for who in subscriber_ids}
    found = con.execute(
        "SELECT digest, until_us FROM forgotten WHERE digest IN (SELECT value FROM json_each(?))", (_listed(digests),)
    )
    return {digests[digest]: until_us for digest, until_us in found}


def _forget_alike(con: sqlite3.Connection, aliases: Mapping[str, str]) -> dict[str, int]:
    """Of people of whom one id is forgotten, forget the others; give all of these, and until when."""
    until = _forgotten(con, [*aliases, *aliases.values()])
    latest: defaultdict[str, int] = defaultdict(int)
    for former, into in aliases.items():
        for who in (former, into):
            if who in until:
                latest[into] = max(latest[into], until[who])
    theirs = {who: latest[into] for former, into in aliases.items() if into in latest for who in (former, into)}
    if theirs:
        _forget(con, theirs)
    return theirs


def _current(con: sqlite3.Connection, who: str) -> str:
    row = con.execute("SELECT current FROM merges WHERE former = ?", (who,)).fetchone()
    return who if row is None else str(row[0])


def _joined(con: sqlite3.Connection, former: str, into: str) -> bool:
    before, current = _current(con, former), _current(con, into)
    if before == current:
        return False
    _join(con, before, current)
    return True


def _join(con: sqlite3.Connection, former: str, current: str) -> None:
    """Who was merged into ``former`` goes along, so that every id is one step from the one that stands."""
    con.execute("UPDATE merges SET current = ? WHERE current = ?", (current, former))
    con.execute("INSERT INTO merges VALUES (?, ?)", (former, current))


def _salt(con: sqlite3.Connection) -> str | None:
    row = con.execute("SELECT value FROM salt").fetchone()
    return None if row is None else str(row[0])


def _salted(con: sqlite3.Connection) -> str:
    con.execute("INSERT OR IGNORE INTO salt VALUES (1, ?)", (secrets.token_hex(32),))
    return str(_salt(con))


def _listed(ids: Iterable[str]) -> str:
    """One JSON parameter for any number of ids: placeholders would run out."""
    return json.dumps(list(ids))
