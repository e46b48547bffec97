"""What the verbs say to bad input: one clear sentence, an exit code, nothing lost, never a traceback."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.home import Home
from features.log import EventLog
from pipelines.about import About, about_home
from pipelines.cli import VERBS
from pipelines.materialize import materialize
from tests.front_door import Said, inbox

START = datetime(2026, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


def sent_and_opened(subscribers: int, days: int, until: int | None = None) -> list[Row]:
    """A send every three days to everybody; of each, every second person opens. Opens end on day ``until``."""
    events = []
    for day in range(0, days, 3):
        for person in range(subscribers):
            at = START + timedelta(days=day, hours=9 + person % 5)
            shared = {"subscriber_id": f"s{person}", "campaign_id": f"c{day}"}
            events.append(shared | {"event_id": f"{day}-{person}-s", "event_type": "sent", "occurred_at": at})
            if (day + person) % 2 and day < (until or days):
                opened = {"event_id": f"{day}-{person}-o", "event_type": "open", "occurred_at": at + timedelta(hours=1)}
                events.append(shared | opened)
    return events


def sent_and_sometimes_opened(subscribers: int, days: int) -> list[Row]:
    """The same sends; some people open more than others, and half of them stop one day."""
    rng = np.random.default_rng(7)
    eagerness = rng.uniform(0.1, 0.8, subscribers)
    leaving = np.where(rng.random(subscribers) < 0.5, rng.uniform(30, days, subscribers), days)
    events = []
    for event in sent_and_opened(subscribers, days):
        if event["event_type"] == "sent":
            events.append(event)
            person, day = int(event["subscriber_id"][1:]), (event["occurred_at"] - START).days
            if day < leaving[person] and rng.random() < eagerness[person]:
                opened = event["occurred_at"] + timedelta(hours=float(rng.exponential(6)))
                event_id = event["event_id"].replace("s", "o")
                events.append(event | {"event_id": event_id, "event_type": "open", "occurred_at": opened})
    return events


def people(count: int, **columns: Any) -> list[Row]:
    return [{"subscriber_id": f"s{i}", "created_at": START, **columns} for i in range(count)]


def put(rows: list[Row], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def refused(said: Said, *words: str, code: int = 1) -> None:
    """It ended with this code, said these words, and no traceback."""
    everything = f"{said.out} {said.err}"
    assert said.code == code, everything
    assert "Traceback" not in everything and "defect of ours" not in everything
    for word in words:
        assert word in everything, everything


def ingested(home: Path, events: list[Row], subscribers: list[Row] | None = None) -> Said:
    place = home.parent / "given"
    arguments: list[str | Path] = ["--events", put(events, place / "events.parquet")]
    if subscribers:
        arguments += ["--subscribers", put(subscribers, place / "subscribers.parquet")]
    said = inbox("ingest", *arguments, "--home", home)
    assert said.code == 0, said.err
    return said


def emptied(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def truncated(path: Path) -> Path:
    put(sent_and_opened(20, 30), path)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def rowless(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(sent_and_opened(1, 3)).slice(0, 0), path)
    return path


def without_column(path: Path) -> Path:
    return put([{"event_id": "1", "subscriber_id": "s1", "occurred_at": START}], path)


def wrong_type(path: Path) -> Path:
    return put([{"event_id": "1", "subscriber_id": "s1", "event_type": "open", "occurred_at": 3.5}], path)


def naive_times(path: Path) -> Path:
    naive = datetime(2026, 1, 1)
    return put([{"event_id": "1", "subscriber_id": "s1", "event_type": "open", "occurred_at": naive}], path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (emptied, ("cannot be read", "unreadable_file")),
        (truncated, ("cannot be read", "unreadable_file")),
        (rowless, ("holds no rows", "empty_input")),
        (without_column, ("lacks the required column(s) event_type", "missing_columns")),
        (wrong_type, ("events.occurred_at is", "wrong_column_type")),
        (naive_times, ("without a time zone", "wrong_column_type")),
        (lambda path: path, ("cannot be read", "unreadable_file")),
    ],
    ids=["empty", "truncated", "no rows", "missing column", "wrong type", "naive", "no file"],
)
def test_a_file_at_fault_is_named_and_changes_nothing(
    home: Path, tmp_path: Path, spoil: Callable[[Path], Path], words: tuple[str, ...]
) -> None:
    ingested(home, sent_and_opened(2, 6))
    before = EventLog(Home(home)).fingerprint()
    refused(inbox("ingest", "--events", spoil(tmp_path / "bad.parquet"), "--home", home), *words)
    assert EventLog(Home(home)).fingerprint() == before


def test_a_file_at_fault_keeps_the_good_ones_given_with_it_out_too(home: Path, tmp_path: Path) -> None:
    good = put(sent_and_opened(2, 6), tmp_path / "events.parquet")
    bad = emptied(tmp_path / "subscribers.parquet")
    refused(inbox("ingest", "--events", good, "--subscribers", bad, "--home", home), "subscribers.parquet")
    assert not Home(home).event_log.exists()


def test_bad_rows_are_counted_by_reason_and_stop_no_other(home: Path) -> None:
    good = {"event_type": "open", "occurred_at": START, "received_at": START}
    events = [
        good | {"event_id": "1", "subscriber_id": "s1"},
        good | {"event_id": "2", "subscriber_id": "jane@example.com"},
        good | {"event_id": "3", "subscriber_id": "s1", "event_type": "opened"},
        good | {"event_id": "4", "subscriber_id": "s1", "received_at": START - timedelta(hours=1)},
        good | {"event_id": "1", "subscriber_id": "s2"},
    ]
    said = ingested(home, events)
    assert "1 new events" in said.out and "4 quarantined" in said.out
    for word in ("e-mail", "event_type", "received", "other content"):
        assert word in said.out, said.out
    assert "jane" not in said.out


def test_an_unknown_time_zone_is_noted_and_the_person_kept(home: Path) -> None:
    said = ingested(home, sent_and_opened(1, 3), people(1, timezone="Mars/Olympus"))
    assert "1 subscribers" in said.out and "unknown time zone" in said.out


def test_the_same_files_again_change_nothing(home: Path) -> None:
    ingested(home, sent_and_opened(3, 6), people(3))
    before = EventLog(Home(home)).fingerprint()
    said = ingested(home, sent_and_opened(3, 6), people(3))
    assert "0 new events" in said.out
    assert EventLog(Home(home)).fingerprint() == before


@pytest.mark.slow
def test_a_list_without_conversions_loses_its_lead_score_and_nothing_else(home: Path) -> None:
    ingested(home, sent_and_sometimes_opened(150, 180), people(150))
    said = inbox("train", "--horizon", "churn=20d", "--home", home)
    refused(said, "lead_score: all", "labels are 0", "churn version 1", "send_time version 1", code=0)
    assert "Trained 2 of 3 models: churn, send_time." in said.out


def test_a_list_of_one_subscriber_is_refused_by_name(home: Path) -> None:
    ingested(home, sent_and_opened(1, 200), people(1))
    said = inbox("train", "--home", home)
    refused(said, "churn: ", "lead_score: ", "send_time: ", "Trained 0 of 3 models: none.")


def test_nobody_active_in_the_window_is_said(home: Path) -> None:
    silent = [event for event in sent_and_opened(30, 200) if event["event_type"] == "sent"]
    ingested(home, silent, people(30))
    refused(inbox("train", "churn", "--home", home), "churn: no row is eligible", "activity window")


def test_a_log_too_short_for_its_horizon_says_which(home: Path) -> None:
    ingested(home, sent_and_opened(5, 12), people(5))
    refused(inbox("train", "churn", "--home", home), "churn: a label needs", "--horizon")


@pytest.mark.parametrize(
    ("horizon", "words"),
    [
        ("churn", ("churn", "is no duration")),
        ("churn=soon", ("'soon' is no duration",)),
        ("churn=-3d", ("is no duration",)),
        ("churn=0d", ("--horizon churn", "'0d'")),
        ("churn=99999999999d", ("--horizon churn",)),
        ("churn=9999999d", ("--horizon churn",)),
        ("90d", ("names no model",)),
        ("chrun=90d", ("names no model",)),
    ],
)
def test_a_horizon_that_is_none_is_refused_before_any_work(home: Path, horizon: str, words: tuple[str, ...]) -> None:
    refused(inbox("train", "--horizon", horizon, "--home", home), *words, "unusable_option")
    assert not home.exists()


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("train",), ("There is no event in the log", "inbox ingest"), 1),
        (("materialize",), ("There is no event in the log", "inbox ingest"), 1),
        (("score",), ("There is no event in the log", "inbox ingest"), 1),
        (("export",), ("There is no event in the log", "inbox ingest"), 1),
        (("serve", "--replay"), ("There is no event in the log",), 1),
        (("promote",), ("churn was never trained", "Promoted 0 of 3 models."), 1),
        (("promote", "churn", "--version", "7"), ("churn was never trained",), 1),
        (("models",), ("0 versions.",), 0),
        (("doctor",), ("inbox ingest", "inbox train"), 0),
        (("serve", "--revoke-key", "nobody"), ("nobody", "is no active key"), 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_verb_too_early_says_what_comes_first(
    home: Path, arguments: tuple[str, ...], words: tuple[str, ...], code: int
) -> None:
    refused(inbox(*arguments, "--home", home), *words, code=code)


@pytest.mark.parametrize("verb", ["score", "export"])
def test_scores_before_a_promotion_are_refused(home: Path, verb: str) -> None:
    ingested(home, sent_and_opened(2, 6))
    refused(inbox(verb, "--home", home), "no model bundle", "inbox promote", "bundle_missing")


def test_an_export_without_a_lead_score_says_which_model_lacks(small_home: Home, tmp_path: Path) -> None:
    copy = Home(tmp_path / "home")
    for part in (small_home.event_log, small_home.bundles):
        shutil.copytree(part, copy.var / part.name)
    for file in (small_home.catalogue, small_home.var / "bundle.key"):
        shutil.copy(file, copy.var / file.name)
    materialize(copy, lambda share: None)
    shutil.rmtree(copy.bundles / "lead_score")
    shutil.rmtree(copy.bundles / "send_time")
    refused(inbox("export", "--home", copy.root), "no model bundle at", "lead_score", "bundle_missing")
    assert not copy.exports.exists()


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("train", "chrun"), ("no model 'chrun'",), 1),
        (("score", "chrun"), ("no model 'chrun'",), 1),
        (("score", "--at", "soon"), ("--at", "is no instant"), 1),
        (("score", "--at", "2026-01-01T10:00:00"), ("names no time zone",), 1),
        (("materialize", "--as-of", "soon"), ("--as-of", "is no instant"), 1),
        (("serve", "--now", "soon"), ("--now", "is no instant"), 1),
        (("serve", "--port", "99999"), ("--port",), 2),
        (("doctor", "--port", "0"), ("--port",), 2),
        (("export", "people"), ("'people' is not known",), 1),
        (("ingest",), ("at least one of --events",), 1),
        (("train", "--fast"), ("No such option",), 2),
        (("materialise",), ("there is no verb 'materialise'",), 2),
        (("simulate", "--subscribers", "0"), ("--out",), 2),
        (("demo", "--data", "nowhere"), ("nowhere is no directory",), 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_call_is_told_apart(home: Path, arguments: tuple[str, ...], words: tuple[str, ...], code: int) -> None:
    verb, *rest = arguments
    where = ["--home", home] if verb not in ("simulate", "materialise") else []
    refused(inbox(verb, *rest, *where), *words, code=code)


def test_a_file_is_no_home(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    refused(inbox("doctor", "--home", file), "--home", "is a file")


def test_a_taken_port_is_said(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused(inbox("serve", "--port", port, "--home", home), f"port {port} is taken", "service_failed")


def test_a_demo_leaves_another_list_alone(home: Path, tmp_path: Path) -> None:
    ingested(home, sent_and_opened(2, 6))
    before = EventLog(Home(home)).fingerprint()
    put(sent_and_opened(3, 9), tmp_path / "other" / "events.parquet")
    said = inbox("demo", "--data", tmp_path / "other", "--home", home)
    refused(said, "already holds 'given'", "unusable_option")
    assert EventLog(Home(home)).fingerprint() == before
    assert about_home(Home(home)).name == "given"


def test_a_demo_of_a_directory_without_events_says_what_it_looked_for(home: Path, tmp_path: Path) -> None:
    refused(inbox("demo", "--data", tmp_path, "--home", home), "holds no events.parquet")


def test_a_demo_on_a_list_that_teaches_nothing_ends_with_the_reasons(home: Path, tmp_path: Path) -> None:
    put(sent_and_opened(1, 30), tmp_path / "one" / "events.parquet")
    said = inbox("demo", "--data", tmp_path / "one", "--home", home)
    refused(said, "churn: ", "lead_score: ", "send_time: ", "no model can be learnt", "demo_failed")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    said = inbox(verb, "--help")
    assert said.code == 0, said.err
    assert "Example" in said.out and f"inbox {verb}" in said.out


def test_without_a_verb_all_are_told() -> None:
    said = inbox()
    assert said.code == 0
    assert all(verb in said.out for verb in VERBS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", ("is no TOML file",)),
        ("nmae = 'x'", ("does not know nmae",)),
        ("name = 3", ("name is not a text",)),
        ("simulated = 'no'", ("simulated is not true or false",)),
        ("caveats = 'one'", ("caveats is not a list of texts",)),
        ("caveats = [1]", ("caveats is not a list of texts",)),
        ("default_timezone = 'Mars/Olympus'", ("no IANA time zone",)),
        ("horizons = '90d'", ("horizons is not a table",)),
        ("[horizons]\nchurn = 90", ("horizons is not a table of texts",)),
        ("[horizons]\nchrun = '90d'", ("horizons knows no chrun",)),
        ("[horizons]\nchurn = 'soon'", ("horizons.churn", "is no duration")),
    ],
)
def test_a_list_toml_that_is_not_understood_stops_the_ingest(
    home: Path, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    events = put(sent_and_opened(2, 6), tmp_path / "events.parquet")
    (tmp_path / "list.toml").write_text(text)
    refused(inbox("ingest", "--events", events, "--home", home), "list.toml", *words, "unusable_option")
    assert not Home(home).event_log.exists()


def test_a_damaged_word_about_the_list_is_named(home: Path) -> None:
    ingested(home, sent_and_opened(2, 6))
    (home / "var" / "list.json").write_bytes(b"{")
    refused(inbox("train", "--home", home), "list.json", "remove it and ingest again")
    refused(inbox("doctor", "--home", home), "list.json", "broken")


def test_what_a_list_says_is_kept_as_it_was_said(tmp_path: Path) -> None:
    home = Home(tmp_path)
    about = About("shop", True, "orders", "CC0", "Europe/Paris", ("mind",), {"churn": "90d"})
    about.save(home)
    assert about_home(home) == about
    assert about.horizon("churn") == timedelta(days=90) and about.horizon("lead_score") is None


def test_what_a_list_said_of_itself_outlasts_a_later_file_without_words(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    About(name="toys", simulated=True, given=True).save(home)
    About(name="elsewhere").save(home)
    assert about_home(home).simulated
    About(name="books", given=True).save(home)
    assert about_home(home).name == "books"


def test_a_list_without_sends_learns_at_which_hours_its_people_are_active(tmp_path: Path) -> None:
    orders = Path(__file__).parent.parent.parent / "examples" / "online_retail"
    files = ["--events", orders / "events.parquet", "--subscribers", orders / "subscribers.parquet"]
    assert inbox("ingest", *files, "--home", tmp_path).code == 0
    said = inbox("train", "send_time", "--home", tmp_path)
    assert said.code == 0, said.err
    assert "send_time version 1" in said.out
