"""Lead exports: what is in them, what a spreadsheet makes of them, and what is left when writing fails."""

from __future__ import annotations

import csv
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import UnusableOption
from pipelines.export import (
    COLUMNS,
    CUT_MARK,
    EXCEL_ROW_LIMIT,
    EXCEL_TEXT_LIMIT,
    ExportContext,
    ExportFormat,
    write_leads,
)

NOW = datetime(2026, 11, 23, 8, 15, 2, 120_000, tzinfo=UTC)
CONTEXT = ExportContext(model_version="4", scored_at=NOW, simulated=True, list_name="Spring list")
FORMATS: tuple[ExportFormat, ...] = ("csv", "xlsx", "parquet")
LIVE_CELLS = ["=1+1", "+49 30 1234", "-5", "@SUM(A1)", "\t=1", "\r=1"]
MOMENT = pa.timestamp("us", tz="UTC")


def lead(subscriber_id: str, score: int = 50, **changes: Any) -> dict[str, Any]:
    row = {
        "subscriber_id": subscriber_id,
        "status": "ok",
        "feature_age_s": 5_400.0,
        "last_engagement_at": NOW - timedelta(days=3),
        "churn_band": "low",
        "lead_score_probability": score / 200,
        "lead_score_score": score,
        "lead_score_grade": "A" if score >= 90 else "C",
        "lead_score_percentile": score,
        "lead_score_reasons": ["↑ last click 3 days ago", "↓ no purchase so far"],
        "lead_score_model_version": "4",
        "send_time_send_at": NOW + timedelta(hours=9),
        "scored_at": NOW,
    }
    return row | changes


