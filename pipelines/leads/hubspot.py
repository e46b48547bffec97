"""Leads as HubSpot's import takes them: contacts by their subscriber id, and the properties to put them in.

What enters: leads in rank order. What leaves: a directory with ``contacts-001.csv``…, ``properties.json`` (a body for
HubSpot's endpoint that creates properties in one go) and ``README.txt``. The promise: every file is within HubSpot's
documented limits, and importing the same file twice changes nothing.

HubSpot's limits are those of "Set up import files" (knowledge.hubspot.com, as of October 2025) for paid accounts; a free
account takes 20 MB a file, some 40,000 leads. Moments are milliseconds since 1970, which its date-and-time properties
take whatever an account's language is.

An empty cell leaves a property as it is. So where there is nothing to say, our texts say "none", or last week's reason
would stand beside this week's score. A number, a moment and a yes or no cannot be emptied by an import: ``README.txt``
names those that may be of an earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.churn import BANDS
from pipelines.leads.crm import KEY, Field, Layout, field_names, plain, readme, write_parts
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
NOTHING = "none"

_CHOICES: dict[str, Sequence[str]] = {
    "grade": GRADES,
    "grade_before": (*GRADES, NOTHING),
    "movement": (*MOVEMENTS, NOTHING),
    "churn_band": (*BANDS, NOTHING),
}
_SAYS_NOTHING = ("grade_before", "movement", "change_reason", "reasons_for", "reasons_against", "churn_band")
_STAYS = (
    "score_before",
    "score_change",
    "churn_probability",
    "recommended_send_at",
    "send_time_clear",
    "last_engagement_at",
    "data_age_hours",
)
"""What may be empty and is no text."""
_LAYOUT = Layout(
    stem="contacts",
    rows_per_file=ROWS_PER_FILE,
    bytes_per_file=BYTES_PER_FILE,
    moments=lambda moments: pc.multiply(whole_seconds(moments).cast(pa.int64()), 1000).cast(pa.string()),
    shares=lambda probability: pc.round(probability, 6),
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
    names = field_names(columns, lambda words: "_".join(["inbox", *words]).lower(), NAME_LIMIT)
    return [_field(column, name) for column, name in zip(columns, names, strict=True)][:COLUMNS_PER_FILE]


def _field(column: ExportColumn, name: str) -> Field:
    label = plain(f"Inbox {column.name.replace('_', ' ')}", NAME_LIMIT)
    texts = column.kind in (Kind.TEXT, Kind.REASONS)
    nothing = NOTHING if column.name in _SAYS_NOTHING else ""
    return Field(column, name, label, TEXT_LIMIT if texts else None, _shown_as(column)[1] == "textarea", nothing)


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
        "description": field.column.meaning + (f" Here “{field.nothing}” stands for empty." if field.nothing else ""),
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
        f"“{NOTHING}” stands for an empty text, because an import leaves a property as it is where a cell is empty. So "
        f"what is no text may be of an earlier import: {', '.join(_STAYS)}; and so may your own attributes. score_before "
        f"and score_change mean something only where movement is neither new nor {NOTHING}.",
    )
