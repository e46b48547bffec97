"""Leads as files for people and programs: what is in them, what a spreadsheet makes of them, what is left when it fails."""

from __future__ import annotations

import csv
import os
import re
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import UnusableOption
from pipelines.leads import hubspot, salesforce, tally, xlsx
from pipelines.leads.files import FORMATS, NAMES, ExportFormat, write_leads
from pipelines.leads.selection import Selection
from pipelines.leads.xlsx import CUT_MARK, EXCEL_ROW_LIMIT, EXCEL_TEXT_LIMIT
from serving.leads.book import Book
from serving.leads.columns import COLUMNS, SCHEMA_VERSION
from tests.pipelines.lead_books import BEFORE, NAME, NOW, book_of, lead

EVERYBODY = Selection()
FILES: tuple[ExportFormat, ...] = ("csv", "xlsx", "parquet")
DOCUMENT = Path(__file__).parents[2] / "docs" / "exports.md"
every_format = pytest.mark.parametrize("format", FORMATS)
every_file = pytest.mark.parametrize("format", FILES)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def sheet_of(path: Path, sheet: str = "Leads") -> list[tuple[Any, ...]]:
    with path.open("rb") as file:
        return list(openpyxl.load_workbook(file)[sheet].iter_rows(values_only=True))


def told(path: Path) -> dict[Any, tuple[Any, ...]]:
    """The rows of the summary by their first cell; where one comes twice, the first."""
    rows = [tuple(cell for cell in row if cell is not None) for row in sheet_of(path, "Summary")]
    return {row[0]: row[1:] for row in reversed(rows) if row}


