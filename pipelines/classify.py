"""Telling people from machines in a bare file of events: the verdict on every event, and what it would change.

What enters: events in the input contract, without labels. What leaves: a human probability per accepted event, the evidence
behind each, and a summary by campaign, person and evidence. The promise: the same file gives the same bytes, every accepted
event has one row, and nothing raw (user agent, address, url) is in any of it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from features.contract import ENGAGEMENT_TYPES
from features.errors import UnusableOption
from features.evidence import verdicts_on, with_human_probability
from features.home import Home
from features.judge import HUMAN_THRESHOLD, PATTERNS, Pattern, Weights, table_of
from features.log import EventLog, IntakeReport
from features.machines import learn_machines, pattern_counts
from pipelines.about import About, about_files
from pipelines.console import Narrator
from pipelines.files import replacing

SUFFIXES = (".parquet", ".csv")
WORDS = ("kind", "agent", "network", "haste", "burst", "trap")
MOST_PATTERNS = 40
"""Evidence classes in the summary, the most frequent first."""


@dataclass(frozen=True)
class Classified:
    """Every accepted event with its verdict, and what the verdicts change."""

    about: About
    intake: IntakeReport
    weights: Weights | None
    events: pa.Table
    """Ordered by ``event_id``: that, ``human_probability`` and the ``code`` of the evidence."""
    campaigns: list[dict[str, Any]]
    """Per campaign and for the whole: opens and clicks as counted and as people made them."""
    people: dict[str, int]
    """Who counts as active: with machines, and by what people did."""
    patterns: list[dict[str, Any]]
    """The most frequent evidence on engagement: in words, how many events, and their probability."""

    @property
    def learnt(self) -> bool:
        return self.weights is not None

    @property
    def machines(self) -> int:
        """Engagement events more likely a machine's."""
        codes = self.events["code"].to_numpy()
        return int(((self.events["human_probability"].to_numpy() < HUMAN_THRESHOLD) & (codes < PATTERNS)).sum())

    def described(self) -> dict[str, Any]:
        """For programs."""
        return {
            "list": self.about.name,
            "simulated": self.about.simulated,
            "events": len(self.events),
            "learnt_from_this_log": self.learnt,
            "machine_events": self.machines,
            "people": self.people,
            "total": self.campaigns[0],
            "campaigns": self.campaigns[1:],
            "evidence": self.patterns,
        }


def classify(events: Path, narrator: Narrator) -> Classified:
    """Judge every event of a file (or a directory of files), learning from it what its machines are like.

    Raises
    ------
    EventError
        When the file as a whole is at fault; a bad row is left out and counted.
    """
    with tempfile.TemporaryDirectory(prefix="inbox-classify-") as place:
        log, about = EventLog(Home(Path(place))), about_files(events)
        with narrator.step("read the events") as share:
            intake = log.append(events, None, None, share)
        con = log.connect()
        with narrator.step("learn what machines are like"):
            weights = learn_machines(pattern_counts(con, log.end() + timedelta(microseconds=1)))
        with narrator.step("judge"), verdicts_on(con, con.table("events")) as judged:
            standing = with_human_probability(judged.filter(judged.superseded_us.isnull()), table_of(weights))
            found = Classified(
                about,
                intake,
                weights,
                _told(con, standing),
                _campaigns(con, standing),
                _people(con, standing),
                _patterns(con, standing),
            )
        con.disconnect()
    return found


def _told(con: ibis.BaseBackend, standing: ir.Table) -> pa.Table:
    return con.to_pyarrow(standing.select("event_id", "code", human_probability="human").order_by("event_id"))


