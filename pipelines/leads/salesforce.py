"""Leads as Salesforce's loaders take them: Lead records by an external id, and the fields to put them in.

What enters: leads in rank order. What leaves: a directory with ``leads-001.csv``…, ``metadata/`` (a package for the
Metadata API with the custom fields) and ``README.txt``. The promise: every file is within the documented limits of the
Data Import Wizard and of Bulk API 2.0, and loading the same file twice changes nothing.

The limits (help.salesforce.com and the developer guide of Bulk API 2.0, as of 2025): the wizard takes 50,000 records,
100 MB and 90 fields, the API 100 MB before it encodes a file, 32,000 characters a value; a text field holds 255. An empty
value is left alone by an update, and ``#N/A`` empties a field, so that what is no longer known does not stay. A checkbox
cannot be empty: one of which nothing is known for anybody is left out, and for somebody it is not ticked.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.leads.crm import KEY, Field, Layout, field_names, plain, readme, write_parts
from pipelines.leads.tally import Leads
from serving.leads.cells import iso_moments
from serving.leads.columns import ExportColumn, Kind

FILES = r"leads-\d{3,}\.csv|metadata/package\.xml|metadata/objects/Lead\.object|README\.txt"
ROWS_PER_FILE = 50_000
BYTES_PER_FILE = 95_000_000
COLUMNS_PER_FILE = 90
NAMES_LIMIT = 2_000
"""Of all fields' names together: the wizard's rule is 4,000 by twice their length."""
TEXT_LIMIT = 255
LONG_TEXT_LIMIT = 32_000
NAME_LIMIT, LABEL_LIMIT, DESCRIPTION_LIMIT = 40, 40, 1_000
NOTHING = "#N/A"
API_VERSION = "60.0"

_LAYOUT = Layout(
    stem="leads",
    rows_per_file=ROWS_PER_FILE,
    bytes_per_file=BYTES_PER_FILE,
    moments=lambda moments: iso_moments(moments, ".000Z"),
    # A percent field holds 31.25 for 31.25 %.
    shares=lambda probability: pc.round(pc.multiply(probability, 100.0), 4),
    clears=NOTHING,
)
_TYPES = {
    Kind.WHOLE: "<type>Number</type><precision>18</precision><scale>0</scale>",
    Kind.CHANGE: "<type>Number</type><precision>18</precision><scale>0</scale>",
    Kind.NUMBER: "<type>Number</type><precision>18</precision><scale>6</scale>",
    Kind.HOURS: "<type>Number</type><precision>18</precision><scale>2</scale>",
    Kind.PROBABILITY: "<type>Percent</type><precision>7</precision><scale>4</scale>",
    Kind.MOMENT: "<type>DateTime</type>",
    Kind.YES_NO: "<type>Checkbox</type><defaultValue>false</defaultValue>",
}
_PACKAGE = f"""<?xml version="1.0" encoding="UTF-8"?>
<Package xmlns="http://soap.sforce.com/2006/04/metadata">
    <types>
{{members}}
        <name>CustomField</name>
    </types>
    <version>{API_VERSION}</version>
</Package>
"""
_OBJECT = """<?xml version="1.0" encoding="UTF-8"?>
<CustomObject xmlns="http://soap.sforce.com/2006/04/metadata">
{fields}
</CustomObject>
"""


def write_salesforce(leads: Leads, directory: Path) -> None:
    columns = _known(leads)
    fields = _fields(columns)
    parts = write_parts(leads, directory, fields, _LAYOUT)
    objects = directory / "metadata" / "objects"
    objects.mkdir(parents=True)
    (objects / "Lead.object").write_text(_OBJECT.format(fields="\n".join(map(_definition, fields))), "utf-8")
    members = "\n".join(f"        <members>Lead.{field.name}</members>" for field in fields)
    (directory / "metadata" / "package.xml").write_text(_PACKAGE.format(members=members), "utf-8")
    opening = f"Lead scores for Salesforce: leads-001.csv to leads-{parts:03d}.csv."
    words = readme(leads, opening, len(columns) - len(fields), _steps(fields[0].name))
    (directory / "README.txt").write_text(words, "utf-8")


def _known(leads: Leads) -> list[ExportColumn]:
    """The columns but the yes or no that is null for everybody, as it is when its model is not in service."""
    asked = [column.source for column in leads.columns if column.kind is Kind.YES_NO]
    with pq.ParquetFile(leads.book.path) as book:
        answers = book.read(columns=asked)
    unknown = {name for name in asked if answers[name].null_count == answers.num_rows}
    return [column for column in leads.columns if column.source not in unknown]


def _fields(columns: Sequence[ExportColumn]) -> list[Field]:
    names = [f"{name}__c" for name in field_names(columns, _joined, NAME_LIMIT)]
    lengths = accumulate(map(len, names))
    fitting = [
        _field(column, name)
        for column, name, length in zip(columns, names, lengths, strict=True)
        if length <= NAMES_LIMIT
    ]
    return fitting[:COLUMNS_PER_FILE]


def _joined(words: Sequence[str]) -> str:
    return "_".join(["Inbox", *(word.capitalize() for word in words)])


def _field(column: ExportColumn, name: str) -> Field:
    label = plain(f"Inbox {column.name.replace('_', ' ')}", LABEL_LIMIT)
    if column.kind is Kind.REASONS:
        return Field(column, name, label, LONG_TEXT_LIMIT, lines=True, nothing=NOTHING)
    if column.kind is Kind.TEXT:
        return Field(column, name, label, TEXT_LIMIT, nothing="" if column.name == KEY else NOTHING)
    return Field(column, name, label, None, nothing="false" if column.kind is Kind.YES_NO else NOTHING)


def _definition(field: Field) -> str:
    return (
        f"    <fields><fullName>{field.name}</fullName><label>{escape(field.label)}</label>{_type(field)}"
        f"<description>{escape(plain(field.column.meaning, DESCRIPTION_LIMIT))}</description></fields>"
    )


def _type(field: Field) -> str:
    if field.column.name == KEY:
        return (
            f"<type>Text</type><length>{TEXT_LIMIT}</length><externalId>true</externalId><unique>true</unique>"
            "<caseSensitive>true</caseSensitive>"
        )
    if field.column.kind is Kind.TEXT:
        return f"<type>Text</type><length>{TEXT_LIMIT}</length>"
    if field.column.kind is Kind.REASONS:
        return f"<type>LongTextArea</type><length>{LONG_TEXT_LIMIT}</length><visibleLines>3</visibleLines>"
    return _TYPES[field.column.kind]


def _steps(key: str) -> tuple[str, ...]:
    return (
        "Once: create the fields, `sf project deploy start --metadata-dir metadata`, give those who need them access, and "
        f"store in {key} of each Lead the identifier by which your list knows it: export identifiers and addresses from your "
        "own list and load them, matched by email. These files hold no addresses, so they create no Lead.",
        f"Then each time: Bulk API 2.0, object Lead, operation upsert, external id {key}, line ending LF; or the Data Import "
        "Wizard: Leads, update existing records, matched by that external id.",
        f"{NOTHING} empties a field.",
    )