def everything(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files of a directory."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}


def unescaped(text: str) -> str:
    """A spreadsheet undoes the escapes of control characters; openpyxl leaves that to its user."""
    return str(openpyxl.utils.escape.unescape(text))


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return book_of(tmp_path / "books", lead("first", 97), lead("second", 50), lead("third", 3))


@every_file
def test_rows_stand_in_the_books_order(tmp_path: Path, book: Book, format: ExportFormat) -> None:
    out = tmp_path / NAMES[format]
    summary = write_leads(book, EVERYBODY, out, format)
    match format:
        case "csv":
            ids = [row["subscriber_id"] for row in read_csv(out)]
        case "xlsx":
            ids = [row[0] for row in sheet_of(out)[1:]]
        case _:
            ids = pq.read_table(out)["subscriber_id"].to_pylist()
    assert ids == ["first", "second", "third"]
    assert (summary.rows, summary.grades) == (3, {"A": 1, "B": 0, "C": 2, "D": 0, "E": 0})
    assert summary.expected_conversions == pytest.approx(0.75)


@every_format
def test_the_same_leads_give_the_same_bytes(
    tmp_path: Path, book: Book, format: ExportFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_leads(book, EVERYBODY, tmp_path / "one" / "out", format)
    # A day later, by a clock elsewhere.
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.utime(book.path, (0, 0))
    write_leads(book, EVERYBODY, tmp_path / "two" / "out", format)
    assert everything(tmp_path / "one" / "out") == everything(tmp_path / "two" / "out")


@every_format
def test_pieces_of_any_size_hold_the_same_rows(
    tmp_path: Path, format: ExportFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = book_of(tmp_path / "books", *(lead(f"s{i:03d}", 99 - i) for i in range(60)))
    write_leads(many, EVERYBODY, tmp_path / "one" / "out", format)
    monkeypatch.setattr(tally, "PIECE_ROWS", 7)
    write_leads(many, EVERYBODY, tmp_path / "two" / "out", format)
    if format == "parquet":
        assert pq.read_table(tmp_path / "one" / "out").equals(pq.read_table(tmp_path / "two" / "out"))
    elif format == "xlsx":
        assert sheet_of(tmp_path / "one" / "out") == sheet_of(tmp_path / "two" / "out")
    else:
        assert everything(tmp_path / "one" / "out") == everything(tmp_path / "two" / "out")


@every_format
def test_only_the_chosen_are_written_and_the_summary_says_who(tmp_path: Path, book: Book, format: ExportFormat) -> None:
    summary = write_leads(book, Selection(grades=("A",)), tmp_path / "out", format)
    assert summary.rows == 1
    assert not any(b"second" in content for name, content in everything(tmp_path / "out").items() if "csv" in name)
    if format == "xlsx":
        facts = told(tmp_path / "out")
        assert (facts["Leads in this file"], facts["Leads in the whole list"]) == ((1,), (3,))
        assert facts["What this is"] == ("The leads of the list, best first: grade A.",)
        assert facts["Not chosen"][0] == 2


def test_csv_cells_are_in_the_words_and_units_documented(tmp_path: Path) -> None:
    book = book_of(tmp_path, lead("a", 97, age=44) | {"profile_age": 44}, attributes={"age": pa.int64()})
    write_leads(book, EVERYBODY, tmp_path / "leads.csv", "csv")
    assert read_csv(tmp_path / "leads.csv") == [
        {
            "subscriber_id": "a",
            "rank": "1",
            "score": "97",
            "grade": "A",
            "probability": "0.485",
            "percentile": "97",
            "score_before": "94",
            "score_change": "3",
            "grade_before": "C",
            "movement": "up",
            "change_reason": "engaged again, last on 20 Nov 2026",
            "reasons_for": "last click 3 days ago; opened about 8 in 10 emails of late",
            "reasons_against": "no purchase so far",
            "churn_band": "low",
            "churn_probability": "0.125",
            "recommended_send_at": "2026-11-23T17:15:02Z",
            "send_time_clear": "yes",
            "last_engagement_at": "2026-11-20T08:15:02Z",
            "data_age_hours": "1.5",
            "status": "ok",
            "model_version": "4",
            "scored_at": "2026-11-23T08:15:02Z",
            "schema_version": "2",
            "profile_age": "44",
        }
    ]


def test_parquet_keeps_every_value_and_type_as_it_came(tmp_path: Path) -> None:
    text = "=1+1\x00;\t" + "x" * 40_000
    row = lead("=1+1", probability=1 / 3, change_reason=None) | {"profile_note": text}
    book = book_of(tmp_path, row, attributes={"note": pa.string()})
    write_leads(book, EVERYBODY, tmp_path / "leads.parquet", "parquet")
    table = pq.read_table(tmp_path / "leads.parquet")
    assert table.to_pylist()[0]["subscriber_id"] == "=1+1"
    assert table["probability"].to_pylist() == [1 / 3]
    assert table["scored_at"].to_pylist() == [NOW]
    assert table["reasons_for"].to_pylist() == [["last click 3 days ago", "opened about 8 in 10 emails of late"]]
    assert table["profile_note"].to_pylist() == [text]
    assert table["change_reason"].to_pylist() == [None]
    assert table["score"].type == pa.int32()
    said = {key.decode(): fact.decode() for key, fact in table.schema.metadata.items()}
    assert (said["inbox.simulated"], said["inbox.schema_version"]) == ("true", "2")
    assert (said["inbox.book_id"], said["inbox.previous_book_id"]) == (NAME, BEFORE)


# --- the workbook


LIVE_CELLS = ["=1+1", "+49 30 1234", "-5", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", "  =1+1"]


@pytest.mark.parametrize("text", LIVE_CELLS)
def test_xlsx_text_stays_text_even_after_somebody_edits_the_cell(tmp_path: Path, text: str) -> None:
    write_leads(book_of(tmp_path, lead(text)), EVERYBODY, tmp_path / "leads.xlsx", "xlsx")
    cell = openpyxl.load_workbook(tmp_path / "leads.xlsx")["Leads"]["A2"]
    assert cell.data_type in ("s", "inlineStr")
    assert cell.quotePrefix
    assert unescaped(cell.value) == text


@pytest.mark.parametrize("text", LIVE_CELLS)
def test_csv_text_that_a_spreadsheet_would_run_is_guarded(tmp_path: Path, text: str) -> None:
    write_leads(book_of(tmp_path, lead(text, reasons_for=[text])), EVERYBODY, tmp_path / "leads.csv", "csv")
    row = read_csv(tmp_path / "leads.csv")[0]
    assert row["subscriber_id"].startswith("'")
    assert row["reasons_for"].startswith("'")
    assert row["score_change"] == "3"


@pytest.mark.parametrize(
    "text",
    [
        "😀 lead 👩‍👩‍👧",
        "שלום, ליד",
        "مرحبا\u200f!",
        "line one\nline two\r\nline three",
        'he said "hello", twice',
        "semi;colon\tand tab",
        "<b>&amp;</b>",
        "_x0041_",
        "_x000D_\r",
        " padded ",
        "'quoted",
        "<r>broken & sheet</r>",
        "<r><t>rich</t></r>",
        "https://example.org/a?b=c",
        "]]>",
    ],
)
def test_odd_text_survives_csv_and_xlsx(tmp_path: Path, text: str) -> None:
    book = book_of(tmp_path, lead(text))
    write_leads(book, EVERYBODY, tmp_path / "leads.csv", "csv")
    write_leads(book, EVERYBODY, tmp_path / "leads.xlsx", "xlsx")
    assert read_csv(tmp_path / "leads.csv")[0]["subscriber_id"] == text
    assert unescaped(sheet_of(tmp_path / "leads.xlsx")[1][0]) == text


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=5, unique=True))
def test_a_sheet_opens_and_gives_back_every_text_but_for_unreadable_characters(
    tmp_path: Path, texts: list[str]
) -> None:
    write_leads(book_of(tmp_path, *map(lead, texts)), EVERYBODY, tmp_path / "leads.xlsx", "xlsx")
    cells = [unescaped(row[0]) if row[0] is not None else "" for row in sheet_of(tmp_path / "leads.xlsx")[1:]]
    assert cells == [re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]", "\ufffd", text) for text in texts]


@pytest.mark.parametrize("text", ["x" * 40_000, "😀" * 20_000], ids=["letters", "emoji"])
def test_text_longer_than_an_excel_cell_is_cut_with_a_mark_there_and_nowhere_else(tmp_path: Path, text: str) -> None:
    book = book_of(tmp_path, lead("a") | {"profile_note": text}, lead("b"), attributes={"note": pa.string()})
    summary = write_leads(book, EVERYBODY, tmp_path / "leads.xlsx", "xlsx")
    cell = sheet_of(tmp_path / "leads.xlsx")[1][-1]
    assert summary.cut_texts == 1
    assert told(tmp_path / "leads.xlsx")["Texts cut for Excel"] == (1,)
    assert cell.endswith(CUT_MARK)
    assert len(cell.encode("utf-16-le")) // 2 in (EXCEL_TEXT_LIMIT - 1, EXCEL_TEXT_LIMIT)
    assert write_leads(book, EVERYBODY, tmp_path / "leads.csv", "csv").cut_texts == 0
    csv.field_size_limit(200_000)
    assert read_csv(tmp_path / "leads.csv")[0]["profile_note"] == text


def test_xlsx_is_formatted_as_a_marketer_expects(tmp_path: Path) -> None:
    book = book_of(tmp_path, lead("00017", 97), lead("b", 12, score_change=-7, movement="down"))
    write_leads(book, EVERYBODY, tmp_path / "leads.xlsx", "xlsx")
    workbook = openpyxl.load_workbook(tmp_path / "leads.xlsx")
    sheet = workbook["Leads"]
    cells = {cell.value: sheet.cell(2, cell.column) for cell in sheet[1]}
    assert workbook.sheetnames == ["Leads", "Summary"]
    assert list(cells) == [column.name for column in COLUMNS]
    assert (sheet.freeze_panes, sheet.auto_filter.ref, sheet.dimensions) == ("B2", "A1:W3", "A1:W3")
    assert (sheet.page_setup.orientation, sheet.print_title_rows, sheet.page_setup.fitToHeight) == (
        "landscape",
        "$1:$1",
        0,
    )
    assert (cells["subscriber_id"].value, cells["score"].value, cells["probability"].value) == ("00017", 97, 0.485)
    assert (cells["score"].number_format, cells["probability"].number_format) == ("0", "0.0%")
    assert cells["last_engagement_at"].number_format == "yyyy-mm-dd hh:mm"
    assert cells["last_engagement_at"].value == datetime(2026, 11, 20, 8, 15, 2)
    assert cells["send_time_clear"].value == "yes"
    coloured = {str(area.sqref) for area in sheet.conditional_formatting}
    assert {
        f"{cells[name].column_letter}2:{cells[name].column_letter}3" for name in ("score", "grade", "movement")
    } <= (coloured)
    assert all(sheet.column_dimensions[cells[column.name].column_letter].width > 8 for column in COLUMNS)
    assert (workbook.properties.created, workbook.properties.title) == (datetime(2026, 11, 23, 8, 15, 2), "Lead export")


def test_every_file_of_the_workbook_is_whole_xml_and_nothing_in_it_is_a_formula_or_a_link(
    tmp_path: Path, book: Book
) -> None:
    write_leads(book, EVERYBODY, tmp_path / "leads.xlsx", "xlsx")
    with zipfile.ZipFile(tmp_path / "leads.xlsx") as whole:
        assert whole.testzip() is None
        # Programs that guess a file's type look at the first entry.
        assert whole.namelist()[0] == "[Content_Types].xml"
        trees = {name: ElementTree.fromstring(whole.read(name)) for name in whole.namelist()}
    tags = {node.tag.rpartition("}")[2] for name, tree in trees.items() if "sheet" in name for node in tree.iter()}
    assert "c" in tags
    assert not {"f", "hyperlink"} & tags


def test_the_summary_sheet_says_what_the_file_is_what_changed_and_what_each_column_means(tmp_path: Path) -> None:
    rows = [lead("a", 97), lead("b", 50), lead("c", 12, movement="new", score_before=None, grade_before=None)]
    write_leads(book_of(tmp_path, *rows), EVERYBODY, tmp_path / "leads.xlsx", "xlsx")
    facts = told(tmp_path / "leads.xlsx")
    assert any(str(label).startswith("SIMULATED DATA") for label in facts)
    assert (facts["List"], facts["Leads in this file"], facts["Model version"]) == (("Spring list",), (3,), ("4",))
    assert (facts["No consent"][0], facts["Converted before"][0], facts["No score"][0]) == (12, 40, 3)
    assert facts["All"] == (3, 1, pytest.approx(0.795))
    assert "1 lead changed grade since 16 Nov 2026 (1 up, 0 down), 1 is new, 7 are gone" in facts
    assert facts["last click … days ago"] == (3,)
    assert all(facts[column.name] == (column.meaning,) for column in COLUMNS)
    table = sheet_of(tmp_path / "leads.xlsx", "Summary")
    start = next(place for place, row in enumerate(table) if row[0] == "Grade before")
    assert [row[:6] for row in table[start + 1 : start + 6]] == [
        ("A", 0, 0, 0, 0, 0),
        ("B", 0, 0, 0, 0, 0),
        ("C", 1, 0, 1, 0, 0),
        ("D", 0, 0, 0, 0, 0),
        ("E", 0, 0, 0, 0, 0),
    ]


def test_a_first_export_of_real_data_says_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    none = {"score_before": None, "grade_before": None, "score_change": None, "movement": None, "change_reason": None}
    book = book_of(tmp_path, lead("a", **none), simulated="false", previous_book_id="", list_name="=1+1 & <b>")
    write_leads(book, EVERYBODY, tmp_path / "leads.xlsx", "xlsx")
    facts = told(tmp_path / "leads.xlsx")
    assert "SIMULATED" not in str(facts)
    assert "There is no export before this one to compare with." in facts
    assert facts["List"] == ("=1+1 & <b>",)


def test_values_that_are_missing_are_empty_cells(tmp_path: Path) -> None:
    gone = ("last_engagement_at", "data_age_hours", "reasons_for", "churn_band", "recommended_send_at")
    book = book_of(tmp_path, lead("a", **dict.fromkeys(gone), send_time_confident=None), lead("b"))
    for format in FORMATS:
        write_leads(book, EVERYBODY, tmp_path / NAMES[format], format)
    row = read_csv(tmp_path / "leads.csv")[0]
    assert [row[name] for name in (*gone, "send_time_clear")] == [""] * 6
    head, first, second = sheet_of(tmp_path / "leads.xlsx")
    assert [first[head.index(name)] for name in gone] == [None] * 5
    assert None not in second


@pytest.mark.parametrize("name", ["a\x01b\nc", "<b> & ]]>", 'größe, "cm"', "שלום", "=1+1", "x" * 300])
def test_an_attribute_may_be_called_anything(tmp_path: Path, name: str) -> None:
    book = book_of(tmp_path, lead("a") | {f"profile_{name}": "told"}, attributes={name: pa.string()})
    for format in FILES:
        write_leads(book, EVERYBODY, tmp_path / NAMES[format], format)
    readable = f"profile_{name}".replace("\x01", "\ufffd")
    assert list(read_csv(tmp_path / "leads.csv")[0].items())[-1] == (readable, "told")
    assert [row[-1] for row in sheet_of(tmp_path / "leads.xlsx")] == [readable, "told"]
    assert pq.read_table(tmp_path / "leads.parquet")[f"profile_{name}"].to_pylist() == ["told"]


# --- what cannot be written


def test_a_choice_that_nobody_is_in_writes_nothing_and_leaves_the_last_export_alone(tmp_path: Path, book: Book) -> None:
    (tmp_path / "leads.csv").write_text("yesterday")
    with pytest.raises(UnusableOption, match="No file was written"):
        write_leads(book, Selection(grades=("E",)), tmp_path / "leads.csv", "csv")
    assert (tmp_path / "leads.csv").read_text() == "yesterday"


def test_more_than_a_sheet_holds_is_refused_with_the_formats_that_hold_it(
    tmp_path: Path, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xlsx, "EXCEL_ROW_LIMIT", 3)
    with pytest.raises(UnusableOption, match=r"3 leads do not fit.*--format csv or --format parquet"):
        write_leads(book, EVERYBODY, tmp_path / "out" / "leads.xlsx", "xlsx")
    assert write_leads(book, Selection(top=2), tmp_path / "out" / "leads.xlsx", "xlsx").rows == 2
    monkeypatch.setattr(xlsx, "SHEET_BYTE_LIMIT", 3_000)
    with pytest.raises(UnusableOption, match="2 leads with such long texts do not fit"):
        write_leads(book, Selection(top=2), tmp_path / "out" / "leads.xlsx", "xlsx")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["leads.xlsx"]


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path: Path, book: Book) -> None:
    with pytest.raises(UnusableOption, match="'pdf' is not one of csv, xlsx, parquet, hubspot, salesforce"):
        write_leads(book, EVERYBODY, tmp_path / "leads", "pdf")  # type: ignore[arg-type]


@every_format
def test_a_full_disk_leaves_the_old_export_and_nothing_half_written(tmp_path: Path, format: ExportFormat) -> None:
    book = book_of(tmp_path / "books", *(lead(f"s{i:05d}", i % 101, probability=i / 7_001) for i in range(3_000)))
    out = tmp_path / "exports" / NAMES[format]
    write_leads(book, Selection(top=1), out, format)
    before = everything(out)
    with disk_of(10_000), pytest.raises(UnusableOption, match="could not be written"):
        write_leads(book, EVERYBODY, out, format)
    assert everything(out) == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@every_format
def test_a_writer_that_fails_half_way_leaves_nothing(
    tmp_path: Path, format: ExportFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = book_of(tmp_path / "books", *(lead(f"s{i:05d}") for i in range(30)))
    monkeypatch.setattr(tally, "PIECE_ROWS", 10)
    counted = tally.Tally.add

    def breaks(self: tally.Tally, batch: pa.RecordBatch) -> None:
        counted(self, batch)
        if self.rows > 20:
            raise MemoryError

    monkeypatch.setattr(tally.Tally, "add", breaks)
    with pytest.raises(MemoryError):
        write_leads(book, EVERYBODY, tmp_path / "exports" / NAMES[format], format)
    assert list((tmp_path / "exports").iterdir()) == []


@every_file
def test_a_directory_where_the_file_should_be_is_named(tmp_path: Path, book: Book, format: ExportFormat) -> None:
    (tmp_path / "exports" / "taken").mkdir(parents=True)
    with pytest.raises(UnusableOption, match="taken could not be written"):
        write_leads(book, EVERYBODY, tmp_path / "exports" / "taken", format)
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["taken"]


@every_format
def test_a_missing_directory_is_made(tmp_path: Path, book: Book, format: ExportFormat) -> None:
    assert write_leads(book, EVERYBODY, tmp_path / "new" / "place" / NAMES[format], format).path.exists()


# --- the document


def test_the_document_has_every_column_with_its_meaning() -> None:
    _, _, section = DOCUMENT.read_text("utf-8").partition("\n## Columns\n")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert rows == [(column.name, column.kind.value, column.meaning) for column in COLUMNS]


def test_the_document_has_every_format_and_the_limits_that_are_kept() -> None:
    said = DOCUMENT.read_text("utf-8")
    assert all(f"| `{format}` | `{NAMES[format]}" in said for format in FORMATS)
    assert f"version {SCHEMA_VERSION}." in said
    for limit in (
        EXCEL_ROW_LIMIT - 1,
        EXCEL_TEXT_LIMIT,
        hubspot.ROWS_PER_FILE,
        hubspot.TEXT_LIMIT,
        salesforce.ROWS_PER_FILE,
    ):
        assert f"{limit:,}" in said
