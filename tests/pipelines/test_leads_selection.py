"""Which leads an export holds: what a plain loop over the book would keep, and a plain word where nothing is left."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import UnusableOption
from pipelines.leads.selection import BATCH_ROWS, Segment, Selection, batches, chosen, refuse_nothing
from serving.leads.book import Book
from tests.pipelines.lead_books import book_of, lead

Row = dict[str, Any]
ATTRIBUTES = {"country": pa.string(), "size": pa.float64(), "floor": pa.int64(), "movement": pa.string()}


def random_rows(seed: int, count: int) -> list[Row]:
    draw = random.Random(seed)
    return [
        lead(
            f"s{number}",
            grade=draw.choice("ABCDE"),
            movement=draw.choice(["new", "up", "down", "same", None]),
            score_change=draw.choice([None, -3, 0, 0, 7]),
            churn_band=draw.choice(["low", "medium", "high", None]),
            profile_country=draw.choice(["DE", "de", "a=b", "", None]),
            profile_size=draw.choice([0.0, -0.0, 1.5, None]),
            profile_floor=draw.choice([3, 2**53 + 1, None]),
            profile_movement=draw.choice(["up", "stairs"]),
        )
        for number in range(count)
    ]


def ids(book: Book, selection: Selection) -> list[str]:
    return [one for batch in batches(book, selection) for one in batch["subscriber_id"].to_pylist()]


def naive(rows: list[Row], selection: Selection) -> list[str]:
    wanted: dict[str, list[str]] = {}
    for segment in selection.segments:
        own = segment.name in ("churn_band", "movement") or segment.name.startswith("profile_")
        wanted.setdefault(segment.name if own else f"profile_{segment.name}", []).append(segment.value)
    kept = [
        row["subscriber_id"]
        for row in rows
        if (not selection.grades or row["grade"] in selection.grades)
        and (not selection.changed_only or row["movement"] in ("new", "up", "down") or row["score_change"])
        and all(any(same(row[name], text) for text in texts) for name, texts in wanted.items())
    ]
    return kept[: selection.top]


def same(value: Any, text: str) -> bool:
    if value is None or isinstance(value, str):
        return bool(value == text)
    return float(value) == float(text)


def random_selection(draw: random.Random) -> Selection:
    own = ["country=DE", "country=a=b", "country=", "size=1.5", "size=0", "floor=3.0", "floor=9007199254740993"]
    segments = [*own, "churn_band=high", "movement=up", "profile_movement=stairs"]
    return chosen(
        draw.sample(["a", "B,c", " D ", "E"], draw.choice([0, 0, 1, 2])),
        draw.sample(segments, draw.choice([0, 1, 2, 3])),
        draw.choice([True, False]),
        draw.choice([None, None, 1, 5, 10_000]),
    )


def test_every_combination_keeps_what_a_plain_loop_keeps(tmp_path: Path) -> None:
    draw = random.Random(1)
    rows = random_rows(1, 300)
    book = book_of(tmp_path, *rows, attributes=ATTRIBUTES)
    for _ in range(150):
        selection = random_selection(draw)
        expected = naive(rows, selection)
        assert ids(book, selection) == expected, selection
        if expected:
            assert refuse_nothing(book, selection) == len(expected)
        else:
            with pytest.raises(UnusableOption):
                refuse_nothing(book, selection)


def test_nothing_said_is_everybody_in_the_books_order_and_its_own_columns(tmp_path: Path) -> None:
    book = book_of(tmp_path, *random_rows(2, 20), attributes=ATTRIBUTES)
    found = pa.Table.from_batches(batches(book, Selection()))
    assert found.equals(pq.read_table(book.path)) and found.column_names == book.schema.names


def test_the_best_are_counted_among_those_all_else_holds_for_over_all_batches(tmp_path: Path) -> None:
    rows = [lead(f"s{number}", grade="AB"[number % 2]) for number in range(2 * BATCH_ROWS + 10)]
    book = book_of(tmp_path, *rows)
    found = list(batches(book, Selection(grades=("B",), top=BATCH_ROWS)))
    assert sum(batch.num_rows for batch in found) == BATCH_ROWS and all(batch.num_rows for batch in found)
    assert [one for batch in found for one in batch["rank"].to_pylist()] == list(range(2, 2 * BATCH_ROWS + 1, 2))


def test_options_may_be_repeated_and_written_in_small_letters() -> None:
    selection = chosen(["b,a", "A"], ["country=DE", "note=a=b"], True, 500)
    assert selection == Selection(("A", "B"), (Segment("country", "DE"), Segment("note", "a=b")), True, 500)
    assert str(selection) == "the best 500 of grade A or B, country=DE, note=a=b, changed since the export before"
    assert str(chosen()) == "all of them"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"grades": ["F"]}, "--grade: there are A, B, C, D, E"),
        ({"grades": [""]}, "--grade"),
        ({"segments": ["country"]}, "--segment: write it like country=DE"),
        ({"segments": ["=DE"]}, "--segment: write it like"),
        ({"top": 0}, "--top: give a number from 1"),
        ({"top": -5}, "--top"),
    ],
)
def test_an_option_that_means_nothing_says_how_to_write_it(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UnusableOption, match=word):
        chosen(**options)


def refusal(book: Book, selection: Selection) -> str:
    with pytest.raises(UnusableOption) as raised:
        refuse_nothing(book, selection)
    return str(raised.value)


def segment(text: str) -> Selection:
    return chosen(segments=[text])


@pytest.fixture
def book(tmp_path: Path) -> Book:
    countries = ["DE"] * 6 + ["AT"] * 5 + ["secret"]
    rows = [
        lead(f"s{number}", profile_country=country, profile_size=3.0, profile_name=f"anna{number}")
        for number, country in enumerate(countries)
    ]
    return book_of(tmp_path, *rows, attributes={"country": pa.string(), "size": pa.float64(), "name": pa.string()})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("planet=Mars", ["no attribute 'planet'", "country, size, name", "churn_band"]),
        ("rank=1", ["no attribute 'rank'"]),
        ("size=tall", ["size holds numbers; write it like size=3"]),
        ("size=nan", ["size holds numbers"]),
        ("country=Mars", ["no lead has that value of country", "AT", "DE"]),
        ("size=4", ["no lead has that value of size", "3"]),
    ],
)
def test_a_segment_that_is_not_there_is_refused_with_those_that_are(book: Book, asked: str, words: list[str]) -> None:
    said = refusal(book, segment(asked))
    assert all(word in said for word in words), said
    assert "Mars" not in said and "tall" not in said


def test_a_value_that_few_have_is_named_to_nobody(book: Book) -> None:
    assert "secret" not in refusal(book, segment("country=Mars"))
    assert "anna" not in refusal(book, segment("name=Mars"))


def test_changes_need_an_export_before(tmp_path: Path) -> None:
    first = book_of(tmp_path, lead("ann"), previous_book_id="")
    assert "no export before this one" in refusal(first, Selection(changed_only=True))


@pytest.mark.parametrize("segments", [[], ["country=DE"]])
def test_a_choice_nobody_is_in_says_how_many_there_are_and_no_value(book: Book, segments: list[str]) -> None:
    said = refusal(book, chosen(["A"], segments))
    assert "none of the 12 leads is all of that at once" in said and "No file was written" in said
    assert "DE" not in said
