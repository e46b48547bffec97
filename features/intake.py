"""Reading what people bring: files in the input contract become checked tables, with nothing lost on the way.

What enters: a Parquet, CSV or JSON Lines file, or a directory of them. What leaves: an ``Intake``: canonical rows, and
every other row with a reason a person can read. The promise: every row of the file is accepted, or a repeat of an
accepted one, or quarantined; which of them does not depend on the order of rows; no e-mail address and no raw evidence
(user agent, ip, url) is kept, not even in quarantine.

All work on rows is SQL on DuckDB over batches, in a ``workshop`` that spills to disk, so that memory stays bounded. The
files are parsed by Arrow, because it hands over malformed CSV rows with their numbers and text instead of stopping.
"""

from __future__ import annotations

import io
import re
import tempfile
import zoneinfo
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from features.agents import classify_agents
from features.contract import (
    CAMPAIGN_COLUMNS,
    EVENT_SCHEMA,
    EVENT_TYPES,
    RAW_EVENT_COLUMNS,
    REQUIRED_EVENT_COLUMNS,
    SUBSCRIBER_COLUMNS,
    UTC_MICROSECONDS,
)
from features.errors import EmptyInput, MissingColumns, UnreadableFile, Unwritable, WrongColumnType
from features.links import classify_links
from features.networks import classify_networks

Progress = Callable[[float], None]
"""Called with the finished share, 0 to 1."""

FORMS = {"parquet": (".parquet",), "csv": (".csv",), "jsonl": (".jsonl", ".ndjson", ".json")}
"""Which format a file is in, by the ending of its name."""

MEMORY_LIMIT = "2GB"
BLOCK_ROWS = 65_536
BLOCK_BYTES = 8 << 20
"""Text is parsed in blocks of this size; a longer line is refused."""
GATHERED_BYTES = 64 << 20
"""So much is checked at a time. Planning a check takes DuckDB 0.1 s, so that single blocks cost twice as much."""
ID_LENGTH = 256
FIRST_YEAR, LAST_YEAR = 1990, 2100
LARGEST_VALUE = 10**12
"""Of one event, in the list's currency: sums are folded in 64-bit integers."""
CLOCK_TOLERANCE = timedelta(days=1)
"""How far ahead of ours a clock that stamps events may run."""

AT = "(?:@|%(?:25)*40|&(?:amp;){0,4}(?:#0{0,5}64;?|#[xX]0{0,5}40;?|commat;)|\uff20|\ufe6b)"
"""The sign in an address, plain or escaped for a URL or a page."""
WORD = r"""(?:[^\s"<>,;:&?/|{}\[\]\\()]+|&(?:amp;){0,4}(?:#[xX]?[0-9A-Fa-f]{1,8};?|[0-9A-Za-z]{1,12};))"""
"""Part of a word that may hold an address: all of such a word is redacted."""
EMAIL = rf"""(?:"|[^\s"<>,;:&?/|{{}}\[\]\\@]+){AT}[^\s"<>,;:=&?/|{{}}\[\]\\@]+\.[^\s"<>,;:=&?/|{{}}\[\]\\@.]+"""
_MENTION = rf"""(?:"[^"\n]{{1,64}}"|{WORD}+)?{AT}{WORD}*"""
_MENTION_IN_JSON = rf"""(?:\\"[^"\\]{{1,64}}\\"|{WORD}+)?{AT}{WORD}*"""
REDACTED = "<redacted email>"
CONTROL = r"[\x00-\x1f\x7f-\x9f]"
_CLOCK = r"\d{4}-\d{2}-\d{2}[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?"
_OFFSET = r"([Zz]| ?UTC|[+-](0\d|1[0-4])(:?[0-5]\d)?)"
_NAIVE = rf"({_CLOCK}|\d{{4}}-\d{{2}}-\d{{2}})"
_NUMBER = r"(?i)[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity)|nan"
_YES = "('true', 't', 'yes', 'y', '1', '1.0')"
_NO = "('false', 'f', 'no', 'n', '0', '0.0')"
_EXAMPLE = "write it in UTC, e.g. 2026-01-31T09:00:00Z"


@dataclass(frozen=True)
class Contract:
    """One table of the input contract. ``kinds`` gives what each column must be, in canonical order."""

    table: str
    key: str
    kinds: Mapping[str, str]
    required: tuple[str, ...]
    first_by: str
    """Of two rows with one key and different content, the one with the smaller value here came first."""
    attributes: bool
    """Whether columns beyond ``kinds`` are the list's own and kept."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Canonical columns: what is kept of ``kinds``."""
        return tuple(EVENT_SCHEMA.names) if self is EVENTS else tuple(self.kinds)

    @property
    def schema(self) -> pa.Schema:
        """Of the canonical columns."""
        types = _TYPES | {"consent": pa.bool_()}
        fields = (pa.field(name, types[kind], name not in self.required) for name, kind in self.kinds.items())
        return EVENT_SCHEMA if self is EVENTS else pa.schema(list(fields))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(name for name in self.kinds if name.endswith("_id"))

    @property
    def instants(self) -> tuple[str, ...]:
        return tuple(name for name, kind in self.kinds.items() if kind == "instant")


_SPECIAL_KINDS = {"occurred_at": "instant", "received_at": "instant", "content": "texts", "value": "number"}
_EVIDENCE = {"user_agent": "agent", "ip": "network", "url": "link"}
"""Raw evidence, and what is kept of it."""
_LATER_KEPT = ("network", "link")
"""Logs written before these were kept have none: what is told again differs from them in nothing."""
_EVENT_KINDS = {name: _SPECIAL_KINDS.get(name, "text") for name in RAW_EVENT_COLUMNS}
_SUBSCRIBER_KINDS = dict(zip(SUBSCRIBER_COLUMNS, ("text", "instant", "text", "consent", "consent"), strict=True))
_CAMPAIGN_KINDS = dict(zip(CAMPAIGN_COLUMNS, ("text", "instant", "text", "texts"), strict=True))

