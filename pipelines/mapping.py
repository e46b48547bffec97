"""A program's own exports, in its own words: which column is which, and how its values are read.

What enters: a mapping (options of a verb, a TOML or a JSON file) and files as some system exported them. What leaves: the
same rows, in the columns of the input contract, for the ordinary intake to judge. The promise: a row keeps its number, a
value that cannot be read stays as it was written so that the intake can say so, and an address that is mapped as one is a
pseudonym before anything else sees it.

Rows are rewritten block by block while the intake reads them: no second copy is made, and memory stays bounded.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from features.contract import EVENT_TYPES, RAW_EVENT_COLUMNS
from features.errors import UnreadableFile, UnusableOption
from features.identity import Pseudonyms
from features.intake import (
    CAMPAIGNS,
    EVENTS,
    SUBSCRIBERS,
    Contract,
    FoundColumn,
    Reading,
    Rows,
    SourceFile,
    literal,
    shown,
)
from features.payload import looks_like_an_address
from features.providers.canonical import LONGEST_ADDRESS

HASH, DIGEST = "hash", "digest"
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}
"""How an instant is written as a number, and how many microseconds one of it is."""
TABLES = {contract.table: contract for contract in (EVENTS, SUBSCRIBERS, CAMPAIGNS)}
MOST_KNOWN = 500_000
"""Addresses at a time, about 200 MB."""
LATEST_US = 4_133_980_799_999_999
"""The end of the contract's last year: what lies beyond is no instant, and would not fit a timestamp."""

COLUMN, SET, EVENT_TYPE, TIMEZONE, MAP = "--column", "--set", "--event-type", "--timezone", "--map"
_NAIVE = r"\d{4}-\d{2}-\d{2}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?"
_ISO = "%Y-%m-%dT%H:%M:%S.%fZ"
_SAID_WHEN_AND_WHO = ("received_at", "event_id")
"""What a digest leaves out: an event that is delivered again is the same event."""


class People:
    """Who is behind addresses, each worked out once; what is no address is nobody.

    ``aliases`` are the ids that those met had under older keys, and the ids they have now.
    """

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self.aliases: dict[str, str] = {}
        self._pseudonyms = pseudonyms
        self._known: dict[str, tuple[str, str] | None] = {}

    def known(self, address: str | None) -> tuple[str, str] | None:
        """The id, and what stands for the person in the ids of events: the same under every key."""
        if address is None:
            return None
        if address not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[address] = self._look_up(address)
        return self._known[address]

    def _look_up(self, address: str) -> tuple[str, str] | None:
        if len(address) > LONGEST_ADDRESS or not looks_like_an_address(address):
            return None
        found = self._pseudonyms.subscriber_id(address)
        self.aliases.update(dict.fromkeys(self._pseudonyms.former_ids(address), found))
        return found, self._pseudonyms.fingerprint(address)


@dataclass(frozen=True)
class Source:
    """Where a column of ours comes from.

    ``how`` is empty (as it is), ``hash`` (an address), ``digest`` (made from the rest of the row), ``epoch_s``, ``epoch_ms``
    or ``epoch_us`` (a number), or a pattern of ``strptime``.
    """

    column: str
    how: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read ``COLUMN``, ``COLUMN:HOW`` or ``:digest``. What follows the last colon and is no known way is the name's.

        >>> Source.parse("Email Address:hash")
        Source(column='Email Address', how='hash')
        >>> Source.parse("EventDate:%m/%d/%Y %H:%M:%S")
        Source(column='EventDate', how='%m/%d/%Y %H:%M:%S')
        >>> Source.parse("utm: source")
        Source(column='utm: source', how='')
        """
        column, colon, pattern = text.partition(":%")
        if colon:
            return cls(column.strip(), f"%{pattern}")
        column, colon, how = text.rpartition(":")
        known = how.strip() in (HASH, DIGEST, *EPOCHS)
        return cls(column.strip(), how.strip()) if colon and known else cls(text.strip())


@dataclass(frozen=True)
class TableMapping:
    """What one table's files say in their own words."""

    columns: Mapping[str, Source] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Columns of ours that are the same in every row."""
    event_types: Mapping[str, str] = field(default_factory=dict)
    timezone: str | None = None
    """Of times that name none; where a clock shows one twice, the later is meant."""

    @property
    def hashes(self) -> bool:
        """Whether somebody's address is among the columns."""
        return any(source.how == HASH for source in self.columns.values())

    def __bool__(self) -> bool:
        return bool(self.columns or self.fixed or self.event_types or self.timezone)


