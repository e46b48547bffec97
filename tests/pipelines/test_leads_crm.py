"""The layouts for HubSpot and Salesforce, held against what those document, by readers that are not ours."""

from __future__ import annotations

import csv
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import UnusableOption
from features.home import Home
from models.churn import BANDS
from pipelines.leads import hubspot, salesforce
from pipelines.leads.book import lead_book
from pipelines.leads.crm import CUT_MARK, Layout, field_names
from pipelines.leads.files import ExportSummary, write_leads
from pipelines.leads.selection import Selection
from serving.leads.book import BOOK_SCHEMA, Book
from serving.leads.columns import COLUMNS, ExportColumn, Kind, columns_of
from tests.pipelines.lead_books import NOW, book_of, lead

SOAP = "{http://soap.sforce.com/2006/04/metadata}"
OWN = {"note": pa.string(), "age": pa.int64(), "spent": pa.float64()}
NOTHING: dict[str, Any] = {"profile_note": None, "profile_age": None, "profile_spent": None}
DOCUMENT = Path(__file__).parents[2] / "docs" / "exports.md"
both = pytest.mark.parametrize("crm", ["hubspot", "salesforce"])


def written(directory: Path, crm: Any, book: Book) -> tuple[ExportSummary, list[dict[str, str]]]:
    """What an export says of itself, and the rows of all its parts."""
    summary = write_leads(book, Selection(), directory / crm, crm)
    return summary, rows_of(directory / crm)


def rows_of(directory: Path) -> list[dict[str, str]]:
    csv.field_size_limit(200_000)
    rows = []
    for path in sorted(directory.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


def properties(directory: Path) -> dict[str, dict[str, Any]]:
    inputs = json.loads((directory / "hubspot" / "properties.json").read_text("utf-8"))["inputs"]
    return {made["name"]: made for made in inputs}


def fields(directory: Path) -> dict[str, dict[str, str]]:
    root = ElementTree.parse(directory / "salesforce" / "metadata" / "objects" / "Lead.object").getroot()
    found = [{node.tag.removeprefix(SOAP): node.text or "" for node in field} for field in root.iter(f"{SOAP}fields")]
    return {field["fullName"]: field for field in found}


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def fits_hubspot(value: str, made: dict[str, Any]) -> bool:
    """Whether HubSpot's property takes a value of the file."""
    if value == "":
        return not made["hasUniqueValue"]
    match made["type"]:
        case "string":
            return units(value) <= 65_536 and (made["fieldType"] == "textarea" or "\n" not in value)
        case "number":
            return re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value) is not None
        case "datetime":
            return datetime.fromtimestamp(int(value) / 1000, UTC).year in range(2000, 2100)
        case _:
            return value in {option["value"] for option in made["options"]}


def fits_salesforce(value: str, field: dict[str, str]) -> bool:
    """Whether Salesforce's field takes a value of the file."""
    if value == "#N/A":
        return field.get("externalId") != "true" and field["type"] != "Checkbox"
    match field["type"]:
        case "Text" | "LongTextArea":
            return 0 <= units(value) <= min(int(field["length"]), 32_000) and (
                field["type"] != "Text" or "\n" not in value
            )
        case "Checkbox":
            return value in ("true", "false")
        case "DateTime":
            return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", value) is not None
        case _:
            digits, scale = int(field["precision"]), int(field["scale"])
            whole, _, part = f"{float(value):f}".rstrip("0").partition(".")
            return len(whole.lstrip("-")) <= digits - scale and len(part) <= scale


UNKNOWN: dict[str, Any] = dict.fromkeys(("churn_band", "movement", "grade_before", "score_before", "score_change"))
ODD = [
    lead("a", 97) | {"profile_note": "=1+1", "profile_age": 44, "profile_spent": 12.5},
    lead("+b") | {"profile_note": "x" * 40_000, "profile_age": 4_915_112_345_678, "profile_spent": 1.7e308},
    lead("😀 שלום") | {"profile_note": 'line\r\nbreak, "quoted"; =1', "profile_age": -3, "profile_spent": float("nan")},
    lead("s", **UNKNOWN) | NOTHING,
    lead("e", reasons_for=["😀" * 20_000], reasons_against=[], change_reason=None, last_engagement_at=None) | NOTHING,
    lead("c", churn_probability=None, send_time_confident=None, recommended_send_at=None) | NOTHING,
]