EVENTS = Contract("events", "event_id", _EVENT_KINDS, REQUIRED_EVENT_COLUMNS, "received_at", attributes=False)
SUBSCRIBERS = Contract(
    "subscribers", "subscriber_id", _SUBSCRIBER_KINDS, ("subscriber_id", "created_at"), "created_at", attributes=True
)
CAMPAIGNS = Contract("campaigns", "campaign_id", _CAMPAIGN_KINDS, ("campaign_id",), "sent_at", attributes=True)

_TYPES = {
    "text": pa.string(),
    "instant": UTC_MICROSECONDS,
    "naive": pa.timestamp("us"),
    "number": pa.float64(),
    "flag": pa.bool_(),
    "texts": pa.list_(pa.string()),
    "listed": pa.string(),
    "empty": pa.string(),
}
_ACCEPTED_KINDS = {
    "text": ("text",),
    "instant": ("instant", "text"),
    "number": ("number", "text"),
    "texts": ("texts", "listed", "text"),
    "consent": ("flag", "number", "text"),
}
_WANTED = {
    "text": "text (string)",
    "instant": "a timestamp in UTC (timestamp[us, tz=UTC])",
    "number": "a number (double)",
    "texts": "a list of texts (list<string>)",
    "consent": "yes or no (bool)",
}


@dataclass(frozen=True)
class Intake:
    """One file or directory, judged. Rows of ``table``, ``repeated`` and rows of ``quarantined`` are all there were."""

    table: pa.Table
    quarantined: pa.Table
    """Columns ``source`` (file name), ``row`` (1 = the first after a header), ``reason``, ``raw`` (the row as JSON)."""
    repeated: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Staged:
    """One file or directory, judged, its rows still in the workshop.

    The relations ``{table}_accepted`` (ordered, columns of ``schema``) and ``{table}_quarantined`` hold the rows.
    """

    contract: Contract
    schema: pa.Schema
    accepted: int
    repeated: int
    reasons: Mapping[str, int]
    notes: tuple[str, ...]
    sources: tuple[Path, ...]
    present: tuple[str, ...]
    """Columns of ``schema`` that some file held; the others are filled in."""

    @property
    def quarantined(self) -> int:
        return sum(self.reasons.values())


def read_events(path: Path) -> Intake:
    """Events in ``contract.EVENT_SCHEMA``, ordered by received_at and event_id.

    Two rows are one event when they agree in everything but ``received_at``; the earliest receipt is kept.

    Raises
    ------
    UnreadableFile, MissingColumns, WrongColumnType, EmptyInput
        When the whole file is at fault. A fault of one row quarantines that row.
    """
    return _read(EVENTS, path)


def read_subscribers(path: Path) -> Intake:
    """Subscribers, ordered by id: the contract's columns, then the list's own as string or double.

    A boolean becomes 0 or 1, a date or timestamp days since 1970 UTC. Columns of a text file become numbers, truth
    values or dates when every value reads as one; a number written with leading zeros is text. Raises as
    ``read_events`` does.
    """
    return _read(SUBSCRIBERS, path)


def read_campaigns(path: Path) -> Intake:
    """Campaigns, ordered by id; attribute columns and errors as in ``read_subscribers``."""
    return _read(CAMPAIGNS, path)


def _read(contract: Contract, path: Path) -> Intake:
    with workshop() as con:
        staged = stage(con, contract, path)
        table = con.sql(f"select * from {contract.table}_accepted").to_arrow_table().cast(staged.schema)
        quarantined = con.sql(f"select * from {contract.table}_quarantined").to_arrow_table()
        return Intake(table, quarantined, staged.repeated, staged.notes)


