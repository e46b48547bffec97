"""What the layouts for CRMs have in common: fields, and CSV files within an importer's limits.

What enters: leads in rank order and what a CRM's fields hold. What leaves: ``stem-001.csv``, ``stem-002.csv``… in UTF-8
without a byte order mark, which importers take for a part of the first name, and with LF, which they expect. The promise:
no file, row or value is beyond the documented limits, what was cut or left out is counted, and a field means the same
attribute in every export.

No text gets an apostrophe here, unlike in the CSV for people: an importer would store it, and an identifier with one
would match nobody. So a list's own identifiers and attributes stand in these files as they came, and one that begins with
``=`` is run by a spreadsheet that opens the file. Each README.txt says so and how many there are. Our own texts never
begin with such a sign.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import UnusableOption
from pipelines.leads.limits import are_longer, within
from pipelines.leads.tally import Leads
from serving.leads.cells import cell_texts, finite, joined_rows, may_hold, quoted, starts_a_formula, values
from serving.leads.columns import ExportColumn, Kind

CUT_MARK = " [cut]"
KEY = "subscriber_id"
_LARGEST_WHOLE, _LARGEST, _DECIMALS = 10**15 - 1, 10**12 - 1, 6
"""Salesforce keeps 18 digits of a number; beyond 15 one loses digits on its way through a spreadsheet or JavaScript."""
_WIDTH = 100
_LINE_BREAKS = r"[\t\r\n]+"
_MARK = 8
_KEEPS_ITS_NAME = re.compile(r"(?!.*[ _.-][0-9a-f]{8}\Z)[a-z0-9]+([ _.-][a-z0-9]+)*", re.ASCII | re.IGNORECASE)
"""Names of which a CRM's name loses nothing but case and separators, and that do not look as if they were marked."""


@dataclass(frozen=True)
class Field:
    """A column as a CRM has it.

    ``holds`` is the longest text in UTF-16 units, None for what is no text; ``lines`` says whether line breaks may be in
    it; ``nothing`` is what a cell says where there is nothing to say.
    """

    column: ExportColumn
    name: str
    label: str
    holds: int | None
    lines: bool = False
    nothing: str = ""


@dataclass(frozen=True)
class Layout:
    """What an importer takes: rows and bytes of one file, and how it writes what is not text.

    ``clears`` is the text, if there is one, that empties a field.
    """

    stem: str
    rows_per_file: int
    bytes_per_file: int
    moments: Callable[[pa.Array], pa.Array]
    shares: Callable[[pa.Array], pa.Array]
    clears: str = ""


def write_parts(leads: Leads, directory: Path, fields: Sequence[Field], layout: Layout) -> int:
    """Write the leads into as many files as the layout's limits need, and say how many.

    Raises
    ------
    UnusableOption
        When no lead's identifier fits.
    """
    header = ",".join(field.name for field in fields).encode() + b"\n"
    parts = 0
    with ExitStack() as open_now:
        file: BinaryIO | None = None
        rows = size = 0
        for block, count in _blocks(leads, fields, layout):
            if file is None or rows + count > layout.rows_per_file or size + len(block) > layout.bytes_per_file:
                open_now.close()
                parts += 1
                file = open_now.enter_context((directory / f"{layout.stem}-{parts:03d}.csv").open("wb"))
                rows, size = 0, file.write(header)
            rows, size = rows + count, size + file.write(block)
    if not parts:
        raise UnusableOption(
            "--format",
            f"identifiers of this list are longer than the {fields[0].holds:,} characters the CRM matches by.",
        )
    return parts


def _blocks(leads: Leads, fields: Sequence[Field], layout: Layout) -> Iterator[tuple[bytes, int]]:
    """Rows as bytes and how many; never across a border of two files."""
    done = 0
    for keyed in leads.pieces(lambda piece: _keyed(leads, piece, fields)):
        start = 0
        while start < keyed.num_rows:
            count = min(keyed.num_rows - start, layout.rows_per_file - done % layout.rows_per_file)
            yield (
                joined_rows([_cells(leads, keyed.slice(start, count), field, layout) for field in fields], "\n"),
                count,
            )
            start, done = start + count, done + count


def _keyed(leads: Leads, piece: pa.RecordBatch, fields: Sequence[Field]) -> pa.RecordBatch:
    """The rows whose identifier fits; one that is cut would be somebody else's."""
    long = are_longer(piece[KEY], fields[0].holds or 0)
    if long is None:
        return piece
    leads.tally.unkeyed += pc.sum(long).as_py()
    return piece.filter(pc.invert(long))


def _cells(leads: Leads, batch: pa.RecordBatch, field: Field, layout: Layout) -> pa.Array:
    cells = _texts(leads, values(batch, field.column), field, layout)
    if not field.nothing:
        return cells
    if field.holds is not None:
        # No reasons at all are an empty text and no null.
        cells = pc.if_else(pc.or_(pc.equal(cells, ""), pc.utf8_is_space(cells)), pa.scalar(None, cells.type), cells)
    return pc.fill_null(cells, field.nothing)


