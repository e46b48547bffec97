"""What the layouts for CRMs have in common: fields, and CSV files within an importer's limits.

What enters: leads in rank order and what a CRM's fields hold. What leaves: ``stem-001.csv``, ``stem-002.csv``… in UTF-8
without a byte order mark, which importers take for a part of the first name, and with LF, which they expect. The promise:
no file, row or value is beyond the documented limits, and what was cut or left out is counted.

No text gets an apostrophe here, unlike in the CSV for people: an importer would store it, and an identifier with one
would match nobody. So a list's own identifiers and attributes stand in these files as they came, and one that begins with
``=`` is run by a spreadsheet that opens the file. Each README.txt says so and how many there are. Our own texts never
begin with such a sign.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import UnusableOption
from pipelines.leads.limits import are_longer, within
from pipelines.leads.tally import Leads
from serving.leads.cells import cell_texts, finite, joined_rows, quoted, starts_a_formula, values
from serving.leads.columns import ExportColumn, Kind

CUT_MARK = " [cut]"
KEY = "subscriber_id"
_LARGEST_WHOLE, _LARGEST, _DECIMALS = 10**15 - 1, 10**12 - 1, 6
"""Salesforce keeps 18 digits of a number; beyond 15 one loses digits on its way through a spreadsheet or JavaScript."""
_WIDTH = 100
_LINE_BREAKS = r"[\t\r\n]+"


@dataclass(frozen=True)
class Field:
    """A column as a CRM has it.

    ``holds`` is the longest text in UTF-16 units, None for what is no text; ``lines`` says whether line breaks may be in
    it.
    """

    column: ExportColumn
    name: str
    label: str
    holds: int | None
    lines: bool = False


@dataclass(frozen=True)
class Layout:
    """What an importer takes: rows and bytes of one file, and how it writes what is not text."""

    stem: str
    rows_per_file: int
    bytes_per_file: int
    moments: Callable[[pa.Array], pa.Array]
    shares: Callable[[pa.Array], pa.Array]
    empty: str


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
    return pc.fill_null(cells, layout.empty) if layout.empty else cells


def _texts(leads: Leads, array: pa.Array, field: Field, layout: Layout) -> pa.Array:
    match field.column.kind:
        case Kind.TEXT | Kind.REASONS:
            return quoted(_fitting(leads, cell_texts(array, field.column.kind), field))
        case Kind.MOMENT:
            return layout.moments(array)
        case Kind.YES_NO:
            return pc.if_else(pc.fill_null(array, False), "true", "false")
        case Kind.PROBABILITY:
            return layout.shares(finite(array)).cast(pa.string())
        case _:
            return _number(leads, array).cast(pa.string())


def _fitting(leads: Leads, texts: pa.Array, field: Field) -> pa.Array:
    if not field.lines and field.column.name != KEY:
        texts = pc.replace_substring_regex(texts, _LINE_BREAKS, " ")
    texts, cut = within(texts, field.holds or 0, CUT_MARK)
    leads.tally.cut += cut
    leads.tally.formulas += pc.sum(starts_a_formula(texts)).as_py() or 0
    return texts


def _number(leads: Leads, array: pa.Array) -> pa.Array:
    whole = pa.types.is_integer(array.type)
    numbers = array if whole else pc.round(finite(array), _DECIMALS)
    largest = _LARGEST_WHOLE if whole else _LARGEST
    # Not by the absolute value: the least of 64 bits has none.
    fits = pc.and_(pc.less_equal(numbers, largest), pc.greater_equal(numbers, -largest))
    leads.tally.cut += pc.sum(pc.invert(fits)).as_py() or 0
    return pc.if_else(fits, numbers, pa.scalar(None, numbers.type))


def distinct_names(names: Sequence[str], longest: int) -> list[str]:
    """Names of at most a length, each another than all before it.

    >>> distinct_names(["plan", "plan", "a_long_name"], 6)
    ['plan', 'plan_2', 'a_long']
    """
    taken: list[str] = []
    for name in names:
        chosen, number = name[:longest].rstrip("_"), 1
        while chosen.lower() in (other.lower() for other in taken):
            number += 1
            ending = f"_{number}"
            chosen = name[: longest - len(ending)].rstrip("_") + ending
        taken.append(chosen)
    return taken


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
        yield f"Longer than a field holds: {tally.cut:,} values. Texts end in “{CUT_MARK.strip()}”, numbers are empty."
    if tally.unkeyed:
        yield f"Left out: {tally.unkeyed:,} leads, whose identifier is longer than the field that is matched by."
    if left_out:
        yield f"Left out: {left_out:,} attributes of the list; the import takes no more columns."