@contextmanager
def workshop() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that lives as long as one intake, spills to a scratch directory and downloads nothing."""
    with tempfile.TemporaryDirectory(prefix="inbox-intake-") as scratch:
        config: dict[str, Any] = {
            "temp_directory": scratch,
            "memory_limit": MEMORY_LIMIT,
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        with duckdb.connect(config=config) as con:
            con.execute("SET TimeZone = 'UTC'")
            con.execute("SET enable_progress_bar = false")
            try:
                yield con
            except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
                raise Unwritable(Path(scratch), "there is too little room for scratch files") from error


def stage(
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    path: Path,
    known: str | None = None,
    expected: Mapping[str, pa.DataType] | None = None,
    progress: Progress | None = None,
    reading: Reading | None = None,
) -> Staged:
    """Read, check and settle one file or directory inside a workshop.

    Parameters
    ----------
    known
        A relation of rows taken in earlier, one per key, with the canonical columns: a row that says the same is a
        repeat, one that says something else is quarantined.
    expected
        Attribute columns taken in earlier and their types (string or float64), which new files must keep.
    reading
        How to read the files; by their names, as they are, unless given.
    """
    files, unread = _open_all(con, contract, path, reading or Reading())
    layout = _layout(contract, files)
    for number, file in enumerate(files):
        _stage_file(con, contract, layout, number, file, progress)
    (rows,) = _one(con, f"select count(*) from {contract.table}_staged")
    if not rows:
        raise EmptyInput(path)
    attributes = _attributes(con, contract, layout, expected or {})
    notes = [*unread, *layout.notes, *_value_notes(con, contract, layout, attributes)]
    payload = _type(con, contract, attributes)
    repeated = _settle(con, contract, payload, known)
    _accepted(con, contract, payload)
    _quarantined(con, contract, payload, [file.path.name for file in files])
    reasons = con.execute(f"select reason, count(*) from {contract.table}_quarantined group by 1 order by 2 desc, 1")
    counted = dict(reasons.fetchall())
    return Staged(
        contract=contract,
        schema=pa.schema([*contract.schema, *(pa.field(a.name, a.type) for a in attributes)]),
        accepted=rows - repeated - sum(counted.values()),
        repeated=repeated,
        reasons=counted,
        notes=tuple(notes),
        sources=tuple(file.path for file in files),
        present=(*(name for name in contract.columns if name in layout.found), *(a.name for a in attributes)),
    )


# --- files: every format becomes batches of plain columns ------------------------------------------------------------


@dataclass(frozen=True)
class FoundColumn:
    """What a column of a file is: its kind and how to call it in a message."""

    kind: str
    described: str


@dataclass(frozen=True)
class Rows:
    """Some rows of a file: ``position`` (1-based row) and the columns asked for; malformed rows beside them."""

    rows: pa.Table
    rejected: list[tuple[int, str, str]]
    """Position, reason and text of rows that could not be taken apart."""
    done: float


@dataclass(frozen=True)
class SourceFile:
    path: Path
    columns: Mapping[str, FoundColumn]
    chunks: Callable[[Sequence[str]], Iterator[Rows]]
    """Gives the asked columns, in the order asked."""


@dataclass(frozen=True)
class Reading:
    """How files are read that do not speak for themselves."""

    form: str | None = None
    """One of ``FORMS``, whatever the files' names end in; by the name's ending unless given."""
    rewrite: Callable[[SourceFile], SourceFile] | None = None
    """What to make of a file before its columns are matched; rows must keep their positions."""


def _open_all(
    con: duckdb.DuckDBPyConnection, contract: Contract, path: Path, reading: Reading
) -> tuple[list[SourceFile], list[str]]:
    """Every readable file at a path in order of name, and a note on each other one."""
    if not path.exists():
        raise UnreadableFile(path, "there is no such file")
    if not path.is_dir():
        return [_open(con, contract, path, reading)], []
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "_")))
    readable = [entry for entry in entries if entry.is_file() and (reading.form or _form(entry))]
    if not readable:
        raise UnreadableFile(path, f"the directory holds no file ending in {', '.join(_suffixes())}")
    unread = [f"{shown(entry.name)} was not read as {contract.table}" for entry in entries if entry not in readable]
    return [_open(con, contract, entry, reading) for entry in readable], unread


def _suffixes() -> tuple[str, ...]:
    return tuple(suffix for suffixes in FORMS.values() for suffix in suffixes)


def _form(path: Path) -> str | None:
    return next((form for form, suffixes in FORMS.items() if path.suffix.lower() in suffixes), None)


def _open(con: duckdb.DuckDBPyConnection, contract: Contract, path: Path, reading: Reading) -> SourceFile:
    try:
        file = _opened(con, contract, path, reading.form or _form(path))
    except OSError as error:
        raise UnreadableFile(path, error.strerror or "the file cannot be opened") from error
    return reading.rewrite(file) if reading.rewrite else file


def _opened(con: duckdb.DuckDBPyConnection, contract: Contract, path: Path, form: str | None) -> SourceFile:
    if form == "parquet":
        return _open_parquet(path)
    if form == "csv":
        return _open_csv(path)
    if form == "jsonl":
        return _open_json(con, contract, path)
    raise UnreadableFile(path, f"its name ends in {path.suffix or 'nothing'}, not in one of {', '.join(_suffixes())}")


def _open_parquet(path: Path) -> SourceFile:
    with _parquet_door(path), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
    _refuse_twins(path, schema.names)
    return SourceFile(
        path, {column.name: _found(column.type) for column in schema}, lambda names: _parquet_chunks(path, names)
    )


@contextmanager
def _parquet_door(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(path, "it is not a whole Parquet file; it may be truncated") from error


def _found(given: pa.DataType) -> FoundColumn:
    kind = _kind(given.value_type if pa.types.is_dictionary(given) else given)
    return FoundColumn(kind, f"{given} without a time zone" if kind == "naive" else str(given))


def _kind(given: pa.DataType) -> str:
    types = pa.types
    if types.is_timestamp(given):
        return "instant" if given.tz else "naive"
    if _is_list(given):
        return "texts" if _is_text(given.value_type) else "nested"
    asked: tuple[tuple[str, bool], ...] = (
        ("empty", types.is_null(given)),
        ("text", _is_text(given)),
        ("naive", types.is_date(given)),
        ("flag", types.is_boolean(given)),
        ("number", types.is_integer(given) or types.is_floating(given) or types.is_decimal(given)),
    )
    return next((kind for kind, applies in asked if applies), "nested")


def _is_text(given: pa.DataType) -> bool:
    return any(ask(given) for ask in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_list(given: pa.DataType) -> bool:
    return any(ask(given) for ask in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _parquet_chunks(path: Path, names: Sequence[str]) -> Iterator[Rows]:
    with _parquet_door(path), pq.ParquetFile(path) as file:
        total, position = file.metadata.num_rows, 1
        types = [_TYPES[_found(file.schema_arrow.field(name).type).kind] for name in names]
        for table in _gathered(file.iter_batches(BLOCK_ROWS, columns=list(names))):
            # Whatever the unit, zone, width or encoding, one type per kind; what microseconds cannot hold is cut off.
            columns = [table[name].cast(wanted, safe=False) for name, wanted in zip(names, types, strict=True)]
            positions = np.arange(position, position + len(table))
            position += len(table)
            yield Rows(_numbered(positions, columns), [], (position - 1) / total)


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.nbytes for one in held) >= GATHERED_BYTES:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _numbered(positions: Any, columns: Sequence[Any]) -> pa.Table:
    names = ["position", *(f"column_{number}" for number in range(len(columns)))]
    return pa.Table.from_arrays([pa.array(positions, pa.int64()), *columns], names=names)


def _open_csv(path: Path) -> SourceFile:
    if not path.stat().st_size:
        raise EmptyInput(path)
    with _text_door(path), _reader(path, _csv_options(lambda _: "skip")) as (reader, _):
        names = reader.schema.names
    _refuse_twins(path, names)
    return SourceFile(
        path, dict.fromkeys(names, FoundColumn("text", "text")), lambda wanted: _csv_chunks(path, names, wanted)
    )


def _csv_options(keep: Callable[[Any], str]) -> csv.ParseOptions:
    return csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep)


def _csv_chunks(path: Path, names: Sequence[str], wanted: Sequence[str]) -> Iterator[Rows]:
    # Arrow counts the header as row 1.
    for text in _text_batches(path, _csv_options, names, header_rows=1):
        rejected = [
            (row.number - 1, f"the row has {row.actual_columns} fields, the header {row.expected_columns}", row.text)
            for row in text.torn
        ]
        yield Rows(_numbered(text.positions, [text.rows[name] for name in wanted]), rejected, text.done)


@dataclass(frozen=True)
class _Text:
    """Some rows of string columns, the position of each, and the malformed rows (Arrow's) met before their end."""

    rows: pa.Table
    positions: Any
    torn: list[Any]
    done: float


def _text_batches(
    path: Path, options: Callable[[Callable[[Any], str]], csv.ParseOptions], names: Sequence[str], header_rows: int
) -> Iterator[_Text]:
    torn: list[Any] = []

    def keep(row: Any) -> str:
        torn.append(row)
        return "skip"

    position, last, size = 1, [""], path.stat().st_size
    with _text_door(path), _reader(path, options(keep), names, header_rows) as (reader, file):
        for rows in _gathered(reader):
            # Arrow parses ahead: torn rows may already lie beyond these.
            ahead = np.arange(position, position + len(rows) + len(torn))
            positions = np.setdiff1d(ahead, [row.number - header_rows for row in torn])[: len(rows)]
            if len(rows):
                position = int(positions[-1]) + 1
                last = [str(column[-1]) for column in rows.columns]
            passed = [row for row in torn if row.number - header_rows < position]
            del torn[: len(passed)]
            yield _Text(rows, positions, passed, file.tell() / size)
        if file.quotes % 2 and any("\n" in value for value in (*last, *(row.text for row in torn))):
            raise UnreadableFile(path, "a quote is opened near its end and never closed")
        yield _Text(reader.schema.empty_table(), np.arange(0), torn, 1.0)


class _Watched(io.FileIO):
    """A file that counts the quotes read from it: an odd number tells that one was never closed."""

    quotes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(-1 if size is None else size) or b""
        self.quotes += piece.count(b'"')
        return piece


@contextmanager
def _reader(
    path: Path, parse: csv.ParseOptions, names: Sequence[str] = (), header_rows: int = 1
) -> Iterator[tuple[Any, _Watched]]:
    """Arrow's reader of string columns. One thread: only then are malformed rows numbered."""
    given = None if header_rows else list(names)
    read = csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=given)
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    with (
        _Watched(path) as file,
        csv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert) as reader,
    ):
        yield reader, file


