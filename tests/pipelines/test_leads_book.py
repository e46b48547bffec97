"""The lead book: who is in it, in which order, what it says of changes, and what is left when making it fails."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import BundleMissing, StoreUnavailable, UnusableOption, Unwritable
from features.home import Home
from features.log import EventLog
from pipelines import people
from pipelines.about import About
from pipelines.leads import book as making
from pipelines.leads.book import BOOKS_KEPT, lead_book, make_book
from pipelines.leads.changes import changes_of
from pipelines.people import forget_person
from pipelines.score import score_list
from serving.answers import SCORED_SCHEMA
from serving.leads.book import BOOK_SCHEMA, Book, BookUnreadable, before, books, history, newest
from tests.front_door import inbox
from tests.pipelines.test_inbox import message

MONDAY = datetime(2026, 11, 16, 8, tzinfo=UTC)
WEEK = timedelta(days=7)
ABOUT = About(name="Spring list", simulated=True)
EMOJI, HEBREW, LONG = "👩‍👩‍👧 Zoë", "שלום \u200f=1+1", "x😀" * 20_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Profiles of three people."""
    home = Home(tmp_path / "a [home] of=1*")
    people = {
        "subscriber_id": ["ann", "bob", "cy"],
        "created_at": pa.array([MONDAY] * 3, pa.timestamp("us", tz="UTC")),
        "timezone": ["Europe/Berlin", None, None],
        "note": [EMOJI, HEBREW, LONG],
        "size": [3.0, None, 1e9],
        'row "of"': ["a", "b", "c"],
    }
    pq.write_table(pa.table(people), tmp_path / "subscribers.parquet")
    EventLog(home).append(None, tmp_path / "subscribers.parquet", None)
    return home


