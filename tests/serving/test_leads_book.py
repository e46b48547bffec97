"""The directory of lead books: which there are, which came before which, and one person's way through them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.home import Home
from serving.leads.book import (
    BookUnreadable,
    Standing,
    before,
    book_id,
    books,
    history,
    moment_of,
    newest,
    open_book,
    row,
    same_moment,
)
from tests.pipelines.lead_books import NAME, NOW, book_of, lead

WEEK = timedelta(days=7)


def published(home: Home, at: datetime, version: str, *scores: tuple[str, int]) -> Path:
    """A book of that moment among a home's books."""
    name = book_id(at, version)
    leads = [lead(who, score, scored_at=at, model_version=version) for who, score in scores]
    book = book_of(home.leads / "beside", *leads, book_id=name, scored_at=at.isoformat(), model_version=version)
    return book.path.rename(home.leads / f"{name}.parquet")


moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
versions = st.integers(1, 999_999).map(str)


@given(moments, versions, moments, versions)
def test_names_sort_by_time_and_then_by_version(one: datetime, first: str, other: datetime, second: str) -> None:
    by_name = book_id(one, first) < book_id(other, second)
    assert by_name == ((one, int(first)) < (other, int(second)))
    assert moment_of(book_id(one, first)) == one


def test_a_moment_has_one_name_in_every_zone() -> None:
    assert book_id(NOW.astimezone(timezone(timedelta(hours=9))), "4") == book_id(NOW, "4") == NAME


def test_only_books_are_listed_and_oldest_first(tmp_path: Path) -> None:
    home = Home(tmp_path / "a [home]*")
    assert books(home) == [] and newest(home) is None
    later, first = published(home, NOW, "4", ("ann", 1)), published(home, NOW - WEEK, "12", ("ann", 1))
    for foreign in ("leads.parquet", f"{NAME}.parquet.tmp", f".{NAME}.parquet", f"{NAME}-copy.parquet", "notes.txt"):
        (home.leads / foreign).write_text("no book")
    (home.leads / ".making").mkdir()
    (home.leads / ".making" / f"{NAME}.parquet").write_text("no book yet")
    assert books(home) == [first, later]
    found = newest(home)
    assert found is not None and (found.path, found.model_version, found.rows) == (later, "4", 1)


def test_the_book_before_is_the_latest_that_is_earlier_whether_the_later_is_there_or_not(tmp_path: Path) -> None:
    home = Home(tmp_path)
    paths = [published(home, NOW + number * WEEK, "4", ("ann", 1)) for number in range(3)]
    assert before(home, paths[0].stem) is None
    assert before(home, paths[2].stem) == paths[1]
    assert before(home, book_id(NOW + 9 * WEEK, "1")) == paths[2]
    assert before(home, book_id(NOW, "5")) is None
    assert before(home, book_id(NOW + WEEK, "5")) == before(home, book_id(NOW + WEEK, "1")) == paths[0]


def test_books_of_a_moment_are_all_versions_of_it_and_no_other_moment(tmp_path: Path) -> None:
    home = Home(tmp_path)
    two = [published(home, NOW, version, ("ann", 1)) for version in ("4", "12")]
    published(home, NOW + timedelta(microseconds=1), "4", ("ann", 1))
    assert same_moment(home, book_id(NOW, "7")) == two
    assert same_moment(home, book_id(NOW - WEEK, "4")) == []


def test_a_history_is_everybody_books_they_are_in_oldest_first(tmp_path: Path) -> None:
    home = Home(tmp_path)
    published(home, NOW + 2 * WEEK, "5", ("ann", 95), ("bob", 20))
    published(home, NOW, "4", ("bob", 30), ("ann", 40))
    published(home, NOW + WEEK, "4", ("bob", 25))
    assert history(home, "ann") == [
        Standing(NOW, 40, "C", 0.2, "4"),
        Standing(NOW + 2 * WEEK, 95, "A", 0.475, "5"),
    ]
    assert [one.score for one in history(home, "bob")] == [30, 25, 20]
    assert history(home, "an") == history(home, "ANN") == []


def test_a_row_is_found_in_whichever_row_group_it_is(tmp_path: Path) -> None:
    path = published(Home(tmp_path), NOW, "4", *((f"s{number}", number) for number in range(100)))
    pq.write_table(pq.read_table(path), path, row_group_size=7)
    for number in (0, 6, 7, 99):
        found = row(path, f"s{number}", ("rank", "score"))
        assert found == {"rank": number + 1, "score": number}
    whole = row(path, "s8")
    assert whole is not None and whole["subscriber_id"] == "s8" and whole["scored_at"] == NOW
    assert row(path, "s100") is None
    path.unlink()
    assert row(path, "s1") is None


def no_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1 nothing of the kind")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def of_other_columns(path: Path) -> None:
    pq.write_table(pa.table({"rank": [1]}), path)


def without_its_facts(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)


@pytest.mark.parametrize("damage", [no_parquet, cut_off, of_other_columns, without_its_facts])
def test_what_is_no_whole_book_is_named_with_what_to_do(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    home = Home(tmp_path)
    path = published(home, NOW, "4", ("ann", 1))
    damage(path)
    looks: list[Callable[[], object]] = [lambda: open_book(path), lambda: newest(home)]
    for look in looks:
        with pytest.raises(BookUnreadable, match=r"is no whole lead book\. Move it away") as raised:
            look()
        assert raised.value.path == path and "ann" not in str(raised.value)


def test_damage_in_the_middle_is_noticed_where_it_is_read(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = published(home, NOW, "4", *((f"s{number}", 1) for number in range(500)))
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    path.write_bytes(content)
    with pytest.raises(BookUnreadable):
        history(home, "s400")


def test_a_book_that_goes_while_it_is_opened_gives_way_to_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    older, gone = published(home, NOW - WEEK, "4", ("ann", 1)), published(home, NOW, "4", ("ann", 2))
    opened = open_book

    def late(path: Path) -> object:
        gone.unlink(missing_ok=True)
        return opened(path)

    monkeypatch.setattr("serving.leads.book.open_book", late)
    found = newest(home)
    assert found is not None and found.path == older
