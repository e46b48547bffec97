"""Two records of one person become one, and a person leaves; both everywhere, and again without change."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue import Catalogue
from features.forgetting import forget as forget_events
from features.home import Home
from features.identity import Pseudonyms, rotate
from features.log import EventLog
from features.merges import FORGOTTEN
from features.stores import open_store
from pipelines import people
from pipelines.inbox import Intake, drained
from pipelines.materialize import materialize
from tests.front_door import inbox
from tests.pipelines.lead_books import NAME, book_of, lead
from tests.pipelines.test_inbox import message


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Three people, materialized; one event more of each waits in the inbox."""
    home = Home(tmp_path / "home")
    rows = [message(event_id=f"{who}-{n}", subscriber_id=who) for who in ("ann", "anna", "bob") for n in range(3)]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(rows))
    EventLog(home).append(tmp_path / "events.jsonl", None, None)
    materialize(home, lambda share: None)
    Intake(home, "events").take([message(event_id=f"{who}-9", subscriber_id=who) for who in ("ann", "anna", "bob")])
    return home


def stored(home: Home, *ids: str) -> list[bool]:
    with closing(open_store(home)) as store:
        _, found = store.read(list(ids), Catalogue.load(home.catalogue))
        return [bool(one) for one in found]


def counts(home: Home) -> dict[str, int]:
    drained(home)
    found = EventLog(home).connect().table("events").to_pyarrow()["subscriber_id"].value_counts().to_pylist()
    return {one["values"]: one["counts"] for one in found}


def files(home: Home) -> Iterator[Path]:
    return (path for path in home.root.rglob("*") if path.is_file())


def test_two_subscribers_become_one_in_the_log_and_in_the_store(home: Home) -> None:
    said = inbox("merge", "anna", "ann", "--home", home.root)
    assert said.code == 0, said.err
    assert "Merged; its state is folded anew" in said.out
    assert counts(home) == {"ann": 8, "bob": 4}
    assert stored(home, "ann", "anna", "bob") == [True, False, True]


def test_the_merged_state_is_the_one_that_a_materialization_makes(home: Home) -> None:
    inbox("merge", "anna", "ann", "--home", home.root)
    catalogue = Catalogue.load(home.catalogue)
    with closing(open_store(home)) as store:
        live, _ = store.read(["ann"], catalogue)
        materialize(home, lambda share: None)
        nightly, _ = store.read(["ann"], Catalogue.load(home.catalogue))
    both = [name for name in live.dtype.names if not name.endswith("as_of")]
    assert all(np.array_equal(live[name], nightly[name], equal_nan=True) for name in both)


def test_a_merge_again_changes_nothing(home: Home) -> None:
    inbox("merge", "anna", "ann", "--home", home.root)
    said = inbox("merge", "anna", "ann", "--home", home.root)
    assert said.code == 0 and "They were one already" in said.out
    assert counts(home) == {"ann": 8, "bob": 4}


@pytest.mark.parametrize(
    ("former", "into", "words"),
    [
        ("ann", "ann", "both ids are the same"),
        ("ann", "anna", "was merged into the first before"),
        ("anna", "bob", "merged into another subscriber before"),
        ("nobody", "ann", "FROM is nobody's id here"),
        ("ann", "nobody", "INTO is nobody's id here"),
    ],
)
def test_a_merge_that_cannot_be_is_refused_without_naming_anybody(
    home: Home, former: str, into: str, words: str
) -> None:
    inbox("merge", "anna", "ann", "--home", home.root)
    said = inbox("merge", former, into, "--home", home.root)
    assert said.code == 1 and words in said.err, said.err
    assert "Traceback" not in said.err and "bob" not in said.err
    assert counts(home) == {"ann": 8, "bob": 4}


