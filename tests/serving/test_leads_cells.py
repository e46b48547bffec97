"""Cells as text: what a spreadsheet can make of them, whatever the list holds."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.leads.book import BOOK_SCHEMA
from serving.leads.cells import (
    BYTE_ORDER_MARK,
    cell_texts,
    csv_block,
    csv_header,
    iso_moments,
    readable,
    starts_a_formula,
    without_formulas,
)
from serving.leads.columns import COLUMNS, KEPT_AS_NUMBERS, Kind, columns_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "exports.md"
ATTRIBUTE = pa.schema([("profile_note", pa.string())])
SIGNS = "=+-@＝＋－＠"


def one_column(*texts: str | None) -> tuple[bytes, list[list[str]]]:
    """A CSV of one column, and what an independent reader makes of it."""
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], schema=ATTRIBUTE)
    written = csv_block(batch, [column for column in columns_of(ATTRIBUTE) if column.source])
    return written, list(csv.reader(io.StringIO(written.decode(), newline="")))


def naive_cells(written: bytes, separator: str) -> list[str]:
    """Every place where a spreadsheet that splits at ``separator`` could begin a cell: a split that knows no quotes."""
    return re.split(f"[{separator}\t\r\n]", written.decode())


def runs(cell: str) -> bool:
    """As the most eager spreadsheet does: blanks, what cannot be seen and quotes are dropped before the sign."""
    seen = [letter for letter in cell if letter != '"' and unicodedata.category(letter)[0] != "Z"]
    first = next((letter for letter in seen if unicodedata.category(letter) != "Cf"), "")
    return first != "" and first in SIGNS


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("=1+1", "'=1+1"),
        ("+49 30 1234", "'+49 30 1234"),
        ("-5", "'-5"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1+1", "'＝1+1"),
        ("＠SUM(A1)", "'＠SUM(A1)"),
        ("  =1+1", "'  =1+1"),
        ("\u00a0\u200b=1+1", "'\u00a0\u200b=1+1"),
        ('"=1+1', "'\"=1+1"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        ("\n=1", "'\n'=1"),
        ("a;=1", "a;'=1"),
        ("a\n\n  =1", "a\n\n'  =1"),
        ('a;"=1', "a;'\"=1"),
    ],
)
def test_an_apostrophe_stands_wherever_a_spreadsheet_would_begin_a_formula(text: str, guarded: str) -> None:
    assert without_formulas(pa.array([text])).to_pylist() == [guarded]


@pytest.mark.parametrize(
    "text", ["a=b", "well - known", "me@example.org", "two; three", "1+1", "'quoted", "", "😀=", "a, =b"]
)
def test_a_text_that_runs_nowhere_is_as_it_came(text: str) -> None:
    assert without_formulas(pa.array([text, None])).to_pylist() == [text, None]


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        st.sampled_from([*SIGNS, ";", ",", '"', "\t", "\r", "\n", " ", "\u200b", "\u00a0", "'", "a", "1"]), max_size=8
    )
)
def test_no_place_where_a_cell_can_begin_starts_a_formula_whatever_the_list_separator(text: str) -> None:
    written, rows = one_column(text)
    assert not runs(rows[0][0] if rows and rows[0] else "")
    # Where the separator is a semicolon or a tab, our commas and quotes are letters like others.
    assert not any(runs(cell) for cell in naive_cells(written, ";"))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_a_reader_gets_back_every_text_but_for_guards_and_unreadable_characters(texts: list[str]) -> None:
    expected = without_formulas(readable(pa.array(texts))).to_pylist()
    _, rows = one_column(*texts)
    assert [row[0] if row else "" for row in rows] == expected
    for text, cell in zip(texts, expected, strict=True):
        assert cell.replace("'", "") == readable(pa.array([text]))[0].as_py().replace("'", "")


@pytest.mark.parametrize("character", ["\x00", "\x01", "\x0b", "\x1f", "\x7f", "\ufffe", "\uffff"])
def test_characters_that_stop_a_reader_become_a_visible_mark(character: str) -> None:
    assert one_column(f"a{character}b")[1] == [["a\ufffdb"]]


def test_rows_end_as_the_standard_says_and_quotes_are_doubled() -> None:
    written, rows = one_column('Zoë, "the lead"', None, "two\nlines")
    assert written == '"Zoë, ""the lead"""\r\n\r\n"two\nlines"\r\n'.encode()
    assert [row[0] if row else "" for row in rows] == ['Zoë, "the lead"', "", "two\nlines"]


def test_the_header_opens_in_excel_as_utf_8_and_is_safe_too() -> None:
    named = columns_of(pa.schema([("profile_größe, cm", pa.int64())]))
    assert csv_header(COLUMNS).startswith(BYTE_ORDER_MARK + b"subscriber_id,rank,score,grade,")
    assert csv_header(named).decode("utf-8-sig").endswith(',"profile_größe, cm"\r\n')


def test_no_rows_are_no_bytes() -> None:
    assert csv_block(pa.RecordBatch.from_pylist([], schema=ATTRIBUTE), columns_of(ATTRIBUTE)) == b""


def test_numbers_and_moments_are_in_the_words_documented() -> None:
    moment = datetime(2026, 11, 23, 8, 15, 2, 999_999, tzinfo=UTC)
    assert iso_moments(pa.array([moment, None], pa.timestamp("us", "UTC"))).to_pylist() == [
        "2026-11-23T08:15:02Z",
        None,
    ]
    numbers = pa.array([0.25, float("nan"), float("inf"), None])
    assert cell_texts(numbers, Kind.PROBABILITY).to_pylist() == ["0.25", None, None, None]
    assert cell_texts(pa.array([True, False, None]), Kind.YES_NO).to_pylist() == ["yes", "no", None]
    assert cell_texts(pa.array([["b", "a"], [], None]), Kind.REASONS).to_pylist() == ["b; a", "", None]


def test_formulas_are_told_for_those_who_guard_in_another_way() -> None:
    assert starts_a_formula(pa.array(["=1", " +1", "a;=1", None])).to_pylist() == [True, True, False, False]


def test_every_column_of_a_book_is_shown_or_left_to_the_page() -> None:
    shown = {column.source for column in columns_of(BOOK_SCHEMA)}
    assert set(BOOK_SCHEMA.names) - shown == {"churn_reasons", "send_time_gain"}
    assert shown - set(BOOK_SCHEMA.names) == {""}
    assert [column.name for column in columns_of(BOOK_SCHEMA)] == [column.name for column in COLUMNS]


def test_attributes_follow_our_columns_by_their_own_type() -> None:
    own = pa.schema(
        [*BOOK_SCHEMA, ("profile_age", pa.int64()), ("profile_spent", pa.float64()), ("profile_job", pa.string())]
    )
    assert [column.kind for column in columns_of(own)[-3:]] == [Kind.WHOLE, Kind.NUMBER, Kind.TEXT]


def test_the_document_says_as_the_columns_do_what_became_of_truth_values_and_dates() -> None:
    own = columns_of(pa.schema([("profile_vip", pa.float64()), ("profile_job", pa.string())]))
    vip, job = own[-2:]
    assert "1 or 0" in vip.meaning
    assert "days since 1970" in vip.meaning
    assert "1970" not in job.meaning
    meaning = f"Each attribute of your own list, as it was last told. {KEPT_AS_NUMBERS}"
    assert vip.meaning.endswith(KEPT_AS_NUMBERS)
    assert f"| `profile_…` | number or text | {meaning} |" in DOCUMENT.read_text("utf-8")