def test_every_value_fits_the_property_that_is_defined_for_it_in_hubspot(tmp_path: Path) -> None:
    _, rows = written(tmp_path, "hubspot", book_of(tmp_path, *ODD, attributes=OWN))
    made = properties(tmp_path)
    assert len(rows) == len(ODD)
    for row in rows:
        assert list(row) == list(made)
        assert [name for name, value in row.items() if not fits_hubspot(value, made[name])] == []


def test_every_value_fits_the_field_that_is_defined_for_it_in_salesforce(tmp_path: Path) -> None:
    _, rows = written(tmp_path, "salesforce", book_of(tmp_path, *ODD, attributes=OWN))
    made = fields(tmp_path)
    assert len(rows) == len(ODD)
    for row in rows:
        assert list(row) == list(made)
        assert [name for name, value in row.items() if not fits_salesforce(value, made[name])] == []


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    note=st.none() | st.text(max_size=300),
    age=st.none() | st.integers(-(2**63), 2**63 - 1),
    spent=st.none() | st.floats(),
)
def test_whatever_an_attribute_is_it_fits(
    tmp_path: Path, note: str | None, age: int | None, spent: float | None
) -> None:
    row = lead("a") | {"profile_note": note, "profile_age": age, "profile_spent": spent}
    book = book_of(tmp_path, row, attributes=OWN)
    (in_hubspot,), (in_salesforce,) = written(tmp_path, "hubspot", book)[1], written(tmp_path, "salesforce", book)[1]
    made, defined = properties(tmp_path), fields(tmp_path)
    assert all(fits_hubspot(value, made[name]) for name, value in in_hubspot.items())
    assert all(fits_salesforce(value, defined[name]) for name, value in in_salesforce.items())


def test_a_real_lists_leads_fit_both_and_are_all_there(tmp_path: Path, small_home: Home) -> None:
    home = Home(tmp_path / "home")
    shutil.copytree(small_home.root, home.root)
    book = lead_book(home, lambda share: None)
    in_hubspot, in_salesforce = written(tmp_path, "hubspot", book)[1], written(tmp_path, "salesforce", book)[1]
    made, defined = properties(tmp_path), fields(tmp_path)
    assert len(in_hubspot) == len(in_salesforce) == book.rows > 100
    assert {row["inbox_subscriber_id"] for row in in_hubspot} == {
        row["Inbox_Subscriber_Id__c"] for row in in_salesforce
    }
    assert all(fits_hubspot(value, made[name]) for row in in_hubspot for name, value in row.items())
    assert all(fits_salesforce(value, defined[name]) for row in in_salesforce for name, value in row.items())
    assert "(0 here)" in (tmp_path / "hubspot" / "README.txt").read_text("utf-8")


def test_hubspots_properties_are_ready_for_its_endpoint(tmp_path: Path) -> None:
    written(tmp_path, "hubspot", book_of(tmp_path, *ODD, attributes=OWN))
    made = properties(tmp_path)
    assert [name for name, one in made.items() if one["hasUniqueValue"]] == ["inbox_subscriber_id"]
    assert all(re.fullmatch("[a-z][a-z0-9_]{0,99}", name) for name in made)
    kinds = {(one["type"], one["fieldType"]) for one in made.values()}
    assert kinds == {
        ("string", "text"),
        ("string", "textarea"),
        ("number", "number"),
        ("datetime", "date"),
        ("enumeration", "select"),
        ("bool", "booleancheckbox"),
    }
    assert [option["value"] for option in made["inbox_churn_band"]["options"]] == [*BANDS, "none"]
    assert made["inbox_probability"]["numberDisplayHint"] == "percentage"
    assert made["inbox_score"]["description"] == next(one.meaning for one in COLUMNS if one.name == "score")