def scored(*rows: dict[str, Any]) -> pa.Table:
    fields = {
        "feature_age_s": pa.float64(),
        "last_engagement_at": MOMENT,
        "lead_score_probability": pa.float64(),
        "lead_score_score": pa.int32(),
        "lead_score_percentile": pa.int32(),
        "lead_score_reasons": pa.list_(pa.string()),
        "send_time_send_at": MOMENT,
        "scored_at": MOMENT,
    }
    return pa.Table.from_pylist(
        list(rows), schema=pa.schema([(name, fields.get(name, pa.string())) for name in lead("anybody")])
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def read_xlsx(path: Path, sheet: str = "Leads") -> list[tuple[Any, ...]]:
    book = openpyxl.load_workbook(path)
    return list(book[sheet].iter_rows(values_only=True))


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format", FORMATS)
def test_rows_are_ranked_by_score_and_then_by_subscriber(tmp_path: Path, format: ExportFormat) -> None:
    out = tmp_path / f"leads.{format}"
    write_leads(scored(lead("b", 50), lead("c", 97), lead("a", 50), lead("d", 3)), out, format, CONTEXT)
    match format:
        case "csv":
            ids = [row["subscriber_id"] for row in read_csv(out)]
        case "xlsx":
            ids = [row[0] for row in read_xlsx(out)[1:]]
        case "parquet":
            ids = pq.read_table(out)["subscriber_id"].to_pylist()
    assert ids == ["c", "a", "b", "d"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_scores_in_any_order_give_the_same_bytes(tmp_path: Path, format: ExportFormat) -> None:
    rows = [lead(f"s{i:03d}", i % 101) for i in range(300)]
    write_leads(scored(*rows), tmp_path / "one", format, CONTEXT)
    write_leads(scored(*reversed(rows)), tmp_path / "two", format, CONTEXT)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_summary_counts_what_is_in_the_file_and_what_is_not(tmp_path: Path) -> None:
    rows = scored(
        lead("a", 95),
        lead("b", 50),
        lead("objected", 99, status="no_consent"),
        lead("not a lead", 99, lead_score_probability=None),
        lead("broken", 99, lead_score_probability=float("nan")),
    )
    summary = write_leads(rows, tmp_path / "leads.csv", "csv", CONTEXT)
    assert (summary.rows, summary.no_consent, summary.unscored) == (2, 1, 2)
    assert summary.grades == {"A": 1, "B": 0, "C": 1, "D": 0, "E": 0}
    assert summary.expected_conversions == pytest.approx(0.725)
    assert {row["subscriber_id"] for row in read_csv(tmp_path / "leads.csv")} == {"a", "b"}


def test_csv_cells_are_in_the_words_and_units_documented(tmp_path: Path) -> None:
    write_leads(scored(lead("a", 97)), tmp_path / "leads.csv", "csv", CONTEXT)
    assert read_csv(tmp_path / "leads.csv") == [
        {
            "subscriber_id": "a",
            "score": "97",
            "grade": "A",
            "probability": "0.485",
            "percentile": "97",
            "reasons": "↑ last click 3 days ago; ↓ no purchase so far",
            "churn_band": "low",
            "recommended_send_at": "2026-11-23T17:15:02Z",
            "last_engagement_at": "2026-11-20T08:15:02Z",
            "data_age_hours": "1.5",
            "status": "ok",
            "model_version": "4",
            "scored_at": "2026-11-23T08:15:02Z",
            "schema_version": "1",
        }
    ]


def test_csv_opens_in_excel_as_utf_8_and_ends_lines_as_the_standard_says(tmp_path: Path) -> None:
    write_leads(scored(lead('Zoë, "the lead"')), tmp_path / "leads.csv", "csv", CONTEXT)
    written = (tmp_path / "leads.csv").read_bytes()
    assert written.startswith(b"\xef\xbb\xbfsubscriber_id,score")
    assert written.count(b"\r\n") == 2
    assert '"Zoë, ""the lead"""'.encode() in written


def test_parquet_keeps_every_value_as_it_came(tmp_path: Path) -> None:
    write_leads(scored(lead("=1+1", lead_score_probability=1 / 3)), tmp_path / "leads.parquet", "parquet", CONTEXT)
    table = pq.read_table(tmp_path / "leads.parquet")
    assert table["subscriber_id"].to_pylist() == ["=1+1"]
    assert table["probability"].to_pylist() == [1 / 3]
    assert table["scored_at"].to_pylist() == [NOW]
    assert table["reasons"].to_pylist() == [["↑ last click 3 days ago", "↓ no purchase so far"]]
    assert table.schema.metadata[b"inbox.simulated"] == b"true"
    assert table.schema.metadata[b"inbox.schema_version"] == b"1"


@pytest.mark.parametrize("text", LIVE_CELLS)
def test_csv_text_that_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path: Path, text: str) -> None:
    write_leads(scored(lead(text, lead_score_reasons=[text, "b"])), tmp_path / "leads.csv", "csv", CONTEXT)
    row = read_csv(tmp_path / "leads.csv")[0]
    assert row["subscriber_id"] == f"'{text}"
    assert row["reasons"] == f"'{text}; b"
    assert row["probability"] == "0.25"


@pytest.mark.parametrize("text", LIVE_CELLS)
def test_xlsx_text_stays_text_even_after_somebody_edits_the_cell(tmp_path: Path, text: str) -> None:
    write_leads(scored(lead(text)), tmp_path / "leads.xlsx", "xlsx", CONTEXT)
    cell = openpyxl.load_workbook(tmp_path / "leads.xlsx")["Leads"]["A2"]
    assert cell.data_type in ("s", "inlineStr")
    assert cell.quotePrefix
    assert unescaped(cell.value) == text


TEXTS = [
    "😀 lead 👩‍👩‍👧",
    "שלום, ליד",
    "مرحبا\u200f!",
    "line one\nline two\r\nline three",
    'he said "hello", twice',
    "semi;colon\tand tab",
    "<b>&amp;</b>",
    "_x0041_",
    "\x00\x01",
    " padded ",
    "'quoted",
]


@pytest.mark.parametrize("text", TEXTS)
def test_odd_text_survives_csv_and_xlsx(tmp_path: Path, text: str) -> None:
    table = scored(lead(text))
    write_leads(table, tmp_path / "leads.csv", "csv", CONTEXT)
    write_leads(table, tmp_path / "leads.xlsx", "xlsx", CONTEXT)
    assert read_csv(tmp_path / "leads.csv")[0]["subscriber_id"] == text
    assert unescaped(read_xlsx(tmp_path / "leads.xlsx")[1][0]) == text


def unescaped(text: str) -> str:
    """A spreadsheet undoes the escapes of control characters; openpyxl leaves that to its user."""
    return str(openpyxl.utils.escape.unescape(text))


@pytest.mark.parametrize("text", ["<r>broken & sheet</r>", "<r><t>rich</t></r>"])
def test_text_that_looks_like_a_rich_cell_does_not_break_the_sheet(tmp_path: Path, text: str) -> None:
    write_leads(scored(lead(text)), tmp_path / "leads.xlsx", "xlsx", CONTEXT)
    assert read_xlsx(tmp_path / "leads.xlsx")[1][0].rstrip() == text


@pytest.mark.parametrize("text", ["x" * 40_000, "😀" * 20_000], ids=["letters", "emoji"])
def test_text_longer_than_an_excel_cell_is_cut_with_a_mark_there_and_nowhere_else(tmp_path: Path, text: str) -> None:
    table = scored(lead("a", lead_score_reasons=[text]))
    summary = write_leads(table, tmp_path / "leads.xlsx", "xlsx", CONTEXT)
    cell = read_xlsx(tmp_path / "leads.xlsx")[1][5]
    assert summary.cut_texts == 1
    assert cell.endswith(CUT_MARK)
    assert len(cell.encode("utf-16-le")) // 2 in (EXCEL_TEXT_LIMIT - 1, EXCEL_TEXT_LIMIT)
    assert write_leads(table, tmp_path / "leads.csv", "csv", CONTEXT).cut_texts == 0
    csv.field_size_limit(200_000)
    assert read_csv(tmp_path / "leads.csv")[0]["reasons"] == text


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=5, unique=True))
def test_no_csv_cell_can_ever_start_a_formula_and_parquet_gives_back_every_text(
    tmp_path: Path, texts: list[str]
) -> None:
    table = scored(*(lead(text) for text in texts))
    write_leads(table, tmp_path / "leads.csv", "csv", CONTEXT)
    write_leads(table, tmp_path / "leads.parquet", "parquet", CONTEXT)
    cells = [row["subscriber_id"] for row in read_csv(tmp_path / "leads.csv")]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert sorted(pq.read_table(tmp_path / "leads.parquet")["subscriber_id"].to_pylist()) == sorted(texts)