def _texts(leads: Leads, array: pa.Array, field: Field, layout: Layout) -> pa.Array:
    match field.column.kind:
        case Kind.TEXT | Kind.REASONS:
            return quoted(_fitting(leads, cell_texts(array, field.column.kind), field, layout))
        case Kind.MOMENT:
            return layout.moments(array)
        case Kind.YES_NO:
            return pc.if_else(array, "true", "false")
        case Kind.PROBABILITY:
            return layout.shares(finite(array)).cast(pa.string())
        case _:
            return _number(leads, array).cast(pa.string())


def _fitting(leads: Leads, texts: pa.Array, field: Field, layout: Layout) -> pa.Array:
    if field.column.name != KEY:
        texts = texts if field.lines else pc.replace_substring_regex(texts, _LINE_BREAKS, " ")
        texts = _clearing_nothing(leads, texts, layout.clears)
    texts, cut = within(texts, field.holds or 0, CUT_MARK)
    leads.tally.cut += cut
    leads.tally.formulas += pc.sum(starts_a_formula(texts)).as_py() or 0
    return texts


def _clearing_nothing(leads: Leads, texts: pa.Array, clears: str) -> pa.Array:
    """Texts none of which is the one that empties a field: ``#N/A`` becomes ``N/A``."""
    if not clears or not may_hold(texts, (clears[:1].encode(),)):
        return texts
    would = pc.fill_null(pc.equal(pc.utf8_upper(pc.utf8_trim_whitespace(texts)), clears), False)
    leads.tally.cut += pc.sum(would).as_py() or 0
    return pc.if_else(would, clears[1:], texts)


def _number(leads: Leads, array: pa.Array) -> pa.Array:
    whole = pa.types.is_integer(array.type)
    numbers, largest = (array, _LARGEST_WHOLE) if whole else (finite(array), _LARGEST)
    # Not by the absolute value: the least of 64 bits has none. And before rounding, which the largest floats do not bear.
    fits = pc.and_(pc.less_equal(numbers, largest), pc.greater_equal(numbers, -largest))
    leads.tally.cut += pc.sum(pc.invert(fits)).as_py() or 0
    fitting = pc.if_else(fits, numbers, pa.scalar(None, numbers.type))
    return fitting if whole else pc.round(fitting, _DECIMALS)


def field_names(columns: Sequence[ExportColumn], joined: Callable[[list[str]], str], longest: int) -> list[str]:
    """What a CRM calls each column, in at most ``longest`` characters, whatever their order.

    Where the CRM's letters cannot tell a column from another, a digest of its own name does, which stays the same.

    Parameters
    ----------
    joined
        Makes a name of the words of a column's.
    """
    names = [joined(words_of(column.name)) for column in columns]
    told = [
        name.lower() if len(name) <= longest and _KEEPS_ITS_NAME.fullmatch(column.name) else ""
        for column, name in zip(columns, names, strict=True)
    ]
    often = Counter(told)
    return [
        name if kept and often[kept] == 1 else _marked(column, name, longest)
        for column, name, kept in zip(columns, names, told, strict=True)
    ]


def _marked(column: ExportColumn, name: str, longest: int) -> str:
    digest = sha256(column.name.encode()).hexdigest()[:_MARK]
    return f"{name[: longest - _MARK - 1].rstrip('_')}_{digest}"


def plain(text: str, longest: int) -> str:
    """A label or description: one line, nothing in it that a reader of XML stumbles over."""
    return " ".join(cell_texts(pa.array([text]), Kind.TEXT)[0].as_py().split())[:longest].rstrip()


def words_of(name: str) -> list[str]:
    """The parts of a column's name that a CRM's name can have: ASCII letters and digits.

    >>> words_of("profile_Größe (cm)")
    ['profile', 'Gr', 'e', 'cm']
    """
    return re.findall(r"[A-Za-z0-9]+", name)


def readme(leads: Leads, opening: str, left_out: int, steps: Iterable[str]) -> str:
    """README.txt: what the files are, what holds whatever the CRM, and what to do with them."""
    lines = (opening, *_notes(leads, left_out), "", *steps, "docs/exports.md has the steps in full.")
    return "\n".join(textwrap.fill(line, _WIDTH) for line in lines) + "\n"


def _notes(leads: Leads, left_out: int) -> Iterator[str]:
    if leads.book.simulated:
        yield "SIMULATED DATA: these people do not exist. Do not import them."
    tally = leads.tally
    yield (
        "Import these files, do not open them in a spreadsheet: texts stand in them as they came, and a spreadsheet may run "
        f"one that begins with =, +, - or @ ({tally.formulas:,} here). For people there is leads.xlsx."
    )
    if tally.cut:
        yield (
            f"Changed: {tally.cut:,} values that a field does not hold. Long texts end in “{CUT_MARK.strip()}”, large numbers "
            "are empty, and a text that would empty the field has lost its first sign."
        )
    if tally.unkeyed:
        yield f"Left out: {tally.unkeyed:,} leads, whose identifier is longer than the field that is matched by."
    if left_out:
        yield f"Left out: {left_out:,} attributes of the list; the import takes no more columns."