def test_salesforces_fields_are_a_package_for_its_metadata_api(tmp_path: Path) -> None:
    written(tmp_path, "salesforce", book_of(tmp_path, *ODD, attributes=OWN))
    made = fields(tmp_path)
    package = ElementTree.parse(tmp_path / "salesforce" / "metadata" / "package.xml").getroot()
    assert [node.text for node in package.iter(f"{SOAP}members")] == [f"Lead.{name}" for name in made]
    assert all(re.fullmatch("(?!.*__.*__)[A-Za-z][A-Za-z0-9_]{0,39}(?<!_)__c", name) for name in made)
    assert all(0 < len(field["label"]) <= 40 and len(field["description"]) <= 1_000 for field in made.values())
    keys = [name for name, field in made.items() if field.get("externalId") == "true"]
    assert keys == ["Inbox_Subscriber_Id__c"]
    assert (made[keys[0]]["unique"], made[keys[0]]["caseSensitive"]) == ("true", "true")
    assert made["Inbox_Probability__c"]["type"] == "Percent"


def test_values_are_in_each_crms_own_form(tmp_path: Path) -> None:
    book = book_of(tmp_path, lead("a", 97), lead("b", change_reason=None))
    (hub, _), (force, other) = written(tmp_path, "hubspot", book)[1], written(tmp_path, "salesforce", book)[1]
    assert (hub["inbox_probability"], force["Inbox_Probability__c"]) == ("0.485", "48.5")
    assert int(hub["inbox_scored_at"]) == int(NOW.timestamp()) * 1000
    assert force["Inbox_Scored_At__c"] == "2026-11-23T08:15:02.000Z"
    assert (hub["inbox_send_time_clear"], force["Inbox_Send_Time_Clear__c"]) == ("true", "true")
    # An update leaves a field alone where the value is empty, so what is no longer so is said.
    assert other["Inbox_Change_Reason__c"] == "#N/A"


def test_reasons_that_are_gone_do_not_stay_in_either_crm(tmp_path: Path) -> None:
    gone: dict[str, Any] = dict.fromkeys(("grade_before", "movement", "change_reason", "churn_band"))
    book = book_of(tmp_path, lead("a", reasons_for=[], reasons_against=None, **gone))
    (hub,), (force,) = written(tmp_path, "hubspot", book)[1], written(tmp_path, "salesforce", book)[1]
    for name in ("reasons_for", "reasons_against", *gone):
        # HubSpot leaves a property as it is where a cell is empty, so a word stands for nothing.
        assert hub[f"inbox_{name}"] == "none"
        assert force[f"Inbox_{name.title()}__c"] == "#N/A"
    made = properties(tmp_path)
    assert "“none” stands for empty" in made["inbox_reasons_for"]["description"]
    assert "“none” stands for empty" not in made["inbox_status"]["description"]


def test_a_blank_text_empties_salesforces_field_and_leaves_hubspots_as_it_is(tmp_path: Path) -> None:
    rows = [lead(str(number)) | {"profile_note": note} for number, note in enumerate(("", "  ", "\n", None))]
    book = book_of(tmp_path, *rows, attributes={"note": pa.string()})
    assert {row["Inbox_Profile_Note__c"] for row in written(tmp_path, "salesforce", book)[1]} == {"#N/A"}
    assert {row["inbox_profile_note"].strip() for row in written(tmp_path, "hubspot", book)[1]} == {""}


def test_what_hubspot_cannot_clear_is_named_in_its_readme_and_in_the_document(tmp_path: Path) -> None:
    never = {"subscriber_id", "score", "grade", "probability", "percentile", "status", "model_version", "scored_at"}
    unknown: dict[str, Any] = dict.fromkeys({field.name for field in BOOK_SCHEMA} - never - {"rank"})
    book = book_of(tmp_path, lead("a", **unknown) | {"profile_note": None}, attributes={"note": pa.string()})
    (row,) = written(tmp_path, "hubspot", book)[1]
    left = [name.removeprefix("inbox_") for name, value in row.items() if value == ""]
    assert left[-1] == "profile_note"
    _, _, document = DOCUMENT.read_text("utf-8").partition("\n## HubSpot\n")
    said = " ".join((tmp_path / "hubspot" / "README.txt").read_text("utf-8").split())
    for name in left[:-1]:
        assert name in said
        assert f"`{name}`" in document.partition("\n## ")[0]


