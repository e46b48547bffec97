"""Leads as HubSpot's import takes them: contacts by their subscriber id, and the properties to put them in.

What enters: leads in rank order. What leaves: a directory with ``contacts-001.csv``…, ``properties.json`` (a body for
HubSpot's endpoint that creates properties in one go) and ``README.txt``. The promise: every file is within HubSpot's
documented limits, and importing the same file twice changes nothing.

HubSpot's limits are those of "Set up import files" (knowledge.hubspot.com, as of October 2025) for paid accounts; a free
account takes 20 MB a file, some 40,000 leads. Moments are milliseconds since 1970, which its date-and-time properties
take whatever an account's language is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.churn import BANDS
from pipelines.leads.crm import KEY, Field, Layout, distinct_names, plain, readme, words_of, write_parts
from pipelines.leads.tally import Leads
from serving.leads.book import MOVEMENTS
from serving.leads.cells import whole_seconds
from serving.leads.columns import GRADES, ExportColumn, Kind

FILES = r"contacts-\d{3,}\.csv|properties\.json|README\.txt"
ROWS_PER_FILE = 1_048_575
"""HubSpot takes 1,048,576 rows a file; one is the header."""
BYTES_PER_FILE = 500_000_000
COLUMNS_PER_FILE = 999
TEXT_LIMIT = 65_536
NAME_LIMIT = 100

_CHOICES: dict[str, Sequence[str]] = {
    "grade": GRADES,
    "grade_before": GRADES,
    "movement": MOVEMENTS,
    "churn_band": BANDS,
}
_LAYOUT = Layout(
    stem="contacts",
    rows_per_file=ROWS_PER_FILE,
    bytes_per_file=BYTES_PER_FILE,
    moments=lambda moments: pc.multiply(whole_seconds(moments).cast(pa.int64()), 1000).cast(pa.string()),
    shares=lambda probability: pc.round(probability, 6),
    empty="",
)


def write_hubspot(leads: Leads, directory: Path) -> None:
    fields = _fields(leads.columns)
    parts = write_parts(leads, directory, fields, _LAYOUT)
    properties = {"inputs": [_property(field) for field in fields]}
    (directory / "properties.json").write_text(json.dumps(properties, indent=1, ensure_ascii=False) + "\n", "utf-8")
    opening = f"Lead scores for HubSpot: contacts-001.csv to contacts-{parts:03d}.csv."
    words = readme(leads, opening, len(leads.columns) - len(fields), _steps(fields[0].name))
    (directory / "README.txt").write_text(words, "utf-8")


def _fields(columns: Sequence[ExportColumn]) -> list[Field]:
    taken = columns[:COLUMNS_PER_FILE]
    names = distinct_names(["_".join(["inbox", *words_of(column.name)]).lower() for column in taken], NAME_LIMIT)
    return [_field(column, name) for column, name in zip(taken, names, strict=True)]


def _field(column: ExportColumn, name: str) -> Field:
    label = plain(f"Inbox {column.name.replace('_', ' ')}", NAME_LIMIT)
    texts = column.kind in (Kind.TEXT, Kind.REASONS)
    return Field(column, name, label, TEXT_LIMIT if texts else None, lines=_shown_as(column)[1] == "textarea")


def _shown_as(column: ExportColumn) -> tuple[str, str]:
    """HubSpot's type of the values and of the field that shows them."""
    if column.name in _CHOICES:
        return "enumeration", "select"
    match column.kind:
        case Kind.TEXT:
            return "string", "textarea" if column.name.startswith("profile_") or column.width > 40 else "text"
        case Kind.REASONS:
            return "string", "textarea"
        case Kind.MOMENT:
            return "datetime", "date"
        case Kind.YES_NO:
            return "bool", "booleancheckbox"
        case _:
            return "number", "number"


def _property(field: Field) -> dict[str, Any]:
    type, shown = _shown_as(field.column)
    made: dict[str, Any] = {
        "name": field.name,
        "label": field.label,
        "type": type,
        "fieldType": shown,
        "groupName": "contactinformation",
        "description": field.column.meaning,
        "hasUniqueValue": field.column.name == KEY,
    }
    if type == "bool":
        made["options"] = _options(("true", "false"), ("Yes", "No"))
    elif type == "enumeration":
        made["options"] = _options(_CHOICES[field.column.name])
    elif field.column.kind is Kind.PROBABILITY:
        made["numberDisplayHint"] = "percentage"
    return made


def _options(values: Sequence[str], labels: Sequence[str] = ()) -> list[dict[str, Any]]:
    named = zip(values, labels or values, strict=True)
    return [
        {"value": value, "label": label, "displayOrder": place, "hidden": False}
        for place, (value, label) in enumerate(named)
    ]


def _steps(key: str) -> tuple[str, ...]:
    return (
        "Once: create the properties, with the body properties.json at POST /crm/v3/properties/contacts/batch/create, and "
        f"store in {key} of each contact the identifier by which your list knows it: export identifiers and addresses from "
        "your own list and import them, matched by email. These files hold no addresses.",
        "Then each time: Contacts > Import, file from computer, contacts, update existing contacts only; choose "
        f"{key} as the unique identifier. The other columns find their properties by name.",
    )