def test_xlsx_is_formatted_as_a_marketer_expects(tmp_path: Path) -> None:
    write_leads(scored(lead("00017", 97), lead("b", 12)), tmp_path / "leads.xlsx", "xlsx", CONTEXT)
    book = openpyxl.load_workbook(tmp_path / "leads.xlsx")
    sheet = book["Leads"]
    assert book.sheetnames == ["Leads", "Summary"]
    assert [cell.value for cell in sheet[1]] == [column.name for column in COLUMNS]
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("B2", "A1:N3")
    assert (sheet["A2"].value, sheet["B2"].value, sheet["D2"].value, sheet["J2"].value) == ("00017", 97, 0.485, 1.5)
    assert sheet["D2"].number_format == "0.00%"
    assert sheet["I2"].number_format == "yyyy-mm-dd hh:mm"
    assert sheet["I2"].value == datetime(2026, 11, 20, 8, 15, 2)
    assert [str(area.sqref) for area in sheet.conditional_formatting] == ["B2:B3"]
    assert book.properties.created == datetime(2026, 11, 23, 8, 15, 2)


def test_the_summary_sheet_says_what_the_file_is_and_what_each_column_means(tmp_path: Path) -> None:
    write_leads(scored(lead("a", 97), lead("b", 12)), tmp_path / "leads.xlsx", "xlsx", CONTEXT)
    rows = [tuple(cell for cell in row if cell is not None) for row in read_xlsx(tmp_path / "leads.xlsx", "Summary")]
    told = {row[0]: row[1:] for row in rows if row}
    assert any(str(label).startswith("SIMULATED DATA") for label in told)
    assert told["List"] == ("Spring list",)
    assert told["Leads in this file"] == (2,)
    assert told["A"] == (1, 0.5, 0.485)
    assert told["All"] == (2, 1, pytest.approx(0.545))
    assert all(told[column.name] == (column.meaning,) for column in COLUMNS)