ODD_NAMES = ["国家", "城市", "größe", "gr e", "revenue (€)", "plan type", "plan-type", "Job", "job", "__", "y" * 200]


@both
def test_a_field_means_the_same_attribute_whatever_else_the_list_has_and_in_which_order(
    tmp_path: Path, crm: str
) -> None:
    def named(*names: str) -> dict[str, str]:
        told = {f"profile_{name}": name for name in names}
        book = book_of(tmp_path, lead("a") | told, attributes=dict.fromkeys(names, pa.string()))
        (row,) = written(tmp_path, crm, book)[1]
        return {value: field for field, value in row.items() if value in told.values()}

    together = named(*ODD_NAMES)
    assert len(set(map(str.lower, together.values()))) == len(together) == len(ODD_NAMES)
    assert named(*reversed(together)) == together
    for name in ("国家", "城市", "größe", "gr e", "revenue (€)", "__", "y" * 200):
        assert named(name) == {name: together[name]}
    assert named("job")["job"].removesuffix("__c").lower() == "inbox_profile_job"


def test_a_field_with_a_mark_is_nobody_elses(tmp_path: Path) -> None:
    marked = field_names([attribute("国家")], "_".join, 100)[0].removeprefix("profile_")
    assert re.fullmatch("[0-9a-f]{8}", marked)
    assert field_names([attribute(marked)], "_".join, 100) != [f"profile_{marked}"]


def attribute(name: str) -> ExportColumn:
    return columns_of(pa.schema([(f"profile_{name}", pa.string())]))[-1]


def test_an_attribute_that_says_what_empties_a_field_does_not(tmp_path: Path) -> None:
    rows = [lead(f"s{number}") | {"profile_note": note} for number, note in enumerate(("#N/A", " #n/a ", "#N/A, #1"))]
    book = book_of(tmp_path, *rows, attributes={"note": pa.string()})
    summary, found = written(tmp_path, "salesforce", book)
    assert [row["Inbox_Profile_Note__c"] for row in found] == ["N/A", "N/A", "#N/A, #1"]
    assert summary.cut_texts == 2
    assert "Changed: 2 values" in (tmp_path / "salesforce" / "README.txt").read_text("utf-8")
    summary, found = written(tmp_path, "hubspot", book)
    assert [row["inbox_profile_note"] for row in found] == ["#N/A", " #n/a ", "#N/A, #1"]
    assert summary.cut_texts == 0


def test_yes_or_no_is_not_said_where_it_is_not_known(tmp_path: Path) -> None:
    without = book_of(tmp_path / "without", lead("a", send_time_confident=None))
    (hub,), (force,) = written(tmp_path, "hubspot", without)[1], written(tmp_path, "salesforce", without)[1]
    assert hub["inbox_send_time_clear"] == ""
    # A checkbox cannot be empty.
    assert "Inbox_Send_Time_Clear__c" not in {*force, *fields(tmp_path)}
    assert "Left out" not in (tmp_path / "salesforce" / "README.txt").read_text("utf-8")
    partly = book_of(tmp_path / "partly", lead("a", send_time_confident=True), lead("b", send_time_confident=None))
    found = written(tmp_path, "salesforce", partly)[1]
    assert [row["Inbox_Send_Time_Clear__c"] for row in found] == ["true", "false"]


@both
def test_texts_are_as_they_came_so_that_identifiers_match_and_the_readme_warns(tmp_path: Path, crm: str) -> None:
    rows = [lead("=1+1") | {"profile_note": "+49 30"}, lead("@b") | {"profile_note": "plain"}]
    _, found = written(tmp_path, crm, book_of(tmp_path, *rows, attributes={"note": pa.string()}))
    assert [next(iter(row.values())) for row in found] == ["=1+1", "@b"]
    assert [list(row.values())[-1] for row in found] == ["+49 30", "plain"]
    assert "(3 here)" in (tmp_path / crm / "README.txt").read_text("utf-8")


