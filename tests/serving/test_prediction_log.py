"""The prediction log: whole files, a bounded queue, and a caller that never waits."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.clock import instant
from serving.prediction_log import LOG_SCHEMA, PredictionLog, Served, to_rows
from serving.schemas import Context, ScoreRequest
from tests.serving.stand_in import SCORED_AT, SEND_AT, FixedScorer


def served(*subscriber_ids: str, request_id: str = "r1", scored_at: datetime = SCORED_AT, **asked: Any) -> Served:
    scorer = FixedScorer()
    request = ScoreRequest(subscriber_ids=subscriber_ids or ("s1",), **asked)
    return Served(request_id, request.context, scored_at, scorer.versions, scorer.score(request, scored_at))


def written(directory: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(directory.glob("*.parquet"))])


def test_every_score_is_a_row_with_its_model_arm_and_propensity(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    context = Context(
        campaign_id="c12", content=("shoes",), default_send_at=SEND_AT, window_hours=12, quiet_hours=(22, 7)
    )
    assert log.offer(served("s1", "new2", context=context))
    log.close()
    table = written(tmp_path)
    assert table.schema.equals(LOG_SCHEMA)
    rows = table.to_pylist()
    assert [(row["model"], row["subscriber_id"], row["status"]) for row in rows] == [
        (model, *who) for model in ("churn", "lead_score", "send_time") for who in (("s1", "ok"), ("new2", "prior"))
    ]
    assert rows[1]["feature_age_s"] is None
    assert (rows[0]["probability"], rows[0]["arm"], rows[0]["send_at"]) == (0.18, None, None)
    assert rows[4] == {
        "request_id": "r1",
        "campaign_id": "c12",
        "content": ["shoes"],
        "default_send_at": SEND_AT,
        "window_hours": 12,
        "quiet_from": 22,
        "quiet_to": 7,
        "subscriber_id": "s1",
        "scored_at": SCORED_AT,
        "status": "ok",
        "prior": None,
        "feature_age_s": 412.7,
        "state_as_of": instant(1.7e15),
        "state_checksum": 2**64 - 1,
        "model": "send_time",
        "model_version": "9",
        "probability": 0.041,
        "send_at": SEND_AT,
        "hour_of_week": 31,
        "arm": "exploit",
        "propensity": 0.95,
        "exploit_probability": None,
        "default_probability": None,
    }


def test_nothing_in_the_log_is_not_a_number() -> None:
    table = pa.concat_tables(to_rows([served("s1", "new2")]))
    for column in table.select(["probability", "propensity", "feature_age_s"]).columns:
        assert np.isfinite(column.drop_null().to_numpy()).all()


def test_a_full_queue_is_counted_and_nobody_waits(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, queue_rows=7, roll_rows=1_000)
    started = time.perf_counter()
    taken = [log.offer(served(request_id=str(i))) for i in range(1_000)]
    assert time.perf_counter() - started < 1
    assert sum(taken) == 2 and log.waiting_rows == 6
    assert log.dropped_rows == 3 * 998
    log.close()
    assert log.written_rows == written(tmp_path).num_rows == 6


def test_a_closed_log_takes_nothing_more(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.close()
    assert not log.offer(served())
    assert log.dropped_rows == 3
    assert list(tmp_path.iterdir()) == []


def test_an_answer_without_scores_writes_no_file(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    nothing = FixedScorer().score(ScoreRequest(subscriber_ids=("s1",)), SCORED_AT)
    bare = {name: nothing.columns[name] for name in ("subscriber_id", "status", "feature_age_s")}
    assert log.offer(Served("r1", None, SCORED_AT, {}, type(nothing)(bare)))
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_when_enough_rows_wait(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, roll_rows=30, roll_seconds=3_600)
    for _ in range(10):
        log.offer(served())
    deadline = time.monotonic() + 10
    while not log.written_rows and time.monotonic() < deadline:
        time.sleep(0.01)
    assert log.written_rows == 30
    log.close()


def test_a_file_is_written_when_rows_have_waited_long_enough(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, roll_seconds=0.05)
    log.offer(served())
    deadline = time.monotonic() + 10
    while not log.written_rows and time.monotonic() < deadline:
        time.sleep(0.01)
    assert log.written_rows == 3
    log.close()


def test_files_are_whole_or_absent_while_they_are_written(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, roll_rows=3)
    for i in range(200):
        log.offer(served(request_id=str(i)))
        for path in tmp_path.glob("*.parquet"):
            pq.read_metadata(path)
    log.close()
    assert sorted({row["request_id"] for row in written(tmp_path).to_pylist()}, key=int) == [str(i) for i in range(200)]
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet"}


def test_a_disk_that_refuses_costs_rows_but_not_the_service(tmp_path: Path) -> None:
    directory = tmp_path / "predictions"
    directory.write_text("in the way")
    log = PredictionLog(directory, roll_rows=3)
    log.offer(served())
    deadline = time.monotonic() + 10
    while not log.lost_rows and time.monotonic() < deadline:
        time.sleep(0.01)
    directory.unlink()
    log.offer(served())
    log.close()
    assert (log.lost_rows, log.written_rows) == (3, 3)