def scored(who: str, score: int = 50, **changes: Any) -> dict[str, Any]:
    row = {
        "subscriber_id": who,
        "status": "ok",
        "feature_age_s": 5_400.0,
        "last_engagement_at": MONDAY - timedelta(days=12),
        "churn_probability": 0.1,
        "churn_band": "low",
        "churn_reasons": ["↓ last click 12 days ago"],
        "lead_score_probability": score / 200,
        "lead_score_score": score,
        "lead_score_grade": "EDCBA"[score // 21],
        "lead_score_percentile": score,
        "lead_score_converted": False,
        "lead_score_reasons": ["↓ no purchase so far", "↑ last click 12 days ago", "↑ country: DE"],
        "lead_score_model_version": "3",
        "send_time_send_at": MONDAY + timedelta(hours=9),
        "send_time_gain": 0.02,
        "send_time_confident": True,
        "scored_at": MONDAY,
    }
    return row | changes


def table(*rows: dict[str, Any]) -> pa.Table:
    names = scored("anybody")
    return pa.Table.from_pylist(list(rows), schema=pa.schema([one for one in SCORED_SCHEMA if one.name in names]))


def made(home: Home, *rows: dict[str, Any], at: datetime = MONDAY, **changes: Any) -> Book:
    """A book of rows that come in two parts."""
    stamped = [row | changes | {"scored_at": at} for row in rows]
    return make_book(home, iter([table(*stamped[:1]), table(*stamped[1:])]), ABOUT)


def rows_of(book: Book) -> dict[str, dict[str, Any]]:
    return {row["subscriber_id"]: row for row in pq.read_table(book.path).to_pylist()}


def why(home: Home, then: dict[str, Any], now: dict[str, Any], **changes: Any) -> str | None:
    """What a second book says of somebody who stood differently in the first."""
    made(home, scored("ann", 50, **then))
    reason = rows_of(made(home, scored("ann", 60, **now), at=MONDAY + WEEK, **changes))["ann"]["change_reason"]
    return None if reason is None else str(reason)


def test_rows_stand_by_score_then_probability_then_id_and_ranks_count_from_one(home: Home) -> None:
    rows = [scored("b"), scored("ä"), scored("best", 97), scored("likelier", lead_score_probability=0.26), scored("a")]
    book = made(home, *rows)
    assert list(rows_of(book)) == ["best", "likelier", "a", "b", "ä"]
    assert [row["rank"] for row in rows_of(book).values()] == [1, 2, 3, 4, 5]


def test_a_book_says_what_it_is_and_has_the_agreed_columns(home: Home) -> None:
    book = made(home, scored("ann"))
    assert book.schema.equals(pq.read_schema(book.path))
    assert [(field.name, field.type) for field in book.schema][: len(BOOK_SCHEMA)] == [
        (field.name, field.type) for field in BOOK_SCHEMA
    ]
    assert book.attributes == ("note", "size", 'row "of"')
    assert (book.id, book.scored_at) == ("20261116T080000000000Z-000003", MONDAY)
    assert (book.list_name, book.simulated, book.previous_id, book.rows) == ("Spring list", True, None, 1)
    assert newest(home) == book


def test_who_may_not_be_exported_is_left_out_and_counted_once(home: Home) -> None:
    book = made(
        home,
        scored("ann"),
        scored("objected", 99, status="no_consent", lead_score_converted=True),
        scored("customer", 98, lead_score_converted=True),
        scored("broken", lead_score_probability=float("nan")),
        scored("endless", lead_score_probability=float("inf")),
    )
    assert list(rows_of(book)) == ["ann"]
    assert (book.left_out.no_consent, book.left_out.converted, book.left_out.unscored) == (1, 1, 2)


def test_who_refused_is_left_out_even_where_the_store_has_not_heard_of_them(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    told = {"subscriber_id": ["ann", "bob"], "created_at": [MONDAY, MONDAY], "consent_profiling": [False, True]}
    pq.write_table(pa.table(told), tmp_path / "subscribers.parquet")
    EventLog(home).append(None, tmp_path / "subscribers.parquet", None)
    book = made(home, scored("ann", status="prior"), scored("bob"))
    assert (list(rows_of(book)), book.left_out.no_consent) == (["bob"], 1)


def test_a_list_of_strangers_alone_is_refused(home: Home) -> None:
    with pytest.raises(StoreUnavailable, match="`inbox materialize` fills it"):
        made(home, scored("ann", status="prior"), scored("bob", status="prior"))
    assert books(home) == []


def test_a_score_as_of_a_past_moment_never_rests_on_what_was_learnt_since(small_home: Home) -> None:
    past = EventLog(small_home).end() - timedelta(days=30)
    with pytest.raises(UnusableOption, match="received after that moment"):
        score_list(small_home, lambda share: None, past)


def test_who_had_not_joined_by_a_moment_has_no_score_as_of_it(small_home: Home) -> None:
    con = EventLog(small_home).connect()
    joined = con.con.sql("select created_at from subscribers order by created_at").fetchall()
    con.disconnect()
    end = EventLog(small_home).end() + timedelta(microseconds=1)
    assert score_list(small_home, lambda share: None, end).num_rows == sum(at < end for (at,) in joined)


def test_reasons_for_and_against_are_told_apart_without_arrows(home: Home) -> None:
    ann = rows_of(made(home, scored("ann")))["ann"]
    assert ann["reasons_for"] == ["last click 12 days ago", "country: DE"]
    assert ann["reasons_against"] == ["no purchase so far"]
    assert ann["churn_reasons"] == ["↓ last click 12 days ago"]
    assert ann["data_age_hours"] == 1.5


def test_every_text_and_number_of_the_profile_survives(home: Home) -> None:
    rows = rows_of(made(home, *(scored(who) for who in ("ann", "bob", "cy", "dan"))))
    assert [rows[who]["profile_note"] for who in rows] == [EMOJI, HEBREW, LONG, None]
    assert [rows[who]["profile_size"] for who in rows] == [3.0, None, 1e9, None]
    assert [rows[who]['profile_row "of"'] for who in rows] == ["a", "b", "c", None]


def test_models_that_are_not_in_service_leave_their_columns_empty(home: Home) -> None:
    alone = table(scored("ann")).drop_columns(
        [name for name in table().column_names if name.startswith(("churn", "send_time"))]
    )
    ann = rows_of(make_book(home, iter([alone]), ABOUT))["ann"]
    assert (ann["churn_band"], ann["churn_reasons"], ann["recommended_send_at"]) == (None, None, None)


def test_the_same_again_gives_the_same_bytes_however_it_came(home: Home) -> None:
    rows = [scored(f"s{i:04d}", i % 101) for i in range(3_000)]
    made(home, *rows[::2], at=MONDAY - WEEK)
    first = made(home, *rows)
    written = first.path.read_bytes()
    again = make_book(home, iter([table(*rows[i : i + 700][::-1]) for i in range(0, 3_000, 700)]), ABOUT)
    assert again == first and again.path.read_bytes() == written


def test_a_first_book_compares_with_nothing(home: Home) -> None:
    book = made(home, scored("ann"))
    ann = rows_of(book)["ann"]
    compared = ("score_before", "grade_before", "score_change", "movement", "change_reason")
    assert [ann[name] for name in compared] == [None] * 5
    assert changes_of(book) is None


def test_a_second_book_says_who_moved(home: Home) -> None:
    made(home, scored("up", 50), scored("down", 50), scored("same", 50), scored("rescored", 50), scored("gone", 1))
    second = [scored("up", 97), scored("down", 3), scored("same", 50), scored("rescored", 51), scored("new", 50)]
    book = made(home, *second, at=MONDAY + WEEK)
    rows = rows_of(book)
    assert {who: row["movement"] for who, row in rows.items()} == {
        "up": "up",
        "rescored": "same",
        "new": "new",
        "same": "same",
        "down": "down",
    }
    assert [rows["up"][name] for name in ("score_before", "grade_before", "score_change")] == [50, "C", 47]
    assert [rows["new"][name] for name in ("score_before", "grade_before", "score_change")] == [None] * 3
    assert rows["new"]["change_reason"] == "new in this list"
    assert rows["same"]["change_reason"] is None
    assert (book.previous_id, book.gone) == ("20261116T080000000000Z-000003", 1)


def test_the_counts_of_the_changes_add_up_and_are_said_in_a_sentence(home: Home) -> None:
    made(home, scored("up", 50), scored("down", 50), scored("rescored", 50), scored("gone", 1))
    second = [scored("up", 97), scored("down", 3), scored("rescored", 51), scored("new", 50)]
    changes = changes_of(made(home, *second, at=MONDAY + WEEK))
    assert changes is not None
    assert (changes.new, changes.up, changes.down, changes.same, changes.rescored) == (1, 1, 1, 1, 3)
    assert {pair: count for pair, count in changes.moved.items() if count} == {
        ("C", "A"): 1,
        ("C", "E"): 1,
        ("C", "C"): 1,
    }
    assert len(changes.moved) == 25
    assert list(changes.reasons) == [("time passed without a new engagement", 3), ("new in this list", 1)]
    assert changes.in_words() == "2 leads changed grade since 16 Nov 2026 (1 up, 1 down), 1 is new, 1 is gone"


def test_another_model_is_said_first_and_its_reasons_are_not_compared(home: Home) -> None:
    engaged = {"last_engagement_at": MONDAY + timedelta(days=2), "lead_score_reasons": ["↑ site visits"]}
    said = why(home, {}, engaged, lead_score_model_version="12")
    assert said == "the model changed: version 3 to 12; engaged again, last on 18 Nov 2026"


def test_an_engagement_since_is_said_with_its_day_and_then_what_appeared(home: Home) -> None:
    now = {
        "last_engagement_at": MONDAY + timedelta(days=2),
        "lead_score_reasons": ["↑ 3 purchases so far", "↑ last click 2 days ago"],
    }
    assert why(home, {}, now) == "engaged again, last on 18 Nov 2026; now a reason: 3 purchases so far"
    assert (
        why(home, {"last_engagement_at": None}, now) == "engaged, last on 18 Nov 2026; now a reason: 3 purchases so far"
    )


def test_who_engaged_and_fell_all_the_same_is_not_told_that_it_was_for_that(home: Home) -> None:
    engaged = {"last_engagement_at": MONDAY + timedelta(days=2)}
    fell = {**engaged, "lead_score_score": 40}
    assert why(home, {}, fell) == "scored lower although engaged again, last on 18 Nov 2026"
    said = why(home, {}, fell | {"lead_score_reasons": ["↓ country: DE", "↓ bounced"]})
    assert said == "now a reason: bounced; no longer a reason: last click 12 days ago, no purchase so far"


def test_a_reason_with_another_number_is_the_same_reason(home: Home) -> None:
    reasons = {
        "↑ last click within the last day": "↑ last click 8 days ago",
        "↑ 1 email sent so far, the last 1 day ago": "↑ 1,002 emails sent so far, the last 2 months ago",
        "↓ on the list for 99 days": "↓ on the list for 4 months",
        "↑ about 3 in 10 emails": "↑ about 5 in 10 emails",
    }
    for then, now in reasons.items():
        said = why(home, {"lead_score_reasons": [then]}, {"lead_score_reasons": [now]})
        assert said == "time passed without a new engagement", then


def test_an_attribute_with_another_number_is_another_reason(home: Home) -> None:
    said = why(home, {"lead_score_reasons": ["↑ size: 11-50"]}, {"lead_score_reasons": ["↑ size: 51-200"]})
    assert said == "now a reason: size: 51-200; no longer a reason: size: 11-50"


def test_a_reason_that_only_turned_its_arrow_neither_came_nor_went(home: Home) -> None:
    said = why(home, {"lead_score_reasons": ["↑ country: DE"]}, {"lead_score_reasons": ["↓ country: DE"]})
    assert said == "time passed without a new engagement"


def test_the_commonest_reasons_are_counted_without_numbers_and_dates(home: Home) -> None:
    many = range(5)
    made(home, *(scored(f"s{i}", 50) for i in many))
    second = (
        scored(
            f"s{i}",
            60,
            last_engagement_at=MONDAY + timedelta(days=i + 1),
            lead_score_reasons=[f"↑ {i + 2} purchases so far", "↑ last click 1 day ago"],
        )
        for i in many
    )
    changes = changes_of(made(home, *second, at=MONDAY + WEEK))
    assert changes is not None and list(changes.reasons) == [
        ("engaged again", 5),
        ("now a reason: … purchase so far", 5),
    ]


def test_an_export_of_an_earlier_moment_compares_with_the_one_before_it(home: Home) -> None:
    oldest, latest = made(home, scored("ann", 10)), made(home, scored("ann", 90), at=MONDAY + 2 * WEEK)
    between = made(home, scored("ann", 50), at=MONDAY + WEEK)
    assert between.previous_id == oldest.id and rows_of(between)["ann"]["score_change"] == 40
    assert rows_of(latest)["ann"]["score_before"] == 10
    assert [path.stem for path in books(home)] == [oldest.id, between.id, latest.id]
    assert before(home, latest.id) == between.path


def test_the_newest_books_stay_and_the_one_just_made(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BOOKS_KEPT == 26
    monkeypatch.setattr(making, "BOOKS_KEPT", 2)
    ids = [made(home, scored("ann"), at=MONDAY + WEEK * week).id for week in (1, 2, 3)]
    assert [path.stem for path in books(home)] == ids[1:]
    early = made(home, scored("ann"))
    assert [path.stem for path in books(home)] == [early.id, *ids[1:]]
    made(home, scored("ann"), at=MONDAY + 4 * WEEK)
    assert not early.path.exists() and len(books(home)) == 2


def test_an_export_of_nobody_says_why_and_changes_nothing(home: Home) -> None:
    made(home, scored("ann"))
    left = sorted(home.leads.rglob("*"))
    objected = [scored("ann", status="no_consent"), scored("bob", status="no_consent")]
    with pytest.raises(UnusableOption, match="of 2 scored, 2 withheld consent, 0 converted"):
        made(home, *objected, at=MONDAY + WEEK)
    with pytest.raises(UnusableOption, match="of 0 scored"):
        make_book(home, iter(()), ABOUT)
    assert sorted(home.leads.rglob("*")) == left


def test_scores_without_a_lead_score_are_refused(home: Home) -> None:
    with pytest.raises(BundleMissing, match="lead_score"):
        make_book(home, iter([table(scored("ann")).drop_columns("lead_score_score")]), ABOUT)


def test_a_damaged_book_before_is_named(home: Home) -> None:
    damaged = made(home, scored("ann")).path
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(BookUnreadable, match="inbox export leads"):
        made(home, scored("ann"), at=MONDAY + WEEK)
    assert list(home.leads.iterdir()) == [damaged]


def test_a_full_disk_leaves_the_books_as_they_were(home: Home, small_disk: None) -> None:
    made(home, scored("ann"))
    left = {path: path.read_bytes() for path in home.leads.iterdir()}
    many = [scored(f"s{os.urandom(16).hex()}", i % 101) for i in range(3_000)]
    with pytest.raises(Unwritable, match="leads cannot be written"):
        made(home, *many, at=MONDAY + WEEK)
    assert {path: path.read_bytes() for path in home.leads.iterdir()} == left


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB: what a full disk does, without one."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_place_that_takes_no_file_is_named(home: Home) -> None:
    home.leads.touch()
    with pytest.raises(Unwritable, match="leads cannot be written"):
        made(home, scored("ann"))


def test_an_export_waits_for_the_one_before_and_clears_up_after_one_that_was_killed(home: Home) -> None:
    finished: list[Book] = []
    with making.alone(home):
        waiting = threading.Thread(target=lambda: finished.append(made(home, scored("ann"))))
        waiting.start()
        time.sleep(0.3)
        assert not finished
        # What lies there when its writer is gone.
        (home.leads / ".making").mkdir(parents=True)
        (home.leads / ".making" / "book.parquet").write_text("half")
    waiting.join()
    assert [path.name for path in home.leads.iterdir()] == [finished[0].path.name]


def test_who_is_forgotten_is_in_no_book_any_more(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    rows = [message(event_id=who, subscriber_id=who) for who in ("ann", "bob")]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(rows))
    EventLog(home).append(tmp_path / "events.jsonl", None, None)
    one, two = (made(home, scored("ann", 90), scored("bob"), at=at) for at in (MONDAY, MONDAY + WEEK))
    (home.leads / ".making").mkdir()
    (home.leads / ".making" / "scored.parquet").write_text("ann")
    said = inbox("forget", "ann", "--yes", "--home", home.root)
    assert said.code == 0 and "2 rows of predictions, trainings and lead books" in said.out, said.err
    assert history(home, "ann") == [] and len(history(home, "bob")) == 2
    assert [list(rows_of(book)) for book in (one, two)] == [["bob"], ["bob"]]
    assert pq.read_schema(two.path).metadata == two.schema.metadata
    assert not (home.leads / ".making").exists()


def test_forgetting_waits_for_an_export(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def tables(place: Home) -> Iterator[Path]:
        with (place.var / "leads.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return iter(())

    monkeypatch.setattr(people, "_tables", tables)
    forget_person(home, "ann")
    assert held == [True]


def test_a_book_takes_the_place_of_every_other_of_its_moment_also_after_a_rollback(home: Home) -> None:
    oldest = made(home, scored("ann", 10))
    withdrawn = made(home, scored("ann", 90), at=MONDAY + WEEK, lead_score_model_version="4")
    later = made(home, scored("ann", 20), at=MONDAY + WEEK + timedelta(microseconds=1))
    back = made(home, scored("ann", 30), at=MONDAY + WEEK)
    assert back.previous_id == oldest.id and rows_of(back)["ann"]["score_change"] == 20
    assert books(home) == [oldest.path, back.path, later.path] and not withdrawn.path.exists()
    later.path.unlink()
    assert newest(home) == back
    assert [one.score for one in history(home, "ann")] == [10, 30]
    retrained = made(home, scored("ann", 40), at=MONDAY + WEEK, lead_score_model_version="5")
    assert (newest(home), retrained.previous_id) == (retrained, oldest.id)


def test_a_book_of_a_moment_far_ahead_is_refused(home: Home) -> None:
    for ahead in (datetime(2099, 1, 1, tzinfo=UTC), datetime.now(UTC) + 2 * making.AHEAD):
        with pytest.raises(UnusableOption, match="--at: that moment is more than a day ahead of both"):
            lead_book(home, lambda share: None, ahead)
    assert books(home) == []


def test_a_list_that_ends_in_the_future_has_books_up_to_a_day_after_its_end(home: Home, tmp_path: Path) -> None:
    end = datetime(2098, 12, 31, tzinfo=UTC)
    told = {"subscriber_id": ["dan"], "created_at": pa.array([end], pa.timestamp("us", tz="UTC"))}
    pq.write_table(pa.table(told), tmp_path / "later.parquet")
    EventLog(home).append(None, tmp_path / "later.parquet", None)
    with pytest.raises(BundleMissing):
        lead_book(home, lambda share: None, end + making.AHEAD)
    with pytest.raises(UnusableOption, match="--at"):
        lead_book(home, lambda share: None, end + making.AHEAD + timedelta(microseconds=1))