@dataclass(frozen=True)
class Asked:
    """The options of a verb that make up a mapping, as they were written."""

    file: Path | None = None
    columns: Sequence[str] = ()
    fixed: Sequence[str] = ()
    event_types: Sequence[str] = ()
    timezone: str | None = None

    def refuse_absent(self, given: Collection[str]) -> None:
        """Options about a table that is not given would be lost. A file may say more than is needed today.

        Raises
        ------
        UnusableOption
        """
        asked = [
            (option, table)
            for option, texts in ((COLUMN, self.columns), (SET, self.fixed))
            for table in _by_table(option, texts)
        ]
        asked += [(EVENT_TYPE, EVENTS.table)] if self.event_types else []
        for option, table in asked:
            if table not in given:
                hint = (
                    f"; write {next(iter(given))}.NAME=… if that is meant"
                    if table == EVENTS.table and option != EVENT_TYPE
                    else ""
                )
                raise UnusableOption(option, f"is about {table}, and --{table} is not given{hint}")

    def mappings(self) -> dict[str, TableMapping]:
        """By table, everything the file and the options say.

        Raises
        ------
        UnusableOption, UnreadableFile
            When something is not understood, or said twice.
        """
        found = _of_file(self.file) if self.file else {}
        columns, fixed = _by_table(COLUMN, self.columns), _by_table(SET, self.fixed)
        types = dict(_pairs(EVENT_TYPE, self.event_types))
        mappings = {}
        for table in TABLES:
            base = found.get(table, TableMapping())
            mapping = TableMapping(
                _joined(COLUMN, base.columns, {ours: Source.parse(text) for ours, text in columns.get(table, ())}),
                _joined(SET, base.fixed, dict(fixed.get(table, ()))),
                _joined(EVENT_TYPE, base.event_types, types) if table == EVENTS.table else base.event_types,
                self.timezone or base.timezone,
            )
            _check(TABLES[table], mapping)
            mappings[table] = mapping
        return mappings


def readings(mappings: Mapping[str, TableMapping], form: str | None, people: People | None) -> dict[str, Reading]:
    """How the intake reads each table's files. A given form is that of the events. Without addresses nobody need be known."""
    found = {}
    for table, mapping in mappings.items():
        contract = TABLES[table]

        def rewrite(file: SourceFile, contract: Contract = contract, mapping: TableMapping = mapping) -> SourceFile:
            return mapped(contract, mapping, file, people)

        found[table] = Reading(form if contract is EVENTS else None, rewrite if mapping else None)
    return found


def mapped(contract: Contract, mapping: TableMapping, file: SourceFile, people: People | None) -> SourceFile:
    """A file whose columns and values are ours. What is not mapped stays, under its own name.

    Raises
    ------
    UnusableOption
        When the file has not what the mapping says.
    """
    positions = {name: number for number, name in enumerate(file.columns)}
    translation = _Translation(contract, mapping, file, positions)
    plan = translation.plan()
    columns = {name: column.found for name, column in plan.items()}
    return SourceFile(file.path, columns, lambda names: _rewritten(translation, plan, names, people))


# --- what was asked ---------------------------------------------------------------------------------------------------