@both
def test_our_own_texts_never_start_what_a_spreadsheet_runs(tmp_path: Path, crm: str) -> None:
    _, rows = written(
        tmp_path, crm, book_of(tmp_path, *(row for row in ODD if row["subscriber_id"] != "+b"), attributes=OWN)
    )
    own = {column.name for column in COLUMNS if column.kind in (Kind.TEXT, Kind.REASONS)} - {"subscriber_id"}
    for row in rows:
        texts = [value for name, value in row.items() if re.sub("(?i)inbox_|__c", "", name).lower() in own]
        assert len(texts) == len(own)
        assert not any(text.startswith(("=", "+", "-", "@", "\t", "\r")) for text in texts)


@both
def test_what_is_too_long_is_cut_marked_and_counted(tmp_path: Path, crm: str) -> None:
    rows = [lead("a") | {"profile_note": "x" * 70_000}, lead("b") | {"profile_note": "short"}]
    summary, found = written(tmp_path, crm, book_of(tmp_path, *rows, attributes={"note": pa.string()}))
    note = list(found[0].values())[-1]
    assert note.endswith(CUT_MARK)
    assert units(note) == (hubspot.TEXT_LIMIT if crm == "hubspot" else salesforce.TEXT_LIMIT)
    assert (summary.cut_texts, summary.rows) == (1, 2)
    assert "Changed: 1 values" in (tmp_path / crm / "README.txt").read_text("utf-8")


def test_a_lead_whose_identifier_does_not_fit_is_left_out_and_counted_not_cut(tmp_path: Path) -> None:
    book = book_of(tmp_path, lead("x" * 256), lead("y" * 255), lead("😀" * 128))
    summary, rows = written(tmp_path, "salesforce", book)
    assert [row["Inbox_Subscriber_Id__c"] for row in rows] == ["y" * 255]
    assert (summary.rows, summary.unkeyed) == (1, 2)
    assert "Left out: 2 leads" in (tmp_path / "salesforce" / "README.txt").read_text("utf-8")
    with pytest.raises(UnusableOption, match="longer than the 255 characters"):
        written(tmp_path / "none", "salesforce", book_of(tmp_path, lead("x" * 256)))


@both
def test_files_are_split_at_the_importers_limits(tmp_path: Path, crm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"hubspot": hubspot, "salesforce": salesforce}[crm]
    layout: Layout = module._LAYOUT
    book = book_of(tmp_path, *(lead(f"s{i:03d}") for i in range(25)))
    whole = written(tmp_path, crm, book)[1]
    monkeypatch.setattr(module, "_LAYOUT", layout.__class__(**{**vars(layout), "rows_per_file": 10}))
    assert written(tmp_path, crm, book)[1] == whole
    parts = sorted(path.name for path in (tmp_path / crm).glob("*.csv"))
    assert parts == [f"{layout.stem}-{number:03d}.csv" for number in (1, 2, 3)]
    assert [len(rows_of_one(tmp_path / crm / part)) for part in parts] == [10, 10, 5]
    assert parts[-1] in (tmp_path / crm / "README.txt").read_text("utf-8")