def test_a_merge_before_anything_is_materialized_is_recorded(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    Intake(home, "events").take([message(event_id=who, subscriber_id=who) for who in ("a", "b")])
    said = inbox("merge", "a", "b", "--home", home.root)
    assert "Merged; no state is stored yet" in said.out, said.err
    assert counts(home) == {"b": 2}


def test_a_merge_in_an_empty_home_is_refused(tmp_path: Path) -> None:
    said = inbox("merge", "a", "b", "--home", tmp_path / "home")
    assert said.code == 1 and "FROM is nobody's id" in said.err


def test_who_is_forgotten_is_nowhere_any_more_under_any_id(home: Home) -> None:
    home.predictions.mkdir()
    log = pa.table({"subscriber_id": ["ann", "bob", "anna"], "probability": [0.1, 0.2, 0.3]})
    pq.write_table(log, home.predictions / "one.parquet")
    home.exports.mkdir()
    (home.exports / "leads.csv").write_text("subscriber_id\nann\n")
    inbox("merge", "anna", "ann", "--home", home.root)
    said = inbox("forget", "anna", "--yes", "--home", home.root)
    assert said.code == 0, said.err
    assert "1 states, 2 rows of predictions" in said.out and "exports may name the person" in said.out
    assert counts(home) == {"bob": 4}
    assert stored(home, "ann", "anna", "bob") == [False, False, True]
    assert pq.read_table(home.predictions / "one.parquet")["subscriber_id"].to_pylist() == ["bob"]
    shutil.rmtree(home.exports)
    for path in files(home):
        assert b"ann" not in path.read_bytes().replace(b"channel", b""), path


def test_what_is_told_again_of_who_was_forgotten_is_refused(home: Home, tmp_path: Path) -> None:
    inbox("forget", "ann", "--yes", "--home", home.root)
    said = inbox("ingest", "--events", tmp_path / "events.jsonl", "--home", home.root)
    assert "0 new events" in said.out, said
    taken = Intake(home, "events").take([message(event_id="ann-1", subscriber_id="ann")])
    assert taken.new == 0 and taken.quarantined == 1
    assert counts(home) == {"anna": 4, "bob": 4}


def test_forgetting_again_finds_nothing_and_says_so(home: Home) -> None:
    assert "forgotten already" not in inbox("forget", "ann", "--yes", "--home", home.root).out
    said = inbox("forget", "ann", "--yes", "--home", home.root)
    assert said.code == 0 and "was forgotten already. Removed 0 events, 0 profiles, 0 states, 0 rows" in said.out
    assert counts(home) == {"anna": 4, "bob": 4}


@pytest.mark.parametrize("who", ["stranger", "", "jo@example.com"])
def test_nobody_is_forgotten_under_an_id_that_nobody_has(home: Home, who: str) -> None:
    for _ in range(2):
        said = inbox("forget", who, "--yes", "--home", home.root)
        assert said.code == 1 and "SUBSCRIBER_ID is nobody's id here" in said.err
        assert "jo@" not in said.out + said.err
    assert counts(home) == {"ann": 4, "anna": 4, "bob": 4}


def test_somebody_known_by_an_address_is_forgotten_by_it_under_every_key(home: Home) -> None:
    names = [Pseudonyms.load(home)]
    rotate(home)
    names.append(Pseudonyms.load(home))
    ids = [each.subscriber_id("jo@example.com") for each in names]
    Intake(home, "events").take([message(event_id=who, subscriber_id=who) for who in ids])
    said = inbox("forget", " Jo@Example.com", "--yes", "--home", home.root)
    assert said.code == 0 and "Removed 2 events" in said.out, said.err
    assert "xample" not in said.out + said.err
    assert counts(home) == {"ann": 4, "anna": 4, "bob": 4}
    assert "was forgotten already" in inbox("forget", "jo@example.com", "--yes", "--home", home.root).out
    again = Intake(home, "events").take([message(event_id=who + "2", subscriber_id=who) for who in ids])
    assert (again.new, again.reasons) == (0, {FORGOTTEN: 2})


def test_a_person_who_is_only_in_quarantine_is_forgotten(home: Home) -> None:
    Intake(home, "events").take([message(event_id="x", subscriber_id="cy", event_type="sneeze")])
    said = inbox("forget", "cy", "--yes", "--home", home.root)
    assert said.code == 0 and "1 rows in quarantine" in said.out, said.err


def test_killed_after_the_events_and_called_with_a_former_id_no_state_is_left(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox("merge", "anna", "ann", "--home", home.root)

    def killed(*arguments: object, **named: object) -> None:
        forget_events(*arguments, **named)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(people, "forget_events", killed)
        assert inbox("forget", "anna", "--yes", "--home", home.root).code == 130
    assert inbox("forget", "anna", "--yes", "--home", home.root).code == 0
    assert stored(home, "ann", "anna", "bob") == [False, False, True]


def test_a_rewriting_that_was_killed_leaves_nothing_behind(home: Home) -> None:
    home.predictions.mkdir()
    left = home.predictions / "one.forgetting"
    left.write_text("ann")
    inbox("forget", "ann", "--yes", "--home", home.root)
    assert not left.exists()


def test_nobody_is_forgotten_without_a_yes(home: Home) -> None:
    assert inbox("forget", "ann", "--home", home.root).code == 1
    assert counts(home)["ann"] == 4


def book(home: Home, name: str, *who: str) -> Path:
    made = book_of(home.leads / "beside", *map(lead, who), book_id=name)
    return made.path.rename(home.leads / f"{name}.parquet")


def no_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1 ann and nothing of the kind")


def damaged_in_the_middle(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * (len(content) // 4) + content[4 + len(content) // 4 :])


def of_another_type(path: Path) -> None:
    pq.write_table(pa.table({"subscriber_id": [1]}), path)


@pytest.mark.parametrize("damage", [no_parquet, damaged_in_the_middle, of_another_type])
def test_a_damaged_book_is_named_after_the_person_is_gone_from_everything_else(
    home: Home, damage: Callable[[Path], None]
) -> None:
    inbox("merge", "anna", "ann", "--home", home.root)
    early, broken, late = (book(home, f"{year}{NAME[4:]}", "ann", "bob") for year in (2001, 2002, 2003))
    damage(broken)
    said = inbox("forget", "anna", "--yes", "--home", home.root)
    assert said.code == 1 and f"{broken.name} cannot be read" in said.err and "Move it" in said.err, said.err
    assert "Traceback" not in said.err and not re.search(r"\banna?\b", said.err)
    assert counts(home) == {"bob": 4} and stored(home, "ann", "anna", "bob") == [False, False, True]
    for path in (early, late):
        assert pq.read_table(path)["subscriber_id"].to_pylist() == ["bob"]
    broken.unlink()
    again = inbox("forget", "anna", "--yes", "--home", home.root)
    assert again.code == 0 and "was forgotten already. Removed 0 events" in again.out, again.err


def test_a_file_of_somebody_elses_among_the_books_is_left_alone(home: Home) -> None:
    home.leads.mkdir()
    notes = home.leads / "notes.parquet"
    notes.write_text("of ann")
    said = inbox("forget", "ann", "--yes", "--home", home.root)
    assert said.code == 0 and counts(home) == {"anna": 4, "bob": 4}, said.err
    assert notes.read_text() == "of ann"


def test_what_a_killed_export_left_is_cleared_when_somebody_is_forgotten(home: Home) -> None:
    for directory in (home.exports, home.reports):
        room = directory / ".writing-abcd1234"
        room.mkdir(parents=True)
        (room / ".lock").touch()
        (room / "leads.csv").write_text("ann")
    assert inbox("forget", "ann", "--yes", "--home", home.root).code == 0
    assert [*home.exports.iterdir(), *home.reports.iterdir()] == []