def _of_file(path: Path) -> dict[str, TableMapping]:
    """A mapping file: ``timezone``, and for each table ``columns``, ``set``, ``event_types`` and ``timezone``."""
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UnreadableFile(path, error.strerror or "the file cannot be opened") from error
    except ValueError as error:
        raise UnusableOption(
            MAP, f"{path} is no {'JSON' if path.suffix.lower() == '.json' else 'TOML'} file"
        ) from error
    _refuse_strange(str(path), raw, ("timezone", *TABLES))
    return {table: _of_table(f"{path}: {table}", raw.get(table, {}), raw.get("timezone")) for table in TABLES}


def _of_table(where: str, raw: Any, zone: Any) -> TableMapping:
    _refuse_strange(where, raw, ("columns", "set", "event_types", "timezone"))
    zone = raw.get("timezone", zone)
    return TableMapping(
        {ours: _source(where, given) for ours, given in _table(where, raw, "columns").items()},
        {ours: _text(where, given) for ours, given in _table(where, raw, "set").items()},
        {theirs: _text(where, given) for theirs, given in _table(where, raw, "event_types").items()},
        None if zone is None else _text(f"{where}.timezone", zone),
    )


def _source(where: str, given: Any) -> Source:
    """A text as the option has it, or a table of ``column`` and ``how`` for a name that ends like one."""
    if isinstance(given, dict):
        _refuse_strange(where, given, ("column", "how"))
        return Source(_text(where, given.get("column", "")), _text(where, given.get("how", "")))
    return Source.parse(_text(where, given))


def _refuse_strange(where: str, raw: Any, known: Sequence[str]) -> None:
    if not isinstance(raw, dict):
        raise UnusableOption(MAP, f"{where} is not a table; it may say {', '.join(known)}")
    strange = sorted(set(raw) - set(known))
    if strange:
        raise UnusableOption(
            MAP, f"{where} does not know {', '.join(map(shown, strange))}; it may say {', '.join(known)}"
        )


