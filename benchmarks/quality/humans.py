"""How well people are told from machines, and what that is worth to the models.

What enters: simulated lists, whose truth is known, and real opens (Outspot's) among which machines of several kinds are
planted. What leaves: a figure per list and rule. The promise: every rule judges the same events, and what is compared in the
ablation is judged by the same labels, the true ones.

Rules: ours with weights learnt from the log, ours with what is known beforehand, the user agent alone, and the rule before
this one (the agent, and clicks within 10 s of a delivery).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from features.contract import RAW_EVENT_COLUMNS
from features.evidence import verdicts_on
from features.fold import Folder
from features.home import Home
from features.judge import HASTES, KINDS, PATTERNS, Pattern, table_of
from features.log import EventLog
from features.machines import learn_machines, pattern_counts
from pipelines.about import About
from pipelines.backtest import folder_of, plan
from pipelines.simulator import START, simulate, write
from training.backtest import ask, train_until

Floats = npt.NDArray[np.float64]
BY_AGENT = {"unknown": 1.0, "person": 1.0, "image_proxy": 0.95, "prefetch": 0.05, "scanner": 0.02}
HASTY_CLICK = 0.05
PLANTED = 400
"""Machines of each kind among the real opens."""
KINDS_PLANTED = (
    "prefetch, named",
    "prefetch, no agent",
    "scanner, named",
    "scanner, browser in a cloud",
    "scanner, no agent",
)


def simulated(seed: int, subscribers: int, days: int) -> dict[str, dict[str, float]]:
    """Figures of each rule on one simulated list."""
    with tempfile.TemporaryDirectory() as place:
        simulation = simulate(subscribers, days, seed)
        write(simulation, Path(place) / "list")
        log = EventLog(Home(Path(place) / "home"))
        log.append(Path(place) / "list" / "events.parquet", Path(place) / "list" / "subscribers.parquet", None)
        judged = _judged(log)
    truth = simulation.truth_events.to_pandas().set_index("event_id").is_human
    judged["is_human"] = judged.event_id.map(truth).astype(bool)
    return {rule: _figures(judged, judged[rule].to_numpy()) for rule in RULES}


def _judged(log: EventLog) -> pd.DataFrame:
    """Every engagement event with what each rule says of it."""
    con = log.connect()
    weights = learn_machines(pattern_counts(con, log.end() + timedelta(microseconds=1)))
    with verdicts_on(con, con.table("events")) as verdicts:
        standing = verdicts.filter(verdicts.superseded_us.isnull(), verdicts.code < PATTERNS)
        found: pd.DataFrame = con.to_pyarrow(standing.select("event_id", "event_type", "agent", "code")).to_pandas()
    con.disconnect()
    hasty = np.array([_is_hasty_click(Pattern.of_code(code)) for code in range(PATTERNS)])
    by_agent = found.agent.map(BY_AGENT).to_numpy()
    found["learnt"] = table_of(weights).human[found.code]
    found["known beforehand"] = table_of(None).human[found.code]
    found["agent alone"] = by_agent
    found["agent and 10 s"] = np.where(hasty[found.code], np.minimum(by_agent, HASTY_CLICK), by_agent)
    return found


RULES = ("learnt", "known beforehand", "agent alone", "agent and 10 s")


def _is_hasty_click(pattern: Pattern) -> bool:
    return KINDS[pattern.kind] == "click" and HASTES[pattern.haste] in ("under 3 s", "under 10 s")


def _figures(judged: pd.DataFrame, human: Floats) -> dict[str, float]:
    person, kind = judged.is_human.to_numpy(), judged.event_type.to_numpy()
    opened, clicked = kind == "open", kind == "click"
    proxied = opened & (judged.agent == "image_proxy").to_numpy()
    return {
        "AUC": float(roc_auc_score(person, human)),
        "AUC opens": float(roc_auc_score(person[opened], human[opened])),
        "AUC clicks": float(roc_auc_score(person[clicked], human[clicked])),
        "false machines among image-proxy opens": float((human[proxied & person] < 0.5).mean()),
        "false machines among people's opens": float((human[opened & person] < 0.5).mean()),
        "false machines among people's clicks": float((human[clicked & person] < 0.5).mean()),
        "missed scanner clicks": float((human[clicked & ~person] >= 0.5).mean()),
        "missed prefetch opens": float((human[opened & ~person] >= 0.5).mean()),
    }


def planted(events: Path, seed: int) -> dict[str, dict[str, float]]:
    """Figures of each rule on real opens, all of people, with machines of several kinds planted among them."""
    chance = np.random.default_rng(seed)
    real = pq.read_table(events).select(list(RAW_EVENT_COLUMNS))
    rows = list(_machines(chance, real.to_pandas()))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "events.parquet"
        pq.write_table(pa.concat_tables([real, pa.Table.from_pylist(rows, schema=real.schema)]), path)
        log = EventLog(Home(Path(place) / "home"))
        log.append(path, None, None)
        judged = _judged(log)
    return {rule: _missed(judged, judged[rule].to_numpy()) for rule in RULES}


def _missed(judged: pd.DataFrame, human: Floats) -> dict[str, float]:
    kinds = judged.event_id.str.extract(r"^planted (\d) ")[0]
    figures = {"false machines among real opens": float((human[kinds.isna()] < 0.5).mean())}
    for number, name in enumerate(KINDS_PLANTED):
        figures[f"missed: {name}"] = float((human[(kinds == str(number)).to_numpy()] >= 0.5).mean())
    return figures


def _machines(chance: np.random.Generator, real: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """A send each, and what a machine did with it."""
    people, first, last = real.subscriber_id.unique(), real.occurred_at.min(), real.occurred_at.max()
    for kind in range(len(KINDS_PLANTED)):
        for number in range(PLANTED):
            sent = first + (last - first) * chance.random()
            fixed = {"subscriber_id": str(chance.choice(people)), "campaign_id": f"c{kind} {number}"}
            yield _row(f"sent {kind} {number}", "sent", sent, fixed)
            yield from _deeds(chance, kind, f"planted {kind} {number}", sent, fixed)


def _deeds(
    chance: np.random.Generator, kind: int, name: str, sent: pd.Timestamp, fixed: dict[str, str]
) -> Iterator[dict[str, Any]]:
    if kind < 2:
        agent = {"user_agent": "Mozilla/5.0", "ip": "17.58.1.1"} if kind == 0 else {}
        yield _row(name, "open", sent + pd.Timedelta(seconds=chance.uniform(1, 20)), fixed | agent)
        return
    browser = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0"
    told = ({"user_agent": "Barracuda Sentinel (EE)"}, {"user_agent": browser, "ip": "3.5.140.9"}, {})[kind - 2]
    for link in range(chance.integers(2, 6)):
        url = "https://example.com/unsubscribe" if link == 4 else f"https://example.com/{link}"
        at = sent + pd.Timedelta(seconds=chance.uniform(1, 8))
        yield _row(f"{name} {link}", "click", at, fixed | told | {"url": url})


def _row(event_id: str, kind: str, at: pd.Timestamp, more: dict[str, str]) -> dict[str, Any]:
    stamped = {"event_id": event_id, "event_type": kind, "occurred_at": at, "received_at": at}
    return dict.fromkeys(RAW_EVENT_COLUMNS) | stamped | more


def ablation(seed: int, subscribers: int, days: int) -> dict[str, dict[str, float]]:
    """AUC of churn and of send time, judged by true labels, when models learn from events weighed in three ways."""
    with tempfile.TemporaryDirectory() as place:
        simulation = simulate(subscribers, days, seed)
        write(simulation, Path(place) / "list")
        log = EventLog(Home(Path(place) / "home"))
        events, people, campaigns = (Path(place) / "list" / f"{name}.parquet" for name in TABLES)
        log.append(events, people, campaigns)
        truth = simulation.truth_events.select(["event_id", "is_human"])
        return {model: _by_weighing(model, log, truth, days) for model in ("churn", "send_time")}


def _by_weighing(model: str, log: EventLog, truth: pa.Table, days: int) -> dict[str, float]:
    until = START + timedelta(days=round(days * 0.72))
    said = {name: _answers(model, _weighed(log, until, name, truth), log, until) for name in WEIGHINGS}
    key = ["subscriber_id", "as_of"]
    labels = said["the truth"].set_index(key).label
    shared = labels.index
    for answers in said.values():
        shared = shared.intersection(answers.set_index(key).index)
    labels = labels[labels.index.isin(shared)]
    return {
        name: float(roc_auc_score(labels, answers.set_index(key).probability.reindex(labels.index)))
        for name, answers in said.items()
    }


TABLES = ("events", "subscribers", "campaigns")
WEIGHINGS = ("ours", "machines as people", "the truth")


def _weighed(log: EventLog, until: Any, name: str, truth: pa.Table) -> Folder:
    folder = folder_of(log, until, About())
    if name == "machines as people":
        folder.events = folder.events.mutate(human=ibis.literal(1.0))
    if name == "the truth":
        true = folder.con.create_table("truth", ibis.memtable(truth), temp=True)
        events = folder.events.left_join(true, "event_id").drop("event_id_right")
        # What a program does itself is no person's, but certain.
        human = (events.code < PATTERNS).ifelse(events.is_human.cast("float64"), events.human)
        folder.events = folder.con.create_table("true_evidence", events.mutate(human=human).drop("is_human"), temp=True)
    return folder


def _answers(model: str, folder: Folder, log: EventLog, until: Any) -> pd.DataFrame:
    end = log.end() + timedelta(microseconds=1)
    horizon = timedelta(days=30)
    asked = plan(model, until, [until], horizon=horizon) if model == "churn" else plan(model, until)
    spec = replace(asked.spec)
    learnt = train_until(spec, folder, log.start(), until, end)
    origin = ask(learnt, folder, asked.test_as_of, end, end)
    folder.con.disconnect()
    rows = origin.asked
    found = pd.DataFrame(
        {
            "subscriber_id": rows.subscriber_id.to_pylist(),
            "as_of": rows.as_of,
            "label": rows.label,
            "probability": origin.probability,
        }
    )
    kept: pd.DataFrame = found[np.isfinite(found.label)].drop_duplicates(["subscriber_id", "as_of"])
    return kept
