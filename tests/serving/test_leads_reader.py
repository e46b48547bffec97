"""Which leads are read: what a plain loop over all rows finds, whatever is asked, and never two books in one answer."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import LeadsUnavailable, MalformedRequest, NoLeadBook
from features.home import Home
from pipelines.leads.selection import Segment, batches
from pipelines.leads.selection import Selection as Chosen
from serving.leads.query import SORTS, LeadQuery, Selection
from serving.leads.reader import BLOCK_ROWS, ROW_COLUMNS, BookReader
from tests.pipelines.lead_books import NOW, book_of, lead

Row = dict[str, Any]
ATTRIBUTES = {
    "country": pa.string(),
    "size": pa.float64(),
    "floor": pa.int64(),
    "asked": pa.bool_(),
    "we\"i'rd; --": pa.string(),
}
WORDS = ("DE", "de", "", "a;b", "x' or 1=1 --", '"', "50%", "_", "é", "نور", None)
SEGMENTS = (
    *(f"country={word}" for word in WORDS if word is not None),
    "size=1.5",
    "size=-0",
    "size=2",
    "floor=2",
    "floor=2.0",
    "floor=9007199254740993",
    "asked=true",
    "we\"i'rd; --=DE",
    "we\"i'rd; --=nobody's",
)


def random_book(home: Home, seed: int, count: int = 120) -> list[Row]:
    """Leads of every kind, many of them alike."""
    draw = random.Random(seed)

    def maybe(*values: Any) -> Any:
        return draw.choice([*values, None])

    def one(number: int) -> Row:
        before = maybe(10, 50, 50, 90)
        own = {
            "profile_country": draw.choice(WORDS),
            "profile_size": maybe(0.0, -0.0, 1.5, 2.0, 1e300),
            "profile_floor": maybe(2, -3, 2**53 + 1),
            "profile_asked": maybe(True, False),
            "profile_we\"i'rd; --": maybe("DE", "nobody's"),
        }
        return own | lead(
            draw.choice(["s", "S", "Zoë ", "a/b%_", "x'"]) + str(number),
            draw.choice([0, 50, 50, 99]),
            grade=draw.choice("ABCDE"),
            probability=draw.choice([0.1, 0.1, 0.5, 0.1 + 1e-17]),
            score_before=before,
            score_change=maybe(-3, 0, 0, 7),
            movement=maybe("new", "up", "down", "same"),
            churn_band=maybe("low", "medium", "high"),
            churn_probability=maybe(0.25, 0.5),
            recommended_send_at=maybe(NOW, NOW + timedelta(microseconds=1)),
            last_engagement_at=maybe(NOW, NOW - timedelta(days=1)),
            reasons_for=maybe(["a", "b"], []),
        )

    rows = [one(number) for number in range(count)]
    book = book_of(home.leads, *rows, attributes=ATTRIBUTES)
    table = pq.read_table(book.path)
    pq.write_table(table, book.path, row_group_size=draw.choice([7, 50, 1000]))
    return [{"rank": rank} | row for rank, row in enumerate(rows, start=1)]


def fits(row: Row, asked: Selection) -> bool:
    wanted: dict[str, list[str]] = {}
    for segment in asked.segment:
        name, _, value = segment.partition("=")
        wanted.setdefault(name, []).append(value)
    return (
        (asked.search is None or asked.search.lower() in row["subscriber_id"].lower())
        and all(
            not getattr(asked, name) or row[name] in getattr(asked, name)
            for name in ("grade", "churn_band", "movement")
        )
        and all(any(is_value(row[f"profile_{name}"], text) for text in texts) for name, texts in wanted.items())
    )


def is_value(value: Any, text: str) -> bool:
    if value is None:
        return False
    if isinstance(value, bool):
        return text == str(value).lower()
    return value == text if isinstance(value, str) else float(value) == float(text)


def in_order(rows: list[Row], sort: str) -> list[Row]:
    """By rank, then by the column; whoever has nothing there comes last, up and down."""
    column, downwards = sort.removeprefix("-"), sort.startswith("-")
    known = [row for row in rows if row[column] is not None]
    # Stable both ways: who are alike stay by rank.
    ordered = sorted(known, key=lambda row: row[column], reverse=downwards)
    return ordered + [row for row in rows if row[column] is None]


def random_queries(seed: int, count: int) -> Iterator[LeadQuery]:
    draw = random.Random(seed)

    def some(*words: str) -> tuple[str, ...]:
        return tuple(draw.sample(words, draw.choice([0, 0, 1, 2])))

    for _ in range(count):
        yield LeadQuery.model_validate(
            {
                "search": draw.choice([None, None, "s", "S1", "zoë", "B%_", "'", "%", "nobody"]),
                "grade": some(*"ABCDE"),
                "churn_band": some("low", "high", "medium"),
                "movement": some("new", "up", "down", "same"),
                "segment": some(*SEGMENTS),
                "sort": draw.choice(["", "-"]) + draw.choice(SORTS),
                "offset": draw.choice([0, 0, 3, 50, 10_000]),
                "limit": draw.choice([1, 7, 200]),
            }
        )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """At a place whose name is a pattern and looks like a column of the book."""
    return Home(tmp_path / "grade=Z" / "rank=1 [a]?*'\"{b,c}")


@pytest.fixture
def reader(home: Home) -> Iterator[BookReader]:
    reader = BookReader(home)
    yield reader
    reader.close()


def test_a_page_is_what_a_plain_loop_finds(home: Home, reader: BookReader) -> None:
    for seed in range(3):
        rows = random_book(home, seed)
        for asked in random_queries(seed, 60):
            expected = in_order([row for row in rows if fits(row, asked)], asked.sort)
            page = reader.page(asked)
            assert page.total == len(expected), asked
            wanted = expected[asked.offset : asked.offset + asked.limit]
            assert page.rows == [{name: row[name] for name in ROW_COLUMNS} for row in wanted], asked


def test_a_download_is_the_same_leads_in_order_of_rank(home: Home, reader: BookReader) -> None:
    rows = random_book(home, 7)
    for asked in random_queries(7, 60):
        book, found = reader.begin(asked)
        ranks = [rank for batch in found for rank in batch["rank"].to_pylist()]
        assert ranks == [row["rank"] for row in rows if fits(row, asked)], asked
        assert book.rows == len(rows)


def test_a_segment_is_the_same_leads_as_in_an_export(home: Home, reader: BookReader) -> None:
    random_book(home, 8)
    for asked in random_queries(8, 60):
        segments = tuple(Segment(*segment.split("=", 1)) for segment in asked.segment)
        book, found = reader.begin(Selection(grade=asked.grade, segment=asked.segment))
        exported = batches(book, Chosen(asked.grade, segments))
        assert [rank for part in found for rank in part["rank"].to_pylist()] == [
            rank for part in exported for rank in part["rank"].to_pylist()
        ]


def test_pages_one_after_another_are_everybody_once(home: Home, reader: BookReader) -> None:
    rows = random_book(home, 9)
    for sort in SORTS:
        pages = (reader.page(LeadQuery(sort=sort, offset=offset, limit=7)) for offset in range(0, len(rows), 7))
        seen = [row["subscriber_id"] for page in pages for row in page.rows]
        assert sorted(seen) == sorted(row["subscriber_id"] for row in rows)


def test_a_download_comes_in_blocks_of_bounded_size(home: Home, reader: BookReader) -> None:
    book_of(home.leads, *(lead(f"s{number}") for number in range(2 * BLOCK_ROWS + 1)))
    _, found = reader.begin(Selection())
    assert [batch.num_rows for batch in found] == [BLOCK_ROWS, BLOCK_ROWS, 1]


def test_one_lead_is_its_row_and_its_history(home: Home, reader: BookReader) -> None:
    rows = random_book(home, 10)
    _, found, standings = reader.one(rows[5]["subscriber_id"])
    assert found == rows[5]
    assert [standing.score for standing in standings] == [rows[5]["score"]]
    assert reader.one("nobody")[1:] == (None, [])


@pytest.mark.parametrize("segment", ["planet=Mars", "profile_country=DE", "score=3", "rank) or (1=1"])
def test_an_attribute_that_is_not_there_is_refused_with_those_that_are(
    home: Home, reader: BookReader, segment: str
) -> None:
    book_of(home.leads, lead("ann"), attributes={"country": pa.string(), "city": pa.string()})
    with pytest.raises(MalformedRequest, match=r"^segment: should name one of country, city$"):
        reader.page(LeadQuery(segment=(segment,)))


def test_a_word_where_numbers_are_is_refused_and_not_repeated(home: Home, reader: BookReader) -> None:
    book_of(home.leads, lead("ann", profile_size=1.0), attributes={"size": pa.float64()})
    with pytest.raises(MalformedRequest, match=r"^segment: should be a number, as size is$"):
        reader.page(LeadQuery(segment=("size=tall",)))
    with pytest.raises(MalformedRequest, match="a number"):
        reader.page(LeadQuery(segment=("size=nan",)))
    assert reader.page(LeadQuery(segment=("size=inf",))).total == 0


def test_a_book_without_attributes_says_so(home: Home, reader: BookReader) -> None:
    book_of(home.leads, lead("ann"))
    with pytest.raises(MalformedRequest, match="no attributes"):
        reader.page(LeadQuery(segment=("country=DE",)))


def test_before_the_first_export_there_is_no_book(home: Home, reader: BookReader) -> None:
    for ask in (lambda: reader.page(LeadQuery()), lambda: reader.one("ann"), lambda: reader.begin(Selection())):
        with pytest.raises(NoLeadBook, match="inbox export leads"):
            ask()


def test_a_newer_book_is_noticed_and_so_is_the_same_one_written_anew(home: Home, reader: BookReader) -> None:
    path = book_of(home.leads, lead("ann"), lead("bob")).path
    assert [row["subscriber_id"] for row in reader.page(LeadQuery()).rows] == ["ann", "bob"]
    older = path.read_bytes()
    book_of(home.leads / "beside", lead("bob"), lead("cy"), lead("dan")).path.replace(path)
    again = reader.page(LeadQuery())
    assert ([row["subscriber_id"] for row in again.rows], again.book.rows) == (["bob", "cy", "dan"], 3)
    newer = home.leads / "20991123T081502120000Z-000004.parquet"
    newer.write_bytes(older)
    assert [row["subscriber_id"] for row in reader.page(LeadQuery()).rows] == ["ann", "bob"]
    newer.unlink()
    assert reader.page(LeadQuery()).total == 3


def test_a_book_written_anew_under_a_download_gives_no_mixture_of_both(home: Home, reader: BookReader) -> None:
    path = book_of(home.leads, lead("ann", 1), lead("bob", 99)).path
    _, found = reader.begin(Selection(grade=("A",)))
    book_of(home.leads / "beside", lead("bob", 99), lead("cy", 1)).path.replace(path)
    with pytest.raises(LeadsUnavailable, match="written anew"):
        list(found)


def test_a_download_that_has_begun_goes_on_with_the_book_it_began(home: Home, reader: BookReader) -> None:
    path = book_of(home.leads, *(lead(f"s{number}") for number in range(1_500))).path
    _, found = reader.begin(Selection())
    assert next(found).num_rows == BLOCK_ROWS
    path.unlink()
    assert next(found)["subscriber_id"][-1].as_py() == "s1499"


def test_a_damaged_book_is_said_without_what_is_in_it(
    home: Home, reader: BookReader, caplog: pytest.LogCaptureFixture
) -> None:
    path = book_of(home.leads, *(lead(f"anna{number}") for number in range(500))).path
    whole = path.read_bytes()
    for damaged in (b"", whole[:-100], whole[:4] + b"\xff" * (len(whole) // 2) + whole[4 + len(whole) // 2 :]):
        path.write_bytes(damaged)
        os.utime(path, ns=(len(damaged), len(damaged)))
        for ask in (
            lambda: reader.page(LeadQuery(search="anna")),
            lambda: reader.one("anna499"),
            lambda: list(reader.begin(Selection())[1]),
        ):
            with pytest.raises(LeadsUnavailable) as raised:
                ask()
            assert "anna" not in str(raised.value)
    assert caplog.messages and "anna" not in caplog.text.replace(str(home), "")


def test_a_damaged_older_book_takes_nobodys_page_away_and_is_named_once(
    home: Home, reader: BookReader, caplog: pytest.LogCaptureFixture
) -> None:
    path = book_of(home.leads, lead("ann", 70)).path
    oldest, damaged = (home.leads / f"2025112{day}T081502120000Z-000004.parquet" for day in (1, 2))
    oldest.write_bytes(path.read_bytes())
    damaged.write_bytes(b"PAR1 ann PAR1")
    for _ in range(3):
        _, found, standings = reader.one("ann")
        assert found is not None and [standing.score for standing in standings] == [70, 70]
    (said,) = caplog.messages
    assert said.startswith(f"{damaged} is no whole lead book. Move it away") and "ann" not in said.replace(
        str(home), ""
    )
    os.utime(damaged, ns=(1, 1))
    reader.one("ann")
    assert len(caplog.messages) == 2


def test_damaged_pages_are_said_once_with_the_file_and_what_to_do(
    home: Home, reader: BookReader, caplog: pytest.LogCaptureFixture
) -> None:
    path = book_of(home.leads, *(lead(f"anna{number}") for number in range(500))).path
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * (len(whole) // 2) + whole[4 + len(whole) // 2 :])
    for _ in range(3):
        with pytest.raises(LeadsUnavailable, match="log says which file"):
            reader.page(LeadQuery(search="anna"))
    (said,) = caplog.messages
    assert str(path) in said and "move it away and run `inbox export leads`" in said
    assert "anna" not in said.replace(str(home), "")


def test_nothing_of_the_leads_is_spilled_and_nothing_is_fetched(reader: BookReader) -> None:
    said = dict(
        reader._sql.execute(
            "SELECT name, value FROM duckdb_settings() WHERE name IN "
            "('temp_directory', 'memory_limit', 'autoinstall_known_extensions', 'threads')"
        ).fetchall()
    )
    assert (said["temp_directory"], said["autoinstall_known_extensions"], said["threads"]) == ("", "false", "1")