@contextmanager
def _text_door(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        # Of the header's names.
        raise UnreadableFile(path, "it is not UTF-8 text") from error
    except pa.ArrowInvalid as error:
        # Arrow's own words may quote cells.
        raise UnreadableFile(path, _torn(str(error))) from error


def _torn(said: str) -> str:
    if "UTF8" in said:
        return "it is not UTF-8 text"
    if "straddling" in said:
        return f"a line of it is longer than {BLOCK_BYTES >> 20} MiB, or a quote is opened and never closed"
    return "its rows cannot be told apart"


def _open_json(con: duckdb.DuckDBPyConnection, contract: Contract, path: Path) -> SourceFile:
    with path.open("rb") as file:
        start = file.read(BLOCK_BYTES).lstrip()
    if not start:
        raise EmptyInput(path)
    if start.startswith(b"["):
        raise UnreadableFile(path, "it is one JSON array, not one JSON object a line (JSON Lines)")
    columns = _json_columns(con, contract, path)
    if not columns:
        raise UnreadableFile(path, "no line of it is a JSON object")
    return SourceFile(path, columns, lambda names: _json_chunks(con, path, names))


def _line_options(keep: Callable[[Any], str]) -> csv.ParseOptions:
    """Lines as one column: no quoting, and a separator that JSON text cannot contain."""
    return csv.ParseOptions(
        delimiter="\x01", quote_char=False, double_quote=False, ignore_empty_lines=False, invalid_row_handler=keep
    )


# A line that is no JSON at all is null here, and its type with it.
_PARSED = "(select position, line, try_cast(line as json) as parsed from lines)"
_SOUND = "json_type(parsed) = 'OBJECT'"


def _line_batches(con: duckdb.DuckDBPyConnection, path: Path) -> Iterator[_Text]:
    """Batches of lines, each registered as the relation ``lines`` (position, line)."""
    for text in _text_batches(path, _line_options, ["line"], header_rows=0):
        con.register("lines", _numbered(text.positions, text.rows.columns).rename_columns(["position", "line"]))
        yield text


def _json_columns(con: duckdb.DuckDBPyConnection, contract: Contract, path: Path) -> dict[str, FoundColumn]:
    """Keys in order of appearance, with what their values are.

    Where only the contract's own columns are kept, a look at the first lines will do: all of them are asked for anyway.
    """
    found: dict[str, set[str]] = {}
    for _ in _line_batches(con, path):
        _look_at_lines(con, found)
        if not contract.attributes and found.keys() >= set(contract.required):
            found = {name: set[str]() for name in contract.kinds} | found
            break
    return {name: _json_found(types) for name, types in found.items()}


def _look_at_lines(con: duckdb.DuckDBPyConnection, found: dict[str, set[str]]) -> None:
    keys = f"select json_keys(parsed) from {_PARSED} where {_SOUND} group by 1 order by min(position)"
    names = list(dict.fromkeys(name for (row,) in con.execute(keys).fetchall() for name in row))
    types = f"select distinct json_type(parsed, {_pointers(names)}) from {_PARSED} where {_SOUND}"
    for (row,) in con.execute(types).fetchall() if names else ():
        for name, kind in zip(names, row, strict=True):
            found.setdefault(name, set()).update({kind} - {None, "NULL"})


def _pointers(names: Sequence[str]) -> str:
    escaped = (name.replace("~", "~0").replace("/", "~1") for name in names)
    return f"[{', '.join(literal(f'/{name}') for name in escaped)}]"


def _json_found(types: set[str]) -> FoundColumn:
    """A column is nested when no value of it is anything else."""
    described = " or ".join(sorted(types)).lower() or "null"
    if types == {"ARRAY"}:
        return FoundColumn("listed", described)
    if types and types <= {"ARRAY", "OBJECT"}:
        return FoundColumn("nested", described)
    return FoundColumn("text" if types else "empty", described)


def _json_chunks(con: duckdb.DuckDBPyConnection, path: Path, names: Sequence[str]) -> Iterator[Rows]:
    fault = "the line is not a JSON object"
    pulled = f"""select position, case when {_SOUND} then json_extract_string(parsed, {_pointers(names)}) end as pulled,
        case when pulled is null then line end as broken from {_PARSED}"""
    columns = ", ".join(f"pulled[{number + 1}] as column_{number}" for number in range(len(names)))
    for text in _line_batches(con, path):
        lines = con.sql(f"select position, broken, {columns} from ({pulled})").to_arrow_table()
        sound = lines["broken"].is_null()
        broken = lines.filter(pc.invert(sound)).select(["position", "broken"]).to_pylist()
        rejected = [(row["position"], fault, row["broken"]) for row in broken if row["broken"].strip()]
        torn = [(row.number, fault, row.text) for row in text.torn]
        yield Rows(lines.filter(sound).drop_columns("broken"), rejected + torn, text.done)


def _refuse_twins(path: Path, names: Sequence[str]) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise UnreadableFile(path, f"it has the column {shown(twins[0])} more than once")


# --- columns: what the file calls them, what they are -----------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column as one file has it."""

    name: str
    found: FoundColumn


@dataclass(frozen=True)
class _Layout:
    """Which columns are read: a canonical one under its own name, the list's own as ``attribute_N``."""

    files: Sequence[Mapping[str, _Column]]
    attributes: Mapping[str, _Column]
    """What the list calls an ``attribute_N``, and what it is in every file that has it."""
    notes: tuple[str, ...]
    now: datetime
    """The same for all rows: the same row twice is clamped to the same instant."""

    @property
    def found(self) -> set[str]:
        """Columns in which some file could say something."""
        return {name for file in self.files for name, column in file.items() if column.found.kind != "empty"}


def _layout(contract: Contract, files: Sequence[SourceFile]) -> _Layout:
    """Match what the files have to the contract; names count without case and outer spaces, as SQL has it.

    Raises
    ------
    MissingColumns, WrongColumnType
        A required column is absent, or a column is something that its rows cannot be read from.
    """
    dropped: dict[str, list[str]] = {}
    matched = [_matched(contract, file, dropped) for file in files]
    own = list(dict.fromkeys(plain for file in matched for plain in file if plain not in contract.kinds))
    aliases = {plain: f"attribute_{number}" for number, plain in enumerate(own)}
    for file, columns in zip(files, matched, strict=True):
        _check_columns(contract, file, columns)
    attributes = {aliases[plain]: _agreed(contract, plain, matched) for plain in own}
    renamed = [{aliases.get(plain, plain): column for plain, column in file.items()} for file in matched]
    notes = tuple(f"left out of {contract.table}, {why}: {', '.join(names)}" for why, names in dropped.items())
    now = datetime.now(UTC)
    # Never a whole millisecond, as programs write them: that tells a clamped instant from theirs.
    return _Layout(renamed, attributes, notes, now.replace(microsecond=now.microsecond | 1))


def _matched(contract: Contract, file: SourceFile, dropped: dict[str, list[str]]) -> dict[str, _Column]:
    """Columns worth reading by plain name; why the others are not is added to ``dropped``."""
    kept: dict[str, _Column] = {}
    for name, found in file.columns.items():
        plain = name.strip().lower()
        why = _why_left_out(contract, plain, found, plain in kept)
        if why is None:
            kept[plain] = _Column(name, found)
        elif shown(name) not in dropped.setdefault(why, []):
            dropped[why].append(shown(name))
    return kept


def _why_left_out(contract: Contract, plain: str, found: FoundColumn, taken: bool) -> str | None:
    if taken:
        return "as another column differs from it only in case or outer spaces"
    if plain in _EVIDENCE and contract is EVENTS and found.kind not in (*_ACCEPTED_KINDS["text"], "empty"):
        return "not being text"
    if plain in contract.kinds:
        return None
    if not contract.attributes:
        return "not being in the input contract"
    if not plain or plain.startswith("__index_level_"):
        return "having no name of their own"
    if re.search(EMAIL, plain) or re.search(CONTROL, plain):
        return "their names being an e-mail address or unprintable"
    if found.kind == "empty":
        return "being empty"
    return "being lists or structures" if found.kind in ("texts", "listed", "nested") else None


def _check_columns(contract: Contract, file: SourceFile, columns: Mapping[str, _Column]) -> None:
    missing = [name for name in contract.required if name not in columns]
    if missing:
        raise MissingColumns(contract.table, missing, [shown(name) for name in file.columns])
    for name, wanted in contract.kinds.items():
        kind = columns[name].found.kind if name in columns else "empty"
        if kind != "empty" and kind not in _ACCEPTED_KINDS[wanted]:
            raise WrongColumnType(contract.table, name, columns[name].found.described, _WANTED[wanted])


def _agreed(contract: Contract, plain: str, files: Sequence[Mapping[str, _Column]]) -> _Column:
    """The attribute as all files have it."""
    columns = [file[plain] for file in files if plain in file]
    for column in columns:
        if column.found.kind != columns[0].found.kind:
            both = f"{columns[0].found.described} in one file and {column.found.described} in another"
            raise WrongColumnType(contract.table, shown(column.name), both, "one type")
    return _Column(columns[0].name.strip(), columns[0].found)


def shown(name: str) -> str:
    """A column or file name as it may stand in a message: a file without a header has people's values there."""
    return re.sub(CONTROL, "?", re.sub(EMAIL, REDACTED, name))[:80]


# --- rows: each gets its canonical columns, or a reason ---------------------------------------------------------------

_SQL_TYPES = {
    "text": "varchar",
    "instant": "timestamptz",
    "naive": "timestamp",
    "number": "double",
    "flag": "boolean",
    "texts": "varchar[]",
    # Judged when all rows are there, so that strange answers can be counted.
    "consent": "varchar",
}


def _stage_file(
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    layout: _Layout,
    number: int,
    file: SourceFile,
    progress: Progress | None,
) -> None:
    """Check one file's rows, batch by batch, into the table ``{table}_staged``."""
    staged, columns = f"{contract.table}_staged", layout.files[number]
    con.execute(f"create temp table if not exists {staged} ({_staged_columns(contract, layout)})")
    check = f"insert into {staged} {_check(contract, layout, number)}"
    raw = _redacted("to_json({'line': line})")
    reject = f"insert into {staged} (source, position, reason, raw) select {number}, position, reason, {raw} from torn"
    for chunk in file.chunks([column.name for column in columns.values()]):
        con.register("given", _given(contract, layout, columns, chunk.rows))
        con.execute(check)
        if chunk.rejected:
            position, reason, line = map(list, zip(*chunk.rejected, strict=True))
            con.register("torn", pa.table({"position": position, "reason": reason, "line": line}))
            con.execute(reject)
        if progress:
            progress((number + chunk.done) / len(layout.files))


def _staged_columns(contract: Contract, layout: _Layout) -> str:
    kinds = {name: contract.kinds.get(name, "text") for name in contract.columns}
    kinds |= {alias: column.found.kind for alias, column in layout.attributes.items()}
    columns = [f"{name} {_SQL_TYPES[kind]}" for name, kind in kinds.items()]
    return ", ".join(["source integer", "position bigint", *columns, "reason varchar", "raw varchar"])


_REDUCE = {"agent": classify_agents, "network": classify_networks, "link": classify_links}


def _given(contract: Contract, layout: _Layout, columns: Mapping[str, _Column], rows: pa.Table) -> pa.Table:
    """The batch under our names: ``given_{column}`` for every column, nulls where it has none, and the reduced evidence."""
    rows = rows.rename_columns(["position", *(f"given_{name}" for name in columns)])
    absent = dict.fromkeys(contract.kinds, "text") | {a: column.found.kind for a, column in layout.attributes.items()}
    for name, kind in absent.items():
        if name not in columns:
            rows = rows.append_column(f"given_{name}", pa.nulls(len(rows), _TYPES[kind]))
    if contract is EVENTS:
        for raw, kept in _EVIDENCE.items():
            rows = rows.append_column(kept, _REDUCE[kept](rows[f"given_{raw}"].combine_chunks()))
    return rows


def _check(contract: Contract, layout: _Layout, number: int) -> str:
    """SQL from the relation ``given`` to rows of ``{table}_staged``."""
    kinds = {name: column.found.kind for name, column in layout.files[number].items()}
    kinds = {name: kinds.get(name, "text") for name in contract.kinds} | {
        alias: column.found.kind for alias, column in layout.attributes.items()
    }
    readings = {name: _reading(f"given_{name}", contract.kinds.get(name, kind), kind) for name, kind in kinds.items()}
    parsed = ", ".join(f"{reading} as {name}" for name, reading in readings.items())
    faults = " ".join(f"when {fault} then {literal(reason)}" for fault, reason in _faults(contract, kinds))
    named = {name: layout.attributes[name].name if name in layout.attributes else name for name in kinds}
    raw = _json({named[name]: _printable(name, kind) for name, kind in kinds.items() if name not in _EVIDENCE})
    filled = _clamped(layout.now) if contract is EVENTS else {}
    columns = ", ".join(filled.get(name, name) for name in (*contract.columns, *layout.attributes))
    return f"""
        with parsed as (select *, {parsed} from given), judged as (select *, case {faults} end as reason from parsed)
        select {number}, position, {columns}, reason, case when reason is not null then {_redacted(raw)} end from judged
    """


def _clamped(now: datetime) -> dict[str, str]:
    """Of a clock that runs a little fast, what happened had happened when we learnt it, as in the inbox.

    Nothing of the log is received in the future then: it would be newer than what the inbox receives next.
    """
    latest = f"timestamptz '{now.isoformat()}'"
    instants = {"occurred_at": "occurred_at", "received_at": "coalesce(received_at, occurred_at)"}
    return {name: f"least({value}, {latest})" for name, value in instants.items()}


def _reading(given: str, wanted: str, kind: str) -> str:
    """SQL of a column as what it must be; null where a text does not say that."""
    if wanted == "consent":
        return f"nullif(lower(trim({given}::varchar)), '')"
    if wanted == "texts":
        return _cleaned(given if kind == "texts" else _split(given))
    if kind in ("text", "listed", "empty"):
        text = f"nullif(trim({given}), '')"
        by_kind = {"text": text, "instant": _instant(text), "number": _number(text)}
        return by_kind[wanted]
    return given


def _number(text: str) -> str:
    """DuckDB reads 1_000 as a program would; people and other programs do not write so."""
    return f"case when not contains({text}, '_') then try_cast({text} as double) end"


def _instant(text: str) -> str:
    """Only what names its offset is an instant."""
    return f"case when {_matches(text, _CLOCK + _OFFSET)} then try_cast({text} as timestamptz) end"


def _split(text: str) -> str:
    """A JSON list of texts, or texts between bars."""
    return f"""case when {text} like '[%' and json_valid({text}) then from_json({text}, '["varchar"]')
        else string_split({text}, '|') end"""


def _cleaned(texts: str) -> str:
    """Without blanks and addresses; null for an empty list, because a text file cannot tell the two apart."""
    plain = f"regexp_replace(trim(word), {literal(_MENTION)}, '{REDACTED}', 'g')"
    trimmed = f"list_filter(list_transform({texts}, lambda word: {plain}), lambda word: word <> '')"
    return f"case when len({trimmed}) > 0 then {trimmed} end"


def _faults(contract: Contract, kinds: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Conditions and their reasons; the first that holds is a row's reason."""
    for name in contract.required:
        yield f"not coalesce({_written(name, kinds)}, false)", f"{name} is missing"
    for name in contract.ids:
        says = "is" if name in contract.required else "contains"
        yield _contains(name, EMAIL), f"{name} {says} an e-mail address: give an opaque id instead"
    for name in contract.ids:
        yield f"length({name}) > {ID_LENGTH}", f"{name} is longer than {ID_LENGTH} characters"
        yield _contains(name, CONTROL), f"{name} contains control characters"
    if contract is EVENTS:
        listed = ", ".join(map(literal, EVENT_TYPES))
        yield f"event_type not in ({listed})", f"event_type is unknown; known are {', '.join(EVENT_TYPES)}"
    for name in contract.instants:
        yield from _instant_faults(name, kinds[name])
    if contract is EVENTS:
        yield "received_at < occurred_at", "received_at is before occurred_at"
        soon = f"timestamptz '{(datetime.now(UTC) + CLOCK_TOLERANCE).isoformat()}'"
        for name in contract.instants:
            # It would move the log's end, and with it which labels count as mature.
            yield f"{name} > {soon}", f"{name} is in the future: check the clock that wrote it"
        yield f"{_written('value', kinds)} and value is null", "value is not a number"
        yield "not isfinite(value)", "value is not a finite number"
        yield f"abs(value) > {LARGEST_VALUE}", f"value is beyond {LARGEST_VALUE:,}: write it in larger units"


def _instant_faults(name: str, kind: str) -> Iterator[tuple[str, str]]:
    if kind != "instant":
        naive = _matches(f"trim(given_{name})", _NAIVE)
        yield naive, f"{name} has no time zone: {_EXAMPLE}"
        yield f"trim(given_{name}) <> '' and {name} is null", f"{name} is not a timestamp: {_EXAMPLE}"
    bounds = f"timestamptz '{FIRST_YEAR}-01-01 00:00:00+00' and timestamptz '{LAST_YEAR}-12-31 23:59:59.999999+00'"
    yield f"{name} not between {bounds}", f"{name} is outside the years {FIRST_YEAR} to {LAST_YEAR}"


def _written(name: str, kinds: Mapping[str, str]) -> str:
    """Whether the file says anything in a column."""
    return f"given_{name} is not null" if kinds[name] in ("instant", "number", "texts") else f"trim(given_{name}) <> ''"


def _printable(name: str, kind: str) -> str:
    """JSON has no NaN, so numbers go into quarantine as text."""
    return f"given_{name}::varchar" if kind == "number" else f"given_{name}"


def _json(labelled: Mapping[str, str]) -> str:
    return f"to_json({{{', '.join(f'{literal(label)}: {value}' for label, value in labelled.items())}}})"


def _redacted(json: str) -> str:
    return f"regexp_replace({json}::varchar, {literal(_MENTION_IN_JSON)}, '{REDACTED}', 'g')"


def _matches(text: str, pattern: str) -> str:
    return f"regexp_full_match({text}, {literal(pattern)})"


def _contains(text: str, pattern: str) -> str:
    return f"regexp_matches({text}, {literal(pattern)})"


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _one(con: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The only row of an aggregate."""
    (row,) = con.execute(query).fetchall()
    return tuple(row)


# --- attributes: what the list's own columns are, now that all rows are there -----------------------------------------


@dataclass(frozen=True)
class _Attribute:
    """One of the list's own columns: staged as ``column``, kept as ``name``; ``form`` is how a value becomes one."""

    column: str
    name: str
    form: str
    staged_as: str

    @property
    def type(self) -> pa.DataType:
        return pa.string() if self.form == "text" else pa.float64()

    @property
    def value(self) -> str:
        """SQL of the value, infinite ones included."""
        text = self.staged_as == "text"
        return {
            "text": self.column,
            "number": f"try_cast({self.column} as double)",
            "flag": f"(lower({self.column}::varchar) = 'true')::int::double",
            "day": f"epoch_us({f'try_cast({self.column} as timestamptz)' if text else self.column}) / 86400000000.0",
        }[self.form]

    @property
    def kept(self) -> str:
        return self.value if self.form == "text" else f"case when isfinite({self.value}) then {self.value} end"


_FORM_OF_KIND = {"number": "number", "flag": "flag", "instant": "day", "naive": "day"}


def _attributes(
    con: duckdb.DuckDBPyConnection, contract: Contract, layout: _Layout, expected: Mapping[str, pa.DataType]
) -> list[_Attribute]:
    """What each attribute is. A column of texts without a single value is nothing and left out.

    Raises
    ------
    WrongColumnType
        An attribute is not what it was in files taken in before.
    """
    before = {name.lower(): (name, kind) for name, kind in expected.items()}
    attributes = []
    for alias, column in layout.attributes.items():
        name, wanted = before.get(column.name.lower(), (column.name, None))
        kind = column.found.kind
        form = _text_form(con, contract, alias, wanted) if kind == "text" else _FORM_OF_KIND[kind]
        if form is None:
            continue
        attribute = _Attribute(alias, name, form, kind)
        if wanted is not None and wanted != attribute.type:
            earlier = f"{'text' if wanted == pa.string() else 'a number'}, as in the files before,"
            raise WrongColumnType(contract.table, shown(name), column.found.described, earlier)
        attributes.append(attribute)
    return attributes


def _text_form(
    con: duckdb.DuckDBPyConnection, contract: Contract, column: str, wanted: pa.DataType | None
) -> str | None:
    """What every value of a column of texts reads as; text stays text where it was before."""
    tests = {
        "number": _matches(column, _NUMBER),
        "flag": f"lower({column}) in ('true', 'false')",
        "day": f"{_matches(column, f'{_NAIVE}|{_CLOCK}{_OFFSET}')} and try_cast({column} as timestamptz) is not null",
    }
    counts = ", ".join(f"count(*) filter ({test})" for test in tests.values())
    given, *read = _one(con, f"select count({column}), {counts} from {contract.table}_staged where reason is null")
    if not given:
        return None
    fitting = [form for form, count in zip(tests, read, strict=True) if count == given]
    return fitting[0] if fitting and wanted != pa.string() else "text"


def _value_notes(
    con: duckdb.DuckDBPyConnection, contract: Contract, layout: _Layout, attributes: Sequence[_Attribute]
) -> Iterator[str]:
    """What was taken in otherwise than it was written."""
    kept = {attribute.column for attribute in attributes}
    empty = [shown(column.name) for alias, column in layout.attributes.items() if alias not in kept]
    if empty:
        yield f"left out of {contract.table}, being empty: {', '.join(empty)}"
    if "timezone" in contract.kinds:
        strange = f"timezone not in ({_zones(con)})"
        yield from _counted(con, contract, strange, "have an unknown time zone; the list's default is used")
    for name, kind in contract.kinds.items():
        if kind == "consent":
            strange = f"{name} not in {_YES} and {name} not in {_NO}"
            yield from _counted(con, contract, strange, f"have a {name} that is neither yes nor no; it counts as no")
    for attribute in attributes:
        if attribute.form == "number":
            infinite = f"isinf({attribute.value})"
            yield from _counted(
                con, contract, infinite, f"have an infinite {shown(attribute.name)}; it counts as missing"
            )
    yield from _address_notes(con, contract, [attribute for attribute in attributes if attribute.form == "text"])


def _address_notes(
    con: duckdb.DuckDBPyConnection, contract: Contract, attributes: Sequence[_Attribute]
) -> Iterator[str]:
    """Columns of the list's own are kept as they are: whoever keeps addresses so should know."""
    if not attributes:
        return
    counts = ", ".join(f"count(*) filter ({_contains(attribute.column, EMAIL)})" for attribute in attributes)
    found = _one(con, f"select {counts} from {contract.table}_staged where reason is null")
    for attribute, count in zip(attributes, found, strict=True):
        if count:
            yield (
                f"{count:,} {contract.table} have an e-mail address in {shown(attribute.name)}, which is kept as an "
                "attribute: leave the column out, or hash it"
            )


def _counted(con: duckdb.DuckDBPyConnection, contract: Contract, condition: str, what: str) -> Iterator[str]:
    kept = f"select count(distinct {contract.key}) from {contract.table}_staged where reason is null and ({condition})"
    (count,) = _one(con, kept)
    if count:
        yield f"{count:,} {contract.table} {what}"


def _zones(con: duckdb.DuckDBPyConnection) -> str:
    """SQL of the zones that both Python and DuckDB know, so that neither meets one it cannot use."""
    con.register("python_zones", pa.table({"name": sorted(zoneinfo.available_timezones())}))
    return "select name from pg_timezone_names() semi join python_zones using (name)"


# --- rows with one key: the first stands ------------------------------------------------------------------------------


def _type(con: duckdb.DuckDBPyConnection, contract: Contract, attributes: Sequence[_Attribute]) -> dict[str, str]:
    """Make the view ``{table}_typed``; give its content columns and the names they are kept under."""
    columns = {name: name for name in contract.columns}
    if "timezone" in columns:
        columns["timezone"] = f"case when timezone in ({_zones(con)}) then timezone end"
    for name, kind in contract.kinds.items():
        if kind == "consent":
            # Who wrote something that cannot be read has not agreed.
            columns[name] = f"case when {name} is not null then {name} in {_YES} end"
    columns |= {attribute.column: attribute.kept for attribute in attributes}
    selected = ", ".join(f"{value} as {name}" for name, value in columns.items())
    con.execute(
        f"create temp view {contract.table}_typed as select source, position, {selected} "
        f"from {contract.table}_staged where reason is null"
    )
    return {name: name for name in contract.columns} | {a.column: a.name for a in attributes}


def _settle(con: duckdb.DuckDBPyConnection, contract: Contract, payload: Mapping[str, str], known: str | None) -> int:
    """Fill ``{table}_settled`` with the rows that are not the first of their key; give how many say the same.

    When something was learnt is not part of what it says: a repeated delivery is received later.
    """
    table, key = contract.table, contract.key
    content = [name for name in payload if name not in (key, "received_at")]
    con.execute(f"create temp table {table}_settled (source integer, position bigint, same boolean)")
    seen = f"select {key} from {table}_typed where false"
    if known:
        same = " and ".join(
            f"(typed.{name} is not distinct from known.{name}{_or_kept_otherwise(name)})" for name in content
        )
        con.execute(
            f"insert into {table}_settled select source, position, {same} "
            f"from {table}_typed as typed join {known} as known using ({key})"
        )
        seen = f"select {key} from {known}"
    struct = ", ".join(f"'{name}': {name}" for name in content)
    con.execute(f"""
        insert into {table}_settled
        with contested as (select {key} from {table}_typed group by {key} having count(*) > 1),
        claims as (
            select source, position, {key}, {contract.first_by} as first_by, {{{struct}}} as content
            from {table}_typed semi join contested using ({key}) anti join ({seen}) using ({key})
        )
        select source, position, content is not distinct from first_value(content) over earliest
        from claims
        window earliest as (partition by {key} order by first_by nulls first, content, source, position)
        qualify row_number() over earliest > 1
    """)
    (repeated,) = _one(con, f"select count(*) from {table}_settled where same")
    return int(repeated)


def _or_kept_otherwise(name: str) -> str:
    """What was not kept, or was clamped to the instant of its receipt, when the row was told before."""
    if name == "occurred_at":
        clamped = "known.occurred_at = known.received_at and epoch_us(known.received_at) % 1000 <> 0"
        within = f"known.received_at + interval {CLOCK_TOLERANCE // timedelta(seconds=1)} second"
        return f" or ({clamped} and typed.occurred_at between known.received_at and {within})"
    return f" or known.{name} is null" if name in _LATER_KEPT else ""


def _accepted(con: duckdb.DuckDBPyConnection, contract: Contract, payload: Mapping[str, str]) -> None:
    order = "received_at, event_id" if contract is EVENTS else contract.key
    selected = ", ".join(f"{column} as {quoted(name)}" for column, name in payload.items())
    con.execute(
        f"create temp view {contract.table}_accepted as select {selected} from {contract.table}_typed "
        f"anti join {contract.table}_settled using (source, position) order by {order}"
    )


def _quarantined(
    con: duckdb.DuckDBPyConnection, contract: Contract, payload: Mapping[str, str], sources: Sequence[str]
) -> None:
    table = contract.table
    names = f"[{', '.join(map(literal, sources))}][source + 1]"
    raw = _redacted(_json({name: column for column, name in payload.items()}))
    reason = f"{contract.key} was seen before with other content: the first one is kept"
    con.execute(f"""
        create temp view {table}_quarantined as
        with bad as (
            select source, position, reason, raw from {table}_staged where reason is not null
            union all
            select source, position, {literal(reason)}, {raw}
            from {table}_typed join (from {table}_settled where not same) using (source, position)
        )
        select {names} as source, position as row, reason, raw from bad order by bad.source, position
    """)
