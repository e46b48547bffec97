"""`inbox classify-events`: a verdict on every event of a bare file, the same each time, and what it would change."""

from __future__ import annotations

from pathlib import Path

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from pipelines.simulator import Simulation, simulate
from tests.front_door import Said, inbox


def refused(said: Said, words: str) -> None:
    assert said.code == 1
    assert words in said.err


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(250, 90, seed=4)


@pytest.fixture(scope="module")
def directory(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, what was said of it, and the report."""
    place = tmp_path_factory.mktemp("classified")
    pq.write_table(simulation.events, place / "events.parquet")
    said = inbox(
        "classify-events",
        "--events",
        place / "events.parquet",
        "--out",
        place / "human.parquet",
        "--report",
        place / "report",
    )
    assert said.code == 0, said.err
    return place


def test_every_accepted_event_has_exactly_one_probability(simulation: Simulation, directory: Path) -> None:
    table = pq.read_table(directory / "human.parquet")
    assert table.schema.names == ["event_id", "human_probability"]
    assert table["event_id"].to_pylist() == sorted(set(simulation.events["event_id"].to_pylist()))
    told = table.to_pandas().human_probability
    assert told.between(0, 1).all()


def test_people_are_told_from_machines_without_a_label(simulation: Simulation, directory: Path) -> None:
    told = (
        pq.read_table(directory / "report" / "evidence.parquet").to_pandas().merge(simulation.truth_events.to_pandas())
    )
    engaged = told[told.kind.notna()]
    assert (engaged[engaged.is_human].human_probability >= 0.5).mean() > 0.99
    assert (engaged[~engaged.is_human].human_probability < 0.5).mean() > 0.85
    proxied = engaged[(engaged.agent == "image_proxy") & (engaged.kind == "open")]
    assert (proxied.human_probability >= 0.5).mean() > 0.995
    assert (told[told.kind.isna()].human_probability == 1).all()


def test_the_same_file_gives_the_same_bytes_in_either_order_and_format(
    simulation: Simulation, directory: Path, tmp_path: Path
) -> None:
    pq.write_table(
        simulation.events.slice(0, simulation.events.num_rows).sort_by("event_id"), tmp_path / "events.parquet"
    )
    for name in ("first.parquet", "second.parquet", "third.csv"):
        assert inbox("classify-events", "--events", tmp_path / "events.parquet", "--out", tmp_path / name).code == 0
    assert (tmp_path / "first.parquet").read_bytes() == (directory / "human.parquet").read_bytes()
    assert (tmp_path / "second.parquet").read_bytes() == (directory / "human.parquet").read_bytes()
    assert csv.read_csv(tmp_path / "third.csv").equals(pq.read_table(directory / "human.parquet"))


def test_the_report_says_what_counting_machines_would_change(directory: Path) -> None:
    told = orjson.loads((directory / "report" / "report.json").read_bytes())
    evidence = pq.read_table(directory / "report" / "evidence.parquet").to_pandas()
    opens, clicks = (evidence[evidence.kind == kind] for kind in ("open", "click"))
    assert told["learnt_from_this_log"]
    assert told["total"]["opens"] == len(opens)
    assert told["total"]["human_clicks"] == pytest.approx(clicks.human_probability.sum(), abs=1e-3)
    assert sum(row["opens"] for row in told["campaigns"]) == len(opens)
    assert told["people"]["only_machines"] == told["people"]["active"] - told["people"]["active_by_people"] > 0
    page = (directory / "report" / "report.html").read_text()
    assert f"{len(opens):,}" in page and "c001" in page
    assert "s000" not in page


def test_nothing_raw_is_written(directory: Path) -> None:
    written = b"".join(path.read_bytes() for path in (directory / "report").iterdir())
    for raw in (b"Mozilla", b"192.0.2", b"https://example.com"):
        assert raw not in written


@pytest.mark.parametrize(
    ("column", "value"),
    [("event_type", "opened"), ("occurred_at", "yesterday"), ("event_id", ""), ("subscriber_id", "ann@example.com")],
)
def test_a_bad_row_is_left_out_and_counted(column: str, value: str, tmp_path: Path) -> None:
    good = {"event_id": "a", "subscriber_id": "s1", "event_type": "open", "occurred_at": "2026-01-31T09:00:00Z"}
    pd.DataFrame([good, good | {"event_id": "b", column: value}]).to_csv(tmp_path / "events.csv", index=False)
    said = inbox("classify-events", "--events", tmp_path / "events.csv", "--out", tmp_path / "human.csv")
    assert said.code == 0, said.err
    assert "1 quarantined" in said.out
    assert csv.read_csv(tmp_path / "human.csv").to_pylist() == [{"event_id": "a", "human_probability": 1.0}]


def test_what_cannot_be_read_or_written_is_refused_in_words(directory: Path, tmp_path: Path) -> None:
    events = directory / "events.parquet"
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"event_id": ["a"]}), tmp_path / "narrow.parquet")
    out = tmp_path / "human.parquet"
    refused(inbox("classify-events", "--events", tmp_path / "none.parquet", "--out", out), "there is no such file")
    refused(inbox("classify-events", "--events", tmp_path / "torn.parquet", "--out", out), "not a whole Parquet file")
    refused(
        inbox("classify-events", "--events", tmp_path / "narrow.parquet", "--out", out), "lacks the required column"
    )
    refused(inbox("classify-events", "--events", events, "--out", tmp_path / "human.txt"), "ends in none of")
    refused(inbox("classify-events", "--events", events, "--out", tmp_path), "ends in none of")
    assert not out.exists()
