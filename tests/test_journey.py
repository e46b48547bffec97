"""The whole line as a user walks it: verbs in order, real Feast, real MLflow, a real server; and the same bits everywhere."""

from __future__ import annotations

import csv
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import openpyxl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue import Catalogue
from features.contract import MODELS
from features.home import Home
from features.log import EventLog
from features.online import SqliteStateStore
from models.bundle import current
from pipelines.score import score_list
from pipelines.serve import Running, ready, running
from serving.answers import ARROW_MEDIA_TYPE
from serving.keys import read_keys
from serving.schemas import ScoreResponse
from serving.settings import ServingSettings
from tests.docs.guides import Followed
from tests.front_door import Said, inbox

pytestmark = pytest.mark.slow

STRANGER = "nobody-we-know"


@dataclass(frozen=True)
class Walk:
    """A home that was only ever touched through the verbs, and what they said on the way."""

    home: Home
    said: dict[str, Said]

    def verb(self, *arguments: str | Path) -> Said:
        return inbox(*arguments, "--home", self.home.root)


@pytest.fixture(scope="module")
def walk(begun: Followed, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """It goes on where a guide's beginning ends, which ingested and trained."""
    walk = Walk(Home(tmp_path_factory.mktemp("walk") / "home"), {})
    shutil.copytree(begun.place, walk.home.root)
    walk.said["beginning"] = Said(0, " ".join((begun.said[-1] or "").split()), "")
    for verb, *arguments in (
        ("promote", "--force", "--reason", "the journey"),
        ("materialize",),
        ("score", "--explain"),
        ("export", "leads"),
    ):
        walk.said[verb] = walk.verb(verb, *arguments)
        assert walk.said[verb].code == 0, f"{verb}: {walk.said[verb]}"
    return walk


@pytest.fixture(scope="module")
def scored(walk: Walk) -> pa.Table:
    return pq.read_table(walk.home.exports / "scores.parquet")


def test_each_verb_ends_with_what_it_did(walk: Walk, small_list: Path) -> None:
    people = pq.read_metadata(small_list / "subscribers.parquet").num_rows
    assert "new events" in walk.said["beginning"].out
    assert "Trained 3 of 3 models: churn, lead_score, send_time." in walk.said["beginning"].out
    assert "AUC" in walk.said["beginning"].out
    assert "Promoted 3 of 3 models." in walk.said["promote"].out
    assert f"{people:,} subscribers as of" in walk.said["materialize"].out
    assert f"Scored {people:,} subscribers" in walk.said["score"].out
    assert "without consent" in walk.said["export"].out


def test_models_says_who_serves_and_doctor_finds_nothing_broken(walk: Walk) -> None:
    models = walk.verb("models")
    assert models.code == 0 and "3 versions" in models.out and models.out.count("champion") == 3
    doctor = walk.verb("doctor", "--port", "1")
    assert doctor.code == 0 and "0 broken" in doctor.out and "SIMULATED" in doctor.out


def test_everybody_is_scored_and_a_no_stays_a_no(walk: Walk, scored: pa.Table) -> None:
    con = EventLog(walk.home).connect()
    people = con.to_pyarrow(con.table("subscribers").order_by("subscriber_id"))
    assert scored["subscriber_id"].to_pylist() == people["subscriber_id"].to_pylist()
    refused = [answer is False for answer in people["consent_profiling"].to_pylist()]
    assert [status == "no_consent" for status in scored["status"].to_pylist()] == refused
    assert 0 < sum(refused) < len(refused)
    assert set(scored["status"].to_pylist()) == {"ok", "no_consent"}


def test_the_three_exports_hold_the_same_leads(walk: Walk, scored: pa.Table) -> None:
    leads = pq.read_table(walk.home.exports / "leads.parquet")
    with (walk.home.exports / "leads.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    sheet = openpyxl.load_workbook(BytesIO((walk.home.exports / "leads.xlsx").read_bytes()), read_only=True)
    open_leads = sum(
        row["status"] != "no_consent" and not row["lead_score_converted"]
        for row in scored.select(["status", "lead_score_converted"]).to_pylist()
    )
    assert 0 < leads.num_rows == open_leads == len(rows) - 1
    assert sum(1 for _ in sheet["Leads"].iter_rows()) - 1 == open_leads
    assert leads["score"].to_pylist() == sorted(leads["score"].to_pylist(), reverse=True)


def test_each_verb_twice_gives_the_same(walk: Walk, small_list: Path, scored: pa.Table) -> None:
    again = walk.verb("ingest", "--events", small_list / "events.parquet")
    assert again.code == 0 and "0 new events" in again.out
    before = stored(walk)
    assert untimed(walk.verb("materialize")) == untimed(walk.said["materialize"])
    assert stored(walk) == before
    second = walk.home.root / "again.parquet"
    assert walk.verb("score", "--explain", "--out", second).code == 0
    assert pq.read_table(second).equals(scored)
    promoted = walk.verb("promote", "--force")
    assert promoted.code == 0 and walk.verb("models").out.count("champion") == 3


def untimed(said: Said) -> str:
    """The summary without how long the step took."""
    return re.sub(r"[\d,]+ rows/s", "", said.out.partition(" s) ")[2])


def stored(walk: Walk) -> bytes:
    """Every row of the online store."""
    con = EventLog(walk.home).connect()
    ids = con.to_pyarrow(con.table("subscribers").select("subscriber_id").order_by("subscriber_id"))
    states, found = SqliteStateStore(walk.home.online).read(
        ids["subscriber_id"].to_pylist(), Catalogue.known(walk.home.catalogue)
    )
    assert found.all()
    return bytes(states.tobytes())


def test_two_homes_learn_the_same_models_from_the_same_list(walk: Walk, small_home: Home) -> None:
    for model in MODELS:
        ours, theirs = current(walk.home, model), current(small_home, model)
        assert ours is not None and theirs is not None
        for part in ("model.lgb.txt", "golden.json", "bundle.json"):
            assert (ours / part).read_bytes() == (theirs / part).read_bytes(), f"{model}/{part}"


@pytest.fixture(scope="module")
def served(walk: Walk) -> Iterator[Running]:
    with running(walk.home, now=EventLog(walk.home).end() + timedelta(seconds=1)) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def ids(scored: pa.Table) -> list[str]:
    """Everybody, then somebody again, then somebody unknown."""
    everybody = [str(one) for one in scored["subscriber_id"].to_pylist()]
    return [*everybody, everybody[0], STRANGER]


def asked(client: httpx.Client, ids: list[str], **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/scores", json={"subscriber_ids": ids, **more})
    assert answer.status_code == 200, answer.text
    ScoreResponse.model_validate_json(answer.content)
    body: dict[str, Any] = answer.json()
    return body


def arrow(client: httpx.Client, ids: list[str], **more: Any) -> pa.Table:
    answer = client.post("/v1/scores", json={"subscriber_ids": ids, **more}, headers={"accept": ARROW_MEDIA_TYPE})
    assert answer.headers["content-type"] == ARROW_MEDIA_TYPE
    return pa.ipc.open_stream(answer.content).read_all()


def test_the_service_is_ready_and_answers_nobody_without_a_key(served: Running) -> None:
    assert ready(served.url)
    for headers in ({}, {"authorization": "Bearer wrong"}):
        answer = httpx.post(f"{served.url}/v1/scores", json={"subscriber_ids": ["s"]}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"


def test_one_subscriber_gets_an_answer_of_all_three_models(client: httpx.Client, scored: pa.Table) -> None:
    first = next(row for row in scored.to_pylist() if row["status"] == "ok")
    said = asked(client, [first["subscriber_id"]])
    assert said["models"] == dict.fromkeys(MODELS, "1")
    [row] = said["scores"]
    assert row["status"] == "ok" and 0 <= row["feature_age_s"] < 600
    assert row.keys() == {"subscriber_id", "status", "feature_age_s", *MODELS}


def test_many_come_back_in_order_each_with_its_status(client: httpx.Client, ids: list[str], scored: pa.Table) -> None:
    rows = asked(client, ids)["scores"]
    assert [row["subscriber_id"] for row in rows] == ids
    assert [row["status"] for row in rows[:-2]] == scored["status"].to_pylist()
    assert rows[-2] == rows[0]
    assert rows[-1]["status"] == "prior" and rows[-1]["feature_age_s"] is None
    objected = next(row for row in rows if row["status"] == "no_consent")
    for model in ("churn", "lead_score"):
        assert objected[model] == rows[-1][model]


def test_get_answers_as_post_does(client: httpx.Client, ids: list[str]) -> None:
    at = "2026-11-24T09:00:00Z"
    answer = client.get(f"/v1/scores/{ids[0]}", params={"default_send_at": at, "explain": "true"})
    assert answer.status_code == 200
    posted = asked(client, ids[:1], context={"default_send_at": at}, explain=True)["scores"]
    assert without_age(answer.json()["scores"]) == without_age(posted)


def test_explained_answers_have_reasons(client: httpx.Client, scored: pa.Table) -> None:
    known = [row["subscriber_id"] for row in scored.to_pylist() if row["status"] == "ok"][:5]
    for row in asked(client, known, explain=True)["scores"]:
        assert row["churn"]["reasons"] and row["lead_score"]["reasons"]


def test_arrow_and_json_say_the_same(client: httpx.Client, ids: list[str]) -> None:
    context = {"default_send_at": "2026-11-24T09:00:00Z", "window_hours": 48}
    rows = asked(client, ids, context=context)["scores"]
    table = arrow(client, ids, context=context).to_pylist()
    for said, row in zip(rows, table, strict=True):
        assert (said["subscriber_id"], said["status"]) == (row["subscriber_id"], row["status"])
        for model in MODELS:
            for name, value in said[model].items():
                wanted = told(row, f"{model}_{name}")
                # A few milliseconds passed between the two, and a line minds them.
                assert value == (pytest.approx(wanted, rel=1e-6) if isinstance(value, float) else wanted), name


def told(row: dict[str, Any], column: str) -> Any:
    """A cell of the scored table as JSON says it."""
    if column.endswith("gain_interval"):
        return [row["send_time_gain_low"], row["send_time_gain_high"]]
    value = row[column]
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def without_age(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Between two requests a second may have passed; what decays has done so by as much."""
    return [_rounded(row | {"feature_age_s": None}) for row in rows]


def _rounded(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: _rounded(value) for name, value in told.items()}
    return round(told, 5) if isinstance(told, float) else told


def test_a_batch_gives_the_bits_http_gave_at_the_same_instant(client: httpx.Client, walk: Walk, ids: list[str]) -> None:
    over_http = arrow(client, ids, explain=True)
    [scored_at] = set(over_http["scored_at"].to_pylist())
    batch = score_list(walk.home, lambda share: None, scored_at, ids=ids, explain=True)
    assert over_http.replace_schema_metadata(None).equals(batch)


def test_what_was_started_is_stopped_and_its_key_forgotten_even_when_the_block_fails(walk: Walk) -> None:
    keys = ServingSettings(home=walk.home.root).keys
    with pytest.raises(ZeroDivisionError), running(walk.home, key_name="passing") as served:
        assert "passing" in {record.name for record in read_keys(keys)}
        raise ZeroDivisionError
    assert not ready(served.url)
    assert "passing" not in {record.name for record in read_keys(keys)}


def test_a_worker_ends_when_its_supervisor_is_killed(walk: Walk) -> None:
    before = set(psutil.Process().children())
    with running(walk.home, key_name="orphan") as served:
        (supervisor,) = set(psutil.Process().children()) - before
        supervisor.kill()
        until = time.monotonic() + 30
        while ready(served.url) and time.monotonic() < until:
            time.sleep(0.2)
        assert not ready(served.url)