def rows_of_one(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_is_split_by_size_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.leads.tally.PIECE_ROWS", 5)
    smaller = salesforce._LAYOUT.__class__(**{**vars(salesforce._LAYOUT), "bytes_per_file": 4_000})
    monkeypatch.setattr(salesforce, "_LAYOUT", smaller)
    written(tmp_path, "salesforce", book_of(tmp_path, *(lead(f"s{i:03d}") for i in range(25))))
    parts = sorted((tmp_path / "salesforce").glob("*.csv"))
    assert len(parts) > 1
    assert all(path.stat().st_size <= 4_000 for path in parts)
    assert len(rows_of(tmp_path / "salesforce")) == 25


def test_the_limits_are_within_what_the_vendors_document() -> None:
    assert hubspot.ROWS_PER_FILE + 1 <= 1_048_576
    assert hubspot.BYTES_PER_FILE <= 512_000_000
    assert hubspot.COLUMNS_PER_FILE < 1_000
    assert salesforce.ROWS_PER_FILE <= 50_000
    assert salesforce.BYTES_PER_FILE <= 100_000_000
    assert salesforce.COLUMNS_PER_FILE <= 90
    assert salesforce.LONG_TEXT_LIMIT <= 32_000


@both
def test_many_attributes_are_taken_as_far_as_the_importer_takes_them(tmp_path: Path, crm: str) -> None:
    names = [f"{'very ' * (i % 12)}long Attribute, no. {i // 2}" for i in range(1_100)]
    book = book_of(tmp_path, lead("a"), attributes=dict.fromkeys([*names, *map(str.upper, names)], pa.string()))
    _, (row,) = written(tmp_path, crm, book)
    limit = hubspot.COLUMNS_PER_FILE if crm == "hubspot" else salesforce.COLUMNS_PER_FILE
    assert len(COLUMNS) < len(row) <= limit
    assert len({name.lower() for name in row}) == len(row)
    assert "attributes of the list; the import takes no more" in (tmp_path / crm / "README.txt").read_text("utf-8")
    if crm == "salesforce":
        assert sum(map(len, row)) <= salesforce.NAMES_LIMIT


@pytest.mark.parametrize("name", ["a\x01b\nc", "<b> & ]]>", "größe", "שלום", "😀", "=1+1", "__", "9 lives", "x" * 300])
def test_an_attribute_may_be_called_anything(tmp_path: Path, name: str) -> None:
    book = book_of(tmp_path, lead("a") | {f"profile_{name}": "told"}, attributes={name: pa.string()})
    for crm in ("hubspot", "salesforce"):
        (row,) = written(tmp_path, crm, book)[1]
        assert list(row.values())[-1] == "told"
    made, defined = list(properties(tmp_path).values())[-1], list(fields(tmp_path).values())[-1]
    assert re.fullmatch("inbox_profile[a-z0-9_]{0,87}", made["name"])
    assert re.fullmatch("Inbox_Profile[A-Za-z0-9_]{0,27}(?<!_)__c", defined["fullName"])
    assert 0 < len(defined["label"]) <= 40


@both
def test_importers_find_the_first_name_and_their_line_ends(tmp_path: Path, crm: str) -> None:
    written(tmp_path, crm, book_of(tmp_path, lead("a")))
    content = next((tmp_path / crm).glob("*-001.csv")).read_bytes()
    assert content.lower().startswith(b"inbox_subscriber_id")
    assert b"\r" not in content
    assert content.endswith(b"\n")


@both
def test_simulated_people_are_not_to_be_imported(tmp_path: Path, crm: str) -> None:
    written(tmp_path / "made up", crm, book_of(tmp_path, lead("a")))
    written(tmp_path / "real", crm, book_of(tmp_path, lead("a"), simulated="false"))
    assert "Do not import them" in (tmp_path / "made up" / crm / "README.txt").read_text("utf-8")
    assert "SIMULATED" not in (tmp_path / "real" / crm / "README.txt").read_text("utf-8")


@both
def test_fewer_leads_than_before_leave_no_part_of_the_last_export(
    tmp_path: Path, crm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"hubspot": hubspot, "salesforce": salesforce}[crm]
    monkeypatch.setattr(module, "_LAYOUT", module._LAYOUT.__class__(**{**vars(module._LAYOUT), "rows_per_file": 1}))
    written(tmp_path, crm, book_of(tmp_path, lead("a"), lead("b")))
    _, rows = written(tmp_path, crm, book_of(tmp_path, lead("a")))
    assert len(rows) == 1


@both
def test_a_directory_with_somebody_elses_file_is_not_replaced(tmp_path: Path, crm: str) -> None:
    (tmp_path / crm).mkdir()
    (tmp_path / crm / "my notes.txt").write_text("mine")
    with pytest.raises(UnusableOption, match=r"holds my notes\.txt, which is no file of this export"):
        written(tmp_path, crm, book_of(tmp_path / "books", lead("a")))
    assert (tmp_path / crm / "my notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["books", crm]


@both
def test_a_file_where_the_directory_should_be_is_named(tmp_path: Path, crm: str) -> None:
    (tmp_path / crm).write_text("mine")
    with pytest.raises(UnusableOption, match=f"{crm} could not be written"):
        written(tmp_path, crm, book_of(tmp_path / "books", lead("a")))
    assert (tmp_path / crm).read_text() == "mine"