def _table(where: str, raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = raw.get(name, {})
    if not isinstance(found, dict):
        raise UnusableOption(MAP, f"{where}.{name} is not a table")
    return found


def _text(where: str, given: Any) -> str:
    if not isinstance(given, str):
        raise UnusableOption(MAP, f"{where} holds a value that is no text")
    return given


def _pairs(option: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """``A=B`` as two words, each left-hand side once."""
    seen = set()
    for text in texts:
        left, equals, right = text.partition("=")
        if not (equals and left.strip() and right.strip()):
            raise UnusableOption(option, f"{shown(text)!r} is no pair; write it like {_LIKE[option]}")
        if left.strip() in seen:
            raise UnusableOption(option, f"{shown(left.strip())} is said twice; say it once")
        seen.add(left.strip())
        yield left.strip(), right.strip()


_LIKE = {
    COLUMN: "occurred_at=EventDate or subscriber_id=Email:hash",
    SET: "event_type=open",
    EVENT_TYPE: "Opened=open",
}


def _by_table(option: str, texts: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Pairs by table; ``subscribers.timezone=TZ`` is about subscribers, without a table it is about events."""
    found: dict[str, list[tuple[str, str]]] = {}
    for left, right in _pairs(option, texts):
        table, dot, name = left.partition(".")
        if not dot or table not in TABLES:
            table, name = EVENTS.table, left
        found.setdefault(table, []).append((name, right))
    return found


def _joined(option: str, file: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    twice = sorted(set(file) & set(options))
    if twice:
        raise UnusableOption(option, f"{', '.join(map(shown, twice))} is in the mapping file too; say it once")
    return {**file, **options}


def _check(contract: Contract, mapping: TableMapping) -> None:
    known = RAW_EVENT_COLUMNS if contract is EVENTS else tuple(contract.kinds)
    twice = sorted(set(mapping.columns) & set(mapping.fixed))
    if twice:
        raise UnusableOption(SET, f"{contract.table}.{shown(twice[0])} is mapped to a column too; choose one")
    for name in (*mapping.columns, *mapping.fixed):
        if not contract.attributes and name not in known:
            raise UnusableOption(COLUMN, f"{contract.table} has no column {shown(name)!r}; it has {', '.join(known)}")
    for name, source in mapping.columns.items():
        _check_way(contract, name, source)
    for kind in mapping.event_types.values():
        if kind not in EVENT_TYPES:
            raise UnusableOption(EVENT_TYPE, f"there is no type {shown(kind)!r}; there are {', '.join(EVENT_TYPES)}")
    if mapping.timezone is not None and mapping.timezone not in available_timezones():
        raise UnusableOption(TIMEZONE, f"{shown(mapping.timezone)!r} is no IANA time zone; give one like Europe/Berlin")


def _check_way(contract: Contract, name: str, source: Source) -> None:
    """Whether a column can be read that way."""
    how, where = source.how, f"{contract.table}.{shown(name)}"
    if how == DIGEST and (name != contract.key or contract is not EVENTS or source.column):
        raise UnusableOption(COLUMN, f"{where} cannot be a digest; only event_id can: event_id=:{DIGEST}")
    if not source.column and how != DIGEST:
        raise UnusableOption(COLUMN, f"{where} names no column of the file; write it like {_LIKE[COLUMN]}")
    if how == HASH and name != SUBSCRIBERS.key:
        raise UnusableOption(COLUMN, f"{where} cannot be hashed; only subscriber_id is made from an address")
    if (how in EPOCHS or how.startswith("%")) and name not in contract.instants:
        raise UnusableOption(COLUMN, f"{where} is no instant; {how} is for {', '.join(contract.instants)}")
    if how.startswith("%"):
        _check_pattern(where, how)
    elif how not in ("", HASH, DIGEST, *EPOCHS):
        raise UnusableOption(
            COLUMN, f"{where} cannot be read as {shown(how)!r}; there are {HASH}, {', '.join(EPOCHS)}, %…"
        )


def _check_pattern(where: str, pattern: str) -> None:
    try:
        with closing(duckdb.connect()) as con:
            con.execute(f"select try_strptime('', {literal(pattern)})")
    except duckdb.Error as error:
        raise UnusableOption(
            COLUMN, f"{where} cannot be read by {shown(pattern)!r}, which is no strptime pattern"
        ) from error


# --- what it means for one file ---------------------------------------------------------------------------------------


_TEXT = FoundColumn("text", "text")


@dataclass(frozen=True)
class _Made:
    """A column of the rewritten file: what it is, the columns of the file it needs, and SQL over them."""

    found: FoundColumn
    needs: tuple[str, ...]
    sql: str
    digested: str = ""
    """SQL by which it tells one event from another, where that is other SQL."""


@dataclass(frozen=True)
class _Translation:
    """A mapping and the file it is for. ``positions`` numbers the file's columns: their names may mean much to SQL."""

    contract: Contract
    mapping: TableMapping
    file: SourceFile
    positions: Mapping[str, int]

    @property
    def hashed(self) -> set[str]:
        """Columns of the file that are addresses: whatever is made of them is made of their pseudonyms."""
        return {self.named(ours, source) for ours, source in self.mapping.columns.items() if source.how == HASH}

    def sql(self, theirs: str) -> str:
        return f"theirs_{self.positions[theirs]}"

    def fingerprint(self, theirs: str) -> str:
        """SQL of what stands for the person behind an address."""
        return f"person_{self.positions[theirs]}"

    def plan(self) -> dict[str, _Made]:
        """Every column of the rewritten file, under the name the intake will find it by."""
        mapping, contract = self.mapping, self.contract
        sources = {ours: self.named(ours, source) for ours, source in mapping.columns.items() if source.column}
        made = {ours: self.made(ours, theirs) for ours, theirs in sources.items()}
        made |= {ours: _Made(_TEXT, (), literal(value)) for ours, value in mapping.fixed.items()}
        for theirs in self.file.columns:
            plain = theirs.strip().lower()
            if theirs in sources.values() or plain in mapping.columns or plain in mapping.fixed:
                continue
            name = plain if plain in contract.kinds and plain not in made else theirs
            made[name] = self.made(name, theirs)
        self.refuse_unmapped(made)
        if contract is EVENTS and mapping.columns.get(contract.key, Source("")).how == DIGEST:
            made[contract.key] = _digest(made)
        return made

    def named(self, ours: str, source: Source) -> str:
        """What the file calls a column; names count without case and outer spaces, an exact one first."""
        if source.column in self.file.columns:
            return source.column
        alike = [name for name in self.file.columns if name.strip().lower() == source.column.lower()]
        if len(alike) != 1:
            wanted, has = f"{shown(source.column)!r} for {shown(ours)}", ", ".join(map(shown, self.file.columns))
            raise UnusableOption(COLUMN, f"{shown(self.file.path.name)} has no column {wanted}; it has {has}")
        return alike[0]

    def refuse_unmapped(self, made: Mapping[str, _Made]) -> None:
        missing = [name for name in self.contract.required if name not in made and name not in self.mapping.columns]
        if missing:
            digest = f", or {EVENTS.key}=:{DIGEST} to make it from the rest of the row" if EVENTS.key in missing else ""
            where, what = shown(self.file.path.name), ", ".join(missing)
            raise UnusableOption(COLUMN, f"{where} has nothing for {what}; give {COLUMN} {missing[0]}=NAME{digest}")

    def made(self, ours: str, theirs: str) -> _Made:
        found, source = self.file.columns[theirs], self.mapping.columns.get(ours, Source(theirs))
        if source.how == HASH:
            self.refuse_unless(found.kind == "text", ours, theirs, "an address is a text")
            return _Made(_TEXT, (theirs,), self.sql(theirs), digested=self.fingerprint(theirs))
        if ours in self.contract.instants:
            return self.instant(ours, theirs, source.how)
        if ours == "event_type" and self.mapping.event_types and found.kind == "text":
            return _Made(_TEXT, (theirs,), _translated(self.sql(theirs), self.mapping.event_types))
        return _Made(found, (theirs,), self.sql(theirs))

    def instant(self, ours: str, theirs: str, how: str) -> _Made:
        """An instant that can be read becomes text in UTC; what cannot be stays, for the intake to say why not."""
        found, column, zone = self.file.columns[theirs], self.sql(theirs), self.mapping.timezone
        if how in EPOCHS:
            self.refuse_unless(found.kind in ("text", "number"), ours, theirs, f"{how} is a number")
            return _Made(_TEXT, (theirs,), _in_utc(_from_epoch(column, EPOCHS[how]), column))
        if how:
            self.refuse_unless(found.kind == "text", ours, theirs, "a pattern reads text")
            return _Made(_TEXT, (theirs,), _in_utc(self.by_pattern(ours, f"trim({column})", how), column))
        if zone and found.kind == "naive":
            return _Made(FoundColumn("instant", "instant"), (theirs,), f"{column} at time zone {literal(zone)}")
        if zone and found.kind == "text":
            return _Made(_TEXT, (theirs,), _in_utc(_local(f"trim({column})", zone), column))
        return _Made(found, (theirs,), column)

    def by_pattern(self, ours: str, text: str, pattern: str) -> str:
        read = f"try_strptime({text}, {literal(pattern)})"
        if "%z" in pattern:
            return read
        if self.mapping.timezone is None:
            raise UnusableOption(TIMEZONE, f"say which zone {ours} is in: its pattern has no %z")
        return f"{read} at time zone {literal(self.mapping.timezone)}"

    def refuse_unless(self, fits: bool, ours: str, theirs: str, why: str) -> None:
        if not fits:
            described = self.file.columns[theirs].described
            raise UnusableOption(COLUMN, f"{shown(theirs)} for {shown(ours)} is {described}, but {why}")


def _translated(column: str, event_types: Mapping[str, str]) -> str:
    cases = (f"when {literal(given.lower())} then {literal(kind)}" for given, kind in event_types.items())
    return f"case lower(trim({column})) {' '.join(cases)} else {column} end"


def _in_utc(instant: str, otherwise: str) -> str:
    return f"coalesce(strftime({instant} at time zone 'UTC', '{_ISO}'), {otherwise}::varchar)"


def _local(text: str, zone: str) -> str:
    """A time without a zone is one of the list's; one that names its own keeps it."""
    naive = f"regexp_full_match({text}, {literal(_NAIVE)})"
    return f"case when {naive} then try_cast({text} as timestamp) at time zone {literal(zone)} end"


def _from_epoch(column: str, microseconds: int) -> str:
    number = f"round(try_cast({column} as double) * {microseconds})"
    return f"make_timestamptz(case when abs({number}) <= {LATEST_US} then {number}::bigint end)"


def _digest(made: Mapping[str, _Made]) -> _Made:
    """An id that is the same whenever the row says the same, under every key. Nobody is told from it by guessing."""
    told = {name: one for name, one in made.items() if name in RAW_EVENT_COLUMNS and name not in _SAID_WHEN_AND_WHO}
    parts = ", ".join(f"{literal(name)}: ({one.digested or one.sql})::varchar" for name, one in sorted(told.items()))
    needs = tuple(dict.fromkeys(column for one in told.values() for column in one.needs))
    return _Made(_TEXT, needs, f"left(sha256(to_json({{{parts}}})::varchar), 32)")


# --- rows -------------------------------------------------------------------------------------------------------------


def _rewritten(
    translation: _Translation, plan: Mapping[str, _Made], names: Sequence[str], people: People | None
) -> Iterator[Rows]:
    needed = list(dict.fromkeys(column for name in names for column in plan[name].needs))
    hashed = translation.hashed
    columns = [f"{plan[name].sql} as column_{number}" for number, name in enumerate(names)]
    with closing(duckdb.connect()) as con:
        con.execute("SET TimeZone = 'UTC'")
        for chunk in translation.file.chunks(needed):
            position, *columns_given = chunk.rows.columns
            nobodies: list[tuple[int, str, str]] = []
            given: dict[str, Any] = {"position": position}
            for name, column in zip(needed, columns_given, strict=True):
                given[translation.sql(name)] = column
                if people and name in hashed:
                    ids, given[translation.fingerprint(name)] = _hashed(column, people)
                    given[translation.sql(name)] = ids
                    nobodies += _nobodies(name, position, column, ids)
            con.register("given", pa.table(given))
            rows = con.sql(f"select {', '.join(['position', *columns])} from given").to_arrow_table()
            refused = pc.is_in(rows["position"], value_set=pa.array([row for row, *_ in nobodies], pa.int64()))
            yield Rows(rows.filter(pc.invert(refused)), chunk.rejected + nobodies, chunk.done)


def _nobodies(name: str, position: Any, addresses: Any, ids: pa.Array) -> list[tuple[int, str, str]]:
    """Rows with words where an address should be. The words may name somebody all the same, so nothing is quoted."""
    written = pc.not_equal(pc.utf8_trim_whitespace(addresses), "")
    rows = position.filter(pc.and_(written, pa.chunked_array([ids.is_null()])))
    return [(row, f"no e-mail address in column {shown(name)}", "") for row in rows.to_pylist()]


def _hashed(addresses: pa.ChunkedArray, people: People) -> tuple[pa.Array, pa.Array]:
    """Ids and fingerprints; null for what is no address, because it may name somebody all the same."""
    encoded = addresses.combine_chunks().dictionary_encode()
    known = [people.known(address) or (None, None) for address in encoded.dictionary.to_pylist()]
    ids, fingerprints = (pa.array([each[part] for each in known], pa.string()) for part in (0, 1))
    return ids.take(encoded.indices), fingerprints.take(encoded.indices)
