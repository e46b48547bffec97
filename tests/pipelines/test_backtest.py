"""`inbox backtest` as an engineer meets it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.front_door import Said, inbox
from tests.pipelines.test_verbs import refused

UNTIL = "2025-07-01"
EARLY = "2025-04-01"
"""Until when the least is learnt that a churn model can be made of."""


def asked(model: str, where: Path, out: Path, *more: str, until: str = UNTIL) -> Said:
    files = [f"--{name}={where / name}.parquet" for name in ("events", "subscribers", "campaigns")]
    return inbox("backtest", model, *files, "--train-until", until, "--out", out, *more)


@pytest.fixture(scope="module")
def churned(small_list: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Said, Path]:
    out = tmp_path_factory.mktemp("backtest") / "churn"
    moments = ("--test-as-of", "2025-04-01,2025-04-15", "--horizon", "30d")
    return asked("churn", small_list, out, *moments, until=EARLY), out


def test_it_says_how_good_the_model_is_beside_a_baseline(churned: tuple[Said, Path]) -> None:
    said, out = churned
    assert said.code == 0, said.err
    for words in ("questions about", "% churned", "% were foretold", "AUC 0.", "calibration error", str(out)):
        assert words in said.out


def test_predictions_hold_one_row_per_subscriber_and_moment(churned: tuple[Said, Path]) -> None:
    table = pq.read_table(churned[1] / "predictions.parquet")
    assert table.column_names[:4] == ["subscriber_id", "as_of", "probability", "label"]
    assert table.schema.field("as_of").type == pa.timestamp("us", "UTC")
    assert {at.strftime("%m-%d") for at in table["as_of"].to_pylist()} == {"04-01", "04-15"}
    assert table.select(["subscriber_id", "as_of"]).group_by(["subscriber_id", "as_of"]).aggregate([]).num_rows == len(
        table
    )
    probability = table["probability"].to_numpy()
    assert ((probability > 0) & (probability < 1)).all()
    assert set(table["label"].to_pylist()) == {0, 1}


def test_the_report_for_machines_has_intervals_and_baselines(churned: tuple[Said, Path]) -> None:
    report = orjson.loads((churned[1] / "report.json").read_bytes())
    judged = report["judged"]
    for metric in ("auc", "average_precision", "brier", "log_loss", "expected_calibration_error", "lift_quality"):
        found = judged["ours"][metric]
        assert found["low"] <= found["value"] <= found["high"]
    assert {"recency", "past rate", "logistic regression"} <= {rival["name"] for rival in judged["rivals"]}
    assert [part["name"] for part in judged["by_age"]] == ["0 days", "14 days"]
    assert len(judged["slices"]) > 3
    assert report["list"]["simulated"] is True


def test_the_report_for_people_loads_nothing(churned: tuple[Said, Path]) -> None:
    page = (churned[1] / "report.html").read_text()
    assert "Simulated data" in page and "Beside simple baselines" in page and "How fast it goes stale" in page
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)


def test_a_second_run_writes_the_same_predictions(churned: tuple[Said, Path], small_list: Path, tmp_path: Path) -> None:
    moments = ("--test-as-of", "2025-04-15,2025-04-01", "--horizon", "30d")
    again = asked("churn", small_list, tmp_path / "again", *moments, until=EARLY)
    assert again.code == 0
    first, second = (pq.read_table(where / "predictions.parquet") for where in (churned[1], tmp_path / "again"))
    assert first.equals(second)


def test_send_time_scores_every_later_send_and_writes_everybodys_week(small_list: Path, tmp_path: Path) -> None:
    said = asked("send_time", small_list, tmp_path / "out")
    assert said.code == 0, said.err
    events = pq.read_table(small_list / "events.parquet")
    until = pa.scalar(datetime.fromisoformat(UNTIL + "T00:00:00+00:00"), pa.timestamp("us", "UTC"))
    sent = events.filter(
        pc.and_(pc.equal(events["event_type"], "sent"), pc.greater_equal(events["occurred_at"], until))
    )
    predictions = pq.read_table(tmp_path / "out" / "predictions.parquet")
    assert sorted(predictions["event_id"].to_pylist()) == sorted(set(sent["event_id"].to_pylist()))
    weeks = pq.read_table(tmp_path / "out" / "send_time.parquet").to_pandas()
    everybody = pq.read_table(small_list / "subscribers.parquet")["subscriber_id"].to_pylist()
    assert sorted(weeks.subscriber_id) == sorted(everybody)
    probabilities = np.stack(weeks.probabilities)
    assert probabilities.shape == (len(everybody), 168)
    assert np.array_equal(probabilities.argmax(axis=1), weeks.hour_of_week_local)
    assert set(weeks.timezone) >= {"UTC", "Europe/Berlin"}


def test_leads_are_asked_about_at_creation_unless_moments_are_given(small_list: Path, tmp_path: Path) -> None:
    said = asked("lead_score", small_list, tmp_path / "out", "--horizon", "30d", "--retrain-every", "42d")
    assert said.code == 0, said.err
    predictions = pq.read_table(tmp_path / "out" / "predictions.parquet")
    subscribers = pq.read_table(small_list / "subscribers.parquet")
    created = dict(zip(subscribers["subscriber_id"].to_pylist(), subscribers["created_at"].to_pylist(), strict=True))
    later = {who for who, at in created.items() if at.isoformat() >= UNTIL}
    assert set(predictions["subscriber_id"].to_pylist()) == later
    assert len(set(predictions["trained_until"].to_pylist())) > 1
    assert None in predictions["label"].to_pylist()


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("churn", (), "--test-as-of"),
        ("churn", ("--test-as-of", "2025-06-01"), "before --train-until"),
        ("churn", ("--test-as-of", "soon"), "is no instant"),
        ("churn", ("--test-as-of", "2025-07-01", "--horizon", "9000d"), "needs 9000 days"),
        ("send_time", ("--as-of-policy", "grid"), "as of each send"),
        ("churn", ("--as-of-policy", "creation"), "has not engaged yet"),
        ("lead_score", ("--as-of-policy", "grid"), "say as of when to ask"),
        ("send_time", ("--response", "reply"), "give any, open, click"),
        ("lead_score", ("--retrain-every", "1h"), "would train"),
        ("spam_score", (), "spam_score"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    small_list: Path, tmp_path: Path, model: str, options: tuple[str, ...], words: str
) -> None:
    refused(asked(model, small_list, tmp_path / "out", *options), words)
    assert not (tmp_path / "out" / "predictions.parquet").exists()


def test_moments_too_late_to_judge_are_scored_and_said_so(small_list: Path, tmp_path: Path) -> None:
    moments = ("--test-as-of", "2025-09-20", "--horizon", "30d")
    said = asked("churn", small_list, tmp_path / "out", *moments, until=EARLY)
    assert said.code == 0, said.err
    assert "No question had an answer" in said.out
    assert set(pq.read_table(tmp_path / "out" / "predictions.parquet")["label"].to_pylist()) == {None}


def test_a_place_that_cannot_be_written_is_named(small_list: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    words = ("--test-as-of", EARLY, "--horizon", "30d")
    refused(asked("churn", small_list, tmp_path / "file" / "out", *words, until=EARLY), "could not be written")


ORDERS = Path(__file__).parent.parent.parent / "examples" / "online_retail"


def hours_of(events: pa.Table, place: Path) -> pa.Table:
    place.mkdir()
    pq.write_table(events, place / "events.parquet")
    files = ["--events", place / "events.parquet", "--subscribers", ORDERS / "subscribers.parquet"]
    said = inbox("backtest", "send_time", *files, "--train-until", "2010-06-01", "--out", place / "out")
    assert said.code == 0, said.err
    assert "knows no sends" in said.out
    assert pq.read_table(place / "out" / "predictions.parquet").num_rows == 0
    return pq.read_table(place / "out" / "send_time.parquet")


def test_without_sends_the_hours_of_later_activity_change_nobodys_week(tmp_path: Path) -> None:
    events = pq.read_table(ORDERS / "events.parquet")
    until = pa.scalar(datetime.fromisoformat("2010-06-01T00:00:00+00:00"), pa.timestamp("us", "UTC"))
    earlier = events.filter(pc.less(events["received_at"], until))
    assert hours_of(events, tmp_path / "whole").equals(hours_of(earlier, tmp_path / "cut"))


def test_who_came_after_the_last_event_is_scored_too(small_list: Path, tmp_path: Path) -> None:
    events = pq.read_table(small_list / "events.parquet")
    cut = pa.scalar(datetime.fromisoformat("2025-08-01T00:00:00+00:00"), pa.timestamp("us", "UTC"))
    pq.write_table(events.filter(pc.less(events["received_at"], cut)), tmp_path / "events.parquet")
    files = ["--events", tmp_path / "events.parquet", "--subscribers", small_list / "subscribers.parquet"]
    said = inbox("backtest", "lead_score", *files, "--train-until", UNTIL, "--out", tmp_path / "out", "--horizon", "7d")
    assert said.code == 0, said.err
    subscribers = pq.read_table(small_list / "subscribers.parquet")
    later = [at for at in subscribers["created_at"].to_pylist() if at.isoformat() >= UNTIL]
    assert pq.read_table(tmp_path / "out" / "predictions.parquet").num_rows == len(later)


def test_a_moment_before_the_log_is_refused(small_list: Path, tmp_path: Path) -> None:
    files = [f"--{name}={small_list / name}.parquet" for name in ("events", "subscribers")]
    said = inbox("backtest", "send_time", *files, "--train-until", "2020-01-01", "--out", tmp_path / "out")
    refused(said, "nothing was known before")