def _campaigns(con: ibis.BaseBackend, standing: ir.Table) -> list[dict[str, Any]]:
    """The whole first, then campaign by campaign."""
    responses = standing.filter(standing.event_type.isin(["open", "click"]))
    opened, clicked = responses.event_type == "open", responses.event_type == "click"
    # Sums of whole quanta do not depend on the order of rows or the number of threads.
    quanta = (responses.human * 2**30).round().cast("int64")
    counted = responses.group_by("campaign_id").aggregate(
        opens=opened.sum(),
        human_opens=quanta.sum(where=opened).fill_null(0).cast("float64"),
        clicks=clicked.sum(),
        human_clicks=quanta.sum(where=clicked).fill_null(0).cast("float64"),
    )
    rows = con.to_pyarrow(counted.order_by("campaign_id")).to_pylist()
    for row in rows:
        row |= {name: row[name] / 2**30 for name in ("human_opens", "human_clicks")}
    names = ("opens", "human_opens", "clicks", "human_clicks")
    total = {"campaign_id": None} | {name: sum(row[name] for row in rows) for name in names}
    return [total, *rows]


def _people(con: ibis.BaseBackend, standing: ir.Table) -> dict[str, int]:
    engaged = standing.filter(standing.event_type.isin(ENGAGEMENT_TYPES))
    likeliest = engaged.group_by("subscriber_id").aggregate(human=engaged.human.max())
    row = con.to_pyarrow(
        likeliest.aggregate(active=likeliest.count(), by_people=(likeliest.human >= HUMAN_THRESHOLD).sum().fill_null(0))
    ).to_pylist()[0]
    return {
        "active": row["active"],
        "active_by_people": row["by_people"],
        "only_machines": row["active"] - row["by_people"],
    }


def _patterns(con: ibis.BaseBackend, standing: ir.Table) -> list[dict[str, Any]]:
    engaged = standing.filter(standing.code < PATTERNS)
    counted = engaged.group_by("code", "human").aggregate(events=engaged.count())
    ranked = con.to_pyarrow(counted.order_by([ibis.desc("events"), "code"]).limit(MOST_PATTERNS)).to_pylist()
    return [
        {**Pattern.of_code(row["code"]).words, "events": row["events"], "human_probability": row["human"]}
        for row in ranked
    ]


def evidence_in_words(found: Classified) -> pa.Table:
    """``event_id``, ``human_probability`` and what each part of the evidence says; null for what a program does itself."""
    distinct = sorted({int(code) for code in found.events["code"].unique().to_pylist()})
    told = [Pattern.of_code(code).words if code < PATTERNS else dict.fromkeys(WORDS) for code in distinct]
    places = pa.array(np.searchsorted(distinct, found.events["code"].to_numpy()))
    columns = {word: pa.array([one[word] for one in told], pa.string()).take(places) for word in WORDS}
    return pa.table(
        {"event_id": found.events["event_id"], "human_probability": found.events["human_probability"], **columns}
    )


def refuse_unusable(out: Path) -> None:
    """
    Raises
    ------
    UnusableOption
        When the file's name does not say in which format it should be.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UnusableOption("--out", f"{out.name} ends in none of {', '.join(SUFFIXES)}; say which format by the name")
    if out.is_dir():
        raise UnusableOption("--out", f"{out} is a directory; give a file")


def write_probabilities(found: Classified, out: Path) -> None:
    """Exactly ``event_id`` and ``human_probability``, in Parquet or CSV by the name's ending; whole or not at all."""
    table = found.events.select(["event_id", "human_probability"])
    with replacing(out) as beside:
        if out.suffix.lower() == ".csv":
            csv.write_csv(table, beside)
        else:
            pq.write_table(table, beside, compression="zstd")


def write_evidence(found: Classified, directory: Path, page: str) -> None:
    """``evidence.parquet``, ``report.json`` and ``report.html`` into a directory."""
    with replacing(directory / "evidence.parquet") as beside:
        pq.write_table(evidence_in_words(found), beside, compression="zstd")
    with replacing(directory / "report.json") as beside:
        beside.write_bytes(orjson.dumps(found.described(), option=orjson.OPT_INDENT_2))
    with replacing(directory / "report.html") as beside:
        beside.write_text(page)