def test_real_data_is_not_called_simulated(tmp_path: Path) -> None:
    real = ExportContext("4", NOW, simulated=False, list_name="Spring list")
    write_leads(scored(lead("a")), tmp_path / "leads.xlsx", "xlsx", real)
    assert "SIMULATED" not in str(read_xlsx(tmp_path / "leads.xlsx", "Summary"))


@pytest.mark.parametrize("format", FORMATS)
def test_columns_of_models_that_were_not_asked_and_values_that_are_missing_are_left_out(
    tmp_path: Path, format: ExportFormat
) -> None:
    row = lead("a", feature_age_s=None, last_engagement_at=None, lead_score_reasons=None, status="prior")
    table = scored(row).drop_columns(["churn_band", "send_time_send_at"])
    write_leads(table, tmp_path / "leads", format, CONTEXT)
    if format == "csv":
        only = read_csv(tmp_path / "leads")[0]
        assert "churn_band" not in only
        assert (only["data_age_hours"], only["last_engagement_at"], only["reasons"]) == ("", "", "")


def test_an_export_of_nothing_says_why_and_leaves_the_last_one_alone(tmp_path: Path) -> None:
    out = tmp_path / "leads.csv"
    out.write_text("yesterday")
    with pytest.raises(UnusableOption, match="of 1 scored, 1 withheld consent"):
        write_leads(scored(lead("a", status="no_consent")), out, "csv", CONTEXT)
    with pytest.raises(UnusableOption, match="of 0 scored"):
        write_leads(scored(), out, "csv", CONTEXT)
    assert out.read_text() == "yesterday"


def test_more_leads_than_a_sheet_holds_are_refused_with_the_formats_that_hold_them(tmp_path: Path) -> None:
    many = scored(lead("a")).take(pa.repeat(pa.scalar(0), EXCEL_ROW_LIMIT))
    with pytest.raises(UnusableOption, match=r"1,048,576 leads do not fit.*--format csv or --format parquet"):
        write_leads(many, tmp_path / "leads.xlsx", "xlsx", CONTEXT)
    assert list(tmp_path.iterdir()) == []


def test_scores_without_a_lead_score_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableOption, match="lead_score_grade"):
        write_leads(scored(lead("a")).drop_columns("lead_score_grade"), tmp_path / "leads", "csv", CONTEXT)
    with pytest.raises(UnusableOption, match="'pdf' is not one of csv, xlsx, parquet"):
        write_leads(scored(lead("a")), tmp_path / "leads", "pdf", CONTEXT)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path: Path, format: ExportFormat) -> None:
    out = tmp_path / "leads"
    out.write_text("yesterday")
    table = scored(*(lead(f"s{i:05d}", i % 101, lead_score_probability=i / 7_001) for i in range(3_000)))
    with disk_of(10_000), pytest.raises(UnusableOption, match="could not be written"):
        write_leads(table, out, format, CONTEXT)
    assert [path.name for path in tmp_path.iterdir()] == ["leads"]
    assert out.read_text() == "yesterday"


def test_a_target_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UnusableOption, match="taken could not be written"):
        write_leads(scored(lead("a")), tmp_path / "taken", "csv", CONTEXT)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    assert write_leads(scored(lead("a")), tmp_path / "new" / "leads.csv", "csv", CONTEXT).path.exists()
