"""The interface of the serving contract, alone and inside the Bento."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.admission import FEW_IDS
from serving.answers import ARROW_MEDIA_TYPE, SCORED_SCHEMA, NonFiniteScore, Scores, UnevenColumns, render_json
from serving.app import Engine
from serving.keys import create_key
from serving.schemas import ScoreRequest, ScoreResponse
from serving.service import Scoring
from tests.serving.stand_in import SCORED_AT, SEND_AT, FixedScorer, Front, fixed_columns, front, serving

VERSIONS = {"churn": "7", "lead_score": "4", "send_time": "9"}


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Front]:
    behind = front(tmp_path)
    yield behind
    behind.close()


@pytest.fixture
def client(behind: Front) -> Iterator[httpx.Client]:
    with serving(behind.guard) as url, httpx.Client(base_url=url, headers=behind.headers) as client:
        yield client


def test_the_answer_is_the_contracts_to_the_letter(client: httpx.Client) -> None:
    answer = client.post("/v1/scores", json={"subscriber_ids": ["s00017", "new1", "s00017"]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    said = answer.json()
    ScoreResponse.model_validate_json(answer.content)
    assert said.keys() == {"request_id", "scored_at", "models", "scores"}
    assert said["scored_at"] == "2026-11-23T08:15:02.120Z"
    assert said["models"] == VERSIONS
    assert [row["subscriber_id"] for row in said["scores"]] == ["s00017", "new1", "s00017"]
    assert said["scores"][0] == {
        "subscriber_id": "s00017",
        "status": "ok",
        "feature_age_s": 412,
        "churn": {"probability": 0.18, "band": "low", "percentile": 31},
        "lead_score": {"probability": 0.07, "score": 81, "grade": "B"},
        "send_time": {
            "send_at": "2026-11-24T07:00:00Z",
            "hour_of_week": 31,
            "probability": 0.041,
            "gain": 0.12,
            "gain_interval": [0.03, 0.21],
            "confident": True,
            "pool_weight": 0.4,
            "arm": "exploit",
            "propensity": 0.95,
            "timezone_assumed": False,
        },
    }
    assert (said["scores"][1]["status"], said["scores"][1]["feature_age_s"]) == ("prior", None)


def test_only_the_models_asked_for_answer(client: httpx.Client) -> None:
    said = client.post("/v1/scores", json={"subscriber_ids": ["s1"], "models": ["churn"]}).json()
    assert said["models"] == {"churn": "7"}
    assert said["scores"][0].keys() == {"subscriber_id", "status", "feature_age_s", "churn"}


def test_reasons_come_only_when_asked_for(client: httpx.Client) -> None:
    asked = {"subscriber_ids": ["s1"], "explain": True}
    said = client.post("/v1/scores", json=asked)
    ScoreResponse.model_validate_json(said.content)
    assert said.json()["scores"][0]["churn"]["reasons"] == ["opened often"]
    assert "reasons" not in client.post("/v1/scores", json=asked | {"explain": False}).text


def test_one_subscriber_by_path_is_one_subscriber_by_body(client: httpx.Client) -> None:
    query = {"models": "churn,send_time", "window_hours": "12", "quiet_hours": "22,7", "content": ["a", "b"]}
    one = client.get("/v1/scores/a%2Fb%20%C3%A9", params=query).json()
    many = client.post("/v1/scores", json={"subscriber_ids": ["a/b é"], "models": ["churn", "send_time"]}).json()
    assert one.pop("request_id") != many.pop("request_id")
    assert one == many


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/scores/", "subscriber_id"), ("/v1/scores/%ff", "subscriber_id"), ("/v1/scores/s1?colour=red", "colour")],
)
def test_a_wrong_path_is_refused_by_field(client: httpx.Client, path: str, field: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert answer.json()["field"] == field


def test_arrow_holds_the_same_columns(client: httpx.Client) -> None:
    ids = ["new1", *(f"s{i}" for i in range(999))]
    answer = client.post("/v1/scores", json={"subscriber_ids": ids}, headers={"accept": ARROW_MEDIA_TYPE})
    assert answer.headers["content-type"] == ARROW_MEDIA_TYPE
    table = pa.ipc.open_stream(answer.content).read_all()
    optional = {"churn_reasons", "lead_score_reasons", "lead_score_converted"}
    assert table.column_names == [name for name in SCORED_SCHEMA.names if name not in optional]
    assert table["subscriber_id"].to_pylist() == ids
    assert table.schema.metadata[b"request_id"]
    first = table.slice(0, 1).to_pylist()[0]
    assert first["feature_age_s"] is first["last_engagement_at"] is None
    assert (first["send_time_send_at"], first["scored_at"]) == (SEND_AT, SCORED_AT)
    assert (first["churn_model_version"], first["lead_score_percentile"]) == ("7", 88)


def test_many_and_few_give_the_same_answer(client: httpx.Client) -> None:
    few = client.post("/v1/scores", json={"subscriber_ids": ["s1"] * FEW_IDS}).json()
    many = client.post("/v1/scores", json={"subscriber_ids": ["s1"] * (FEW_IDS + 1)}).json()
    assert few["scores"] == many["scores"][1:]


def test_what_was_answered_is_written_down_and_counted(tmp_path: Path) -> None:
    behind = front(tmp_path, FixedScorer(store_failed=True))
    with serving(behind.guard) as url:
        said = httpx.get(f"{url}/v1/scores/new1?campaign_id=c1", headers=behind.headers).json()
        metrics = httpx.get(f"{url}/metrics").text
    behind.close()
    [path] = (tmp_path / "var" / "predictions").iterdir()
    rows = pq.read_table(path).to_pylist()
    assert {row["request_id"] for row in rows} == {said["request_id"]}
    assert {row["campaign_id"] for row in rows} == {"c1"}
    assert 'inbox_scores_total{status="prior"} 1.0' in metrics
    assert "inbox_store_errors_total 1.0" in metrics


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "column", ["churn_probability", "lead_score_probability", "send_time_gain_low", "send_time_propensity"]
)
def test_a_score_that_is_no_number_never_leaves(column: str, bad: float) -> None:
    columns = fixed_columns(ScoreRequest(subscriber_ids=("s1", "s2")))
    columns[column] = np.array([0.5, bad])
    with pytest.raises(NonFiniteScore, match=column):
        Scores(columns)


def test_columns_of_different_length_are_refused() -> None:
    columns = fixed_columns(ScoreRequest(subscriber_ids=("s1", "s2")))
    with pytest.raises(UnevenColumns):
        Scores(columns | {"churn_band": ["low"]})


def test_json_keeps_every_bit_of_a_probability() -> None:
    columns = fixed_columns(ScoreRequest(subscriber_ids=("s1",), models=("churn",)))
    columns["churn_probability"] = np.array([np.nextafter(0.1, 1)])
    said = orjson.loads(render_json(Scores(columns), "r1", SCORED_AT, VERSIONS, explain=False))
    assert said["scores"][0]["churn"]["probability"] == np.nextafter(0.1, 1)


@pytest.fixture
def bento(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """The Bento itself over an empty home, all of its middleware included."""
    monkeypatch.setenv("INBOX_HOME", str(tmp_path))
    key = create_key(tmp_path / "var" / "keys.json", "test")
    headers = {"authorization": f"Bearer {key}"}
    with serving(Scoring.to_asgi(), "on") as url, httpx.Client(base_url=url, headers=headers) as client:
        yield client


def test_the_bento_describes_both_endpoints_and_fetches_nothing(bento: httpx.Client) -> None:
    description = bento.get("/docs.json").json()
    assert description["openapi"].startswith("3.1")
    assert {"/v1/scores", "/v1/scores/{subscriber_id}", "/livez", "/readyz", "/metrics"} <= description["paths"].keys()
    asked = description["paths"]["/v1/scores"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert asked["properties"].keys() == ScoreRequest.model_fields.keys()
    one = description["paths"]["/v1/scores/{subscriber_id}"]["get"]
    assert {parameter["name"] for parameter in one["parameters"]} >= {"subscriber_id", "models", "quiet_hours"}
    for operation in (one, description["paths"]["/v1/scores"]["post"]):
        [deadline] = [parameter for parameter in operation["parameters"] if parameter["in"] == "header"]
        assert (deadline["name"], deadline["schema"]["maximum"]) == ("X-Deadline-Ms", 60_000)
    assert one["responses"].keys() == {"200", "400", "401", "408", "413", "415", "429"}
    assert "http" not in bento.get("/").text.replace("http-equiv", "")


def test_the_bento_lives_before_it_is_ready(bento: httpx.Client) -> None:
    assert bento.get("/livez").status_code == 200
    unready = bento.get("/readyz")
    assert (unready.status_code, unready.json()["code"]) == (503, "service_unavailable")
    assert bento.get("/v1/scores/s1").json()["scores"][0]["status"] == "prior"


def test_the_bento_counts_what_it_writes_down(bento: httpx.Client) -> None:
    metrics = bento.get("/metrics").text
    for name in ("written_total", "dropped_total", "lost_total", "waiting"):
        assert f"inbox_predictions_{name} 0.0" in metrics


def test_nothing_in_the_bento_names_a_subscriber(bento: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert bento.get("/v1/scores/anna").status_code == 200
        assert bento.get("/v1/scores/anna?window_hours=anna").status_code == 400
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert ours and not any("anna" in line for line in ours)
    assert "anna" not in bento.get("/metrics").text


def test_a_defect_inside_the_bento_does_not_hang_its_caller(bento: httpx.Client) -> None:

    def fail(columns: dict[str, Any]) -> None:
        raise KeyError

    engine = Scoring.mount_apps[0][0].state.engine
    assert isinstance(engine, Engine)
    engine.scorer = FixedScorer(spoil=fail)
    started = time.monotonic()
    answer = bento.get("/v1/scores/s1")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_server_error")
    assert time.monotonic() - started < 2
